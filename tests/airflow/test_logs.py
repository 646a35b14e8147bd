"""Log records: masked, also those of the HTTP libraries and the texts of exceptions."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from airflow_provider_hsml import logs
from airflow_provider_hsml.connection import mask_key
from airflow_provider_hsml.triggers.base import shared_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_hsml.local import LocalServing

pytestmark = pytest.mark.airflow

KEY = "prefixoflogs.secretpartoflogs"


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What a handler of the root logger writes."""
    written: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    handler = Handler()
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize(
    "name",
    ["airflow_provider_hsml.hooks", "urllib3.connection", "httpx", "httpcore.http11", "httpx2", "httpcore2.http11"],
)
def test_a_key_is_in_no_record_and_no_exception_of_it(name: str, lines: list[str]) -> None:
    mask_key(KEY)
    logs.mask()
    try:
        message = f"Failed to parse headers: ApiKey {KEY.upper()}\x1b"
        raise ValueError(message)
    except ValueError:
        logging.getLogger(name).warning("Failed: %s", f"ApiKey {KEY}", exc_info=True)

    (line,) = lines
    assert "Traceback" in line
    assert "ValueError" in line
    assert "secretpart" not in line.lower()
    assert "\x1b" not in line


def test_the_triggerer_masks_its_records_too(serving: LocalServing) -> None:
    loggers = [
        logging.getLogger(name)
        for name in ("airflow_provider_hsml", "urllib3", "httpx", "httpcore", "httpx2", "httpcore2")
    ]
    for logger in loggers:
        logger.handlers.clear()

    async def connect() -> None:
        async with shared_client("hsml_default"):
            pass

    asyncio.run(connect())

    assert all(logger.handlers for logger in loggers)
