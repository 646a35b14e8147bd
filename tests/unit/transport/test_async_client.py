"""What only the asynchronous client has to do with: many who ask at once, and some who leave."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.access import Access
from airflow_provider_hsml.hopsworks.errors import RequestRefusedError
from airflow_provider_hsml.hopsworks.transport import async_client
from airflow_provider_hsml.hopsworks.transport.async_client import AsyncClient
from tests.support.samples import PROJECT
from tests.support.servers import KEY, LIST, OK, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

    from tests.support.servers import Request

FOUND: tuple[int, dict[str, str], bytes] = (200, {}, json.dumps({"projectId": 119, "projectName": "demo"}).encode())
REVOKED: tuple[int, dict[str, str], bytes] = (401, {}, json.dumps({"errorCode": 320013}).encode())


def run(url: str, act: Callable[[AsyncClient], Awaitable[Any]], **fields: Any) -> Any:
    """Do something with a client."""

    async def main() -> Any:
        client = AsyncClient(Access(url, "demo", KEY, **fields))
        try:
            return await act(client)
        finally:
            await client.close()

    return asyncio.run(main())


def test_the_project_is_looked_up_once_for_all() -> None:
    async def ask(client: AsyncClient) -> None:
        found = await asyncio.gather(*(client.project() for _ in range(50)))
        assert found == [PROJECT] * 50
        assert await client.project() == PROJECT

    seen = Seen(FOUND)
    with serving(seen) as url:
        run(url, ask)
    assert len(seen.paths) == 1


def test_a_project_that_was_not_found_is_looked_for_again() -> None:
    async def ask(client: AsyncClient) -> None:
        failed = await asyncio.gather(*(client.project() for _ in range(50)), return_exceptions=True)
        assert {type(error) for error in failed} == {RequestRefusedError}
        assert await client.project() == PROJECT

    seen = Seen(REVOKED, FOUND)
    with serving(seen) as url:
        run(url, ask)
    assert len(seen.paths) == 2


def test_who_is_cancelled_leaves_the_others_their_project() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def late(_request: Request) -> tuple[int, dict[str, str], bytes]:
        asked.set()
        go_on.wait(30)
        return FOUND

    async def ask(client: AsyncClient) -> None:
        first, second = asyncio.create_task(client.project()), asyncio.create_task(client.project())
        assert await asyncio.to_thread(asked.wait, 30)
        first.cancel()
        await asyncio.wait([first])
        go_on.set()
        assert await second == PROJECT

    with serving(late) as url:
        run(url, ask)


def test_few_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_client, "MAX_REQUESTS", 3)
    free, three, too_many = threading.Semaphore(3), threading.Barrier(3), []

    def count(request: Request) -> tuple[int, dict[str, str], bytes]:
        if not free.acquire(blocking=False):
            too_many.append(request)
        three.wait(30)
        free.release()
        return OK

    async def ask(client: AsyncClient) -> None:
        answers = await asyncio.gather(*(client.send(LIST) for _ in range(30)))
        assert answers == [[]] * 30

    with serving(count) as url:
        run(url, ask)
    assert not too_many


def test_to_wait_for_ones_turn_is_no_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_client, "MAX_REQUESTS", 1)

    def slow(_request: Request) -> tuple[int, dict[str, str], bytes]:
        threading.Event().wait(0.1)
        return OK

    async def ask(client: AsyncClient) -> None:
        assert await asyncio.gather(*(client.send(LIST) for _ in range(15))) == [[]] * 15

    with serving(slow) as url:
        run(url, ask, request_timeout=1)


def test_who_is_cancelled_takes_no_connection_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_client, "MAX_REQUESTS", 1)
    asked, go_on = threading.Event(), threading.Event()

    def late(_request: Request) -> tuple[int, dict[str, str], bytes]:
        asked.set()
        go_on.wait(30)
        return OK

    async def ask(client: AsyncClient) -> None:
        under_way, waiting = (asyncio.create_task(client.send(LIST)) for _ in range(2))
        assert await asyncio.to_thread(asked.wait, 30)
        under_way.cancel()
        await asyncio.wait([under_way])
        go_on.set()
        assert await waiting == []

    with serving(late) as url:
        run(url, ask)


def test_a_pause_between_attempts_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_client, "MAX_REQUESTS", 1)

    def away(request: Request) -> tuple[int, dict[str, str], bytes]:
        return OK if request.path.endswith("/serving") else (503, {"retry-after": "30"}, b"")

    async def ask(client: AsyncClient) -> None:
        pausing = asyncio.create_task(client.send(api.get_project("demo")))
        await client.send(LIST)
        await client.send(LIST)
        assert not pausing.done()
        pausing.cancel()
        await asyncio.wait([pausing])

    with serving(away) as url:
        run(url, ask)
