"""A table through a deployment with a schema: forms, encodings and limits come from it; other routes to a model."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml import BatchPredictOperator, HsmlHook
from airflow_provider_hsml.hopsworks.inference import predict
from tests.support.request_schemas import Scene, declare
from tests.support.tasks import FakeTaskInstance, execute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.airflow

_numbers = itertools.count()
FIELDS = [
    {"name": "cc_num", "type": "bigint", "nullable": False, "description": None},
    {"name": "amount", "type": "decimal(10,2)", "nullable": True, "description": None},
    {"name": "at", "type": "timestamp", "nullable": True, "description": None},
]


@pytest.fixture
def scene(hook: HsmlHook, serving: LocalServing, model_file: Callable[..., Path]) -> Scene:
    serving.world.project(serving.project_id).features.clear()
    declare(serving)
    return Scene(hook, serving, f"table{next(_numbers)}", model_file)


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is sent."""
    sent: list[Any] = []
    ask = predict.ask_model

    async def watched(project: Any, name: str, body: Any, **more: Any) -> Any:
        if "request_id" in more:  # Not a probe of the deployment.
            sent.append((json.loads(body), more))
        return await ask(project, name, body, **more)

    monkeypatch.setattr(predict, "ask_model", watched)
    return sent


def score(scene: Scene, folder: Path, **given: Any) -> dict[str, Any]:
    how: dict[str, Any] = {
        "deployment_name": scene.name,
        "result_path": str(folder / "results"),
        **given,
    }
    manifest: dict[str, Any] = execute(BatchPredictOperator(task_id="task", **how))
    return manifest


@pytest.mark.since_hopsworks("5.2")
class TestSchema:
    def test_rows_and_fields_at_fault_are_named_and_not_sent(
        self, scene: Scene, tmp_path: Path, bodies: list[Any]
    ) -> None:
        scene.publish(maxBatchRows=4)
        scene.deploy(scene.register(2))
        rows: list[Any] = [{"cc_num": 1, "amount": 2.5, "id": x, "not": "sent"} for x in range(10)]
        rows[2], rows[5], rows[9] = {**rows[2], "amount": "2"}, {"amount": 1.0, "id": 5}, {**rows[9], "cc_num": None}
        (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

        manifest = score(
            scene,
            tmp_path,
            input=str(tmp_path / "rows.jsonl"),
            key_columns="id",
            max_errors=3,
            fail_on_partial_error=False,
        )

        assert manifest["counts"] == {"success": 7, "error": 3, "skipped": 0}
        (errors_file,) = (tmp_path / "results").glob("errors-*.jsonl")
        errors = [json.loads(line) for line in errors_file.read_bytes().splitlines()]
        assert [(one["row"], one["field"]) for one in errors] == [(2, "amount"), (5, "cc_num"), (9, "cc_num")]
        assert [one["reason"] for one in errors][1:] == ["the column is missing", "must not be null"]
        assert sorted(len(body["instances"]) for body, _ in bodies) == [1, 3, 3]
        assert all(set(row) == {"cc_num", "amount"} for body, _ in bodies for row in body["instances"])

    def test_encodings(self, scene: Scene, tmp_path: Path, bodies: list[Any]) -> None:
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        scene.publish(servingKeys=[], passedFeatures=FIELDS, requestParameters=[])
        scene.deploy(scene.register(2))
        moment = dt.datetime(2026, 11, 29, 6, tzinfo=dt.UTC)
        row = {"cc_num": 7, "amount": Decimal("2.50"), "at": moment}
        pq.write_table(pa.Table.from_pylist([row, {"cc_num": 8}]), tmp_path / "rows.parquet")

        score(scene, tmp_path, input=str(tmp_path / "rows.parquet"), key_columns=["at", "amount"])

        (body, _), *_ = bodies
        assert body["instances"] == [
            {"cc_num": 7, "amount": "2.50", "at": "2026-11-29T06:00:00Z"},
            {"cc_num": 8, "amount": None, "at": None},
        ]
        (part,) = (tmp_path / "results").glob("part-*.parquet")
        assert pq.read_table(part).to_pylist()[0] == {
            "row": 0,
            "at": "2026-11-29T06:00:00Z",
            "amount": "2.50",
            "prediction": 1,
            "error": None,
        }

    def test_reuse_is_refused_where_features_are_looked_up(self, scene: Scene, tmp_path: Path) -> None:
        scene.publish()
        scene.deploy(scene.register(2))
        (tmp_path / "rows.jsonl").write_text('{"cc_num": 1, "amount": 2.5}\n')

        with pytest.raises(AirflowFailException, match=r"reuse: .* looks features up or transforms the rows"):
            score(scene, tmp_path, input=str(tmp_path / "rows.jsonl"), reuse=True)


class TestRoutes:
    def test_the_ingress_gets_the_same_id_for_rows_that_are_sent_again(
        self,
        serving: LocalServing,
        scene: Scene,
        register: Callable[..., int],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        bodies: list[Any],
    ) -> None:
        fields = json.loads(serving.connection)
        fields["extra"] |= {"inference_route": "istio", "ingress_url": serving.ingress_url}
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(fields))
        register(scene.name, 5)
        hook = HsmlHook()
        hook.deploy_model(scene.name, 1, poll_interval=0.1)
        (tmp_path / "rows.jsonl").write_text("[1]\n[2]\n[3]\n")
        given: dict[str, Any] = {"deployment_name": scene.name, "input": str(tmp_path / "rows.jsonl"), "chunk_rows": 2}
        ids: list[set[str]] = []
        for run in ("a", "a", "b"):
            bodies.clear()
            operator = BatchPredictOperator(task_id="task", result_path=str(tmp_path / f"r{len(ids)}"), **given)
            manifest = execute(operator, FakeTaskInstance(run_id=run))
            assert manifest["counts"]["success"] == 3
            ids.append({more["request_id"] for _, more in bodies})

        assert ids[0] == ids[1] != ids[2]
        assert len(ids[0]) == 2
