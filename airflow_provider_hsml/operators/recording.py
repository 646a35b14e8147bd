"""Operators whose result is a promotion record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.links import DeploymentLink, ModelVersionLink

from . import events
from .base import WaitingOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hopsworks.domain.trigger_event import Event
    from airflow_provider_hsml.hopsworks.promotion.record import Record

    from .lineage import Lineage


class RecordingOperator(WaitingOperator):
    """What the operators have in common whose result is a promotion record."""

    operator_extra_links = (DeploymentLink(), ModelVersionLink())

    def _promote(self, context: Context, promote: Callable[..., Record], *args: Any, **kwargs: Any) -> Record:
        """
        Promote; the record is pushed also where that fails.

        :param context: Airflow's
        :param promote: a verb of the hook
        :param args: its arguments
        :param kwargs: its arguments
        """
        try:
            record = promote(*args, **kwargs)
        except HopsworksError as error:
            if error.record is not None:
                self._tell(context, error.record)
            raise
        events.emit_promotion(self, context, record)
        return record

    def go_on(self, context: Context, left: Mapping[str, Any], event: Event) -> dict[str, Any]:
        """
        Go on after the wait in the triggerer.

        :param context: Airflow's
        :param left: what was left to it
        :param event: how it ended
        """
        return self._end(context, self._promote(context, self.hook.resume_promotion, left, event))

    def _end(self, context: Context, record: Record) -> dict[str, Any]:
        """End the task after its promotion."""
        return self._finish(context, record)

    def _tell(self, context: Context, record: Record) -> None:
        """Push the record of a failure; whatever comes of that, the failure is what the task ends with."""
        try:
            self._finish(context, record)
        except Exception:
            self.log.exception("The record could not be pushed")

    def _finish(self, context: Context, record: Record) -> dict[str, Any]:
        """
        Push the record, as a whole and key by key, and return it.

        Airflow's ``multiple_outputs`` would push the keys too, but on 3.0 it fails at the first that is None.
        """
        from airflow.providers.common.compat.sdk import redact  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        plain = as_xcom(record)
        self._record = record
        self.log.info("%s", redact(record.summary()))
        given = {key: value for key, value in plain.items() if value is not None}
        for key, value in {"promotion": plain, **given}.items():
            context["ti"].xcom_push(key=key, value=value)
        return plain

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Lineage:  # noqa: ARG002
        """Give the model version and the deployment that serves it: OpenLineage's provider asks."""
        from . import lineage  # noqa: PLC0415 - OpenLineage's provider may not be installed

        return lineage.of_promotion(self.hook.access, self._record)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Lineage:  # noqa: ARG002
        """Give nothing: without this, OpenLineage's provider would ask what a success is asked."""
        from . import lineage  # noqa: PLC0415 - OpenLineage's provider may not be installed

        return lineage.none()


def as_xcom(record: Record) -> dict[str, Any]:
    """Give a record as XComs have it, where Airflow masks nothing: what Hopsworks said may have a value in it."""
    from airflow.providers.common.compat.sdk import redact  # noqa: PLC0415 - a DAG is parsed without it, and sooner

    return record.to_dict() | {"reason": redact(record.reason), "failure": record.failure and redact(record.failure)}


def run_key(context: Context) -> str:
    """
    Name the task, the same when it is tried again.

    Where a person clears it, Airflow gives it more tries, and with them another number behind the ``@``.
    """
    ti = context["ti"]
    return f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}@{ti.max_tries}"
