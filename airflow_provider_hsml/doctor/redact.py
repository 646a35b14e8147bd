"""Removal of names from texts of the report: hosts, the project, users, a model, and addresses inside the cluster."""

from __future__ import annotations

import re
from typing import Any

from airflow_provider_hsml.hopsworks.untrusted_text import clean

_KINDS = {
    **dict.fromkeys(("username", "email", "fname", "lname", "firstname", "lastname", "userFullName"), "user"),
    **dict.fromkeys(("creator", "owner", "hdfsUser"), "user"),
    **dict.fromkeys(("namespace", "projectNamespace"), "namespace"),
    "hosts": "host",
}
"""Keys of answers whose texts are names that are removed."""
_SHORTEST = 2
"""Characters of a name that is removed: a shorter one would be found everywhere."""


class Redactor:
    """Replaces names that it has learnt by what they are, and removes API keys."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[re.Pattern[str], str]] = {}

    def learn(self, name: object, kind: str) -> None:
        """
        Replace a name in every text from now on.

        :param name: the name; anything that is no text of two characters or more is ignored
        :param kind: what it is, for its place: ``project``
        """
        if not isinstance(name, str) or len(name.strip()) < _SHORTEST or name.strip().lower() in self._names:
            return
        word = name.strip()
        # Of another word it is no part: a project "in" would else be found in "instances".
        pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", re.IGNORECASE)
        self._names[word.lower()] = (pattern, f"<{kind}>")

    def learn_from(self, data: Any) -> None:
        """Learn the names of users, namespaces and hosts in an answer, by their keys."""
        if isinstance(data, list):
            for one in data:
                self.learn_from(one)
        elif isinstance(data, dict):
            for key, value in data.items():
                for name in (value if isinstance(value, list) else [value]) if key in _KINDS else ():
                    self.learn(name, _KINDS[key])
                self.learn_from(value)

    def text(self, text: str) -> str:
        """Return a text without keys and without the names."""
        cleaned = clean(text)
        # The longest first: a name that is part of another one would leave the rest of it.
        for name in sorted(self._names, key=len, reverse=True):
            pattern, replacement = self._names[name]
            cleaned = pattern.sub(replacement, cleaned)
        return cleaned

    def json(self, value: Any) -> Any:
        """Return a JSON value with all its texts, keys too, without keys and names."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.json(one) for one in value]
        if isinstance(value, dict):
            return {self.text(key): self.json(one) for key, one in value.items()}
        return value
