"""The operator that scores a table through a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.providers.common.compat.sdk import conf

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.batch_options import CHUNK_ROWS, MODEL_CHANGE, ROW_FORMATS, STALE_STATE
from airflow_provider_hsml.links import DeploymentLink

from .base import HsmlOperator, task_instance_id

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context


def _check_columns(what: str, value: object) -> None:
    from airflow_provider_hsml.hopsworks.batch.rows import Columns  # noqa: PLC0415 - for DAG files without this operator

    Columns.read(*((value, None) if what == "columns" else (None, value)))


class BatchPredictOperator(HsmlOperator):
    """
    Score the rows of files through a deployment, and write the predictions into files.

    Use it for tables that are too large for one request or for XCom. Rows are sent in chunks, several at a time, and
    the result has each row once, in the order of the input. A task that is interrupted in any way continues where it
    was when it is retried or cleared. The deployment is never changed, started or scaled.

    Returns a small manifest: ``result_path``, ``files``, ``errors_file``, ``counts`` (``success``, ``error``, and
    ``skipped``, which is 0: no row is left out), ``model_name``, ``model_version``, ``deployment_version``,
    ``single_version`` (true, false or ``"unknown"``), ``fingerprint``, ``seconds``, ``rows_per_second``, ``latency_ms``
    (``p50``, ``p95``, ``p99``) and ``distribution``. The same is in ``manifest.json`` in ``result_path``. Only the
    files that it names are the result: each row of it has ``row`` (its number in the input, from 0), the key columns,
    ``prediction``, and ``error`` where there is none. Files of JSON lines and CSV give JSON lines, Parquet gives
    Parquet.

    :param deployment_name: the name of the deployment, which has to run
    :param input: files of rows: a path, a pattern such as ``/data/*.jsonl``, a folder, or a list of them; on this
        machine or in object storage. JSON lines, also packed with gzip; with the extra ``[tables]`` also Parquet and
        CSV. Or a shard of ``split_input``
    :param result_path: a folder for the result, one for each run. In object storage, if tasks run on several machines
    :param columns: the columns that the model gets, in its order; or a mapping of their names in the input to those
        that the model knows. None: those that the schema of the deployment or the registered input example has
    :param key_columns: the columns that are carried into the result. None may be named ``row``, ``prediction``,
        ``error``, ``field`` or ``reason``, as those of the result and of the errors file
    :param row_format: ``"list"`` or ``"record"``, how a row is sent; None: as the schema or the example has it
    :param chunk_rows: rows of a request, at most as many as the schema allows
    :param concurrency: the largest number of requests at a time. None: 4 through Hopsworks, whose proxy has about ten
        connections for all of its users; 16 at the ingress. Fewer are sent while the deployment is overloaded
    :param fail_on_partial_error: whether the task fails if any row failed. The result is complete in both cases
    :param max_errors: how many rows may fail before the task stops and fails; None: 1 % of the rows
    :param on_stale_state: what to do if ``result_path`` holds results of another run, of other rows, arguments or
        another model version: ``"fail"``, or ``"restart"``, which removes them
    :param on_model_change: what to do if the deployment serves another version in the middle: ``"fail"``; ``"restart"``
        with the first row; or ``"allow"`` several versions in one result
    :param reuse: whether the result of another run in the same folder is used, if everything else is the same. Refused
        where features are looked up or a transformer runs: the same keys have other answers tomorrow
    :param timeout: seconds, or a ``timedelta``, for one request with its retries, and for a change of the deployment
        that is in progress at the beginning
    :param poll_interval: seconds, or a ``timedelta``, between polls of such a change
    """

    operator_extra_links = (DeploymentLink(),)
    template_fields: Sequence[str] = (
        *HsmlOperator.template_fields,
        "deployment_name",
        "input",
        "result_path",
        "columns",
        "key_columns",
        "row_format",
        "chunk_rows",
        "concurrency",
        "fail_on_partial_error",
        "max_errors",
        "on_stale_state",
        "on_model_change",
        "reuse",
    )
    template_fields_renderers = {"input": "json", "columns": "json", "key_columns": "json"}  # noqa: RUF012
    structured: ClassVar = {"columns": _check_columns, "key_columns": _check_columns}

    def __init__(
        self,
        *,
        deployment_name: str,
        input: Any,  # noqa: A002 - the name in the interface
        result_path: str | os.PathLike[str],
        columns: Sequence[str] | Mapping[str, str] | str | None = None,
        key_columns: Sequence[str] | str | None = None,
        row_format: str | None = None,
        chunk_rows: int | str = CHUNK_ROWS,
        concurrency: int | str | None = None,
        fail_on_partial_error: bool | str = True,
        max_errors: int | str | None = None,
        on_stale_state: str = "fail",
        on_model_change: str = "fail",
        reuse: bool | str = False,
        timeout: float | timedelta = 600.0,
        poll_interval: float | timedelta = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_literal(arguments.deployment_name, "deployment_name", deployment_name)
        self._check_structured("columns", columns)
        self._check_structured("key_columns", key_columns)
        for name, value, allowed in (
            ("row_format", row_format, ROW_FORMATS),
            ("on_stale_state", on_stale_state, STALE_STATE),
            ("on_model_change", on_model_change, MODEL_CHANGE),
        ):
            self._check_literal(arguments.choice, name, value, allowed=allowed)
        self._check_literal(arguments.integer, "chunk_rows", chunk_rows, least=1)
        self._check_literal(arguments.integer, "concurrency", concurrency, least=1)
        self._check_literal(arguments.integer, "max_errors", max_errors, least=0)
        self._check_literal(arguments.boolean, "fail_on_partial_error", fail_on_partial_error)
        self._check_literal(arguments.boolean, "reuse", reuse)
        self.deployment_name = deployment_name
        self.input = input
        self.result_path = result_path
        self.columns = columns
        self.key_columns = key_columns
        self.row_format = row_format
        self.chunk_rows = chunk_rows
        self.concurrency = concurrency
        self.fail_on_partial_error = fail_on_partial_error
        self.max_errors = max_errors
        self.on_stale_state = on_stale_state
        self.on_model_change = on_model_change
        self.reuse = reuse
        self.timeout = self._check_argument(arguments.seconds, "timeout", timeout)
        self.poll_interval = self._check_argument(arguments.seconds, "poll_interval", poll_interval, least=0.1)

    def act(self, context: Context) -> dict[str, Any]:
        """Score the rows."""
        from airflow.providers.common.compat.sdk import redact  # noqa: PLC0415 - not needed to parse a DAG

        self._warn_of_local_path()
        manifest = self.hook.score_table(
            self.deployment_name,
            self.input,
            result_path=self.result_path,
            columns=self.columns,
            key_columns=self.key_columns,
            row_format=self.row_format,
            chunk_rows=self.chunk_rows,
            concurrency=self.concurrency,
            fail_on_partial_error=self.fail_on_partial_error,
            max_errors=self.max_errors,
            on_stale_state=self.on_stale_state,
            on_model_change=self.on_model_change,
            reuse=self.reuse,
            run_key="/".join(map(str, task_instance_id(context))),
            try_name=f"try{context['ti'].try_number}",
            timeout=self.timeout,
            poll_interval=self.poll_interval,
        )
        # Airflow masks no XComs, and an answer of a model may contain a secret value.
        return cast("dict[str, Any]", redact(manifest))

    def _warn_of_local_path(self) -> None:
        """Warn if a retry of the task may run on another machine, where the files of this one are not."""
        executor = conf.get("core", "executor", fallback="")
        path = str(self.result_path)
        is_local = "://" not in path or path.startswith("file://")
        if is_local and any(name in executor for name in ("Celery", "Kubernetes")):
            self.log.warning(
                "result_path %r is on this machine, and with the %s a retry may run on another one, which has no files "
                "of this one. Give a path in object storage, or one that all workers share.",
                path,
                executor,
            )
