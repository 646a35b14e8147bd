"""
The rows of a request against a deployment's schema: the checks that Hopsworks makes, and its encodings of values.

A row is an object with names, or a list in the order of the schema's fields. Timestamps, dates and bytes are sent as
text, as Hopsworks' SDK sends them, and decimals for fields of decimals.
"""

from __future__ import annotations

import base64
import functools
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.untrusted_text import beginning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .deployment_schema import DeploymentSchema, Field

log = logging.getLogger(__name__)

_MOST_FAULTS = 10
"""Faults that a message lists."""
_MOST_DIGITS = 1000
"""Digits with which a decimal is written; a longer one is refused later, with its place."""
_INTEGER = re.compile(r"-?\d+", re.ASCII)
_DECIMAL = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:?\d{2})?", re.ASCII)
_ABSENT = object()

Check = Callable[[Any], "str | None"]
"""Returns why a value that is not null does not have a type; None if it does."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a request."""

    row: int | None
    """The number of the row, from 0; None if the fault concerns the whole request."""
    field: str | None
    reason: str

    def __str__(self) -> str:
        """Return the fault, for messages."""
        subject = [f"row {self.row}"] if self.row is not None else []
        subject += [f"field {beginning(repr(self.field), 100)}"] if self.field is not None else []
        return f"{', '.join(subject)}: {self.reason}" if subject else self.reason


def check_body(schema: DeploymentSchema, body: Mapping[str, Any], subject: str) -> None:
    """
    Raise an error if a deployment's schema refuses the body of a request.

    :param subject: the beginning of the message: the deployment, or the argument with the rows
    :raises InvalidInputError: naming the rows and fields at fault, the first row is row 0
    """
    found = faults(schema, body.get("instances", body.get("inputs")))
    if not found:
        return
    shown = [str(fault) for fault in found[:_MOST_FAULTS]]
    more = [f"and {len(found) - _MOST_FAULTS} more"] if len(found) > _MOST_FAULTS else []
    order = ", ".join(field.name for field in schema.fields)
    message = (
        f"{subject}: the rows do not match the deployment's schema {schema.id}: {'; '.join(shown + more)}.\n"
        f"Give objects, or lists in the order of the fields: {beginning(order, 1000)}."
    )
    raise InvalidInputError(message)


def faults(schema: DeploymentSchema, rows: Any) -> list[Fault]:
    """Return the faults of rows; none if the schema accepts them."""
    if not isinstance(rows, list):
        return [Fault(None, None, "the rows are not a list")]
    if not 0 < len(rows) <= schema.max_batch_rows:
        limit = f"at most {schema.max_batch_rows} are accepted" if rows else "at least one is needed"
        return [Fault(None, None, f"there are {len(rows)} rows, and {limit}")]
    if len({isinstance(row, Mapping) for row in rows}) > 1:
        return [Fault(None, None, "some rows are objects and some are lists")]
    fields = [(field, check_of(field.type)) for field in schema.fields]
    return [fault for number, row in enumerate(rows) for fault in _row_faults(number, row, fields)]


def _row_faults(number: int, row: Any, fields: list[tuple[Field, Check]]) -> list[Fault]:
    if isinstance(row, list):
        if len(row) != len(fields):
            return [Fault(number, None, f"expected {len(fields)} values, got {len(row)}")]
        row = dict(zip((field.name for field, _ in fields), row, strict=True))
    elif not isinstance(row, Mapping):
        return [Fault(number, None, f"expected an object or a list, got {type(row).__name__}")]
    known = {field.name for field, _ in fields}
    found = [Fault(number, str(name), "unknown field") for name in row if name not in known]
    for field, check in fields:
        value = row.get(field.name, _ABSENT)
        if value is _ABSENT:
            reason = "missing" if field.required else None
        elif value is None:
            reason = None if field.nullable else "must not be null"
        else:
            reason = check(value)
        if reason is not None:
            found.append(Fault(number, field.name, reason))
    return found


