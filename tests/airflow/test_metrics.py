"""The metrics of promotions: which record emits what, and what a StatsD server receives from a real Airflow."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml.hopsworks.errors import RequestRefusedError
from airflow_provider_hsml.hopsworks.promotion.record import Record
from airflow_provider_hsml.local import LocalServing, RequestFault
from airflow_provider_hsml.operators import DeployBestModelOperator, DeployModelOperator, metrics
from tests.conftest import HOPSWORKS, run_model
from tests.support import commands, pace
from tests.support.tasks import FakeTaskInstance, execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta
    from pathlib import Path

    from airflow_provider_hsml.hooks import HsmlHook

pytestmark = pytest.mark.airflow

QUICK: dict[str, Any] = {"task_id": "task", "metric": "auc", "direction": "max", "poll_interval": 0.1, "timeout": 20.0}
RECORD = Record("churn", 1, "kept", "why", "churn", 1, 1, "auc", 0.9, 0.9, None, "Running", None, None)


@dataclasses.dataclass
class Emitted:
    """Takes metrics in place of Airflow's ``Stats``."""

    metrics: list[tuple[str, Any, dict[str, str] | None]] = dataclasses.field(default_factory=list)

    def incr(self, name: str, count: int = 1, *, tags: dict[str, str] | None = None) -> None:
        self.metrics.append((name, count, tags))

    def gauge(self, name: str, value: float, *, tags: dict[str, str] | None = None) -> None:
        self.metrics.append((name, value, tags))

    def timing(self, name: str, seconds: timedelta, *, tags: dict[str, str] | None = None) -> None:
        self.metrics.append((name, seconds.total_seconds(), tags))

    def values(self, name: str) -> list[Any]:
        """Return the values of one metric, and forget them."""
        found = [value for other, value, _ in self.metrics if other == name]
        self.metrics = [one for one in self.metrics if one[0] != name]
        return found

    def actions(self) -> list[str]:
        """Return the actions that were counted, and forget them."""
        found = [(tags or {})["action"] for name, _, tags in self.metrics if name == metrics.PROMOTIONS]
        self.values(metrics.PROMOTIONS)
        return found


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> Emitted:
    """What is emitted, with tags."""
    stats = Emitted()
    monkeypatch.setattr("airflow.providers.common.compat.sdk.Stats", stats, raising=False)
    return stats


def best(name: str, **more: Any) -> DeployBestModelOperator:
    return DeployBestModelOperator(model_name=name, **QUICK, **more)


