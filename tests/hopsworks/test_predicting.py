from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks import predicting
from airflow_provider_hsml.hopsworks.errors import InvalidInput, Refused
from airflow_provider_hsml.hopsworks.predicting import Likeness, Probe

from .fake import PROJECT, FakeHopsworks, refusal, row


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2], [1, 2], True),
        ([1, 2], [1, 2, 3], False),
        ([1.0], [1.0000001], True),
        ([1.0], [1.001], False),
        ([1], [1.0], True),
        ([1], [2], False),
        (["a"], ["a"], True),
        (["a"], ["b"], False),
        (["1"], [1], False),
        ([True], [1], False),
        ([True], [1.0], False),
        ([{"label": 3, "score": 0.1}], [{"label": 3, "score": 0.1000000001}], True),
        ([{"label": 3}], [{"score": 3}], False),
        ([float("nan")], [float("nan")], True),
        ([[0.1, 0.9]], [[0.1, 0.8]], False),
        (None, [1], False),
        (1e12, 1e12 + 1, True),
    ],
)
def test_same(one: Any, other: Any, expected: bool) -> None:
    assert predicting.same(one, other) is expected
    assert predicting.same(other, one) is expected


@pytest.mark.parametrize(
    ("answer", "champion", "expected"),
    [
        ([2], [1], Likeness.CHALLENGER),
        ([1], [1], Likeness.CHAMPION),
        ([3], [1], Likeness.NEITHER),
        ([2], [2], Likeness.UNKNOWN),
        ([3], [2], Likeness.NEITHER),
        ([2], None, Likeness.CHALLENGER),
        ([1], None, Likeness.NEITHER),
    ],
)
def test_likeness(answer: list[int], champion: list[int] | None, expected: Likeness) -> None:
    before = None if champion is None else {"predictions": champion}

    assert predicting.likeness(Probe({"instances": [0]}, [2]), {"predictions": answer}, before) is expected


def test_without_a_recorded_answer_nothing_is_known() -> None:
    assert predicting.likeness(Probe({"instances": [0]}), {"predictions": [1]}, None) is Likeness.UNKNOWN


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
    assert predicting.example_body(example) == body


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
    assert predicting.request_body("digits", **given) == body


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"instances": [[1]], "inputs": [1]}, "give one of instances, inputs and payload, not instances and inputs"),
        ({"payload": {"rows": [1]}}, "exactly one of the keys"),
        ({"payload": {"instances": [1], "inputs": [1]}}, "exactly one of the keys"),
        ({"payload": [1]}, "exactly one of the keys"),
        ({"instances": []}, "at least one row"),
        ({"instances": "rows"}, "at least one row"),
    ],
)
def test_no_bodies(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        predicting.request_body("digits", **given)


class TestPredict:
    @staticmethod
    def ask(fake: FakeHopsworks, timeout: float = 600) -> dict[str, Any]:
        return fake.run(predicting.predict(PROJECT, "digits", {"instances": [1]}, timeout=timeout, clock=fake.clock))

    def test_asks_once(self) -> None:
        fake = FakeHopsworks(row=row(), answers=[7])

        assert self.ask(fake) == {"predictions": [7]}
        assert (fake.sent, fake.reads) == (["predict"], [])

    def test_not_routed_for_a_minute(self) -> None:
        fake = FakeHopsworks(row=row(), answers=refusal(400, 250008))

        with pytest.raises(Refused):
            self.ask(fake)
        assert fake.now == 1060

    def test_idle_until_the_timeout(self) -> None:
        fake = FakeHopsworks(row=row("Idle"), answers=refusal(500, 250007))
        fake.after(200, fake.serves(["new"], [7]))

        assert self.ask(fake) == {"predictions": [7]}

    def test_a_stopped_one_for_a_minute(self) -> None:
        fake = FakeHopsworks(row=row("Stopped"), answers=refusal(400, 250001))

        with pytest.raises(Refused):
            self.ask(fake)
        assert fake.now == 1060

    def test_the_timeout_may_be_shorter(self) -> None:
        fake = FakeHopsworks(row=row("Idle"), answers=refusal(400, 250008))

        with pytest.raises(Refused):
            self.ask(fake, timeout=5)
        assert fake.now == 1005

    @pytest.mark.parametrize("answer", [refusal(400, 250008, "no"), refusal(500, 250007, "boom"), refusal(401, 250010)])
    def test_what_the_model_says_is_final(self, answer: Any) -> None:
        fake = FakeHopsworks(row=row(), answers=answer)

        with pytest.raises(Refused):
            self.ask(fake)
        assert fake.sent == ["predict"]
