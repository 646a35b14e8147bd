"""``RunHopsworksJobOperator``: the same execution, result and error in a worker and in the triggerer."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import json
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, cast

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowTaskTimeout, TaskDeferred
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_hsml import HsmlHook, RunHopsworksJobOperator
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, InvalidInputError, JobFailedError
from airflow_provider_hsml.local.cluster.faults import RequestFault
from airflow_provider_hsml.operators import task_state
from airflow_provider_hsml.triggers import JobTrigger
from tests.support.tasks import FakeTaskInstance, begin, execute, rendered, run_trigger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("serving")]

_numbers = itertools.count()
SHOWS = "import os, sys; print(sys.argv[1:], os.environ.get('TOKEN'))"
PATIENT = "import time; time.sleep(120)"


@pytest.fixture
def declare(serving: LocalServing) -> Callable[..., str]:
    """Makes jobs, and gives their names."""

    def make(script: str, **config: Any) -> str:
        name = f"job{next(_numbers)}"
        serving.world.project(serving.project_id).jobs.declare(name, script, **config)
        return name

    return make


def task(job: str, **how: Any) -> RunHopsworksJobOperator:
    given: dict[str, Any] = {"task_id": "task", "job_name": job, "poll_interval": 0.1} | how
    return RunHopsworksJobOperator(**given)


def executions(serving: LocalServing, job: str) -> list[dict[str, Any]]:
    jobs = serving.world.project(serving.project_id).jobs
    return jobs.executions.find(jobs.get(job), "id:asc")


def until(serving: LocalServing, job: str, *states: str) -> None:
    deadline = time.monotonic() + 20
    while not any(one["state"] in states for one in executions(serving, job)):
        assert time.monotonic() < deadline, executions(serving, job)
        time.sleep(0.02)


@pytest.fixture(params=[False, True], ids=["worker", "triggerer"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class TestAJob:
    def test_is_run_and_described(
        self, serving: LocalServing, hook: HsmlHook, declare: Callable[..., str], deferrable: bool
    ) -> None:
        job, ti = declare(SHOWS), FakeTaskInstance()

        result = execute(task(job, args=["--name", "a b", 3], deferrable=deferrable), ti)

        (seen,) = executions(serving, job)
        url = hook.job_url(job)
        assert url.endswith(f"/p/{serving.project_id}/jobs/named/{job}/executions")
        assert result == {
            "job_name": job,
            "execution_id": seen["id"],
            "state": "FINISHED",
            "final_status": "SUCCEEDED",
            "submitted": seen["submissionTime"],
            "seconds": seen["duration"] / 1000,
            "stdout": f"Logs/Python/{job}/{seen['id']}/stdout.log",
            "stderr": f"Logs/Python/{job}/{seen['id']}/stderr.log",
            "url": url,
        }
        assert json.loads(json.dumps(result)) == result
        assert seen["args"] == "--name 'a b' 3"
        file = serving.world.project(serving.project_id).files.read(result["stdout"])
        assert file.read_text() == "['--name', 'a b', '3'] None\n"
        assert ti.pushed["hsml_execution_url"] == url

    def test_gets_text_as_it_is(self, serving: LocalServing, declare: Callable[..., str]) -> None:
        job = declare(SHOWS)

        execute(task(job, args="--x  'a b'"))

        assert executions(serving, job)[0]["args"] == "--x  'a b'"

    def test_is_not_waited_for(self, serving: LocalServing, declare: Callable[..., str]) -> None:
        job = declare(PATIENT)

        result = execute(task(job, wait_for_completion=False, deferrable=True))

        assert result["final_status"] == "UNDEFINED"
        assert len(executions(serving, job)) == 1

    @pytest.mark.since_hopsworks("5.0")
    def test_gets_environment_variables(self, serving: LocalServing, declare: Callable[..., str]) -> None:
        job = declare(SHOWS)

        result = execute(task(job, env_vars={"TOKEN": 7}))

        file = serving.world.project(serving.project_id).files.read(result["stdout"])
        assert file.read_text() == "[] 7\n"

    def test_that_fails(self, declare: Callable[..., str], deferrable: bool, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        job, ti = declare("print('epoch 1'); raise ValueError('no rows')"), FakeTaskInstance()

        with pytest.raises(JobFailedError, match=r"\(FAILED, FAILED\): it failed: ValueError: no rows"):
            execute(task(job, deferrable=deferrable), ti)

        assert "[stdout] epoch 1" in caplog.text
        assert "hsml_execution_url" in ti.pushed

    def test_that_fails_after_a_long_log(self, declare: Callable[..., str], caplog: pytest.LogCaptureFixture) -> None:
        """Longer than any answer that is kept in memory."""
        caplog.set_level("INFO")
        job = declare(
            "import sys; sys.stderr.write(('x' * 99 + '\\n') * 170_000); print('epoch 9'); sys.exit('no rows')"
        )

        with pytest.raises(JobFailedError, match=r"\(FAILED, FAILED\): it failed: no rows"):
            execute(task(job), FakeTaskInstance())

        assert "[stderr] no rows" in caplog.text
        assert "[stdout] epoch 9" in caplog.text
        assert caplog.text.count("xxx") <= 49 * 33

    def test_that_is_stopped_in_hopsworks(
        self, serving: LocalServing, declare: Callable[..., str], deferrable: bool
    ) -> None:
        job = declare(PATIENT)

        def stop() -> None:
            until(serving, job, "RUNNING")
            jobs = serving.world.project(serving.project_id).jobs
            jobs.executions.stop(jobs.get(job), executions(serving, job)[0]["id"])

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(AirflowFailException, match="it was stopped in Hopsworks"):
            execute(task(job, deferrable=deferrable))
        stopper.join()

    def test_has_no_more_than_its_timeout_and_the_retry_attaches(
        self, serving: LocalServing, declare: Callable[..., str], deferrable: bool
    ) -> None:
        job, ti = declare("import time; time.sleep(2)"), FakeTaskInstance()

        with pytest.raises(DeadlineExceededError, match="keeps running"):
            execute(task(job, timeout=0.5, deferrable=deferrable), ti)
        result = execute(task(job, deferrable=deferrable), ti)

        assert (result["state"], len(executions(serving, job))) == ("FINISHED", 1)

    @pytest.mark.parametrize("loop", [True, False], ids=["loop", "mapped"])
    def test_of_a_new_pass_of_a_task_loop_is_not_a_retry(
        self, serving: LocalServing, declare: Callable[..., str], loop: bool
    ) -> None:
        """Airflow 3.4 runs cleared iterations anew with equal index and tries, in another region."""
        job = declare(SHOWS)
        first = FakeTaskInstance(region_index=1, region_id=uuid.uuid4(), map_index=-1 if loop else 1)
        again = dataclasses.replace(first, region_id=uuid.uuid4())

        numbers = [execute(task(job), ti)["execution_id"] for ti in (first, first, again, again)]

        one, other = (execution["id"] for execution in executions(serving, job))
        assert numbers == [one, one, other, other]

    def test_of_a_new_pass_attaches_to_a_running_execution_as_a_cleared_task_does(
        self, serving: LocalServing, declare: Callable[..., str]
    ) -> None:
        job = declare(PATIENT)
        first = FakeTaskInstance(region_index=1, region_id=uuid.uuid4())
        for ti in (first, dataclasses.replace(first, region_id=uuid.uuid4())):
            with pytest.raises(DeadlineExceededError):
                execute(task(job, timeout=0.3), ti)

        assert len(executions(serving, job)) == 1

    def test_of_a_task_outside_of_loops_ignores_the_region_of_zeros(
        self, serving: LocalServing, declare: Callable[..., str]
    ) -> None:
        job, before = declare(SHOWS), FakeTaskInstance()
        after = dataclasses.replace(before, region_index=-1, region_id=uuid.UUID(int=0))

        assert execute(task(job), before)["execution_id"] == execute(task(job), after)["execution_id"]


class TestErrors:
    def test_of_a_job_that_does_not_exist(self, declare: Callable[..., str]) -> None:
        job = declare(SHOWS)

        with pytest.raises(
            AirflowFailException, match=rf"Job 'trian' does not exist in project 'example'; .*\b{job}\b"
        ):
            execute(task("trian"))

    def test_of_a_key_without_the_scope(
        self, serving: LocalServing, declare: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection = json.dumps(serving.connection_fields("no.scope-of-files"))
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", connection)

        with pytest.raises(
            AirflowFailException, match=r"lacks the scope JOB.*\n.*JOB to run jobs, and FEATURESTORE for feature views"
        ):
            execute(task(declare(SHOWS)))

    def test_not_of_a_key_without_files(
        self,
        serving: LocalServing,
        declare: Callable[..., str],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(serving.connection_fields("only.the-jobs-scope")))

        assert execute(task(declare(SHOWS)))["state"] == "FINISHED"
        assert "starts the job again" in caplog.text

    def test_of_arguments_that_the_job_refuses(self, declare: Callable[..., str]) -> None:
        with pytest.raises(AirflowFailException, match="arguments are too long"):
            execute(task(declare(SHOWS), args="x" * 20_000))

    @pytest.mark.since_hopsworks("5.0")
    def test_never_show_the_variables(self, declare: Callable[..., str], caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("DEBUG")
        with pytest.raises(AirflowFailException) as error:
            execute(task(declare(SHOWS), env_vars={"TOKEN": "hunter2-and-more"}, args="'"))

        assert "hunter2" not in f"{error.value}{caplog.text}"

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"job_name": "a/b"}, "job_name: expected the name of a job"),
            ({"args": ""}, "args: expected arguments, got none"),
            ({"args": []}, "args: expected arguments, got none"),
            ({"env_vars": {"A": None, "B": [1]}}, r"env_vars\.A: expected a name"),
            ({"env_vars": "TOKEN=1"}, "env_vars: text as the whole value"),
            ({"stop_on_kill": "maybe"}, "stop_on_kill: expected true or false"),
            ({"timeout": "soon"}, "timeout: expected a finite number"),
        ],
    )
    def test_of_a_dag_file(self, given: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            task(**{"job": "train"} | {("job" if name == "job_name" else name): value for name, value in given.items()})

    @pytest.mark.parametrize("args", [[True], [None], [["a"]], 5, {"a": 1}, "\ud800"])
    def test_of_arguments_from_elsewhere(self, declare: Callable[..., str], args: Any) -> None:
        with pytest.raises(AirflowFailException, match="args"):
            execute(rendered(task(declare(SHOWS)), args=args))

    def test_of_a_timeout_of_the_task(
        self, serving: LocalServing, declare: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = declare(PATIENT)
        with pytest.raises(TaskDeferred) as deferred:
            begin(task(job, deferrable=True))
        path, kwargs = deferred.value.trigger.serialize()
        assert path == "airflow_provider_hsml.triggers.JobTrigger"

        event = asyncio.run(run_trigger(JobTrigger(**kwargs | {"cut_off": time.time() + 0.3})))

        assert event["code"] == "deadline_exceeded"
        assert "execution_timeout has passed" in event["message"]
        context: Any = {"ti": FakeTaskInstance()}
        with pytest.raises(DeadlineExceededError):
            task(job).resume(context, event, deferred.value.kwargs["left"])  # type: ignore[index]


class TestAKilledTask:
    @pytest.mark.parametrize("stops", [True, False])
    def test_in_a_worker(self, serving: LocalServing, declare: Callable[..., str], stops: bool) -> None:
        job, ti = declare(PATIENT), FakeTaskInstance(state="failed")
        serving.world.project(serving.project_id).jobs.executions.start(
            serving.world.project(serving.project_id).jobs.get(job), "--other", {}
        )
        operator = task(job, stop_on_kill=stops, args="--mine")

        def kill() -> None:
            deadline = time.monotonic() + 20
            while [one["state"] for one in executions(serving, job)] != ["RUNNING", "RUNNING"]:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            operator.on_kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(AirflowException, match="killed"):
            execute(operator, ti)
        killer.join()

        if stops:
            until(serving, job, "KILLED")
        assert [one["state"] for one in executions(serving, job)] == ["RUNNING", "KILLED" if stops else "RUNNING"]

    @pytest.mark.parametrize(
        ("state", "is_over"),
        [
            *((state, True) for state in ("failed", "success", "skipped", "upstream_failed", "removed", "restarting")),
            *((state, False) for state in ("running", "up_for_retry", "scheduled", "queued", None)),
        ],
    )
    @pytest.mark.parametrize("map_index", [-1, 2])
    def test_is_over_only_if_somebody_has_ended_it(self, state: str | None, is_over: bool, map_index: int) -> None:
        ti = FakeTaskInstance(state=state, map_index=map_index)

        assert task_state.is_over(ti, AirflowException("killed")) is is_over
        assert task_state.is_over(ti, AirflowTaskTimeout())

    @pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="a deleted run has no task to ask about")
    def test_of_a_deleted_run_is_over(self) -> None:
        assert task_state.is_over(FakeTaskInstance(state="deleted"), AirflowException("killed"))

    def test_whose_state_is_unknown_is_not_over(self, caplog: pytest.LogCaptureFixture) -> None:
        ti = FakeTaskInstance()
        ti.get_task_states = ti.current_state = None  # type: ignore[method-assign, assignment]

        assert not task_state.is_over(ti, AirflowException("killed"))
        assert "is left as it is" in caplog.text

    @pytest.mark.parametrize("in_triggerer_first", [False, True])
    def test_whose_worker_ends_leaves_its_execution_to_the_retry(
        self, serving: LocalServing, declare: Callable[..., str], in_triggerer_first: bool
    ) -> None:
        job, ti = declare("import time; time.sleep(1.5)"), FakeTaskInstance()
        operator, context = task(job), cast("Any", {"ti": ti})
        resume = functools.partial(operator.execute, context)
        if in_triggerer_first:
            with pytest.raises(TaskDeferred) as deferred:
                begin(task(job, deferrable=True), ti)
            # The event of another provider version, after which the task waits on in its worker.
            kwargs = {**(deferred.value.kwargs or {}), "event": {"version": 99}}
            resume = functools.partial(operator.resume, context, **kwargs)

        def kill() -> None:
            until(serving, job, "RUNNING")
            while not hasattr(operator, "_killed"):
                time.sleep(0.01)
            operator.on_kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(AirflowException, match="killed"):
            resume()
        killer.join()
        assert executions(serving, job)[0]["state"] == "RUNNING"

        result = execute(task(job), ti)

        assert [one["id"] for one in executions(serving, job)] == [result["execution_id"]]
        assert result["state"] == "FINISHED"

    def test_whose_execution_cannot_be_stopped_says_so(
        self, serving: LocalServing, declare: Callable[..., str], caplog: pytest.LogCaptureFixture
    ) -> None:
        job = declare(PATIENT)
        serving.faults.add(RequestFault("PUT", "/project/*/jobs/*/executions/*/status", status=500, body="x", times=9))
        operator = task(job)

        def kill() -> None:
            until(serving, job, "RUNNING")
            operator.on_kill()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with pytest.raises(AirflowException, match="killed"):
                execute(operator, FakeTaskInstance(state="failed"))
        finally:
            killer.join()
            serving.faults.clear()

        assert "may be running: stop it in Hopsworks" in caplog.text

    @pytest.mark.parametrize("stops", [True, False])
    def test_in_the_triggerer(
        self, serving: LocalServing, declare: Callable[..., str], stops: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Airflow tells a trigger from 3.3 on."""
        caplog.set_level("INFO")
        job = declare(PATIENT)
        with pytest.raises(TaskDeferred) as deferred:
            begin(task(job, stop_on_kill=stops, deferrable=True))
        until(serving, job, "RUNNING")

        asyncio.run(deferred.value.trigger.on_kill())

        if stops:
            until(serving, job, "KILLED")
        else:
            assert executions(serving, job)[0]["state"] == "RUNNING"

    @pytest.mark.parametrize("tries", [0, 1], ids=["retry", "clear"])
    def test_in_the_triggerer_is_followed_by_a_new_execution(
        self, serving: LocalServing, declare: Callable[..., str], tries: int
    ) -> None:
        """Not by the failure of the one that was stopped."""
        job, ti = declare(PATIENT), FakeTaskInstance()
        with pytest.raises(TaskDeferred) as deferred:
            begin(task(job, deferrable=True), ti)
        until(serving, job, "RUNNING")

        asyncio.run(deferred.value.trigger.on_kill())
        serving.world.project(serving.project_id).jobs.declare(job, SHOWS)
        ti.max_tries = tries
        result = execute(task(job), ti)

        first, second = executions(serving, job)
        assert (first["state"], result["execution_id"], result["state"]) == ("KILLED", second["id"], "FINISHED")


