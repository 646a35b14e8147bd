"""Endpoints for jobs and their executions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import wire
from airflow_provider_hsml.hopsworks.domain.execution import Execution, Job

from .call import Call, Page, check_number, check_same, page_of, path_of, readable, rows_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.project import Project

EXECUTION_NOT_FOUND = 130007
JOB_NOT_FOUND = 130009


def _job_path(project: Project, job: str, *more: str | int) -> str:
    return path_of("project", project.id, "jobs", job, *more)


def get_job(project: Project, name: str) -> Call[Job | None]:
    """
    Read a job; None when there is none.

    :param name: the job's name
    """

    def read(data: Any) -> Job:
        job = Job.from_json(data)
        check_same("Job", name, job.name)
        return job

    return Call(
        f"look for job {name!r}",
        "GET",
        _job_path(project, name),
        read,
        query=(("expand", "creator"),),
        repeatable=True,
        absent=frozenset({JOB_NOT_FOUND}),
    )


def get_job_names(project: Project) -> Call[list[str]]:
    """List the names of all jobs."""
    what = "list the jobs"

    def read(data: Any) -> list[str]:
        return readable(what, rows_of(data), lambda row: str(wire.resource(row, {"name": str}, {})["name"]))

    return Call(what, "GET", path_of("project", project.id, "jobs"), read, repeatable=True)


def start_execution(project: Project, job: str, args: str, env_vars: Mapping[str, str]) -> Call[Execution]:
    """
    Start an execution. There is no key that makes a repeated request harmless: it would start another one.

    :param job: the job's name
    :param args: the arguments as one text; empty for the job's default ones
    :param env_vars: environment variables, which Hopsworks takes from 5.0 on; none are sent as older versions expect it
    """
    body = {"args": args, "envVars": dict(env_vars)} if env_vars else None
    if body is not None and not args:
        del body["args"]
    return Call(
        f"run job {job!r}",
        "POST",
        _job_path(project, job, "executions"),
        lambda data: Execution.from_json(job, data),
        body=body,
        text=args if body is None else None,
        is_write_slow=True,
    )


def get_execution(project: Project, job: str, execution: int) -> Call[Execution | None]:
    """
    Read an execution; None when there is none.

    :param job: the job's name
    :param execution: its id
    """

    def read(data: Any) -> Execution:
        found = Execution.from_json(job, data)
        check_number("id", execution, found.id)
        return found

    return Call(
        f"look at execution {execution} of job {job!r}",
        "GET",
        _job_path(project, job, "executions", execution),
        read,
        repeatable=True,
        absent=frozenset({EXECUTION_NOT_FOUND}),
    )


def get_executions(project: Project, job: str, *, offset: int = 0, limit: int = 100) -> Call[Page[Execution]]:
    """
    List one page of the executions of a job, newest first. One that cannot be read makes the page an unexpected answer.

    :param job: the job's name
    :param offset: number of rows to skip
    :param limit: number of rows of the page
    """
    what = f"list the executions of job {job!r}"
    return Call(
        what,
        "GET",
        _job_path(project, job, "executions"),
        lambda data: page_of(what, data, lambda row: Execution.from_json(job, row), offset=offset, complete=True),
        query=(("sort_by", "submissiontime:desc"), ("offset", str(offset)), ("limit", str(limit))),
        repeatable=True,
    )


def stop_execution(project: Project, job: str, execution: int) -> Call[None]:
    """
    Ask to stop an execution: it ends later, if at all. Nothing happens if it has ended, so it is safe to repeat.

    :param job: the job's name
    :param execution: its id
    """
    return Call(
        f"stop execution {execution} of job {job!r}",
        "PUT",
        _job_path(project, job, "executions", execution, "status"),
        None,
        body={"state": "stopped"},
        repeatable=True,
    )
