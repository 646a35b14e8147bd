"""The executions of a project's jobs: their states, their threads, and their log files."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.cluster.job_runner import NO_ENVIRONMENT, Script, Stopped
from airflow_provider_hsml.local.errors import Refusal, malformed
from airflow_provider_hsml.local.logs import logger

from .key_stores import user_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from airflow_provider_hsml.local.cluster.behaviour import Speeds
    from airflow_provider_hsml.local.cluster.job_runner import JobRunner
    from airflow_provider_hsml.local.store import Store

    from .accounts import Project
    from .administration import Administration
    from .files import ProjectFiles

log = logger(__name__)

FINAL = frozenset(
    {"FINISHED", "SUCCEEDED", "FAILED", "KILLED", "FRAMEWORK_FAILURE", "APP_MASTER_START_FAILED"}
    | {"INITIALIZATION_FAILED"}
)
"""The states in which an execution has ended."""
_MOST_OF_ARGUMENTS = 10_000
"""Characters of the arguments that Hopsworks stores."""
_FOLDERS = {"PYSPARK": "Spark", "SPARK": "Spark"}
_STOPPING_SECONDS = 30.0


class Executions:
    """
    The executions of one project's jobs. Thread-safe.

    :param quota: of the administration: how many executions the project's credits last for
    """

    def __init__(  # noqa: PLR0917 - the parts of a project that an execution needs
        self,
        project: Project,
        store: Store,
        files: ProjectFiles,
        runner: JobRunner,
        speeds: Callable[[], Speeds],
        administration: Administration,
    ) -> None:
        self._project = project
        self._store = store
        self._files = files
        self._runner = runner
        self._speeds = speeds
        self._administration = administration
        self._lock = threading.RLock()
        self._running: dict[int, tuple[Stopped, threading.Thread]] = {}

    def start(self, job: Mapping[str, Any], args: str, env_vars: Mapping[str, str]) -> dict[str, Any]:
        """
        Start an execution of a job.

        :param job: the job, as on the wire
        :param args: the arguments; empty: the job's default ones
        :param env_vars: environment variables of this execution
        """
        config = job["config"]
        args = args or config.get("defaultArgs") or ""
        if len(args) > _MOST_OF_ARGUMENTS:
            raise malformed(f"The arguments are too long: {len(args)} characters, {_MOST_OF_ARGUMENTS} are allowed.")
        script = self._script(job, args, env_vars)
        with self._lock:
            most = self._administration.quota.executions
            if most is not None and self._count() >= most:
                raise Refusal(150029, f"The quota of {most} executions of project {self._project.name} is used up.")
            row = {"submissionTime": time.time(), "state": "INITIALIZING", "finalStatus": "UNDEFINED", "args": args}
            number = self._store.insert_execution(job["id"], row)
            stopped = Stopped()
            work = (job, number, row, script, stopped)
            thread = threading.Thread(target=self._run, args=work, name=f"execution {number}", daemon=True)
            self._running[number] = stopped, thread
            thread.start()
        return self.on_the_wire(job, number, row)

    def get(self, job: Mapping[str, Any], execution: int) -> dict[str, Any]:
        """Return an execution of a job, as on the wire."""
        return self.on_the_wire(job, execution, self._row(job, execution))

    def find(self, job: Mapping[str, Any], order: str) -> list[dict[str, Any]]:
        """
        Return the executions of a job, as on the wire.

        :param order: ``submissiontime`` or ``id``, with ``:asc`` or ``:desc``
        """
        key, _, direction = order.partition(":")
        if key.lower() not in ("submissiontime", "id") or direction.lower() not in ("", "asc", "desc"):
            raise malformed(f"sort_by {order!r} is not known: expected submissiontime or id, with :asc or :desc.")
        rows = [self.on_the_wire(job, number, row) for number, row in self._store.executions(job["id"]).items()]
        return rows if direction.lower() == "desc" else rows[::-1]

    def stop(self, job: Mapping[str, Any], execution: int) -> dict[str, Any]:
        """Stop an execution. One that has ended stays as it is."""
        self._row(job, execution)
        with self._lock:
            stopped, _ = self._running.get(execution, (None, None))
        if stopped is not None:
            # In the background, as in Hopsworks: the process has some seconds to end by itself.
            threading.Thread(target=stopped.set, name=f"stop of execution {execution}", daemon=True).start()
        return self.get(job, execution)

    def delete(self, job: Mapping[str, Any], execution: int) -> None:
        """Delete an execution; one that runs is stopped first."""
        self._row(job, execution)
        self._end([execution])
        self._store.delete_execution(execution)

    def delete_all(self, job: Mapping[str, Any]) -> None:
        """Stop all executions of a job, before the job is deleted."""
        self._end(list(self._store.executions(job["id"])))

    def log(self, job: Mapping[str, Any], execution: int, kind: str) -> dict[str, Any]:
        """
        Return the log of an execution that has ended.

        :param kind: ``out`` or ``err``
        """
        row = self._row(job, execution)
        if row["state"] not in FINAL:
            raise Refusal(130010, "Job still running.")
        path = self._paths(job, execution)[f"std{kind}Path"]
        file = self._files.file(path)
        text = file.read_text("utf-8", "replace") if file else "No log available."
        return {"type": kind.upper(), "path": self._files.hopsfs(path), "log": text or "No information."}

    def live_log(self, job: Mapping[str, Any], execution: int, lines: int) -> str | None:
        """Return the last lines of the output of an execution that runs; None if it does not run."""
        self._row(job, execution)
        file = self._runner.output(str(execution))
        return "\n".join(file.read_text("utf-8", "replace").splitlines()[-lines:]) if file else None

    def restore(self, jobs: list[dict[str, Any]]) -> None:
        """Set the executions of an earlier server to FAILED: their processes have ended with it."""
        for job in jobs:
            for number, row in self._store.executions(job["id"]).items():
                if row["state"] not in FINAL:
                    reason = "The local Model Serving ended while this execution was running.\n"
                    self._write_logs(job, number, b"", reason.encode())
                    self._show(number, row, "FAILED", "FAILED")

    def close(self) -> None:
        """Stop all executions, and return when their processes have ended."""
        self._end(list(self._running))

    def on_the_wire(self, job: Mapping[str, Any], execution: int, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return an execution, as on the wire."""
        begun, ended = row["submissionTime"], row.get("ended")
        return {
            "type": "executionDTO",
            "id": execution,
            "submissionTime": datetime.fromtimestamp(begun, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "state": row["state"],
            "finalStatus": row["finalStatus"],
            "args": row["args"],
            "progress": 1.0 if row["state"] in FINAL else 0.0,
            "duration": int(1000 * ((ended or time.time()) - begun)),
            **self._paths(job, execution),
            "appId": None,
            "hdfsUser": user_of(self._project.name),
            "user": {},
            "monitoring": None,
            "rerunCount": 0,
        }

    def _paths(self, job: Mapping[str, Any], execution: int) -> dict[str, str]:
        folder = f"Logs/{_FOLDERS.get(job['jobType'], 'Python')}/{job['name']}/{execution}"
        return {"stdoutPath": f"{folder}/stdout.log", "stderrPath": f"{folder}/stderr.log"}

    def _row(self, job: Mapping[str, Any], execution: int) -> dict[str, Any]:
        row = self._store.executions(job["id"]).get(execution)
        if row is None:
            raise Refusal(130007, f"Execution {execution} of job {job['name']} not found.")
        return row

    def _count(self) -> int:
        jobs = self._store.jobs(self._project.id).values()
        return sum(len(self._store.executions(job)) for job, _ in jobs)

    def _script(self, job: Mapping[str, Any], args: str, env_vars: Mapping[str, str]) -> Script:
        """Return the script of a job. One that does not exist is refused."""
        config = job["config"]
        file = self._files.file(config["appPath"])
        if file is None:
            raise Refusal(130000, f"The file {config['appPath']} of job {job['name']} does not exist.")
        try:
            arguments = shlex.split(args)
        except ValueError as error:
            raise malformed(f"The arguments cannot be split: {error}.") from None
        env = {
            "HOPSWORKS_PROJECT_ID": str(self._project.id),
            "HOPSWORKS_PROJECT_NAME": self._project.name,
            "HOPSWORKS_JOB_NAME": job["name"],
            "HADOOP_USER_NAME": user_of(self._project.name),
        }
        return Script(file, arguments, {**env_vars, **env}, config.get("environmentName"))

    def _run(self, job: dict[str, Any], number: int, row: dict[str, Any], script: Script, stopped: Stopped) -> None:
        """Run an execution to its end, in a thread of its own."""
        try:
            stopped.event.wait(self._speeds().job_starting)
            with self._runner.folder(str(number)) as folder:
                code = self._exit_code(number, row, script, folder, stopped)
                logs = [(folder / name).read_bytes() for name in ("stdout.log", "stderr.log")]
            state, status = _verdict(job["jobType"], code, is_stopped=stopped.event.is_set())
            late = self._speeds().job_logs
            if late:
                self._show(number, row, state, status)
                time.sleep(late)
            self._write_logs(job, number, *logs)
            self._show(number, row, state, status)
        except Exception:
            log.exception("Execution %s could not be carried out", number)
            self._show(number, row, "FRAMEWORK_FAILURE", "FAILED")
        finally:
            with self._lock:
                self._running.pop(number, None)

    def _exit_code(self, number: int, row: dict[str, Any], script: Script, folder: Path, stopped: Stopped) -> int:
        if script.file.suffix == ".py" and not stopped.event.is_set():
            return self._runner.run(script, folder, stopped, lambda: self._show(number, row, "RUNNING", "UNDEFINED"))
        why = "" if stopped.event.is_set() else "The local Model Serving runs Python scripts (.py) only.\n"
        (folder / "stdout.log").touch()
        (folder / "stderr.log").write_text(why)
        return NO_ENVIRONMENT

    def _show(self, number: int, row: dict[str, Any], state: str, status: str) -> None:
        """Set the state that clients read."""
        row |= {"state": state, "finalStatus": status}
        if state in FINAL:
            row.setdefault("ended", time.time())
        self._store.update_execution(number, row)

    def _write_logs(self, job: Mapping[str, Any], number: int, stdout: bytes, stderr: bytes) -> None:
        paths = self._paths(job, number)
        self._files.write(paths["stdoutPath"], stdout)
        self._files.write(paths["stderrPath"], stderr)

    def _end(self, executions: list[int]) -> None:
        with self._lock:
            ending = [self._running[number] for number in executions if number in self._running]
        enders = [threading.Thread(target=stopped.set) for stopped, _ in ending]
        for thread in enders:
            thread.start()
        for thread in (*enders, *(thread for _, thread in ending)):
            with contextlib.suppress(RuntimeError):  # It has just been created, and has not started.
                thread.join(_STOPPING_SECONDS)


def _verdict(job_type: str, code: int, *, is_stopped: bool) -> tuple[str, str]:
    """Return the final state and the final status of an execution, which a server sets together."""
    if is_stopped:
        return "KILLED", "KILLED"
    if code == NO_ENVIRONMENT:
        return ("APP_MASTER_START_FAILED" if job_type in _FOLDERS else "INITIALIZATION_FAILED"), "FAILED"
    return ("FINISHED", "SUCCEEDED") if code == 0 else ("FAILED", "FAILED")
