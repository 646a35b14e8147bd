"""The project's files, over HTTP."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import requests

    from tests.local.conftest import Client


def _upload(client: Client, folder: str, name: str, content: bytes, *, part_bytes: int = 10) -> list[requests.Response]:
    parts = [content[start : start + part_bytes] for start in range(0, len(content), part_bytes)]
    answers = []
    for number, part in enumerate(parts or [b""], 1):
        fields = {
            "templateId": "-1",
            "flowChunkSize": str(part_bytes),
            "flowTotalSize": str(len(content)),
            "flowIdentifier": f"{len(content)}_{name}",
            "flowFilename": name,
            "flowRelativePath": name,
            "flowTotalChunks": str(len(parts)),
            "flowCurrentChunkSize": str(len(part)),
            "flowChunkNumber": str(number),
        }
        answers.append(client.ask("POST", f"/dataset/upload/{folder}", files={"file": (name, part)}, data=fields))
    return answers


@pytest.mark.parametrize("content", [b"", b"short", bytes(range(256))])
def test_upload_in_parts_and_download(client: Client, content: bytes) -> None:
    assert all(answer.ok for answer in _upload(client, "Resources", "file.bin", content))

    assert client.ask("GET", "/dataset/download/with_auth/Resources%2Ffile.bin?type=DATASET").content == content
    assert client.give("GET", "/dataset/Resources/file.bin")["attributes"]["size"] == len(content)


def test_a_file_appears_when_it_is_whole(client: Client) -> None:
    fields = {"flowChunkSize": "2", "flowIdentifier": "4_f", "flowFilename": "f", "flowTotalChunks": "2"}
    for number, expected in ((2, False), (2, False), (1, True), (1, True)):
        files = {"file": ("f", [b"ab", b"cd"][number - 1])}
        form = fields | {"flowChunkNumber": str(number)}
        assert client.ask("POST", "/dataset/upload/Resources", files=files, data=form).ok, "a part may come again"
        assert client.ask("GET", "/dataset/Resources/f").ok is expected
    assert client.ask("GET", "/dataset/download/with_auth/Resources/f").content == b"abcd"


def test_parts_in_parallel(client: Client) -> None:
    content = hashlib.shake_128(b"seed").digest(200_000)
    fields = {"flowChunkSize": "10000", "flowIdentifier": "x", "flowFilename": "f", "flowTotalChunks": "20"}

    def send(number: int) -> bool:
        part = content[(number - 1) * 10_000 : number * 10_000]
        form = fields | {"flowChunkNumber": str(number)}
        return client.ask("POST", "/dataset/upload/Resources", files={"file": ("f", part)}, data=form).ok

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(send, range(1, 21)))
    assert client.ask("GET", "/dataset/download/with_auth/Resources/f").content == content


def test_an_upload_onto_a_file_is_refused(client: Client) -> None:
    _upload(client, "Resources", "f", b"first")

    answer = _upload(client, "Resources", "f", b"second one")[0]

    assert (answer.status_code, answer.json()["errorCode"]) == (400, 110012)


def test_one_of_many_makes_a_folder(client: Client) -> None:
    """This is how a client claims a version: only one may be told that it made the folder."""
    client.give("POST", "/dataset/Models/claimed?action=create&type=DATASET")

    def claim(_number: int) -> int:
        return client.ask("POST", "/dataset/Models%2Fclaimed%2F1?action=create").status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(claim, range(8)))
    assert statuses == [201, *[400] * 7]
    assert client.refused("POST", "/dataset/Models/claimed/1?action=create") == (400, 110047)
    assert client.refused("POST", "/dataset/Models/nowhere/1?action=create") == (400, 110018)


@pytest.mark.parametrize(
    "path",
    ["Models/digits", "Models%2Fdigits", "%2FProjects%2Fexample%2FModels%2Fdigits", "Projects/example/Models/digits"],
)
def test_a_path_in_any_of_its_forms(client: Client, path: str) -> None:
    listing = client.give("GET", f"/dataset/{path}?action=listing&sort_by=NAME:desc&offset=0&limit=2&expand=inodes")

    assert listing["count"] == 3
    assert [row["attributes"]["name"] for row in listing["items"]] == ["3", "2"]
    assert listing["items"][0]["attributes"]["path"] == "/Projects/example/Models/digits/3"
    assert client.give("GET", f"/dataset/{path}?action=listing&offset=3") == {"count": 3, "items": []}


def test_copy_move_delete(client: Client) -> None:
    client.give("POST", "/dataset/Models/digits/1?action=copy&destination_path=/Projects/example/Resources/copied")
    client.give("POST", "/dataset/Resources/copied?action=move&destination_path=Resources/moved")

    assert client.ask("GET", "/dataset/download/with_auth/Resources/moved/Files/model.pkl").content == b"a pickle"
    assert client.refused("GET", "/dataset/Resources/copied") == (400, 110018)
    move = "/dataset/Models/digits/1?action=move&destination_path=Resources/moved"
    assert client.refused("POST", move) == (400, 110012)
    assert client.ask("DELETE", "/dataset/Resources%2Fmoved").status_code == 204
    assert client.refused("DELETE", "/dataset/Resources%2Fmoved") == (400, 110018)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "Models%2F..%2F..%2Fapi.key", (422, 120001)),
        ("GET", "Models%2F%00", (422, 120001)),
        ("GET", "%2FProjects%2Fforeign%2FModels", (400, 110011)),
        ("GET", "Nothing", (400, 110011)),
        ("GET", "Models/digits/1/Files/model.pkl?action=listing", (400, 110018)),
        ("GET", "Models/digits?action=listing&sort_by=COLOUR", (422, 120001)),
        ("GET", "Models?action=unzip", (422, 120001)),
        ("POST", "Models?action=unzip", (422, 120001)),
        ("POST", "Models/digits?action=copy", (422, 120001)),
        ("DELETE", "Models", (422, 120001)),
        ("GET", "download/with_auth/Models/digits", (400, 110018)),
        ("POST", "upload/Resources", (422, 120001)),
    ],
)
def test_what_is_refused(unchanged: Client, method: str, path: str, expected: tuple[int, int]) -> None:
    assert unchanged.refused(method, f"/dataset/{path}") == expected


@pytest.mark.parametrize("fields", [{"flowChunkNumber": "x"}, {"flowChunkNumber": "3"}, {"flowFilename": "../f"}])
def test_a_form_that_is_wrong(unchanged: Client, fields: dict[str, str]) -> None:
    form = {"flowFilename": "f", "flowTotalChunks": "1"} | fields

    refused = unchanged.refused("POST", "/dataset/upload/Resources", files={"file": ("f", b"x")}, data=form)

    assert refused == (422, 120001)
