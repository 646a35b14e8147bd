"""Jobs and their executions: what Hopsworks says of them, and how an execution has ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any, Self

from airflow_provider_hsml.hopsworks.untrusted_text import clean

from . import wire

_SUCCEEDED = frozenset({"FINISHED", "SUCCEEDED"})
_FAILED = frozenset(
    {"FAILED", "KILLED", "FRAMEWORK_FAILURE", "APP_MASTER_START_FAILED", "INITIALIZATION_FAILED"}
    # In none of the SDK's own lists: its wait would never end.
    | {"SUBMISSION_FAILED"}
)
_LONGEST = 2000
"""Characters of a text that a description keeps."""
_ON_YARN = frozenset({"SPARK", "PYSPARK"})
"""The types of jobs whose state says nothing about success: FINISHED is also the state of a failed one."""


class Verdict(Enum):
    """What the state and the final status of an execution mean."""

    UNFINISHED = auto()
    SUCCEEDED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class Job:
    """A job: a program with its configuration."""

    name: str
    type: str
    """PYTHON, PYSPARK, SPARK, DOCKER, ..."""
    default_args: str = ""
    """The arguments of an execution that is started without any."""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """
        Build a job from a response.

        :raises ValueError: ``data`` is no job
        """
        row = wire.resource(data, {"name": str, "jobType": str}, {"config": {"defaultArgs": str}})
        return cls(row["name"], row["jobType"].upper(), (row.get("config") or {}).get("defaultArgs") or "")

    def __str__(self) -> str:
        return f"job {self.name!r}"


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a job."""

    job_name: str
    id: int
    state: str
    """Hopsworks' state, such as RUNNING or FINISHED."""
    final_status: str
    """UNDEFINED until the execution has ended, then SUCCEEDED, FAILED or KILLED."""
    args: str
    submitted: str | None
    """When it was started, in ISO 8601."""
    seconds: float | None
    """How long it has run so far, or ran."""
    stdout: str | None
    """The path of the log file in the project; the file may appear only after the execution has ended."""
    stderr: str | None

    @classmethod
    def from_json(cls, job_name: str, data: Any) -> Self:
        """
        Build an execution from a response.

        :raises ValueError: ``data`` is no execution
        """
        texts = dict.fromkeys(("finalStatus", "args", "stdoutPath", "stderrPath"), str)
        row = wire.resource(data, {"id": int, "state": str}, {**texts, "duration": float})
        duration = row.get("duration")
        return cls(
            job_name,
            row["id"],
            row["state"].upper(),
            (row.get("finalStatus") or "UNDEFINED").upper(),
            row.get("args") or "",
            _moment(row.get("submissionTime")),
            None if duration is None else duration / 1000,
            row.get("stdoutPath"),
            row.get("stderrPath"),
        )

    @property
    def was_killed(self) -> bool:
        """Whether it was stopped, by a person or another client."""
        return "KILLED" in (self.state, self.final_status)

    def verdict(self, job_type: str) -> Verdict:
        """
        Return how the execution has ended, as the official SDK decides it.

        :param job_type: the type of the job: for Spark the final status alone counts, for others the state comes first
        """
        told = (self.final_status,) if job_type in _ON_YARN else (self.state, self.final_status)
        for word in told:
            if word in _FAILED:
                return Verdict.FAILED
            if word in _SUCCEEDED:
                return Verdict.SUCCEEDED
        # The state is one in which nothing of Spark runs any more, and which says that it has failed.
        return Verdict.FAILED if self.state == "SUBMISSION_FAILED" else Verdict.UNFINISHED

    def summary(self, url: str) -> dict[str, Any]:
        """
        Return the description that tasks push to XCom.

        :param url: the page in the Hopsworks UI
        """
        description = {
            "job_name": self.job_name,
            "execution_id": self.id,
            "state": self.state,
            "final_status": self.final_status,
            "submitted": self.submitted,
            "seconds": self.seconds,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "url": url,
        }
        return {
            name: clean(value, _LONGEST) if isinstance(value, str) else value for name, value in description.items()
        }

    def __str__(self) -> str:
        return f"Job {self.job_name!r}, execution {self.id} ({self.state}, {self.final_status})"


def _moment(value: object) -> str | None:
    """Return a time in ISO 8601: Hopsworks sends that, or milliseconds since 1970."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value / 1000, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None
