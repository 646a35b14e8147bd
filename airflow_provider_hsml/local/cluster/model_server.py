"""
The program that runs in the model server's environment: one component of a deployment, served by KServe's SDK.

It is run by its path and imports nothing of this package, which is not installed there. Its one argument is JSON:
``{"name", "files", "script", "role", "predictor", "descriptor"}``. The role is ``predictor``, ``transformer`` (in front
of the predictor at that address) or ``program``: the script of a deployment without a model, which serves by itself, or
of a job, which has ``args`` as well.
The program serves an inherited listening socket: KServe itself would bind all addresses, with a server that loads
pickles. It ends when its standard input ends, because then its parent has ended.
"""

# ruff: noqa: PLC0415 - sys.argv must be right before KServe is imported, and end_with_parent runs before anything.
from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import logging
import os
import runpy
import signal
import socket
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_ENDINGS = (".joblib", ".pkl", ".pickle")
_GRACE_SECONDS = 3.0


def end_with_parent() -> None:
    """Wait for the end of standard input, and end this process and its children: in order, then at once."""
    # Not through sys.stdin: a failing interpreter could not close it while this thread holds its lock.
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGTERM)  # This process leads a group of its own.
    time.sleep(_GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def model_file(folder: Path) -> Path:
    """
    Return the file of a scikit-learn model.

    :param folder: the model's files
    :raises RuntimeError: there is no such file, or more than one
    """
    found = sorted(path for path in folder.iterdir() if path.suffix in _ENDINGS)
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found) or "none"
    raise RuntimeError(
        f"Expected exactly one model file ({', '.join(_ENDINGS)}) directly in the model's Files, found {names}. "
        "Register the model with one of them, or give the deployment a predictor script.",
    )


def loaded(script: str, *class_names: str) -> Any:
    """
    Build the object of a script that answers requests.

    Its ``__init__`` may take any of ``project``, ``deployment``, ``model`` (objects with a ``name``, and an ``id`` or
    ``version``) and ``async_logger`` (None here).

    :param script: the script's path
    :param class_names: accepted names of its class
    :raises RuntimeError: the script has none of these classes
    """
    path = Path(script)
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path.name} is no Python script.")
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made_by = next((getattr(module, name) for name in class_names if hasattr(module, name)), None)
    if made_by is None:
        raise RuntimeError(f"{path.name} has no class {' or '.join(class_names)}.")
    context = {
        "project": SimpleNamespace(
            name=os.environ.get("HOPSWORKS_PROJECT_NAME"), id=os.environ.get("HOPSWORKS_PROJECT_ID")
        ),
        "deployment": SimpleNamespace(
            name=os.environ.get("DEPLOYMENT_NAME"), version=os.environ.get("DEPLOYMENT_VERSION")
        ),
        "model": SimpleNamespace(name=os.environ.get("MODEL_NAME"), version=os.environ.get("MODEL_VERSION")),
        "async_logger": None,
    }
    wanted = inspect.signature(made_by).parameters
    return made_by(**{name: value for name, value in context.items() if name in wanted})


def rows(payload: Any) -> Any:
    """
    Return the rows of a request of the V1 protocol.

    :raises kserve.errors.InvalidInput: there are none; the model would get None, and invent an answer
    """
    from kserve.errors import InvalidInput

    for key in ("instances", "inputs"):
        if key in payload:
            return payload[key]
    raise InvalidInput("Expected a JSON object with instances or inputs, got neither.")


def as_list(result: Any) -> Any:
    """Return an array as a list, and anything else as it is."""
    return result.tolist() if hasattr(result, "tolist") else result


def predictions(result: Any) -> Any:
    """
    Return the result of a script as an answer of the V1 protocol.

    :param result: a mapping with ``predictions``, which stays as it is, or else the predictions themselves
    """
    if isinstance(result, dict) and "predictions" in result:
        return result
    return {"predictions": as_list(result)}


# As in Hopsworks, a plain function gets one request after the other; the loop stays free for health checks.
_one_at_a_time = ThreadPoolExecutor(1)


async def asked(function: Callable[[Any], Any], value: Any) -> Any:
    """
    Call a function, plain or async, of a model or a script.

    KServe turns its exceptions into answers, and logs the traceback.
    """
    if inspect.iscoroutinefunction(function):
        return await function(value)
    return await asyncio.get_running_loop().run_in_executor(_one_at_a_time, function, value)


