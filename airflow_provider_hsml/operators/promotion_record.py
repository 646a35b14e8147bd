"""The base of operators that return a promotion record."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.links import DeploymentLink, ModelVersionLink

from . import events, metrics
from .base import WaitingOperator, iteration_of, task_instance_id, unreported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hopsworks.domain.trigger_event import Event
    from airflow_provider_hsml.hopsworks.promotion.record import Record

    from .lineage import Lineage


class PromotionRecordOperator(WaitingOperator):
    """The base of operators that return a promotion record: push the record, its links and its events."""

    operator_extra_links = (DeploymentLink(), ModelVersionLink())
    approved_by: str | None = None

    def _promote(self, context: Context, promote: Callable[..., Record], *args: Any, **kwargs: Any) -> Record:
        """
        Promote, and return the record. A failure's record is pushed before the error is raised.

        :param promote: a method of the hook
        :param args: positional arguments of ``promote``
        :param kwargs: keyword arguments of ``promote``
        """
        try:
            record = promote(*args, **kwargs)
        except HopsworksError as error:
            if error.record is not None:
                error.record = self._reported(context, error.record)
                self._push_failure(context, error.record)
            raise
        events.emit_promotion(self, context, record)
        return self._reported(context, record)

    def _reported(self, context: Context, record: Record) -> Record:
        """Emit the metrics of a promotion, and return its record with what only the task knows."""
        kept = metrics.kept_in_a_row(context, record)
        record = replace(record, kept_in_a_row=kept, audit=audit(context, self.approved_by))
        metrics.emit_promotion(self, record)
        return record

    def act_after_wait(self, context: Context, left: Mapping[str, Any], event: Event) -> dict[str, Any]:
        """
        Resume the promotion after the wait in the triggerer.

        :param left: the state kept when the task was deferred
        :param event: the result of the wait
        """
        return self._end(context, self._promote(context, self.hook.resume_promotion, left, event))

    def act_without_event(self, context: Context, reason: str) -> dict[str, Any]:
        """
        End the task after a trigger that has not reported, with the record of the pending change.

        :param reason: Airflow's reason
        """
        names = {name: getattr(self, name, None) or None for name in ("deployment_name", "model_name")}
        return self._end(context, self._promote(context, self.hook.fail_unreported, unreported(reason), **names))

    def _end(self, context: Context, record: Record) -> dict[str, Any]:
        """End the task after its promotion, and return the result."""
        return self._push_record(context, record)

    def _push_failure(self, context: Context, record: Record) -> None:
        """Push the record of a failure. An exception here is only logged: the task ends with the failure itself."""
        try:
            self._push_record(context, record)
        except Exception:
            self.log.exception("The record could not be pushed")

    def _push_record(self, context: Context, record: Record) -> dict[str, Any]:
        """
        Push the record as a whole and by key, and return it.

        Airflow's ``multiple_outputs`` would push the keys too, but on Airflow 3.0 it fails at the first None.
        """
        from airflow.providers.common.compat.sdk import redact  # noqa: PLC0415 - not needed to parse a DAG

        plain = as_xcom(record)
        self._record = record
        self.log.info("%s", redact(record.summary()))
        by_key = {key: value for key, value in plain.items() if value is not None}
        for key, value in {"promotion": plain, **by_key}.items():
            context["ti"].xcom_push(key=key, value=value)
        return plain

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Lineage:  # noqa: ARG002
        """Return the model version and the deployment as lineage. OpenLineage's provider calls this."""
        from . import lineage  # noqa: PLC0415 - OpenLineage's provider may not be installed

        return lineage.of_promotion(self.hook.access, self._record)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Lineage:  # noqa: ARG002
        """Return empty lineage. Without this method, OpenLineage's provider calls the one for success."""
        from . import lineage  # noqa: PLC0415 - OpenLineage's provider may not be installed

        return lineage.none()


def as_xcom(record: Record) -> dict[str, Any]:
    """Return the record for XCom. Airflow masks no XComs, and a message of Hopsworks may contain a secret value."""
    from airflow.providers.common.compat.sdk import redact  # noqa: PLC0415 - not needed to parse a DAG

    plain = record.to_dict()
    return plain | {key: plain[key] and redact(plain[key]) for key in ("reason", "failure", "rolled_back")}


def run_key(context: Context) -> str:
    """
    Return a key of the task instance. A retry has the same key.

    A cleared task gets a new key: clearing raises ``max_tries``, the number after the ``@``. On Airflow 3.4 and later,
    clearing a task loop replaces its next iterations instead: the new ones have the same index and tries, and another
    ``region_id``.
    """
    ti = context["ti"]
    region = getattr(ti, "region_id", None)
    # It is all zeros outside of task loops and mapped tasks.
    tries = f"{ti.max_tries}/{region}" if region and region.int else str(ti.max_tries)
    return f"{'/'.join(map(str, task_instance_id(context)))}@{tries}"


def audit(context: Context, approved_by: str | None = None) -> dict[str, Any]:
    """
    Return the try of the task for the record and the journal, with the version of the DAG's code where Airflow has it.

    :param approved_by: who approved the plan
    """
    ti = context["ti"]
    bundle = getattr(ti, "bundle_instance", None)  # None on Airflow 2.
    return {
        **{name: getattr(ti, name, None) for name in ("dag_id", "run_id", "task_id", "map_index", "try_number")},
        "iteration": iteration_of(context),
        "bundle_name": getattr(bundle, "name", None),
        "bundle_version": getattr(bundle, "version", None),
        "approved_by": approved_by,
    }
