"""Steps: jobs, their executions and logs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from conformance.steps import SCRIPTS, WAIT_SECONDS, Session, expect, refused, step

JOBS = "Jobs"
SINCE = (4, 6)
"""The first release here with a handle for jobs: ``hsml`` has none."""


def name_of(session: Session) -> str:
    return f"conformance{session.mark}"


def job_of(session: Session) -> Any:
    """Read the job again, as another program would."""
    return session.sdk.jobs.get_job(name_of(session))


def texts(session: Session, execution: Any) -> tuple[str, str]:
    """Download the logs of an execution, and return their contents."""
    out, err = execution.download_logs(str(session.folder))
    return Path(out).read_text(), Path(err).read_text()


@step(JOBS, "upload a script, create a job; read it back; one that is not there", since=SINCE)
def create_job(session: Session) -> None:
    jobs = session.sdk.jobs
    session.sdk.files.upload(str(SCRIPTS / "job.py"), session.resources)
    config = jobs.get_configuration("PYTHON")
    config["appPath"] = f"/{session.resources}/job.py"
    expect(jobs.create_job(name_of(session), config).job_type, "PYTHON", "the type of the new job")
    live = job_of(session)
    expect(live.config["appPath"].endswith(f"/{session.resources}/job.py"), True, f"the script in {live.config}")
    expect(name_of(session) in [each.name for each in jobs.get_jobs()], True, "the job is listed")
    expect((jobs.exists(name_of(session)), jobs.exists(f"absent{session.mark}")), (True, False), "they exist")
    expect(jobs.get_job(f"absent{session.mark}"), None, "a job that is not there")


@step(JOBS, "run with arguments, wait for the end, download the logs", since=SINCE)
def run_job(session: Session) -> None:
    execution = job_of(session).run(args="--day 1", await_termination=True)
    expect((execution.success, execution.state, execution.args), (True, "FINISHED", "--day 1"), "the execution")
    expect("conformance: --day 1" in texts(session, execution)[0], True, "the script's output")


@step(JOBS, "run with environment variables", since=(5, 1))
def run_job_with_variables(session: Session) -> None:
    execution = job_of(session).run(args="--day 2", await_termination=True, env_vars={"CONFORMANCE": "a=b"})
    expect("conformance: --day 2 a=b" in texts(session, execution)[0], True, "the script's output")


@step(JOBS, "a job that fails: the error, its state, its standard error", since=SINCE)
def run_failing_job(session: Session) -> None:
    job = job_of(session)
    execution = job.run(args="fail", await_termination=False)
    refused(execution.await_termination, "failed")
    execution = job.get_executions()[0]
    expect((execution.success, execution.state), (False, "FAILED"), "the execution")
    expect("conformance: this job fails" in texts(session, execution)[1], True, "the script's standard error")


@step(JOBS, "wait for a limited time: the execution goes on; its live log", since=(5, 1))
def read_live_log(session: Session) -> None:
    job = job_of(session)
    execution = job.run(args="wait", await_termination=False)
    execution.await_termination(timeout=1)
    ends = time.monotonic() + WAIT_SECONDS
    while "conformance: wait" not in (log := execution.get_pod_logs().log or "") and time.monotonic() < ends:
        time.sleep(0.5)
    expect("conformance: wait" in log, True, f"the script's output is in {log!r}")
    execution.stop()


@step(JOBS, "stop an execution", since=SINCE)
def stop_job(session: Session) -> None:
    job = job_of(session)
    execution = job.run(args="wait", await_termination=False)
    execution.stop()
    refused(execution.await_termination, "stopped")
    newest = job.get_executions()[0]
    expect((newest.id, newest.state, newest.final_status), (execution.id, "KILLED", "KILLED"), "the newest execution")


@step(JOBS, "list the executions, the newest first; delete one", since=SINCE)
def list_executions(session: Session) -> None:
    job = job_of(session)
    executions = job.get_executions()
    ids = [each.id for each in executions]
    expect((ids, executions[-1].args), (sorted(ids, reverse=True), "--day 1"), "the executions")
    executions[-1].delete()
    expect([each.id for each in job.get_executions()], ids[:-1], "the executions that are left")


@step(JOBS, "delete a job", since=SINCE)
def delete_job(session: Session) -> None:
    job_of(session).delete()
    expect(job_of(session), None, "the deleted job")
