"""
Measure what hostile responses cost: the peak memory and the seconds of one request, in both clients.

Run: python benchmarks/hostile_responses.py [case ...]. Each request is sent by a process of its own, to a server of raw
sockets that answers with one of ``CASES``: endless, packed, malformed, or very slow. The request must end with an error
of this package, by its timeout, and within 30 times the memory that its limit of bytes allows.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).parents[1]
SECONDS = 3.0
"""The timeout of the requests."""
SLACK = 8.0
"""Seconds that a request may take beyond its timeout: parsing, and a busy machine."""
MEMORY = 30
"""The highest peak of memory, as a multiple of the limit of bytes."""
CLIENTS = ("sync", "async")
OK, CHUNKED = b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n"
FILL = b" " * 65536
"""JSON allows any number of blanks, so that no parser ends the response early."""


def endless(*begin: bytes, piece: bytes = FILL, pause: float = 0.0) -> Iterator[bytes]:
    """Send a beginning, and a piece again and again."""
    yield from begin
    while True:
        yield piece
        time.sleep(pause)


@functools.cache
def packed(size: int, wbits: int, *, times: int = 1) -> bytes:
    """Pack blanks, of which a thousandth is left. Past the first MB, the same blocks are repeated."""
    pack = zlib.compressobj(9, wbits=wbits)
    data = pack.compress(FILL * 16) + pack.flush(zlib.Z_FULL_FLUSH)
    data += (pack.compress(FILL * 16) + pack.flush(zlib.Z_FULL_FLUSH)) * (size // len(FILL * 16))
    return packed_again(data, wbits) if times > 1 else data


def packed_again(content: bytes, wbits: int = 31) -> bytes:
    """Pack a content as a whole."""
    pack = zlib.compressobj(9, wbits=wbits)
    return pack.compress(content) + pack.flush()


def whole(content: bytes, headers: bytes = b"", status: bytes = OK) -> list[bytes]:
    """Send a complete response."""
    return [status + headers + b"Content-Length: %d\r\n\r\n" % len(content), content]


def chunk(content: bytes) -> bytes:
    """Make one chunk."""
    return b"%x\r\n%s\r\n" % (len(content), content)


@functools.cache
def listed(row: bytes, size: int = 15_000_000) -> bytes:
    """Make a JSON list of one row again and again."""
    return b"[" + b",".join([row] * (size // (len(row) + 1))) + b"]"


GZIP = b"Content-Encoding: gzip\r\n"
CASES: dict[str, Callable[[], Iterable[bytes]]] = {
    # Endless bodies
    "endless chunks": lambda: endless(OK, CHUNKED, b"\r\n", piece=chunk(FILL)),
    "endless, without a length": lambda: endless(OK, b"\r\n"),
    "1 GB, announced": lambda: endless(OK, b"Content-Length: 1000000000\r\n\r\n"),
    "an endless error": lambda: endless(b"HTTP/1.1 500 No\r\n", CHUNKED, b"\r\n", piece=chunk(FILL)),
    "an endless redirect": lambda: endless(
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\n", CHUNKED, b"\r\n", piece=chunk(FILL)
    ),
    "an endless refusal": lambda: endless(b"HTTP/1.1 401 No\r\n", CHUNKED, b"\r\n", piece=chunk(FILL)),
    # Packed bodies
    "gzip of 1.5 GB": lambda: whole(packed(1_500_000_000, 31), GZIP),
    "zlib of 1.5 GB": lambda: whole(packed(1_500_000_000, 15), b"Content-Encoding: deflate\r\n"),
    "an error in gzip of 1.5 GB": lambda: whole(packed(1_500_000_000, 31), GZIP, b"HTTP/1.1 502 No\r\n"),
    "a redirect in gzip of 1.5 GB": lambda: whole(
        packed(1_500_000_000, 31), GZIP + b"Location: /x\r\n", b"HTTP/1.1 307 Found\r\n"
    ),
    "gzip in gzip": lambda: whole(packed(1_500_000_000, 31, times=2), b"Content-Encoding: gzip, gzip\r\n"),
    "gzip, many members": lambda: whole(packed_again(FILL * 16) * 1000, GZIP),
    "gzip of nothing, endless": lambda: endless(OK, GZIP, b"\r\n", piece=packed_again(b"") * 1000),
    # Malformed bodies
    "a chunk of size -1": lambda: endless(OK, CHUNKED, b"\r\n-1\r\n"),
    "an endless size of a chunk": lambda: endless(OK, CHUNKED, b"\r\n", piece=b"0" * 65536),
    "endless trailers": lambda: endless(OK, CHUNKED, b"\r\n0\r\n", piece=b"x: y\r\n" * 10000),
    "cut in the middle": lambda: [OK, b"Content-Length: 500\r\n\r\n", b'{"id": 1'],
    # Headers
    "an endless header": lambda: endless(OK, b"x: ", piece=b"y" * 65536),
    "endless headers": lambda: endless(OK, piece=b"x: y\r\n" * 10000),
    "100 Continue, endless": lambda: endless(piece=b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    # Paces
    "a body that drips": lambda: endless(OK, b"Content-Length: 1000000\r\n\r\n", piece=b" ", pause=0.05),
    "chunks that drip": lambda: endless(OK, CHUNKED, b"\r\n", piece=chunk(b" "), pause=0.05),
    "gzip that drips": lambda: endless(OK, GZIP, b"\r\n", packed_again(b"")[:10], piece=b"\0\0\0\xff\xff", pause=0.05),
    "an error that drips": lambda: endless(b"HTTP/1.1 503 No\r\n", b"\r\n", piece=b" ", pause=0.05),
    "headers that drip": lambda: endless(OK, b"x: ", piece=b"y", pause=0.05),
    "silence": lambda: endless(piece=b"", pause=0.05),
    "silence after the headers": lambda: endless(OK, b"\r\n", piece=b"", pause=0.05),
    # JSON
    "15 MB of empty objects": lambda: whole(listed(b"{}")),
    "15 MB of lists in lists": lambda: whole(listed(b"[[[[]]]]")),
    "15 MB of objects in objects": lambda: whole(listed(b'{"":{"":{"":{}}}}')),
    "15 MB of short texts": lambda: whole(listed('"\u0100"'.encode())),
    "15 MB of a deployment that cannot be read": lambda: whole(b'{"id":14,"name":5,"x":' + listed(b'"00"') + b"}"),
}


@contextmanager
def serving(case: str) -> Iterator[str]:
    """Serve a case on loopback, to one client after another, and give the address."""
    is_over = threading.Event()
    CASES[case]()  # To make what is sent takes time, once.

    def serve() -> None:
        while not is_over.is_set():
            with suppress(OSError):
                connection, _ = server.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(30)
            while b"\r\n\r\n" not in connection.recv(65536):
                """Read the request, which has no body."""
            for piece in CASES[case]():
                if is_over.is_set():
                    return
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            is_over.set()
            thread.join()


def request(client: str, url: str) -> dict[str, Any]:
    """Send one request in this process, and return the error, the seconds, and the MB that the peak memory grew."""
    from airflow_provider_hsml.hopsworks import api  # noqa: PLC0415 - only this process imports it
    from airflow_provider_hsml.hopsworks.domain.access import Access  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.transport import request as transport  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.transport.async_client import AsyncClient  # noqa: PLC0415
    from airflow_provider_hsml.hopsworks.transport.client import Client  # noqa: PLC0415

    access = Access(url, "example", "prefix.secret", request_timeout=SECONDS)
    call = api.get_deployments(api.Project(119, "example"))

    async def send() -> None:
        asynchronous = AsyncClient(access)
        try:
            await asynchronous.send(call)
        finally:
            await asynchronous.close()

    transport.ATTEMPTS = 1
    before, begun, error = peak(), time.monotonic(), ""
    try:
        if client == "sync":
            Client(access).send(call)
        else:
            asyncio.run(send())
    except Exception as caught:  # noqa: BLE001 - whatever it is, it is the result
        error = type(caught).__name__
    return {"error": error, "seconds": time.monotonic() - begun, "mb": peak() - before}


def peak() -> float:
    """Return the peak memory of this process in MB; ``getrusage`` would count that of the parent process."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) / 1024 if match else 0.0


