"""Probes of a deployment with a verification, and their consequences, against a scripted Hopsworks."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.api import Answer, Project
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.diff import model_settings
from airflow_provider_hsml.hopsworks.domain.judge import Probe
from airflow_provider_hsml.hopsworks.domain.model_version import Framework, ModelVersion
from airflow_provider_hsml.hopsworks.domain.settings import Script
from airflow_provider_hsml.hopsworks.domain.verification import Verification
from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    InferenceError,
    InvalidInputError,
    NoResponseError,
    SupersededError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.flow import LAST_READ, Backoff
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.inference.ingress import Ingress
from airflow_provider_hsml.hopsworks.promotion.guarded_change import EVIDENCE
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, RolloutPolicy, Run
from airflow_provider_hsml.hopsworks.rollout.probe import Prober
from airflow_provider_hsml.hopsworks.rollout.reconcile import Reconciler, reconcile
from tests.support.arrivals import FILES, V2, WITH_EXAMPLE, WITHOUT_EXPECTED, starts
from tests.support.fake import LOST, PROJECT, FakeHopsworks, refusal, row

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome

LLM = ModelVersion("digits", 2, "digits_2", "demo", 119, {}, Framework.LLM)
AT_THE_INGRESS = WITHOUT_EXPECTED | {
    "variables/kube_knative_domain_name": {"successMessage": "hops.works"},
    "Resources/one.py": {"attributes": {"name": "one.py"}},
}
SCRIPT = {"script_file": Script("/Projects/demo/Resources/one.py")}


def deploy(
    fake: FakeHopsworks,
    verification: dict[str, Any],
    model: ModelVersion | None = V2,
    desired: dict[str, Any] | None = None,
    *,
    project: Project = PROJECT,
    timeout: float = 600.0,
    grace: float | None = None,
) -> Outcome:
    """Deploy a version with a verification."""
    run = Run(project, "digits", timeout, 10.0, fake.clock)
    settings = (model_settings(model) if model else {}) | (desired or {})
    checks = Verification.read(verification, "verification").checks()
    policy = RolloutPolicy(unschedulable_grace=grace)
    return fake.run(reconcile(Reconciler(run, Desired(settings, model), policy, checks)))


def test_the_last_request_to_an_unreachable_deployment_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that cannot answer in the second that is left is not at fault."""
    fake, given = FakeHopsworks(row=row()), list[float]()
    prober = Prober(PROJECT, "digits", fake.clock)
    prober.judge.probe = Probe({"instances": [[1]]})

    async def ask(*_: object, seconds: float) -> None:
        given.append(seconds)
        message = "no healthy upstream"
        raise NoResponseError(message, sent=False)

    monkeypatch.setattr(predict, "ask_model", ask)

    with pytest.raises(NoResponseError):
        fake.run(prober.probe_once(Deployment.from_json(row())))
    assert min(given) == LAST_READ


def says(version: object = None, predictions: Any = (1,)) -> Answer:
    """Build an answer with a version in it."""
    answer = {"predictions": predictions, **({} if version is None else {"model": {"version": version}})}
    return Answer(200, json.dumps(answer).encode())


def rolls(fake: FakeHopsworks, *answers: tuple[float, Any], names: tuple[str, ...] = ("new",)) -> None:
    """Let an update roll out within 5 seconds; each answer applies from its time on."""

    def begin() -> None:
        fake.after(1.5, fake.becomes("Updating", instances=1))
        fake.after(5, fake.becomes("Running"))
        for seconds, answer in answers:
            fake.after(seconds, fake.serves(list(names), answer))

    fake.on["PUT"] = begin


def is_two(predictions: list[Any], _rows: list[Any]) -> bool:
    """Return whether the predictions are those of version 2."""
    return predictions == [2]


IS_TWO = {"expect": f"{__name__}.is_two"}
BY_VERSION = {"version_path": "model.version", "instances": [[5]]}


NOT_SENDABLE = {
    "both keys": ({"instances": [[0]], "inputs": [[0]]}, "it has both of the keys"),
    "an empty list": ([], "it has no rows"),
    "an empty object": ({}, "it has no rows"),
    "no instances": ({"instances": []}, "it has no rows"),
    "null instances": ({"instances": None}, "it has no rows"),
    "no columns": ({"inputs": {"x": []}}, "it has no rows"),
    "an empty text": ({"inputs": ""}, "it has no rows"),
    "NaN": ([[float("nan")]], "not JSON compliant"),
}


