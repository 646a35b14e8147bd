"""
Faults on command: failures that a test requests, in process (``serving.faults``) or over HTTP (``http.control``).

A fault is a frozen dataclass; ``Faults`` holds the active ones. ``FaultMiddleware`` applies those of requests, and the
cluster those of starts and changes. This module does no I/O.
"""

from __future__ import annotations

import re
import threading
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeVar, get_args

from .engines import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

HELD = ("Created", "Updating", "Running", "Stopped")
"""The statuses that a ``Hold`` can keep a deployment from."""


@dataclass(frozen=True, slots=True)
class RequestFault:
    """
    A failure of requests, instead of or beside their answer.

    :param method: ``PUT``, or ``*`` for any
    :param path: a pattern of the path below ``/hopsworks-api/api``, where ``*`` is one segment and ``**`` any number:
        ``/project/*/serving``. A pattern with a ``?`` matches path and query: ``**/serving/*?action=START``
    :param status: answer with this status, without carrying out the request
    :param body: of that answer: text as it is, anything else as JSON
    :param headers: of that answer
    :param delay: seconds to wait first
    :param drop: close the connection without an answer, ``before`` the request is carried out, or ``after`` it was
    :param cut: carry out the request, and send only this many bytes of the body, fewer than its Content-Length says
    :param times: the number of requests; None: every one
    """

    kind: ClassVar[str] = "request"
    method: str = "*"
    path: str = "**"
    status: int | None = None
    body: Any = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: Literal["before", "after"] | None = None
    cut: int | None = None
    times: int | None = 1

    def __post_init__(self) -> None:
        _check_text(self, "method", "path")
        _check_times(self.times)
        if not (self.status is None or (_is_int(self.status) and 200 <= self.status <= 599)):
            raise ValueError(f"status {self.status!r}: expected a number from 200 to 599.")
        if not isinstance(self.headers, dict) or not all(isinstance(text, str) for text in self.headers.values()):
            raise ValueError(f"headers {self.headers!r}: expected an object of texts.")
        _check_seconds("delay", self.delay)
        if self.drop not in (None, "before", "after"):
            raise ValueError(f"drop {self.drop!r}: expected 'before' or 'after'.")
        if not (self.cut is None or (_is_int(self.cut) and self.cut >= 0)):
            raise ValueError(f"cut {self.cut!r}: expected a number of bytes.")
        if sum(way is not None for way in (self.status, self.drop, self.cut)) + bool(self.delay) == 0:
            raise ValueError("Nothing would happen: give one of status, delay, drop and cut.")
        if sum(way is not None for way in (self.status, self.drop, self.cut)) > 1:
            raise ValueError("status, drop and cut exclude each other.")

    def meets(self, method: str, path: str, query: str) -> bool:
        """Return whether the fault applies to a request."""
        if self.method.upper() not in ("*", method):
            return False
        return _pattern(self.path).fullmatch(f"{path}?{query}" if "?" in self.path else path) is not None


@dataclass(frozen=True, slots=True)
class StartFault:
    """
    A failure of the next rollout of a deployment: a start, an update, or a rollback.

    :param deployment: its name; ``*`` for any
    :param stage: the condition that is not met: ``SCHEDULED`` (no room), ``INITIALIZED``, ``STARTED`` (the script
        fails), ``READY``
    :param reason: the text of the condition, after "Failed to ..."; for ``STARTED`` it is in the logs, too
    :param lasts: seconds until the rollout continues by itself; None: Failed for good
    :param crash_after: the deployment is Running, and crashes this many seconds later (``stage`` is ignored); with
        ``lasts`` it restarts after that many seconds
    :param times: the number of rollouts; None: every one
    """

    kind: ClassVar[str] = "start"
    deployment: str = "*"
    stage: Stage = "STARTED"
    reason: str = "fault on command"
    lasts: float | None = None
    crash_after: float | None = None
    times: int | None = 1

    def __post_init__(self) -> None:
        _check_text(self, "deployment", "reason")
        _check_times(self.times)
        if self.stage not in get_args(Stage):
            raise ValueError(f"stage {self.stage!r}: expected one of {', '.join(get_args(Stage))}.")
        for name in ("lasts", "crash_after"):
            if (seconds := getattr(self, name)) is not None:
                _check_seconds(name, seconds)


@dataclass(frozen=True, slots=True)
class Hold:
    """
    A transition that does not end before the hold is removed.

    :param deployment: its name; ``*`` for any
    :param status: the status that the deployment does not reach: ``Created`` (it stays Creating), ``Updating`` (stale
        after a change), ``Running`` (Starting or Updating), ``Stopped`` (Stopping)
    """

    kind: ClassVar[str] = "hold"
    deployment: str = "*"
    status: str = "Running"

    def __post_init__(self) -> None:
        _check_text(self, "deployment")
        if self.status not in HELD:
            raise ValueError(f"status {self.status!r}: expected one of {', '.join(HELD)}.")


