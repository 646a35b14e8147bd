"""Arguments with several fields: a dataclass, a mapping of the same keys, or such a mapping as JSON text."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, Self

from .domain import arguments
from .errors import InvalidInput


class Given:
    """What these dataclasses have in common: they read themselves strictly, and give what was given."""

    __slots__ = ()

    @classmethod
    def read(cls, value: object, what: str = "spec") -> Self:
        """
        Read a dataclass of this kind, a mapping of the same keys, or such a mapping as JSON text.

        :param value: what was given
        :param what: the argument's name, for messages
        :raises InvalidInput: an unknown key (names the nearest known one), or a value of the wrong kind
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError as error:
                # The text is not told: it may hold values of environment variables.
                message = f"{what}: expected a {cls.__name__}, a mapping, or JSON text of one, got other text: {error}."
                raise InvalidInput(message) from None
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        given = {name: item for name, item in arguments.mapping(what, value, names).items() if item is not None}
        return cls(**given)

    def given(self) -> dict[str, Any]:
        """Give the fields that are not None, as they are; fields inside them are not copied."""
        return {
            field.name: value.given() if isinstance(value, Given) else value
            for field in fields(self)  # type: ignore[arg-type]
            if (value := getattr(self, field.name)) is not None
        }