@pytest.mark.parametrize(("example", "why"), NOT_SENDABLE.values(), ids=NOT_SENDABLE)
class TestARegisteredExampleThatCannotBeSent:
    def test_counts_as_none(self, example: Any, why: str, caplog: pytest.LogCaptureFixture) -> None:
        """A model's refusal of it would say nothing about the model."""
        fake = FakeHopsworks(row=row(), files=WITHOUT_EXPECTED | {"Models/digits/2/input_example.json": example})
        rolls(fake, (5, [2]))

        assert deploy(fake, {}).verified_by == "instances"
        assert "predict" not in fake.sent
        (warning,) = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
        assert warning.startswith("Version 2 of model 'digits': input_example.json is not sent as a request: ")
        assert why in warning

    def test_is_no_example_for_checks_that_need_one(self, example: Any, why: str) -> None:
        fake = FakeHopsworks(row=row(), files=WITHOUT_EXPECTED | {"Models/digits/2/input_example.json": example})

        with pytest.raises(InvalidInputError, match=r"verification\.expect: there is no example request"):
            deploy(fake, {"expect": "finite"})
        assert fake.sent == [], why


def test_recorded_answers_that_cannot_be_sent_leave_the_example() -> None:
    recorded = {"Models/digits/2/expected.json": {"instances": [[float("nan")]], "predictions": [2]}}
    fake = FakeHopsworks(row=row(), files=WITH_EXAMPLE | recorded)
    rolls(fake, (5, [2]))

    assert deploy(fake, {}).verified_by == "instances"
    assert fake.sent.count("predict") > 5


AT_INGRESS = "POST v1/demo/digits/v1/models/digits:predict"
"""The fake's name for a request to the model at the ingress."""


LIMITS = [401, 403, 413, 414, 421, 431]
"""The statuses with which the ingress refuses a request, whichever version it is for."""


PROBES = {"example": {}, "checked example": {"expect": "finite"}, "rows": {"instances": [[0]]}}


@pytest.mark.parametrize(
    ("status", "verification"),
    [pytest.param(status, probe, id=f"{name}-{status}") for status in LIMITS for name, probe in PROBES.items()],
)
class TestALimitOfTheIngress:
    """Envoy refuses the request, whichever version it is for."""

    def deploy(self, fake: FakeHopsworks, verification: dict[str, Any]) -> Outcome:
        return deploy(fake, verification, project=replace(PROJECT, ingress=Ingress("http://127.0.0.1:9")))

    def fake(self, *answers: Any) -> FakeHopsworks:
        fake = FakeHopsworks(row=row(projectNamespace="demo"), files=WITH_EXAMPLE, faults={AT_INGRESS: [*answers]})
        rolls(fake, (5, [2]))
        return fake

    def test_before_the_change_ends_it_with_nothing_changed(self, status: int, verification: dict[str, Any]) -> None:
        """But for an example that is too large: it is left out."""
        fake = self.fake(*[Answer(status, b"refused by Envoy")] * 99)
        is_left_out = (status, verification) == (413, {})

        with nullcontext() if is_left_out else pytest.raises(InferenceError, match=f"HTTP {status}: refused by Envoy"):
            self.deploy(fake, verification)
        assert fake.sent == [AT_INGRESS, *(["PUT"] if is_left_out else [])]

    def test_after_the_change_is_no_evidence(self, status: int, verification: dict[str, Any]) -> None:
        fake = self.fake(says(), *[Answer(status, b"refused by Envoy")] * 99)

        with pytest.raises(HopsworksError, match=f"HTTP {status}: refused by Envoy") as caught:
            self.deploy(fake, verification)
        assert not isinstance(caught.value, EVIDENCE)
        assert fake.sent.count("PUT") == 1


