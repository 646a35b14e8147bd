"""Both clients against servers that want to fill the memory or to hold them for ever."""

from __future__ import annotations

import gc
import gzip
import importlib.util
import socket
import sys
import threading
import time
import tracemalloc
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.api import LIMITS, MB, ResponseKind
from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    InvalidInputError,
    NoResponseError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.transport import body, request
from tests.support.samples import PROJECT
from tests.support.servers import LIST, OK, PUT, Connect, Request, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

SLACK = 10.0
"""Seconds that the machine may be busy with something else."""
ROWS = {"instances": [[1.0]]}


def _benchmark() -> ModuleType:
    """Load the benchmark, which has the servers."""
    path = Path(__file__).parents[3] / "benchmarks" / "hostile_responses.py"
    spec = importlib.util.spec_from_file_location("benchmark_hostile_responses", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


hostile = _benchmark()
BEYOND_THE_LIMIT = "is beyond the limit of 1 MB"
EXPECTED = {
    "endless chunks": BEYOND_THE_LIMIT,
    "endless, without a length": BEYOND_THE_LIMIT,
    "1 GB, announced": BEYOND_THE_LIMIT,
    "an endless error": rf"\(HTTP 500\) {BEYOND_THE_LIMIT}",
    "an endless redirect": BEYOND_THE_LIMIT,
    "an endless refusal": BEYOND_THE_LIMIT,
    "gzip of 1.5 GB": BEYOND_THE_LIMIT,
    "zlib of 1.5 GB": BEYOND_THE_LIMIT,
    "an error in gzip of 1.5 GB": BEYOND_THE_LIMIT,
    "a redirect in gzip of 1.5 GB": BEYOND_THE_LIMIT,
    "gzip in gzip": "'gzip, gzip', which was not asked for",
    "gzip, many members": BEYOND_THE_LIMIT,
    "15 MB of empty objects": BEYOND_THE_LIMIT,
    "cut in the middle": "was cut off",
    **dict.fromkeys(
        [
            "gzip of nothing, endless",
            "100 Continue, endless",
            "a body that drips",
            "chunks that drip",
            "gzip that drips",
            "an error that drips",
            "headers that drip",
            "silence",
            "silence after the headers",
        ],
        "no answer within 1 s",
    ),
}
"""The end of each case; it is the same for both clients, except for malformed responses."""


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """A lower limit, which is reached sooner."""
    monkeypatch.setitem(LIMITS, ResponseKind.RESOURCE, MB)
    monkeypatch.setattr(request, "ATTEMPTS", 1)
    return MB


def test_every_case_is_here() -> None:
    assert not EXPECTED.keys() - hostile.CASES.keys()


@pytest.mark.parametrize("case", hostile.CASES)
def test_ends_in_time_and_with_little_memory(connect: Connect, case: str, limit: int) -> None:
    with hostile.serving(case) as url:
        client = connect(url, request_timeout=1)
        with suppress(HopsworksError):  # What is imported and kept, once.
            connect("http://127.0.0.1:1").send(LIST)
        tracemalloc.start()
        begun = time.monotonic()
        try:
            with pytest.raises((NoResponseError, UnexpectedResponseError), match=EXPECTED.get(case)) as caught:
                client.send(LIST)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert time.monotonic() - begun < 1 + SLACK
    assert peak < 30 * limit
    assert caught.value.transient


@pytest.mark.parametrize("client", hostile.CLIENTS)
@pytest.mark.parametrize(
    "case",
    [
        "gzip of 1.5 GB",
        "15 MB of empty objects",
        "15 MB of lists in lists",
        "15 MB of a deployment that cannot be read",
    ],
)
def test_with_the_limit_that_holds(client: str, case: str) -> None:
    """In a process of its own, with all that the HTTP library allocates outside of Python."""
    done = hostile.measure(client, case)

    assert done["error"] in ("UnexpectedResponseError", "NoResponseError")
    assert done["mb"] < hostile.MEMORY * LIMITS[ResponseKind.RESOURCE] / MB


def test_an_error_holds_no_response(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits keep the error of a read until the next one."""
    monkeypatch.setattr(request, "ATTEMPTS", 1)
    unreadable = b'{"id": 14, "name": 5, "x": ' + hostile.listed(b'"00"', 3_000_000) + b"}"
    calls: list[api.Call[Any]] = [LIST, api.get_deployment(PROJECT, "digits")]
    kept = []
    with serving(lambda seen: (200 if "name" in seen.path else 502, {}, unreadable)) as url:
        client = connect(url)
        for call in calls:
            with suppress(HopsworksError):  # What is imported and kept, once.
                client.send(call)
        tracemalloc.start()
        try:
            for call in calls:
                with pytest.raises(UnexpectedResponseError) as caught:
                    client.send(call)
                kept.append(caught.value)
                del caught
            gc.collect()
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    assert len(kept) == 2
    # The response has 15 MB. The server's thread may still hold a part of what it sends.
    assert held < 5 * MB


@pytest.mark.parametrize("case", ["endless chunks", "a body that drips", "headers that drip"])
def test_what_became_of_a_change_is_unknown(connect: Connect, case: str, limit: int) -> None:
    with (
        hostile.serving(case) as url,
        pytest.raises(HopsworksError) as caught,
    ):
        connect(url, request_timeout=1, write_timeout=1).send(PUT)

    assert caught.value.outcome_unknown


def test_a_prediction_has_a_limit_of_its_own(connect: Connect, limit: int) -> None:
    large = b'{"predictions": [' + b" " * 1_500_000 + b"1]}"
    predict = api.predict(PROJECT, "digits", ROWS)
    with serving(lambda _: (200, {}, large)) as url:
        assert connect(url, max_response_mb=2).send(predict) == {"predictions": [1]}
        with pytest.raises(UnexpectedResponseError, match=r"beyond the limit of 1 MB\.\n.*'max_response_mb'") as caught:
            connect(url, max_response_mb=1).send(predict)
    assert not caught.value.transient


def test_a_packed_response_is_read(connect: Connect) -> None:
    for content in (hostile.packed_again(b"[]"), hostile.packed_again(b"[") + hostile.packed_again(b"]")):
        with serving(lambda _, content=content: (200, {"content-encoding": "gzip"}, content)) as url:  # type: ignore[misc]
            assert connect(url).send(LIST) == []


def test_a_packed_response_that_lacks_its_end(connect: Connect) -> None:
    content = hostile.packed_again(b"[]" + b" " * 1000)[:-8]
    with (
        serving(lambda _: (200, {"content-encoding": "gzip"}, content)) as url,
        pytest.raises(NoResponseError, match="was cut off"),
    ):
        connect(url).send(PUT)


def test_a_connection_is_used_again(connect: Connect) -> None:
    ports = set()

    def note(handler: Request) -> tuple[int, dict[str, str], bytes]:
        ports.add(handler.client_address[1])
        return OK

    with serving(note) as url:
        client = connect(url)
        for _ in range(3):
            client.send(LIST)
    assert len(ports) == 1


def test_a_connection_that_is_used_again_has_a_deadline_too(connect: Connect) -> None:
    requests = []

    def then_silent(_: Request) -> tuple[int, dict[str, str], bytes]:
        requests.append(1)
        if len(requests) > 1:
            is_over.wait(SLACK)
        return OK

    is_over = threading.Event()
    with serving(then_silent) as url:
        client = connect(url, write_timeout=0.5)
        client.send(LIST)
        begun = time.monotonic()
        with pytest.raises(NoResponseError, match=r"no answer within 0\.5 s"):
            client.send(PUT)
        is_over.set()
    assert time.monotonic() - begun < SLACK


@contextmanager
def full() -> Iterator[int]:
    """A port that accepts no more connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(server.getsockname())
            waiting.append(one)
        yield server.getsockname()[1]
        for one in waiting:
            one.close()


def test_many_addresses_share_the_timeout(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with full() as port:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))] * 20
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: found)
        begun = time.monotonic()
        with pytest.raises(NoResponseError, match="no connection within 1 s") as caught:
            connect(f"http://many.example:{port}", request_timeout=1, write_timeout=1).send(PUT)
    assert not caught.value.outcome_unknown
    assert time.monotonic() - begun < SLACK


