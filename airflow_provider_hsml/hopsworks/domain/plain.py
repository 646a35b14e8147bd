"""
Plain JSON values: of arguments on their way to Hopsworks, and of responses on their way to XCom.

No library of arrays or frames is imported: their values are recognized by their methods. A value that JSON cannot hold
is refused with its place, before anything is sent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any, NoReturn

from airflow_provider_hsml.hopsworks.errors import InvalidInputError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.untrusted_text import without_keys

Path = tuple[Any, ...]
"""The place of a value: the argument's name, then keys and indexes."""

_BYTES = bytes | bytearray | memoryview
_DEEPEST = 100
"""Levels of lists and mappings in a response."""
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
"""The integers that Airflow can send to its API server."""
_LONGEST_INTEGER = 1000
"""Bits of an integer. Python writes no integer with more than 4,300 digits."""
_LAST_YEAR = 9999
_JSON = "Numbers, text, lists and mappings can be sent; arrays and frames are converted into lists."
_IN_A_ROW = 'a list of rows. Text for a model is inside a row: [["great film"]]'
_ENCODE = json.JSONEncoder(allow_nan=False).encode
_CONVERSIONS = ("to_pylist", "to_list", "tolist", "as_py")
"""Methods of arrays, columns and scalars that return Python values."""


def place(path: Path) -> str:
    """Return the name of an argument, or of a value in it: ``spec.environment``, ``instances[2]``."""
    name, *inner = path
    return str(name) + "".join(
        f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]" for key in inner
    )


def from_text(what: str, value: object, example: str) -> Any:
    """
    Parse an argument as JSON if its whole value is text. Return any other value unchanged.

    Text inside a list or a mapping is never parsed: it may be a model's input. The message does not show the text,
    which may be a secret.

    :param what: the argument's name, for messages
    :param example: what to write, for messages
    :raises InvalidInputError: the text is no JSON, or is ``null``
    """
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        message = f"{what}: text as the whole value is read as JSON, but this text is no JSON.\nExpected {example}."
        raise InvalidInputError(message) from None
    if parsed is None:
        message = f"{what}: expected a value, got the JSON text 'null'.\nCheck why the value is empty."
        raise InvalidInputError(message)
    return parsed


def plain(what: str, value: object) -> Any:
    """
    Return a value as plain JSON values: sequences, arrays and columns as lists, a frame as a list of its rows.

    The values of a frame's row are in the order of the columns. Dates become text in ISO format, decimals numbers.

    :param what: the argument's name, for messages
    :raises InvalidInputError: NaN, infinity, bytes, or another value that JSON cannot hold; the message has its place
    """
    try:
        return _plain(value, (what,))
    except RecursionError:
        message = f"{what}: the values are nested too deeply, or hold themselves.\n{_JSON}"
        raise InvalidInputError(message) from None


def as_json(value: object) -> str:
    """
    Return a plain value as JSON.

    :raises InvalidInputError: it holds NaN or infinity
    """
    try:
        return _ENCODE(value)
    except ValueError as error:
        message = f"{error}: JSON has no value for NaN and infinity."
        raise InvalidInputError(message) from error


def rows(what: str, value: object) -> Any:
    """
    Read an argument with one row or several.

    :param what: the argument's name, for messages
    :raises InvalidInputError: as ``from_text`` and ``plain``, or there are no rows
    """
    read = plain(what, from_text(what, value, _IN_A_ROW))
    if read in (None, [], {}):
        message = f"{what}: expected at least one row, got no rows.\nCheck why there are none."
        raise InvalidInputError(message)
    return read


def finite(value: Any) -> tuple[Any, int]:
    """
    Replace the values of a response that XCom, events and JSON files cannot hold.

    NaN and infinity become None, integers of more than 64 bits become text, and halves of surrogate pairs are escaped.
    The API key is removed from text.

    :param value: plain Python values
    :return: the value, and the number of values that could not be held
    :raises UnexpectedResponseError: it nests too deeply
    """
    return _finite(value, _DEEPEST)


def _finite(value: Any, deepest: int) -> tuple[Any, int]:
    if deepest == 0:
        message = (
            f"The response nests deeper than {_DEEPEST} levels, which XCom cannot hold.\nCheck the model's answer."
        )
        raise UnexpectedResponseError(message, status=200)
    if isinstance(value, float):
        return (value, 0) if math.isfinite(value) else (None, 1)
    if isinstance(value, int):
        return (value, 0) if _SMALLEST <= value <= _LARGEST else (str(value), 1)
    if isinstance(value, str):
        text = without_keys(value)
        return (text, 0) if text.isascii() else _encodable(text)
    if isinstance(value, Mapping):
        replaced = {
            _finite(key, deepest)[0] if isinstance(key, str | float | int) else key: _finite(item, deepest - 1)
            for key, item in value.items()
        }
        return {key: item for key, (item, _) in replaced.items()}, sum(count for _, count in replaced.values())
    if isinstance(value, list | tuple):
        return (list(value), 0) if _are_numbers(value) else _finite_items(value, deepest - 1)
    return value, 0


def _finite_items(values: Sequence[Any], deepest: int) -> tuple[list[Any], int]:
    items = [_finite(item, deepest) for item in values]
    return [item for item, _ in items], sum(count for _, count in items)


