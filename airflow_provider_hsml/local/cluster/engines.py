"""
How a model is run: an ``Engine`` makes an ``Instance`` of it, which answers requests until it is stopped.

There are two: ``CallableEngine`` here (a Python callable, in this process, for unit tests) and ``KServeEngine`` in
``kserve_engine`` (KServe's model server, in a process and an environment of its own).
"""

from __future__ import annotations

import asyncio
import collections
import json
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from pathlib import Path

VERSION_HEADER = "x-hsml-local-model-version"
"""Which version of the model answered. Only the instance that did says it; no row is asked."""
INSTANCE_HEADER = "x-hsml-local-instance"
"""Which instance answered."""
CONNECTION_HEADERS = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "content-length", "host", "date", "server"}
)
"""Headers that belong to one connection, not to what is passed on."""

Stage = Literal["SCHEDULED", "INITIALIZED", "STARTED", "READY"]
Component = Literal["predictor", "transformer"]
Logs: TypeAlias = "Mapping[Component, InstanceLog]"
"""Where each component writes what it prints."""
PredictFunction: TypeAlias = "Callable[[Any], Any]"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """
    What an engine is given to run.

    :param deployment: the deployment's name
    :param name: the model's name; None for a deployment without a model
    :param version: its version
    :param path: the folder that holds the model's files
    :param framework: ``SKLEARN``, ``PYTHON``, ...
    :param server: ``PYTHON``, ``TENSORFLOW_SERVING`` or ``VLLM``
    :param script: the predictor script, on this machine
    :param transformer: the transformer script, on this machine
    :param config: the configuration file, on this machine
    :param env: environment variables of Hopsworks' contract and of the deployment, MODEL_VERSION among them
    :param environment: the name of the Python environment to run it in
    :param transformer_env: the transformer's own environment variables, on top of the contract's
    :param transformer_environment: the name of the transformer's Python environment
    :param logged: what the inference logger writes: ALL, PREDICTIONS, MODEL_INPUTS or NONE
    :param topic: the Kafka topic it writes to
    """

    deployment: str
    name: str | None
    version: int | None
    path: Path | None
    framework: str | None
    server: str
    script: Path | None = None
    transformer: Path | None = None
    config: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    environment: str | None = None
    transformer_env: Mapping[str, str] = field(default_factory=dict)
    transformer_environment: str | None = None
    logged: str = "NONE"
    topic: str | None = None

    @property
    def components(self) -> tuple[Component, ...]:
        """What it consists of: each is a process of its own in a cluster."""
        return ("predictor", "transformer") if self.transformer else ("predictor",)


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A request that is passed on to an instance as it came."""

    method: str
    path: str
    """With its query: ``/v1/models/digits:predict``."""
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def prediction(cls, deployment: str, body: bytes, verb: str = "predict") -> Forwarded:
        """Make the request of the V1 protocol that asks for predictions."""
        return cls("POST", f"/v1/models/{deployment}:{verb}", {"content-type": "application/json"}, body)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an instance answered."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class StartError(Exception):
    """
    An instance did not come up: its deployment is Failed.

    :param stage: the condition that was not met
    :param reason: for the condition: why, and what to do
    """

    def __init__(self, stage: Stage, reason: str) -> None:
        self.stage: Stage = stage
        self.reason = reason
        super().__init__(reason)


class InstanceLog:
    """
    What an instance printed: its last lines.

    :param instance: the instance's name
    """

    LINES = 2000
    LINE_LENGTH = 4000
    BYTES = 50_000
    """About as much as Hopsworks hands out at once."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self._lines: collections.deque[str] = collections.deque(maxlen=self.LINES)

    def write(self, text: str) -> None:
        """Add one line or several."""
        self._lines.extend(line[: self.LINE_LENGTH] for line in text.splitlines())

    def tail(self, lines: int) -> str:
        """Give the last lines, at most ``BYTES`` of them."""
        kept = list(self._lines)[-lines:] if lines > 0 else []
        return "\n".join(kept)[-self.BYTES :]


class Instance(Protocol):
    """A model that is loaded and answers."""

    async def ask(self, request: Forwarded) -> Answer:
        """
        Answer a request.

        :param request: as it is for the instance; headers that concern one connection only are left out
        :raises ConnectionError: the instance is gone
        :raises TimeoutError: it did not answer in time
        """
        ...

    def failure(self) -> str | None:
        """Say why it has ended by itself; None while it is alive."""
        ...

    def stop(self) -> None:
        """End it, and return when it has ended."""
        ...


class Engine(Protocol):
    """A way to run models."""

    def start(self, model: ModelFiles, logs: Logs, cancelled: threading.Event, timeout: float) -> Instance:
        """
        Load a model, and return when it answers.

        :param model: what to run
        :param logs: where to write what its components print
        :param cancelled: give up when it is set
        :param timeout: seconds until it must be ready
        :raises StartError: it does not come up
        """
        ...

    async def aclose(self) -> None:
        """Let go of what the engine holds for all instances."""
        ...


class CallableEngine:
    """
    Runs each model as a Python callable in this process, for unit tests.

    :param load: given a ``ModelFiles``, returns the function that gets the value of ``instances`` and returns a list
    """

    def __init__(self, load: Callable[[ModelFiles], PredictFunction]) -> None:
        self._load = load

    def start(self, model: ModelFiles, logs: Logs, cancelled: threading.Event, timeout: float) -> Instance:  # noqa: ARG002
        """Load a model; what it raises is in the log, and its deployment Failed. Scripts are the callable's to run."""
        log = logs["predictor"]
        log.write(f"Loading model {model.name} version {model.version}")
        try:
            predict = self._load(model)
        except Exception as error:
            log.write(traceback.format_exc())
            raise StartError("STARTED", f"{type(error).__name__}: {error}") from error
        log.write("Model is ready")
        return _CallableInstance(predict, model, log)

    async def aclose(self) -> None:
        """Hold nothing."""


class _CallableInstance:
    def __init__(self, predict: PredictFunction, model: ModelFiles, log: InstanceLog) -> None:
        self._predict = predict
        self._name = model.deployment
        self._log = log
        self._headers = {
            "content-type": "application/json",
            VERSION_HEADER: str(model.env.get("MODEL_VERSION", "")),
            INSTANCE_HEADER: log.instance,
        }
        # As in Hopsworks: a plain function is asked for one prediction after the other.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=log.instance)

    async def ask(self, request: Forwarded) -> Answer:
        path = request.path.partition("?")[0]
        if request.method == "GET" and path == f"/v1/models/{self._name}":
            return self._answer(200, {"name": self._name, "ready": True})
        if request.method == "POST" and path.startswith(f"/v1/models/{self._name}:"):
            return await self._predicted(request.body)
        return self._answer(404, {"detail": "Not Found"})

    async def _predicted(self, body: bytes) -> Answer:
        try:
            request = json.loads(body)
            value = request.get("instances", request.get("inputs"))
        except (ValueError, AttributeError) as error:
            return self._answer(400, {"error": f"Unrecognized request format: {error}"})
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, value)
            answer = result if isinstance(result, dict) and "predictions" in result else {"predictions": result}
            return self._answer(200, answer)
        except Exception as error:  # noqa: BLE001 - whatever a model raises is its answer
            self._log.write(traceback.format_exc())
            return self._answer(500, {"error": f"{type(error).__name__} : {error}"})

    def _answer(self, status: int, content: Any) -> Answer:
        return Answer(status, json.dumps(content).encode(), self._headers)

    def failure(self) -> str | None:
        return None

    def stop(self) -> None:
        self._thread.shutdown(wait=True)
