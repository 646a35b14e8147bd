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

from airflow_provider_hsml.local import LocalServing, demo
from airflow_provider_hsml.local.demo import nights, processes
from airflow_provider_hsml.local.demo import server as demo_server
from airflow_provider_hsml.local.demo.leftovers import leftovers
from airflow_provider_hsml.local.demo.nights import NIGHTS, Candidate, DemoFailedError, Outcome
from tests.local.conftest import Client

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
        is_as_recorded=True,
        seconds=12.3,
    )


FIRST = outcome(1, 2, {1: 0.5, 2: 0.6, 3: 0.4}, 0.6)
SECOND = outcome(2, 6, {4: 0.97, 5: 0.98, 6: 0.99}, 0.99)
THIRD = outcome(3, 6, {7: 0.8, 8: 0.9, 9: 0.7}, 0.99)


def fourth(**record: Any) -> Outcome:
    """A night whose best candidate, version 10, fails its preflight."""
    verdict = "version 10 answers otherwise than recorded. This was the preflight of 'digits', which was not changed."
    taken_back = {
        "model_version": 10,
        "previous_model_version": 6,
        "previous_metric_value": 0.99,
        "verified_by": None,
        "preflight": "failed",
        "reason": verdict,
    }
    night = outcome(4, 6, {10: 1.0, 11: 0.98, 12: 0.97}, 1.0, **(taken_back | record))
    return dataclasses.replace(night, served_accuracy=None)


FOURTH = fourth()


class TestCheckNight:
    def test_nights_as_they_are_meant_to_be(self) -> None:
        nights.check_night(FIRST, [])
        nights.check_night(SECOND, [FIRST])
        nights.check_night(THIRD, [FIRST, SECOND])
        nights.check_night(FOURTH, [FIRST, SECOND, THIRD])

    @pytest.mark.parametrize(
        ("night", "why"),
        [
            (dataclasses.replace(SECOND, answered_by=2), "the version in the process that answers is 2, expected 6"),
            (dataclasses.replace(SECOND, served_accuracy=0.6), "the accuracy served is 0.6, expected 0.99"),
            (dataclasses.replace(SECOND, deployments=[7, 8]), "the list of deployments is"),
            (dataclasses.replace(SECOND, candidates=SECOND.candidates[:2]), "the number of versions registered is 2"),
            (outcome(2, 6, {4: 0.97, 5: 0.98, 6: 0.99}, 0.99, action="created"), "the action of the deploying task"),
            (
                outcome(2, 6, {4: 0.97, 5: 0.98, 6: 0.99}, 0.99, verified_by="status"),
                "verified_by is 'status', expected one of",
            ),
            (outcome(2, 5, {4: 0.97, 5: 0.98, 6: 0.99}, 0.98), "the best accuracy of the night is 0.99"),
            (outcome(2, 2, {4: 0.5, 5: 0.6, 6: 0.5}, 0.6), "version 2 is none of the night's candidates"),
            (dataclasses.replace(SECOND, served_accuracy=None), "the accuracy served is None, expected 0.99"),
            (dataclasses.replace(SECOND, is_as_recorded=False), "night 2: version 6 does not answer as recorded."),
            (outcome(2, 6, {4: 0.97, 5: 0.98, 6: 0.99}, 0.99, deployment_id=8), "the list of deployments is"),
        ],
    )
    def test_says_what_is_not_as_it_should_be(self, night: Outcome, why: str) -> None:
        with pytest.raises(DemoFailedError) as raised:
            nights.check_night(night, [FIRST])

        assert why in str(raised.value)
        assert "night 2" in str(raised.value)

    @pytest.mark.parametrize(
        ("night", "why"),
        [
            (outcome(3, 8, {7: 0.8, 8: 0.9, 9: 0.7}, 0.9), "the version kept is 8, expected 6"),
            (outcome(3, 6, {7: 0.8, 8: 1.0, 9: 0.7}, 0.99), "a candidate is as good as the served version (0.99)"),
        ],
    )
    def test_production_must_be_kept_for_a_reason(self, night: Outcome, why: str) -> None:
        with pytest.raises(DemoFailedError) as raised:
            nights.check_night(night, [FIRST, SECOND])

        assert why in str(raised.value)

    @pytest.mark.parametrize(
        ("night", "why"),
        [
            (fourth(action="updated", verified_by="fingerprint"), "the action of the deploying task is 'updated'"),
            (fourth(previous_model_version=2), "the version in the process that answers is 6, expected 2"),
            (dataclasses.replace(FOURTH, answered_by=10), "the version in the process that answers is 10, expected 6"),
            (dataclasses.replace(FOURTH, is_as_recorded=False), "version 6 does not answer as recorded"),
            (
                dataclasses.replace(FOURTH, candidates=THIRD.candidates),
                "no candidate is better than the served version (0.99)",
            ),
            (fourth(metric_value=0.98), "the best accuracy of the night is 1.0, expected 0.98"),
            (fourth(reason="'digits', which was not changed"), "the record does not give the reason: 'digits', which"),
            (fourth(preflight="passed"), "the end of the preflight is 'passed', expected 'failed'"),
            (
                fourth(reason="version 10 answers otherwise than recorded"),
                "the record does not say that production was kept: version 10",
            ),
        ],
    )
    def test_a_better_number_must_be_found_out_apart(self, night: Outcome, why: str) -> None:
        with pytest.raises(DemoFailedError) as raised:
            nights.check_night(night, [FIRST, SECOND, THIRD])

        assert why in str(raised.value)
        assert "night 4" in str(raised.value)


