"""The part of ``HsmlHook`` that compares two model versions on the same rows."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.compare.compare import compare
from airflow_provider_hsml.hopsworks.compare.packages import check_installed
from airflow_provider_hsml.hopsworks.compare.report import report
from airflow_provider_hsml.hopsworks.compare.scored import Rows, Scored
from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.comparison_metrics import read_metrics
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name
from airflow_provider_hsml.hopsworks.domain.records import Columns, check_columns
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError
from airflow_provider_hsml.hopsworks.flow import drive
from airflow_provider_hsml.hopsworks.promotion.contenders import Reference, find_contenders
from airflow_provider_hsml.hopsworks.promotion.leases import REMOVAL_SECONDS, remove_expired, remove_of
from airflow_provider_hsml.hopsworks.promotion.side_deployment import SideDeployment
from airflow_provider_hsml.hopsworks.registry import trained_until

from .base import HsmlBaseHook, in_time
from .object_storage import writable
from .tables import is_path, read_result_set, records_of, write_json
from .version_scoring import Stored, VersionScoring, Workplace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from airflow_provider_hsml.hopsworks.domain.records import Record
    from airflow_provider_hsml.hopsworks.domain.result_set import ResultSet
    from airflow_provider_hsml.hopsworks.flow import Flow
    from airflow_provider_hsml.hopsworks.rollout.inputs import Run

log = logging.getLogger(__name__)

_REMOVAL_SECONDS = 30.0
"""Seconds for which the removal of a killed task's temporary deployment is retried."""


class ComparisonsMixin(HsmlBaseHook):
    """Compare two model versions on the same rows."""

    @in_time
    def compare_models(
        self,
        name: str,
        challenger: int | str | Mapping[str, Any] | None = None,
        input: Any = None,  # noqa: A002 - as the operator names it
        *,
        result_path: str | os.PathLike[str],
        metrics: Sequence[str | Mapping[str, str]] | None = None,
        label_column: str | None = None,
        group_column: str | None = None,
        time_column: str | None = None,
        slice_columns: Sequence[str] | None = None,
        resamples: int | str = 2000,
        seed: int | str = 0,
        champion_results: str | os.PathLike[str] | None = None,
        challenger_results: str | os.PathLike[str] | None = None,
        challengers: int = 1,
        side_by_side: bool = False,
        reuse_key: str = "",
        run_key: str = "",
        audit: Mapping[str, Any] | None = None,
        timeout: float | timedelta = 600.0,
        poll_interval: float = 10.0,
    ) -> dict[str, Any]:
        """
        Compare the version that a deployment serves with another one, on the same rows.

        See ``CompareModelsOperator`` for the details of the arguments.

        :param name: the deployment's name
        :param challenger: the version to compare: its number, or the result of registering it; with
            ``challenger_results`` it may be left out
        :param input: the rows: a list of records, or a file or folder of JSON lines
        :param result_path: the folder for the results
        :param metrics: names of metrics, or mappings with ``metric`` and ``direction``; None only without labels
        :param label_column: the column with the true value
        :param group_column: rows with the same value belong together
        :param time_column: the time of a row
        :param slice_columns: columns by whose values the rows are compared apart
        :param resamples: the number of resamples of the bootstrap
        :param seed: the seed of the resamples
        :param champion_results: the folder of a stored result set, in place of scoring
        :param challenger_results: the same of the challenger
        :param challengers: the number of challengers that are compared with this champion
        :param side_by_side: whether the files of this comparison lie in a folder of their own below ``result_path``
        :param reuse_key: identifies the DAG run: stored answers of this run to the same rows are used again
        :param run_key: identifies the task; a retry uses the same
        :param audit: the try of the task, as plain JSON
        :param timeout: seconds, or a ``timedelta``, until the temporary deployment serves each version
        :param poll_interval: seconds between polls
        :return: the comparison as plain JSON; ``report`` is the path of the report for people
        :raises InvalidInputError: an argument is wrong, or the versions cannot be compared
        """
        check_installed()
        run = self._new_run(check_deployment_name(name), timeout, poll_interval, run_key, audit)
        columns = Columns.read(label_column, group_column, time_column, slice_columns)
        specs = _read_metrics(metrics, columns)
        resamples = arguments.integer("resamples", resamples, least=100)
        seed = arguments.integer("seed", seed, least=0)
        folder = _folder("result_path", result_path)
        arguments.only_one("", input=input, challenger_results=challenger_results)
        if input is not None and champion_results is None:
            records = records_of("input", input, columns)
            scoring = VersionScoring(records, columns, f"{folder}/results", reuse_key, is_ordered=is_path(input))
            first, second = self._score_versions(run, Reference.read("challenger", challenger), scoring)
        else:
            first, second = self._read_results(champion_results, challenger_results, challenger, columns)
        champion, ours = None if first is None else first.results, second.results
        comparison = compare(
            None if champion is None else _scored(champion),
            _scored(ours),
            Rows(**_beside(ours.records, columns)),
            specs,
            resamples=resamples,
            seed=seed,
            trained_until=(_until(champion), _until(ours)),
            challengers=arguments.integer("challengers", challengers, least=1),
        )
        if side_by_side:
            folder = f"{folder}/{ours.served.name}_{ours.served.version}"
        comparison = replace(comparison, report=f"{folder}/report.html", deployment_name=run.name)
        writable("result_path", f"{folder}/report.html").write_text(report(comparison))
        results = {"champion": None if first is None else first.folder, "challenger": second.folder}
        record: dict[str, Any] = {**comparison.to_json(), "results": results}
        write_json(f"{folder}/comparison.json", record)
        return record

    def _read_results(
        self, champion: object, challenger: object, version: object, columns: Columns
    ) -> tuple[Stored | None, Stored]:
        """Read stored result sets of the same rows."""
        if challenger is None:
            message = (
                "input: expected rows, or stored result sets in place of them.\nGive input, or challenger_results with "
                "or without champion_results."
            )
            raise InvalidInputError(message)
        second = self._stored("challenger_results", challenger)
        check_columns("challenger_results", second.results.records, columns)
        if version is not None:
            named, served = Reference.read("challenger", version), second.results.served
            if named.version != served.version or named.model_name not in (None, served.name):
                arguments.refuse("challenger", f"{served}, whose answers challenger_results holds", version)
        if champion is None:
            return None, second
        first = self._stored("champion_results", champion)
        _check_same_rows(first.results.records, second.results.records)
        return first, second

    def _stored(self, what: str, path: object) -> Stored:
        results = read_result_set(what, path)
        if results.served.project is None:
            results = replace(results, served=replace(results.served, project=self.client.project.name))
        return Stored(results, str(path))

    def _score_versions(self, run: Run, challenger: Reference, scoring: VersionScoring) -> tuple[Stored | None, Stored]:
        """
        Score the champion and the challenger on one temporary deployment, which is removed in any case.

        :raises HopsworksError: also if it could not be removed: a retry removes it, and uses the stored answers
        """
        self.run(_remove_left(run))
        both = self.run(find_contenders(run, challenger, by_ingress=self.access.inference_route == "istio"))
        self._on_decided(both.challenger.model)
        side = SideDeployment(run, "compare")
        place = Workplace(run, both.live, side, self.run, self._connect, lambda: self._sleep(0))
        try:
            found = scoring.score(place, both)
            self.run(side.remove())
        except HopsworksError:
            self._remove(side.name, side.remove())
            raise
        except BaseException:
            # Airflow ends a killed task by an exception, which may be no Exception, and leaves it a minute.
            self._remove(side.name, remove_of(run, _REMOVAL_SECONDS) if run.key else side.remove())
            raise
        return found

    def _remove(self, name: str, removal: Flow[object]) -> None:
        """Remove the temporary deployment after a failure, also where the task was killed; an error is only logged."""
        before = self.client.sleep
        self.client.sleep = time.sleep  # The hook's own ends each wait of a killed task.
        try:
            drive(removal, self.client.send, time.sleep)
        except Exception:
            log.exception("The temporary deployment %r is left: a later task on the deployment removes it", name)
        finally:
            self.client.sleep = before


