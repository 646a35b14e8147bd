from __future__ import annotations

from typing import Any, ClassVar

import pytest

from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.domain import verification
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
from airflow_provider_hsml.hopsworks.errors import (
    DeploymentError,
    InvalidInputError,
    RequestRefusedError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.registry.version_files import VersionFiles
from tests.support.fake import PROJECT, FakeHopsworks, refusal, row


def test_one_read_without_a_model_is_no_script_without_one() -> None:
    with pytest.raises(UnexpectedResponseError, match="is unclear") as caught:
        predict.check_can_answer(Deployment.from_json(row(modelName=None)))

    assert caught.value.transient


@pytest.mark.parametrize(
    ("example", "body"),
    [
        ({"instances": [1, 2]}, {"instances": [1, 2]}),
        ({"inputs": [1]}, {"inputs": [1]}),
        ({"a": 1}, {"instances": [{"a": 1}]}),
        ([[1, 2], [3, 4]], {"instances": [[1, 2], [3, 4]]}),
        ([{"a": 1}], {"instances": [{"a": 1}]}),
        ([1, 2, 3], {"instances": [[1, 2, 3]]}),
        (5, {"instances": [[5]]}),
    ],
)
def test_input_examples(example: Any, body: dict[str, Any]) -> None:
    assert predict.example_body(example) == body


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({"instances": [[1]]}, {"instances": [[1]]}),
        ({"inputs": {"a": 1}}, {"instances": [{"a": 1}]}),
        ({"inputs": [1, 2]}, {"instances": [[1, 2]]}),
        ({"inputs": 3}, {"instances": [[3]]}),
        ({"payload": {"inputs": [[1]], "signature_name": "s"}}, {"inputs": [[1]], "signature_name": "s"}),
        ({}, None),
    ],
)
def test_bodies(given: dict[str, Any], body: dict[str, Any] | None) -> None:
    assert verification.request_body("x.", **given) == body


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"instances": [[1]], "inputs": [1]}, "x.instances and x.inputs: expected only one of instances, inputs"),
        ({"payload": {"rows": [1]}}, "exactly one of the keys"),
        ({"payload": {"instances": [1], "inputs": [1]}}, "exactly one of the keys"),
        ({"payload": [1]}, "x.payload: expected a mapping"),
        ({"instances": []}, "at least one row"),
        ({"instances": "rows"}, "x.instances: text as the whole value is read as JSON"),
    ],
)
def test_no_bodies(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        verification.request_body("x.", **given)


class TestPredict:
    @staticmethod
    def ask(fake: FakeHopsworks, timeout: float = 600) -> dict[str, Any]:
        return fake.run(predict.predict(PROJECT, "digits", {"instances": [1]}, timeout=timeout, clock=fake.clock))

    def test_asks_once(self) -> None:
        fake = FakeHopsworks(row=row(), answers=[7])

        assert self.ask(fake) == {"predictions": [7]}
        assert (fake.sent, fake.reads) == (["predict"], [])

    def test_not_routed_for_a_minute(self) -> None:
        fake = FakeHopsworks(row=row(), answers=refusal(400, 250008))

        with pytest.raises(RequestRefusedError):
            self.ask(fake)
        assert fake.now == 1060

    def test_idle_until_the_timeout(self) -> None:
        fake = FakeHopsworks(row=row("Idle"), answers=refusal(500, 250007))
        fake.after(200, fake.serves(["new"], [7]))

        assert self.ask(fake) == {"predictions": [7]}

    def test_a_stopped_one_for_ten_seconds(self) -> None:
        fake = FakeHopsworks(row=row("Stopped"), answers=refusal(400, 250001))

        with pytest.raises(DeploymentError, match="is stopped, so it answers no requests") as caught:
            self.ask(fake)
        assert caught.value.transient
        assert 1010 <= fake.now <= 1013

    @pytest.mark.parametrize("timeout", [0, 1, 5])
    def test_a_stopped_one_until_a_shorter_timeout(self, timeout: float) -> None:
        fake = FakeHopsworks(row=row("Stopped"), answers=refusal(400, 250001))

        with pytest.raises(DeploymentError, match=r"is stopped(.|\n)*StartDeploymentOperator"):
            self.ask(fake, timeout)
        assert fake.now <= 1000 + timeout

    def test_the_timeout_may_be_shorter(self) -> None:
        fake = FakeHopsworks(row=row("Idle"), answers=refusal(400, 250008))

        with pytest.raises(RequestRefusedError):
            self.ask(fake, timeout=5)
        assert fake.now == 1005

    @pytest.mark.parametrize("answer", [refusal(400, 250008, "no"), refusal(500, 250007, "boom"), refusal(401, 250010)])
    def test_what_the_model_says_is_final(self, answer: Any) -> None:
        fake = FakeHopsworks(row=row(), answers=answer)

        with pytest.raises(RequestRefusedError):
            self.ask(fake)
        assert fake.sent == ["predict"]


class TestRegisteredFiles:
    """The metadata files of a version: found by one listing, and as long as listed."""

    MODEL = ModelVersion("digits", 2, "digits_2", "demo", 119)
    FOLDER = "Models/digits/2"
    EXPECTED: ClassVar[dict[str, Any]] = {"instances": [[1]], "predictions": [2]}
    FILES: ClassVar[dict[str, Any]] = {"2/expected.json": EXPECTED, "2/input_example.json": [[3]]}

    def test_are_listed_and_no_file_is_asked_for_that_is_not_there(self) -> None:
        fake = FakeHopsworks()

        assert fake.run(predict.registered_probe(PROJECT, self.MODEL, VersionFiles())) is None
        assert fake.reads == [self.FOLDER] * 2, "once more, since there seems to be none"

    def test_recorded_answers_come_first(self) -> None:
        fake = FakeHopsworks(files=self.FILES)

        probe = fake.run(predict.registered_probe(PROJECT, self.MODEL, VersionFiles()))
        assert probe is not None
        assert (probe.body, probe.predictions) == ({"instances": [[1]]}, [2])
        assert fake.reads == [self.FOLDER, f"download/with_auth/{self.FOLDER}/expected.json"]

    @pytest.mark.parametrize(
        "content",
        [
            {"predictions": [2, 2]},
            {"instances": [[1], [2]], "predictions": [1]},
            {"instances": [], "predictions": []},
            {"instances": {"a": 1}, "predictions": [1]},
            [[1]],
        ],
    )
    def test_recorded_answers_that_are_garbled_are_no_missing_ones(self, content: Any) -> None:
        fake = FakeHopsworks(files={**self.FILES, "2/expected.json": content})

        with pytest.raises(UnexpectedResponseError, match="lists of the same length"):
            fake.run(predict.registered_probe(PROJECT, self.MODEL, VersionFiles()))

    @pytest.mark.parametrize("name", ["expected.json", "input_example.json"])
    @pytest.mark.parametrize("answer", [Answer(200, b""), Answer(200, b"<html>"), Answer(200, b"{}"), Answer(404, b"")])
    def test_of_another_size_or_without_json_are_no_missing_ones(self, name: str, answer: Answer) -> None:
        files = {f"2/{name}": self.FILES[f"2/{name}"]}
        fake = FakeHopsworks(files=files, faults={f"download/with_auth/{self.FOLDER}/{name}": [answer]})

        with pytest.raises(UnexpectedResponseError):
            fake.run(predict.registered_probe(PROJECT, self.MODEL, VersionFiles()))

    @pytest.mark.parametrize("name", ["expected.json", "input_example.json"])
    def test_that_are_listed_and_not_found_are_no_missing_ones(self, name: str) -> None:
        """Else a version would be verified by less than was recorded for it."""
        files = {f"2/{name}": self.FILES[f"2/{name}"]}
        fault = {f"download/with_auth/{self.FOLDER}/{name}": [refusal(400, 110018)]}

        with pytest.raises(UnexpectedResponseError, match="the file is listed, and does not exist"):
            FakeHopsworks(files=files, faults=fault).run(predict.registered_probe(PROJECT, self.MODEL, VersionFiles()))

    @pytest.mark.parametrize("answer", [Answer(200, b""), Answer(204, b""), Answer(200, b"null"), Answer(404, b"")])
    def test_a_listing_that_is_not_one(self, answer: Answer) -> None:
        fake = FakeHopsworks(files=self.FILES, faults={self.FOLDER: [answer]})

        with pytest.raises(UnexpectedResponseError):
            fake.run(predict.recorded_probe(PROJECT, self.MODEL, VersionFiles()))