class TestCheckProber:
    def test_all_that_were_deployed_answered_and_nothing_failed(self) -> None:
        nights.check_prober({2: 10, 6: 20}, [], [FIRST, SECOND, THIRD, FOURTH])

    def test_the_bad_version_may_answer_nothing(self) -> None:
        with pytest.raises(DemoFailedError, match="answered by versions"):
            nights.check_prober({2: 10, 6: 20, 10: 1}, [], [FIRST, SECOND, THIRD, FOURTH])

    def test_one_failure_is_too_many(self) -> None:
        with pytest.raises(DemoFailedError, match="1 of the prober's requests failed, the first with: refused"):
            nights.check_prober({2: 10, 6: 20}, ["refused"], [FIRST, SECOND])

    @pytest.mark.parametrize("answered", [{2: 10}, {6: 10}, {2: 1, 4: 1, 6: 1}, {}])
    def test_other_versions_than_those_served(self, answered: dict[int, int]) -> None:
        with pytest.raises(DemoFailedError, match="answered by versions"):
            nights.check_prober(answered, [], [FIRST, SECOND])


def test_table_has_a_line_for_each_candidate() -> None:
    lines = nights.table([FIRST, SECOND, THIRD, FOURTH]).splitlines()

    assert len(lines) == 2 + 12
    assert lines[2].split() == [
        *("1", "version", "1,", "random_forest:", "0.500"),
        *("created", "version", "2", "fingerprint", "0.600", "12"),
    ]
    assert lines[3].split() == ["version", "2,", "random_forest:", "0.600"]
    assert lines[8].startswith("3 ")
    assert lines[11].split()[5:] == ["failed", "version", "6", "-", "as", "before", "12"]


RESULT = {"promotion": {"action": "kept"}, "served_accuracy": 0.5}
TOLD = {"promotion": {"action": "rolled_back"}}


@pytest.mark.parametrize(
    ("line", "result"),
    [
        (json.dumps(RESULT), RESULT),
        (f"[2026-11-01T00:00:00] {{logging_mixin.py:190}} INFO - {json.dumps(RESULT)}", RESULT),
        (f"{json.dumps(RESULT)} [task.stdout] loc=x", RESULT),
        (json.dumps(TOLD), TOLD),
        ('{"promotion": {"action', None),
        ('{"promotion": null}', None),
        ('{"promotion": {}}', None),
        ("Done. Returned value was: 0.5", None),
    ],
)
def test_result_is_found_in_what_airflow_prints(line: str, result: object) -> None:
    assert nights.read_result(line) == result


@pytest.mark.parametrize(
    ("line", "task"),
    [
        (
            "2026 [info     ] [DAG TEST] starting task_id=train map_index=1 [x] loc=dag.py",
            "task train, candidate 2 of 3",
        ),
        ("[2026] {dag.py:4396} INFO - [DAG TEST] starting task_id=deploy map_index=-1", "task deploy"),
        ("[DAG TEST] end task task_id=deploy map_index=-1", None),
    ],
)
def test_tasks_are_found_in_what_airflow_prints(line: str, task: str | None) -> None:
    assert nights.read_task(line) == task