@dataclass(frozen=True, slots=True)
class LostChange:
    """
    The next update or rollback of a running deployment is lost: it is answered with 201 and stored, but never applied.

    :param deployment: its name; ``*`` for any
    :param times: the number of changes; None: every one
    """

    kind: ClassVar[str] = "lost_change"
    deployment: str = "*"
    times: int | None = 1

    def __post_init__(self) -> None:
        _check_text(self, "deployment")
        _check_times(self.times)


Fault: TypeAlias = RequestFault | StartFault | Hold | LostChange
_Counted = TypeVar("_Counted", RequestFault, StartFault, LostChange)
_OfDeployment = TypeVar("_OfDeployment", StartFault, LostChange)
KINDS: dict[str, type[Fault]] = {kind.kind: kind for kind in (RequestFault, StartFault, Hold, LostChange)}


class Faults:
    """The active faults, oldest first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 1
        self._active: dict[int, Fault] = {}

    def add(self, fault: Fault) -> int:
        """Activate a fault, and return the number by which it can be removed."""
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._active[number] = fault
            return number

    def remove(self, number: int) -> None:
        """End a fault, or release a hold. A used-up fault has ended already: no error."""
        with self._lock:
            self._active.pop(number, None)

    def clear(self) -> None:
        """End all faults, and release all holds."""
        with self._lock:
            self._active.clear()

    def active(self) -> dict[int, Fault]:
        """Return the active faults by their numbers; ``times`` counts the remaining uses."""
        with self._lock:
            return dict(self._active)

    def for_request(self, method: str, path: str, query: str) -> RequestFault | None:
        """Use up and return a fault that applies to a request."""
        with self._lock:
            for number, fault in self._active.items():
                if isinstance(fault, RequestFault) and fault.meets(method, path, query):
                    return self._used(number, fault)
        return None

    def for_start(self, deployment: str) -> StartFault | None:
        """Use up and return a fault that applies to a rollout."""
        return self._for(deployment, StartFault)

    def for_change(self, deployment: str) -> LostChange | None:
        """Use up and return a fault that loses a change."""
        return self._for(deployment, LostChange)

    def holds(self, deployment: str, status: str) -> bool:
        """Return whether a hold keeps a deployment from a status."""
        with self._lock:
            return any(
                isinstance(fault, Hold) and fault.status == status and fault.deployment in ("*", deployment)
                for fault in self._active.values()
            )

    def _for(self, deployment: str, kind: type[_OfDeployment]) -> _OfDeployment | None:
        with self._lock:
            for number, fault in self._active.items():
                if isinstance(fault, kind) and fault.deployment in ("*", deployment):
                    return self._used(number, fault)
        return None

    def _used(self, number: int, fault: _Counted) -> _Counted:
        if fault.times == 1:
            del self._active[number]
        elif fault.times is not None:
            self._active[number] = replace(fault, times=fault.times - 1)
        return fault


def fault_of(document: Mapping[str, Any]) -> Fault:
    """
    Parse a fault from JSON: its fields by name, and ``kind``.

    :raises ValueError: the kind or a field is unknown, or a value is wrong
    """
    fields = dict(document)
    kind = KINDS.get(str(fields.pop("kind", None)))
    if kind is None:
        raise ValueError(f"kind {document.get('kind')!r}: expected one of {', '.join(KINDS)}.")
    known = kind.__dataclass_fields__
    if unknown := sorted(name for name in fields if name not in known or name == "kind"):
        raise ValueError(f"{unknown[0]!r} is not a field of a {kind.kind} fault: expected some of {', '.join(known)}.")
    return kind(**fields)


def document_of(number: int, fault: Fault) -> dict[str, Any]:
    """Return a fault as JSON, with its number."""
    return {"id": number, "kind": fault.kind, **asdict(fault)}


@lru_cache(256)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile("".join({"**": ".*", "*": "[^/?]*"}.get(p, re.escape(p)) for p in re.split(r"(\*\*?)", text)))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_text(fault: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(fault, name), str):
            raise ValueError(f"{name} {getattr(fault, name)!r}: expected a text.")  # noqa: TRY004 - of JSON


def _check_times(times: object) -> None:
    if times is not None and not (isinstance(times, int) and not isinstance(times, bool) and times > 0):
        raise ValueError(f"times {times!r}: expected a number from 1, or null for every time.")


def _check_seconds(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 86_400:
        raise ValueError(f"{name} {value!r}: expected seconds, from 0 to a day.")
