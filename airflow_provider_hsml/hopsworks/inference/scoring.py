"""
Score rows: send them through a deployment in chunks, several at a time, and give the predictions in the rows' order.

Four rules decide what an answer means:

1. A request that did not reach the model, or that was answered with 429, is sent again: rows are sent at least once.
2. A refusal is about rows. Its chunk is halved until the rows at fault stand alone; they are counted with the reason.
3. A failure inside of the model (5xx) is about rows only while another row is answered. Else it is an outage.
4. A deployment that answers no row at all has not refused all rows: its error is raised. Before that, it is asked for
   a few rows from elsewhere, where the caller can give any: bad rows may stand together.

The work is done in threads. HTTP is handed in: each thread has a connection of its own. A row is encoded once, before
the threads: they put the texts of rows together, also where a chunk is halved.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain.batch_options import CHUNK_ROWS
from airflow_provider_hsml.hopsworks.domain.judge import predictions_of
from airflow_provider_hsml.hopsworks.domain.plain import as_json, finite
from airflow_provider_hsml.hopsworks.errors import HopsworksError, VerificationError
from airflow_provider_hsml.hopsworks.flow import Sleep, drive, steady

from . import predict
from .concurrency import Lane, Limit
from .refusals import is_crash, is_passing, is_too_large_answer, none_answered, reason_of, refuses_rows
from .tally import Outage, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.flow import Clock

    from .concurrency import Connection

AT_THE_PROXY, AT_THE_INGRESS = 4, 16
"""Requests at a time. Hopsworks' proxy keeps about ten connections to models for all of its users."""
MOST_SUSPECTS = 20
"""Rows of a chunk with which a model may fail, before it has answered any, until the chunk is left for later."""
_SAMPLE = 10
"""Rows of a chunk by which it is found out whether a model answers at all."""
OUTAGE_SECONDS = 60.0
"""Seconds for which a model may fail with every row, or limit the rate, before its error is raised."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 8.0
"""Seconds between two attempts while a model fails with every row, or limits the rate."""
_READY = 4
"""Chunks on the way for each request at a time: being sent, waiting for it, or for their turn to be yielded."""
_BETWEEN_WAITS = 5.0
"""Seconds between two calls of ``on_wait`` while no chunk is complete."""
_NO_VALUE = "the answer is null, or holds a value that JSON cannot hold, such as NaN"


@dataclass(frozen=True, slots=True)
class Target:
    """The deployment that rows are sent to."""

    project: Project
    name: str
    """The deployment's name."""
    key: str = "instances"
    """The key of the rows in a request: ``instances`` or ``inputs``."""
    timeout: float = 600.0
    """Seconds for one chunk with its retries: an Idle deployment has to wake up within them."""
    clock: Clock = field(default_factory=steady)
    request_key: str = ""
    """What makes requests for the same rows the same, also in a retry; empty: they have no id."""
    most_splits: int | None = None
    """Requests that may be cut in two because of their rows, in the whole work; None: any number."""
    answered_row: Sequence[str] = ()
    """A row that was answered in earlier work, as JSON, alone in a list; empty if there is none."""
    elsewhere: Callable[[], Sequence[str]] = tuple
    """Gives a few rows from other places of the input, as JSON: none is answered only if none of these is. Called in
    any thread."""

    @property
    def concurrency(self) -> int:
        """The requests that its route takes at a time."""
        return AT_THE_PROXY if self.project.ingress is None else AT_THE_INGRESS

    def request_id(self, first: int, count: int) -> str | None:
        """
        Return the id of a request, which is the same when the rows are sent again.

        :param first: the number of its first row
        :param count: the number of its rows
        """
        if not self.request_key:
            return None
        return hashlib.sha256(f"{self.request_key}/{first}/{count}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The predictions for some rows that follow each other."""

    first: int
    """The number of its first row, from 0."""
    predictions: list[Any]
    """One for each row; None where there is none."""
    refused: dict[int, str]
    """The number of each row without a prediction, and the reason."""
    latencies: list[float]
    """Seconds of each request that was answered, without failed attempts before it."""


def score(
    rows: Iterable[Any],
    target: Target,
    connect: Callable[[Callable[[float], None]], Connection],
    *,
    chunk_rows: int = CHUNK_ROWS,
    concurrency: int | None = None,
    on_wait: Callable[[], object] = lambda: None,
) -> Generator[Chunk, None, None]:
    """
    Yield the predictions for rows, in the order of the rows.

    Rows are read as they are sent, so that there may be any number of them. Closing the iterator ends the work.

    :param rows: each as the model takes it
    :param target: the deployment
    :param connect: makes the connection of one thread; called with a function that sleeps for some seconds and ends
        the connection's retries when the work ends
    :param chunk_rows: rows of a request
    :param concurrency: the most requests at a time, fewer while the deployment is overloaded; None: as many as the
        route takes
    :param on_wait: called in this thread after each chunk, and every few seconds while none is complete
    :raises HopsworksError: the deployment does not answer, or answers none of the rows
    """
    limit = None if concurrency is None else Limit(concurrency)
    return score_chunks(_encoded_chunks(rows, chunk_rows), target, connect, limit=limit, on_wait=on_wait)


def score_chunks(
    chunks: Iterator[tuple[int, Sequence[str]]],
    target: Target,
    connect: Callable[[Callable[[float], None]], Connection],
    *,
    limit: Limit | None = None,
    on_wait: Callable[[], object] = lambda: None,
) -> Generator[Chunk, None, None]:
    """
    Yield the predictions for chunks of rows, in the order of the chunks, as ``score`` does.

    :param chunks: the number of the first row of each, and its rows as JSON; one without rows is not sent
    :param target: the deployment
    :param connect: as for ``score``
    :param limit: of the requests at a time, which the caller can read; None: as many as the route takes
    :param on_wait: as for ``score``
    :raises HopsworksError: the deployment does not answer, or answers none of the rows
    """
    limit = limit or Limit(target.concurrency)
    most = limit.most
    work = _Work(target, connect, limit)
    sent: deque[Future[Chunk]] = deque()
    executor = ThreadPoolExecutor(most, thread_name_prefix="hsml-scoring")
    try:
        while True:
            # More are ready than are sent at a time, so that no thread waits for this one.
            for first, some in itertools.islice(chunks, _READY * most - len(sent)):
                sent.append(executor.submit(work.score, first, some))
            if not sent:
                break
            while not wait([sent[0]], timeout=_BETWEEN_WAITS).done:
                on_wait()
            yield sent.popleft().result()
            on_wait()
        work.tally.check_answered()
    finally:
        work.end()
        executor.shutdown(wait=not sent, cancel_futures=True)
        work.close()


def _lazily(rows: Callable[[], Sequence[str]]) -> Iterator[str]:
    yield from rows()


def _encoded_chunks(rows: Iterable[Any], size: int) -> Iterator[tuple[int, list[str]]]:
    iterator, first = iter(rows), 0
    while some := [as_json(row) for row in itertools.islice(iterator, size)]:
        yield first, some
        first += len(some)


class _Ended(Exception):
    """The work has ended while a thread was waiting."""


class _Work:
    """Scores chunks, in any thread."""

    def __init__(self, target: Target, connect: Callable[[Callable[[float], None]], Connection], limit: Limit) -> None:
        self.tally = Tally(target.answered_row, target.most_splits)
        self._target = target
        self._connect = connect
        self._limit = limit
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._idle: list[Lane] = []

    def end(self) -> None:
        """End the waits of all threads."""
        self._ended.set()

    def close(self) -> None:
        """Close the connections. One that is in use is closed by its thread."""
        with self._lock:
            lanes, self._idle = self._idle, []
        for lane in lanes:
            lane.connection.close()

    def score(self, first: int, rows: Sequence[str]) -> Chunk:
        """
        Score a chunk.

        :param first: the number of its first row
        :raises HopsworksError: the deployment does not answer
        """
        lane = self._take()
        try:
            return drive(self._score(lane, first, rows), lane.send, self._sleep)
        except Outage as outage:
            raise outage.error from None
        finally:
            self._give_back(lane)

    def _take(self) -> Lane:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        project = self._target.project
        own = replace(project, ingress=copy.deepcopy(project.ingress))
        return Lane(self._connect(self._sleep), own, self._limit, lambda: self._sleep(0))

    def _give_back(self, lane: Lane) -> None:
        with self._lock:
            if not self._ended.is_set():
                self._idle.append(lane)
                return
        lane.connection.close()

    def _sleep(self, seconds: float) -> None:
        if self._ended.wait(seconds):
            raise _Ended

    async def _score(self, lane: Lane, first: int, rows: Sequence[str]) -> Chunk:
        while True:
            chunk, suspect = await self._halved(lane, first, rows, may_suspect=not self.tally.answered_row)
            if suspect is None:
                return chunk
            # The model failed with some rows before it had answered any: whether that is about them, a later try tells.
            await self._until_answering(lane, rows, suspect)

    async def _halved(
        self, lane: Lane, first: int, rows: Sequence[str], *, may_suspect: bool
    ) -> tuple[Chunk, HopsworksError | None]:
        """
        Request the predictions for a chunk, and halve it where its rows are refused.

        :param may_suspect: whether no row was answered so far, so that a failure of the model says nothing about rows
        :return: the chunk, and the last failure that says nothing; with one, the chunk has to be tried again
        """
        chunk = Chunk(first, [None] * len(rows), {}, [])
        ranges, suspect, suspects = [(0, len(rows))] if rows else [], None, 0
        while ranges and suspects < MOST_SUSPECTS:
            begin, end = ranges.pop()
            try:
                predictions, seconds = await self._ask(lane, rows[begin:end], first + begin)
            except HopsworksError as error:
                if end - begin > 1 and (refuses_rows(error) or is_too_large_answer(error)):
                    self.tally.split(error)
                    middle = (begin + end) // 2
                    ranges += [(middle, end), (begin, middle)]
                    continue
                if not refuses_rows(error):
                    raise
                if may_suspect and is_crash(error):
                    suspect, suspects = error, suspects + 1
                    continue
                chunk.refused[first + begin] = reason_of(error)
                if self.tally.refused(error):
                    await self._look_elsewhere(lane)
                    self.tally.check_answered()
            else:
                self.tally.answered(rows[begin])
                chunk.latencies.append(seconds)
                _enter(chunk, begin, predictions)
        return chunk, suspect

    async def _until_answering(self, lane: Lane, rows: Sequence[str], error: HopsworksError) -> None:
        """
        Wait until some row was answered: the model may have to come up.

        :param error: the last failure
        :raises HopsworksError: none was, for too long
        """
        target, pause = self._target, _FIRST_PAUSE
        ends = target.clock() + min(OUTAGE_SECONDS, target.timeout)
        while not self.tally.answered_row:
            if target.clock() >= ends:
                raise none_answered(error, len(rows))
            await Sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            for row in itertools.chain(rows[:: -(-len(rows) // _SAMPLE)], _lazily(target.elsewhere)):
                try:
                    await self._ask_once(lane, [row])
                except HopsworksError as failed:
                    error = failed
                else:
                    self.tally.answered(row)
                    break

    async def _look_elsewhere(self, lane: Lane) -> None:
        """Try rows from other places of the input until one is answered."""
        for row in self._target.elsewhere():
            if self.tally.answered_row:
                return
            try:
                await self._ask(lane, [row], None)
            except HopsworksError as error:
                if not refuses_rows(error):
                    raise
            else:
                self.tally.answered(row)

    async def _ask(self, lane: Lane, rows: Sequence[str], first: int | None) -> tuple[list[Any], float]:
        """
        Request the predictions for rows, and retry while the deployment does not answer any.

        :param first: the number of the first row; None: the request has no id
        :return: the predictions, and the seconds of the request that was answered
        :raises Outage: it fails with rows that it has answered before, or limits the rate, for too long
        """
        target, pause = self._target, _FIRST_PAUSE
        request_id = None if first is None else target.request_id(first, len(rows))
        ends = target.clock() + min(OUTAGE_SECONDS, target.timeout)
        while True:
            try:
                answer = await predict.until_reached(
                    lane.project,
                    target.name,
                    lambda _seconds: self._ask_once(lane, rows, request_id),
                    timeout=target.timeout,
                    clock=target.clock,
                )
            except HopsworksError as error:
                if is_crash(error):
                    if await self._is_answering(lane):
                        raise
                elif not is_passing(error):
                    raise
                if target.clock() >= ends:
                    raise Outage(error) from error
                await Sleep(max(pause, error.retry_after or 0.0))
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return self._predictions(answer, len(rows)), lane.seconds

    async def _ask_once(self, lane: Lane, rows: Sequence[str], request_id: str | None = None) -> Any:
        body = f'{{"{self._target.key}": [{", ".join(rows)}]}}'
        return await predict.ask_model(lane.project, self._target.name, body.encode(), request_id=request_id)

    async def _is_answering(self, lane: Lane) -> bool:
        """Return whether a row that was answered before still is; true while none was."""
        if not self.tally.answered_row:
            return True
        try:
            await self._ask_once(lane, self.tally.answered_row)
        except HopsworksError:
            return False
        return True

    def _predictions(self, answer: Any, count: int) -> list[Any]:
        predictions = predictions_of(answer)
        if not isinstance(predictions, list) or len(predictions) != count:
            got = f"{len(predictions)} predictions" if isinstance(predictions, list) else "no list of predictions"
            message = (
                f"Deployment {self._target.name!r}: it was asked for {count} rows, and its answer has {got}.\nScoring "
                "needs one prediction for each row, in the order of the rows: correct the predictor script."
            )
            raise VerificationError(message)
        return predictions


def _enter(chunk: Chunk, begin: int, predictions: Sequence[Any]) -> None:
    """Enter predictions into a chunk; one without a value counts as refused."""
    values, replaced = finite(list(predictions))
    chunk.predictions[begin : begin + len(values)] = values
    if not replaced and None not in values:
        return
    for number, prediction in enumerate(predictions, begin):
        if prediction is None or finite(prediction)[1]:
            chunk.predictions[number] = None
            chunk.refused[chunk.first + number] = _NO_VALUE
