"""Answers of raw HTTP servers, as models' own servers give them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from airflow_provider_hsml.local.cluster.engines import Answer, Forwarded
from airflow_provider_hsml.local.cluster.hops import Hops

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GET = Forwarded("GET", "/x?y=1", {"x-a": "b"}, b"")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-Own: yes\r\nserver: theirs\r\n\r\nok"


@dataclass
class Server:
    """Answers each request with the next of its answers, in pieces; an answer of None closes the connection."""

    answers: list[list[bytes] | None]
    asked: list[bytes] = field(default_factory=list)
    connections: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.splitlines() if line.startswith(b"content-length:"))
                self.asked.append(head + await reader.readexactly(int(length.split(b":")[1])))
                answer = self.answers.pop(0)
                for piece in answer or []:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if not answer or b"connection: close" in answer[0] or b"HTTP/1.0" in answer[0]:
                    break
        writer.close()


def asked(server: Server, work: Callable[[Hops, int], Awaitable[list[Answer]]], timeout: float = 20) -> list[Answer]:
    """Run the server, and ask it."""

    async def run() -> list[Answer]:
        hops = Hops(timeout)
        async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
            try:
                return list(await work(hops, listening.sockets[0].getsockname()[1]))
            finally:
                await hops.aclose()
                others = asyncio.all_tasks() - {asyncio.current_task()}
                await asyncio.wait_for(asyncio.gather(*others), 20)

    return asyncio.run(run())


async def in_turn(hops: Hops, port: int) -> list[Answer]:
    return [await hops.ask(port, request) for request in (GET, Forwarded("POST", "/z", {}, b"body"))]


def test_a_connection_is_kept_and_the_request_arrives_as_it_was() -> None:
    server = Server([[OK], [OK]])

    answers = asked(server, in_turn)

    assert answers == [Answer(200, b"ok", {"x-own": "yes"})] * 2
    assert server.connections == 1
    assert server.asked[0].startswith(b"GET /x?y=1 HTTP/1.1\r\nx-a: b\r\nhost: 127.0.0.1:")
    assert server.asked[1].endswith(b"\r\ncontent-length: 4\r\n\r\nbody")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 2\r\n\r\no", b"k"], id="in pieces"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n", b"1\r\nk\r\n0\r\n\r\n"], id="chunked"
        ),
        pytest.param([b"HTTP/1.0 200 OK\r\n\r\nok"], id="until the connection ends"),
        pytest.param([b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"], id="and closed"),
    ],
)
def test_every_way_to_send_a_body_is_read(answer: list[bytes]) -> None:
    server = Server([answer, [OK]])

    assert [each.content for each in asked(server, in_turn)] == [b"ok", b"ok"]


def test_an_answer_to_head_has_no_body() -> None:
    server = Server([[b"HTTP/1.1 200 OK\r\ncontent-length: 700\r\n\r\n"], [OK]])

    async def head(hops: Hops, port: int) -> list[Answer]:
        return [await hops.ask(port, Forwarded("HEAD", "/", {}, b"")), await hops.ask(port, GET)]

    assert [each.content for each in asked(server, head)] == [b"", b"ok"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="no answer"),
        pytest.param([b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\nok"], id="half of the body"),
        pytest.param([b"SSH-2.0-OpenSSH\r\n\r\n content-length"], id="not HTTP"),
    ],
)
def test_an_answer_that_is_not_whole_is_a_connection_error_and_the_next_request_has_its_own(
    answer: list[bytes] | None,
) -> None:
    server = Server([answer, [OK]])

    async def ask(hops: Hops, port: int) -> list[Answer]:
        with pytest.raises(ConnectionError):
            await hops.ask(port, GET)
        return [await hops.ask(port, GET)]

    assert asked(server, ask)[0].content == b"ok"


def test_nobody_listening_is_a_connection_error() -> None:
    async def ask(hops: Hops, _port: int) -> list[Answer]:
        with pytest.raises(ConnectionError):
            await hops.ask(1, GET)
        return []

    asked(Server([]), ask)


def test_no_answer_in_time_is_a_timeout() -> None:
    server = Server([[b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"], None])

    async def ask(hops: Hops, port: int) -> list[Answer]:
        with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
            await hops.ask(port, GET)
        return []

    asked(server, ask, timeout=0.2)


def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    server = Server([[OK]])

    async def ask(hops: Hops, port: int) -> list[Answer]:
        first = await hops.ask(port, GET)
        await asyncio.sleep(0.1)  # The server has no more answers, and has closed.
        server.answers.append([OK])
        return [first, await hops.ask(port, GET)]

    assert [each.content for each in asked(server, ask)] == [b"ok", b"ok"]
    assert server.connections == 2


def test_requests_at_once_have_connections_of_their_own() -> None:
    server = Server([[OK] for _ in range(8)])

    async def ask(hops: Hops, port: int) -> list[Answer]:
        return list(await asyncio.gather(*(hops.ask(port, GET) for _ in range(8))))

    assert {each.content for each in asked(server, ask)} == {b"ok"}
    assert server.connections == 8
