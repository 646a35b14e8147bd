"""
Engines run models: an ``Engine`` starts an ``Instance``, which answers requests until it is stopped.

There are two engines: ``CallableEngine`` here (a Python callable, in this process, for unit tests) and ``KServeEngine``
in ``kserve_engine`` (KServe's model server, in a process and an environment of its own).
"""

from __future__ import annotations

import asyncio
import collections
import json
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from pathlib import Path

VERSION_HEADER = "x-hsml-local-model-version"
"""The header with the version of the model that answered, set by the instance itself."""
INSTANCE_HEADER = "x-hsml-local-instance"
"""The header with the name of the instance that answered."""
CONNECTION_HEADERS = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "content-length", "host", "date", "server"}
)
"""Headers that belong to one connection, and are not forwarded."""

Stage = Literal["SCHEDULED", "INITIALIZED", "STARTED", "READY"]
Component = Literal["predictor", "transformer"]
Logs: TypeAlias = "Mapping[Component, InstanceLog]"
"""The log of each component."""
PredictFunction: TypeAlias = "Callable[[Any], Any]"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """
    A model for an engine to run, with its scripts and environment variables.

    :param deployment: the deployment's name
    :param name: the model's name; None for a deployment without a model
    :param path: the folder that holds the model's files
    :param framework: ``SKLEARN``, ``PYTHON``, ...
    :param server: ``PYTHON``, ``TENSORFLOW_SERVING`` or ``VLLM``
    :param script: the predictor script, on this machine
    :param transformer: the transformer script, on this machine
    :param config: the configuration file, on this machine
    :param env: environment variables of Hopsworks' contract and of the deployment, MODEL_VERSION among them
    :param environment: the name of the predictor's Python environment
    :param transformer_env: the transformer's own environment variables, on top of the contract's
    :param transformer_environment: the name of the transformer's Python environment
    :param logged: the mode of the inference logger: ALL, PREDICTIONS, MODEL_INPUTS or NONE
    :param topic: the inference logger's Kafka topic
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
        """The components of the deployment: each is a process of its own in a cluster."""
        return ("predictor", "transformer") if self.transformer else ("predictor",)


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A request that is forwarded to an instance unchanged."""

    method: str
    path: str
    """With its query: ``/v1/models/digits:predict``."""
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def prediction(cls, deployment: str, body: bytes, verb: str = "predict") -> Forwarded:
        """Build a prediction request of the V1 protocol."""
        return cls("POST", f"/v1/models/{deployment}:{verb}", {"content-type": "application/json"}, body)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of an instance."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class StartError(Exception):
    """
    An instance did not come up: its deployment is Failed.

    :param stage: the condition that was not met
    :param reason: the text of the condition: the cause, and what to do
    """

    def __init__(self, stage: Stage, reason: str) -> None:
        self.stage: Stage = stage
        self.reason = reason
        super().__init__(reason)


class InstanceLog:
    """
    The last lines of an instance's output.

    :param instance: the instance's name
    """

    LINES = 2000
    LINE_LENGTH = 4000
    BYTES = 50_000
    """About as much as Hopsworks returns at once."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self._lines: collections.deque[str] = collections.deque(maxlen=self.LINES)

    def write(self, text: str) -> None:
        """Add one line or several."""
        self._lines.extend(line[: self.LINE_LENGTH] for line in text.splitlines())

    def tail(self, lines: int) -> str:
        """Return the last lines, at most ``BYTES`` of them."""
        kept = list(self._lines)[-lines:] if lines > 0 else []
        return "\n".join(kept)[-self.BYTES :]


class Instance(Protocol):
    """A loaded model that answers requests."""

    async def ask(self, request: Forwarded) -> Answer:
        """
        Answer a request.

        :param request: without the headers that belong to one connection
        :raises ConnectionError: the instance has ended
        :raises TimeoutError: it did not answer in time
        """
        ...

    def failure(self) -> str | None:
        """Return why the instance has ended by itself; None while it is alive."""
        ...

    def stop(self) -> None:
        """End the instance, and return when it has ended."""
        ...


class Engine(Protocol):
    """A way to run models."""

    def start(self, model: ModelFiles, logs: Logs, cancelled: threading.Event, timeout: float) -> Instance:
        """
        Load a model, and return when it answers.

        :param logs: receive the output of the components
        :param cancelled: the start gives up when this is set
        :param timeout: seconds until the model must be ready
        :raises StartError: the model does not come up
        """
        ...

    async def aclose(self) -> None:
        """Release the resources that all instances share."""
        ...


class CallableEngine:
    """
    Runs each model as a Python callable in this process, for unit tests.

    :param load: takes a ``ModelFiles``, and returns a function from the value of ``instances`` to a list
    """

    def __init__(self, load: Callable[[ModelFiles], PredictFunction]) -> None:
        self._load = load

    def start(self, model: ModelFiles, logs: Logs, cancelled: threading.Event, timeout: float) -> Instance:  # noqa: ARG002
        """Load a model. An exception is logged, and its deployment is Failed. Scripts are left to the callable."""
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
        """Do nothing: there are no shared resources."""


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
        # As in Hopsworks, a plain function gets one request after the other.
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
        except Exception as error:  # noqa: BLE001 - any exception of a model becomes its answer
            self._log.write(traceback.format_exc())
            if isinstance(status := getattr(error, "status_code", None), int):  # As FastAPI's HTTPException.
                refusal = self._answer(status, {"detail": getattr(error, "detail", str(error))})
                return replace(refusal, headers={**refusal.headers, **(getattr(error, "headers", None) or {})})
            return self._answer(500, {"error": f"{type(error).__name__} : {error}"})

    def _answer(self, status: int, content: Any) -> Answer:
        return Answer(status, json.dumps(content).encode(), self._headers)

    def failure(self) -> str | None:
        return None

    def stop(self) -> None:
        self._thread.shutdown(wait=True)
