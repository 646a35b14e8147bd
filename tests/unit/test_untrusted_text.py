from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from airflow_provider_hsml.hopsworks import untrusted_text
from airflow_provider_hsml.hopsworks.api import Answer, Call
from airflow_provider_hsml.hopsworks.domain import trigger_event
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
from airflow_provider_hsml.hopsworks.errors import (
    DeploymentFailedError,
    HopsworksError,
    InferenceError,
    RequestRefusedError,
    RolledBackError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.untrusted_text import MOST, clean, hide
from tests.support.fake import row

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "firstpart0.Second-Part+1"
HOSTILE = "\x1b[2J\x00\r\u202egnp.exe\u2066\ud800 " + KEY + "x" * 1_000_000
SENDABLE = HOSTILE.replace("\ud800", "")
"""A resource with half of a surrogate pair is unreadable as a whole."""


@pytest.fixture(autouse=True)
def _hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted_text, "_hidden", {})
    hide(KEY)


def check(text: str) -> None:
    """Check a text that is to be logged and stored."""
    assert len(text) <= MOST
    assert all(character.isprintable() or character in "\n\t" for character in text)
    assert "second-part" not in text.lower()
    text.encode()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain", "plain"),
        ("two\nlines\t\r\nof text: ü, 漢, 🙂\u00a0!", "two\nlines\t\nof text: ü, 漢, 🙂\u00a0!"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\x00b\rc", r"a\x00b\rc"),
        ("\u202eexe.\u2066", r"\u202eexe.\u2066"),
        ("\ud800", r"\ud800"),
        (f"ApiKey {KEY}!", "ApiKey ***!"),
        ("https://second-part+1:443", "https://***:443"),
        ("", ""),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned
    assert clean(cleaned) == cleaned


def test_both_ends_of_a_long_text_are_kept() -> None:
    text = clean("begins" + "\x00" * 100_000 + "ends", 200)

    assert len(text) <= 200
    assert text.startswith("begins")
    assert text.endswith("ends")
    assert "characters left out" in text
    assert clean(text, 200) == text


def test_a_short_secret_is_no_word_to_remove() -> None:
    hide("only.serving")

    assert clean("serving, only.serving") == "serving, ***"


def test_a_key_that_is_a_part_of_another_leaves_none_of_it() -> None:
    hide("firstpart")
    hide("firstpart.and-the-rest")

    assert clean("firstpart.and-the-rest, firstpart") == "***, ***"


def test_renewed_keys_do_not_pile_up() -> None:
    for number in range(500):
        hide(f"prefix.secret-part-{number}")

    assert len(untrusted_text._hidden) == 100
    assert clean("prefix.secret-part-499") == "***"


def failed() -> Deployment:
    return Deployment.from_json(row("Failed", condition={"type": "READY", "status": False, "reason": SENDABLE}))


ERRORS: dict[str, Callable[[], HopsworksError]] = {
    "any": lambda: HopsworksError(HOSTILE),
    "refused": lambda: RequestRefusedError("ask", status=500, code=1, text=HOSTILE),
    "by the model": lambda: InferenceError("ask", status=500, text=HOSTILE),
    "with a log": lambda: DeploymentFailedError(failed()).with_log_tail([HOSTILE] * 10),
    "extended": lambda: DeploymentFailedError(failed()).extended(HOSTILE),
    "another text": lambda: HopsworksError("x").with_text(HOSTILE),
    "followed": lambda: DeploymentFailedError(failed()).followed_by(RolledBackError, HOSTILE),
}


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_and_event_is_clean(name: str) -> None:
    error = ERRORS[name]()

    check(str(error))
    check(error.kept_text)
    check(getattr(error, "text", ""))
    check(trigger_event.failure(error)["message"])


def test_reasons_are_clean_where_they_are_read() -> None:
    check(failed().reason)


@pytest.mark.airflow
def test_log_records_are_clean() -> None:
    from airflow_provider_hsml import logs

    record = logging.LogRecord("airflow_provider_hsml", logging.WARNING, "", 1, "It says %s", (HOSTILE,), None)
    logs.mask()
    logging.getLogger("airflow_provider_hsml").handle(record)

    text = record.getMessage()
    assert len(text) <= 1 << 16
    check(text[:MOST])


@pytest.mark.parametrize(
    ("body", "outline"),
    [
        (b'{"id": "TOKEN=abc", "predictorEnvVars": ["TOKEN=abc"]}', "an object with the keys 'id', 'predictorEnvVars'"),
        (b'[{"name": "TOKEN=abc"}]', "a list, the first item an object with the keys 'name'"),
        (b'"TOKEN=abc"', "It is a text"),
        (b"[]", "It is a list"),
        (b"17", "It is a number"),
        (b"<html>login", "It began: '<html>login'"),
    ],
)
def test_of_a_resource_that_cannot_be_read_only_keys_are_quoted(body: bytes, outline: str) -> None:
    def read(data: object) -> None:
        raise ValueError(data)

    with pytest.raises(UnexpectedResponseError) as caught:
        Call("read it", "GET", "x", read).outcome(Answer(200, body))

    assert outline in str(caught.value)
    assert "abc" not in str(caught.value)


def test_texts_of_a_model_version() -> None:
    """A ``@task`` may return it, and its texts with it."""
    data = {
        "name": "digits",
        "version": 1,
        "id": "digits_1",
        "description": SENDABLE,
        "environment": SENDABLE,
        "featureView": {"name": SENDABLE},
        "metrics": {SENDABLE: 1.0},
        "tags": {"items": [{"name": SENDABLE, "value": json.dumps({SENDABLE: [SENDABLE]})}]},
    }

    found = ModelVersion.from_json(data, project="demo", registry_id=119)

    (tag,) = found.tags.values()
    for text in (found.description, found.environment, found.feature_view, *found.metrics, *found.tags, *tag):
        check(str(text))
    check(next(iter(tag.values()))[0])
