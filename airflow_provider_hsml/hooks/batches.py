"""The part of ``HsmlHook`` that scores tables and streams of rows."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import operator
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.batch import progress as stored
from airflow_provider_hsml.hopsworks.batch.rows import Columns, RowForm
from airflow_provider_hsml.hopsworks.batch.table import Asked, Settings, Workplace, most_errors, score_table
from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.batch_options import CHUNK_ROWS, MODEL_CHANGE, ROW_FORMATS, STALE_STATE
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name
from airflow_provider_hsml.hopsworks.domain.records import Shape
from airflow_provider_hsml.hopsworks.errors import SCOPE_MISSING, InvalidInputError, RequestRefusedError
from airflow_provider_hsml.hopsworks.inference import predict, schemas, scoring
from airflow_provider_hsml.hopsworks.inference.concurrency import Limit
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.registry.version_files import VersionFiles
from airflow_provider_hsml.hopsworks.routes import Routes

from .base import HsmlBaseHook, in_time
from .result_folder import JsonLines, ResultFolder
from .row_files import check_apart, row_files

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from airflow_provider_hsml.hopsworks.batch.progress import Format
    from airflow_provider_hsml.hopsworks.batch.rows import TableRows
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment

    from .row_files import RowFiles

log = logging.getLogger(__name__)

_SPARE_SPLITS = 64
"""Requests that may be cut in two beyond those that the allowed errors need."""


@dataclass(frozen=True, slots=True)
class BatchPredictions:
    """The predictions for one batch of rows."""

    predictions: list[Any]
    """One for each row, in their order; None where there is none."""
    errors: Mapping[int, str]
    """The number of each row of the batch without a prediction, from 0, and the reason."""


class BatchesMixin(HsmlBaseHook):
    """Score tables and streams of rows."""

    @in_time
    def score_table(
        self,
        name: str,
        input: Any,  # noqa: A002 - as the operator names it
        *,
        result_path: str | os.PathLike[str],
        columns: Sequence[str] | Mapping[str, str] | None = None,
        key_columns: Sequence[str] | str | None = None,
        row_format: str | None = None,
        chunk_rows: int | str = CHUNK_ROWS,
        concurrency: int | str | None = None,
        fail_on_partial_error: bool | str = True,
        max_errors: int | str | None = None,
        on_stale_state: str = "fail",
        on_model_change: str = "fail",
        reuse: bool | str = False,
        run_key: str = "",
        try_name: str = "",
        timeout: float | timedelta = 600.0,
        poll_interval: float | timedelta = 10.0,
    ) -> dict[str, Any]:
        """
        Score the rows of files through a deployment, and write the result into a folder.

        See ``BatchPredictOperator`` for the details of the arguments.

        :param name: the deployment's name
        :param input: files of rows
        :param result_path: the folder of the result
        :param columns: the columns for the model
        :param key_columns: the columns that are carried into the result
        :param row_format: ``list`` or ``record``
        :param chunk_rows: rows of a request
        :param concurrency: the largest number of requests at a time
        :param fail_on_partial_error: whether rows that failed are an error, although the result is complete
        :param max_errors: how many rows may fail
        :param on_stale_state: what to do with other results in the folder
        :param on_model_change: what to do when the deployment serves another version
        :param reuse: whether results of other runs are used
        :param run_key: identifies the run; a retry uses the same
        :param try_name: begins the names of this try's files: lower-case letters, digits and hyphens
        :param timeout: seconds, or a ``timedelta``, for one request with its retries, and until a change of the
            deployment has ended
        :param poll_interval: seconds between polls while a change of the deployment is in progress
        :return: the manifest
        :raises InvalidInputError: an argument is wrong, or rows failed
        """
        run = self._new_run(check_deployment_name(name), timeout, poll_interval, run_key)
        chosen = Columns.read(columns, key_columns)
        form = None if row_format is None else arguments.choice("row_format", row_format, ROW_FORMATS)
        size = arguments.integer("chunk_rows", chunk_rows, least=1)
        is_strict = arguments.boolean("fail_on_partial_error", fail_on_partial_error)
        is_reused = arguments.boolean("reuse", reuse)
        limits = {
            "concurrency": None if concurrency is None else arguments.integer("concurrency", concurrency, least=1),
            "max_errors": None if max_errors is None else arguments.integer("max_errors", max_errors, least=0),
            "on_stale_state": arguments.choice("on_stale_state", on_stale_state, STALE_STATE),
            "on_model_change": arguments.choice("on_model_change", on_model_change, MODEL_CHANGE),
        }
        files = row_files(input)
        check_apart(input, result_path)
        results = ResultFolder(result_path)
        result_format = format_of(files)
        parts = [
            None if is_reused else run_key,
            [self.access.url, self.client.project.name, name],
            files.to_json(),
            chosen.to_json(),
            form,
            size,
            result_format.ending,
        ]
        unique = f"{try_name or 'try'}-{uuid.uuid4().hex[:8]}"
        settings = Settings(stored.digest(parts), unique, chunk_rows=size, **limits)  # type: ignore[arg-type]
        ask = _Ask(self, run.timeout, files, chosen, form, is_reused=is_reused)
        self.client.deadline = math.inf  # Scoring has no end of its own: `timeout` bounds each request.
        place = Workplace(run, results, result_format, files, ask, self.run, self._connect, lambda: self._sleep(0))
        progress = score_table(place, settings)
        manifest = progress.manifest(str(results))
        log.info("Scored %d rows, %d without a prediction, into %s", progress.rows, progress.errors, results)
        if progress.errors and is_strict:
            message = (
                f"input: {progress.errors} of {progress.rows} rows have no prediction.\nThe result is complete, and "
                f"{progress.errors_file} in {results} names these rows. Correct them, or give "
                "fail_on_partial_error=False."
            )
            raise InvalidInputError(message)
        return manifest

    def predict_batches(
        self,
        name: str,
        batches: Any,
        *,
        chunk_rows: int = CHUNK_ROWS,
        concurrency: int | None = None,
        timeout: float | timedelta = 600.0,
    ) -> Iterator[BatchPredictions]:
        """
        Yield the predictions for batches of rows, several requests at a time, in the order of the batches.

        Batches are read as they are sent, so there may be any number of them. Rows with names are sent as the schema or
        the registered example of the deployment has them: as objects or lists. Rows are sent at least once. Nothing is
        stored: ``BatchPredictOperator`` continues after an interruption.

        :param name: the deployment's name
        :param batches: an iterable of batches, each a list of rows, an array, or a frame; or one table. Tables of
            Arrow, pandas, polars or DuckDB, and all else with ``__arrow_c_stream__``, need the extra ``[tables]``. The
            index of a pandas frame is no column
        :param chunk_rows: the most rows of a request
        :param concurrency: the largest number of requests at a time; None: 4 through Hopsworks, 16 at the ingress.
            Fewer are sent while the deployment is overloaded
        :param timeout: seconds, or a ``timedelta``, for one request with its retries
        :raises InvalidInputError: an argument is wrong
        :raises HopsworksError: the deployment does not answer, or answers none of the rows
        """
        deployment = self._find_deployment(check_deployment_name(name))
        size = arguments.integer("chunk_rows", chunk_rows, least=1)
        most = None if concurrency is None else arguments.integer("concurrency", concurrency, least=1)
        seconds = arguments.seconds("timeout", timeout)
        several = _batches(batches)
        begin: list[list[Any] | TableRows] = []
        while not any(map(len, begin)) and (batch := next(several, None)) is not None:
            begin.append(batch)
        ask = _Ask(self, seconds, None, Columns(), None, is_reused=False)
        ask.first = next(iter(begin[-1][:1]), None) if begin else None
        asked = ask(deployment, Settings("", "", size))
        return self._predict_batches(asked, itertools.chain(begin, several), most)

    def _predict_batches(
        self, asked: Asked, batches: Iterable[list[Any] | TableRows], concurrency: int | None
    ) -> Iterator[BatchPredictions]:
        stream = _Stream(asked, batches)
        found = scoring.score_chunks(
            stream.chunks(),
            asked.target,
            self._connect,
            limit=None if concurrency is None else Limit(concurrency),
            on_wait=lambda: self._sleep(0),
        )
        for chunk in found:
            complete = stream.add(chunk)
            if complete is not None:
                yield complete


class _Ask:
    """Finds out how a deployment is asked for predictions of rows."""

    def __init__(
        self,
        hook: HsmlBaseHook,
        timeout: float,
        files: RowFiles | None,
        columns: Columns,
        row_format: str | None,
        *,
        is_reused: bool,
    ) -> None:
        self._hook = hook
        self._timeout = timeout
        self._files = files
        self._columns = columns
        self._row_format = row_format
        self._is_reused = is_reused
        self.first: Any = None
        """The first row, where there are no files."""

    def __call__(self, deployment: Deployment, settings: Settings) -> Asked:
        """
        Read the schema of a deployment's requests, and the registered example of its model.

        :param deployment: as it is live
        :param settings: of the task
        :raises InvalidInputError: it has no predictions for rows, or the columns do not fit
        """
        hook, project = self._hook, self._hook.client.project
        predict.check_can_answer(deployment, by_ingress=hook.access.inference_route == "istio")
        schema = hook.run(schemas.read_for_checks(project, deployment, Routes()))
        if self._is_reused and (deployment.raw.get("transformer") or (schema is not None and schema.serving_keys)):
            message = (
                f"reuse: {deployment} looks features up or transforms the rows, so the same rows may have other "
                "answers later.\nLeave 'reuse' out."
            )
            raise InvalidInputError(message)
        body = self._example(deployment)
        size = settings.chunk_rows
        shape = Shape.of_example(body)
        if schema is not None:
            shape, size = Shape.of_schema(schema), min(size, schema.max_batch_rows)
        first = self.first if self._files is None else self._files.first()
        form = RowForm.build(self._columns, shape, first, schema, self._row_format)
        form = replace(form, is_read=self._files is not None)
        splits = None
        if self._files is not None:
            errors = most_errors(settings, self._files.total)
            splits = _SPARE_SPLITS + 2 * (errors + 1) * max(size.bit_length(), 1)
        key = "inputs" if isinstance(body.get("inputs"), list) else "instances"
        target = scoring.Target(
            project, deployment.name, key, self._timeout, request_key=settings.key, most_splits=splits
        )
        return Asked(target, form, size)

    def _example(self, deployment: Deployment) -> Mapping[str, Any]:
        """Return the body of a request with the registered example; an empty one if none can be read."""
        hook = self._hook
        try:
            model = hook.run(lookup.served_model(hook.client.project, deployment))
            if model is None:
                return {}
            probe = hook.run(predict.registered_probe(hook.client.project, model, VersionFiles()))
        except RequestRefusedError as error:
            if error.code != SCOPE_MISSING:
                raise
            log.info("%s; rows are sent without looking at the registered example", error)
            return {}
        return {} if probe is None else probe.body


class _Stream:
    """The batches that are being scored, as chunks."""

    def __init__(self, asked: Asked, batches: Iterable[list[Any] | TableRows]) -> None:
        self._asked = asked
        self._batches = batches
        self._open: list[_Batch] = []
        self._first = 0

    def chunks(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows of the batches; one of a batch without rows has none."""
        size = self._asked.chunk_rows
        for rows in self._batches:
            batch = _Batch(self._first, len(rows))
            self._open.append(batch)
            for begin in range(0, max(len(rows), 1), size):
                prepared = self._asked.form.prepare(self._first, rows[begin : begin + size])
                batch.enter(begin, prepared.bad)
                batch.places.append([begin + place for place in prepared.places])
                yield self._first, prepared.instances
                self._first += len(rows[begin : begin + size])

    def add(self, chunk: scoring.Chunk) -> BatchPredictions | None:
        """Enter the answers of a chunk, and return the batch that it completes; None if it completes none."""
        batch = self._open[0]
        for at, place in enumerate(batch.places[batch.answered]):
            batch.predictions[place] = chunk.predictions[at]
            if chunk.first + at in chunk.refused:
                batch.errors[place] = chunk.refused[chunk.first + at]
        batch.answered += 1
        if batch.answered * self._asked.chunk_rows < len(batch.predictions):
            return None
        self._open.pop(0)
        return BatchPredictions(batch.predictions, dict(sorted(batch.errors.items())))


