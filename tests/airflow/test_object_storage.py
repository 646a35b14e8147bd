"""Local files by URL, and files to write."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hooks.object_storage import local_copy, writable
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.airflow


def test_a_local_folder_by_url_is_read_in_place(tmp_path: Path) -> None:
    """A copy would leave out what is behind links."""
    with local_copy("model_path", f"file://{tmp_path}") as path:
        assert path == str(tmp_path)


class TestFilesToWrite:
    @pytest.mark.parametrize("form", [str, lambda path: path, lambda path: f"file://{path}"])
    def test_are_made_with_their_folder(self, form: Any, tmp_path: Path) -> None:
        target = writable("output_path", form(tmp_path / "new" / "out.json"))

        assert not (tmp_path / "new" / "out.json").exists()
        target.write_text("x")
        assert (tmp_path / "new" / "out.json").read_text() == "x"

    def test_through_a_link_to_a_file_that_does_not_exist_yet(self, tmp_path: Path) -> None:
        link = tmp_path / "out.json"
        link.symlink_to(tmp_path / "other.json")

        writable("output_path", str(link)).write_text("x")
        assert link.is_symlink()
        assert (tmp_path / "other.json").read_text() == "x"

    def test_by_a_url_with_a_connection(self, tmp_path: Path) -> None:
        writable("output_path", f"file://conn@{tmp_path}/out.json")

    @pytest.mark.parametrize("kind", ["folder", "pipe", "below a file"])
    def test_are_no_folders_and_no_pipes(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "it"
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.write_text("x")
            path = path / "out.json"

        with pytest.raises(InvalidInputError, match="output_path"):
            writable("output_path", str(path))
