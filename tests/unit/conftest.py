"""Both clients, for the tests that hold for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.domain.access import Access
from airflow_provider_hsml.hopsworks.transport.client import Client
from tests.support.servers import KEY, Connect, Driven

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture(params=[Client, Driven], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest, pauses: list[float]) -> Iterator[Connect]:
    made: list[Client | Driven] = []

    def make(url: str, **fields: Any) -> Client | Driven:
        made.append(request.param(Access(url, "demo", **{"key": KEY} | fields), sleep=pauses.append))
        return made[-1]

    yield make
    for client in made:
        client.close()
