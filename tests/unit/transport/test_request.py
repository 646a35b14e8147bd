"""Both clients send the same, and say the same of what goes wrong."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import struct
import threading
import traceback
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.api import Call
from airflow_provider_hsml.hopsworks.domain import trigger_event
from airflow_provider_hsml.hopsworks.domain.access import Access
from airflow_provider_hsml.hopsworks.errors import CertificateError, HopsworksError, InvalidInputError, NoResponseError
from airflow_provider_hsml.hopsworks.transport import request as request_
from airflow_provider_hsml.hopsworks.transport.client import Client
from tests.support.samples import PROJECT
from tests.support.servers import KEY, LIST, OK, PUT, Connect, Driven, Request, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


def broken(how: Callable[[socket.socket], None]) -> Callable[[], AbstractContextManager[str]]:
    """Make a server that does something else than answer HTTP."""

    @contextmanager
    def serve() -> Iterator[str]:
        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        connection.settimeout(0.05)
                        with suppress(TimeoutError):
                            while connection.recv(65536):
                                """Take the whole request: what is left unread ends in a reset."""
                        how(connection)

        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=accept)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.getsockname()[1]}"
            finally:
                server.shutdown(socket.SHUT_RDWR)
                thread.join()

    return serve


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def nobody() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def untrusted() -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with serving(Seen(OK), tls=context) as url:
        yield url


@contextmanager
def without_tls() -> Iterator[str]:
    with serving(Seen(OK)) as url:
        yield url.replace("http:", "https:")


@contextmanager
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def in_tls(server: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    with server() as url:
        yield url.replace("http:", "https:")


ENDS: dict[str, tuple[Callable[[], AbstractContextManager[str]], str]] = {
    "nobody": (nobody, r"Check the connection's host and port \(Connection refused\)\.$"),
    "closed": (broken(lambda _connection: None), r"the answer was cut off\.$"),
    "reset": (broken(reset), r"the answer was cut off \(Connection reset by peer\)\.$"),
    "no HTTP": (broken(lambda connection: connection.sendall(b"220 mail ready\r\n\r\n")), r"the answer was cut off\.$"),
    "cut": (
        broken(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n[")),
        r"the answer was cut off\.$",
    ),
    "no gzip": (
        lambda: serving(lambda _: (200, {"content-encoding": "gzip"}, b"nothing of the kind")),
        r"the answer was cut off\.$",
    ),
    "silent": (silent, r"no answer within 0\.2 s\.$"),
    "ends in TLS": (lambda: in_tls(broken(lambda _connection: None)), r"the answer was cut off"),
    "untrusted": (untrusted, r"does not verify \(unable to get local issuer certificate\)\.\n.* 'ca_bundle'\.$"),
    "without TLS": (without_tls, r"does not speak TLS\.\nCheck the connection's port"),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("call", [LIST, PUT], ids=["read", "write"])
def test_both_clients_say_the_same(name: str, call: Call[Any]) -> None:
    serve, words = ENDS[name]
    ends = []
    for kind in (Client, Driven):
        with serve() as url:
            # The timeout is of the whole exchange, which takes its time on a busy machine.
            seconds = 0.2 if name == "silent" else 10
            access = Access(url, "demo", KEY, request_timeout=seconds, write_timeout=seconds)
            client = kind(access, sleep=lambda _seconds: None)
            with pytest.raises(NoResponseError) as caught:
                client.send(call)
            client.close()
        assert str(caught.value).startswith(f"{call.what} at {url}: ")
        error = caught.value
        assert error.__cause__ is None, "the HTTP libraries' own errors quote the response"
        assert error.__suppress_context__
        ends.append((type(error), str(error).replace(url, ""), error.transient, error.outcome_unknown))

    assert ends[0] == ends[1]
    assert re.search(words, ends[0][1])


NAME = "a b/ü%2F?#&+:@"
ASKED: dict[str, Call[Any]] = {
    "path": api.get_project(NAME),
    "query": Call("ask", "GET", "somewhere", str, query=(("name", NAME), ("name", ""), ("x:y", "[1]"))),
    "body": api.put_deployment(PROJECT, {"name": "x", "description": NAME, "n": [1.5, None, True]}),
    "host": api.predict_at("", api.Address.by_host("digits.example.com", "digits"), {"instances": [[0.1]]}),
    "form": api.upload_part(PROJECT, f"Models/{NAME}", api.Upload("model.pkl", b"\x00\xff", {"flowChunk": "1"})),
}


@pytest.mark.parametrize("name", ASKED)
def test_both_clients_send_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is in a name, a query, a body or a form."""
    arrived: list[tuple[str | bytes, ...]] = []

    def note(request: Request) -> tuple[int, dict[str, str], bytes]:
        kind, _, boundary = (request.headers["content-type"] or "").partition("; boundary=")
        content = request.content.replace(boundary.encode(), b"-") if boundary else request.content
        content = content.replace(b"Content-Type: application/octet-stream\r\n", b"")  # Which is what none means.
        arrived.append((request.command, request.path, request.headers["host"], kind, content))
        return 200, {}, b"[]"

    monkeypatch.setattr(request_, "ATTEMPTS", 1)
    with serving(note) as url:
        for make in (Client, Driven):
            client = make(Access(url, "demo", KEY), sleep=lambda _seconds: None)
            with suppress(HopsworksError):
                client.send(replace(ASKED[name], base=url))
            client.close()

    assert len(arrived) == 2
    assert arrived[0] == arrived[1]


