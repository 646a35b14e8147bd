"""What a deployment is asked with a verification, and what follows from the answers; against a commanded Hopsworks."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.api import Answer, Project
from airflow_provider_hsml.hopsworks.domain.diff import model_settings
from airflow_provider_hsml.hopsworks.domain.model_version import Framework, ModelVersion
from airflow_provider_hsml.hopsworks.domain.settings import Script
from airflow_provider_hsml.hopsworks.domain.verification import Verification
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, VerificationError
from airflow_provider_hsml.hopsworks.inference.ingress import Ingress
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, Run
from airflow_provider_hsml.hopsworks.rollout.reconcile import Reconciler, reconcile
from tests.support.arrivals import FILES, V2, WITH_EXAMPLE, WITHOUT_EXPECTED, starts
from tests.support.fake import PROJECT, FakeHopsworks, refusal, row

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome

LLM = ModelVersion("digits", 2, "digits_2", "demo", 119, {}, Framework.LLM)
AT_THE_INGRESS = WITHOUT_EXPECTED | {
    "variables/kube_knative_domain_name": {"successMessage": "hops.works"},
    "Resources/one.py": {"attributes": {"name": "one.py"}},
}
SCRIPT = {"script_file": Script("/Projects/demo/Resources/one.py")}


def arrive(
    fake: FakeHopsworks,
    verification: dict[str, Any],
    model: ModelVersion | None = V2,
    desired: dict[str, Any] | None = None,
    *,
    project: Project = PROJECT,
    timeout: float = 600.0,
) -> Outcome:
    """Have a version served, with a verification."""
    run = Run(project, "digits", timeout, 10.0, fake.clock)
    settings = (model_settings(model) if model else {}) | (desired or {})
    checks = Verification.read(verification, "verification").checks()
    return fake.run(reconcile(Reconciler(run, Desired(settings, model), checks=checks)))


def says(version: object = None, predictions: Any = (1,)) -> Answer:
    """Make an answer with a version in it."""
    answer = {"predictions": predictions, **({} if version is None else {"model": {"version": version}})}
    return Answer(200, json.dumps(answer).encode())


def rolls(fake: FakeHopsworks, *answers: tuple[float, Any], names: tuple[str, ...] = ("new",)) -> None:
    """Let an update roll within 5 seconds; what is answered then, and from when on."""

    def begin() -> None:
        fake.after(1.5, fake.becomes("Updating", instances=1))
        fake.after(5, fake.becomes("Running"))
        for seconds, answer in answers:
            fake.after(seconds, fake.serves(list(names), answer))

    fake.on["PUT"] = begin


def is_two(predictions: list[Any], _rows: list[Any]) -> bool:
    """What version 2 answers."""
    return predictions == [2]


IS_TWO = {"expect": f"{__name__}.is_two"}
BY_VERSION = {"version_path": "model.version", "instances": [[5]]}


class TestTheVersionInTheAnswer:
    @pytest.mark.parametrize("before", [1, "mine", None])
    def test_an_old_instance_means_not_yet(self, before: object) -> None:
        fake = FakeHopsworks(row=row(), files=WITHOUT_EXPECTED, names=[], answers=says(before))
        rolls(fake, (50, says(2)), names=())

        arrived = arrive(fake, BY_VERSION)

        assert arrived.verified_by == "fingerprint"
        assert fake.now >= 1050

    def test_another_version_is_wrong(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITHOUT_EXPECTED, answers=says(1))
        rolls(fake, (5, says(7)))

        with pytest.raises(VerificationError, match=r"answers as version 7, not as version 2 \(at 'model\.version'\)"):
            arrive(fake, BY_VERSION)

    def test_none_at_all_is_wrong_once_nothing_old_runs(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITHOUT_EXPECTED, answers=says(1))
        rolls(fake, (5, says(None)))

        with pytest.raises(VerificationError, match=r"without a model version at 'model\.version'"):
            arrive(fake, BY_VERSION)
        assert fake.now < 1030

    def test_the_same_version_in_another_configuration_tells_nothing(self) -> None:
        fake = FakeHopsworks(row=row(modelVersion=2), files=WITHOUT_EXPECTED, names=[], answers=says(2))
        rolls(fake)

        arrived = arrive(fake, BY_VERSION, desired={"scaling.max_instances": 3})

        assert (arrived.action, arrived.verified_by) == ("updated", "status")

    def test_attaching_to_a_rollout(self) -> None:
        """Who served before is not known any more; the answer itself says who gives it."""
        fake = FakeHopsworks(row=row("Updating", modelVersion=2), files=WITHOUT_EXPECTED, names=[], answers=says(1))
        fake.after(5, fake.becomes("Running"))
        fake.after(40, fake.serves([], says(2)))

        assert arrive(fake, BY_VERSION).verified_by == "fingerprint"

    def test_unchanged(self) -> None:
        fake = FakeHopsworks(row=row(modelVersion=2), files=WITHOUT_EXPECTED, answers=says(2))

        arrived = arrive(fake, BY_VERSION)

        assert (arrived.action, arrived.verified_by, fake.sent) == ("unchanged", "fingerprint", ["predict"])


class TestWhatIsExpected:
    def test_a_failed_probe_may_be_of_an_old_instance_for_a_while(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITH_EXAMPLE, names=[])
        rolls(fake, (45, [2]), names=())

        assert arrive(fake, IS_TWO).verified_by == "status"
        assert fake.now >= 1045

    def test_but_not_for_ever(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITH_EXAMPLE, names=[])
        rolls(fake, names=())

        with pytest.raises(VerificationError, match=r"is_two gave False for \[1\]"):
            arrive(fake, IS_TWO)
        assert 1060 <= fake.now < 1100

    def test_where_all_instances_are_new_it_is_wrong_at_once(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITH_EXAMPLE)
        rolls(fake, (5, [3]))

        with pytest.raises(VerificationError, match="is_two gave False"):
            arrive(fake, IS_TWO)
        assert fake.now < 1030

    def test_after_a_start_too(self) -> None:
        fake = FakeHopsworks(files=WITH_EXAMPLE)
        starts(fake, answers=[3])

        with pytest.raises(VerificationError, match="is_two gave False"):
            arrive(fake, IS_TWO)
        assert fake.now < 1010

    def test_an_unchanged_one_is_looked_at_again(self) -> None:
        fake = FakeHopsworks(row=row(modelVersion=2), files=WITH_EXAMPLE)
        fake.after(10, fake.serves(["old"], [2]))

        assert arrive(fake, IS_TWO).action == "attached"


class TestTheTimeItTakes:
    def test_each_probe_has_its_limit(self) -> None:
        fake = FakeHopsworks(files=WITH_EXAMPLE)
        starts(fake)
        slow = iter([0.1, 0.1, 0.1, 0.6])
        fake.on["predict"] = lambda: fake.sleep(next(slow))

        with pytest.raises(VerificationError, match="answered in 600 ms; 500 ms are allowed"):
            arrive(fake, {"max_latency_ms": 500})

    def test_what_was_not_routed_yet_is_counted_nowhere(self) -> None:
        fake = FakeHopsworks(files=WITH_EXAMPLE)
        starts(fake)
        fake.faults["predict"] = [refusal(400, 250008)] * 9

        assert arrive(fake, {"max_latency_ms": 500}).verified_by == "instances"
        assert fake.sent.count("predict") == 9 + 5

    def test_nor_is_the_request_that_wakes_it(self) -> None:
        scaling = {"requestedInstances": 0, "predictorScalingConfig": {"minInstances": 0}}
        fake = FakeHopsworks(row=row("Stopped", **scaling), files=WITH_EXAMPLE)
        waking = iter([20.0])
        fake.on["START"] = fake.becomes("Idle", revision="7")

        def wake() -> None:
            fake.sleep(next(waking, 0.1))
            fake.becomes("Running")()

        fake.on["predict"] = wake

        assert arrive(fake, {"max_latency_ms": 500}).deployment.status.value == "Running"
        assert fake.sent.count("predict") == 1 + 5


class TestTheHealthPath:
    @pytest.fixture
    def project(self) -> Project:
        """The project, asked by the ingress."""
        return replace(PROJECT, ingress=Ingress("http://127.0.0.1:9"))

    @staticmethod
    def stopped_vllm() -> FakeHopsworks:
        fake = FakeHopsworks(row=row("Stopped", modelServer="VLLM", modelVersion=2), files=AT_THE_INGRESS)
        starts(fake)
        return fake

    def test_vllm_has_one(self, project: Project) -> None:
        fake = self.stopped_vllm()

        arrived = arrive(fake, {}, LLM, project=project)

        assert arrived.verified_by == "instances"
        assert fake.reads.count("models") == 5, "GET /v1/models"
        assert "predict" not in fake.sent

    @pytest.mark.parametrize(("verification", "is_well"), [({}, True), ({"health_path": "/other"}, False)])
    def test_only_one_that_was_given_must_be_there(
        self, project: Project, verification: dict[str, Any], is_well: bool
    ) -> None:
        """That an unknown path is answered at all shows that it is up."""
        fake = self.stopped_vllm()
        for kind in ("models", "other"):
            fake.faults[kind] = [Answer(404, b'{"detail": "Not Found"}')] * 5

        if is_well:
            assert arrive(fake, verification, LLM, project=project).verified_by == "instances"
        else:
            with pytest.raises(VerificationError, match=r"refused the probe, /\w+: .* HTTP 404"):
                arrive(fake, verification, LLM, project=project)

    def test_it_is_not_well_for_too_long(self, project: Project) -> None:
        fake = self.stopped_vllm()
        fake.faults["health"] = [Answer(503, b"")] * 100

        with pytest.raises(VerificationError, match=r"does not answer, although it should: .* HTTP 503"):
            arrive(fake, {"health_path": "/health"}, LLM, project=project)
        assert fake.now >= 1060

    def test_a_script_without_a_model(self, project: Project) -> None:
        fake = FakeHopsworks(files=AT_THE_INGRESS)
        starts(fake)
        verification = {"health_path": "/is/well", "bake_seconds": 20, "max_latency_ms": 500}

        arrived = arrive(fake, verification, None, SCRIPT, project=project)

        assert (arrived.action, arrived.verified_by) == ("created", "instances")
        assert fake.reads.count("well") == 5 + 4

    def test_without_the_ingress_nothing_is_asked(self, caplog: pytest.LogCaptureFixture) -> None:
        fake = self.stopped_vllm()
        caplog.set_level(logging.INFO)

        assert arrive(fake, {}, LLM).verified_by == "instances"
        assert caplog.text.count("will not be asked: vLLM is asked in the words of OpenAI's API") == 1


class TestRefusedBeforeAnythingIsChanged:
    @pytest.mark.parametrize(
        ("verification", "files", "message"),
        [
            (IS_TWO, WITHOUT_EXPECTED, r"verification\.expect: nothing is known to ask this model version: give 'ins"),
            ({"version_path": "version"}, WITHOUT_EXPECTED, r"verification\.version_path: nothing is known to ask"),
            ({"max_latency_ms": 5}, WITHOUT_EXPECTED, r"verification\.max_latency_ms: nothing is known to ask"),
            ({"expect": "equal"}, WITH_EXAMPLE, "'equal' needs recorded answers for the rows that are asked"),
            ({"expect": "equal", "instances": [[9]]}, FILES, "'equal' needs recorded answers for the rows"),
            ({"health_path": "/health"}, FILES, r"verification\.health_path: .* Put inference_route: istio into its"),
        ],
    )
    @pytest.mark.parametrize("live", [None, row()])
    def test_what_cannot_be_checked(
        self, verification: dict[str, Any], files: dict[str, Any], message: str, live: dict[str, Any] | None
    ) -> None:
        fake = FakeHopsworks(row=live, files=files)

        with pytest.raises(InvalidInputError, match=message):
            arrive(fake, verification)
        assert fake.sent == []

    @pytest.mark.parametrize(
        ("live", "desired"),
        [(None, {"api_protocol": "GRPC"}), (row(), {"api_protocol": "GRPC"}), (row(apiProtocol="GRPC"), {})],
    )
    def test_grpc(self, live: dict[str, Any] | None, desired: dict[str, Any]) -> None:
        fake = FakeHopsworks(row=live, files=FILES)

        with pytest.raises(InvalidInputError, match="'digits' answers GRPC, which needs a GRPC client"):
            arrive(fake, {}, desired=desired)
        assert fake.sent == []

    @pytest.mark.parametrize(
        ("verification", "message"),
        [
            (
                {"instances": [[1]]},
                r"verification\.instances: .* at the ingress, .* connection does not go there",
            ),
            ({"version_path": "version"}, r"verification\.version_path: a script without a model"),
        ],
    )
    def test_a_script_without_a_model(self, verification: dict[str, Any], message: str) -> None:
        fake = FakeHopsworks(files=AT_THE_INGRESS)

        with pytest.raises(InvalidInputError, match=message):
            arrive(fake, verification, None, SCRIPT)
        assert fake.sent == []

    def test_rows_for_vllm(self) -> None:
        fake = FakeHopsworks(row=row(modelServer="VLLM"), files=FILES)

        with pytest.raises(
            InvalidInputError, match=r"verification\.instances: vLLM is asked in the words of OpenAI's API"
        ):
            arrive(fake, {"instances": [[1]]}, LLM)
        assert fake.sent == []

    def test_grpc_that_becomes_rest_is_verified(self) -> None:
        fake = FakeHopsworks(row=row(apiProtocol="GRPC"), files=FILES)
        rolls(fake, (5, [2]))

        assert arrive(fake, {}, desired={"api_protocol": "REST"}).verified_by == "fingerprint"


def test_recorded_answers_are_for_their_own_rows() -> None:
    fake = FakeHopsworks(row=row(), files=FILES)
    rolls(fake, (5, [2]))

    assert arrive(fake, {"instances": [[0]]}).verified_by == "fingerprint"

    fake = FakeHopsworks(row=row(), files=FILES)
    rolls(fake, (5, [7]))

    assert arrive(fake, {"instances": [[5]]}).verified_by == "instances"


def test_somebody_else_brings_the_same_version_meanwhile() -> None:
    """The state is Running still, and what answers is the version before: it is not there yet."""
    fake = FakeHopsworks(row=row(), files=FILES)

    def change() -> None:
        del fake.on["predict"]
        fake.row = row(modelVersion=2, version=2, revision="200")
        fake.after(1.5, fake.becomes("Updating", instances=1))
        fake.after(9, fake.becomes("Running"))
        fake.after(9, fake.serves(["new"], [2]))

    fake.on["predict"] = change

    arrived = arrive(fake, {})

    assert (arrived.action, arrived.verified_by) == ("attached", "fingerprint")
    assert "PUT" not in fake.sent


def test_the_tolerance() -> None:
    files = FILES | {"Models/digits/2/expected.json": {"instances": [[0]], "predictions": [2.0]}}
    fake = FakeHopsworks(row=row(), files=files)
    rolls(fake, (5, [2.05]))

    assert arrive(fake, {"tolerance": 0.1}).verified_by == "fingerprint"
