"""The inference logger: what is asked of a deployment and what it answers, as lines of JSON in a file a topic."""

from __future__ import annotations

import json
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .engines import Answer, Forwarded

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
        """Write a prediction down; what is no prediction, or was refused, is not."""
        if not request.path.endswith(":predict") or answer.status >= 300:
            return
        both = [("request", request.body, _INPUTS), ("response", answer.content, _PREDICTIONS)]
        ids = {"requestId": uuid.uuid4().hex, "time": time.time(), **self._about}
        lines = [
            json.dumps({**ids, "kind": kind, "payload": json.loads(body)})
            for kind, body, modes in both
            if self._mode in modes
        ]
        with self._writing, self._file.open("a") as stream:
            stream.writelines(f"{line}\n" for line in lines)