def test_a_body_that_json_cannot_say(connect: Connect) -> None:
    with pytest.raises(InvalidInputError, match="NaN"):
        connect("http://127.0.0.1:1").send(api.put_deployment(PROJECT, {"name": "x", "n": float("nan")}))


@pytest.mark.parametrize("key", ["prefix.secret part", "prefix.secret\npart", "prefix.gehe\u00edm", "\x00"])
def test_a_key_that_can_be_none_is_refused_and_not_shown(connect: Connect, key: str) -> None:
    with pytest.raises(InvalidInputError, match="field 'password'") as caught:
        connect("http://127.0.0.1:1", key=key).send(LIST)
    assert caught.value.__cause__ is None
    assert key not in str(caught.value)


ECHOES: dict[str, Callable[[str], tuple[int, dict[str, str], bytes]]] = {
    "an error of Hopsworks": lambda key: (400, {}, json.dumps({"errorCode": 1, "usrMsg": key}).encode()),
    "an error of a proxy": lambda key: (502, {}, f"<pre>{key}".encode()),
    "beyond what is quoted": lambda key: (502, {}, f"{'x' * 190}{key}".encode()),
    "no JSON": lambda key: (200, {}, f"Authorization: {key}".encode()),
    "an unreadable resource": lambda key: (200, {}, json.dumps({"items": [key]}).encode()),
    "a redirect": lambda key: (302, {"location": f"https://h.example/{key}"}, key.encode()),
}


@pytest.mark.parametrize(("since", "pause", "is_last"), [(1.0, 0.5, False), (3.8, 0.0, False), (3.8, 0.5, True)])
def test_no_attempt_begins_that_has_no_time_left(since: float, pause: float, *, is_last: bool) -> None:
    """Its timeout would hide the error of the attempt before it, and count as the server's."""
    refused: Future[Any] = Future()
    refused.set_exception(NoResponseError("refused", sent=False))
    state = SimpleNamespace(attempt_number=1, outcome=refused, seconds_since_start=since, upcoming_sleep=pause)

    assert request_.attempts(replace(LIST, at_most=5.0))["stop"](state) is is_last


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("how", [str, str.lower, lambda key: key.partition(" ")[2].partition(".")[2]])
def test_a_key_that_a_response_echoes_is_in_no_error(connect: Connect, echo: str, how: Callable[[str], str]) -> None:
    """Many proxies answer with the headers of the request."""
    with serving(lambda request: ECHOES[echo](how(request.headers["authorization"]))) as url:
        asked = api.predict_at(url, api.Address.by_path("demo", "digits"), {"instances": [[1]]})
        # Any JSON is the answer of a model.
        calls: list[Call[Any]] = [LIST] if echo == "an unreadable resource" else [LIST, asked]
        for call in calls:
            with pytest.raises(HopsworksError) as caught:
                connect(url).send(call)
            error = caught.value
            for text in (str(error), error.kept_text, repr(trigger_event.failure(error)), repr(vars(error))):
                assert not re.search("secretpar", text, re.IGNORECASE)


@pytest.mark.parametrize(
    "echo",
    [
        b"HTTP/1.1 %s\r\n\r\n",
        b"%s 200 OK\r\n\r\n",
        b"HTTP/1.1 502 %s\r\nContent-Length: 1\r\n\r\n<",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: " + b"x" * 57 + b"%s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n{"%s":1}',
    ],
)
def test_a_key_that_is_echoed_outside_of_a_body_is_in_no_traceback(connect: Connect, echo: bytes) -> None:
    answer = echo % f"ApiKey {KEY}".encode()
    with broken(lambda connection: connection.sendall(answer))() as url, pytest.raises(HopsworksError) as caught:
        connect(url).send(LIST)
    assert "secretpar" not in "".join(traceback.format_exception(caught.value))