def _are_numbers(values: Sequence[Any]) -> bool:
    """Whether all values are numbers that can be held, found without a look at each in Python."""
    if not values or not set(map(type, values)) <= {int, float}:
        return False
    return min(values) >= _SMALLEST and max(values) <= _LARGEST and math.isfinite(sum(values))


def _encodable(text: str) -> tuple[str, int]:
    encodable = text.encode("utf-8", "backslashreplace").decode()
    return encodable, int(encodable != text)


def _plain(value: Any, path: Path) -> Any:
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int | float | Decimal):
        return _number(value, path)
    if isinstance(value, date | time):
        # The missing date of pandas does not equal itself.
        return value.isoformat() if value == value else _refuse(path, "a missing date")  # noqa: PLR0124
    if isinstance(value, Mapping):
        return {_key(key, path): _plain(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, _BYTES):
        return _list(value, path)
    return _converted(value, path)


def _list(items: Iterable[Any], path: Path) -> list[Any]:
    return [
        # Most items are text or finite numbers.
        item if type(item) is str or (type(item) is float and math.isfinite(item)) else _plain(item, (*path, number))
        for number, item in enumerate(items)
    ]


def _converted(value: Any, path: Path) -> Any:
    """Convert a frame, an array, a column or a scalar of another library."""
    if isinstance(value, _BYTES):
        _refuse(path, "bytes", "Encode them as text, for example with base64, as the model expects it.")
    if hasattr(type(value), "columns"):
        return _list(_rows_of(value, path), path)
    if hasattr(value, "mask") and getattr(value.mask, "any", bool)():
        _refuse(path, "masked values", "Replace them, by a number or by None, or leave their rows out.")
    dtype = getattr(value, "dtype", None)
    kind, names = getattr(dtype, "kind", ""), getattr(dtype, "names", None)
    if names and hasattr(value, "shape"):
        return _records(value, names, path)
    if kind == "m":
        _refuse(path, "a time difference", "Use a number, for example of seconds.")
    if kind == "c":
        _refuse(path, "a complex number")
    if kind == "M" and hasattr(value, "astype") and not hasattr(value, "to_list"):
        return _dates(value, path)
    method = next((found for name in _CONVERSIONS if callable(found := getattr(value, name, None))), None)
    if method is None:
        _refuse(path, f"a value of the type {type(value).__name__}")
    found = method()
    # numpy's long double is returned unchanged.
    return _plain(found, path) if type(found) is not type(value) else _number(float(found), path)


def _records(value: Any, names: Iterable[str], path: Path) -> Any:
    """Return the rows of a structured array, each in the order of its fields; of a single record, its row."""
    if value.shape == ():
        return [_plain(value[name], (*path, name)) for name in names]
    columns = [_plain(value[name], (*path, name)) for name in names]
    return [list(row) for row in zip(*columns, strict=True)]


def _dates(value: Any, path: Path) -> Any:
    """Convert an array of dates, or a single one."""
    missing = value != value  # noqa: PLR0124 - true where a date is missing
    if missing.any():
        _refuse((*path, *(int(at[0]) for at in missing.nonzero())) if value.shape else path, "a missing date")
    years = value.astype("datetime64[Y]").astype("int64") + 1970
    if ((years < 1) | (years > _LAST_YEAR)).any():
        _refuse(path, f"a date outside of the years 1 to {_LAST_YEAR}")
    # Python's dates have no nanoseconds: these would become integers.
    return _plain(value.astype("datetime64[us]").tolist(), path)


def _rows_of(frame: Any, path: Path) -> Iterable[Any]:
    """Return the rows of a frame: of pandas, of polars, or a table of Arrow."""
    if hasattr(frame, "itertuples"):
        rows: Iterable[Any] = frame.itertuples(index=False, name=None)
    elif hasattr(frame, "rows"):
        rows = frame.rows()
    elif hasattr(frame, "to_pylist"):
        rows = zip(*(column.to_pylist() for column in frame.columns), strict=True)
    else:
        _refuse(path, f"a value of the type {type(frame).__name__}", "Collect it into a frame first.")
    return rows


def _number(value: float | Decimal, path: Path) -> float:
    if isinstance(value, Decimal):
        exponent = value.as_tuple().exponent
        is_whole = isinstance(exponent, int) and 0 <= exponent < _LONGEST_INTEGER
        value = int(value) if is_whole else float("nan" if value.is_nan() else value)
    if isinstance(value, int):
        return int(value) if value.bit_length() <= _LONGEST_INTEGER else _refuse(path, "so long an integer")
    if not math.isfinite(value):
        _refuse(path, str(value), "Replace it, by a number or by None, or leave its row out.")
    return float(value)


def _key(key: Any, path: Path) -> str:
    if not isinstance(key, str):
        _refuse(path, f"the key {key!r}", "Keys are text.")
    return str(key)


def _refuse(path: Path, got: str, advice: str = _JSON) -> NoReturn:
    """Raise the error for a value that JSON cannot hold."""
    row = next((f" (row {key}, the first is row 0)" for key in path if isinstance(key, int)), "")
    message = f"{place(path)}: expected plain JSON values, got {got}{row}.\n{advice}"
    raise InvalidInputError(message)