def test_says_how_many_answers_came_from_a_rejected_version() -> None:
    assert (
        nights.rejected_answers(10, {6: 400}) == "0 of the 400 answers to the prober came from the rejected version 10"
    )
    assert nights.rejected_answers(10, {6: 400, 10: 3}).startswith("3 of the 403 answers")


def test_says_what_it_leaves_and_how_to_remove_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "the cache"))
    cache, folder = tmp_path / "the cache" / "hsml-local" / "environments", tmp_path / ".demo"
    for place in (cache, folder / "serving"):
        place.mkdir(parents=True)
    (cache / "library").write_bytes(b"x" * 2_000_001)
    (folder / "serving" / "gone").symlink_to("nowhere")

    said = leftovers(folder)

    assert f"{cache}: 3 MB" in said
    assert f"{folder}: 1 MB" in said
    command = said.partition("is running: ")[2].splitlines()[0]
    subprocess.run(["/bin/sh", "-c", command], check=True)
    assert not folder.exists()
    assert not cache.exists()


def test_a_silence_is_broken_with_what_is_being_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "_SILENCE_SECONDS", 0.01)
    monkeypatch.setattr(processes, "_TICK", 0.01)
    said = ""
    with processes.Voice() as voice:
        voice.doing = "running task deploy"
        deadline = time.monotonic() + 20
        while not said and time.monotonic() < deadline:
            said = capsys.readouterr().out

    assert "still running task deploy" in said