async def _remove_left(run: Run) -> None:
    """Remove what earlier tries of this task, or tasks that were killed, have left; an error is only logged."""
    try:
        if run.key:
            await remove_of(run, REMOVAL_SECONDS)
        await remove_expired(run.project, run.name, run.clock)
    except HopsworksError as error:
        log.warning("%s; a temporary deployment beside %r may be left", error, run.name)


def _scored(results: ResultSet) -> Scored:
    return Scored(results.served, results.predictions, results.refused, results.latencies)


def _until(results: ResultSet | None) -> datetime | None:
    """Return until when the training data of a version goes; None if that is unknown."""
    if results is None or results.trained_until is None:
        return None
    return datetime.fromisoformat(trained_until.read_argument(results.trained_until))


def _read_metrics(metrics: object, columns: Columns) -> Any:
    """Check the metrics, which need labels, and return them."""
    if columns.label is None and metrics is None:
        return ()
    if columns.label is None or metrics is None:
        message = (
            "metrics and label_column: expected both, or none of them.\nWithout labels, the comparison has the "
            "agreement of the versions and the distributions of their answers only."
        )
        raise InvalidInputError(message)
    read_metrics("metrics", metrics)
    return metrics


def _check_same_rows(first: Sequence[Record], second: Sequence[Record]) -> None:
    """
    Check that two result sets are of the same rows.

    :raises InvalidInputError: naming the first row that differs
    """
    expected = "challenger_results: expected answers to the same rows as in champion_results, in the same order"
    if len(first) != len(second):
        message = f"{expected}; got {len(second)} rows, and there are {len(first)}.\nScore both on the same rows."
        raise InvalidInputError(message)
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        if one != other:
            message = f"{expected}; row {number} differs.\nSort both by the same key, and add labels to both."
            raise InvalidInputError(message)


def _folder(what: str, value: object) -> str:
    """Return the path of a folder, after checking that files in it can be written."""
    text = str(value) if isinstance(value, os.PathLike) or hasattr(value, "protocol") else value
    folder = arguments.text(what, text).rstrip("/")
    writable(what, f"{folder}/comparison.json")
    return folder


def _beside(records: Sequence[Record], columns: Columns) -> dict[str, Any]:
    """Return the columns that tell how to judge predictions."""

    def column(name: str | None) -> list[Any] | None:
        return None if name is None else [record[name] for record in records]

    return {
        "labels": column(columns.label),
        "groups": column(columns.group),
        "times": column(columns.time),
        "slices": {name: [record[name] for record in records] for name in columns.slices},
    }
