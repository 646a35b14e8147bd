"""The jobs of a project: Python scripts in its files, with their configuration."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.errors import Refusal, malformed

if TYPE_CHECKING:
    from airflow_provider_hsml.local.store import Store

    from .accounts import Project
    from .executions import Executions
    from .files import ProjectFiles

_NAME = re.compile(r"[^\s/\\:*?\"'<>|&;#`%{}\x00-\x1f]{1,255}")
_TYPES = {
    "pythonJobConfiguration": "PYTHON",
    "pythonAppJobConfiguration": "PYTHON_APP",
    "sparkJobConfiguration": "SPARK",
    "dockerJobConfiguration": "DOCKER",
}
_PYTHON_ON_SPARK = "org.apache.spark.deploy.PythonRunner"
_CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "python": {
        "type": "pythonJobConfiguration",
        "environmentName": "pandas-training-pipeline",
        "resourceConfig": {"type": "dockerJobConfiguration", "cores": 1.0, "memory": 2048, "gpus": 0},
        "logRedirection": True,
        "jobType": "PYTHON",
    },
    "pyspark": {
        "type": "sparkJobConfiguration",
        "environmentName": "spark-feature-pipeline",
        "mainClass": _PYTHON_ON_SPARK,
        "jobType": "PYSPARK",
    },
}
"""The default configurations, by the lower-case type."""


class Jobs:
    """
    The jobs of one project. A job of any type is run as a Python script, in a process of this machine.

    ``declare`` makes a job of a test or a demo, script included; clients upload the script and PUT the job.
    """

    def __init__(self, project: Project, store: Store, files: ProjectFiles, executions: Executions) -> None:
        self._project = project
        self._store = store
        self._files = files
        self.executions = executions
        """The executions of these jobs."""

    def declare(
        self,
        name: str,
        script: str,
        *,
        job_type: str = "PYTHON",
        default_args: str = "",
        environment: str = "pandas-training-pipeline",
    ) -> None:
        """
        Make a job without HTTP, to set up tests and demos. The script is written to ``Resources/jobs/<name>.py``.

        :param script: the Python source
        :param job_type: PYTHON, PYSPARK or another of Hopsworks' types
        :param default_args: the arguments of executions that have none
        :param environment: the name of the Python environment
        """
        path = f"Resources/jobs/{name}.py"
        self._files.write(path, script.encode())
        of_spark = {"mainClass": _PYTHON_ON_SPARK} if job_type == "PYSPARK" else {}
        kinds = {value: key for key, value in _TYPES.items()} | {"PYSPARK": "sparkJobConfiguration"}
        if job_type not in kinds:
            raise ValueError(f"job_type {job_type!r} is not known: expected one of {', '.join(sorted(kinds))}.")
        config = {
            "type": kinds[job_type],
            "appName": name,
            "appPath": self._files.hopsfs(path),
            "defaultArgs": default_args,
            "environmentName": environment,
            **of_spark,
        }
        self.put(name, config)

    def put(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        """
        Create a job, or change its configuration.

        :param config: as on the wire; kept as it is
        """
        if not _NAME.fullmatch(name):
            raise Refusal(130006, f"Job name {name!r} is not valid.")
        kind = _TYPES.get(str(config.get("type")))
        if kind is None:
            raise Refusal(130002, f"type {config.get('type')!r}: expected one of {', '.join(_TYPES)}.")
        if not isinstance(config.get("appPath"), str) or not config["appPath"]:
            raise malformed("appPath is missing: expected the path of a script in the project.")
        if kind == "SPARK" and config.get("mainClass") == _PYTHON_ON_SPARK:
            kind = "PYSPARK"
        _, existing = self._store.jobs(self._project.id).get(name, (0, {}))
        document = {
            "created": existing.get("created", time.time()),
            "jobType": kind,
            "config": config | {"appName": name},
        }
        self._store.put_job(self._project.id, name, document)
        return self.get(name)

    def get(self, name: str) -> dict[str, Any]:
        """Return a job, as on the wire."""
        found = next((job for job in self.all() if job["name"] == name), None)
        if found is None:
            raise Refusal(130009, f"Job {name} not found.")
        return found

    def all(self) -> list[dict[str, Any]]:
        """Return all jobs, as on the wire, in the order of their creation."""
        return [
            {
                "id": number,
                "name": name,
                "creationTime": datetime.fromtimestamp(row["created"], UTC).isoformat(timespec="milliseconds")[:-6]
                + "Z",
                "jobType": row["jobType"],
                "creator": {"username": "local000", "email": "local@localhost"},
                "config": row["config"],
            }
            for name, (number, row) in self._store.jobs(self._project.id).items()
        ]

    def delete(self, name: str) -> None:
        """Delete a job and its executions; those that run are stopped first."""
        job = self.get(name)
        self.executions.delete_all(job)
        self._store.delete_job(job["id"])

    def configuration(self, kind: str) -> dict[str, Any]:
        """Return the default configuration of a type of jobs."""
        if kind.lower() not in _CONFIGURATIONS:
            raise Refusal(130002, f"Job type {kind!r}: expected one of {', '.join(_CONFIGURATIONS)}.")
        return dict(_CONFIGURATIONS[kind.lower()])

    def restore(self) -> None:
        """Set the executions of an earlier server that had not ended to FAILED."""
        self.executions.restore(self.all())

    def clear(self) -> None:
        """Delete all jobs."""
        for job in self.all():
            self.delete(job["name"])
