"""Verification, as tasks use it: against a local Model Serving over HTTP."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_hsml import DeployBestModelOperator, DeployModelOperator, HsmlHook
from airflow_provider_hsml.hopsworks import Verification
from airflow_provider_hsml.local import LocalServing, Speeds, StartFault
from tests.support.tasks import FakeTaskInstance, changes, execute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.hopsworks, pytest.mark.usefixtures("serving")]

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"verified{next(_numbers)}"


@pytest.fixture
def champion(name: str, register: Callable[..., int]) -> str:
    """A model whose first version serves; its name."""
    register(name, 1, recorded=False, accuracy=0.8)
    execute(deploy(name))
    return name


def deploy(name: str | None, **more: Any) -> DeployModelOperator:
    return DeployModelOperator(task_id="task", model_name=name, poll_interval=0.1, timeout=60, **more)


def below_five(predictions: list[float], rows: list[Any]) -> bool:
    """An expectation of a user's own."""
    return len(predictions) == len(rows) and max(predictions) < 5


class TestWhatIsAsked:
    def test_rows_of_their_own_and_what_is_expected_of_them(
        self, serving: LocalServing, champion: str, register: Callable[..., int]
    ) -> None:
        register(champion, 4, recorded=False)
        serving.requests.clear()

        record = execute(
            deploy(champion, verification=Verification(instances=[[7.0]], expect=f"{__name__}.below_five"))
        )

        assert (record["action"], record["verified_by"]) == ("updated", "instances")
        probes = changes(serving).count(("POST", f"{champion}:predict"))
        assert probes == 1 + 5, "one of the serving version before the change, and five of the new one"

    @pytest.mark.airflow
    def test_what_fails_it_takes_the_version_back(self, champion: str, register: Callable[..., int]) -> None:
        register(champion, 6, recorded=False)
        ti = FakeTaskInstance()

        with pytest.raises(AirflowFailException, match=r"below_five returned False for \[6, 6\]"):
            execute(deploy(champion, verification={"expect": f"{__name__}.below_five"}), ti)

        assert ti.pushed["promotion"]["action"] == "rolled_back"
        assert HsmlHook().predict(champion, inputs=[1]) == {"predictions": [1]}

    def test_it_is_left_where_that_was_asked_for(self, champion: str, register: Callable[..., int]) -> None:
        register(champion, 6, recorded=False)
        verification = Verification(expect=f"{__name__}.below_five", on_failure="leave")

        with pytest.raises(AirflowFailException, match="returned False"):
            execute(deploy(champion, verification=verification))

        assert HsmlHook().predict(champion, inputs=[1]) == {"predictions": [6]}

    def test_an_answer_without_a_version(self, champion: str, register: Callable[..., int]) -> None:
        register(champion, 4, recorded=False)

        with pytest.raises(AirflowFailException, match=r"answers without a model version at 'model\.no'"):
            execute(deploy(champion, verification={"version_path": "model.no", "on_failure": "leave"}))

    def test_the_version_in_the_answer(self, hook: HsmlHook, name: str, model_file: Callable[..., Path]) -> None:
        """As a predictor script gives it; version 3 has it wrong."""

        def registered(answer: int, says: int) -> DeployModelOperator:
            files = model_file(answer=answer, says={"model": {"version": says}})
            hook.register_model(
                model_name=name, model_path=files, framework="SKLEARN", input_example=[[1.0]], metrics={}
            )
            return deploy(name, verification={"version_path": "model.version"})

        assert execute(registered(1, 1))["verified_by"] == "fingerprint"
        assert execute(registered(1, 2))["verified_by"] == "fingerprint"
        with pytest.raises(AirflowFailException, match=r"answers as version 7, not as version 3 .*\n.*rolled back"):
            execute(registered(1, 7))

    def test_equal_is_as_recorded(self, name: str, register: Callable[..., int]) -> None:
        register(name, 3)

        assert execute(deploy(name, verification={"expect": "equal"}))["verified_by"] == "fingerprint"

    def test_too_slow(self, champion: str, register: Callable[..., int]) -> None:
        register(champion, 2, recorded=False)

        with pytest.raises(AirflowFailException, match=r"answered in \d+ ms; 0.001 ms are allowed"):
            execute(deploy(champion, verification={"max_latency_ms": "0.001"}))

    def test_recorded_answers_do_not_count_for_other_rows(self, name: str, register: Callable[..., int]) -> None:
        register(name, 3)

        record = execute(deploy(name, verification={"instances": [[5.0], [6.0], [7.0]], "expect": "same_length"}))

        assert (record["action"], record["verified_by"]) == ("created", "instances")

    def test_the_best_one_is_verified_too(self, champion: str, register: Callable[..., int]) -> None:
        register(champion, 4, recorded=False, accuracy=0.9)
        task = DeployBestModelOperator(
            task_id="task",
            model_name=champion,
            metric="accuracy",
            direction="max",
            poll_interval=0.1,
            verification={"expect": "finite", "bake_seconds": 0.3, "probe_interval": "0.1"},
        )

        assert execute(task)["action"] == "updated"


