from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain import verification
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, RequestRefusedError
from airflow_provider_hsml.hopsworks.inference import predict
from tests.support.fake import PROJECT, FakeHopsworks, refusal, row


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
    assert verification.request_body("Request", **given) == body


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"instances": [[1]], "inputs": [1]}, "pass one of instances, inputs and payload, not instances and inputs"),
        ({"payload": {"rows": [1]}}, "exactly one of the keys"),
        ({"payload": {"instances": [1], "inputs": [1]}}, "exactly one of the keys"),
        ({"payload": [1]}, "exactly one of the keys"),
        ({"instances": []}, "at least one row"),
        ({"instances": "rows"}, "at least one row"),
    ],
)
def test_no_bodies(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        verification.request_body("Request", **given)


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

    def test_a_stopped_one_for_a_minute(self) -> None:
        fake = FakeHopsworks(row=row("Stopped"), answers=refusal(400, 250001))

        with pytest.raises(RequestRefusedError):
            self.ask(fake)
        assert fake.now == 1060

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