# --- Types ----------------------------------------------------------------------------------------------------------


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_moment(value: Any) -> bool:
    if not _matches(_MOMENT, value):
        return False
    try:
        datetime.fromisoformat(value.upper())
    except ValueError:
        return False
    return True


def _is_date(value: Any) -> bool:
    if not _matches(_DATE, value):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


_SIMPLE: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("tinyint", "smallint", "int", "integer"), (_is_whole, "an integer")),
    "bigint": (lambda value: _is_whole(value) or _matches(_INTEGER, value), "an integer, or one as text"),
    **dict.fromkeys(("float", "double"), (_is_number, "a finite number")),
    "decimal": (lambda value: _is_number(value) or _matches(_DECIMAL, value), "a number, or one as text"),
    **dict.fromkeys(("string", "varchar", "char"), (lambda value: isinstance(value, str), "a text")),
    "boolean": (lambda value: isinstance(value, bool), "true or false"),
    "timestamp": (
        lambda value: _is_whole(value) or _is_moment(value),
        "a time such as '2026-11-29T06:00:00Z', or milliseconds since 1970",
    ),
    "date": (lambda value: _is_whole(value) or _is_date(value), "a date such as '2026-11-29', or days since 1970"),
    "binary": (lambda value: _matches(_BASE64, value) and len(value) % 4 == 0, "a base64 text"),
}
"""By the beginning of a type's name: whether a value has it, and the expected value."""


@functools.lru_cache(maxsize=1024)
def check_of(kind: str | None) -> Check:
    """
    Return the check of a type.

    :param kind: a type of the feature store in lower case; any value has an unknown one
    """
    if kind is None:
        return lambda _value: None
    name, _, inner = kind.removesuffix(">").partition("<") if kind.endswith(">") else (kind, "", "")
    if inner:
        return _NESTED.get(name, lambda _kind, _inner: check_of(None))(kind, inner)
    for start, (holds, expected) in _SIMPLE.items():
        if kind == start or (start in ("decimal", "varchar", "char") and kind.startswith(start)):
            return lambda value: None if holds(value) else f"must be {expected} ({kind})"
    return check_of(None)


def _array(kind: str, inner: str) -> Check:
    check_item = check_of(inner.strip())

    def check(value: Any) -> str | None:
        if not isinstance(value, list):
            return f"must be a list ({kind})"
        return _first((f"item {number}", check_item, item) for number, item in enumerate(value))

    return check


