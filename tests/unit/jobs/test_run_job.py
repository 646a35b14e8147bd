"""An execution of a job: started once, whatever happens, and reported as it has ended."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.domain.execution import Execution, Job
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    HopsworksError,
    JobError,
    JobFailedError,
    NoResponseError,
    NotFoundError,
    RequestRefusedError,
    UnexpectedResponseError,
    UnsupportedError,
)
from airflow_provider_hsml.hopsworks.flow import drive_async
from airflow_provider_hsml.hopsworks.jobs import job_run, logs, records, run_job, search
from airflow_provider_hsml.hopsworks.jobs.job_run import JobRun
from airflow_provider_hsml.hopsworks.jobs.records import Record, RecordState
from airflow_provider_hsml.hopsworks.jobs.run_job import ExecutionWait
from tests.support.fake import LOST, PROJECT, UNSENT, refusal
from tests.support.fake_jobs import FakeJobs, Killed

RETRY, CLEARED, OTHER = "dag/run/task/-1@1", "dag/run/task/-1@3", "dag/run/other/-1@1"
SCOPE = refusal(403, 320004, "The API key lacks the scope DATASET_CREATE.")
BROKEN = Answer(502, b"<html>bad gateway</html>")


def run(fake: FakeJobs, key: str = RETRY, *, wait: bool = True, **more: Any) -> Any:
    return fake.run(run_job.run_job(fake.job_run(key, **more), wait=wait))


def starts(fake: FakeJobs) -> int:
    return fake.sent.count("POST executions")


def states(fake: FakeJobs) -> list[str]:
    return [name.split("-")[2].removesuffix(".json") for name in fake.records()]


def killed(fake: FakeJobs, number: float, key: str = RETRY, **more: Any) -> Any:
    """Run a task until its worker is killed at its n-th request, and return what it has left of itself."""
    mine = fake.job_run(key, **more)
    fake.killed_at = len(fake.sent) + number
    with pytest.raises(Killed):
        fake.run(run_job.run_job(mine))
    fake.killed_at = None
    return mine


def of_other(fake: FakeJobs, state: RecordState, execution: int | None = None, **more: Any) -> None:
    """Have another task, with the same arguments, write a record."""
    folder = "Resources/airflow-provider-hsml/jobs/train"
    fake.folders |= {folder.rpartition("/")[0], folder.partition("/jobs")[0], folder}
    record = Record(state, OTHER, records.hash_of("--day 1"), fake.now, execution=execution, **more)
    files = records.Records(PROJECT, "train", OTHER, names=fake.records()[::-1], has_folder=True)
    fake.run(files.write(record, is_needed=True))


class TestAnExecution:
    def test_is_recorded_started_waited_for_and_reported(self) -> None:
        fake = FakeJobs()
        fake.submit("--day 0")

        ended = run(fake)

        assert (ended.id, ended.state, ended.final_status, ended.seconds) == (101, "FINISHED", "SUCCEEDED", 5.0)
        writes = [what for what in fake.sent if what in ("upload", "POST executions")]
        assert writes == ["upload", "POST executions", "upload", "upload"]
        assert [name.partition("-")[2].partition("-")[2] for name in fake.records()] == ["ended-101.json"]

    def test_gets_the_arguments_unchanged(self) -> None:
        fake = FakeJobs()

        assert run(fake, args="--name 'a b'  --x=\"1\"").args == "--name 'a b'  --x=\"1\""

    def test_is_not_waited_for_where_nobody_asks(self) -> None:
        fake = FakeJobs()

        assert run(fake, wait=False).state == "RUNNING"

    def test_without_a_task_is_not_recorded(self) -> None:
        fake = FakeJobs()

        run(fake, "")
        run(fake, "")

        assert (starts(fake), fake.records()) == (2, [])

    def test_that_shows_another_id_than_asked_is_an_unexpected_answer(self) -> None:
        fake = FakeJobs(lasts=math.inf)
        fake.faults["GET execution"] = [Answer(200, json.dumps({"id": 7, "state": "FINISHED"}).encode())] * 3

        with pytest.raises(DeadlineExceededError):
            run(fake, deadline=fake.now + 10)

        assert starts(fake) == 1

    def test_has_no_more_than_its_time_and_keeps_running(self) -> None:
        fake = FakeJobs(lasts=100.0)

        with pytest.raises(DeadlineExceededError, match=r"execution 100 .*\nA retry attaches") as error:
            run(fake, deadline=fake.now + 20)

        assert error.value.transient
        assert run(fake).id == 100
        assert (starts(fake), "PUT status" in fake.sent) == (1, False)

    def test_that_was_deleted_meanwhile(self) -> None:
        fake = FakeJobs()
        fake.on["GET execution"] = fake.executions.clear

        with pytest.raises(JobError, match="execution 100: it was deleted"):
            run(fake)
        with pytest.raises(JobError, match="deleted"):
            run(fake)

        fake.on.clear()
        assert run(fake, CLEARED).state == "FINISHED"

    def test_is_waited_for_while_hopsworks_is_unavailable(self, caplog: pytest.LogCaptureFixture) -> None:
        fake = FakeJobs()
        fake.faults["GET execution"] = [UNSENT, BROKEN, None, LOST]

        assert run(fake).state == "FINISHED"
        assert "retrying" in caplog.text

    def test_without_a_timeout_is_given_up_where_hopsworks_stays_away(self) -> None:
        fake = FakeJobs()
        fake.faults["GET execution"] = [UNSENT] * 10_000

        with pytest.raises(DeadlineExceededError):
            run(fake)

        assert fake.now == pytest.approx(1000 + job_run.UNAVAILABLE, abs=60)

    def test_logs_each_state_once(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        run(FakeJobs(lasts=600.0))

        shown = [line for line in caplog.messages if "(RUNNING, UNDEFINED)" in line and "still waiting" not in line]
        assert len(shown) == 2  # It was started, and waited for.
        assert "still waiting" in caplog.text
        assert "inf" not in caplog.text


class TestTheVerdict:
    """As ``hopsworks_common/execution.py::success`` of the official SDK decides it."""

    @pytest.mark.parametrize(
        ("job_type", "state", "status", "expected"),
        [
            ("PYTHON", "FINISHED", "UNDEFINED", "SUCCEEDED"),
            ("PYTHON", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED"),
            ("PYTHON", "RUNNING", "FAILED", "FAILED"),
            ("PYTHON", "FAILED", "SUCCEEDED", "FAILED"),
            ("PYTHON", "KILLED", "UNDEFINED", "FAILED"),
            ("PYTHON", "SUBMISSION_FAILED", "UNDEFINED", "FAILED"),
            ("PYTHON", "AGGREGATING_LOGS", "UNDEFINED", "UNFINISHED"),
            ("PYTHON", "SOMETHING_NEW", "UNDEFINED", "UNFINISHED"),
            ("DOCKER", "FRAMEWORK_FAILURE", "UNDEFINED", "FAILED"),
            ("PYSPARK", "FINISHED", "UNDEFINED", "UNFINISHED"),
            ("PYSPARK", "FINISHED", "SUCCEEDED", "SUCCEEDED"),
            ("SPARK", "FINISHED", "FAILED", "FAILED"),
            ("SPARK", "KILLED", "UNDEFINED", "UNFINISHED"),
            ("SPARK", "SUBMISSION_FAILED", "UNDEFINED", "FAILED"),
        ],
    )
    def test_by_type_and_state(self, job_type: str, state: str, status: str, expected: str) -> None:
        fake = FakeJobs(job_type=job_type, ends=(state, status), lasts=0.0)

        if expected == "FAILED":
            with pytest.raises(JobFailedError):
                run(fake, deadline=fake.now + 5)
        elif expected == "SUCCEEDED":
            assert run(fake, deadline=fake.now + 5).state == state
        else:
            with pytest.raises(DeadlineExceededError):
                run(fake, deadline=fake.now + 5)

    def test_is_the_same_in_the_triggerer(self) -> None:
        fake = FakeJobs(ends=("FAILED", "FAILED"))
        number = fake.submit()

        async def send(call: Any) -> Any:
            return fake.send(call)

        async def sleep(seconds: float) -> None:
            fake.sleep(seconds)

        wait = ExecutionWait(PROJECT, Job("train", "PYTHON"), number, 1.0, math.inf, lambda: fake.now)
        assert asyncio.run(drive_async(wait.run(), send, sleep)).state == "FAILED"


class TestAFailure:
    def test_has_the_last_words_of_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        fake = FakeJobs(ends=("FAILED", "FAILED"))
        out = "\n".join(f"epoch {number}" for number in range(200))
        fake.files["Logs/Python/train/100/stdout.log"] = out.encode()
        fake.files["Logs/Python/train/100/stderr.log"] = b"Traceback ...\nValueError: no rows\xff\n\n"

        with pytest.raises(JobFailedError, match=r"execution 100 .*: it failed: ValueError: no rows") as error:
            run(fake)

        assert error.value.transient
        assert "ValueError" not in error.value.kept_text
        assert "[stderr] Traceback ..." in caplog.text
        assert "[stdout] epoch 199" in caplog.text
        assert "[stdout] epoch 149\n" not in caplog.text

    def test_without_logs_costs_seconds(self, caplog: pytest.LogCaptureFixture) -> None:
        fake = FakeJobs(ends=("FAILED", "FAILED"), lasts=0.0)

        with pytest.raises(JobFailedError, match="it failed\\."):
            run(fake)

        assert fake.now < 1000 + logs.PATIENCE + 5
        assert "has not appeared" in caplog.text

    def test_with_a_log_that_comes_late(self) -> None:
        fake = FakeJobs(ends=("FAILED", "FAILED"), lasts=0.0)
        fake.faults["GET path"] = [refusal(400, 110018)] * 3
        for name in ("stdout", "stderr"):
            fake.files[f"Logs/Python/train/100/{name}.log"] = b"out of memory"

        with pytest.raises(JobFailedError, match="out of memory"):
            run(fake)

    @pytest.mark.parametrize(
        ("fault", "kind"), [(SCOPE, "GET path"), (BROKEN, "GET path"), (SCOPE, "download"), (UNSENT, "download")]
    )
    def test_whose_log_cannot_be_read(self, fault: Any, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        fake = FakeJobs(ends=("FAILED", "FAILED"), lasts=0.0)
        for name in ("stdout", "stderr"):
            fake.files[f"Logs/Python/train/100/{name}.log"] = b"x"
        fake.faults[kind] = [fault] * 2

        with pytest.raises(JobFailedError):
            run(fake, "")

        assert "is not available" in caplog.text

    @pytest.mark.parametrize("first", [b"x" * 10**6 + b"\n", b"\xc3\xa9" * 10**6 + b"\nepoch 1\n"])
    def test_whose_log_is_long(self, caplog: pytest.LogCaptureFixture, first: bytes) -> None:
        """Only its end arrives, which may begin within a line or a character."""
        caplog.set_level("INFO")
        fake = FakeJobs(ends=("FAILED", "FAILED"), lasts=0.0)
        whole = first + b"epoch 2\nout of memory\n"
        for name in ("stdout", "stderr"):
            fake.files[f"Logs/Python/train/100/{name}.log"] = whole[-(1 << 18) :]

        with pytest.raises(JobFailedError, match="out of memory"):
            run(fake)

        assert "[stderr] epoch 2" in caplog.text
        assert "\ufffd" not in caplog.text
        assert "xxx" not in caplog.text

    def test_whose_log_is_one_long_line(self) -> None:
        fake = FakeJobs(ends=("FAILED", "FAILED"), lasts=0.0)
        fake.files["Logs/Python/train/100/stderr.log"] = b"x" * (1 << 18)

        with pytest.raises(JobFailedError, match="xxx"):
            run(fake)

    def test_whose_log_has_no_path(self, caplog: pytest.LogCaptureFixture) -> None:
        fake = FakeJobs()
        row = {"id": 100, "state": "FAILED", "submissionTime": 1704067200000}
        fake.faults["GET execution"] = [Answer(200, json.dumps(row).encode())]

        with pytest.raises(JobFailedError):
            run(fake)

        assert "names no file" in caplog.text

    @pytest.mark.parametrize("ends", [("FAILED", "FAILED"), ("FRAMEWORK_FAILURE", "FAILED")])
    def test_that_was_reported_is_followed_by_a_new_execution(self, ends: tuple[str, str]) -> None:
        fake = FakeJobs(ends=ends)
        for _ in range(2):
            with pytest.raises(JobFailedError):
                run(fake)

        assert starts(fake) == 2

    def test_of_one_that_a_person_stopped_is_permanent(self) -> None:
        with pytest.raises(JobFailedError, match="stopped in Hopsworks") as error:
            run(FakeJobs(ends=("KILLED", "KILLED")))

        assert not error.value.transient


class TestAWorkerThatIsKilled:
    """At each request, before it and after it; then the same task is run again."""

    @pytest.mark.parametrize("key", [RETRY, CLEARED])
    @pytest.mark.parametrize("ends", [("FINISHED", "SUCCEEDED"), ("FAILED", "FAILED")])
    def test_starts_one_execution(self, ends: tuple[str, str], key: str) -> None:
        whole = FakeJobs(ends=ends)
        _ended(whole, RETRY)
        for half in range(2, 2 * len(whole.sent) + 2):
            fake = FakeJobs(ends=ends, killed_at=half / 2)
            fake.submit("--day 0")
            with pytest.raises(Killed):
                run(fake)
            reported = any("ended" in name for name in fake.records())
            had_failed = ends[0] == "FAILED" and _had_ended(fake)
            fake.killed_at = None

            _ended(fake, key)

            # What was reported as failed is run again, and so is what a person clears after its end.
            again = reported and (ends[0] == "FAILED" or key == CLEARED)
            unreported = key == CLEARED and had_failed
            ours = [row for row in fake.executions.values() if row["args"] == "--day 1"]
            assert len(ours) == 1 + (again or unreported), half

    def test_after_some_hours_finds_what_has_ended(self) -> None:
        fake = FakeJobs(killed_at=8.5)
        with pytest.raises(Killed):
            run(fake)
        assert fake.sent[-1] == "POST executions"
        fake.killed_at, fake.now = None, 10_000.0

        assert run(fake).id == 100
        assert starts(fake) == 1

    def test_is_found_among_other_tasks_with_the_same_arguments(self) -> None:
        fake = FakeJobs(killed_at=8.5)
        with pytest.raises(Killed):
            run(fake)
        fake.killed_at = None

        assert run(fake, OTHER).id == 101
        assert run(fake).id == 100
        assert starts(fake) == 2

    def test_and_a_person_who_starts_the_same_is_ambiguous(self) -> None:
        fake = FakeJobs(killed_at=8.5)
        with pytest.raises(Killed):
            run(fake)
        fake.killed_at = None
        fake.submit()

        with pytest.raises(JobError, match="Nothing was started"):
            run(fake)
        with pytest.raises(JobError, match=r"executions 100 and 101 .*Nothing was started") as error:
            run(fake)
        assert starts(fake) == 1
        assert not error.value.transient
        (record,) = fake.records()
        assert record in str(error.value)

        del fake.executions[101]
        assert run(fake).id == 100

    def test_whose_record_a_person_deletes_starts_anew(self) -> None:
        fake = FakeJobs(killed_at=8.5)
        with pytest.raises(Killed):
            run(fake)
        fake.killed_at = None
        fake.files.clear()

        assert run(fake).id == 101

    def test_looks_through_all_newer_executions(self) -> None:
        fake = FakeJobs(killed_at=8.5, lasts=1000.0)
        with pytest.raises(Killed):
            run(fake)
        fake.killed_at = None
        for number in range(250):
            fake.submit(f"--day {number + 2}")

        assert run(fake).id == 100

    def test_by_a_clear_with_other_arguments_while_it_runs(self) -> None:
        fake = FakeJobs(lasts=100.0)
        with pytest.raises(DeadlineExceededError):
            run(fake, deadline=fake.now + 10)

        with pytest.raises(JobError, match="other arguments"):
            run(fake, CLEARED, args="--day 2")
        fake.now += 200

        assert run(fake, CLEARED).id == 100

    def test_by_a_retry_with_other_arguments_attaches(self, caplog: pytest.LogCaptureFixture) -> None:
        fake = FakeJobs(lasts=100.0)
        with pytest.raises(DeadlineExceededError):
            run(fake, deadline=fake.now + 10)

        assert run(fake, args="--try 2").id == 100
        assert "not those of this try" in caplog.text

    def test_of_a_start_that_is_not_waited_for(self) -> None:
        fake = FakeJobs()

        first = run(fake, wait=False)

        assert run(fake, wait=False).id == first.id
        assert run(fake, CLEARED, wait=False).id == first.id
        fake.now += 100
        assert run(fake, wait=False).id == first.id
        assert run(fake, CLEARED, wait=False).id == 101

    def test_with_default_arguments(self) -> None:
        fake = FakeJobs(killed_at=8.5, default_args="--day 7 ")
        with pytest.raises(Killed):
            run(fake, args="")
        fake.killed_at = None

        assert run(fake, args="").id == 100
        assert starts(fake) == 1


class TestAStart:
    @pytest.mark.parametrize("fault", [LOST, BROKEN, UNSENT, refusal(500, 120000, "a bug")])
    def test_whose_outcome_is_unknown_is_looked_for(self, fault: Any) -> None:
        fake = FakeJobs()
        fake.faults["POST executions"] = [fault]

        assert run(fake).id == 100
        assert len(fake.executions) == 1
        assert starts(fake) == (1 if fault == LOST else 2)

    @pytest.mark.parametrize(("fault", "error"), [(UNSENT, NoResponseError), (BROKEN, UnexpectedResponseError)])
    def test_that_never_has_an_effect_is_given_up(self, fault: Any, error: type[HopsworksError]) -> None:
        fake = FakeJobs()
        fake.faults["POST executions"] = [fault] * 10

        with pytest.raises(error):
            run(fake)

        assert (starts(fake), len(fake.executions)) == (run_job.STARTS, 0)
        fake.faults.clear()
        assert run(fake).id == 100

    def test_answered_with_an_execution_of_before_is_not_sent_again(self) -> None:
        fake = FakeJobs()
        fake.submit("--day 0", lasts=0)
        fake.faults["POST executions"] = [Answer(201, json.dumps(fake.shown(100)).encode())]

        with pytest.raises(JobError, match=r"accepted the start, .* execution 100, which existed before.*\nLook in"):
            run(fake)

        assert starts(fake) == 1

    @pytest.mark.parametrize("answer", [b"<html>", b"{}", b"[]", b'{"id": "x", "state": "RUNNING"}'])
    def test_accepted_with_an_answer_that_cannot_be_read_is_not_sent_again(self, answer: bytes) -> None:
        fake = FakeJobs()
        fake.faults["POST executions"] = [Answer(201, answer)]

        with pytest.raises(JobError, match="accepted the start, but its answer cannot be read") as error:
            run(fake)

        assert (starts(fake), error.value.transient) == (1, False)

    @pytest.mark.parametrize("status", [200, 202, 204])
    def test_with_an_answer_of_another_program_is_left_to_the_retry(self, status: int) -> None:
        fake = FakeJobs()
        fake.faults["POST executions"] = [Answer(status, b"<html>Log in</html>")]

        with pytest.raises(UnexpectedResponseError) as error:
            run(fake)

        assert (starts(fake), error.value.transient) == (1, True)
        assert fake.now >= 1000 + search.GRACE
        assert run(fake).id == 100

    @pytest.mark.parametrize("step", [1, -1])
    @pytest.mark.parametrize("earlier", [3, 250])
    @pytest.mark.parametrize("fault", [None, LOST])
    def test_is_found_where_ids_do_not_rise(self, step: int, earlier: int, fault: Any) -> None:
        fake = FakeJobs(step=step)
        for _ in range(earlier):
            fake.submit()
        fake.faults["POST executions"] = [fault]

        assert run(fake).id == 100 + step * earlier
        assert (starts(fake), len(fake.executions)) == (1, earlier + 1)

    @pytest.mark.parametrize("seconds", [20.0, 100.0])
    def test_that_is_slow_is_not_sent_again(self, seconds: float) -> None:
        fake = FakeJobs(slow=seconds, lasts=1000.0)
        fake.faults["POST executions"] = [LOST]

        assert run(fake).id == 100
        assert starts(fake) == 1

    def test_that_is_slow_is_not_sent_again_by_the_retry_of_a_killed_worker(self) -> None:
        fake = FakeJobs(slow=60.0, lasts=1000.0)
        killed(fake, 8.5)
        fake.now += 30

        assert run(fake).id == 100
        assert starts(fake) == 1

    def test_is_looked_for_right_before_it_is_sent_again(self) -> None:
        """Also after the seconds that the server has asked for."""
        fake = FakeJobs(lasts=10_000.0)
        answer = replace(refusal(503, 120000, "busy"), headers={"retry-after": "30"})
        fake.faults["POST executions"] = [answer]
        seconds = fake.now + search.GRACE + 10

        def appear() -> None:
            if fake.now >= seconds and not fake.executions:
                fake.submit()

        fake.on["GET executions"] = appear

        assert run(fake).id == 100
        assert starts(fake) == 1

    def test_that_is_sent_again_is_recorded_again(self) -> None:
        fake = FakeJobs(slow=60.0, lasts=1000.0)
        fake.faults["POST executions"] = [BROKEN]
        fake.on["POST executions"] = lambda: setattr(fake, "killed_at", len(fake.sent) + 0.5)
        with pytest.raises(Killed):
            run(fake)
        fake.killed_at = None
        fake.on.clear()

        assert states(fake) == ["starting", "starting"]
        assert run(fake).id == 100
        assert starts(fake) == 2

    @pytest.mark.parametrize("shows_defaults", [True, False])
    def test_without_arguments_is_found_whatever_it_shows(self, shows_defaults: bool) -> None:
        fake = FakeJobs(default_args="--day 7", shows_defaults=shows_defaults)
        fake.faults["POST executions"] = [LOST]

        assert run(fake, args="").id == 100
        assert starts(fake) == 1

    def test_is_found_in_a_list_of_short_pages(self) -> None:
        fake = FakeJobs(most_of_page=30, lasts=1000.0)
        killed(fake, 8.5)
        for number in range(250):
            fake.submit(f"--day {number + 2}")

        assert run(fake).id == 100

    def test_is_not_sent_again_where_the_list_does_not_end(self) -> None:
        fake = FakeJobs(ignores_offset=True, most_of_page=30, lasts=1000.0)
        killed(fake, 8.5)
        for number in range(250):
            fake.submit(f"--day {number + 2}")

        with pytest.raises(UnexpectedResponseError, match="the list does not end"):
            run(fake)
        assert starts(fake) == 1

    @pytest.mark.parametrize("hours", [-1, 1, 72])
    def test_of_long_ago_is_not_the_run_of_a_stranger(self, hours: int, caplog: pytest.LogCaptureFixture) -> None:
        fake = FakeJobs(now=1e9)
        killed(fake, 8)
        fake.now += hours * 3600
        stranger = fake.submit(lasts=0)
        fake.now = 1e9 + 80 * 3600

        assert run(fake, CLEARED).id != stranger
        assert "at another time" in caplog.text

    @pytest.mark.parametrize("shown", [None, "yesterday", "2024-01-01T00:00:00"])
    def test_of_long_ago_is_found_where_no_time_is_told(self, shown: str | None) -> None:
        fake = FakeJobs(now=1e9, submitted=lambda _seconds: shown)
        killed(fake, 8.5)
        fake.now += 3600

        assert run(fake).id == 100
        assert starts(fake) == 1


class TestOtherTasksWithTheSameArguments:
    def test_that_have_recorded_an_execution_meanwhile_keep_it(self) -> None:
        fake = FakeJobs()
        fake.faults["POST executions"] = [BROKEN]
        looks: list[int] = []

        def start_other() -> None:
            looks.append(1)
            if len(looks) == 2:
                of_other(fake, RecordState.STARTED, fake.submit())

        fake.on["GET executions"] = start_other

        assert run(fake).id == 101

    def test_that_seek_one_are_waited_for(self) -> None:
        fake = FakeJobs(lasts=1000.0)
        killed(fake, 8)
        of_other(fake, RecordState.STARTING)
        fake.submit()
        seconds = fake.now + 20

        def resolve() -> None:
            if fake.now >= seconds and "started" not in " ".join(fake.records()):
                of_other(fake, RecordState.STARTED, 100)

        fake.on["GET executions"] = resolve

        assert run(fake, deadline=math.inf).id == 101

    def test_that_still_look_at_the_timeout_are_left_to_the_retry(self) -> None:
        fake = FakeJobs(lasts=1000.0)
        killed(fake, 8)
        of_other(fake, RecordState.STARTING)
        fake.submit()

        with pytest.raises(DeadlineExceededError, match="A retry looks again"):
            run(fake, deadline=fake.now + 20)

    def test_whose_record_vanishes_while_it_is_read_do_not_matter(self) -> None:
        fake = FakeJobs(lasts=1000.0)
        killed(fake, 8.5)
        of_other(fake, RecordState.STARTING)
        fake.faults["download"] = [None, refusal(400, 110018)]

        assert run(fake).id == 100

    @pytest.mark.parametrize("content", [None, b"{}"])
    def test_that_find_none_make_it_ambiguous(self, content: bytes | None) -> None:
        fake = FakeJobs(lasts=1000.0)
        killed(fake, 8)
        of_other(fake, RecordState.STARTING)
        if content is not None:
            (name,) = (name for name in fake.files if name.endswith(fake.records()[-1]))
            fake.files[name] = content
        fake.submit()

        begun = fake.now + 500  # Long after the start, when an unreadable record may just be written.
        fake.now = begun if content is not None else fake.now
        with pytest.raises(JobError, match=r"execution 100 was started .* or that of another task.*\nDelete it"):
            run(fake)

        assert starts(fake) == 1  # The one before which the worker was killed.
        assert content is None or fake.now >= begun + search.GRACE
        downloads = fake.sent.count("download")
        assert downloads == 2 if content is None else downloads > 2  # A record that can be read is read once.

    @pytest.mark.parametrize(
        "more", [{"seen": (100,)}, {"begun": 1.0e8, "at": 1.0e8}, {"arguments": records.hash_of("--day 2")}], ids=str
    )
    def test_that_cannot_own_it_do_not_matter(self, more: dict[str, Any]) -> None:
        fake = FakeJobs(now=1e9)
        killed(fake, 8.5)
        record = replace(Record(RecordState.STARTING, OTHER, records.hash_of("--day 1"), fake.now), **more)
        files = records.Records(PROJECT, "train", OTHER, names=fake.records(), has_folder=True)
        fake.run(files.write(record))

        assert run(fake).id == 100

    def test_are_not_stopped_by_a_kill(self) -> None:
        fake = FakeJobs(lasts=1000.0)
        mine = killed(fake, 8)
        of_other(fake, RecordState.STARTING)
        fake.submit()

        fake.run(run_job.stop_own(mine))

        assert "PUT status" not in fake.sent

    def test_are_not_stopped_by_a_kill_without_records(self) -> None:
        fake = FakeJobs(lasts=1000.0)
        mine = killed(fake, 3, "")
        assert fake.sent[-1] == "POST executions"
        fake.submit()

        fake.run(run_job.stop_own(mine))

        assert "PUT status" not in fake.sent

    def test_a_clear_with_other_variables_while_it_runs(self) -> None:
        fake = FakeJobs(lasts=100.0)
        with pytest.raises(DeadlineExceededError):
            run(fake, deadline=fake.now + 10, env_vars={"DAY": "1"})

        with pytest.raises(JobError, match="other arguments or variables"):
            run(fake, CLEARED, env_vars={"DAY": "2"})
        assert run(fake, CLEARED, env_vars={"DAY": "1"}).id == 100

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (refusal(403, 320004, "The API key lacks the scope JOB."), "JOB to run jobs"),
            (refusal(412, 150029, "This project is out of credits."), "larger quota"),
            (refusal(400, 130000, "The file does not exist."), "configuration"),
            (refusal(422, 120001, "The arguments are too long."), "arguments are too long"),
        ],
    )
    def test_that_is_refused(self, answer: Answer, words: str) -> None:
        fake = FakeJobs()
        fake.faults["POST executions"] = [answer]

        with pytest.raises(RequestRefusedError, match=words) as error:
            run(fake)

        assert not error.value.transient
        assert error.value.is_out_of_capacity is ("quota" in words)
        fake.submit()  # A person's, with the same arguments: it is not taken for the refused one.
        assert run(fake).id == 101

    def test_of_a_job_that_does_not_exist(self) -> None:
        fake = FakeJobs()
        flow = run_job.run_job(JobRun(PROJECT, "trian", "", {}, RETRY, 1.0, clock=lambda: fake.now))

        with pytest.raises(NotFoundError, match="'trian' does not exist in project 'demo'; there are: train"):
            fake.run(flow)

    def test_of_a_job_that_does_not_exist_where_the_names_cannot_be_read(self) -> None:
        fake = FakeJobs(faults={"jobs": [SCOPE]})
        flow = run_job.run_job(JobRun(PROJECT, "trian", "", {}, RETRY, 1.0, clock=lambda: fake.now))

        with pytest.raises(NotFoundError, match=r"'trian' does not exist in project 'demo'\.\nCreate"):
            fake.run(flow)

    def test_with_environment_variables(self) -> None:
        fake = FakeJobs()

        run(fake, env_vars={"DAY": "1"})
        run(fake, OTHER, env_vars={"DAY": "1"}, args="")

        assert len(fake.executions) == 2

    def test_with_environment_variables_where_hopsworks_has_none(self) -> None:
        fake = FakeJobs(version="4.8.8")

        with pytest.raises(UnsupportedError, match=r"Hopsworks 4\.8\.8 takes no environment variables"):
            run(fake, env_vars={"DAY": "1"})

        assert fake.executions == {}


class TestTheRecords:
    @pytest.mark.parametrize("kind", ["listing", "create", "upload"])
    def test_of_a_key_that_may_not_write_files_are_not_kept(self, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        fake = FakeJobs()
        fake.faults[kind] = [SCOPE] * 9

        assert run(fake).state == "FINISHED"
        assert caplog.text.count("starts the job again") == 1
        assert fake.records() == []

    def test_that_cannot_be_written_before_the_start_stop_it(self) -> None:
        fake = FakeJobs()
        fake.faults["upload"] = [BROKEN]

        with pytest.raises(UnexpectedResponseError):
            run(fake)

        assert fake.executions == {}

    def test_that_cannot_be_written_after_the_start_do_not_end_it(self, caplog: pytest.LogCaptureFixture) -> None:
        fake = FakeJobs()
        fake.faults["upload"] = [None, BROKEN]

        assert run(fake).state == "FINISHED"
        assert "a retry of the task looks for its execution again" in caplog.text

    def test_that_are_not_whole_are_read_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = FakeJobs(killed_at=8.5)
        with pytest.raises(Killed):
            run(fake)
        fake.killed_at = None
        fake.faults["download"] = [Answer(200, b'{"run"'), None]

        assert run(fake).id == 100

    @pytest.mark.parametrize(
        "content",
        [
            b"{}",
            b"[]",
            b"\xff",
            b'{"state": "gone", "run": "a", "arguments": "b", "at": 1}',
            b'{"state": "started", "run": "a", "arguments": "b", "at": 1}',
        ],
    )
    def test_that_cannot_be_read_start_nothing(self, content: bytes) -> None:
        fake = FakeJobs()
        run(fake)
        (name,) = (name for name in fake.files if "jobs/train" in name)
        fake.files[name] = content

        with pytest.raises(UnexpectedResponseError, match="delete the file"):
            run(fake)

        assert starts(fake) == 1

    @pytest.mark.parametrize("fault", [BROKEN, UNSENT, refusal(403, 320001, "no")])
    def test_that_cannot_be_read_at_the_end_do_not_change_it(
        self, fault: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        fake = FakeJobs(lasts=0.0)
        number = fake.submit()
        fake.faults["listing"] = [fault] * 9

        ended = fake.run(run_job.wait_and_finish(fake.job_run(), Job("train", "PYTHON"), number))

        assert ended.state == "FINISHED"
        assert "is not recorded" in caplog.text

    def test_that_vanish_while_they_are_read(self) -> None:
        fake = FakeJobs()
        run(fake)
        fake.faults["download"] = [refusal(400, 110018)] * 2

        with pytest.raises(UnexpectedResponseError, match="does not exist"):
            run(fake)

    def test_of_ended_executions_are_bounded(self) -> None:
        fake = FakeJobs(lasts=0.0)
        for number in range(records.KEPT + 20):
            run(fake, f"dag/run-{number}/task/-1@1")

        assert len(fake.records()) == records.KEPT

    def test_that_cannot_be_deleted_do_not_matter(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        fake = FakeJobs()
        fake.faults["DELETE path"] = [SCOPE]

        assert run(fake).state == "FINISHED"
        assert "was not deleted" in caplog.text

    def test_hold_no_arguments(self) -> None:
        fake = FakeJobs()
        run(fake, args="--password hunter2", env_vars={"TOKEN": "hunter3"})

        assert not any(b"hunter" in content for content in fake.files.values())


class TestAStop:
    def test_of_a_task_that_was_killed_stops_its_own_execution(self) -> None:
        fake = FakeJobs(lasts=1000.0)
        other = fake.submit("--day 0")
        mine = fake.job_run()
        fake.killed_at = 15
        with pytest.raises(Killed):
            fake.run(run_job.run_job(mine))

        fake.killed_at = None
        fake.run(run_job.stop_own(mine))

        assert [fake.shown(number)["state"] for number in (other, 101)] == ["RUNNING", "KILLED"]
        assert states(fake) == ["ended"]
        assert run(fake).id == 102  # A person runs the task again.

    @pytest.mark.parametrize("fault", [None, LOST, UNSENT, BROKEN])
    @pytest.mark.parametrize("key", [RETRY, CLEARED])
    def test_that_takes_long_is_waited_for_by_the_next_try(self, key: str, fault: Any) -> None:
        fake = FakeJobs(lasts=1000.0, stops_after=60.0)
        mine = killed(fake, 13)
        fake.faults["PUT status"] = [fault]

        if fault is None:
            fake.run(run_job.stop_own(mine))
        else:
            with pytest.raises(HopsworksError):
                fake.run(run_job.stop_own(mine))

        assert fake.shown(100)["state"] == "RUNNING"
        assert states(fake)[-1] == "stopping"
        fake.on["POST executions"] = lambda: states_at_start.append(fake.shown(100)["state"])
        states_at_start: list[str] = []
        assert run(fake, key).id == 101
        assert states_at_start == ["KILLED"]

    def test_that_hopsworks_does_not_carry_out_is_waited_for(self) -> None:
        fake = FakeJobs(lasts=500.0, stops_after=math.inf)
        fake.run(run_job.stop_own(killed(fake, 13)))

        assert fake.now < 1100
        assert run(fake).id == 100  # It has succeeded all the same.
        assert starts(fake) == 1

    @pytest.mark.parametrize(("key", "args", "number"), [(CLEARED, "--day 1", 100), (CLEARED, "--day 2", 101)])
    def test_of_one_that_succeeds_is_reported_if_it_is_what_a_person_wants(
        self, key: str, args: str, number: int
    ) -> None:
        fake = FakeJobs(lasts=500.0, stops_after=math.inf)
        fake.run(run_job.stop_own(killed(fake, 13)))

        assert run(fake, key, args=args).id == number

    @pytest.mark.parametrize("kind", ["GET execution", "train"])
    def test_whose_end_cannot_be_seen_is_waited_for(self, kind: str) -> None:
        fake = FakeJobs(lasts=1000.0, stops_after=60.0)
        mine = killed(fake, 13)
        fake.faults[kind] = [BROKEN]

        fake.run(run_job.stop_own(mine))

        assert states(fake)[-1] == "stopping"
        fake.faults["PUT status"] = [refusal(400, 130001, "It stops already.")]
        assert run(fake).id == 101

    def test_where_hopsworks_is_unavailable_takes_seconds(self) -> None:
        fake = FakeJobs(lasts=1000.0)
        mine = killed(fake, 8.5)
        fake.faults["GET executions"] = [BROKEN] * 1000

        with pytest.raises(DeadlineExceededError):
            fake.run(run_job.stop_own(mine))

        assert fake.now <= 1000 + run_job.STOPPING

    def test_of_one_that_was_deleted_lets_the_next_try_start(self) -> None:
        fake = FakeJobs(lasts=1000.0, stops_after=60.0)
        fake.run(run_job.stop_own(killed(fake, 13)))
        fake.executions[1] = fake.executions.pop(100)

        assert run(fake).id == 101

    def test_of_one_that_has_succeeded_meanwhile(self) -> None:
        fake = FakeJobs(lasts=100.0)
        mine = killed(fake, 13)
        fake.now += 200
        fake.faults["PUT status"] = [refusal(400, 130001, "It has ended.")]

        fake.run(run_job.stop_own(mine))

        assert states(fake) == ["ended"]
        assert run(fake).id == 100
        assert starts(fake) == 1

    def test_by_a_task_that_was_resumed_is_recorded(self) -> None:
        fake = FakeJobs(lasts=1000.0)
        killed(fake, 13)
        resumed = fake.job_run(started=100)

        fake.run(run_job.stop_own(resumed))

        assert states(fake) == ["ended"]

    def test_of_a_start_whose_answer_has_not_come(self) -> None:
        fake = FakeJobs(lasts=1000.0, killed_at=8.5)
        mine = fake.job_run()
        with pytest.raises(Killed):
            fake.run(run_job.run_job(mine))

        fake.killed_at = None
        fake.run(run_job.stop_own(mine))

        assert fake.shown(100)["state"] == "KILLED"

    @pytest.mark.parametrize("killed_at", [1, 3, 8])
    def test_of_a_task_that_has_started_nothing(self, killed_at: int) -> None:
        fake = FakeJobs(killed_at=killed_at)
        mine = fake.job_run()
        with pytest.raises(Killed):
            fake.run(run_job.run_job(mine))

        fake.killed_at = None
        fake.run(run_job.stop_own(mine))

        assert "PUT status" not in fake.sent


def _ended(fake: FakeJobs, key: str) -> None:
    """Run a task to its end, whatever that is."""
    try:
        run(fake, key)
    except JobFailedError:
        return


def _had_ended(fake: FakeJobs) -> bool:
    return any(row["args"] == "--day 1" and fake.now >= row["until"] for row in fake.executions.values())


def test_calls_name_their_job() -> None:
    assert api.get_job(PROJECT, "a b").path.endswith("/project/119/jobs/a%20b")
    assert api.start_execution(PROJECT, "a", "", {}).text == ""
    assert api.start_execution(PROJECT, "a", "", {"A": "1"}).body == {"envVars": {"A": "1"}}
    assert not api.start_execution(PROJECT, "a", "", {}).repeatable
    assert api.stop_execution(PROJECT, "a", 1).repeatable
    assert "hunter2" not in repr(api.start_execution(PROJECT, "a", "hunter2", {"A": "hunter2"}))


@pytest.mark.parametrize(("sent", "read"), [(1704067200000, "2024-01-01T00:00:00+00:00"), (True, None), (10**40, None)])
def test_a_time_is_iso_text_or_nothing(sent: Any, read: str | None) -> None:
    found = Execution.from_json("train", {"id": 1, "state": "RUNNING", "submissionTime": sent})

    assert found.submitted == read


def test_a_description_holds_no_text_that_cannot_be_stored() -> None:
    row = {"id": 1, "state": "\x1b[31m" + "A" * 100_000, "stdoutPath": "a\u202eb"}

    description = Execution.from_json("train", row).summary("http://x")

    assert description["state"].startswith("\\x1b")
    assert len(description["state"]) <= 2000
    assert description["stdout"] == "a\\u202eb"
