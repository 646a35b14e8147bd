"""The end of a version's training data: a file that cannot be read is no missing one."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
from airflow_provider_hsml.hopsworks.errors import UnexpectedResponseError
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.registry.trained_until import read_trained_until
from airflow_provider_hsml.hopsworks.registry.version_files import VersionFiles
from tests.support.fake import PROJECT, FakeHopsworks, refusal

PATH = "Models/digits/1/airflow.json"


def read(content: bytes | None, size: int | None = None) -> datetime | None:
    """Read the file of a version, listed with a size."""
    fake = FakeHopsworks()
    if content is not None:
        row = {"attributes": {"name": "airflow.json", "size": len(content) if size is None else size}}
        listing = {"items": [row], "count": 1}
        fake.faults = {PATH.rpartition("/")[0]: [Answer(200, json.dumps(listing).encode())]}
        fake.faults[f"download/with_auth/{PATH}"] = [Answer(200, content)]
    return fake.run(read_trained_until(PROJECT, ModelVersion("digits", 1, "digits_1", "demo", 119), VersionFiles()))


def test_a_time() -> None:
    assert read(b'{"trained_until": "2026-11-29T02:00:00+02:00"}') == datetime(2026, 11, 29, tzinfo=UTC)


def test_no_file() -> None:
    assert read(None) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"trained_until": 5}',
        b'{"trained_until": "yesterday"}',
        b'{"trained_until": "0001-01-01T00:00:00+23:59"}',
        b'{"trained_until": "\\ud800"}',
    ],
)
def test_a_file_that_cannot_be_read(content: bytes) -> None:
    with pytest.raises(UnexpectedResponseError):
        read(content)


def test_a_file_of_another_size_than_listed() -> None:
    with pytest.raises(UnexpectedResponseError, match="listed with 5"):
        read(b'{"trained_until": "2026-11-29"}', size=5)


def test_a_file_that_is_listed_and_not_found() -> None:
    fake = FakeHopsworks(files={PATH: {"trained_until": "2026-11-29"}})
    fake.faults = {
        "Models/digits/1": [
            Answer(200, b'{"items": [{"attributes": {"name": "airflow.json", "size": 5}}], "count": 1}')
        ],
        f"download/with_auth/{PATH}": [refusal(400, 110018)],
    }

    with pytest.raises(UnexpectedResponseError, match="the file is listed, and does not exist"):
        fake.run(read_trained_until(PROJECT, ModelVersion("digits", 1, "digits_1", "demo", 119), VersionFiles()))


def test_a_version_is_listed_once() -> None:
    fake, files = FakeHopsworks(), VersionFiles()
    model = ModelVersion("digits", 1, "digits_1", "demo", 119)

    assert fake.run(read_trained_until(PROJECT, model, files)) is None
    assert fake.run(predict.registered_probe(PROJECT, model, files)) is None
    assert fake.reads == ["Models/digits/1"] * 2, "once more, since it seems to have no files"