class TestARegisteredExampleThatIsTooLarge:
    """No version gets to see it, so the deployment is verified without it."""

    @staticmethod
    def deploy(fake: FakeHopsworks, *answers: Any, verification: dict[str, Any] | None = None) -> Outcome:
        fake.faults[AT_INGRESS] = [*answers, *[Answer(413, b"too large for Envoy")] * 99]
        project = replace(PROJECT, ingress=Ingress("http://127.0.0.1:9"))
        return deploy(fake, verification or {}, project=project)

    def test_does_not_keep_a_version_from_its_deployment(self, caplog: pytest.LogCaptureFixture) -> None:
        fake = FakeHopsworks(row=row(projectNamespace="demo"), files=WITH_EXAMPLE)
        rolls(fake, (5, [2]))

        assert self.deploy(fake).verified_by == "instances"
        assert fake.sent == [AT_INGRESS, "PUT"]
        (warning,) = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
        assert "HTTP 413" in warning
        assert warning.endswith("the request is not sent as a probe")

    @pytest.mark.parametrize("status", ["Stopped", "Running"])
    def test_is_not_sent_after_a_start_or_to_a_version_that_serves(self, status: str) -> None:
        fake = FakeHopsworks(row=row(status, projectNamespace="demo", modelVersion=2), files=WITH_EXAMPLE)
        starts(fake)

        assert self.deploy(fake).verified_by == ("status" if status == "Running" else "instances")
        assert fake.sent.count(AT_INGRESS) == 1

    def test_does_not_wake_an_idle_deployment(self) -> None:
        """Its instances cannot be seen then: it counts as one that runs."""
        scaling = {"requestedInstances": 0, "predictorScalingConfig": {"minInstances": 0}}
        fake = FakeHopsworks(row=row("Idle", projectNamespace="demo", **scaling), files=WITH_EXAMPLE)

        assert self.deploy(fake).deployment.status.value == "Idle"
        assert fake.sent == ["PUT", AT_INGRESS]

    def test_and_was_answered_before_the_change_is_no_evidence(self) -> None:
        """Only the limit can have changed, and perhaps for a while."""
        fake = FakeHopsworks(row=row(projectNamespace="demo"), files=WITH_EXAMPLE)
        rolls(fake, (5, [2]))

        with pytest.raises(InferenceError, match="HTTP 413: too large for Envoy") as caught:
            self.deploy(fake, says())
        assert not isinstance(caught.value, EVIDENCE)

    @pytest.mark.parametrize("check", [{"expect": "finite"}, {"max_latency_ms": 500}, BY_VERSION])
    def test_is_an_error_if_a_check_needs_its_answer(self, check: dict[str, Any]) -> None:
        fake = FakeHopsworks(row=row(projectNamespace="demo"), files=WITH_EXAMPLE)

        with pytest.raises(InferenceError, match="HTTP 413"):
            self.deploy(fake, verification=check)
        assert fake.sent == [AT_INGRESS]


def test_no_probe_is_left_of_a_dropped_one() -> None:
    """Of a health path neither: a key without the right is refused there, too."""
    fake = FakeHopsworks()
    prober = Prober(replace(PROJECT, ingress=Ingress("http://127.0.0.1:9")), "digits", fake.clock)
    backoff = Backoff(first=1, most=1, deadline=2000, clock=fake.clock)
    fake.run(prober.prepare(Deployment.from_json(row(modelServer="VLLM")), {}, None, backoff))
    assert prober.can_probe

    prober.drop_probe(InferenceError("ask", status=403, text="no"))

    assert not prober.can_probe


class TestVersionInTheAnswer:
    @pytest.mark.parametrize("before", [1, "mine", None])
    def test_an_answer_of_the_previous_version_means_that_the_rollout_is_in_progress(self, before: object) -> None:
        fake = FakeHopsworks(row=row(), files=WITHOUT_EXPECTED, names=[], answers=says(before))
        rolls(fake, (50, says(2)), names=())

        outcome = deploy(fake, BY_VERSION)

        assert outcome.verified_by == "fingerprint"
        assert fake.now >= 1050

    def test_another_version_is_wrong(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITHOUT_EXPECTED, answers=says(1))
        rolls(fake, (5, says(7)))

        with pytest.raises(VerificationError, match=r"answers as version 7, not as version 2 \(at 'model\.version'\)"):
            deploy(fake, BY_VERSION)

    def test_no_version_is_wrong_once_all_instances_are_new(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITHOUT_EXPECTED, answers=says(1))
        rolls(fake, (5, says(None)))

        with pytest.raises(VerificationError, match=r"without a model version at 'model\.version'"):
            deploy(fake, BY_VERSION)
        assert fake.now < 1030

    def test_the_same_version_in_another_configuration_is_no_fingerprint(self) -> None:
        fake = FakeHopsworks(row=row(modelVersion=2), files=WITHOUT_EXPECTED, names=[], answers=says(2))
        rolls(fake)

        outcome = deploy(fake, BY_VERSION, desired={"scaling.max_instances": 3})

        assert (outcome.action, outcome.verified_by) == ("updated", "status")

    def test_attaching_to_a_rollout(self) -> None:
        """The previous version is unknown by then; the version in the answer still attributes it."""
        fake = FakeHopsworks(row=row("Updating", modelVersion=2), files=WITHOUT_EXPECTED, names=[], answers=says(1))
        fake.after(5, fake.becomes("Running"))
        fake.after(40, fake.serves([], says(2)))

        assert deploy(fake, BY_VERSION).verified_by == "fingerprint"

    def test_unchanged(self) -> None:
        fake = FakeHopsworks(row=row(modelVersion=2), files=WITHOUT_EXPECTED, answers=says(2))

        outcome = deploy(fake, BY_VERSION)

        assert (outcome.action, outcome.verified_by, fake.sent) == ("unchanged", "fingerprint", ["predict"])


