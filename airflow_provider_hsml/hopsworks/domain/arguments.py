"""
Strict parsers for the arguments of users: a number must be a number, a flag must be a flag.

Templates produce strings, so ``"2"`` is read as 2 and ``"False"`` as False. Any other value is refused with the
argument's name: a string such as ``"no"`` never counts as true because it is not empty.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from decimal import Decimal
from typing import Any, NoReturn, Self, TypeVar

from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.untrusted_text import without_keys

from .plain import from_text, plain

T = TypeVar("T")

_DEPLOYMENT_NAME = re.compile(r"[a-zA-Z0-9]+")
_MODEL_NAME = re.compile(r"[a-zA-Z0-9_]+")
_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,254}")
_LONGEST_SHOWN = 200
"""Characters of a refused value that a message quotes."""
_LONGEST_INTEGER = 100
"""Characters of a whole number as text."""
_MAX_FLOAT = sys.float_info.max
_LONGEST_SECONDS = 366 * 24 * 3600
"""A longer wait overflows clocks and timers somewhere below."""


def shown(value: object) -> str:
    """Return a value for a message: without keys, shortened, and its type alone if it cannot be printed."""
    try:
        found = without_keys(repr(value))
    except Exception:  # noqa: BLE001 - anything may be given, also an integer too long to print or a list in itself
        return f"a value of type {type(value).__name__}"
    return found if len(found) <= _LONGEST_SHOWN else f"{found[:_LONGEST_SHOWN]}..."


def refuse(what: str, expected: str, value: object) -> NoReturn:
    """
    Raise the error for a value that is not as expected.

    :param what: the argument's name
    :param expected: the allowed values, completing "expected ..."
    :raises InvalidInputError: always
    """
    message = f"{what}: expected {expected}, got {shown(value)}."
    raise InvalidInputError(message)


def integer(what: str, value: object, *, least: int | None = None) -> int:
    """
    Read a whole number, or digits from a template.

    :param least: the smallest value allowed
    """
    expected = "a whole number" if least is None else f"a whole number of {least} or more"
    given, value = value, python_value(value)
    if isinstance(value, str) and len(value) <= _LONGEST_INTEGER and value.strip().removeprefix("-").isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        refuse(what, expected, given)
    return value


def number(what: str, value: object, *, least: float | None = None) -> float:
    """
    Read a finite number, or one as text from a template.

    :param least: the smallest value allowed
    """
    expected = "a finite number" if least is None else f"a finite number of {least:g} or more"
    given, value = value, python_value(value)
    if isinstance(value, str | Decimal):
        try:
            value = float(value)
        except (ValueError, OverflowError):
            refuse(what, expected, given)
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(what, expected, given)
    # An integer beyond the range of float is infinite where it is compared or sent.
    if not -_MAX_FLOAT <= value <= _MAX_FLOAT or (least is not None and value < least):
        refuse(what, expected, given)
    return value


def seconds(what: str, value: object, *, least: float = 0) -> float:
    """
    Read a duration of at most a year: a ``timedelta``, or a number of seconds.

    :param least: the smallest value allowed, in seconds
    """
    found = number(what, value.total_seconds() if isinstance(value, timedelta) else value, least=least)
    if found > _LONGEST_SECONDS:
        refuse(what, f"at most {_LONGEST_SECONDS} seconds, which is a year", value)
    return found


def boolean(what: str, value: object) -> bool:
    """Read a flag, or 'true' and 'false' as text from a template."""
    value = python_value(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        refuse(what, "true or false", value)
    return value


def preflight(what: str, value: object) -> bool | str:
    """Read whether a version is tried first: a flag, or the word 'if_possible'."""
    if isinstance(value, str) and value == "if_possible":
        return value
    try:
        return boolean(what, value)
    except InvalidInputError:
        refuse(what, "true, false or 'if_possible'", value)


def text(what: str, value: object) -> str:
    """Read a string that is not empty."""
    if not isinstance(value, str) or not value.strip():
        refuse(what, "a text that is not empty", value)
    return value


def choice(what: str, value: object, allowed: Iterable[str]) -> str:
    """Read one of several allowed words."""
    words = list(allowed)
    if not isinstance(value, str) or value not in words:
        refuse(what, f"one of {', '.join(words)}", value)
    return str(value)


def deployment_name(what: str, value: object) -> str:
    """
    Read the name of a deployment, as Hopsworks can have it.

    :param what: the argument's name, for messages
    """
    if not isinstance(value, str) or not _DEPLOYMENT_NAME.fullmatch(value):
        without = re.sub(r"[^a-zA-Z0-9]", "", shown(value))
        advice = f" {without!r} would do." if without else ""
        message = f"{what} {shown(value)}: expected letters and digits only, no underscore, dash or space.{advice}"
        raise InvalidInputError(message)
    return value


def model_name(what: str, value: object) -> str:
    """
    Read the name of a model, as the registry can have it.

    :param what: the argument's name, for messages
    """
    if not isinstance(value, str) or not _MODEL_NAME.fullmatch(value):
        message = f"{what} {shown(value)}: expected letters, digits and underscores only."
        raise InvalidInputError(message)
    return value


def job_name(what: str, value: object) -> str:
    """
    Read the name of a job. It becomes part of paths.

    :param what: the argument's name, for messages
    """
    name = text(what, value)
    if not name.isprintable() or "/" in name or name in (".", ".."):
        refuse(what, "the name of a job, without '/' or control characters", value)
    return name


def job_args(what: str, value: object) -> str:
    """
    Read the arguments of an execution: text, which is sent unchanged, or a list, whose items are quoted as in a shell.

    :param what: the argument's name, for messages
    :return: the text to send; empty when no arguments are given
    """
    if value is None:
        return ""
    if isinstance(value, str):
        line = value
    else:
        line = shlex.join(_job_argument(f"{what}[{at}]", item) for at, item in enumerate(sequence(what, value)))
    if not line.strip():
        message = f"{what}: expected arguments, got none.\nLeave it out to run the job with its default arguments."
        raise InvalidInputError(message)
    try:
        line.encode()
    except UnicodeEncodeError:
        message = f"{what}: expected text that can be sent, got half of a surrogate pair."
        raise InvalidInputError(message) from None
    return line


def job_env_vars(what: str, value: object) -> dict[str, str]:
    """
    Read the environment variables of an execution. Messages show their names only.

    :param what: the argument's name, for messages
    """
    if value is None:
        return {}
    read = json_mapping(what, value, '{"DAY": "2024-01-01"}')
    for name, item in read.items():
        if not name or "=" in name or isinstance(item, bool) or not isinstance(item, str | int | float):
            message = f"{what}.{name}: expected a name without '=' and a text or a number as its value."
            raise InvalidInputError(message)
    return {name: str(item) for name, item in read.items()}


def _job_argument(what: str, value: object) -> str:
    value = python_value(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        refuse(what, "a text or a number", value)
    return str(value)


def only_one(subject: str, **given: Any) -> None:
    """
    Raise an error if more than one of several arguments is given.

    :param subject: the beginning of the arguments' names, for messages
    :param given: the arguments' values; None is not given
    """
    present = [f"{subject}{name}" for name, value in given.items() if value is not None]
    if len(present) > 1:
        message = f"{' and '.join(present)}: expected only one of {', '.join(given)}.\nLeave the others out."
        raise InvalidInputError(message)


def resource_name(what: str, value: object) -> str:
    """
    Read the name of a tag, an environment or a topic, as Hopsworks can have it.

    :param what: the argument's name, for messages
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        refuse(what, "a name of letters, digits, '_', '-' and '.', which begins with a letter, digit or '_'", value)
    return value


