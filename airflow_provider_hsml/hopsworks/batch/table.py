"""The engine: score the rows of a table that are not scored yet, part by part, and end with a manifest."""

from __future__ import annotations

import itertools
import json
import logging
import math
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow_provider_hsml.hopsworks.domain.batch_options import CHUNK_ROWS
from airflow_provider_hsml.hopsworks.errors import (
    DeploymentError,
    HopsworksError,
    InvalidInputError,
    SupersededError,
)
from airflow_provider_hsml.hopsworks.inference import scoring
from airflow_provider_hsml.hopsworks.inference.concurrency import Limit

from . import progress as stored
from .held import Held, Report
from .progress import MANIFEST, Progress, ResultRows
from .rows import BadRow
from .served import Served, read_served, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Sequence

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Flow
    from airflow_provider_hsml.hopsworks.inference.concurrency import Connection
    from airflow_provider_hsml.hopsworks.inference.scoring import Chunk, Target
    from airflow_provider_hsml.hopsworks.rollout.inputs import Run

    from .progress import Format, Results
    from .rows import Prepared, RowForm, TableRows

T = TypeVar("T")

log = logging.getLogger(__name__)

PART_BYTES = 8 * 1024 * 1024
"""Bytes that a part holds before it is written."""
READ_EVERY = 10.0
"""Seconds between two reads of the deployment: answers are held back for as long."""
_SHARE_OF_ERRORS = 0.01
"""The share of rows that may fail, unless the user gives a number."""
_BEFORE_ANY_ANSWER = 1000
"""Rows that cannot be sent, without one that was answered, after which the columns count as wrong."""
_ELSEWHERE = (0.5, 0.75, 1.0)
"""The places of the input, as shares of its rows, where rows are tried before none counts as answered."""
_ROWS_OF_A_PLACE = 4


class Rows(Protocol):
    """The rows of the input."""

    total: int
    """The number of rows."""

    def chunks(
        self, size: int, start: int, columns: Collection[str] | None
    ) -> Iterator[tuple[int, list[Any] | TableRows]]:
        """
        Yield rows in chunks, with the number of the first one. A row that cannot be read is a ``BadRow``.

        :param size: rows of a chunk
        :param start: the first row, from 0
        :param columns: those that are used, so that no others have to be read; None for all
        """

    def check_unchanged(self) -> None:
        """
        Check that the files are those that were there at the beginning.

        :raises InvalidInputError: one was changed
        """


@dataclass(frozen=True, slots=True)
class Settings:
    """How a table is scored."""

    key: str
    """A hash of what is scored: see ``Progress.key``."""
    try_name: str
    """Identifies this try, for the names of files: lower-case letters, digits and hyphens."""
    chunk_rows: int = CHUNK_ROWS
    concurrency: int | None = None
    max_errors: int | None = None
    """None: 1 % of the rows."""
    on_model_change: str = "fail"
    on_stale_state: str = "fail"


@dataclass(frozen=True, slots=True)
class Asked:
    """How a deployment is asked for the predictions of rows."""

    target: Target
    form: RowForm
    chunk_rows: int


@dataclass(frozen=True, slots=True)
class Workplace:
    """What the engine needs of its caller."""

    run: Run
    results: Results
    format: Format
    rows: Rows
    ask: Callable[[Deployment, Settings], Asked]
    """Finds out how a deployment is asked."""
    drive: Callable[[Flow[Any]], Any]
    """Drives a flow."""
    connect: Callable[[Callable[[float], None]], Connection]
    """Makes the connection of one thread."""
    check_alive: Callable[[], object]
    """Raises an exception once the task was killed."""


class ModelChanged(Exception):
    """The deployment serves something else than when the last part was written."""

    def __init__(self, served: Served) -> None:
        """
        Keep what it serves.

        :param served: as it was read
        """
        super().__init__()
        self.served = served


