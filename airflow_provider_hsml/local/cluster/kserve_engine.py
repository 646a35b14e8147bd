"""The engine that runs each component of a deployment in a process and a Python environment of its own, on loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import inherited, process_groups
from .engines import (
    INSTANCE_HEADER,
    VERSION_HEADER,
    Answer,
    Forwarded,
    Instance,
    InstanceLog,
    ModelFiles,
    StartError,
)
from .environments import EnvironmentFailedError
from .hops import Hops
from .inference_log import InferenceLog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.local.store import Store

    from .engines import Component, Logs
    from .environments import NamedEnvironments

_PROGRAM = Path(__file__).with_name("model_server.py")
_HOST = "127.0.0.1"
_HOPSWORKS_PORT = 8080
"""The port on which a program without a model listens in Hopsworks."""
_POLL_SECONDS = 0.05
_END_SECONDS = 15.0
_LAST_WORDS_SECONDS = 1.0
"""The longest wait for the end of the output: a child of the process may hold it open."""
_PREDICT_SECONDS = 300.0
_ERROR = re.compile(r"(Error|Exception)\b|\bERROR\b")


class KServeEngine:
    """
    Runs models with KServe's model server, and deployments without a model as plain programs.

    :param environments: the Python environments by name
    :param store: records the processes, so that the next server can end those that this one left behind
    :param folder: holds the scripts of running instances, and the files of the inference logger
    :param env: environment variables for every process
    """

    def __init__(
        self, environments: NamedEnvironments, store: Store, folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.env = dict(env or {})
        self._environments = environments
        self._store = store
        self._artifacts = folder / "artifacts"
        self._logged = folder / "inference-logs"
        self.hops = Hops(_PREDICT_SECONDS)
        """The connections to the processes."""
        process_groups.end_leftovers(store)
        shutil.rmtree(self._artifacts, ignore_errors=True)

    def start(self, model: ModelFiles, logs: Logs, cancelled: threading.Event, timeout: float) -> Instance:
        """Start the processes of a deployment, and return when all are ready."""
        _check_runs_here(model)
        pythons = {each: self._python(model, each, logs[each], cancelled) for each in model.components}
        deadline = time.monotonic() + timeout  # Building an environment may take longer.
        started: dict[Component, _Process] = {}
        try:
            for component, python in pythons.items():
                predictor = started.get("predictor")
                started[component] = _Process(self, python, model, component, logs[component], predictor)
            for process in started.values():
                process.wait_until_ready(cancelled, deadline)
        except BaseException as error:
            _Components(started, None).stop()
            if isinstance(error, OSError | ValueError):  # A missing script, or an invalid variable.
                raise StartError("INITIALIZED", f"it could not be started: {error}") from error
            raise
        return _Components(started, self._inference_log(model))

    def _python(self, model: ModelFiles, component: Component, log: InstanceLog, cancelled: threading.Event) -> Path:
        name = model.environment if component == "predictor" else model.transformer_environment
        try:
            return self._environments.python(name, log.write, cancelled)
        except EnvironmentFailedError as error:
            log.write(str(error))
            reason = f"the {component}'s Python environment {name} could not be built: {error}"
            raise StartError("INITIALIZED", reason) from error

    def _inference_log(self, model: ModelFiles) -> InferenceLog | None:
        if model.logged == "NONE" or model.topic is None:
            return None
        self._logged.mkdir(parents=True, exist_ok=True)
        about = {"deployment": model.deployment, "modelVersion": model.version}
        return InferenceLog(self._logged / f"{model.topic}.jsonl", model.logged, about)

    def artifacts(self, instance: str) -> Path:
        """Create the folder of an instance's scripts, and return its path."""
        folder = self._artifacts / instance
        folder.mkdir(parents=True)
        return folder

    async def aclose(self) -> None:
        """Close the connections to the processes."""
        await self.hops.aclose()

    def record(self, pid: int) -> None:
        """Record a started process."""
        self._store.note_process(pid, process_groups.start_time(pid) or "")

    def forget(self, pid: int) -> None:
        """Forget a process that has ended."""
        self._store.forget_process(pid)


class _Components:
    """The processes of one deployment. Requests go to its transformer, which calls the predictor, or else there."""

    def __init__(self, processes: Mapping[Component, _Process], inference_log: InferenceLog | None) -> None:
        self._processes = processes
        self._inference_log = inference_log

    async def ask(self, request: Forwarded) -> Answer:
        process = self._processes.get("transformer") or self._processes["predictor"]
        answer = await process.ask(request)
        if self._inference_log is not None:
            self._inference_log.record(request, answer)
        return answer

    def failure(self) -> str | None:
        failures = (process.failure() for process in self._processes.values())
        return next((failure for failure in failures if failure), None)

    def stop(self) -> None:
        for process in reversed(list(self._processes.values())):
            process.stop()