def measure(client: str, case: str) -> dict[str, Any]:
    """Send one request from a process of its own."""
    with serving(case) as url:
        done = subprocess.run(
            [sys.executable, __file__, "--request", client, url],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"},
        )
    return dict(json.loads(done.stdout))


def main(*cases: str) -> None:
    """Run the measurements, and print the table and the goals."""
    from airflow_provider_hsml.hopsworks import errors  # noqa: PLC0415 - as above
    from airflow_provider_hsml.hopsworks.api import LIMITS, MB, ResponseKind  # noqa: PLC0415

    limit = LIMITS[ResponseKind.RESOURCE] / MB
    print(f"one request with a timeout of {SECONDS:g} s and a limit of {limit:g} MB")
    print(f"{'':32}{'sync: MB':>10}{'s':>6}  {'error':26}{'async: MB':>10}{'s':>6}  error")
    results = []
    for case in cases or CASES:
        row = [measure(client, case) for client in CLIENTS]
        results += row
        cells = (f"{one['mb']:10.0f}{one['seconds']:6.1f}  {one['error']:26}" for one in row)
        print(f"{case:32}{''.join(cells)}".rstrip(), flush=True)
    foreign = [one for one in results if not hasattr(errors, one["error"])]
    goals: list[dict[str, Any]] = [
        {
            "name": "peak memory",
            "value": round(max(one["mb"] for one in results)),
            "unit": "MB",
            "goal": MEMORY * limit,
        },
        {
            "name": "seconds",
            "value": round(max(one["seconds"] for one in results), 1),
            "unit": "s",
            "goal": SECONDS + SLACK,
        },
        {"name": "ends without an error of this package", "value": len(foreign), "unit": "", "goal": 0},
    ]
    print(json.dumps({"goals": [goal | {"met": goal["value"] <= goal["goal"]} for goal in goals]}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--request"]:
        print(json.dumps(request(*sys.argv[2:])))
    else:
        main(*sys.argv[1:])