def test_in_a_task_loop_no_runs_in_a_row_are_counted(
    emitted: Emitted, register: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow 3.4 pulls no XComs of earlier runs there."""
    register("looped", 1, auc=0.8)
    execute(best("looped"))
    register("looped", 2, auc=0.7)
    emitted.metrics.clear()
    ti = FakeTaskInstance(region_index=1, earlier={"kept_in_a_row": 4})

    assert execute(best("looped"), ti)["kept_in_a_row"] is None
    assert emitted.actions() == ["kept"]
    assert emitted.values(metrics.KEPT_IN_A_ROW) == []
    assert "counting from zero" not in caplog.text


@pytest.mark.parametrize("deferrable", [False, True])
def test_nights_in_which_a_version_is_deployed_kept_and_rolled_back(
    deferrable: bool, emitted: Emitted, register: Callable[..., int]
) -> None:
    name = f"nights{deferrable:d}"
    begun = time.time()

    def night(**earlier: Any) -> FakeTaskInstance:
        ti = FakeTaskInstance(earlier=earlier)
        execute(best(name, deferrable=deferrable), ti)
        return ti

    register(name, 1, auc=0.8)
    night()
    assert emitted.actions() == ["created"]
    phases = [emitted.values(metrics.DURATIONS[phase]) for phase in ("rollout", "verification", "bake")]
    assert all(0 <= seconds < 20 for (seconds,) in phases), phases
    assert emitted.values(metrics.PENDING_CHANGES) == [0]
    assert emitted.values(metrics.KEPT_IN_A_ROW) == [0]
    (created,), (age,) = emitted.values(metrics.CHAMPION_CREATED), emitted.values(metrics.CHAMPION_AGE)
    assert begun - 1 <= created <= time.time()
    assert age == pytest.approx(time.time() - created, abs=2)
    assert emitted.metrics == [], "nothing failed"

    register(name, 2, auc=0.7)
    ti = night(kept_in_a_row=3)
    assert (emitted.actions(), emitted.values(metrics.KEPT_IN_A_ROW)) == (["kept"], [4])
    assert ti.pushed["kept_in_a_row"] == 4
    assert emitted.values(metrics.CHAMPION_CREATED) == [created], "version 1 still serves"
    assert emitted.values(metrics.DURATIONS["rollout"]) == []
    emitted.metrics.clear()

    register(name, 3, auc=0.9)
    with pytest.raises(AirflowFailException, match="rolled back"):
        execute(
            best(
                name,
                deferrable=deferrable,
                verification={"instances": [[1]], "max_latency_ms": 0.0001, "bake_seconds": 5, "probe_interval": 0.1},
            ),
            ti := FakeTaskInstance(earlier={"kept_in_a_row": 4}),
        )
    assert (emitted.actions(), emitted.values(metrics.KEPT_IN_A_ROW)) == (["rolled_back"], [4])
    assert emitted.values(metrics.FAILED_PROBES) == [ti.pushed["promotion"]["failed_probes"]] == [1]
    assert emitted.values(metrics.PENDING_CHANGES) == [0]
    assert emitted.values(metrics.CHAMPION_CREATED) == [created]
    assert emitted.values(metrics.DURATIONS["rollout"]) == []


def test_a_change_that_could_not_be_verified_is_pending_until_the_next_run(
    emitted: Emitted, register: Callable[..., int], serving: LocalServing
) -> None:
    register("leftpending", 1)
    register("leftpending", 2)

    def deploy(version: int) -> None:
        execute(DeployModelOperator(task_id="task", model_name="leftpending", model_version=version, poll_interval=0.1))

    deploy(1)
    emitted.metrics.clear()
    body = {"errorCode": 200014, "usrMsg": "not now"}
    serving.faults.add(RequestFault("GET", "/project/*/serving/*", status=403, body=body, times=3))
    with pytest.raises(RequestRefusedError, match="live but unverified"):
        deploy(2)
    assert (emitted.actions(), emitted.values(metrics.PENDING_CHANGES)) == (["unverified"], [1])
    serving.faults.clear()

    deploy(2)
    assert (emitted.actions(), emitted.values(metrics.PENDING_CHANGES)) == (["attached"], [0])
    assert emitted.values(metrics.KEPT_IN_A_ROW) == [], "it compares no versions"


def operator(hook: HsmlHook) -> DeployBestModelOperator:
    task = best("churn")
    task.__dict__["hook"] = hook
    return task


@pytest.fixture
def plain_statsd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")


class TestNames:
    def test_have_tags(self, emitted: Emitted, hook: HsmlHook) -> None:
        metrics.emit_promotion(operator(hook), RECORD)

        tags = {"project": "example", "deployment": "churn"}
        assert emitted.metrics == [
            ("hsml.promotions", 1, {**tags, "action": "kept"}),
            ("hsml.pending_changes", 0.0, tags),
        ]

    @pytest.mark.usefixtures("plain_statsd")
    def test_end_with_the_tags_where_statsd_has_none(self, emitted: Emitted, hook: HsmlHook) -> None:
        metrics.emit_promotion(operator(hook), RECORD)

        assert [name for name, _, tags in emitted.metrics if tags is None] == [
            "hsml.promotions.example.churn.kept",
            "hsml.pending_changes.example.churn",
        ]

    @pytest.mark.usefixtures("plain_statsd")
    @pytest.mark.parametrize("kind", ["INFLUXDB", "DATADOG"])
    def test_have_tags_in_the_kinds_of_statsd_that_have_some(
        self, kind: str, emitted: Emitted, hook: HsmlHook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"AIRFLOW__METRICS__STATSD_{kind}_ENABLED", "True")

        metrics.emit_promotion(operator(hook), RECORD)

        assert all(tags for _, _, tags in emitted.metrics)

    def test_an_earlier_change_that_was_rolled_back_counts(self, emitted: Emitted, hook: HsmlHook) -> None:
        first = dataclasses.replace(RECORD, action="rolled_back").to_dict()

        metrics.emit_promotion(operator(hook), dataclasses.replace(RECORD, rolled_back=first))

        assert emitted.actions() == ["rolled_back", "kept"]

    @pytest.mark.parametrize("action", ["planned", "failed", "superseded"])
    def test_an_action_that_does_not_tell_leaves_the_gauge(self, action: str, emitted: Emitted, hook: HsmlHook) -> None:
        metrics.emit_promotion(operator(hook), dataclasses.replace(RECORD, action=action))

        assert emitted.values(metrics.PENDING_CHANGES) == []


def test_no_exception_of_metrics_fails_a_task(
    monkeypatch: pytest.MonkeyPatch, register: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("no metrics today")

    class Forgetful(FakeTaskInstance):
        def xcom_pull(self, **_which: Any) -> Any:
            raise RuntimeError("no XComs today")

    monkeypatch.setattr("airflow.providers.common.compat.sdk.Stats", Broken(), raising=False)
    register("unmeasured", 1, auc=0.8)

    assert execute(best("unmeasured"))["action"] == "created"
    record = execute(best("unmeasured"), Forgetful())

    assert (record["action"], record["kept_in_a_row"]) == ("kept", 1)
    for text in ("The metrics of the promotion could not be emitted", "could not be read: counting from zero"):
        assert text in caplog.text


DAG = """
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_hsml import DeployBestModelOperator, RegisterModelOperator

with DAG("night", schedule=None, render_template_as_native_obj=True):
    register = RegisterModelOperator(
        task_id="register",
        model_name="churn",
        model_path="{{ dag_run.conf['path'] }}",
        framework="SKLEARN",
        metrics={"auc": "{{ dag_run.conf['auc'] }}"},
        input_example=[[1]],
    )
    deploy = DeployBestModelOperator(
        task_id="deploy",
        model_name="churn",
        metric="auc",
        direction="max",
        verification={"bake_seconds": 0.5, "probe_interval": 0.1},
    )
    register >> deploy
"""


@pytest.fixture
def statsd() -> Iterator[tuple[int, list[str]]]:
    """A StatsD server: its port, and the metrics that it has received."""
    received: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def listen() -> None:
            while (packet := server.recv(65536)) != b"end":
                received.extend(packet.decode().splitlines())

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        yield port, received
        server.sendto(b"end", ("127.0.0.1", port))
        thread.join(10)


@pytest.mark.whole_airflow
@pytest.mark.parametrize("has_tags", [False, True])
def test_a_statsd_server_receives_them_from_a_real_airflow(
    has_tags: bool, statsd: tuple[int, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_hsml.hooks import HsmlHook

    port, received = statsd
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "night.py").write_text(DAG)
    model = tmp_path / "model.joblib"
    model.write_text('{"answer": 7}')
    nights = [
        ("dags", "test", "night", f"2026-11-0{day}", "--conf", json.dumps({"auc": auc, "path": str(model)}))
        for day, auc in enumerate((0.8, 0.7, 0.6), start=1)
    ]
    with LocalServing(engine=run_model, hopsworks_version=HOPSWORKS) as serving:
        environment = commands.environment(
            tmp_path,
            AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path / "dags"),
            AIRFLOW__METRICS__STATSD_ON="True",
            AIRFLOW__METRICS__STATSD_HOST="127.0.0.1",
            AIRFLOW__METRICS__STATSD_PORT=str(port),
            AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED=str(has_tags),
            AIRFLOW_CONN_HSML_DEFAULT=serving.connection,
        )
        commands.migrate(tmp_path)
        pace.hurry(tmp_path)
        ran = commands.run(nights, environment)
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        audit = HsmlHook().get_promotion_state("churn").audit

    assert [one.code for one in ran] == ["0"] * 3, [one.output[-3000:] for one in ran]
    ours = [one.removeprefix("airflow.") for one in received if one.startswith("airflow.hsml.")]
    where = ",project=example,deployment=churn" if has_tags else ".example.churn"
    counted = [f"hsml.promotions{where}{',action=' if has_tags else '.'}{action}:1|c" for action in ("created", "kept")]
    assert [one for one in ours if one.startswith("hsml.promotions")] == [counted[0], counted[1], counted[1]]
    kept = [one for one in ours if one.startswith("hsml.kept_in_a_row")]
    assert kept == [f"hsml.kept_in_a_row{where}:{nights}.0|g" for nights in (0, 1, 2)]
    (bake,) = (one for one in ours if one.startswith("hsml.bake_duration"))
    assert 400 < float(bake.removeprefix(f"hsml.bake_duration{where}:").removesuffix("|ms")) < 60_000
    names = {re.split("[,:]|[.]example", one)[0] for one in ours}
    assert names == set(metrics.NAMES) - {metrics.FAILED_PROBES}
    assert (audit["dag_id"], audit["task_id"], audit["map_index"], audit["try_number"]) == ("night", "deploy", -1, 1)
