"""
Text from outside: answers of servers and models, reasons, lines of logs.

Every error of this package passes its message through ``clean``, and so does every log record. So no such text can
flood or forge a log, break a database, or carry the API key into an error, an event or an XCom.
"""

from __future__ import annotations

import re
from typing import Any

MOST = 8192
"""Characters of a text that are kept."""
_MIN_HIDDEN_LENGTH = 8
"""The shortest secret that is removed: a shorter one would be found in ordinary words."""
_MOST_HIDDEN = 100
_hidden: dict[str, re.Pattern[str]] = {}
"""The API keys of this process, and their secret parts after the dot; the newest ones, since tokens are renewed."""


def hide(key: str) -> None:
    """
    Remove a key from every text that is cleaned from now on: the whole key, and its secret part after the dot.

    :param key: the API key or token
    """
    for secret in (key, key.rpartition(".")[2]):
        if len(secret) >= _MIN_HIDDEN_LENGTH and secret not in _hidden:
            # A host name is in lower case, wherever it came from.
            _hidden[secret] = re.compile(re.escape(secret), re.IGNORECASE)
    for oldest in list(_hidden)[:-_MOST_HIDDEN]:
        _hidden.pop(oldest, None)


def clean(text: str, most: int = MOST) -> str:
    r"""
    Return a text that is safe to log and to store: bounded, without control characters, lone surrogates and keys.

    Line breaks and tabs are kept. Characters that cannot be printed or that change the direction of the text are
    escaped, as in ``\x1b`` and ``\u202e``. A text that was cleaned before is returned as it is.

    :param most: the number of characters that are kept, half of them from the end
    """
    text = _bounded(without_keys(text), most)
    if text.isprintable():
        return text
    return _bounded("".join(map(_printable, text.replace("\r\n", "\n"))), most)


def without_keys(text: str) -> str:
    """Return a text without keys, and else as it is: for data, where ``clean`` would change too much."""
    # The longest first: a key that is a part of another one would leave the rest of it.
    for secret in sorted(_hidden.copy(), key=len, reverse=True):
        text = _hidden[secret].sub("***", text) if secret in _hidden else text
    return text


def clean_json(value: Any) -> Any:
    """
    Return a JSON value with all its texts cleaned, keys too.

    :param value: of any depth
    """
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean_json(one) for one in value]
    if isinstance(value, dict):
        return {clean(key): clean_json(one) for key, one in value.items()}
    return value


def beginning(text: str, most: int = 200) -> str:
    """
    Return the beginning of a text. It is cleaned before it is cut: a part of a key would not be recognised.

    :param most: the number of characters that are kept
    """
    cleaned = clean(text)
    return cleaned if len(cleaned) <= most else f"{cleaned[:most]}..."


def _bounded(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    left_out = f"\n... {len(text) - most} characters left out ...\n"
    half = (most - len(left_out)) // 2
    return f"{text[:half]}{left_out}{text[-half:]}"


def _printable(character: str) -> str:
    if character.isprintable() or character in "\n\t\u00a0":
        return character
    return character.encode("unicode_escape").decode("ascii")
