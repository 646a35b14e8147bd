"""Small files are only as large as they can be read again."""

from __future__ import annotations

import json

import pytest

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes
from tests.support.fake import PROJECT, FakeHopsworks


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"x" * (4 * api.MB + 1), api.ResponseKind.JOURNAL),
        (b"x" * (16 * api.MB + 1), api.ResponseKind.RESOURCE),
        (json.dumps([[1]] * 700_000).encode(), api.ResponseKind.JOURNAL),
    ],
    ids=["journal", "resource", "many lists"],
)
def test_what_could_not_be_read_again_is_not_written(content: bytes, kind: api.ResponseKind) -> None:
    fake = FakeHopsworks()
    with pytest.raises(InvalidInputError, match="too many to be read again"):
        fake.run(upload_bytes(PROJECT, "Resources/a/b.json", content, kind=kind))
    assert not fake.sent


@pytest.mark.parametrize("kind", [api.ResponseKind.JOURNAL, api.ResponseKind.RESOURCE])
def test_what_can_be_read_again_is_written(kind: api.ResponseKind) -> None:
    fake = FakeHopsworks()
    fake.run(upload_bytes(PROJECT, "Resources/a/b.json", b"x" * (4 * api.MB), kind=kind))
    assert fake.sent == ["POST dataset/upload/Resources/a"]