class _Process:
    """One component's process."""

    def __init__(  # noqa: PLR0917 - the parts of one process
        self,
        engine: KServeEngine,
        python: Path,
        model: ModelFiles,
        component: Component,
        log: InstanceLog,
        predictor: _Process | None,
    ) -> None:
        self._engine = engine
        self._component = component
        self._log = log
        self._headers = {VERSION_HEADER: model.env.get("MODEL_VERSION", ""), INSTANCE_HEADER: log.instance}
        self._folder = engine.artifacts(log.instance)
        script = model.script if component == "predictor" else model.transformer
        own, config = (self._copied(file) for file in (script, model.config))
        self._is_program = model.path is None and component == "predictor"
        # In Hopsworks a program without a model has a network of its own, with that port.
        self._may_take = [_HOPSWORKS_PORT] if self._is_program and not _listens(_HOPSWORKS_PORT) else []
        # Bound here and served there: no race for the port, and connections are refused until the model is loaded.
        with socket.socket() as bound:
            bound.bind((_HOST, 0))
            self._port: int = bound.getsockname()[1]
            argument = {
                "name": model.deployment,
                "files": str(model.path or ""),
                "script": str(own or ""),
                "role": "program" if self._is_program else component,
                "predictor": predictor and f"{_HOST}:{predictor.port}",
                "descriptor": bound.fileno(),
            }
            env = model.env if component == "predictor" else model.transformer_env
            if self._is_program:
                bound.close()  # The program binds the port itself.
            self._process = subprocess.Popen(
                [str(python), "-P", "-u", str(_PROGRAM), json.dumps(argument)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[] if self._is_program else [bound.fileno()],
                env={**inherited.of_model_server(), **engine.env, **env, **self._contract(own, config)},
                cwd=self._folder,
                start_new_session=True,  # Ctrl-C must reach only this server, which ends the process in order.
            )
        self._is_stopping = False
        self._reader = threading.Thread(target=self._read_output, name=log.instance, daemon=True)
        self._reader.start()
        engine.record(self._process.pid)

    @property
    def port(self) -> int:
        """The port on which the process listens."""
        return self._port

    def _copied(self, file: Path | None) -> Path | None:
        """Copy a script to the instance's folder, so that a change in the project does not affect running instances."""
        return None if file is None else Path(shutil.copy(file, self._folder / file.name))

    def _contract(self, script: Path | None, config: Path | None) -> dict[str, str]:
        """Return the environment variables of Hopsworks' contract that belong to this component."""
        return {
            "ARTIFACT_FILES_PATH": str(self._folder),
            "SCRIPT_PATH": str(script or ""),
            "SCRIPT_NAME": script.name if script else "",
            "CONFIG_FILE_PATH": str(config or ""),
            "IS_PREDICTOR": str(self._component == "predictor").lower(),
            "IS_TRANSFORMER": str(self._component == "transformer").lower(),
        } | ({"PORT": str(self._port)} if self._is_program else {})

    def wait_until_ready(self, cancelled: threading.Event, deadline: float) -> None:
        """Wait until the model is loaded."""
        while not self._is_ready():
            if self._process.poll() is not None:
                self._reader.join(_LAST_WORDS_SECONDS)
                raise StartError("STARTED", self._with_name(self._last_words()))
            if cancelled.wait(_POLL_SECONDS):
                raise StartError("STARTED", "another change came before it was ready")
            if time.monotonic() > deadline:
                cause = f"it did not listen on $PORT or {_HOPSWORKS_PORT}" if self._is_program else "it was not ready"
                raise StartError("STARTED", self._with_name(f"{cause} in time: see the logs"))

    async def ask(self, request: Forwarded) -> Answer:
        if self._is_program:  # A program may close idle connections at any time.
            request = replace(request, headers={**request.headers, "connection": "close"})
        answer = await self._engine.hops.ask(self._port, request)
        return Answer(answer.status, answer.content, {**answer.headers, **self._headers})

    def failure(self) -> str | None:
        if self._is_stopping or self._process.poll() is None:
            return None
        return self._with_name(f"ended with exit code {self._process.returncode}: {self._last_words()}")

    def stop(self) -> None:
        self._is_stopping = True
        process_groups.end(self._process, _END_SECONDS)
        self._reader.join(_LAST_WORDS_SECONDS)
        self._engine.hops.forget(self._port)
        self._engine.forget(self._process.pid)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_ready(self) -> bool:
        if self._is_program:
            own = process_groups.listening_ports(self._process.pid)
            ports = [port for port in (self._port, *self._may_take) if own is None or port in own]
            taken = next((port for port in ports if _listens(port)), None)
            self._port = taken or self._port
            return taken is not None
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=2)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _read_output(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        with self._process.stdout as output:
            while line := output.readline(InstanceLog.LINE_LENGTH):
                self._log.write(line.decode("utf-8", "replace").rstrip("\n"))

    def _with_name(self, reason: str) -> str:
        """Return a reason with the component's name: clients read the logs of the named component."""
        return f"{self._component}: {reason}"

    def _last_words(self) -> str:
        """Return the last line of output that names an error, or else the last line."""
        said = [line.strip() for line in self._log.tail(50).splitlines() if line.strip()]
        return next(filter(_ERROR.search, reversed(said)), said[-1] if said else "it printed nothing")


def _check_runs_here(model: ModelFiles) -> None:
    """Refuse model servers that do not run locally: at START, as a pod that cannot come up."""
    if model.server != "PYTHON":
        raise StartError(
            "INITIALIZED",
            f"the local Model Serving does not run {model.server}: deploy this model on a Hopsworks cluster.",
        )


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((_HOST, port), timeout=1):
        return True
    return False