class TestADeferral:
    def test_stores_names_and_numbers_only(self, declare: Callable[..., str]) -> None:
        with pytest.raises(TaskDeferred) as deferred:
            begin(task(declare(PATIENT), args="--password hunter2", timeout=60, deferrable=True))

        assert "hunter2" not in str((deferred.value.trigger.serialize(), deferred.value.kwargs))
        assert deferred.value.timeout is not None

    def test_without_a_timeout_has_none(self, declare: Callable[..., str]) -> None:
        with pytest.raises(TaskDeferred) as deferred:
            begin(task(declare(PATIENT), deferrable=True))

        assert deferred.value.timeout is None

    def test_of_an_event_that_cannot_be_read_waits_on(self, serving: LocalServing, declare: Callable[..., str]) -> None:
        job, ti = declare("import time; time.sleep(1)"), FakeTaskInstance()
        with pytest.raises(TaskDeferred) as deferred:
            begin(task(job, deferrable=True), ti)
        left = deferred.value.kwargs["left"]  # type: ignore[index]

        fresh = task(job, deferrable=True)
        context: Any = {"ti": ti}
        with pytest.raises(TaskDeferred) as again:
            fresh.resume(context, {"of": "another version"}, left)
        result = task(job).resume(context, asyncio.run(run_trigger(again.value.trigger)), left)

        assert result["state"] == "FINISHED"
        assert len(executions(serving, job)) == 1

    def test_in_a_trigger_that_meets_an_error(self) -> None:
        trigger = JobTrigger(job_name="none", job_type="PYTHON", execution_id=1)

        event = asyncio.run(run_trigger(trigger))

        assert (event["status"], event["transient"]) == ("error", False)


