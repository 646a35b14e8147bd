"""The part of ``HsmlHook`` that drives promotions: to their records, after a deferral, and when they are killed."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.hopsworks.flow import Deferred, drive, steady
from airflow_provider_hsml.hopsworks.promotion import leases, promote, resume, unreported
from airflow_provider_hsml.hopsworks.promotion.preflight import PreflightMode
from airflow_provider_hsml.hopsworks.promotion.promote import Promotion, Selection
from airflow_provider_hsml.hopsworks.rollout import stop
from airflow_provider_hsml.hopsworks.rollout.inputs import RolloutPolicy, Run

from .base import HsmlBaseHook, new_backoff

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.trigger_event import Event
    from airflow_provider_hsml.hopsworks.flow import Flow
    from airflow_provider_hsml.hopsworks.promotion.record import PromotionResult, Record

log = logging.getLogger(__name__)

_REMOVE_BEFORE_EXIT_SECONDS = 20.0
"""Seconds for which the removal of a killed task's temporary deployment is retried."""


class PromotionDriverMixin(HsmlBaseHook):
    """Drive a promotion or a rollback to its record, resume it after a deferral, and clean up when it is killed."""

    def resume_promotion(self, left: Mapping[str, Any], event: Event) -> Record:
        """
        Resume a promotion or a rollback after a trigger has run its long wait.

        :param left: the state kept when the task was deferred: ``watch`` from ``resume.to_json``, and ``context``
        :param event: the event with which the trigger ended
        """
        context, project = left["context"], self.client.project
        watch = resume.from_json(project, left["watch"], steady())
        promotion = Promotion(
            Run(project, context["deployment_name"], watch.timeout, watch.interval, steady(), context["run_key"]),
            Selection(None, by=promote.metric_of(context)),
            {},
            RolloutPolicy(recreate=context["recreate"]),
        )
        return self._promote(promote.resume_promotion(resume.Resumption(watch, event), context), promotion)

    def fail_unreported(
        self, error: HopsworksError, *, deployment_name: str | None, model_name: str | None = None
    ) -> Record:
        """
        Raise the error of a deferred wait that was never reported, with the record of its pending change.

        :param error: the error
        :param deployment_name: None: the name that is derived from the model's
        :param model_name: the model that was to be deployed
        """
        try:
            project = self.client.project
        except HopsworksError as unread:
            log.warning("%s; the task ends without a record", unread)
            raise error from None
        run = Run(project, deployment_name or "", 60.0, 10.0, steady())
        promotion = Promotion(run, Selection(model_name), {}, on_decided=self._on_decided)

        async def fail() -> PromotionResult:
            raise await unreported.add_record(promotion, error)

        return self._promote(fail())

    def _promote(self, flow: Flow[PromotionResult], promotion: Promotion | None = None) -> Record:
        """Drive a promotion, and return its record with the deployment's URLs."""
        by = promotion.selection.by if promotion else None
        try:
            result = self.run(flow)
        except Deferred:
            raise
        except HopsworksError as error:
            if error.record is not None and error.record.deployment_id is not None:
                error.record = replace(error.record, url=self.deployment_url(error.record.deployment_id))
            raise
        except BaseException as error:
            # Airflow 2 ends a killed task by an exception that is not an Exception.
            if promotion is not None:
                if promotion.stop_when_killed and not self._is_over(error):
                    promotion = replace(promotion, stop_when_killed=False)
                self._tidy_up(promotion)
            raise
        deployment = result.outcome.deployment if result.outcome else result.seen
        if deployment is None:
            return result.record(by)
        return result.record(
            by, inference_url=self.inference_url(deployment.name), url=self.deployment_url(deployment.id)
        )

    def _tidy_up(self, promotion: Promotion) -> None:
        """
        Clean up after a killed promotion.

        A deployment that was stopped for its change is started. One that was being created is stopped, if
        ``when_killed`` says so. Then a temporary deployment is deleted: production comes first.
        """
        self._restore_before_exit(promotion)
        if promotion.preflight is not PreflightMode.OFF:
            try:
                self._remove_before_exit(promotion)
            except HopsworksError as error:
                log.warning("%s; a temporary deployment of the killed task is deleted after its lease expires", error)

    def _restore_before_exit(self, promotion: Promotion) -> None:
        """Start or stop the deployment of a killed promotion, as ``_tidy_up`` says."""
        try:
            name, journal = drive(promotion.read_journal(), self.client.send, time.sleep)
            entry = journal.newest
            if entry is None or entry.run != promotion.run.key or not entry.is_pending:
                return
            if entry.before is not None:
                if promotion.policy.recreate and entry.before.was_up:
                    self._start_before_exit(name)
            elif promotion.stop_when_killed:
                self.run(stop.stop(self.client.project, name, new_backoff(600.0, 10.0), wait=False))
            else:
                log.warning("Deployment %r, which was being created, is left as it is", name)
        except HopsworksError:
            log.exception("The cleanup after a killed task failed: check the state of its deployment")

    def _remove_before_exit(self, promotion: Promotion) -> None:
        """Delete the temporary deployment of a killed promotion, in the few seconds that its task still has."""
        self.client.sleep = time.sleep  # The hook's own may end each wait of a killed task.
        name, journal = drive(promotion.read_journal(), self.client.send, time.sleep)
        if journal.has_leases:
            run = replace(promotion.run, name=name)
            drive(leases.remove_of(run, _REMOVE_BEFORE_EXIT_SECONDS), self.client.send, time.sleep)