class TestExpectations:
    def test_a_failed_probe_may_be_an_old_instances_for_a_while(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITH_EXAMPLE, names=[])
        rolls(fake, (45, [2]), names=())

        assert deploy(fake, IS_TWO).verified_by == "status"
        assert fake.now >= 1045

    def test_a_failed_probe_counts_after_the_route_budget(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITH_EXAMPLE, names=[])
        rolls(fake, names=())

        with pytest.raises(VerificationError, match=r"is_two returned False for \[1\]"):
            deploy(fake, IS_TWO)
        assert 1060 <= fake.now < 1100

    def test_a_failed_probe_counts_at_once_if_all_instances_are_new(self) -> None:
        fake = FakeHopsworks(row=row(), files=WITH_EXAMPLE)
        rolls(fake, (5, [3]))

        with pytest.raises(VerificationError, match="is_two returned False"):
            deploy(fake, IS_TWO)
        assert fake.now < 1030

    def test_a_failed_probe_counts_at_once_after_a_start(self) -> None:
        fake = FakeHopsworks(files=WITH_EXAMPLE)
        starts(fake, answers=[3])

        with pytest.raises(VerificationError, match="is_two returned False"):
            deploy(fake, IS_TWO)
        assert fake.now < 1010

    def test_an_unchanged_deployment_with_a_failed_probe_is_watched(self) -> None:
        fake = FakeHopsworks(row=row(modelVersion=2), files=WITH_EXAMPLE)
        fake.after(10, fake.serves(["old"], [2]))

        assert deploy(fake, IS_TWO).action == "attached"


class TestLatency:
    def test_each_probe_has_its_limit(self) -> None:
        fake = FakeHopsworks(files=WITH_EXAMPLE)
        starts(fake)
        slow = iter([0.1, 0.1, 0.1, 0.6])
        fake.on["predict"] = lambda: fake.sleep(next(slow))

        with pytest.raises(VerificationError, match="answered in 600 ms; 500 ms are allowed"):
            deploy(fake, {"max_latency_ms": 500})

    def test_answers_without_a_route_are_not_counted(self) -> None:
        fake = FakeHopsworks(files=WITH_EXAMPLE)
        starts(fake)
        fake.faults["predict"] = [refusal(400, 250008)] * 9

        assert deploy(fake, {"max_latency_ms": 500}).verified_by == "instances"
        assert fake.sent.count("predict") == 9 + 5

    def test_the_request_that_wakes_it_is_not_counted(self) -> None:
        scaling = {"requestedInstances": 0, "predictorScalingConfig": {"minInstances": 0}}
        fake = FakeHopsworks(row=row("Stopped", **scaling), files=WITH_EXAMPLE)
        waking = iter([20.0])
        fake.on["START"] = fake.becomes("Idle", revision="7")

        def wake() -> None:
            fake.sleep(next(waking, 0.1))
            fake.becomes("Running")()

        fake.on["predict"] = wake

        assert deploy(fake, {"max_latency_ms": 500}).deployment.status.value == "Running"
        assert fake.sent.count("predict") == 1 + 5


class TestARequestThatHangs:
    """A probe that gets no response for as long as the route may take."""

    def test_is_no_evidence_alone(self) -> None:
        fake = FakeHopsworks(files=FILES)
        starts(fake)
        fake.on["predict"] = lambda: fake.sleep(61) if fake.sent.count("predict") == 1 else None
        fake.faults["predict"] = [LOST]

        outcome = deploy(fake, {})

        assert outcome.deployment.model_version == 2
        assert fake.sent.count("predict") == 1 + 5

    def test_is_evidence_twice(self) -> None:
        fake = FakeHopsworks(files=FILES)
        starts(fake)
        fake.on["predict"] = lambda: fake.sleep(61)
        fake.faults["predict"] = [LOST] * 9

        with pytest.raises(VerificationError, match="does not answer, although it should"):
            deploy(fake, {})
        assert fake.sent.count("predict") == 2