class TestTheHook:
    def test_runs_a_job_without_a_record(
        self, hook: HsmlHook, serving: LocalServing, declare: Callable[..., str]
    ) -> None:
        job = declare(SHOWS)

        first, second = hook.run_job(job, poll_interval=0.1), hook.run_job(job, ["a"], timeout=60, poll_interval=0.1)

        assert (first.state, second.args) == ("FINISHED", "a")
        assert len(executions(serving, job)) == 2

    def test_checks_its_arguments(self, hook: HsmlHook) -> None:
        with pytest.raises(InvalidInputError, match="timeout"):
            hook.run_job("train", timeout=-1)


def test_rendered_variables_are_masked_and_sent(
    serving: LocalServing, declare: Callable[..., str], tmp_path: Path
) -> None:
    operator: Any = task(declare(SHOWS), env_vars={"TOKEN": "{{ 'a-secret-value' }}"})
    from airflow.providers.common.compat.sdk import DAG

    operator.dag = DAG("masked", schedule=None)
    operator.render_template_fields({"ti": FakeTaskInstance(), "params": {}})

    assert operator.env_vars == {"TOKEN": "***"}
    if serving.world.line.number >= (5, 0):
        result = execute(operator)
        assert "a-secret-value" in serving.world.project(serving.project_id).files.read(result["stdout"]).read_text()