def mapping(what: str, value: object, keys: Iterable[str] | None = None) -> Mapping[str, Any]:
    """
    Read a mapping. The error for any other value shows its type alone, since the value may hold a secret.

    :param keys: the only keys allowed; None for any
    """
    if not isinstance(value, Mapping):
        refuse(what, "a mapping with text keys", type(value).__name__)
    for key in value:
        if not isinstance(key, str):
            refuse(what, "a mapping with text keys", key)
    if keys is not None:
        known = list(keys)
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
                message = f"{what}: unknown key {key!r}; {advice}"
                raise InvalidInputError(message)
    return value


def sequence(what: str, value: object) -> Sequence[Any]:
    """Read any iterable but strings and mappings, including Airflow's lazy sequences of mapped outputs."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        refuse(what, "a list", value)
    try:
        return list(value)
    except TypeError:  # An array without dimensions.
        refuse(what, "a list", value)


def json_mapping(what: str, value: object, example: str | None = None) -> dict[str, Any]:
    """
    Read a mapping of plain JSON values.

    :param example: what to write instead of text that is no JSON; None: text is not parsed
    """
    given = value if example is None else from_text(what, value, example)
    return dict(plain(what, mapping(what, given)))


def tags(what: str, value: object) -> dict[str, Any]:
    """Read tags: values by name, also as JSON text."""
    return {resource_name(what, name): tag for name, tag in json_mapping(what, value, '{"team": "risk"}').items()}


def python_value(value: Any) -> Any:
    """Return a scalar of numpy as Python's own; any other value unchanged."""
    if type(value).__module__ != "numpy" or getattr(value, "shape", None) != ():
        return value
    # numpy's item() returns a long double unchanged.
    return float(value) if value.dtype.kind == "f" else value.item()


class Arguments:
    """Base class of dataclasses that users pass as arguments, also as a mapping or as JSON text."""

    __slots__ = ()

    @classmethod
    def read(cls, value: object, what: str = "spec") -> Self:
        """
        Read an instance of this class, a mapping with the same keys, or such a mapping as JSON text.

        :param value: None when the argument is not given
        :param what: the argument's name, for messages
        :raises InvalidInputError: an unknown key (the message suggests the nearest known one), or another type
        """
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                # The message leaves the text out, since it may hold values of environment variables.
                message = f"{what}: expected a {cls.__name__}, a mapping, or JSON text of one, got other text: {error}."
                raise InvalidInputError(message) from None
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        given = {name: item for name, item in mapping(what, value, names).items() if item is not None}
        return cls(**given)

    def given(self) -> dict[str, Any]:
        """Return the fields that are not None; nested values are not copied."""
        return {
            field.name: value.given() if isinstance(value, Arguments) else value
            for field in fields(self)  # type: ignore[arg-type]
            if (value := getattr(self, field.name)) is not None
        }
