"""What is too long, broken, in the wrong place or out of room is refused with a sentence, and nothing is lost."""

from __future__ import annotations

import json
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local import LocalServing
from airflow_provider_hsml.local.limits import BODY_BYTES, FIELD_BYTES, UPLOAD_BYTES
from tests.local.conftest import Client, deployment, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Starlette leaves the file of a form that is broken off to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning")

_MB = 1 << 20


def _peak_memory() -> int:
    """Give the most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


class TestLongBodies:
    def test_a_hundred_megabytes_of_json(self, client: Client) -> None:
        before = _peak_memory()

        answer = client.ask("PUT", "/serving", data=iter([b" " * _MB] * 100))

        assert (answer.status_code, answer.json()["errorCode"]) == (413, 120004)
        assert str(BODY_BYTES >> 20) in answer.json()["usrMsg"]
        assert _peak_memory() - before < 3 * (BODY_BYTES >> 20)
        assert client.put()["name"] == "digits"

    def test_its_length_is_enough(self, client: Client) -> None:
        """Nothing is read of a body that says how long it is."""
        before = _peak_memory()

        answer = _raw(client, "PUT", "/serving", headers={"Content-Length": str(100 * _MB)})

        assert answer.startswith(b"HTTP/1.1 413 ")
        assert _peak_memory() - before < 10

    @pytest.mark.parametrize("path", ["/inference/models/digits:predict", "/modelregistries/119/models/digits_1"])
    def test_other_routes(self, client: Client, path: str) -> None:
        method = "POST" if "inference" in path else "PUT"

        assert client.ask(method, path, data=iter([b" " * _MB] * 33)).status_code == 413

    def test_a_part_of_an_upload(self, client: Client) -> None:
        before = _peak_memory()
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        url = f"{client.serving.url}/hopsworks-api/api/project/119/dataset/upload/Resources"
        headers = {
            "Authorization": f"ApiKey {client.serving.api_key}",
            "Content-Type": "multipart/form-data; boundary=x",
        }

        body = iter([head, *[b"\0" * _MB] * ((UPLOAD_BYTES >> 20) + 1)])
        answer = client.session.post(url, data=body, headers=headers, timeout=60, verify=True)

        assert answer.status_code == 413
        assert _peak_memory() - before < 40, "it is written to disk as it comes"
        assert client.give("GET", "/dataset/Resources?action=listing")["count"] == 0

    def test_a_field_of_a_form(self, client: Client) -> None:
        form = {"flowFilename": "f", "flowIdentifier": "f" * (FIELD_BYTES + 1)}

        answer = client.ask("POST", "/dataset/upload/Resources", data=form, files={"file": ("f", b"")})

        assert (answer.status_code, answer.json()["errorCode"]) == (413, 120004)
        assert "64 kB" in answer.json()["usrMsg"]

    def test_a_field_of_a_form_that_is_just_short_enough(self, client: Client) -> None:
        """The limit is of the fields alone: the file beside them is larger."""
        form = {"flowFilename": "f", "flowRelativePath": "\u00e9" * (FIELD_BYTES // 2)}

        client.give("POST", "/dataset/upload/Resources", data=form, files={"file": ("f", b"x" * (3 * _MB))})

        assert client.give("GET", "/dataset/Resources/f")["attributes"]["size"] == 3 * _MB

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("multipart/form-data", b"--x"),
            ("multipart/form-data; boundary=x", b"not what a form looks like"),
            ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n"),
            ("application/x-www-form-urlencoded", b"&&&=%zz"),
            ("application/x-www-form-urlencoded", b"file=" + b"%5B" * 1000),
            ("text/plain", b"file"),
        ],
    )
    def test_a_broken_form(self, unchanged: Client, kind: str, body: bytes) -> None:
        url = f"{unchanged.serving.url}/hopsworks-api/api/project/119/dataset/upload/Resources"
        headers = {"Authorization": f"ApiKey {unchanged.serving.api_key}", "Content-Type": kind}

        answer = unchanged.session.post(url, data=body, headers=headers, timeout=30, verify=True)

        assert (answer.status_code, answer.json()["errorCode"]) == (422, 120001)

    def test_too_many_fields(self, unchanged: Client) -> None:
        form = {f"field{number}": "1" for number in range(1000)}

        assert unchanged.refused("POST", "/dataset/upload/Resources", data=form, files={"file": b""}) == (422, 120001)


class TestBrokenBodies:
    @pytest.mark.parametrize(
        "body",
        [b"{", b"", b"[]", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"name": "\\ud800"}', b'{"a": 1' + b"0" * 9999],
    )
    @pytest.mark.parametrize("path", ["/serving", "/modelregistries/119/models/digits_1"])
    def test_json(self, unchanged: Client, path: str, body: bytes) -> None:
        assert unchanged.refused("PUT", path, data=body) == (422, 120001)

    @pytest.mark.parametrize("body", [b"{", b"", b"[]", b"[" * 100_000, b"{}", b'{"instances": [1], "inputs": [1]}'])
    def test_predictions(self, client: Client, body: bytes) -> None:
        client.running()

        assert client.refused("POST", "/inference/models/digits:predict", data=body) == (400, 250004)

    @pytest.mark.parametrize("wrong", [7, 1.5, True, "text", ["a"], {"a": 1}, "\0", "\ud83d\ude00"])
    def test_wrong_types_everywhere(self, unchanged: Client, wrong: Any) -> None:
        whole = deployment() | {
            "predictor": None,
            "transformer": None,
            "configFile": None,
            "environmentDTO": {"name": "x"},
            "predictorResources": {"requests": {"cores": 1}},
            "predictorScalingConfig": {"minInstances": 1},
            "batchingConfiguration": {},
            "kafkaTopicDTO": {},
            "predictorEnvVars": [],
            "tags": {"items": []},
        }
        for name, right in whole.items():
            if isinstance(wrong, type(right)) or (name, wrong) in (
                ("modelVersion", True),
                ("requestedInstances", True),
            ):
                continue
            answer = unchanged.ask("PUT", "/serving", json=whole | {"name": "fresh", name: wrong})
            assert answer.status_code in (201, 400, 404, 422), f"{name}: {answer.text}"
            assert not answer.ok or name in ("predictor", "tags"), f"{name}: {wrong!r} was taken"
            if answer.ok:
                unchanged.give("DELETE", f"/serving/{answer.json()['id']}")


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        [
            *("../../api.key", "Resources/../../../api.key", "Resources/..", "Resources/./x", "..", "."),
            *("%2e%2e/%2e%2e/api.key", "Resources%2f..%2f..%2fapi.key", "Resources/%2e%2e%2f%2e%2e%2fapi.key"),
            *("Resources/%00", "Resources/a%09b", "Resources/..%5c..%5capi.key", "Resources/%5c..%5c"),
            *("hdfs://x:1/Projects/example/../../api.key", "%2FProjects%2Fexample%2F..%2F..%2Fapi.key"),
        ],
    )
    def test_outside(self, unchanged: Client, path: str) -> None:
        for below in (f"/dataset/{path}", f"/dataset/download/with_auth/{path}"):
            answer = _raw(unchanged, "GET", below)
            assert answer.startswith((b"HTTP/1.1 422 ", b"HTTP/1.1 400 ")), answer
            assert unchanged.serving.api_key.encode() not in answer

    @pytest.mark.parametrize("path", ["Resources/%252e%252e", "Resources/%ff%fe", "Resources/\u00e9"])
    def test_strange_names_are_names(self, client: Client, path: str) -> None:
        """Encoded twice is a name with a percent sign; what is not UTF-8 is replaced."""
        below = f"/dataset/{path.replace(chr(233), '%C3%A9')}"
        assert _raw(client, "POST", f"{below}?action=create").startswith(b"HTTP/1.1 201 ")
        assert _raw(client, "GET", below).startswith(b"HTTP/1.1 200 ")
        assert len(list((client.serving.root / "projects" / "example" / "Resources").iterdir())) == 1

    @pytest.mark.parametrize("name", ["a" * 256, "\u00e9" * 200, "/".join(["folder"] * 400)])
    def test_long_names(self, unchanged: Client, name: str) -> None:
        assert unchanged.refused("POST", f"/dataset/Resources/{name}?action=create")[0] == 422
        form = {"flowFilename": name.rpartition("/")[2] or name}
        assert not unchanged.ask("POST", f"/dataset/upload/Resources/{name}", data=form, files={"file": ("f", b"")}).ok

    def test_a_long_name_of_a_model_or_a_deployment(self, unchanged: Client) -> None:
        assert unchanged.refused("PUT", f"/modelregistries/119/models/{'a' * 300}_1", json={})[0] == 422
        assert unchanged.refused("GET", f"/modelregistries/119/models/x_{10**30}")[0] == 422
        path = f"/Projects/example/Models/{'a' * 300}"
        body = deployment() | {"modelName": "a" * 300, "modelPath": path}
        assert unchanged.refused("PUT", "/serving", json=body) == (400, 240006)

    @pytest.mark.parametrize(
        ("path", "query"),
        [
            ("Models", "action=move&destination_path=Resources/models"),
            ("Models/digits", "action=move&destination_path=Models/digits/1/inner"),
            ("Models/digits", "action=move&destination_path=../../elsewhere"),
            ("Models/digits", "action=copy&destination_path=/Projects/foreign/Models/x"),
            ("Models/digits", "action=copy&destination_path=%00"),
        ],
    )
    def test_where_nothing_can_be_moved_or_copied(self, unchanged: Client, path: str, query: str) -> None:
        assert unchanged.refused("POST", f"/dataset/{path}?{query}")[0] in (400, 422)
        assert unchanged.ask("GET", "/dataset/Models/digits/1/Files/model.pkl").ok

    @pytest.mark.parametrize(
        "form",
        [
            {"flowChunkNumber": "2"},
            {"flowChunkNumber": "0"},
            {"flowChunkNumber": "1e3"},
            {"flowTotalChunks": str(10**12)},
            {"flowChunkSize": "-1"},
            {"flowChunkNumber": "9", "flowTotalChunks": "10", "flowChunkSize": str(10**15)},
            {"flowFilename": "../x"},
            {"flowFilename": ".."},
            {"flowFilename": "a\0b"},
        ],
    )
    def test_parts_of_an_upload(self, unchanged: Client, form: dict[str, str]) -> None:
        answer = unchanged.ask(
            "POST", "/dataset/upload/Resources", data={"flowFilename": "x"} | form, files={"file": b""}
        )

        assert (answer.status_code, answer.json()["errorCode"]) == (422, 120001)


class TestIngress:
    def test_a_body_that_is_too_long(self, client: Client) -> None:
        client.running()

        answer = client.ask_ingress(
            "POST", "/v1/example/digits/v1/models/digits:predict", data=iter([b" " * _MB] * ((BODY_BYTES >> 20) + 1))
        )

        assert answer.status_code == 413
        assert client.predict().ok

    @pytest.mark.parametrize(
        "path", ["/", "/v1", "/v1/example", "/v1/%00/digits/x", "/v1/example/%2e%2e/x", "/v1/example//", "/%ff"]
    )
    def test_where_nothing_is(self, unchanged: Client, path: str) -> None:
        answer = unchanged.ask_ingress("GET", path)

        assert (answer.status_code, answer.content) == (404, b"")


class TestNoise:
    @pytest.mark.parametrize(
        "noise",
        [
            b"\0" * 1000,
            b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"PUT /hopsworks-api/api/project/119/serving HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"PUT /hopsworks-api/api/project/119/serving HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        ],
    )
    def test_what_is_not_http(self, unchanged: Client, noise: bytes) -> None:
        with _socket(unchanged) as peer:
            peer.sendall(noise)
            peer.shutdown(socket.SHUT_WR)
            try:
                assert not peer.recv(100).startswith(b"HTTP/1.1 2")
            except ConnectionResetError:
                """Or it hangs up."""

        assert unchanged.give("GET", "//variables/versions")

    def test_a_client_that_goes_in_the_middle(self, unchanged: Client) -> None:
        with _socket(unchanged) as peer:
            head = "PUT /hopsworks-api/api/project/119/serving HTTP/1.1\r\nContent-Length: 1000\r\n"
            peer.sendall(f"{head}Authorization: ApiKey {unchanged.serving.api_key}\r\n\r\n{{".encode())

        assert unchanged.give("GET", "/serving") == []


class TestRoots:
    """What ``hsml-local serve`` says, in one sentence, before it ends with 2."""

    def test_a_root_that_is_in_use(self, tmp_path: Path) -> None:
        with LocalServing(tmp_path, engine=load) as serving:
            said = _refused_by_the_command("--root", str(tmp_path))

        assert serving.url in said
        assert f"process {os.getpid()}" in said

    def test_a_port_that_is_in_use(self, tmp_path: Path, serving: LocalServing) -> None:
        said = _refused_by_the_command("--root", str(tmp_path), "--port", serving.url.rpartition(":")[2])

        assert "give another --port" in said

    @pytest.mark.parametrize("port", ["-1", "70000"])
    def test_a_port_that_is_none(self, tmp_path: Path, port: str) -> None:
        assert port in _refused_by_the_command("--root", str(tmp_path), "--port", port)

    def test_a_root_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        for root in (tmp_path / "file", tmp_path / "file" / "below"):
            assert "give another --root" in _refused_by_the_command("--root", str(root))
        if sys.platform == "linux":
            assert "give another --root" in _refused_by_the_command("--root", "/proc/hsml")

    def test_a_root_of_a_newer_version(self, tmp_path: Path) -> None:
        database = sqlite3.connect(tmp_path / "state.sqlite3")
        database.execute("PRAGMA user_version = 99")
        database.close()

        assert "newer" in _refused_by_the_command("--root", str(tmp_path))

    def test_a_root_whose_rows_are_broken(self, tmp_path: Path) -> None:
        (tmp_path / "state.sqlite3").write_bytes(b"not a database, but long enough to be taken for one" * 100)

        assert "state.sqlite3" in _refused_by_the_command("--root", str(tmp_path))


class TestFullDisk:
    """Files of this process may not grow past what is there: for the server, the disk is full."""

    @pytest.fixture
    def limit(self) -> Iterator[Callable[[int], None]]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size if size >= 0 else soft, hard))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def test_an_upload(self, client: Client, limit: Callable[[int], None]) -> None:
        def upload(name: str) -> Any:
            return client.ask(
                "POST", "/dataset/upload/Resources", data={"flowFilename": name}, files={"file": b"x" * _MB}
            )

        assert upload("before").ok
        limit(_MB // 2)
        answer = upload("during")
        limit(-1)

        assert (answer.status_code, answer.json()["errorCode"]) == (500, 110055)
        listed = client.give("GET", "/dataset/Resources?action=listing")["items"]
        assert [entry["attributes"]["name"] for entry in listed] == ["before"]
        assert upload("during").ok, "there is room again: the same part may come again"
        got = client.ask("GET", "/dataset/download/with_auth/Resources/during")
        assert got.content == b"x" * _MB

    def test_rows(self, client: Client, limit: Callable[[int], None]) -> None:
        running = client.running()
        before = client.see(running)
        log = client.serving.root / "state.sqlite3-wal"
        limit(log.stat().st_size)
        refused = [
            client.ask("PUT", "/serving", json=deployment("second")),
            client.ask("PUT", "/serving?newVersion=true", json=before | {"modelVersion": 2}),
            client.ask("POST", f"/serving/{running}?action=STOP"),
            client.ask("DELETE", f"/serving/{running}"),
            client.ask("PUT", "/modelregistries/119/models/digits_1", json={"metrics": {"accuracy": 0.1}}),
        ]
        limit(-1)

        assert [(answer.status_code, answer.json()["errorCode"]) for answer in refused] == [(500, 110055)] * 5
        assert client.see(running) == before, "it runs on as it was"
        assert client.predict().ok
        assert len(client.give("GET", "/serving")) == 1
        assert client.give("GET", "/modelregistries/119/models/digits_1")["metrics"] != {"accuracy": 0.1}
        client.put("second")
        client.give("POST", f"/serving/{running}?action=STOP")
        client.until(running, "Stopped")

    def test_a_whole_disk(self, tmp_path: Path) -> None:
        """The same with a disk of 3 MB, where one may be mounted."""
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("no file system may be mounted here")
        try:
            with LocalServing(tmp_path, engine=load) as serving:
                client = Client(serving)
                with client.session:
                    written, form = 0, {"flowFilename": "0"}
                    while (answer := _upload(client, form)).ok:
                        written += 1
                        form = {"flowFilename": str(written)}
                    assert (answer.status_code, answer.json()["errorCode"]) == (500, 110055)
                    assert client.give("GET", "/dataset/Resources?action=listing")["count"] == written > 3
                    client.give("DELETE", "/dataset/Resources/0")
                    assert _upload(client, {"flowFilename": "0"}).ok, "there is room again"
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)


def _upload(client: Client, form: dict[str, str]) -> Any:
    return client.ask("POST", "/dataset/upload/Resources", data=form, files={"file": b"x" * (_MB // 4)})


def _socket(client: Client) -> socket.socket:
    host, _, port = client.serving.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def _raw(client: Client, method: str, path: str, *, headers: dict[str, str] | None = None) -> bytes:
    """Send a path as it is: HTTP libraries tidy it up. Give the answer as it came."""
    lines = [f"{method} /hopsworks-api/api/project/119{path} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"{name}: {text}" for name, text in (headers or {}).items()]
    lines.append(f"Authorization: ApiKey {client.serving.api_key}")
    with _socket(client) as peer:
        peer.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while chunk := peer.recv(65536):
            answer += chunk
            if headers:
                break
    return answer


def _refused_by_the_command(*arguments: str) -> str:
    """Run ``hsml-local serve``, which must refuse, and give what it says."""
    command = [sys.executable, "-m", "airflow_provider_hsml.local.cli", "serve", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_many_at_once_are_answered(client: Client) -> None:
    """Of several that create the same deployment one wins, and the others are told so."""
    codes: list[int] = []

    def put() -> None:
        own = Client(client.serving)
        with own.session:
            codes.append(own.ask("PUT", "/serving", data=json.dumps(deployment())).status_code)

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(codes) == [201, *[400] * 7]