def test_no_cookie_is_sent_back(connect: Connect) -> None:
    cookies = []

    def answer(request: Request) -> tuple[int, dict[str, str], bytes]:
        cookies.append(request.headers["cookie"])
        return 200, {"set-cookie": "session=of-somebody; Path=/"}, b"[]"

    with serving(answer) as url:
        client = connect(url)
        client.send(LIST)
        client.send(LIST)

    assert cookies == [None, None]


@pytest.mark.parametrize("reason", ["TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"])
def test_an_old_tls_is_named(reason: str) -> None:
    """What OpenSSL says of a server that speaks TLS 1.1 only."""
    cause = ssl.SSLError(1, "an alert")
    cause.reason = reason

    error = request_.HttpRequest(Access("https://h.example:443", "demo", KEY), LIST, KEY).failed(cause, unreached=True)

    assert isinstance(error, CertificateError)
    assert "such as TLS 1.1 or older only" in str(error)
    assert "Have TLS 1.2 or later enabled" in str(error)


def test_a_key_file_that_is_no_text_gives_no_new_key(tmp_path: Path) -> None:
    (tmp_path / "token.jwt").write_bytes(b"\xff\xfe")

    assert request_.read_key(Access("https://h", "demo", KEY, key_path=str(tmp_path / "token.jwt"))) is None


class TestTls:
    @pytest.fixture
    def context(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
        """The TLS of a server whose certificate is trusted."""
        context, authority = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), trustme.CA()
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.configure_trust(context)
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        return context

    def test_without_a_common_cipher(self, connect: Connect, context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AES128-SHA")
        with serving(Seen(OK), tls=context) as url, pytest.raises(NoResponseError, match="handshake failed") as caught:
            connect(url).send(LIST)
        assert (caught.value.transient, caught.value.sent) == (True, False)
        assert not isinstance(caught.value, CertificateError)

    @pytest.mark.parametrize(
        ("version", "sent", "words"),
        [
            (ssl.TLSVersion.TLSv1_2, False, r"handshake failed(.|\n)*a client certificate"),
            (ssl.TLSVersion.TLSv1_3, True, r"was cut off"),
        ],
    )
    def test_a_server_that_requires_a_client_certificate(
        self, connect: Connect, context: ssl.SSLContext, version: ssl.TLSVersion, sent: bool, words: str
    ) -> None:
        """With TLS 1.3, the client hears of it only after its handshake."""
        context.maximum_version, context.verify_mode = version, ssl.CERT_REQUIRED
        with serving(Seen(OK), tls=context) as url, pytest.raises(NoResponseError, match=words) as caught:
            connect(url).send(LIST)
        assert (caught.value.transient, caught.value.sent) == (True, sent)

    def test_a_damaged_record_is_retried(self, connect: Connect, context: ssl.SSLContext) -> None:
        damages = iter([True])

        def damage(request: Request) -> tuple[int, dict[str, str], bytes]:
            if next(damages, False):
                os.write(request.connection.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
            return OK

        with serving(damage, tls=context) as url:
            assert connect(url).send(LIST) == []


class TestProxyThatDoesNotConnect:
    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", r"HTTP 407"),
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\n<html>", r"HTTP 403"),
            (b"HTTP/1.1 302 Found\r\nLocation: http://x\r\nContent-Length: 0\r\n\r\n", r"HTTP 302"),
            (b"SSH-2.0-OpenSSH\r\n", ""),
            (b"", ""),
        ],
    )
    def test_is_named(self, connect: Connect, monkeypatch: pytest.MonkeyPatch, reply: bytes, words: str) -> None:
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with broken(lambda connection: connection.sendall(reply))() as url:
            monkeypatch.setenv("https_proxy", url.replace("//", "//me:hidden@"))
            with pytest.raises(NoResponseError, match=f"'127.0.0.1' in .* HTTPS_PROXY does not.*{words}") as caught:
                connect("https://hopsworks.invalid:443").send(PUT)
        assert not caught.value.sent
        assert "hidden" not in str(caught.value)