def _map(kind: str, inner: str) -> Check:
    parts = _split(inner)
    if len(parts) != 2:
        return check_of(None)
    check_item = check_of(parts[1])

    def check(value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return f"must be an object ({kind})"
        return _first((f"the value of {key!r}", check_item, item) for key, item in value.items())

    return check


def _struct(kind: str, inner: str) -> Check:
    members = {
        name.strip(): check_of(of.strip())
        for name, colon, of in (part.partition(":") for part in _split(inner))
        if colon
    }

    def check(value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return f"must be an object ({kind})"
        if value.keys() != members.keys():
            return f"must have exactly the members {', '.join(members)} ({kind})"
        return _first((f"member {name!r}", check_member, value[name]) for name, check_member in members.items())

    return check


_NESTED = {"array": _array, "map": _map, "struct": _struct}


def _first(items: Iterator[tuple[str, Check, Any]]) -> str | None:
    """Return the first fault among the items of a value; null is always accepted."""
    for where, check, item in items:
        if item is not None and (reason := check(item)) is not None:
            return f"{where} {reason}"
    return None


def _split(text: str) -> list[str]:
    """Split a list of types at its commas, but not inside of another type."""
    parts, depth = [""], 0
    for letter in text:
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part]


# --- Encodings ------------------------------------------------------------------------------------------------------


def matching_body(
    schema: DeploymentSchema, read: Callable[[Callable[[Any], Any] | None], Mapping[str, Any]], subject: str
) -> Mapping[str, Any]:
    """
    Return the body of a request in the form in which a deployment's schema accepts it.

    That is the one with encoded values, else the one without. A decimal is a text for a field of decimals, and a number
    for others.

    :param read: reads the rows with an encoding, or without
    :param subject: the beginning of the message: the deployment, or the argument with the rows
    :raises InvalidInputError: as ``check_body``, of the encoded rows, if neither form is accepted
    """
    names = frozenset(field.name for field in schema.fields)
    by_text = by_number = read(functools.partial(encoded, names=names))
    try:
        by_number = read(functools.partial(encoded, names=names, decimals=False))
    except InvalidInputError as error:
        log.debug("%s; decimals are sent as text", error)
    key = "instances" if "instances" in by_text else "inputs"
    body = {**by_text, key: by_field(schema, by_text.get(key), by_number.get(key))}
    if not faults(schema, body[key]):
        return body
    try:
        before = read(None)
    except InvalidInputError:
        before = {}
    if before and not faults(schema, before.get(key)):
        return before
    check_body(schema, body, subject)
    return body


def by_field(schema: DeploymentSchema, texts: Any, numbers: Any) -> Any:
    """Return rows with their decimals as texts or as numbers, by the types of the fields."""
    if texts == numbers or not isinstance(texts, list):
        return texts
    fields = {field.name: field.type for field in schema.fields}
    kinds = list(fields.values())
    return [_row_by_field(fields, kinds, *both) for both in zip(texts, numbers, strict=True)]


def _row_by_field(fields: Mapping[str, str | None], kinds: list[str | None], texts: Any, numbers: Any) -> Any:
    if isinstance(texts, Mapping):
        return {name: _value_of(fields.get(name), value, numbers[name]) for name, value in texts.items()}
    if isinstance(texts, list) and len(texts) == len(kinds):
        return [_value_of(*one) for one in zip(kinds, texts, numbers, strict=True)]
    return texts


def _value_of(kind: str | None, text: Any, number: Any) -> Any:
    """Return the form of a value that its type prefers, unless only the other one is accepted."""
    check = check_of(kind)
    first, second = (text, number) if "decimal" in (kind or "") else (number, text)
    return second if check(first) is not None and check(second) is None else first


def encoded(value: Any, *, names: frozenset[str] | None = None, decimals: bool = True) -> Any:
    """
    Return rows with the values encoded that JSON does not have: times, dates, bytes and decimals as text.

    A time without a zone is one in UTC. Rows of a frame become objects if its columns are named as fields of the
    schema, and else lists, in the order of the columns. All other values are left to ``plain``.

    :param names: the fields of the schema; None if they are unknown
    :param decimals: whether decimals become text
    """
    if isinstance(value, Decimal):
        is_written = decimals and value.is_finite() and abs(value.adjusted()) < _MOST_DIGITS
        return format(value, "f") if is_written else value
    for kinds, encode in _ENCODINGS:
        if isinstance(value, kinds):
            return encode(value)
    again = functools.partial(encoded, names=names, decimals=decimals)
    if isinstance(value, Mapping):
        return {key: again(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [again(item) for item in value]
    is_frame = hasattr(type(value), "columns") and hasattr(value, "itertuples")
    return _rows_of(value, names, again) if is_frame else value


def _in_utc(value: datetime) -> Any:
    if value != value:  # noqa: PLR0124 - the missing date of pandas, which is refused later with its place
        return value
    moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return moment.isoformat().replace("+00:00", "Z")


def _rows_of(frame: Any, names: frozenset[str] | None, encode: Callable[[Any], Any]) -> list[Any]:
    columns = list(frame.columns)
    is_named = names is not None and len(set(columns)) == len(columns) and names.issuperset(columns)
    rows = [[encode(item) for item in row] for row in frame.itertuples(index=False, name=None)]
    return [dict(zip(columns, row, strict=True)) for row in rows] if is_named else rows


_ENCODINGS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (datetime, _in_utc),
    (date, lambda value: value.isoformat()),
    ((bytes, bytearray, memoryview), lambda value: base64.b64encode(bytes(value)).decode()),
)
"""The values that are encoded, by their types. A time is a date as well, so it comes first."""