def scikit_learn_model(name: str, files: Path) -> Any:
    """
    Load a model without a script, and serve it as KServe's own sklearnserver does, which is not on PyPI.

    :param name: the deployment's name
    :param files: the model's files
    """
    import joblib
    import kserve
    from kserve.errors import InferenceError
    from kserve.utils.utils import get_predict_input, get_predict_response

    loaded_model = joblib.load(model_file(files))

    class Model(kserve.Model):  # type: ignore[misc]
        async def predict(self, payload: Any, _headers: dict[str, str] | None = None) -> Any:
            if isinstance(payload, dict):
                rows(payload)
            try:
                return await asked(self._predicted, payload)
            except Exception as error:
                raise InferenceError(str(error)) from error

        def _predicted(self, payload: Any) -> Any:
            # As lists: KServe cannot put an array of texts into an answer of the V2 protocol.
            return get_predict_response(payload, as_list(loaded_model.predict(get_predict_input(payload))), self.name)

    return Model(name)


def scripted_model(name: str, script: str) -> Any:
    """
    Load a predictor script: its ``predict`` gets the rows, and returns the predictions.

    :param name: the deployment's name
    :param script: its path
    """
    import kserve
    from kserve.utils.utils import get_predict_input, get_predict_response

    predictor = loaded(script, "Predict", "Predictor")
    if not hasattr(predictor, "predict"):
        raise RuntimeError(f"class {type(predictor).__name__} of {Path(script).name} has no method predict.")

    class Model(kserve.Model):  # type: ignore[misc]
        async def predict(self, payload: Any, _headers: dict[str, str] | None = None) -> Any:
            if isinstance(payload, dict):
                return predictions(await asked(predictor.predict, rows(payload)))
            answer = predictions(await asked(predictor.predict, get_predict_input(payload)))
            return get_predict_response(payload, answer["predictions"], self.name)

    return Model(name)


def scripted_transformer(name: str, script: str) -> Any:
    """
    Load a transformer script: it changes the request before the predictor, and the reply after the predictor.

    :param name: the deployment's name
    :param script: its path
    """
    import kserve

    transformer = loaded(script, "Transformer")

    class Model(kserve.Model):  # type: ignore[misc]
        async def preprocess(self, payload: Any, _headers: dict[str, str] | None = None) -> Any:
            step = getattr(transformer, "preprocess", None)
            return payload if step is None else await asked(step, payload)

        async def postprocess(self, result: Any, _headers: dict[str, str] | None = None) -> Any:
            step = getattr(transformer, "postprocess", None)
            return result if step is None else await asked(step, result)

    return Model(name)


def keeping_connections(app: Any) -> Any:
    """
    Wrap an ASGI application, so that connections stay open after a 500.

    Starlette raises an exception again after it has answered 500. uvicorn would close the connection a moment later, in
    the middle of the next request.
    """

    async def keeping(scope: Any, receive: Any, send: Any) -> None:
        has_begun = False

        async def send_and_mark(message: Any) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await app(scope, receive, send_and_mark)
        except Exception:
            if not has_begun:
                raise

    return keeping


def serve(model: Any, predictor: str | None, descriptor: int) -> None:
    """
    Serve a model until the process is told to end.

    :param model: a ``kserve.Model``
    :param predictor: the predictor's address, for a transformer in front of it
    :param descriptor: the file descriptor of the bound socket
    """
    import kserve
    from kserve import model_server
    from kserve.logging import configure_logging
    from kserve.predictor_config import PredictorConfig
    from kserve.protocol.rest.server import RESTServer

    configure_logging()
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    # Otherwise about four lines for each request would hide the output of the model.
    for chatty in ("kserve.trace", "uvicorn.access", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    config = PredictorConfig(predictor) if predictor else None
    server = kserve.ModelServer(enable_grpc=False, enable_latency_logging=False, predictor_config=config)
    model.load()
    server.register_model(model)
    rest = RESTServer(
        keeping_connections(model_server.app),
        server.dataplane,
        server.model_repository_extension,
        0,
        grace_period=10,
    )
    rest.run(sockets=[socket.socket(fileno=descriptor)])


def main() -> None:
    """Parse the argument, and serve the model or run the program."""
    argument = json.loads(sys.argv.pop())  # KServe parses the rest of sys.argv when it is imported.
    threading.Thread(target=end_with_parent, daemon=True).start()
    name, script, predictor = argument["name"], argument["script"], argument["predictor"]
    if argument["role"] == "program":
        sys.argv = [script, *argument.get("args", ())]
        sys.path.insert(0, str(Path(script).parent))
        runpy.run_path(script, run_name="__main__")
        return
    if predictor:
        model = scripted_transformer(name, script)
    elif script:
        model = scripted_model(name, script)
    else:
        model = scikit_learn_model(name, Path(argument["files"]))
    serve(model, predictor, argument["descriptor"])


if __name__ == "__main__":
    main()
