"""Runs each model in KServe's own model server: a process of its own, in an environment of its own, on loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from .engines import (
    CONNECTION_HEADERS,
    INSTANCE_HEADER,
    VERSION_HEADER,
    Answer,
    Forwarded,
    Instance,
    InstanceLog,
    ModelFiles,
    StartError,
)
from .environments import EnvironmentFailedError, Environments, default_requirements

if TYPE_CHECKING:
    from .store import Store

log = logging.getLogger(__name__)

_PROGRAM = Path(__file__).with_name("model_server.py")
_HOST = "127.0.0.1"
_LOOK_SECONDS = 0.05
_END_SECONDS = 15.0
_PREDICT_SECONDS = 300.0
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""All that a model server gets of our environment: no AIRFLOW__ settings, no secrets."""


class KServeEngine:
    """
    Runs models with KServe's model server.

    :param environments: where its environments are
    :param store: where its processes are noted, so that the next server ends what this one could not
    """

    def __init__(self, environments: Environments, store: Store) -> None:
        self._environments = environments
        self._store = store
        self._client: httpx.AsyncClient | None = None
        for pid, started in store.processes():
            _end_leftover(pid, started)
            store.forget_process(pid)

    def start(self, model: ModelFiles, log: InstanceLog, cancelled: threading.Event, timeout: float) -> Instance:
        """Start a model server, and return when it is ready."""
        _check_runs_here(model)
        try:
            python = self._environments.python(default_requirements(), log.write)
        except EnvironmentFailedError as error:
            log.write(str(error))
            raise StartError("INITIALIZED", f"the model server's environment could not be built: {error}") from error
        instance = _KServeInstance(self, python, model, log)
        try:
            instance.wait_until_ready(cancelled, time.monotonic() + timeout)
        except BaseException:
            instance.stop()
            raise
        return instance

    async def send(self, port: int, request: Forwarded) -> httpx.Response:
        """Send a request to a model server, over connections that stay open."""
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=_PREDICT_SECONDS,
                trust_env=False,
                limits=httpx.Limits(max_connections=64, keepalive_expiry=30),
            )
        url = f"http://{_HOST}:{port}{request.path}"
        named = {**request.headers, "accept-encoding": "identity"}
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]
        return await self._client.request(request.method, url, content=request.body, headers=headers)

    async def aclose(self) -> None:
        """Close the connections to the model servers."""
        if self._client is not None:
            await self._client.aclose()

    def note(self, pid: int) -> None:
        """Note a process that was started."""
        self._store.note_process(pid, _start_time(pid) or "")

    def forget(self, pid: int) -> None:
        """Forget a process that has ended."""
        self._store.forget_process(pid)


class _KServeInstance:
    """One model server's process."""

    def __init__(self, engine: KServeEngine, python: Path, model: ModelFiles, log: InstanceLog) -> None:
        self._engine = engine
        self._log = log
        self._headers = {VERSION_HEADER: model.env.get("MODEL_VERSION", ""), INSTANCE_HEADER: log.instance}
        # Bound here and served there: no race for the port, and it refuses until the model is loaded.
        with socket.socket() as bound:
            bound.bind((_HOST, 0))
            self._port: int = bound.getsockname()[1]
            component = {
                "name": model.deployment,
                "files": str(model.path),
                "descriptor": bound.fileno(),
                "headers": self._headers,
            }
            self._process = subprocess.Popen(
                [str(python), "-P", "-u", str(_PROGRAM), json.dumps(component)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[bound.fileno()],
                env=_child_env(model),
                cwd=model.path,
                start_new_session=True,  # Ctrl-C is for us: we end it in order.
            )
        self._is_stopping = False
        self._reader = threading.Thread(target=self._read_output, name=log.instance, daemon=True)
        self._reader.start()
        engine.note(self._process.pid)

    def wait_until_ready(self, cancelled: threading.Event, deadline: float) -> None:
        """Wait until the model is loaded."""
        while not self._is_ready():
            if self._process.poll() is not None:
                self._reader.join()
                raise StartError("STARTED", self._last_words())
            if cancelled.wait(_LOOK_SECONDS):
                raise StartError("STARTED", "another change came before it was ready")
            if time.monotonic() > deadline:
                raise StartError("STARTED", "the model was not loaded in time: see the logs")

    async def ask(self, request: Forwarded) -> Answer:
        try:
            answer = await self._engine.send(self._port, request)
        except httpx.ReadTimeout as error:
            raise TimeoutError(f"no answer within {_PREDICT_SECONDS:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        headers = {name: value for name, value in answer.headers.items() if name not in CONNECTION_HEADERS}
        return Answer(answer.status_code, answer.content, headers)

    def failure(self) -> str | None:
        if self._is_stopping or self._process.poll() is None:
            return None
        return f"the model server ended with exit code {self._process.returncode}: {self._last_words()}"

    def stop(self) -> None:
        self._is_stopping = True
        process = self._process
        with contextlib.suppress(OSError):
            process.terminate()
        assert process.stdin is not None  # noqa: S101 - it was asked for
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join()
        self._engine.forget(process.pid)

    def _is_ready(self) -> bool:
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

    def _last_words(self) -> str:
        """Give the last line that is not empty: of a traceback, the exception."""
        said = [line for line in self._log.tail(50).splitlines() if line.strip()]
        return said[-1].strip() if said else "it printed nothing"


def _check_runs_here(model: ModelFiles) -> None:
    """Refuse what has no local server, or is not built yet: at START, as a pod that cannot come up."""
    if model.server != "PYTHON":
        raise StartError(
            "INITIALIZED",
            f"the local Model Serving does not run {model.server}: deploy this model on a Hopsworks cluster.",
        )
    if model.script or model.transformer or model.path is None:
        raise StartError(
            "INITIALIZED",
            "the local Model Serving does not run scripts yet: deploy a scikit-learn model without a script.",
        )


def _child_env(model: ModelFiles) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # One thread a model server: several at once on a laptop would fight for its cores.
    return {**inherited, "OMP_NUM_THREADS": "1", **model.env}


def _start_time(pid: int) -> str | None:
    """Say when a process started, in whatever words the system has: a pid alone may be somebody else's by now."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    with contextlib.suppress(OSError):
        done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return done.stdout.strip() or None
    return None


def _end_leftover(pid: int, started: str) -> None:
    """End a model server of an earlier run that did not see its parent go."""
    if started and _start_time(pid) == started:
        log.warning("Ending process %s, a model server that an earlier run left behind", pid)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
