"""Functions of users, by the dotted path that is written in a DAG file."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from . import arguments

if TYPE_CHECKING:
    from collections.abc import Callable

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def is_dotted_path(name: str) -> bool:
    """Return whether a text has the form of a dotted path."""
    return _DOTTED.fullmatch(name) is not None


def import_function(what: str, expected: str, name: str) -> Callable[..., Any]:
    """
    Import a function of the user's own.

    :param what: the argument's name, for messages
    :param expected: the allowed values, for messages
    :param name: a dotted path from the DAG file, never from outside
    :raises InvalidInputError: it cannot be imported, or is no function
    """
    module, _, attribute = name.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # noqa: BLE001 - the user's module may raise anything when it is imported
        arguments.refuse(what, f"{expected} ({type(error).__name__}: {error})", name)
    if not callable(function):
        arguments.refuse(what, f"{expected} (this is a {type(function).__name__})", name)
    checked: Callable[..., Any] = function
    return checked