class TestServer:
    """The demo's own client, and the prober, on a real server with TLS."""

    @pytest.fixture
    def serving(self, tmp_path: Path) -> Iterator[LocalServing]:
        def load(model: ModelFiles) -> Callable[[Any], list[Any]]:
            return lambda rows: [model.version for _ in rows]

        with LocalServing(root=tmp_path / "root", tls=True, engine=load) as serving:
            yield serving

    @pytest.fixture
    def client(self, serving: LocalServing) -> Iterator[Client]:
        client = Client(serving)
        for accuracy in (0.5, 0.75):
            version = serving.world.register_model("digits", {"model.joblib": b""}, input_example=[[1]])
            recorded = {"instances": [[1], [2]], "predictions": [1, 1]}
            folder = serving.root / "projects" / serving.project / "Models" / "digits" / str(version)
            (folder / "expected.json").write_text(json.dumps(recorded))
            path = f"/modelregistries/{serving.project_id}/models/digits_{version}"
            client.give("PUT", path, json={"description": "forest, 9 images", "metrics": {"accuracy": accuracy}})
        with client.session:
            yield client

    @pytest.fixture
    def server(self, serving: LocalServing) -> demo_server.Server:
        return demo_server.Server(
            {
                "url": serving.url,
                "project": serving.project,
                "project_id": serving.project_id,
                "ca_bundle": str(serving.ca_bundle),
                "api_key_file": str(serving.api_key_file),
                "pid": os.getpid(),
            },
        )

    @pytest.fixture
    def prober(self, server: demo_server.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[demo_server.Prober]:
        monkeypatch.setattr(demo_server, "_BETWEEN_PROBES", 0.01)
        prober = demo_server.Prober(server, {"instances": [[1]]})
        yield prober
        prober.end()

    def test_reads_what_is_there(self, client: Client, server: demo_server.Server) -> None:
        assert server.candidates() == [Candidate(1, "forest", 0.5), Candidate(2, "forest", 0.75)]
        assert server.input_example(1) == [[1]]
        assert server.deployments() == []
        assert server.console == f"{client.serving.url}/p/119"
        assert json.loads(server.connection()) == json.loads(client.serving.connection)

    def test_says_what_it_was_refused(self, client: Client, server: demo_server.Server) -> None:
        with pytest.raises(DemoFailedError, match=r"answers 400 to GET .* not found"):
            server.input_example(9)
        with pytest.raises(DemoFailedError, match=r"answers 404 to a prediction: .* not found"):
            server.answering_version({"instances": [[1]]})

    def test_the_prober_is_answered_through_an_update(
        self, client: Client, server: demo_server.Server, prober: demo_server.Prober
    ) -> None:
        number = client.put(modelVersion=1)["id"]
        client.until(number, "Created")
        client.give("POST", f"/serving/{number}?action=START")
        client.until(number, "Running")
        client.until_routed(number)
        assert server.answering_version({"instances": [[1]]}) == 1
        assert server.is_as_recorded(1)

        prober.start()
        wait_until(lambda: prober.answered[1] > 3)
        client.put(id=number, modelVersion=2)
        wait_until(lambda: prober.answered[2] > 3)
        prober.end()

        assert prober.failures == []
        assert sorted(prober.answered) == [1, 2]
        client.until_answered_by(2)
        assert not server.is_as_recorded(2)
        assert f"{prober.answered.total()} requests, 0 failed" in prober.report()

    def test_the_prober_notes_what_was_not_answered(self, client: Client, prober: demo_server.Prober) -> None:
        prober.start()
        wait_until(lambda: bool(prober.failures))
        prober.end()

        assert "answers 404 to a prediction" in prober.failures[0]


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What looks like a checkout."""
    (tmp_path / "example_dags").mkdir()
    (tmp_path / "example_dags" / "retrain_and_deploy.py").touch()
    return tmp_path


def start_demo(checkout: Path, **env: str) -> subprocess.Popen[str]:
    """Run the demo of a checkout in a process of its own."""
    code = (
        "import pathlib, sys; from airflow_provider_hsml.local import demo; "
        "demo._CHECKOUT = pathlib.Path(sys.argv[1]); sys.exit(demo.main([]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(checkout)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **env},
    )


def processes_below(folder: Path) -> list[str]:
    """Find the processes that work in a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cwd").resolve().is_relative_to(folder):
                found.append((place / "cmdline").read_text())
        except OSError:  # It has ended meanwhile.
            continue
    return found


class TestEnds:
    @pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_leaves_no_process_behind_when_interrupted(self, checkout: Path, number: signal.Signals) -> None:
        with start_demo(checkout) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if "Creating Airflow's database" in line:
                    break
            wait_until(lambda: bool(processes_below(checkout)))
            # As a terminal does, to all of the foreground; and once more, by somebody who has no patience.
            os.killpg(process.pid, number)
            os.killpg(process.pid, number)
            rest = process.stdout.read().splitlines()

        assert rest[-1] == f"DEMO FAILED: interrupted by {number.name}; all started processes have been ended."
        assert process.returncode == 1
        assert processes_below(checkout) == []

    def test_says_what_failed_and_where_to_look(self, checkout: Path) -> None:
        cache = checkout / "cache"
        cache.touch()
        with start_demo(checkout, XDG_CACHE_HOME=str(cache)) as process:
            said = (process.communicate(timeout=60)[0]).splitlines()

        assert process.returncode == 1
        assert said[-2:] == [
            "DEMO FAILED: prepare ended with exit code 1.",
            f"See {checkout / '.demo' / 'prepare.log'}.",
        ]

    def test_one_at_a_time(
        self, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(demo, "_CHECKOUT", checkout)
        with processes.Lock(checkout / ".demo"):
            code = demo.main([])

        assert code == 1
        assert capsys.readouterr().out.splitlines()[-2:] == [
            f"DEMO FAILED: another demo is running in {checkout / '.demo'}.",
            "Wait for it, or end it.",
        ]

    def test_needs_a_checkout(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(demo, "_CHECKOUT", tmp_path)

        assert demo.main([]) == 1
        assert capsys.readouterr().out.startswith("DEMO FAILED: the demo needs a checkout of the project")
        assert list(tmp_path.iterdir()) == []

    def test_needs_what_make_demo_installs(
        self, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(demo, "_CHECKOUT", checkout)
        monkeypatch.setattr(demo, "_NEEDED", ("json", "no_such_package"))

        assert demo.main([]) == 1
        assert "cannot import no_such_package.\nRun make demo" in capsys.readouterr().out


def test_a_server_that_was_left_up_is_ended(tmp_path: Path) -> None:
    said: list[str] = []
    processes.end_kept_server(tmp_path, said.append)  # Nothing there: nothing to do.
    command = [sys.executable, "-m", "airflow_provider_hsml.local.cli", "serve", "--port", "0"]
    with (
        (tmp_path / "serve.out").open("wb") as out,
        subprocess.Popen(
            [*command, "--root", str(tmp_path / "serving")], stdout=out, stderr=subprocess.DEVNULL
        ) as process,
    ):
        try:
            wait_until(lambda: processes.ready_line(tmp_path) is not None)
            processes.end_kept_server(tmp_path, said.append)
            process.wait(10)
        finally:
            process.kill()

    assert said == [f"Ending the local Model Serving that an earlier demo left running (process {process.pid})"]
    processes.end_kept_server(tmp_path, said.append)
    assert len(said) == 1
