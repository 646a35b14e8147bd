"""Both clients against real sockets, some of which behave badly: the same answers, errors and words."""

from __future__ import annotations

import gc
import json
import socket
import socketserver
import ssl
import threading
import time
import warnings
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from airflow_provider_hsml.hopsworks.domain.access import Access
from airflow_provider_hsml.hopsworks.errors import (
    CertificateError,
    NoResponseError,
    RequestRefusedError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.transport import request
from airflow_provider_hsml.hopsworks.transport.client import Client
from tests.support.samples import PROJECT
from tests.support.servers import KEY, LIST, OK, PUT, Connect, Request, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_hsml.hopsworks.api import Call


def test_the_key_goes_into_the_header(connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a .netrc knows the host."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    seen = Seen(OK)
    with serving(seen) as url:
        assert connect(url).send(LIST) == []
    assert seen.keys == [f"ApiKey {KEY}"]


def test_a_client_that_is_dropped_without_being_closed_leaves_no_connection_open() -> None:
    closed = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]")
                if connection.recv(1) == b"":
                    closed.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert Client(Access(f"http://127.0.0.1:{listening.getsockname()[1]}", "demo", KEY)).send(LIST) == []
        gc.collect()
        assert closed.wait(10)
        thread.join()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_reads_are_asked_again(connect: Connect, pauses: list[float], status: int) -> None:
    seen = Seen((status, {}, b"<html>"), (status, {}, b""), OK)
    with serving(seen) as url:
        assert connect(url).send(LIST) == []
    assert len(seen.paths) == 3
    assert len(pauses) == 2


def test_reads_are_not_asked_for_ever(connect: Connect) -> None:
    seen = Seen((503, {}, b"away"))
    with serving(seen) as url, pytest.raises(UnexpectedResponseError, match=r"HTTP 503 .* It began: 'away'"):
        connect(url).send(LIST)
    assert len(seen.paths) == request.ATTEMPTS


def test_the_server_says_when(connect: Connect, pauses: list[float]) -> None:
    with serving(Seen((429, {"retry-after": "7"}, b""), (503, {"retry-after": "999"}, b""), OK)) as url:
        connect(url).send(LIST)
    assert pauses == [7, 30]


def test_the_reads_of_a_wait_end_with_it() -> None:
    """A change lifts the deadline: the waits after it have their own."""
    calls: list[Call[Any]] = [LIST, PUT, LIST]
    pauses: list[float] = []
    seen = Seen((503, {"retry-after": "30"}, b""))
    with serving(seen) as url, closing(Client(Access(url, "demo", KEY), sleep=pauses.append)) as client:
        client.deadline = time.time() + 20
        for call in calls:
            with pytest.raises(UnexpectedResponseError):
                client.send(call)
    assert len(seen.paths) == 1 + 1 + request.ATTEMPTS
    assert pauses == [30] * 3


def test_changes_are_sent_once(connect: Connect) -> None:
    seen = Seen((503, {}, b""))
    with serving(seen) as url, pytest.raises(UnexpectedResponseError) as caught:
        connect(url).send(PUT)
    assert len(seen.paths) == 1
    assert caught.value.outcome_unknown


def test_a_no_is_not_asked_again(connect: Connect) -> None:
    seen = Seen((403, {}, json.dumps({"errorCode": 320004, "errorMsg": "scope"}).encode()))
    with serving(seen) as url, pytest.raises(RequestRefusedError):
        connect(url).send(LIST)
    assert len(seen.paths) == 1


def test_a_redirect_is_not_followed(connect: Connect) -> None:
    seen = Seen((302, {"location": "http://127.0.0.1:1/elsewhere"}, b""))
    with serving(seen) as url, pytest.raises(UnexpectedResponseError, match="redirected"):
        connect(url).send(PUT)


def test_an_answer_that_is_cut_off(connect: Connect) -> None:
    with (
        serving(lambda _: (200, {"content-length": "500"}, b'{"id": 1')) as url,
        pytest.raises(NoResponseError, match="cut off") as caught,
    ):
        connect(url).send(PUT)
    assert caught.value.outcome_unknown


@pytest.mark.parametrize("length", ["2, 3", "2, x", "-1", "two"])
def test_a_malformed_length_of_the_answer_to_a_change(connect: Connect, length: str) -> None:
    """The request was sent, and may have been carried out."""
    seen = Seen((200, {"content-length": length}, b"[]"))
    with serving(seen) as url, pytest.raises((NoResponseError, UnexpectedResponseError)) as caught:
        connect(url).send(PUT)
    assert len(seen.paths) == 1
    assert caught.value.transient
    assert caught.value.outcome_unknown


@pytest.mark.parametrize(
    "location", ["https://xn--0/login", "//", "http://[::1", "http://a:99999/", f"http://{'a' * 70}.com/", "http:///x"]
)
def test_a_redirect_to_an_address_that_is_none(connect: Connect, location: str) -> None:
    with (
        serving(Seen((302, {"location": location}, b""))) as url,
        pytest.raises(UnexpectedResponseError, match="redirected") as caught,
    ):
        connect(url).send(PUT)
    assert caught.value.outcome_unknown


@pytest.mark.parametrize("end", [b"", b"\r\n"])
@pytest.mark.parametrize("encoding", ["length", "chunks"])
def test_bytes_after_an_answer_are_no_answer_to_the_next_request(
    connect: Connect, encoding: str, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "ATTEMPTS", 1)
    surplus = end + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    content = {
        "length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
    }[encoding]

    with _answering(content + surplus) as url:
        client = connect(url)
        for _ in range(3):
            assert client.send(LIST) == []


@contextmanager
def _answering(content: bytes) -> Iterator[str]:
    """Serve the same bytes to each request, in one piece."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(65536):
                self.request.sendall(content)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def test_nobody_there(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(
        NoResponseError, match=r"nobody answers there\.\nCheck the connection's host and port"
    ) as caught:
        connect(f"http://127.0.0.1:{port}").send(PUT)
    assert not caught.value.outcome_unknown
    assert " at 0x" not in str(caught.value)


def test_a_name_that_does_not_exist(connect: Connect) -> None:
    with pytest.raises(NoResponseError, match="nobody answers there"):
        connect("https://hopsworks.invalid:443").send(LIST)


def test_somebody_who_does_not_answer(connect: Connect) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(NoResponseError, match=r"no answer within 0.1 s") as caught,
    ):
        connect(f"http://127.0.0.1:{server.getsockname()[1]}", request_timeout=0.1, write_timeout=0.1).send(PUT)
    assert caught.value.outcome_unknown


def test_tls_is_verified(connect: Connect, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    with serving(Seen(OK), tls=context) as url:
        with pytest.raises(CertificateError, match="'ca_bundle'") as caught:
            connect(url).send(LIST)
        assert not caught.value.transient
        assert connect(url, verify=str(bundle)).send(LIST) == []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # urllib3 says each time what was wanted.
            assert connect(url, verify=False).send(LIST) == []


def test_the_write_timeout_is_for_writes(connect: Connect) -> None:
    release = threading.Event()

    def slow(request: Request) -> tuple[int, dict[str, str], bytes]:
        release.wait(0.3)
        return 201, {}, json.dumps({"id": 1, "name": "x"}).encode()

    with serving(slow) as url:
        assert connect(url, request_timeout=0.1, write_timeout=5).send(PUT).id == 1
    release.set()


class TestTokens:
    def test_a_token_is_read_anew_after_a_401(self, connect: Connect, tmp_path: Path) -> None:
        token = tmp_path / "token.jwt"
        token.write_text("new\n")
        seen = Seen((401, {}, json.dumps({"errorCode": 200003}).encode()), OK)
        with serving(seen) as url:
            connect(url, key_kind="Bearer", key_path=str(token)).send(LIST)
        assert seen.keys == [f"Bearer {KEY}", "Bearer new"]

    def test_the_same_token_is_not_tried_again(self, connect: Connect, tmp_path: Path) -> None:
        token = tmp_path / "token.jwt"
        token.write_text(KEY)
        seen = Seen((401, {}, json.dumps({"errorCode": 200003}).encode()))
        with serving(seen) as url, pytest.raises(RequestRefusedError, match="API key"):
            connect(url, key_path=str(token)).send(LIST)
        assert len(seen.paths) == 1


def test_the_project_is_looked_up_once(connect: Connect) -> None:
    seen = Seen((200, {}, json.dumps({"projectId": 119, "projectName": "demo"}).encode()))
    with serving(seen) as url:
        client = connect(url)
        assert client.project == client.project == PROJECT
    assert seen.paths == ["/hopsworks-api/api/project/getProjectInfo/demo"]


def test_the_key_is_in_no_error(connect: Connect) -> None:
    with serving(Seen((500, {}, b"oops"))) as url, pytest.raises(UnexpectedResponseError) as caught:
        connect(url).send(PUT)
    error: BaseException | None = caught.value
    while error:
        assert "secretpart" not in repr(error)
        error = error.__cause__ or error.__context__