def score_table(place: Workplace, settings: Settings) -> Progress:
    """
    Score the rows that no earlier try of the run has scored, and write the manifest.

    :param place: the input, the deployment and the folder of the result
    :param settings: how
    :return: the progress of the complete result
    :raises InvalidInputError: too many rows failed, the folder holds other results, or the input is changing
    :raises SupersededError: the deployment serves another version than at the beginning
    :raises HopsworksError: the deployment does not answer
    """
    if not place.rows.total:
        message = "input: expected rows, got none.\nCheck why there are none."
        raise InvalidInputError(message)
    deployment = place.drive(settled(place.run, place.run.backoff(1.0)))
    progress = _found(place, settings, Served.of(deployment))
    first_name = settings.try_name
    for number in itertools.count(1):
        try:
            _check_count(settings, place.rows.total, progress.errors, progress.rows)
            if progress.rows < place.rows.total:
                _Scoring(place, settings, place.ask(deployment, settings), progress, Served.of(deployment)).score()
            return _end(place, settings, progress)
        except ModelChanged as change:
            before = progress.served
            log.warning(
                "Deployment %r: it served version %s of model %r, and now serves %s; on_model_change is %r",
                place.run.name,
                before["model_version"],
                before["model_name"],
                change.served,
                settings.on_model_change,
            )
            if settings.on_model_change == "fail":
                raise _superseded(place, progress, change.served) from None
            if MANIFEST in place.results.names():  # Airflow has given this try up, and another one has ended.
                return _winner(place, settings)
            deployment = place.drive(settled(place.run, place.run.backoff(1.0)))
            progress = _after_change(settings, progress, Served.of(deployment))
            # Other tries may have taken over the parts so far: they are kept, and the new ones have other names.
            settings = replace(settings, try_name=f"{first_name}-{number}")
    raise AssertionError  # The loop has no end of its own.


def _found(place: Workplace, settings: Settings, served: Served) -> Progress:
    """Return the progress to continue from: an earlier try's, or a new one."""
    results = place.results
    names = results.names()
    tries = stored.read_progress(results, names)
    manifest = _manifest(results, names)
    own = [one for one in tries if one.key == settings.key and (manifest is None or manifest.get("files") == one.files)]
    mine = next((one for one in own if one.served_key == served.key), own[0] if own else None)
    if mine is not None and mine.served_key == served.key:
        if mine.rows:
            log.info("%d rows were scored by earlier tries of this task; continuing after them", mine.rows)
        return mine
    if mine is not None and manifest is None and settings.on_model_change != "fail":
        return _after_change(settings, mine, served)
    if not tries and manifest is None:
        return _new(settings, served)
    if settings.on_stale_state == "fail":
        message = (
            f"result_path: {place.results} holds {_difference(mine, served)}.\nUse a folder for each run, such as one "
            "with '{{ ds }}' in its path. To replace what is there, give on_stale_state='restart'."
        )
        raise InvalidInputError(message)
    _remove(results, names)
    return _new(settings, served)


def _new(settings: Settings, served: Served) -> Progress:
    return Progress(settings.key, served.to_json(), single_version=True if served.is_certain else "unknown")


def _manifest(results: Results, names: Sequence[str]) -> dict[str, Any] | None:
    """Return the manifest; None if there is none, and an empty one if it is something else."""
    if MANIFEST not in names:
        return None
    try:
        data = json.loads(results.read(MANIFEST) or b"")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _difference(mine: Progress | None, served: Served) -> str:
    if mine is None:
        return "results of another run, of other rows or of other arguments"
    return f"results of version {mine.served['model_version']} of this run, and the deployment serves {served}"


def _after_change(settings: Settings, progress: Progress, served: Served) -> Progress:
    """Return the progress to continue from after the deployment serves something else. No file is deleted."""
    if settings.on_model_change == "allow":
        if progress.served_key != served.key:
            progress.single_version = False
            progress.served = served.to_json()
        return progress
    return _new(settings, served)


def _remove(results: Results, names: Sequence[str]) -> None:
    """Delete what tasks like this one have written; other files are kept."""
    if MANIFEST in names:  # First: without it, nothing in the folder is a result.
        results.delete(MANIFEST)
    for name in names:
        if stored.is_own(name):
            results.delete(name)


def _superseded(place: Workplace, progress: Progress, served: Served) -> SupersededError:
    error = SupersededError(
        f"Deployment {place.run.name!r}: it served version {progress.served['model_version']} of model "
        f"{progress.served['model_name']!r} when the scoring began, and now serves {served}. {progress.rows} of "
        f"{place.rows.total} rows were scored before.\nRun the task again with on_stale_state='restart', or give "
        "on_model_change='restart' or 'allow'. A deployment of its own for the batch is not changed by promotions."
    )
    error.transient = False
    return error