class TestTimeLeft:
    """What the caller has left holds for all attempts together."""

    def test_an_attempt_ends_by_then(self, connect: Connect) -> None:
        with hostile.serving("a body that drips") as url:
            begun = time.monotonic()
            with pytest.raises(NoResponseError):
                connect(url, request_timeout=60).send(_within(LIST, 0.5))
        assert time.monotonic() - begun < SLACK

    def test_no_attempt_follows_a_pause_beyond_it(self, connect: Connect, pauses: list[float]) -> None:
        seen = Seen((503, {"retry-after": "20"}, b""))
        with serving(seen) as url, pytest.raises(UnexpectedResponseError):
            connect(url).send(_within(LIST, 15))
        assert len(seen.paths) == 1
        assert not pauses

    def test_a_pause_within_it_is_kept(self, connect: Connect, pauses: list[float]) -> None:
        with serving(Seen((503, {"retry-after": "20"}, b""), OK)) as url:
            connect(url).send(_within(LIST, 60))
        assert pauses == [20]


def _within(call: Any, seconds: float) -> Any:
    return replace(call, at_most=seconds)


class TestFiles:
    """Files of models: streamed to disk, of any size, at any pace that is no standstill."""

    def test_are_not_held_in_memory(self, connect: Connect, limit: int, tmp_path: Path) -> None:
        size, target = 40 * MB, tmp_path / "weights"
        content = bytes(size)
        with serving(lambda _: (200, {}, content)) as url:
            client = connect(url)
            tracemalloc.start()
            try:
                assert client.send(api.download_to(PROJECT, "Models/m/1/weights", target, size=size))
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert target.stat().st_size == size
        assert peak < 10 * MB
        assert list(tmp_path.iterdir()) == [target]

    def test_may_take_longer_than_the_timeout(
        self, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(body, "PIECE", 1000)
        with raw(lambda: slowly(40, b"x" * 1000, 0.1)) as url:
            begun = time.monotonic()
            assert connect(url, request_timeout=2).send(api.download_to(PROJECT, "Models/m/1/w", tmp_path / "w"))
        assert time.monotonic() - begun > 3
        assert (tmp_path / "w").stat().st_size == 40_000

    @pytest.mark.parametrize("case", ["silence after the headers", "a body that drips", "gzip of nothing, endless"])
    def test_must_not_stall(self, connect: Connect, case: str, tmp_path: Path, limit: int) -> None:
        begun = time.monotonic()
        with hostile.serving(case) as url, pytest.raises(NoResponseError):
            connect(url, request_timeout=1).send(api.download_to(PROJECT, "Models/m/1/w", tmp_path / "w"))
        assert time.monotonic() - begun < 1 + SLACK
        assert not list(tmp_path.iterdir())

    def test_are_not_longer_than_listed(self, connect: Connect, tmp_path: Path, limit: int) -> None:
        (tmp_path / "w").write_text("of before")
        with (
            hostile.serving("endless chunks") as url,
            pytest.raises(UnexpectedResponseError, match="longer than listed"),
        ):
            connect(url).send(api.download_to(PROJECT, "Models/m/1/w", tmp_path / "w", size=100_000))
        assert (tmp_path / "w").read_text() == "of before"
        assert len(list(tmp_path.iterdir())) == 1

    def test_are_not_shorter_than_listed(self, connect: Connect, tmp_path: Path, limit: int) -> None:
        with (
            serving(lambda _: (200, {}, b"<html>")) as url,
            pytest.raises(UnexpectedResponseError, match="6 bytes, but 100 are listed"),
        ):
            connect(url).send(api.download_to(PROJECT, "Models/m/1/w", tmp_path / "w", size=100))
        assert not list(tmp_path.iterdir())

    def test_an_error_is_none_of_them(self, connect: Connect, tmp_path: Path, limit: int) -> None:
        with (
            hostile.serving("an endless error") as url,
            pytest.raises(UnexpectedResponseError, match="beyond the limit of 1 MB"),
        ):
            connect(url).send(api.download_to(PROJECT, "Models/m/1/w", tmp_path / "w", size=10 * MB))
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_cannot_be_written(self, connect: Connect, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        with serving(Seen(OK)) as url:
            for target in (tmp_path / "file" / "w", tmp_path / "folder", tmp_path / ("x" * 300)):
                with pytest.raises(InvalidInputError, match="cannot be written"):
                    connect(url).send(api.download_to(PROJECT, "Models/m/1/w", target))

    def test_may_have_the_longest_name_and_new_folders(self, connect: Connect, tmp_path: Path) -> None:
        target = tmp_path / "a" / "b" / ("x" * 255)
        with serving(Seen(OK)) as url:
            assert connect(url).send(api.download_to(PROJECT, "Models/m/1/w", target))
        assert target.read_bytes() == OK[2]
        assert list(target.parent.iterdir()) == [target]


def slowly(count: int, piece: bytes, pause: float) -> Iterator[bytes]:
    """Send a body with its length, piece by piece."""
    yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (count * len(piece))
    for _ in range(count):
        time.sleep(pause)
        yield piece


@contextmanager
def raw(pieces: Callable[[], Iterator[bytes]]) -> Iterator[str]:
    """Serve a case of our own."""
    hostile.CASES["ours"] = pieces
    try:
        with hostile.serving("ours") as url:
            yield url
    finally:
        del hostile.CASES["ours"]


class TestEnds:
    """The end of a file of any size, such as a log: read whole, and only its end is kept."""

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("size", [0, 999, 1000, 2001, 40 * MB])
    def test_are_not_more_than_was_asked_for(self, connect: Connect, limit: int, packed: bool, size: int) -> None:
        content = bytes(size)[:-3] + b"end" if size else b""
        answer = (200, {"Content-Encoding": "gzip"}, gzip.compress(content, 1)) if packed else (200, {}, content)
        with serving(lambda _: answer) as url:
            client = connect(url)
            tracemalloc.start()
            try:
                end = client.send(api.download_end(PROJECT, "Logs/stdout.log", 1000))
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert end == content[-1000:]
        assert peak < 10 * MB

    def test_of_an_endless_file(self, connect: Connect, limit: int) -> None:
        begun = time.monotonic()
        with hostile.serving("endless chunks") as url, pytest.raises(NoResponseError):
            connect(url, request_timeout=1).send(api.download_end(PROJECT, "Logs/stdout.log", 1000))
        assert time.monotonic() - begun < 1 + SLACK

    def test_an_error_is_none_of_them(self, connect: Connect, limit: int) -> None:
        with (
            hostile.serving("an endless error") as url,
            pytest.raises(UnexpectedResponseError, match="beyond the limit of 1 MB"),
        ):
            connect(url).send(api.download_end(PROJECT, "Logs/stdout.log", 1000))
