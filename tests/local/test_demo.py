"""
The demo's judgement, and how it ends: the nights themselves are run by ``make demo``.

Processes are real here, but small: what they would take minutes for is said by a few lines of Python.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local import LocalServing, Speeds, demo
from airflow_provider_hsml.local.demo import NIGHTS, Candidate, DemoFailedError, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.local import ModelFiles


def outcome(night: int, served: int, accuracies: dict[int, float], accuracy: float, **record: Any) -> Outcome:
    wanted = NIGHTS[night - 1]
    promotion = {
        "action": wanted.action,
        "verified_by": "fingerprint",
        "model_version": served,
        "metric_value": accuracy,
        "deployment_id": 7,
    }
    return Outcome(
        night=wanted,
        promotion=promotion | record,
        served_accuracy=accuracy,
        candidates=[Candidate(version, "random_forest", value) for version, value in accuracies.items()],
        deployments=[7],
        answered_by=served,
        seconds=12.3,
    )


FIRST = outcome(1, 2, {1: 0.5, 2: 0.6, 3: 0.4}, 0.6)
SECOND = outcome(2, 6, {4: 0.97, 5: 0.98, 6: 0.99}, 0.99)
THIRD = outcome(3, 6, {7: 0.8, 8: 0.9, 9: 0.7}, 0.99)


class TestCheckNight:
    def test_three_nights_as_they_are_meant_to_be(self) -> None:
        demo.check_night(FIRST, [])
        demo.check_night(SECOND, [FIRST])
        demo.check_night(THIRD, [FIRST, SECOND])

    @pytest.mark.parametrize(
        ("night", "why"),
        [
            (dataclasses.replace(SECOND, answered_by=2), "the version in the process that answers is 2, expected 6"),
            (dataclasses.replace(SECOND, served_accuracy=0.6), "the accuracy served is 0.6, expected 0.99"),
            (dataclasses.replace(SECOND, deployments=[7, 8]), "the list of deployments is"),
            (dataclasses.replace(SECOND, candidates=SECOND.candidates[:2]), "the number of versions registered is 2"),
            (outcome(2, 6, {4: 0.97, 5: 0.98, 6: 0.99}, 0.99, action="created"), "what the deploying task did"),
            (outcome(2, 6, {4: 0.97, 5: 0.98, 6: 0.99}, 0.99, verified_by="status"), "verified_by='status'"),
            (outcome(2, 5, {4: 0.97, 5: 0.98, 6: 0.99}, 0.98), "the best accuracy of the night is 0.99"),
            (outcome(2, 2, {4: 0.5, 5: 0.6, 6: 0.5}, 0.6), "one of the night's candidates is served"),
            (outcome(2, 6, {4: 0.97, 5: 0.98, 6: 0.99}, 0.99, deployment_id=8), "the list of deployments is"),
        ],
    )
    def test_says_what_is_not_as_it_should_be(self, night: Outcome, why: str) -> None:
        with pytest.raises(DemoFailedError) as raised:
            demo.check_night(night, [FIRST])

        assert why in str(raised.value)
        assert "night 2" in str(raised.value)

    @pytest.mark.parametrize(
        ("night", "why"),
        [
            (outcome(3, 8, {7: 0.8, 8: 0.9, 9: 0.7}, 0.9), "the version kept is 8, expected 6"),
            (outcome(3, 6, {7: 0.8, 8: 1.0, 9: 0.7}, 0.99), "all candidates are worse"),
        ],
    )
    def test_production_must_be_kept_for_a_reason(self, night: Outcome, why: str) -> None:
        with pytest.raises(DemoFailedError) as raised:
            demo.check_night(night, [FIRST, SECOND])

        assert why in str(raised.value)


class TestCheckProber:
    def test_both_versions_answered_and_nothing_failed(self) -> None:
        demo.check_prober({2: 10, 6: 20}, [], [FIRST, SECOND, THIRD])

    def test_one_failure_is_too_many(self) -> None:
        with pytest.raises(DemoFailedError, match="1 of the prober's requests failed, the first with: refused"):
            demo.check_prober({2: 10, 6: 20}, ["refused"], [FIRST, SECOND])

    @pytest.mark.parametrize("answered", [{2: 10}, {6: 10}, {2: 1, 4: 1, 6: 1}, {}])
    def test_other_versions_than_those_served(self, answered: dict[int, int]) -> None:
        with pytest.raises(DemoFailedError, match="answered by versions"):
            demo.check_prober(answered, [], [FIRST, SECOND])


def test_table_has_a_line_for_each_candidate() -> None:
    lines = demo.table([FIRST, SECOND, THIRD]).splitlines()

    assert lines[0].split("  ")[0] == "night"
    assert len(lines) == 2 + 9
    assert [word for word in lines[2].split("  ") if word] == [
        "1    ".strip(),
        " version 1, random_forest: 0.500".strip(),
        "created",
        "version 2",
        "fingerprint",
        "0.600",
        "          12".strip(),
    ] or "created" in lines[2]
    assert "version 9, random_forest: 0.700" in lines[-1]


RESULT = {"promotion": {"action": "kept"}, "served_accuracy": 0.5}


@pytest.mark.parametrize(
    ("line", "result"),
    [
        (json.dumps(RESULT), RESULT),
        (f"[2026-11-01T00:00:00] {{logging_mixin.py:190}} INFO - {json.dumps(RESULT)}", RESULT),
        (f"{json.dumps(RESULT)} [task.stdout] loc=x", RESULT),
        ('{"promotion": {"action', None),
        ('{"promotion": {}}', None),
        ("Done. Returned value was: 0.5", None),
    ],
)
def test_result_is_found_in_what_airflow_prints(line: str, result: object) -> None:
    assert demo.read_result(line) == result


class TestServer:
    """The demo's own client, and the prober, on a real server with TLS."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[demo._Server]:
        def load(model: ModelFiles) -> Callable[[Any], list[Any]]:
            return lambda rows: [model.version for _ in rows]

        with LocalServing(root=tmp_path / "root", tls=True, engine=load, speeds=Speeds(stale=0.3)) as serving:
            for accuracy in (0.5, 0.75):
                serving.world.register_model(
                    "digits", {"model.joblib": b""}, metrics={"accuracy": accuracy}, input_example=[[1]]
                )
            self.serving = serving
            ready = {
                "url": serving.url,
                "project": serving.project,
                "project_id": serving.project_id,
                "ca_bundle": str(serving.ca_bundle),
                "api_key_file": str(serving.api_key_file),
                "pid": os.getpid(),
            }
            yield demo._Server(ready)

    def put(self, version: int, number: int | None = None) -> int:
        deployments = self.serving.world.project(self.serving.project_id).deployments
        body = {
            "id": number,
            "name": "digits",
            "modelName": "digits",
            "modelPath": "/Projects/demo/Models/digits",
            "modelVersion": version,
            "modelFramework": "SKLEARN",
            "modelServer": "PYTHON",
            "servingTool": "KSERVE",
        }
        return int(deployments.put({key: value for key, value in body.items() if value is not None})["id"])

    def wait_for(self, server: demo._Server, version: int) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                if server.answering_version({"instances": [[1]]}) == version:
                    return
            except DemoFailedError:
                pass
            time.sleep(0.02)
        pytest.fail(f"version {version} does not answer")

    def start(self, server: demo._Server) -> int:
        number = self.put(1)
        time.sleep(0.1)
        self.serving.world.project(self.serving.project_id).deployments.start(number)
        self.wait_for(server, 1)
        return number

    def test_reads_what_is_there(self, server: demo._Server) -> None:
        assert [(row.version, row.accuracy) for row in server.candidates()] == [(1, 0.5), (2, 0.75)]
        assert server.input_example(1) == [[1]]
        assert server.deployments() == []
        assert json.loads(server.connection()) == json.loads(self.serving.connection)

    def test_says_what_it_was_refused(self, server: demo._Server) -> None:
        with pytest.raises(DemoFailedError, match="answers 404 to GET"):
            server.input_example(9)
        with pytest.raises(DemoFailedError, match="answers 404 to a prediction"):
            server.answering_version({"instances": [[1]]})

    def test_the_prober_is_answered_through_an_update(
        self, server: demo._Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(demo, "_BETWEEN_PROBES", 0.01)
        number = self.start(server)
        prober = demo._Prober(server, {"instances": [[1]]})
        prober.start()
        time.sleep(0.1)
        self.put(2, number)
        self.wait_for(server, 2)
        time.sleep(0.1)
        prober.end()

        assert prober.failures == []
        assert sorted(prober.answered) == [1, 2]
        assert f"{prober.answered.total()} requests, 0 failed" in prober.report()

    def test_the_prober_notes_what_was_not_answered(
        self, server: demo._Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(demo, "_BETWEEN_PROBES", 0.01)
        prober = demo._Prober(server, {"instances": [[1]]})
        prober.start()
        deadline = time.monotonic() + 10
        while not prober.failures and time.monotonic() < deadline:
            time.sleep(0.02)
        prober.end()

        assert "404" in prober.failures[0]
