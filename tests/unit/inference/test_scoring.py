"""Rows through a deployment: their order, what is sent again, what is about a row, and what is an outage."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.api import Answer, Project
from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    InferenceError,
    NoResponseError,
    RequestRefusedError,
    UnexpectedResponseError,
    VerificationError,
)
from airflow_provider_hsml.hopsworks.inference import predict, scoring
from airflow_provider_hsml.hopsworks.inference.concurrency import Limit
from airflow_provider_hsml.hopsworks.inference.ingress import Ingress
from tests.support.fake import PROJECT, refusal, row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.hopsworks.api import Call


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "BETWEEN_PROBES", 0.001)
    monkeypatch.setattr(predict, "ROUTE_BUDGET", 0.2)
    monkeypatch.setattr(scoring, "OUTAGE_SECONDS", 0.2)
    monkeypatch.setattr(scoring, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(scoring, "_BETWEEN_WAITS", 0.01)


def doubled(rows: list[Any]) -> Any:
    return [2 * one for one in rows]


@dataclass
class Deployment:
    """A deployment, and all connections to it."""

    answer: Callable[[list[Any]], Any] = doubled
    """Gives predictions, an ``Answer``, or an error."""
    asked: list[list[Any]] = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    opened: int = 0
    closed: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def connect(self, _sleep: Callable[[float], None]) -> Connection:
        with self.lock:
            self.opened += 1
        return Connection(self)

    def score(self, rows: Any, *, project: Project = PROJECT, timeout: float = 30, **how: Any) -> list[scoring.Chunk]:
        target = scoring.Target(project, "digits", timeout=timeout)
        return list(scoring.score(rows, target, self.connect, **how))


@dataclass
class Connection:
    deployment: Deployment

    def send(self, call: Call[Any]) -> Any:
        it = self.deployment
        if call.method == "GET":
            return call.outcome(Answer(200, json.dumps(row()).encode()))
        with it.lock:
            it.asked.append(rows := json.loads(call.body)["instances"])
            it.busy += 1
            it.most_busy = max(it.most_busy, it.busy)
        try:
            given = it.answer(rows)
        finally:
            with it.lock:
                it.busy -= 1
        if isinstance(given, HopsworksError):
            raise given
        return call.outcome(given if isinstance(given, Answer) else Answer(200, dumped(given)))

    def close(self) -> None:
        with self.deployment.lock:
            self.deployment.closed += 1


def dumped(predictions: Any) -> bytes:
    return json.dumps({"predictions": predictions}).encode()


def predictions(chunks: list[scoring.Chunk]) -> list[Any]:
    return [one for chunk in chunks for one in chunk.predictions]


def refused(chunks: list[scoring.Chunk]) -> dict[int, str]:
    return {number: reason for chunk in chunks for number, reason in chunk.refused.items()}


class TestOrder:
    def test_predictions_come_in_the_order_of_the_rows(self) -> None:
        def late(rows: list[Any]) -> Any:
            time.sleep(0.02 if rows[0] % 20 == 0 else 0.001)
            return doubled(rows)

        deployment = Deployment(late)
        chunks = deployment.score(range(95), chunk_rows=10)

        assert predictions(chunks) == list(range(0, 190, 2))
        assert [chunk.first for chunk in chunks] == list(range(0, 100, 10))
        assert [len(chunk.latencies) for chunk in chunks] == [1] * 10
        assert all(0 < seconds < 1 for chunk in chunks for seconds in chunk.latencies)
        assert deployment.most_busy == deployment.opened == deployment.closed == scoring.AT_THE_PROXY

    def test_latencies_are_those_of_requests(self) -> None:
        """The wait for other requests, and attempts that failed, are not part of them."""
        faults = [refusal(400, 250008)] * 3

        def slow(rows: list[Any]) -> Any:
            time.sleep(0.005)
            return faults.pop() if faults else doubled(rows)

        deployment = Deployment(slow)
        limit = Limit(8)
        limit.now = 1
        target, begun = scoring.Target(PROJECT, "digits"), time.monotonic()
        chunks = list(
            scoring.score_chunks(((row, ["1"]) for row in range(24)), target, deployment.connect, limit=limit)
        )
        took = time.monotonic() - begun

        assert deployment.opened == 8
        assert deployment.most_busy == 1
        latencies = [seconds for chunk in chunks for seconds in chunk.latencies]
        assert len(latencies) == 24
        assert sum(latencies) < took

    def test_an_overload_lowers_the_number_of_requests_at_a_time(self) -> None:
        """Of each caller: a table, batches, a comparison."""
        together, first = threading.Barrier(8, timeout=30), set(range(8))
        busy: list[int] = []

        def overloaded(rows: list[Any]) -> Any:
            if rows[0] in first:
                first.remove(rows[0])
                together.wait()
                if rows == [0]:
                    return InferenceError("ask", status=429, text="slow down", retry_after=0.001)
            if rows[0] > 50:
                busy.append(deployment.busy)
            time.sleep(0.001)
            return doubled(rows)

        deployment = Deployment(overloaded)

        assert predictions(deployment.score(range(150), chunk_rows=1, concurrency=8)) == list(range(0, 300, 2))
        assert deployment.most_busy == 8
        assert max(busy) <= 4

    def test_rows_are_read_as_they_are_sent(self) -> None:
        read = 0

        def endless() -> Iterator[int]:
            nonlocal read
            while True:
                yield (read := read + 1)

        deployment = Deployment()
        target = scoring.Target(PROJECT, "digits")
        chunks = scoring.score(endless(), target, deployment.connect, chunk_rows=10, concurrency=2)
        for _ in range(20):
            next(chunks)
        chunks.close()

        assert read <= (20 + 2 * scoring._READY) * 10
        until(lambda: deployment.closed == deployment.opened)

    def test_no_rows(self) -> None:
        deployment = Deployment()

        assert deployment.score([]) == []
        assert deployment.opened == 0

    def test_more_at_a_time_at_the_ingress(self) -> None:
        project = Project(119, "demo", ingress=Ingress("http://127.0.0.1:1"))

        assert scoring.Target(project, "digits").concurrency == scoring.AT_THE_INGRESS
        assert scoring.Target(PROJECT, "digits").concurrency == scoring.AT_THE_PROXY


PASSING: dict[str, Any] = {
    "not routed": refusal(400, 250008),
    "no instance": refusal(500, 250007, "no healthy upstream"),
    "cannot be reached": refusal(400, 250001),
    "just started": refusal(500, 120000),
    "a proxy's page": Answer(503, b"<html>", {"retry-after": "0"}),
    "no answer": NoResponseError("no answer"),
    "nobody there": NoResponseError("nobody", sent=False),
    "rate limited": InferenceError("ask", status=429, text="slow down", retry_after=0.01),
    "rate limited by Hopsworks": RequestRefusedError("ask", status=429, code=1, text="slow down"),
    "timed out at the ingress": InferenceError("ask", status=408, text="late"),
    "not routed at the ingress": InferenceError("ask", status=404, text=""),
    "no upstream at the ingress": InferenceError("ask", status=503, text="no healthy upstream"),
    "no feature store": refusal(500, 250007, '{"code": "FEATURE_STORE_UNAVAILABLE"}'),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
class TestWhatPasses:
    def test_is_sent_again(self, fault: Any) -> None:
        faults = [fault, fault]
        deployment = Deployment(lambda rows: faults.pop() if faults else doubled(rows))

        chunks = deployment.score(range(40), chunk_rows=10)

        assert predictions(chunks) == list(range(0, 80, 2))
        assert refused(chunks) == {}
        assert len(deployment.asked) == 6

    def test_refuses_no_row_when_it_stays(self, fault: Any) -> None:
        answered: list[Any] = []

        def fails_later(rows: list[Any]) -> Any:
            if rows[0] >= 20:
                return fault
            answered.extend(rows)
            return doubled(rows)

        with pytest.raises(HopsworksError):
            Deployment(fails_later).score(range(100), chunk_rows=10, concurrency=1, timeout=0.3)
        assert answered == list(range(20))


REFUSALS: dict[str, Any] = {
    "by the model": refusal(400, 250008, "no such country"),
    "by the model at the ingress": InferenceError("ask", status=400, text="no such country"),
    "by the ingress, for its size": InferenceError("ask", status=413, text="no such country"),
    "by its failure": refusal(500, 250007, "no such country"),
    "by its failure at the ingress": InferenceError("ask", status=500, text="no such country"),
    "by the schema": refusal(400, 250008, "SCHEMA_VALIDATION: no such country"),
    "without features": refusal(400, 250008, "ENTITY_NOT_FOUND: no such country"),
}


@pytest.mark.parametrize("refusal_", REFUSALS.values(), ids=REFUSALS.keys())
class TestRefusedRows:
    @pytest.mark.parametrize("numbers", [[0], [13, 14, 37], [0, 99], list(range(0, 100, 7))], ids=str)
    def test_are_found_and_counted_with_the_reason(self, refusal_: Any, numbers: list[int]) -> None:
        bad = set(numbers)
        deployment = Deployment(lambda rows: refusal_ if bad & set(rows) else doubled(rows))

        chunks = deployment.score(range(100), chunk_rows=25)

        assert set(refused(chunks)) == bad
        assert all("no such country" in reason for reason in refused(chunks).values())
        assert predictions(chunks) == [None if one in bad else 2 * one for one in range(100)]
        assert all(Counter(one for rows in deployment.asked for one in rows)[one] <= 30 for one in bad)

    def test_of_a_deployment_that_answers_none(self, refusal_: Any) -> None:
        deployment = Deployment(lambda _rows: refusal_)

        with pytest.raises(HopsworksError, match="rows were refused, and none was answered") as caught:
            deployment.score(range(10_000), chunk_rows=100)
        assert "no such country" in str(caught.value)
        assert len(deployment.asked) < 1500, "each of the rows would take 20,000"

    def test_of_few_rows_of_which_none_is_answered(self, refusal_: Any) -> None:
        with pytest.raises(HopsworksError, match="The first 3 rows were refused, and none was answered"):
            Deployment(lambda _rows: refusal_).score(range(3))


@pytest.mark.parametrize("by", ["by its failure", "by its failure at the ingress"])
def test_a_model_that_fails_with_every_row_from_some_time_on_refuses_none(by: str) -> None:
    deployment = Deployment(lambda rows: REFUSALS[by] if rows[0] >= 20 or len(deployment.asked) > 2 else doubled(rows))

    with pytest.raises(HopsworksError, match="no such country"):
        deployment.score(range(1000), chunk_rows=10, concurrency=1)
    assert {tuple(rows) for rows in deployment.asked if len(rows) != 10} == {(0,)}, "the chunk is not halved"


@pytest.mark.parametrize("by", ["by its failure", "by its failure at the ingress"])
@pytest.mark.parametrize("answers_first", [False, True])
def test_a_model_that_fails_for_a_while_refuses_no_row(by: str, *, answers_first: bool) -> None:
    since = time.monotonic()

    def answer(rows: list[Any]) -> Any:
        is_first = answers_first and len(deployment.asked) == 1
        return REFUSALS[by] if time.monotonic() < since + 0.1 and not is_first else doubled(rows)

    deployment = Deployment(answer)
    chunks = deployment.score(range(400), chunk_rows=40)

    assert predictions(chunks) == list(range(0, 800, 2))
    assert refused(chunks) == {}


@pytest.mark.parametrize("answer", [b"[1, 2]", b'{"predictions": [1]}', b'{"predictions": 3}', b'"fine"', b"null"])
def test_an_answer_that_is_not_one_prediction_a_row(answer: bytes) -> None:
    with pytest.raises(VerificationError, match=r"asked for 10 rows, and its answer has"):
        Deployment(lambda _rows: Answer(200, answer)).score(range(10))


def test_a_list_alone_and_outputs_are_predictions_too() -> None:
    assert predictions(Deployment(lambda rows: Answer(200, json.dumps(rows).encode())).score([1, 2])) == [1, 2]
    outputs = Answer(200, b'{"outputs": [[0.5, 0.5]]}')
    assert predictions(Deployment(lambda _rows: outputs).score([1])) == [[0.5, 0.5]]


def test_a_prediction_without_a_value_counts_as_refused() -> None:
    found = Deployment(lambda _rows: [1.5, float("nan"), None, [0.1, float("inf")], "no"]).score(range(5))

    assert predictions(found) == [1.5, None, None, None, "no"]
    assert set(refused(found)) == {1, 2, 3}
    assert set(refused(found).values()) == {scoring._NO_VALUE}


def test_a_response_that_is_too_large_is_asked_for_in_parts() -> None:
    too_large = UnexpectedResponseError("too large", status=200)
    too_large.transient = False
    deployment = Deployment(lambda rows: too_large if len(rows) > 3 else doubled(rows))

    assert predictions(deployment.score(range(20))) == list(range(0, 40, 2))
    with pytest.raises(UnexpectedResponseError):
        Deployment(lambda _rows: too_large).score(range(20))


def test_what_the_key_may_not_do_is_no_refusal_of_rows() -> None:
    deployment = Deployment(lambda _rows: refusal(403, 320004))

    with pytest.raises(RequestRefusedError):
        deployment.score(range(1000), chunk_rows=100, concurrency=1)
    assert len(deployment.asked) <= scoring._READY, "only what was already handed to the thread"


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class TestTheEnd:
    def test_a_killed_task_leaves_no_thread_and_no_connection(self) -> None:
        held = threading.Event()
        deployment = Deployment(lambda rows: held.wait(10) and doubled(rows))
        waits = 0

        def killed() -> None:
            nonlocal waits
            waits += 1
            if waits == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            deployment.score(range(100), chunk_rows=1, on_wait=killed)
        held.set()

        until(lambda: deployment.closed == deployment.opened == scoring.AT_THE_PROXY)
        until(lambda: not [one for one in threading.enumerate() if one.name.startswith("hsml-scoring")])
        assert len(deployment.asked) == scoring.AT_THE_PROXY, "what was waiting was never sent"

    def test_a_thread_that_waits_for_the_next_attempt_ends_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(predict, "BETWEEN_PROBES", 60.0)
        deployment = Deployment(lambda rows: PASSING["not routed"] if rows[0] else refusal(403, 320004))

        begun = time.monotonic()
        with pytest.raises(RequestRefusedError):
            deployment.score(range(10), chunk_rows=1)
        until(lambda: deployment.closed == deployment.opened)
        assert time.monotonic() - begun < 10

    def test_the_caller_is_called_while_it_waits_and_after_each_chunk(self) -> None:
        called = 0

        def call() -> None:
            nonlocal called
            called += 1

        def slow(rows: list[Any]) -> Any:
            time.sleep(0.1)
            return doubled(rows)

        Deployment(slow).score(range(2), chunk_rows=1, concurrency=1, on_wait=call)
        assert called > 4
