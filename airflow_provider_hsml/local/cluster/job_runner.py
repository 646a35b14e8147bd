"""The processes of jobs: each execution is a Python script in a process and an environment of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import inherited, process_groups
from .environments import EnvironmentFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_provider_hsml.local.store import Store

    Pythons = Callable[[str | None, Callable[[str], None], threading.Event], Path]

_PROGRAM = Path(__file__).with_name("model_server.py")
_END_SECONDS = 10.0
NO_ENVIRONMENT = 125
"""The exit code of an execution whose environment could not be built, or whose process could not be started."""


@dataclass(frozen=True, slots=True)
class Script:
    """
    A script to run.

    :param file: on this machine
    :param arguments: the program's arguments
    :param env: environment variables
    :param environment: the name of the Python environment; None: the default one
    """

    file: Path
    arguments: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    environment: str | None = None


class Stopped:
    """The wish to stop one execution, which ends its process."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def set(self) -> None:
        """Stop the execution: its process and the children of this process end, in order and then at once."""
        self.event.set()
        with self._lock:
            if self._process is not None:
                process_groups.end(self._process, _END_SECONDS)

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """End this process with the execution, also when the execution was stopped before."""
        with self._lock:
            self._process = process
            if self.event.is_set():
                process_groups.end(process, _END_SECONDS)


class JobRunner:
    """
    Runs the scripts of jobs.

    :param python: returns the interpreter of a named environment; builds the environment if it does not exist
    :param store: records the processes, so that the next server can end those that this one left behind
    :param folder: holds a folder for each running execution, with its script and its output
    :param env: environment variables for every process
    """

    def __init__(self, python: Pythons, store: Store, folder: Path, env: Mapping[str, str]) -> None:
        self._python = python
        self._store = store
        self._folder = folder
        self._env = dict(env)
        process_groups.end_leftovers(store)
        shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Create the folder of an execution, and delete it after the block."""
        folder = self._folder / name
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def output(self, name: str) -> Path | None:
        """Return the file with the output of an execution that runs; None if it does not run."""
        file = self._folder / name / "stdout.log"
        return file if file.exists() else None

    def run(self, script: Script, folder: Path, stopped: Stopped, on_running: Callable[[], None]) -> int:
        """
        Run a script to its end, and return its exit code.

        :param folder: the working directory; ``stdout.log`` and ``stderr.log`` in it get the output
        :param stopped: ends the process
        :param on_running: called when the process runs
        """
        with (folder / "stdout.log").open("wb") as stdout, (folder / "stderr.log").open("wb") as stderr:
            try:
                process = self._start(script, folder, stopped, stdout.fileno(), stderr.fileno())
            except (EnvironmentFailedError, OSError, ValueError) as error:
                stderr.write(f"The script could not be started: {error}\n".encode())
                return NO_ENVIRONMENT
            self._store.note_process(process.pid, process_groups.start_time(process.pid) or "")
            try:
                stopped.watch(process)
                on_running()
                return process.wait()
            finally:
                process_groups.end(process, _END_SECONDS)
                self._store.forget_process(process.pid)

    def _start(
        self, script: Script, folder: Path, stopped: Stopped, stdout: int, stderr: int
    ) -> subprocess.Popen[bytes]:
        python = self._python(script.environment, lambda _line: None, stopped.event)
        own = shutil.copy(script.file, folder / script.file.name)  # A later change of the script has no effect.
        argument = {
            "name": "",
            "script": str(own),
            "role": "program",
            "predictor": None,
            "args": list(script.arguments),
        }
        return subprocess.Popen(
            [str(python), "-P", "-u", str(_PROGRAM), json.dumps(argument)],
            stdin=subprocess.PIPE,  # The program ends when it ends: then this server has ended.
            stdout=stdout,
            stderr=stderr,
            env={**inherited.of_model_server(), **self._env, **script.env},
            cwd=folder,
            start_new_session=True,
        )