class _Batch:
    """A batch that is being scored."""

    def __init__(self, first: int, rows: int) -> None:
        self.first = first
        self.predictions: list[Any] = [None] * rows
        self.errors: dict[int, str] = {}
        self.places: list[list[int]] = []
        """The places of the rows that were sent, for each chunk."""
        self.answered = 0

    def enter(self, begin: int, bad: Mapping[int, Any]) -> None:
        """Enter rows that cannot be sent."""
        for place, fault in bad.items():
            self.errors[begin + place] = str(fault)


def _batches(value: Any) -> Iterator[list[Any] | TableRows]:
    """Yield the rows of each batch."""
    if _is_table(value):
        yield from _tables("batches", value)
        return
    for number, batch in enumerate(value):
        what = f"batches[{number}]"
        if _is_table(batch):
            pieces = list(_tables(what, batch))
            yield functools.reduce(operator.add, pieces) if pieces else []
        elif hasattr(batch, "to_pylist"):
            yield batch.to_pylist()
        else:
            yield list(arguments.sequence(what, batch))


def _is_table(value: object) -> bool:
    """Return whether a value has named columns: iterating over a frame gives their names, and not its rows."""
    if hasattr(type(value), "columns"):
        return True
    is_array = hasattr(value, "dtype") or hasattr(value, "to_pylist")  # Arrays can be streams of Arrow, too.
    return hasattr(value, "__arrow_c_stream__") and not is_array


def _tables(what: str, value: Any) -> Iterator[list[Any] | TableRows]:
    """Yield the rows of something with named columns, in the pieces that it has."""
    if hasattr(value, "__arrow_c_stream__"):
        from .arrow_files import record_batches  # noqa: PLC0415 - needs pyarrow

        yield from record_batches(value, what)
        return
    names = list(value.columns)
    if len(set(names)) < len(names):  # pandas would leave columns out.
        arguments.refuse(what, "columns with different names", names)
    if hasattr(value, "to_dicts"):  # polars before 1.3
        yield value.to_dicts()
    elif hasattr(value, "itertuples"):  # pandas before 2.2
        yield value.to_dict("records")
    else:
        arguments.refuse(what, "rows, or a frame in memory", type(value).__name__)


def format_of(files: RowFiles) -> Format:
    """Return the format of the result: that of the input if it is Parquet, else JSON lines."""
    if files.kind != "parquet":
        return JsonLines()
    from .arrow_files import ParquetFormat  # noqa: PLC0415 - needs pyarrow

    return ParquetFormat()