@pytest.mark.parametrize("status", ["Stopped", "Stopping"])
def test_another_client_stops_it_while_it_is_probed(status: str) -> None:
    """That is no evidence about the version, and is kept."""
    fake = FakeHopsworks(files=FILES)
    starts(fake)
    fake.after(30, fake.becomes(status))
    fake.faults["predict"] = [refusal(400, 250001, "It is Stopped.")] * 99

    with pytest.raises(SupersededError, match="was stopped by another client while it was probed"):
        deploy(fake, {})
    assert fake.sent.count("STOP") == 0


class TestHealthPath:
    @pytest.fixture
    def project(self) -> Project:
        """The project, with its ingress."""
        return replace(PROJECT, ingress=Ingress("http://127.0.0.1:9"))

    @staticmethod
    def stopped_vllm() -> FakeHopsworks:
        fake = FakeHopsworks(row=row("Stopped", modelServer="VLLM", modelVersion=2), files=AT_THE_INGRESS)
        starts(fake)
        return fake

    def test_vllm_is_probed_at_its_models_route(self, project: Project) -> None:
        fake = self.stopped_vllm()

        outcome = deploy(fake, {}, LLM, project=project)

        assert outcome.verified_by == "instances"
        assert fake.reads.count("models") == 5, "GET /v1/models"
        assert "predict" not in fake.sent

    @pytest.mark.parametrize(("verification", "is_well"), [({}, True), ({"health_path": "/other"}, False)])
    def test_only_a_configured_path_must_exist(
        self, project: Project, verification: dict[str, Any], is_well: bool
    ) -> None:
        """An answer to an unknown path shows that the server is up."""
        fake = self.stopped_vllm()
        for kind in ("models", "other"):
            fake.faults[kind] = [Answer(404, b'{"detail": "Not Found"}')] * 5

        if is_well:
            assert deploy(fake, verification, LLM, project=project).verified_by == "instances"
        else:
            with pytest.raises(VerificationError, match=r"refused the probe, /\w+: .* HTTP 404"):
                deploy(fake, verification, LLM, project=project)

    def test_an_unhealthy_deployment_fails_after_the_route_budget(self, project: Project) -> None:
        fake = self.stopped_vllm()
        fake.faults["health"] = [Answer(503, b"")] * 100

        with pytest.raises(VerificationError, match=r"does not answer, although it should: .* HTTP 503"):
            deploy(fake, {"health_path": "/health"}, LLM, project=project)
        assert fake.now >= 1060

    @pytest.mark.parametrize("fault", [LOST, refusal(500, 120000), Answer(502, b"<html>")])
    @pytest.mark.parametrize("read", ["serving", "kube_knative_domain_name"])
    def test_an_address_that_cannot_be_read_is_no_evidence(self, project: Project, read: str, fault: Any) -> None:
        """Hopsworks fails then, whatever the deployment does."""
        fake = self.stopped_vllm()
        fake.after(3, lambda: fake.faults.update({read: [fault] * 999}))

        with pytest.raises(HopsworksError) as caught:
            deploy(fake, {"health_path": "/health"}, LLM, project=project)
        assert not isinstance(caught.value, EVIDENCE)
        assert caught.value.transient

    def test_a_script_without_a_model(self, project: Project) -> None:
        fake = FakeHopsworks(files=AT_THE_INGRESS)
        starts(fake)
        verification = {"health_path": "/is/well", "bake_seconds": 20, "max_latency_ms": 500}

        outcome = deploy(fake, verification, None, SCRIPT, project=project)

        assert (outcome.action, outcome.verified_by) == ("created", "instances")
        assert fake.reads.count("well") == 5 + 4

    def test_without_the_ingress_there_is_no_probe(self, caplog: pytest.LogCaptureFixture) -> None:
        fake = self.stopped_vllm()
        caplog.set_level(logging.INFO)

        assert deploy(fake, {}, LLM).verified_by == "instances"
        assert caplog.text.count("will not be probed: vLLM is probed with OpenAI's API") == 1