class _Scoring:
    """Scores the rest of a table through one served version."""

    def __init__(self, place: Workplace, settings: Settings, asked: Asked, progress: Progress, served: Served) -> None:
        self._place = place
        self._settings = settings
        self._elsewhere = _Elsewhere(place.rows, asked.form)
        answered_row = _answered_row(place, asked, progress)
        target = replace(asked.target, answered_row=answered_row, elsewhere=self._elsewhere)
        self._asked = replace(asked, target=target)
        self._progress = progress
        self._served = served
        self._limit = Limit(settings.concurrency or asked.target.concurrency)
        self._prepared: deque[Prepared] = deque()
        self._held = Held(place.format, progress)
        self._report = Report(progress, place.rows.total)
        self._last_read = self._counted = time.monotonic()

    def score(self) -> None:
        """
        Score.

        :raises ModelChanged: the deployment serves something else
        """
        found = scoring.score_chunks(
            self._chunks(), self._asked.target, self._place.connect, limit=self._limit, on_wait=self._attend
        )
        with closing(found):
            while (chunk := self._kept(found, lambda: next(found, None))) is not None:
                self._held.add(self._rows_of(chunk), chunk.latencies)
                self._kept(found, self._check_errors)
                if self._held.size >= PART_BYTES or time.monotonic() - self._last_read >= READ_EVERY:
                    self._confirm()
        self._place.rows.check_unchanged()
        self._confirm()

    def _kept(self, found: Generator[Chunk, None, None], step: Callable[[], T]) -> T:
        """Take a step of the scoring, and return its result; if it fails, the answers so far are kept."""
        try:
            return step()
        except HopsworksError:
            # The failure may come from a change of the deployment: then the answers are dropped.
            found.close()
            self._confirm()
            raise

    def _chunks(self) -> Iterator[tuple[int, list[str]]]:
        form = self._asked.form
        for first, rows in self._place.rows.chunks(self._asked.chunk_rows, self._progress.rows, form.used):
            prepared = form.prepare(first, rows)
            self._prepared.append(prepared)
            yield first, prepared.instances

    def _rows_of(self, chunk: Chunk) -> tuple[ResultRows, dict[int, BadRow]]:
        """Return the rows of the result, and those that failed by their places."""
        prepared = self._prepared.popleft()
        bad, predictions = prepared.bad, chunk.predictions
        if bad:
            predictions = [None] * (len(prepared.places) + len(bad))
            for place, prediction in zip(prepared.places, chunk.predictions, strict=True):
                predictions[place] = prediction
        for number, reason in chunk.refused.items():
            bad[prepared.places[number - chunk.first]] = BadRow(None, reason)
        errors = {place: str(fault) for place, fault in bad.items()}
        return ResultRows(prepared.first, prepared.keys, predictions, errors), bad

    def _attend(self) -> None:
        self._place.check_alive()
        self._report.log(self._held, self._limit)

    def _check_errors(self) -> None:
        """
        Check that not too many rows have failed.

        :raises InvalidInputError: more than are allowed
        """
        errors, rows = self._progress.errors + self._held.errors, self._progress.rows + self._held.rows
        first, total = self._held.first_error, self._place.rows.total
        is_hopeless = errors == rows and errors >= min(_BEFORE_ANY_ANSWER, total)
        if is_hopeless and (rows == total or not self._elsewhere()):
            message = f"input: none of the first {rows} rows has a prediction{first}.\nCheck the columns of the rows."
            raise InvalidInputError(message)
        _check_count(self._settings, total, errors, rows, first)

    def _confirm(self) -> None:
        """
        Write the answers that are held back, if the deployment still serves the same.

        :raises ModelChanged: it does not; the answers are dropped
        """
        place, now = self._place, time.monotonic()
        self._progress.seconds += now - self._counted
        self._counted = now
        served = place.drive(read_served(place.run, place.run.backoff(1.0)))
        self._last_read = time.monotonic()
        if served.key != self._served.key:
            raise ModelChanged(served)
        if served != self._served:
            log.info("Deployment %r was restarted and serves the same as before", place.run.name)
            self._served = served
        if self._held.rows:
            self._held = self._held.write(place.results, place.format, self._settings.try_name)


