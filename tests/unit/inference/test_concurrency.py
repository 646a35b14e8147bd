"""Fewer requests at a time when a deployment is overloaded, and more again when it is not."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import (
    InferenceError,
    InvalidInputError,
    NoResponseError,
    RequestRefusedError,
)
from airflow_provider_hsml.hopsworks.inference.concurrency import Lane, Limit, is_overload
from tests.support.fake import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

CALL = api.predict(PROJECT, "digits", {"instances": [1]})


def answer(limit: Limit, count: int, seconds: float = 0.01) -> None:
    for _ in range(count):
        limit.answered(seconds)


class TestLimit:
    def test_it_is_halved_when_the_deployment_is_overloaded_and_rises_again(self) -> None:
        limit = Limit(16)

        limit.overloaded()
        assert limit.now == 8
        limit.overloaded()  # A request that was sent before.
        assert limit.now == 8
        answer(limit, 1)
        limit.overloaded()
        assert limit.now == 4
        answer(limit, 5000)
        assert limit.now == 16

    def test_it_falls_when_the_latency_doubles(self) -> None:
        limit = Limit(16)

        answer(limit, 40, 0.01)
        assert limit.now == 16
        answer(limit, 40, 0.019)
        assert limit.now == 16
        answer(limit, 40, 0.03)
        assert limit.now == 12
        answer(limit, 4000, 0.03)
        assert limit.now == 16

    def test_it_is_never_none(self) -> None:
        limit = Limit(1)
        for _ in range(5):
            limit.overloaded()
            answer(limit, 1)

        assert limit.now == 1


class Connection:
    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def send(self, _call: Any) -> Any:
        return self.act()

    def close(self) -> None:
        raise NotImplementedError


def ended() -> None:
    raise KeyError("ended")


class TestLane:
    def test_no_more_requests_at_a_time_than_the_limit(self) -> None:
        limit, busy, most = Limit(8), 0, 0
        limit.overloaded()
        answer(limit, 1)
        limit.overloaded()
        lock = threading.Lock()

        def act() -> str:
            nonlocal busy, most
            with lock:
                busy += 1
                most = max(most, busy)
            time.sleep(0.005)
            with lock:
                busy -= 1
            return "x"

        def work() -> None:
            lane = Lane(Connection(act), PROJECT, limit, lambda: None)
            for _ in range(10):
                assert lane.send(CALL) == "x"

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 2

    def test_a_wait_ends_with_the_work(self) -> None:
        limit = Limit(1)
        limit.enter(lambda: None)

        lane = Lane(Connection(lambda: 1), PROJECT, limit, ended)
        with pytest.raises(KeyError, match="ended"):
            lane.send(CALL)
        # What Hopsworks itself is asked is not limited.
        read: Any = api.get_deployment(PROJECT, "digits")
        assert lane.send(read) == 1

    def test_errors_are_passed_on(self) -> None:
        def fail() -> Any:
            raise NoResponseError("timeout")

        limit = Limit(4)

        for now in (2, 2):  # The place of a request that failed is free again.
            with pytest.raises(NoResponseError, match="timeout"):
                Lane(Connection(fail), PROJECT, limit, ended).send(CALL)
            assert limit.now == now


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (NoResponseError("timeout"), True),
        (NoResponseError("refused", sent=False), False),
        *((InferenceError("ask", status=status, text="x"), True) for status in (408, 429, 503, 504)),
        *((InferenceError("ask", status=status, text="x"), False) for status in (400, 404, 500)),
        (RequestRefusedError("ask", status=500, code=250007, text="no healthy upstream"), True),
        (RequestRefusedError("ask", status=500, code=250007, text="ValueError"), False),
        (RequestRefusedError("ask", status=400, code=250008, text="ValueError"), False),
        (InvalidInputError("x"), False),
    ],
)
def test_what_shows_an_overload(error: Any, is_one: bool) -> None:
    assert is_overload(error) is is_one
