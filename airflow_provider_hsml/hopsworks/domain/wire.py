"""
Types of values in responses.

A key that is missing or null is left out; any other value must have the type that our code relies on.
"""

from __future__ import annotations

import json
import sys
from typing import Any, TypeAlias

Shape: TypeAlias = "type | list[Shape] | dict[str, Shape]"
"""A type, a list of one shape, or the shapes of an object's keys. ``float`` stands for any finite number."""

_MAX_FLOAT = sys.float_info.max


class FormError(ValueError):
    """A response has another form than expected. The message quotes none of its values, which may be secret."""


def load(content: bytes | str) -> Any:
    """
    Parse JSON of any form.

    :raises ValueError: the content is not JSON
    """
    try:
        return json.loads(content)
    except RecursionError:
        message = "nested too deeply"
        raise FormError(message) from None


def resource(data: Any, required: dict[str, type], optional: dict[str, Shape]) -> dict[str, Any]:
    """
    Return a JSON object if the types of its keys are as expected.

    :param required: the keys that identify it
    :param optional: other keys that our code reads
    :raises ValueError: ``data`` is no such object; the message names the key
    """
    if not isinstance(data, dict):
        message = f"expected an object, got {kind_of(data)}"
        raise FormError(message)
    for key in required:
        if data.get(key) in (None, ""):
            message = f"{key} is missing"
            raise FormError(message)
    check(data, {**required, **optional})
    return data


def check(value: Any, shape: Shape, where: str = "") -> None:
    """
    Raise an error for a value of another shape; None always passes.

    :param where: the keys that lead to the value
    :raises ValueError: the value has another shape; the message names the key, and never the value
    """
    if value is None:
        return
    if isinstance(shape, dict) and isinstance(value, dict):
        for key, inner in shape.items():
            check(value.get(key), inner, f"{where}.{key}" if where else key)
    elif isinstance(shape, list) and isinstance(value, list):
        for item in value:
            check(item, shape[0], where)
            if item is None:
                message = f"{where} holds null"
                raise FormError(message)
    elif not _is(value, shape):
        message = f"{where} is {kind_of(value)}"
        raise FormError(message)
    elif isinstance(value, str):
        value.encode()  # Half of a pair of surrogates can be written to no log, file or database.


def _is(value: Any, shape: Shape) -> bool:
    if isinstance(value, bool) or not isinstance(shape, type):
        return shape is bool
    if shape is float:
        # A whole number beyond the range of float is infinite where our code calculates with it.
        return isinstance(value, int | float) and -_MAX_FLOAT <= value <= _MAX_FLOAT
    return isinstance(value, shape)


def kind_of(value: Any) -> str:
    """Return the kind of a JSON value, for a message."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def sendable(data: Any) -> None:
    """
    Raise an error for JSON that cannot be sent back: NaN, infinity, and halves of surrogate pairs.

    :raises ValueError: it cannot be sent back
    """
    json.dumps(data, allow_nan=False, ensure_ascii=False).encode()
