"""
The program that runs in the model server's environment: one component of a deployment, served by KServe's SDK.

It is run by its path and imports nothing of this package, which is not installed there. Its one argument is JSON:
``{"name", "files", "descriptor", "headers"}``. It serves the listening socket it inherits (KServe itself would bind all
addresses, with a server that loads pickles), and ends when its standard input does: then its parent is gone.
"""

# ruff: noqa: PLC0415 - sys.argv must be right before KServe is imported, and end_with_parent runs before anything.
from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_ENDINGS = (".joblib", ".pkl", ".pickle")
_GRACE_SECONDS = 3.0


def end_with_parent() -> None:
    """Wait until the parent closes our standard input, and end: in order at first, then at once."""
    # Not through sys.stdin, whose lock would be held when a failing interpreter wants to close it.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(0)


def model_file(folder: Path) -> Path:
    """
    Find the file of a scikit-learn model.

    :param folder: the model's files
    :raises RuntimeError: there is none, or more than one
    """
    found = sorted(path for path in folder.iterdir() if path.suffix in _ENDINGS)
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found) or "none"
    raise RuntimeError(
        f"Expected exactly one model file ({', '.join(_ENDINGS)}) directly in the model's Files, found {names}. "
        "Register the model with one of them, or give the deployment a predictor script.",
    )


def serve(name: str, files: Path, descriptor: int, headers: dict[str, str]) -> None:
    """
    Load a model and serve it until the process is told to end.

    :param name: the deployment's name, which is in the path of its endpoints
    :param files: the model's files
    :param descriptor: of the bound socket
    :param headers: added to each answer
    """
    import joblib
    import kserve
    from kserve import model_server
    from kserve.errors import InferenceError
    from kserve.logging import configure_logging
    from kserve.protocol.rest.server import RESTServer
    from kserve.utils.utils import get_predict_input, get_predict_response

    # As in Hopsworks a plain predict is asked for one prediction after the other; the loop stays free for health.
    one_at_a_time = ThreadPoolExecutor(1)

    class ScikitLearnModel(kserve.Model):  # type: ignore[misc]
        """What KServe's own sklearnserver, which is not on PyPI, does with a model."""

        def load(self) -> bool:
            self._model = joblib.load(model_file(files))
            self.ready = True
            return True

        async def predict(self, payload: Any, _headers: dict[str, str] | None = None) -> Any:
            try:
                return await asyncio.get_running_loop().run_in_executor(one_at_a_time, self._predicted, payload)
            except Exception as error:
                logging.getLogger("kserve").exception("The model failed to predict")
                raise InferenceError(str(error)) from error

        def _predicted(self, payload: Any) -> Any:
            result = self._model.predict(get_predict_input(payload))
            return get_predict_response(payload, result, self.name)

    class AnswerHeaders:
        """Says in each answer which instance gave it."""

        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def send_with_headers(message: Any) -> None:
                if message["type"] == "http.response.start":
                    own = [(key.encode(), value.encode()) for key, value in headers.items()]
                    message = {**message, "headers": [*message.get("headers", []), *own]}
                await send(message)

            await self._app(scope, receive, send_with_headers)

    configure_logging()
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    # About four lines a request otherwise, in which what the model prints would drown.
    for chatty in ("kserve.trace", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    model = ScikitLearnModel(name)
    model.load()
    server = kserve.ModelServer(enable_grpc=False, enable_latency_logging=False)
    server.register_model(model)
    model_server.app.add_middleware(AnswerHeaders)
    rest = RESTServer(
        "kserve.model_server:app",
        server.dataplane,
        server.model_repository_extension,
        0,
        grace_period=10,
    )
    rest.run(sockets=[socket.socket(fileno=descriptor)])


def main() -> None:
    """Read the argument and serve."""
    component = json.loads(sys.argv.pop())  # KServe reads what is left of sys.argv when it is imported.
    threading.Thread(target=end_with_parent, daemon=True).start()
    serve(component["name"], Path(component["files"]), component["descriptor"], component["headers"])


if __name__ == "__main__":
    main()
