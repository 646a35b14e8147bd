"""The listing of a version's files."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.api import Page
from airflow_provider_hsml.hopsworks.api.files import FileEntry
from airflow_provider_hsml.hopsworks.flow import drive
from airflow_provider_hsml.hopsworks.registry.version_files import VersionFiles
from tests.support.arrivals import V2
from tests.support.fake import PROJECT

LISTING = Page(
    [FileEntry("expected.json", is_folder=False, size=10, modified=""), FileEntry("Files", True, None, "")], 2
)


@pytest.mark.parametrize(
    ("answers", "names"),
    [([None, LISTING], ["expected.json"]), ([Page([], 0), LISTING], ["expected.json"]), ([None, None], [])],
)
def test_one_answer_that_there_is_no_file_is_not_enough(answers: list[Any], names: list[str]) -> None:
    left, files = iter(answers), VersionFiles()

    for _ in range(2):  # The second time without a request.
        assert list(drive(files.sizes(PROJECT, V2), lambda _call: next(left), lambda _seconds: None)) == names