class TestRefusedBeforeAnythingIsChanged:
    @pytest.mark.parametrize(
        ("verification", "files", "message"),
        [
            (
                IS_TWO,
                WITHOUT_EXPECTED,
                r"verification\.expect: there is no example request for this model version. Pass 'ins",
            ),
            ({"version_path": "version"}, WITHOUT_EXPECTED, r"verification\.version_path: there is no example request"),
            ({"max_latency_ms": 5}, WITHOUT_EXPECTED, r"verification\.max_latency_ms: there is no example request"),
            ({"expect": "equal"}, WITH_EXAMPLE, "'equal' needs recorded predictions for the rows that are sent"),
            ({"expect": "equal", "instances": [[9]]}, FILES, "'equal' needs recorded predictions for the rows"),
            ({"health_path": "/health"}, FILES, r"verification\.health_path: .*\nPut inference_route: istio into its"),
        ],
    )
    @pytest.mark.parametrize("live", [None, row()])
    def test_impossible_checks(
        self, verification: dict[str, Any], files: dict[str, Any], message: str, live: dict[str, Any] | None
    ) -> None:
        fake = FakeHopsworks(row=live, files=files)

        with pytest.raises(InvalidInputError, match=message):
            deploy(fake, verification)
        assert fake.sent == []

    @pytest.mark.parametrize(
        ("live", "desired"),
        [(None, {"api_protocol": "GRPC"}), (row(), {"api_protocol": "GRPC"}), (row(apiProtocol="GRPC"), {})],
    )
    def test_grpc(self, live: dict[str, Any] | None, desired: dict[str, Any]) -> None:
        fake = FakeHopsworks(row=live, files=FILES)

        with pytest.raises(InvalidInputError, match="'digits' uses GRPC, which needs a GRPC client"):
            deploy(fake, {}, desired=desired)
        assert fake.sent == []

    @pytest.mark.parametrize(
        ("verification", "message"),
        [
            (
                {"instances": [[1]]},
                r"verification\.instances: .* at the ingress, .* connection does not use the ingress",
            ),
            ({"version_path": "version"}, r"verification\.version_path: a script without a model"),
        ],
    )
    def test_a_script_without_a_model(self, verification: dict[str, Any], message: str) -> None:
        fake = FakeHopsworks(files=AT_THE_INGRESS)

        with pytest.raises(InvalidInputError, match=message):
            deploy(fake, verification, None, SCRIPT)
        assert fake.sent == []

    def test_rows_for_vllm(self) -> None:
        fake = FakeHopsworks(row=row(modelServer="VLLM"), files=FILES)

        with pytest.raises(InvalidInputError, match=r"verification\.instances: vLLM is probed with OpenAI's API"):
            deploy(fake, {"instances": [[1]]}, LLM)
        assert fake.sent == []

    def test_grpc_that_becomes_rest_is_verified(self) -> None:
        fake = FakeHopsworks(row=row(apiProtocol="GRPC"), files=FILES)
        rolls(fake, (5, [2]))

        assert deploy(fake, {}, desired={"api_protocol": "REST"}).verified_by == "fingerprint"


def test_recorded_answers_are_for_their_own_rows() -> None:
    fake = FakeHopsworks(row=row(), files=FILES)
    rolls(fake, (5, [2]))

    assert deploy(fake, {"instances": [[0]]}).verified_by == "fingerprint"

    fake = FakeHopsworks(row=row(), files=FILES)
    rolls(fake, (5, [7]))

    assert deploy(fake, {"instances": [[5]]}).verified_by == "instances"


def test_another_client_deploys_the_same_version_meanwhile() -> None:
    """The status is still Running, and the previous version answers: the rollout is in progress."""
    fake = FakeHopsworks(row=row(), files=FILES)

    def change() -> None:
        del fake.on["predict"]
        fake.row = row(modelVersion=2, version=2, revision="200")
        fake.after(1.5, fake.becomes("Updating", instances=1))
        fake.after(9, fake.becomes("Running"))
        fake.after(9, fake.serves(["new"], [2]))

    fake.on["predict"] = change

    outcome = deploy(fake, {})

    assert (outcome.action, outcome.verified_by) == ("attached", "fingerprint")
    assert "PUT" not in fake.sent


def test_the_tolerance() -> None:
    files = FILES | {"Models/digits/2/expected.json": {"instances": [[0]], "predictions": [2.0]}}
    fake = FakeHopsworks(row=row(), files=files)
    rolls(fake, (5, [2.05]))

    assert deploy(fake, {"tolerance": 0.1}).verified_by == "fingerprint"
