"""The inference logger: requests to a deployment and its answers, as lines of JSON in one file for each topic."""

from __future__ import annotations

import json
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.logs import logger

if TYPE_CHECKING:
    from pathlib import Path

    from .engines import Answer, Forwarded

log = logger(__name__)

_INPUTS = ("ALL", "MODEL_INPUTS")
_PREDICTIONS = ("ALL", "PREDICTIONS")


class InferenceLog:
    """
    Appends predictions to a file, where Hopsworks would send them to Kafka.

    A line is ``{"requestId", "time", "deployment", "modelVersion", "kind", "payload"}``: the time is in seconds since
    1970, the kind is ``request`` or ``response``.

    :param mode: ALL, MODEL_INPUTS or PREDICTIONS
    :param about: the fields of each line that describe the deployment
    """

    _writing = threading.Lock()

    def __init__(self, file: Path, mode: str, about: dict[str, Any]) -> None:
        self._file = file
        self._mode = mode
        self._about = about

    def record(self, request: Forwarded, answer: Answer) -> None:
        """Append a prediction of either protocol. Other requests, and refused ones, are left out."""
        if not request.path.partition("?")[0].endswith((":predict", "/infer")) or answer.status >= 300:
            return
        both = [("request", request.body, _INPUTS), ("response", answer.content, _PREDICTIONS)]
        ids = {"requestId": uuid.uuid4().hex, "time": time.time(), **self._about}
        lines = [
            json.dumps({**ids, "kind": kind, "payload": _payload(body)})
            for kind, body, modes in both
            if self._mode in modes
        ]
        try:
            with self._writing, self._file.open("a") as stream:
                stream.writelines(f"{line}\n" for line in lines)
        except OSError as error:  # The answer matters more than its log.
            log.warning("A prediction of %s could not be logged: %s", self._about["deployment"], error)


def _payload(body: bytes) -> Any:
    """Return the content of a body: JSON, or else its text."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