class TestTheBake:
    def test_it_is_asked_for_a_while(
        self, name: str, register: Callable[..., int], caplog: pytest.LogCaptureFixture
    ) -> None:
        register(name, 3)

        execute(deploy(name, verification=Verification(bake_seconds=0.5, probe_interval=0.1)))

        summary = re.search(r"watched for 0\.5 s; (\d) probes, 0 failed, the slowest took \d+ ms", caplog.text)
        assert summary is not None
        assert 1 <= int(summary[1]) <= 5

    @pytest.mark.parametrize("rate", [0, 1])
    def test_a_crash_in_it_takes_the_version_back(
        self, serving: LocalServing, champion: str, register: Callable[..., int], rate: int
    ) -> None:
        """It is seen by its state, or by what it answers, whichever comes first."""
        register(champion, 4, recorded=False)
        serving.faults.add(StartFault(deployment=champion, crash_after=4.0))
        ti = FakeTaskInstance()
        verification = {"bake_seconds": 60, "probe_interval": 0.2, "max_error_rate": rate}

        with pytest.raises(AirflowFailException, match=r"It was rolled back: .*version 1 .* serves again") as failed:
            execute(deploy(champion, verification=verification), ti)

        assert "do not come up" in str(failed.value) or "probes failed while it was watched" in str(failed.value)
        assert ti.pushed["promotion"]["action"] == "rolled_back"
        assert HsmlHook().predict(champion, inputs=[1]) == {"predictions": [1]}

    def test_errors_in_it_take_the_version_back(
        self, champion: str, register: Callable[..., int], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Verified five times, and wrong from then on."""
        _answers.clear()
        register(champion, 4, recorded=False)
        verification = {
            "expect": f"{__name__}.right_five_times",
            "bake_seconds": 2,
            "probe_interval": 0.1,
            "max_error_rate": 0.1,
        }

        with pytest.raises(AirflowFailException, match=r"3 of 3 probes failed while it was watched for 2 s"):
            execute(deploy(champion, verification=verification))

        assert "right_five_times returned False" in caplog.text
        assert HsmlHook().predict(champion, inputs=[1]) == {"predictions": [1]}


_answers: list[Any] = []


def right_five_times(predictions: list[Any], _rows: list[Any]) -> bool:
    _answers.append(predictions)
    return len(_answers) <= 5


class TestTheIngress:
    @pytest.fixture
    def by_ingress(self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
        fields = json.loads(serving.connection)
        fields["extra"] |= {"inference_route": "istio", "ingress_url": serving.ingress_url}
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(fields))

    def test_a_health_path_needs_it(self, serving: LocalServing, name: str, register: Callable[..., int]) -> None:
        register(name, 3)
        serving.requests.clear()

        with pytest.raises(AirflowFailException, match=r"health_path: .* the connection does not use the ingress"):
            execute(deploy(name, verification={"health_path": "/health"}))

        assert changes(serving) == []

    @pytest.mark.usefixtures("by_ingress")
    @pytest.mark.since_hopsworks("4.6")
    def test_a_script_without_a_model(self, serving: LocalServing, name: str, tmp_path: Path) -> None:
        script = tmp_path / "program.py"
        script.write_text("print('hello')")
        path = f"/v1/models/{name}"
        serving.requests.clear()

        record = execute(
            deploy(
                None,
                deployment_name=name,
                spec={"script_file": str(script)},
                verification=Verification(health_path=path, bake_seconds=0.3, probe_interval=0.1),
            )
        )

        assert (record["action"], record["verified_by"]) == ("created", "instances")
        assert sum(one.method == "GET" and one.path.endswith(path) for one in serving.requests) >= 5 + 1

    @pytest.mark.usefixtures("by_ingress")
    @pytest.mark.since_hopsworks("4.2")
    @pytest.mark.parametrize("given", ["a path", None])
    def test_vllm(
        self, hook: HsmlHook, serving: LocalServing, name: str, model_file: Callable[..., Path], given: str | None
    ) -> None:
        """It is asked for the models it serves where no path was given."""
        hook.register_model(model_name=name, model_path=model_file(answer=1), framework="LLM", metrics={})
        config = model_file(answer=1) / "vllm.yml"
        config.write_text("max_model_len: 10")
        verification = {"health_path": f"/v1/models/{name}"} if given else {}
        serving.requests.clear()

        record = execute(deploy(name, spec={"config_file": str(config)}, verification=verification))

        assert record["verified_by"] == "instances"
        asked = [
            one.path for one in serving.requests if one.path.endswith(f"/v1/models/{name}" if given else "/v1/models")
        ]
        assert len(asked) >= 5

    @pytest.mark.usefixtures("by_ingress")
    def test_a_path_that_is_not_there(self, name: str, register: Callable[..., int]) -> None:
        register(name, 3)

        with pytest.raises(AirflowFailException, match=r"refused the probe, /nothing/there: .* HTTP 404"):
            execute(deploy(name, verification={"health_path": "/nothing/there"}))


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("verification", "message"),
        [
            ({"expects": "finite"}, "verification: unknown key 'expects'; did you mean 'expect'"),
            ({"expect": "finit"}, "verification.expect: expected one of finite, same_length, equal, or the dotted"),
            ({"expect": "nowhere.at_all"}, "verification.expect: .*No module named 'nowhere'"),
            ({"expect": "json.nothing"}, "verification.expect: .*has no attribute 'nothing'"),
            ({"expect": "json.__name__"}, "verification.expect: expected one of"),
            ({"max_error_rate": 1.5}, "verification.max_error_rate: expected a share"),
            ({"bake_seconds": "long"}, "verification.bake_seconds: expected a finite number"),
            ({"on_failure": "panic"}, "verification.on_failure: expected one of rollback, leave"),
            (
                {"instances": [[1]], "inputs": [1]},
                "verification.instances and verification.inputs: expected only one of",
            ),
            ({"instances": [[1]], "health_path": "/health"}, "verification.health_path: expected health_path alone"),
            ({"health_path": "/../up"}, "health_path: expected a path like"),
        ],
    )
    def test_what_is_wrong_is_said_before_anything_is_asked(
        self, serving: LocalServing, name: str, verification: dict[str, Any], message: str
    ) -> None:
        serving.requests.clear()

        # A literal is checked when the DAG file is parsed, but for the function that it names.
        with pytest.raises((AirflowFailException, ValueError), match=message):
            execute(deploy(name, verification=verification))

        assert changes(serving) == []

    @pytest.mark.parametrize(
        ("verification", "message"),
        [
            ({"expect": "equal"}, "'equal' needs recorded predictions"),
            ({"expect": "equal", "instances": [[9.0]]}, "'equal' needs recorded predictions for the rows"),
        ],
    )
    def test_what_cannot_be_compared(
        self,
        serving: LocalServing,
        champion: str,
        register: Callable[..., int],
        verification: dict[str, Any],
        message: str,
    ) -> None:
        register(champion, 4, recorded="instances" in verification)
        serving.requests.clear()

        with pytest.raises(AirflowFailException, match=message):
            execute(deploy(champion, verification=verification))

        assert changes(serving) == []

    @pytest.mark.airflow
    def test_when_the_dag_is_parsed(self, name: str) -> None:
        with pytest.raises(ValueError, match="'task': verification needs wait_for_completion=True"):
            deploy(name, verification=Verification(), wait_for_completion=False)
        with pytest.raises(ValueError, match="'task': verification cannot ask a deployment of api_protocol GRPC"):
            deploy(name, verification={}, spec={"api_protocol": "GRPC"})
        with pytest.raises(ValueError, match=r"'task': verification.expect: expected a text"):
            deploy(name, verification={"expect": below_five})

    @pytest.mark.airflow
    def test_grpc_that_a_template_brings(self, serving: LocalServing, name: str, register: Callable[..., int]) -> None:
        register(name, 3)
        task = deploy(name, verification={}, spec={"api_protocol": "{{ params.protocol }}"})
        task.render_template_fields({"params": {"protocol": "GRPC"}})
        serving.requests.clear()

        with pytest.raises(AirflowFailException, match="uses GRPC, which needs a GRPC client"):
            execute(task)

        assert changes(serving) == []

    @pytest.mark.since_hopsworks("4.2")
    def test_grpc_that_is_live(self, serving: LocalServing, name: str, register: Callable[..., int]) -> None:
        register(name, 3)
        execute(deploy(name, spec={"api_protocol": "GRPC"}))
        register(name, 4)
        serving.requests.clear()

        with pytest.raises(AirflowFailException, match="uses GRPC, which needs a GRPC client"):
            execute(deploy(name, verification={}))

        assert changes(serving) == []


@pytest.mark.airflow
class TestExpectIsNotTemplated:
    @pytest.mark.parametrize("is_written", [True, False])
    def test_a_mapped_task(
        self, serving: LocalServing, champion: str, register: Callable[..., int], is_written: bool
    ) -> None:
        """What is mapped over comes from outside; what is given to all instances is written in the DAG file."""
        register(champion, 6)
        verification = {"expect": f"{__name__}.below_five", "on_failure": "leave"}
        fixed: dict[str, Any] = {"verification": verification}
        mapped: dict[str, Any] = {"model_version": 2}
        if not is_written:
            fixed, mapped = mapped, fixed
        with DAG("mapped", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC)) as dag:
            DeployModelOperator.partial(task_id="task", model_name=champion, poll_interval=0.1, **fixed).expand(
                **{name: [value] for name, value in mapped.items()}
            )
        serving.requests.clear()

        with pytest.raises(
            AirflowFailException, match="returned False" if is_written else "taken from the DAG file only"
        ):
            execute(dag.get_task("task").unmap(mapped))

        assert bool(changes(serving)) is is_written

    def test_a_dataclass_is_templated_without_it(self, name: str) -> None:
        task = deploy(name, verification=Verification(expect="finite", tolerance="{{ params.tolerance }}"))

        task.render_template_fields({"params": {"tolerance": 0.5, "evil": "os.system"}})

        assert task.verification == {"tolerance": "0.5"} | {
            name: value for name, value in Verification().given().items() if name != "tolerance"
        }
        assert task.expect == "finite"

    def test_in_the_default_args_of_a_mapped_task(self) -> None:
        given = {"verification": Verification(expect="finite")}
        with DAG("mapped", schedule=None, default_args=given) as dag:
            DeployModelOperator.partial(task_id="task", model_name="x").expand(deployment_name=["a"])
        task: Any = dag.get_task("task").unmap({"deployment_name": "a"})

        assert task._verification().expect == "finite"

    def test_a_template_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"verification.expect: expected one of finite"):
            deploy(name, verification=Verification(expect="{{ params.evil }}"))

    @pytest.mark.parametrize("whole", [{"expect": "os.system"}, '{"expect": "os.system"}'])
    def test_one_that_comes_from_elsewhere(self, serving: LocalServing, name: str, whole: Any) -> None:
        task = deploy(name, verification="{{ params.whole }}")
        task.verification = whole  # as a native template or an XCom renders it
        serving.requests.clear()

        with pytest.raises(AirflowFailException, match="taken from the DAG file only"):
            execute(task)

        assert changes(serving) == []


SCRIPT = """
import os

class Predict:
    def predict(self, inputs):
        return {"predictions": [1 for _ in inputs], "model_version": os.environ["MODEL_VERSION"]}
"""


@pytest.mark.kserve
@pytest.mark.since_hopsworks("5.2")
def test_versions_that_answer_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KServe's own server runs them: a script says in one word which version it serves."""
    script = tmp_path / "predict.py"
    script.write_text(SCRIPT)
    with LocalServing(speeds=Speeds()) as kserve:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", kserve.connection)
        for number in (1, 2):
            assert kserve.world.register_model("alike", {"weights.txt": b""}, framework="PYTHON") == number
            record = execute(
                deploy(
                    "alike",
                    model_version=number,
                    spec={"script_file": str(script)},
                    verification=Verification(instances=[[5]], version_path="model_version", bake_seconds=1),
                )
            )
            assert record["verified_by"] == "fingerprint"
        assert HsmlHook().predict("alike", inputs=[1]) == {"predictions": [1], "model_version": "2"}
