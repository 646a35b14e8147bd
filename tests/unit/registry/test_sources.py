"""The files of a model on this machine: all of them are uploaded, or what cannot be is refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.flow import drive
from airflow_provider_hsml.hopsworks.registry import sources
from airflow_provider_hsml.hopsworks.registry.sources import LocalFiles, read_source
from tests.support.fake import PROJECT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files, one of them in a folder of its own."""
    (tmp_path / "model" / "inner").mkdir(parents=True)
    (tmp_path / "model" / "a.pkl").write_text("a")
    (tmp_path / "model" / "inner" / "b.pkl").write_text("b")
    return tmp_path / "model"


def names(path: object) -> list[str]:
    source = read_source("model_path", path)
    assert isinstance(source, LocalFiles)
    return [name for name, _ in source.files()]


def test_paths_of_every_type(folder: Path) -> None:
    class OfAnotherLibrary(os.PathLike[str]):
        def __fspath__(self) -> str:
            return str(folder)

    assert names(folder) == names(str(folder)) == names(OfAnotherLibrary()) == ["a.pkl", "inner/b.pkl"]
    assert names(folder / "a.pkl") == ["a.pkl"]


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "weights.bin").write_text("w")
    (folder / "weights").symlink_to(shared)
    (folder / "again").symlink_to(shared)
    (folder / "c.pkl").symlink_to(folder / "a.pkl")

    assert names(folder) == ["a.pkl", "again/weights.bin", "c.pkl", "inner/b.pkl", "weights/weights.bin"]


def test_a_link_to_the_folder_above(folder: Path) -> None:
    (folder / "inner" / "up").symlink_to(folder)

    with pytest.raises(InvalidInputError, match=r"inner/up' cannot be uploaded: it is a link to a folder that holds"):
        names(folder)


def test_a_link_to_nothing(folder: Path) -> None:
    (folder / "gone.pkl").symlink_to(folder / "nowhere")

    with pytest.raises(InvalidInputError, match=r"gone.pkl' cannot be uploaded: it is a link to nothing"):
        names(folder)


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_pipe(folder: Path, is_whole: bool) -> None:
    os.mkfifo(folder / "pipe")

    with pytest.raises(InvalidInputError, match=r"pipe' cannot be uploaded: it is no file and no folder"):
        names(folder / "pipe" if is_whole else folder)


def test_a_name_that_is_not_utf_8(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/gew\xfcrz.pkl")).write_text("x")

    with pytest.raises(InvalidInputError, match=r"its name b'gew\\xfcrz.pkl' is not UTF-8") as caught:
        names(folder)
    str(caught.value).encode()


def test_a_folder_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, the tests may read everything."""

    def refuse(_: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InvalidInputError, match=r"model' cannot be uploaded: the folder cannot be read \(Permission"):
        names(folder)


@pytest.mark.parametrize("path", ["/nowhere/at/all", "a\0b", "x" * 5000])
def test_what_is_not_there(path: str) -> None:
    with pytest.raises(InvalidInputError, match=r"model_path .*: no such file or folder on this machine"):
        names(path)


@pytest.mark.parametrize("path", [b"/tmp", 3, None, ""])
def test_what_is_no_path(path: object) -> None:
    with pytest.raises(InvalidInputError, match=r"model_path: expected a text"):
        names(path)


def test_a_folder_of_folders_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)

    with pytest.raises(InvalidInputError, match="the folder is empty"):
        names(tmp_path)


def test_a_name_of_a_folder_that_is_not_utf_8(folder: Path) -> None:
    below = Path(os.fsdecode(os.fsencode(folder) + b"/sub\xff"))
    below.mkdir()
    (below / "a.pkl").write_text("x")

    with pytest.raises(InvalidInputError, match=r"its name b'sub\\xff' is not UTF-8"):
        names(folder)


@pytest.mark.parametrize("folders", [["a"], ["a", "b"]])
def test_folders_that_do_not_end(folders: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a server ignores the path and lists the same folder again and again."""
    rows = [{"attributes": {"name": name, "dir": True}} for name in folders]
    listing = Answer(200, json.dumps({"count": len(rows), "items": rows}).encode())
    monkeypatch.setattr(sources, "MOST_FOLDERS", 300)

    with pytest.raises(UnexpectedResponseError, match="do not end"):
        drive(sources.walk(PROJECT, "Models/digits/1"), lambda call: call.outcome(listing), lambda _: None)
