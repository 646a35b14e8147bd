"""Everything that is logged in this process, searched for the API keys and then dropped."""

from __future__ import annotations

import contextlib
import logging
import threading
import traceback
from typing import TYPE_CHECKING, Any

from tests.support.secrecy import encodings

from .plot import SECRETS

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

_PARTS = tuple(secret.rpartition(".")[2] for secret in SECRETS)
_ENCODED = {encoded for part in _PARTS for encoded in encodings(part)}


def has_key(text: str) -> bool:
    """Whether a text holds a key or its secret part, in whatever encoding."""
    raw = text.encode("utf-8", "replace")
    return any(encoded in raw for encoded in _ENCODED)


def full_text(error: BaseException) -> str:
    """Return an exception with its causes, as a log might show it, and its arguments."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        current = current.__cause__ or current.__context__
    shown = "".join(traceback.format_exception(error))
    return "\n".join([shown, *(f"{each!r} {each} {each.args!r}" for each in seen)])


class Witness(logging.Handler):
    """A handler for all loggers, Airflow's own among them."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.leaks: list[str] = []
        self.lines: dict[str, list[str]] = {}
        """The latest lines, by thread, of cells that want to see them."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f"\n{full_text(record.exc_info[1])}"
        self.note(record.name, text)

    def note(self, where: str, text: str) -> None:
        if any(part in text for part in _PARTS):
            self.leaks.append(f"{threading.current_thread().name}: {where}: {text[:500]}")
        lines = self.lines.get(threading.current_thread().name)
        if lines is not None:
            lines.append(f"{where.rpartition('.')[2]}: {text}")

    def process(self, _logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Take what Airflow's tasks log through structlog."""
        import structlog

        if method not in ("debug", "msg"):
            positional = event.get("positional_args") or ()
            text = str(event.get("event", ""))
            with contextlib.suppress(TypeError, ValueError):
                text = text % positional if positional else text
            error = event.get("exc_info")
            if isinstance(error, BaseException):
                text += full_text(error)
            elif error:
                text += traceback.format_exc()
            rest = {key: value for key, value in event.items() if key not in ("event", "exc_info", "positional_args")}
            self.note("task", f"{text} {rest or ''}")
        raise structlog.DropEvent


@contextlib.contextmanager
def listening() -> Iterator[Witness]:
    """Have all log records searched, and shown nowhere."""
    witness = Witness()
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in ("airflow.task", "uvicorn.error"))]
    kept = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    structured = _structured(witness)
    for logger in loggers:
        logger.handlers[:] = [witness] if logger is loggers[0] else []
    try:
        with structured:
            yield witness
    finally:
        for logger, handlers, level in kept:
            logger.handlers[:] = handlers
            logger.setLevel(level)


@contextlib.contextmanager
def _structured(witness: Witness) -> Iterator[None]:
    try:
        import structlog
    except ImportError:  # Airflow before 3.1 logs without it.
        yield
        return
    before = structlog.get_config()
    structlog.configure(**{**before, "processors": [witness.process], "cache_logger_on_first_use": False})
    try:
        yield
    finally:
        structlog.configure(**before)
