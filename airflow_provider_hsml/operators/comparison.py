"""The operator that compares two model versions on the same rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.links import DeploymentLink, ModelVersionLink, ReportLink

from .base import HsmlOperator
from .promotion_record import audit, run_key

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context

    Metric = str | Mapping[str, str]

log = logging.getLogger(__name__)


def _check_metrics(what: str, value: object) -> None:
    from airflow_provider_hsml.hopsworks.domain.comparison_metrics import read_metrics  # noqa: PLC0415 - for DAG files without this operator

    read_metrics(what, value)


def _check_columns(what: str, value: object) -> None:
    for name in arguments.sequence(what, value):
        arguments.text(what, name)


class CompareModelsOperator(HsmlOperator):
    """
    Compare the version that a deployment serves with another version, on the same rows.

    Use it before the gate of ``DeployBestModelOperator``: metrics in the registry were measured on other rows, by code
    of the training. Both versions are started on one temporary deployment, with the configuration of the live one, and
    answer the rows there. The live deployment is not asked, and its inference log stays as it is. The temporary
    deployment is removed in any case. Give ``input``, or stored answers in place of it. Needs the extra ``[metrics]``.

    Returns the comparison, which is also written to ``comparison.json`` in ``result_path``: ``champion``,
    ``challenger``, ``rows``, ``metrics`` (for each: both values, the difference, its lower bound and interval, the
    share of resamples in which the challenger is better, the smallest difference that the rows could have shown),
    ``agreement``, ``distributions``, ``latency_ms``, ``warnings``; ``report``, the path of ``report.html``; and
    ``results``, the folders with the answers of both versions. Rows that a version refuses are counted, with the
    reason in those folders. Without a served version, only the challenger is measured.

    :param deployment_name: the deployment whose version is the champion
    :param challenger: the version to compare: its number, or the result of ``RegisterModelOperator``. Needed with
        ``input``
    :param input: at most 100,000 rows: a list of records, or a file or folder of JSON lines, packed with gzip or not,
        as a local path or an object storage URL. A column ``instance`` holds the whole row as the model takes it;
        without one, the model is sent the columns that its registered example or the deployment's schema has
    :param label_column: the column with the true value; None compares the answers with each other only
    :param metrics: names of metrics, such as ``accuracy``, ``recall:fraud`` or ``rmse``, or mappings with ``metric``
        and ``direction``. ``metric`` may be the dotted path of a function, which is taken from the DAG file only
    :param group_column: rows with the same value belong together: those of one user, or of one day
    :param time_column: the time of a row, which has to be after the training data of both versions
    :param slice_columns: columns by whose values the rows are compared apart
    :param resamples: the number of resamples of the bootstrap
    :param seed: the seed of the resamples
    :param result_path: the folder for the results: a local path or an object storage URL. A mapped task writes into
        a folder of its own in it, ``<model>_<version>``
    :param champion_results: the folder of a stored result set, in place of ``input``: ``results`` of an earlier
        comparison, or one that a job has written; None measures the challenger alone
    :param challenger_results: the same of the challenger
    :param challengers: how many versions are compared for one decision, so that a gate that gets this result alone
        corrects for all of them. None: the number of mapped tasks where Airflow gives it, which is Airflow 2 only, else
        1; a list of all results in ``measured`` is corrected for without it
    :param timeout: seconds, or a ``timedelta``, until the temporary deployment serves each version
    :param poll_interval: seconds, or a ``timedelta``, between polls
    """

    operator_extra_links = (DeploymentLink(), ModelVersionLink(), ReportLink())
    template_fields: Sequence[str] = (
        *HsmlOperator.template_fields,
        "deployment_name",
        "challenger",
        "input",
        "label_column",
        "metrics",
        "group_column",
        "time_column",
        "slice_columns",
        "resamples",
        "seed",
        "result_path",
        "champion_results",
        "challenger_results",
        "challengers",
    )
    template_fields_renderers = {"input": "json", "metrics": "json", "challenger": "json"}  # noqa: RUF012
    structured: ClassVar = {"metrics": _check_metrics, "slice_columns": _check_columns}
    exclusive = ("input", "challenger_results")

    def __init__(
        self,
        *,
        deployment_name: str,
        result_path: str | os.PathLike[str],
        challenger: int | str | Mapping[str, Any] | None = None,
        input: Any = None,  # noqa: A002 - the name in the interface
        label_column: str | None = None,
        metrics: Sequence[Metric] | str | None = None,
        group_column: str | None = None,
        time_column: str | None = None,
        slice_columns: Sequence[str] | str | None = None,
        resamples: int | str = 2000,
        seed: int | str = 0,
        champion_results: str | os.PathLike[str] | None = None,
        challenger_results: str | os.PathLike[str] | None = None,
        challengers: int | str | None = None,
        timeout: float | timedelta = 600.0,
        poll_interval: float | timedelta = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_literal(arguments.deployment_name, "deployment_name", deployment_name)
        self._check_literal(arguments.integer, "resamples", resamples, least=100)
        self._check_literal(arguments.integer, "seed", seed, least=0)
        self._check_literal(arguments.integer, "challengers", challengers, least=1)
        self._check_exclusive(input=input, challenger_results=challenger_results)
        if isinstance(challenger, int | float):
            self._check_literal(arguments.integer, "challenger", challenger, least=1)
        self._check_structured("metrics", metrics)
        self._check_structured("slice_columns", slice_columns)
        self.deployment_name = deployment_name
        self.challenger = challenger
        self.input = input
        self.label_column = label_column
        self.group_column = group_column
        self.time_column = time_column
        self.slice_columns = slice_columns
        self.resamples = resamples
        self.seed = seed
        self.result_path = result_path
        self.champion_results = champion_results
        self.challenger_results = challenger_results
        self.challengers = challengers
        self.timeout = self._check_argument(arguments.seconds, "timeout", timeout)
        self.poll_interval = self._check_argument(arguments.seconds, "poll_interval", poll_interval, least=0.1)
        # A dotted path names code to run, so it must not come from a template, whose values are from outside.
        self.metric_functions = _functions(metrics)
        self.metrics = metrics
        if self.metric_functions:
            self.metrics = [one for at, one in enumerate(metrics or ()) if at not in self.metric_functions]

    def act(self, context: Context) -> dict[str, Any]:
        """Compare the versions."""
        from airflow.providers.common.compat.sdk import redact  # noqa: PLC0415 - not needed to parse a DAG

        ti = context["ti"]
        record = self.hook.compare_models(
            self.deployment_name,
            self.challenger,
            self.input,
            metrics=self._all_metrics(),
            label_column=self.label_column,
            group_column=self.group_column,
            time_column=self.time_column,
            slice_columns=self._columns(),
            resamples=self.resamples,
            seed=self.seed,
            result_path=self.result_path,
            champion_results=self.champion_results,
            challenger_results=self.challenger_results,
            challengers=self._challengers(context),
            side_by_side=self._is_from_mapped,
            reuse_key=f"{ti.dag_id}/{ti.run_id}",
            run_key=run_key(context),
            audit=audit(context),
            timeout=self.timeout,
            poll_interval=self.poll_interval,
        )
        self._links.push(ReportLink(), record["report"])
        # Airflow masks no XComs, and an answer of a model may contain a secret value. Metrics are masked without their
        # names, since Airflow masks every text below a key such as "recall:password".
        masked: Any = redact(record)
        metrics: Any = redact(list(record["metrics"].values()))
        return {**masked, "metrics": dict(zip(record["metrics"], metrics, strict=True))}

    def _challengers(self, context: Context) -> int:
        """
        Return how many challengers are compared for one decision.

        :raises InvalidInputError: ``challengers`` is given, and no whole number of 1 or more
        """
        if self.challengers is not None:
            return arguments.integer("challengers", self.challengers, least=1)
        # Airflow 3 does not tell a worker how many tasks a mapped task has.
        count = context.get("expanded_ti_count")
        if count is None and self._is_from_mapped:
            log.warning(
                "This version of Airflow does not say how many mapped tasks there are, so the comparison states one "
                "challenger.\nGive challengers=, the number of versions that are compared for one decision, or give "
                "one gate the list of all results."
            )
        return count or 1

    def _all_metrics(self) -> list[Any] | None:
        """Return the metrics in the order of the DAG file: the rendered ones, and functions from the DAG file alone."""
        from airflow_provider_hsml.hopsworks.domain.plain import from_text  # noqa: PLC0415 - not needed to parse a DAG

        if self.metrics is None:
            return None
        found = list(arguments.sequence("metrics", from_text("metrics", self.metrics, '["accuracy"]')))
        if _functions(found) or not self._are_functions_written():
            message = (
                "metrics: a dotted path names code to run, so it is taken from the DAG file only: write 'metrics' "
                "there as a list, not as a template, an XCom or an argument of expand."
            )
            raise InvalidInputError(message)
        for at, function in sorted(self.metric_functions.items()):
            found.insert(at, function)
        return found

    def _are_functions_written(self) -> bool:
        """Whether each function is written in the DAG file, and does not come from a mapped argument."""
        if not self.metric_functions or not self.has_dag():  # type: ignore[no-untyped-call]
            return True
        task = self.dag.get_task(self.task_id)
        partial = getattr(task, "partial_kwargs", None)
        if partial is None:  # The task is not mapped.
            return True
        defaults = {**self.dag.default_args, **(task.task_group.default_args if task.task_group else {})}
        return _functions(partial.get("metrics", defaults.get("metrics"))) == self.metric_functions

    def _on_answer(self, answer: Any) -> None:
        """Push the link to the live deployment; the temporary one is removed."""
        if getattr(answer, "name", None) == self.deployment_name:
            super()._on_answer(answer)

    def _columns(self) -> Any:
        from airflow_provider_hsml.hopsworks.domain.plain import from_text  # noqa: PLC0415 - not needed to parse a DAG

        return from_text("slice_columns", self.slice_columns, '["country"]')


def _functions(metrics: object) -> dict[int, Any]:
    """Return the metrics that are dotted paths, by their places."""
    if not isinstance(metrics, list | tuple):
        return {}
    from airflow_provider_hsml.hopsworks.domain.dotted_path import is_dotted_path  # noqa: PLC0415 - not needed without metrics

    names = [one.get("metric") if isinstance(one, Mapping) else one for one in metrics]
    return {at: metrics[at] for at, name in enumerate(names) if isinstance(name, str) and is_dotted_path(name)}
