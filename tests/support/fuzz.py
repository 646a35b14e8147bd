"""
Random and mutated values for readers, from a seed, and a report of the failures by kind.

A case depends on its seed and number alone: ``HSML_TEST_SEED`` and the number in the report draw it again.
"""

from __future__ import annotations

import copy
import json
import os
import random
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.errors import HopsworksError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CASES = int(os.environ.get("HSML_TEST_CASES", "5000"))
SEED = os.environ.get("HSML_TEST_SEED", "14")
_PACKAGE = Path(__file__).parents[2] / "airflow_provider_hsml"

STATUSES = (200, 201, 202, 204, 301, 302, 400, 401, 403, 404, 405, 409, 413, 422, 429, 500, 501, 502, 503, 504, 599)
_NUMBERS: tuple[float, ...] = (
    *(0, -1, 1, 2, 119, 1.5, -0.0, 1e308, float("inf"), float("-inf"), float("nan"), 10**30, -(10**30), 2**63),
    *(10**400, -(10**400)),
)
_TEXTS = (
    *("", " ", "x", "1", "-1", "1.5", "NaN", "Infinity", "None", "null", "true", "\u0661", "\u00b2", "[1]"),
    *('{"a": 1}', "Running", "digits", "\ud800", "\udfff\ud800", "\0", "a\nb", "\x1b[31m", "\u202e"),
    *("x" * 5000, "9" * 5000, "[" * 5000),
)
_NESTED: tuple[Any, ...] = ([], [None], [[]], {}, {"": None}, [{}], {"items": 5})
ODD_JSON: tuple[Any, ...] = (None, True, False, *_NUMBERS, *_TEXTS, *_NESTED)
"""Values that JSON can hold, though some servers would not send them."""
_ODD_BYTES = (
    *(b"", b" ", b"null", b"true", b"0", b"-", b"NaN", b"Infinity", b"1e999", b'""', b"[]", b"[null]", b"[[]]", b"{}"),
    *(b'{"count": 1}', b'{"items": null}', b'{"items": {}}', b'{"items": [null]}', b"\xff\xfe", b"\xef\xbb\xbf{}"),
    *(b"\0", b"<html><body>Log in</body></html>", b"{", b'{"a":', b'"\\ud800"', b"9" * 5000, b'"' + b"x" * 10_000),
    *(b'"{\\"errorCode\\": 240000}"', b'{"errorCode": 240000}', b'{"errorCode": "240000"}', b'{"errorCode": null}'),
    *(b'{"errorCode": Infinity}', b'{"errorCode": NaN}', b'{"errorCode": 1e400}', b'{"errorCode": [1]}'),
    *(b'{"errorCode": 240000, "usrMsg": {"a": "\\ud800"}}', b'{"errorCode": 250008, "usrMsg": "\\ud800\\u001b[2J"}'),
)
_RARE_BYTES = (b"[" * 200_000, b'{"a":' * 200_000, b'{"items": ' + b"[" * 200_000, b'{"errorCode": ' + b"[" * 200_000)


def chance_of(number: int) -> random.Random:
    """Give the source of a case's randomness."""
    return random.Random(f"{SEED}-{number}")  # noqa: S311 - chance, not cryptography


def json_value(chance: random.Random, depth: int = 3) -> Any:
    """Draw a value that JSON can hold."""
    kind = chance.random()
    if depth == 0 or kind < 0.6:
        return copy.copy(chance.choice(ODD_JSON))
    inner = [json_value(chance, depth - 1) for _ in range(chance.randint(0, 3))]
    return inner if kind < 0.8 else {str(chance.choice(_TEXTS)): each for each in inner}


def mutated(chance: random.Random, value: Any, odd: Callable[[random.Random], Any] = json_value) -> Any:
    """Draw a value that differs from a valid one in some places."""
    whole = [copy.deepcopy(value)]
    places = list(_places(whole))  # Before the changes: what is put in is shared, and may hold itself.
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
        holder, key = chance.choice(places[1:] or places) if chance.random() < 0.95 else places[0]
        before = holder.get(key) if isinstance(holder, dict) else holder[key]
        match chance.randrange(6):
            case 0 if isinstance(holder, dict):
                holder.pop(key, None)
            case 1:
                holder[key] = [before]
            case 2:
                holder[key] = {str(key): before}
            case 3 if isinstance(holder, dict):
                holder[chance.choice(_TEXTS)] = odd(chance)
            case _:
                holder[key] = odd(chance)
    return whole[0]


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
        yield holder, key
        if isinstance(value, dict | list):
            yield from _places(value)


def content(chance: random.Random, valid: bytes) -> bytes:
    """Draw the bytes of a body or file that may differ from valid ones, as JSON or as bytes."""
    start = chance.randint(0, len(valid))
    match chance.randrange(20):
        case 0:
            drawn = chance.choice(_RARE_BYTES if chance.random() < 0.05 else _ODD_BYTES)
        case 1:
            drawn = valid[:start]
        case 2:
            drawn = valid[:start] + chance.randbytes(chance.randint(1, 3)) + valid[start + 1 :]
        case 3:
            drawn = chance.randbytes(chance.randint(1, 50))
        case 4:
            drawn = json.dumps(json_value(chance)).encode()
        case _:
            drawn = _mutated_json(chance, valid)
    return drawn


def _mutated_json(chance: random.Random, valid: bytes) -> bytes:
    try:
        return json.dumps(mutated(chance, json.loads(valid))).encode()
    except ValueError:
        return valid


def clipped(value: Any) -> str:
    """Show a value in a report."""
    try:
        shown = repr(value)
    except (RecursionError, ValueError) as error:
        return f"a {type(value).__name__} without a repr ({type(error).__name__})"
    return shown if len(shown) < 400 else f"{shown[:400]}... ({len(shown)} characters)"


@dataclass
class Report:
    """The failures by kind: the reader, the exception, and the line of ours that it passed last."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)

    def check(self, number: int, reader: str, read: Callable[[], Any], shown: Any) -> Any:
        """
        Read, and record every exception that is not one of ours, or whose text cannot be stored.

        :return: the result; None after an exception
        """
        try:
            result = read()
        except HopsworksError as error:
            self.outcomes[type(error).__name__] += 1
            try:
                str(error).encode()
            except UnicodeEncodeError as unsendable:
                self._record(number, f"text of {type(error).__name__}: {_place(error)}", unsendable, reader, shown)
            return None
        except Exception as error:  # noqa: BLE001 - the point of it
            self._record(number, _place(error), error, reader, shown)
            return None
        self.outcomes["read"] += 1
        return result

    def _record(self, number: int, place: str, error: Exception, reader: str, shown: Any) -> None:
        kind = f"{type(error).__name__} in {place}"
        self.counts[kind] += 1
        self.first.setdefault(kind, f"case {number} of seed {SEED}, {reader}: {clipped(error)}\n      {clipped(shown)}")

    def finish(self) -> None:
        """Raise an error with all kinds of failures, the most frequent first."""
        print(f"{self.outcomes.total() + self.counts.total()} cases: {dict(self.outcomes.most_common())}")
        lines = [f"{times} times {kind}\n      {self.first[kind]}" for kind, times in self.counts.most_common()]
        if lines:
            pytest.fail("\n".join([f"{len(lines)} kinds of failures:", *lines]), pytrace=False)


def _place(error: BaseException) -> str:
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.startswith(str(_PACKAGE))]
    last = frames[-1] if frames else None
    return f"{Path(last.filename).relative_to(_PACKAGE)}: {last.name}" if last else "no line of the package"