class TestEnvironment:
    """What the environment says of proxies and CAs means the same to both."""

    @pytest.mark.parametrize("no_proxy", ["", "other.example.com"])
    def test_a_proxy_is_gone_through(self, connect: Connect, monkeypatch: pytest.MonkeyPatch, no_proxy: str) -> None:
        seen = Seen(OK)
        with serving(seen) as proxy:
            monkeypatch.setenv("http_proxy", proxy)
            monkeypatch.setenv("no_proxy", no_proxy)
            connect("http://hopsworks.invalid:8080").send(LIST)
        assert seen.paths == ["http://hopsworks.invalid:8080/hopsworks-api/api/project/119/serving"]

    @pytest.mark.parametrize(
        "no_proxy", ["hopsworks.invalid", ".invalid", "*", "a.example.com, hopsworks.invalid:8080"]
    )
    def test_unless_no_proxy_names_the_host(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch, no_proxy: str
    ) -> None:
        seen = Seen(OK)
        with serving(seen) as proxy:
            monkeypatch.setenv("http_proxy", proxy)
            monkeypatch.setenv("no_proxy", no_proxy)
            with pytest.raises(NoResponseError, match="nobody answers there"):
                connect("http://hopsworks.invalid:8080").send(LIST)
        assert seen.paths == []

    def test_nor_to_this_machine(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with serving(Seen(OK)) as url:
            assert connect(url).send(LIST) == []

    @pytest.mark.parametrize(
        "proxy",
        [
            "http://me:hidden@proxy.example.com:99999",
            "http://me:hidden@proxy.example.com:port",
            "me:hidden@proxy.example.com:0",
            f"http://me:hidden@{'a' * 64}.example.com:3128",
            "http://me:hidden@:3128",
        ],
    )
    @pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
    def test_a_proxy_that_cannot_be_one(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch, proxy: str, variable: str
    ) -> None:
        monkeypatch.setenv(variable, proxy)
        monkeypatch.delenv("no_proxy", raising=False)

        with pytest.raises(InvalidInputError, match=f"environment variable {variable.upper()}") as caught:
            connect("http://hopsworks.invalid:8080").send(LIST)
        assert "hidden" not in str(caught.value)

    @pytest.mark.parametrize(
        ("host", "no_proxy", "through"),
        [
            ("10.1.2.3", "10.0.0.0/8", False),
            ("11.1.2.3", "10.0.0.0/8", True),
            ("10.example.com", "10.0.0.0/8", True),
            ("10.1.2.3", "fd00::/8, nonsense/8", True),
            ("[fd00::1]", "fd00::/8", False),
        ],
    )
    def test_networks_in_no_proxy(
        self, monkeypatch: pytest.MonkeyPatch, host: str, no_proxy: str, *, through: bool
    ) -> None:
        monkeypatch.setenv("https_proxy", "http://proxy.example.com:3128")
        monkeypatch.setenv("no_proxy", no_proxy)
        assert (request_.proxy_for(f"https://{host}:443") is not None) is through

    def test_its_ca_is_trusted_where_the_connection_names_none(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        ours, other = tmp_path / "ours.pem", tmp_path / "other.pem"
        authority.cert_pem.write_to_path(ours)
        trustme.CA().cert_pem.write_to_path(other)
        with serving(Seen(OK), tls=context) as url:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ours))
            assert connect(url).send(LIST) == []
            with pytest.raises(CertificateError):
                connect(url, verify=str(other)).send(LIST)
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
            assert connect(url, verify=str(ours)).send(LIST) == []
            with pytest.raises(CertificateError):
                connect(url).send(LIST)

    @pytest.mark.parametrize("path", ["-----BEGIN PRIVATE KEY-----\n" + "MIIEvQ\n" * 300, "MIIEvQ" * 900, "a\0MIIEvQ"])
    def test_what_is_no_path_of_a_ca_is_not_repeated(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch, path: str
    ) -> None:
        with pytest.raises(InvalidInputError, match=r"CA.*is not a PEM file(.|\n)*Set the path") as caught:
            connect("https://127.0.0.1:1", verify=path).send(LIST)
        assert "MIIEvQ" not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize("content", [None, "no certificate"])
    def test_a_ca_that_cannot_be_read(self, connect: Connect, tmp_path: Path, content: str | None) -> None:
        bundle = tmp_path / "ca.pem"
        if content:
            bundle.write_text(content)
        with pytest.raises(InvalidInputError, match=rf"CA.*{bundle}"):
            connect("https://127.0.0.1:1", verify=str(bundle)).send(LIST)
