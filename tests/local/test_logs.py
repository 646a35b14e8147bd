"""The server's own log: text from requests cannot forge a line, nor command the terminal that shows it."""

from __future__ import annotations

import ast
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_hsml.local import logs
from airflow_provider_hsml.local.logs import escaped, logger

if TYPE_CHECKING:
    from tests.local.conftest import Client

NASTY = "a\nERROR forged\r\x1b[31mred\x9b2J\u202egnp\u2028\ud800\x00"
PACKAGE = Path(logs.__file__).parent


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    formatter = logging.Formatter("%(levelname)s %(message)s")
    own = [record for record in caplog.records if record.name.startswith("airflow_provider_hsml.local")]
    return "\n".join(formatter.format(record) for record in own).split("\n")


def test_a_text_becomes_one_printable_line() -> None:
    assert escaped("caf\u00e9 \U0001f600 'x' \\n") == "caf\u00e9 \U0001f600 'x' \\n"
    assert escaped(NASTY) == r"a\nERROR forged\r\x1b[31mred\x9b2J\u202egnp\u2028\ud800\x00"
    assert len(escaped("x" * 10**6)) < 2100


def test_messages_and_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    log = logger("airflow_provider_hsml.local.somewhere")
    logger("airflow_provider_hsml.local.somewhere")
    with caplog.at_level(logging.INFO):
        log.info("%s %d%%", NASTY, 5)
        try:
            raise ValueError(NASTY)
        except ValueError:
            log.exception("of %s", NASTY)

    first, second, *traceback = _lines(caplog)
    assert first == f"INFO {escaped(NASTY)} 5%"
    assert second == f"ERROR of {escaped(NASTY)}"
    assert len(log.filters) == 1
    assert all(line.startswith("  ") and line.isprintable() for line in traceback), traceback
    assert any("ValueError: a" in line for line in traceback)


@pytest.mark.parametrize("path", ["/nowhere%0AERROR%20forged%1B%5B31m", "/project/119/x%E2%80%AE%C2%9B2J%0D"])
def test_paths_of_requests(client: Client, caplog: pytest.LogCaptureFixture, path: str) -> None:
    client.session.get(f"{client.serving.url}{path}", timeout=10, verify=True)

    assert caplog.records
    assert all(line.isprintable() and line.startswith("WARNING ") for line in _lines(caplog))


def test_names_in_bodies(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.put(**{"colour\n\x1b[2J": "red"})
    client.give("PUT", "/modelregistries/119/models/digits_1", json={"shape\r\u202e": 1})

    lines = _lines(caplog)
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert r"colour\n\x1b[2J" in lines[0]


def test_every_module_logs_through_it() -> None:
    """``model_server`` runs elsewhere, and ``cli`` only sets the handlers up."""
    own = {"logs.py", "cli.py", "model_server.py"}
    for file in (each for each in PACKAGE.rglob("*.py") if each.name not in own):
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)]
        assert not [each for each in calls if each.attr == "getLogger"], file
