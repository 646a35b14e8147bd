"""The inference logger: what is asked of a deployment and what it answers, as lines of JSON in a file a topic."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .engines import Answer, Forwarded

log = logging.getLogger(__name__)

_INPUTS = ("ALL", "MODEL_INPUTS")
_PREDICTIONS = ("ALL", "PREDICTIONS")


class InferenceLog:
    """
    Writes down predictions, where Hopsworks would send them to Kafka.

    A line is ``{"requestId", "time", "deployment", "modelVersion", "kind", "payload"}``: the time is in seconds since
    1970, the kind is ``request`` or ``response``.

    :param file: is appended to
    :param mode: what is written: ALL, MODEL_INPUTS or PREDICTIONS
    :param about: what each line says of the deployment
    """

    _writing = threading.Lock()

    def __init__(self, file: Path, mode: str, about: dict[str, Any]) -> None:
        self._file = file
        self._mode = mode
        self._about = about

    def note(self, request: Forwarded, answer: Answer) -> None:
        """Write a prediction of either protocol down; what is none, or was refused, is not."""
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
        except OSError as error:  # The answer is there, and worth more than its trace.
            log.warning("A prediction of %s could not be logged: %s", self._about["deployment"], error)


def _payload(body: bytes) -> Any:
    """Give what a body holds: JSON, or what text there is in it."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