class _Elsewhere:
    """A few rows from the middle and the end of the input, as JSON; they are read when they are needed."""

    def __init__(self, rows: Rows, form: RowForm) -> None:
        self._rows = rows
        self._form = form
        self._found: list[str] | None = None
        self._lock = threading.Lock()

    def __call__(self) -> list[str]:
        """Return those of them that can be sent."""
        with self._lock:
            if self._found is None:
                self._found = [row for place in _ELSEWHERE for row in self._at(int(place * self._rows.total))]
        return self._found

    def _at(self, end: int) -> list[str]:
        for first, rows in self._rows.chunks(_ROWS_OF_A_PLACE, max(0, end - _ROWS_OF_A_PLACE), self._form.used):
            return self._form.prepare(first, rows).instances
        return []


def _answered_row(place: Workplace, asked: Asked, progress: Progress) -> list[str]:
    """Return a row as JSON that an earlier try has an answer to, alone in a list; an empty list if there is none."""
    if progress.answered is None:
        return []
    for first, rows in place.rows.chunks(1, progress.answered, asked.form.used):
        return asked.form.prepare(first, rows).instances
    return []


def most_errors(settings: Settings, total: int) -> int:
    """
    Return how many rows may fail.

    :param total: the number of rows
    """
    return math.floor(_SHARE_OF_ERRORS * total) if settings.max_errors is None else settings.max_errors


def _check_count(settings: Settings, total: int, errors: int, rows: int, first: str = "") -> None:
    """
    Check that not too many rows have failed, in this try and those before.

    :param total: the number of rows of the input
    :param errors: the rows that failed
    :param rows: the rows that were scored
    :param first: the first of them that failed, for the message
    :raises InvalidInputError: more have failed than are allowed
    """
    most = most_errors(settings, total)
    if errors > most:
        message = (
            f"input: {errors} of {rows} rows failed, more than {most} (max_errors){first}.\nCorrect the rows, or raise "
            "max_errors."
        )
        raise InvalidInputError(message)


def _end(place: Workplace, settings: Settings, progress: Progress) -> Progress:
    """Write the errors and the manifest, unless another try has, and remove what is not part of the result."""
    results = place.results
    names = results.names()
    if MANIFEST not in names:
        is_whole = progress.is_whole and progress.rows == place.rows.total
        if not is_whole or not {*progress.files, *progress.error_files} <= set(names):
            message = (
                f"result_path: the parts in {results} do not have each of the {place.rows.total} rows once, or one was "
                "deleted meanwhile.\nRun the task again: it scores what is missing."
            )
            raise _passing(message)
        if not progress.success:
            message = "input: no row has a prediction.\nSee the reasons in the log, and check the columns of the rows."
            raise InvalidInputError(message)
        # Each try has an errors file of its own, so that none is changed after the manifest names it.
        progress.errors_file = f"errors-{0:012d}-{settings.try_name}.jsonl" if progress.error_files else None
        if progress.errors_file is not None:
            results.join(progress.errors_file, progress.error_files)
        results.write(f"_progress-{settings.try_name}.json", json.dumps(progress.to_json()).encode())
        content = json.dumps(progress.manifest(str(results)), indent=1).encode()
        if results.create(MANIFEST, content):
            _clean(results, settings, progress)
            if results.is_local:
                return progress
    return _winner(place, settings)


def _clean(results: Results, settings: Settings, progress: Progress) -> None:
    """
    Delete the files that are not part of the result.

    In object storage, another try may write its manifest at the same time: there, the files of other tries are kept.
    """
    keep = {*progress.files, progress.errors_file, f"_progress-{settings.try_name}.json"}
    for name in results.names():
        if stored.is_own(name) and name not in keep and (results.is_local or f"-{settings.try_name}." in name):
            results.delete(name)


def _winner(place: Workplace, settings: Settings) -> Progress:
    """Return the progress that the manifest is of."""
    results = place.results
    names = results.names()
    manifest = _manifest(results, names) or {}
    for one in stored.read_progress(results, names):
        named = (manifest.get("files"), manifest.get("errors_file"))
        if one.key == settings.key and named == (one.files, one.errors_file):
            _check_count(settings, place.rows.total, one.errors, one.rows)
            return one
    message = (
        f"result_path: another task has written a manifest of other results into {results} meanwhile.\nUse a folder "
        "for each task."
    )
    raise _passing(message)


def _passing(message: str) -> DeploymentError:
    """Return an error after which the task is worth another try."""
    error = DeploymentError(message)
    error.transient = True
    return error
