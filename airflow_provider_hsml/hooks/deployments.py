"""Verbs that create, change, start, stop and delete deployments."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name
from airflow_provider_hsml.hopsworks.domain.diff import model_settings
from airflow_provider_hsml.hopsworks.domain.spec import DeploymentSpec
from airflow_provider_hsml.hopsworks.errors import SupersededError
from airflow_provider_hsml.hopsworks.flow import Backoff, Deferred, drive, steady
from airflow_provider_hsml.hopsworks.promotion import resume
from airflow_provider_hsml.hopsworks.rollout import restart, stop
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, RolloutPolicy, Run
from airflow_provider_hsml.hopsworks.rollout.reconcile import Reconciler, reconcile

from .looks import DeploymentLooks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues
    from airflow_provider_hsml.hopsworks.domain.trigger_event import Event

log = logging.getLogger(__name__)

_BRING_BACK = 30.0
"""Seconds for a deployment that is stopping to be stopped, when its restart was broken off."""


class DeploymentVerbs(DeploymentLooks):
    """What can be done with deployments."""

    def save_deployment(
        self,
        spec: DeploymentSpec | Mapping[str, Any] | None = None,
        *,
        deployment_name: str,
        model_name: str | None = None,
        model_version: int | None = None,
        timeout: float = 600.0,
    ) -> Deployment:
        """
        Create or update a deployment, start it, and return as soon as that has been asked for.

        :param spec: its configuration; at an update, what is not given keeps what is live
        :param deployment_name: its name
        :param model_name: the model to serve; None to keep the one being served, or to serve a script alone
        :param model_version: its version; None for the newest
        :param timeout: seconds for what must come before the last request
        """
        model = None if model_name is None else self.get_model(model_name, model_version)
        desired = DeploymentSpec.read(spec or {}).setting_values()
        return self.reconcile(deployment_name, model, desired, timeout=timeout, wait=False).deployment

    def reconcile(
        self,
        name: str,
        model: ModelVersion | None,
        settings: SettingValues,
        *,
        timeout: float = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
        trust: bool = True,
    ) -> Outcome:
        """
        Bring a deployment to a configuration and see that it serves: create, update, start, attach, or nothing.

        :param name: the deployment's name
        :param model: the version to serve; None to keep the one being served
        :param settings: settings that were asked for
        :param timeout: seconds for one change: sent, arrived, first prediction answered
        :param poll_interval: seconds between looks
        :param wait: whether to wait for the last change to arrive
        :param trust: whether what is as wanted already is taken for one that has arrived
        """
        settings = settings | (model_settings(model) if model else {})
        run = Run(self.client.project, check_deployment_name(name), timeout, poll_interval, steady())
        policy = RolloutPolicy(wait=wait, trust=trust)
        return self.run(reconcile(Reconciler(run, Desired(settings, model), policy)))

    def start_deployment(
        self,
        name: str,
        *,
        timeout: float = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
        trusted: bool = True,
    ) -> Deployment:
        """
        Start a deployment; one that serves already is fine as it is.

        :param name: the deployment's name
        :param timeout: seconds until it must serve
        :param poll_interval: seconds between looks
        :param wait: whether to wait until it serves
        :param trusted: whether its state is what it says; False right after a change, when it may be that of before
        """
        return self.reconcile(
            name, None, {}, timeout=timeout, poll_interval=poll_interval, wait=wait, trust=trusted
        ).deployment

    def stop_deployment(
        self, name: str, *, timeout: float = 600.0, poll_interval: float = 10.0, wait: bool = True
    ) -> Deployment | None:
        """
        Stop a deployment, whatever state it is in; one that is stopped, or not there, is fine as it is.

        :param name: the deployment's name
        :param timeout: seconds until it must be stopped
        :param poll_interval: seconds between looks
        :param wait: whether to wait until it is stopped
        :return: as it is then; None when there is no such deployment
        """
        return self.run(
            stop.stop(
                self.client.project, check_deployment_name(name), self._backoff(timeout, poll_interval), wait=wait
            )
        )

    def restart_deployment(
        self,
        name: str,
        *,
        rolling: bool = False,
        timeout: float = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
    ) -> Deployment:
        """
        Stop a deployment and start it; one that is down is only started.

        Whatever ends this before the start was asked for, it is asked for all the same: what served before is not left
        down.

        :param name: the deployment's name
        :param rolling: replace the instances while the old ones answer, without a stop (Hopsworks 4.8 and later)
        :param timeout: seconds for the stop, and again for the start
        :param poll_interval: seconds between looks
        :param wait: whether to wait until it serves; the stop is waited for in any case
        :raises NotFoundError: there is none; the message names those that are
        """
        before = self.get_deployment(name)
        how = restart.rolling_restart if rolling else restart.restart
        try:
            run = Run(self.client.project, name, timeout, poll_interval, steady())
            return self.run(how(run, wait=wait)).deployment
        except (Deferred, SupersededError):
            raise
        except BaseException:
            # Airflow 2 ends a killed task by an exception that is no Exception.
            if not (rolling or before.status.is_down):
                self._bring_back(name)
            raise

    def resume_start(self, left: Mapping[str, Any], event: Event) -> Deployment:
        """
        Resume a start or a restart after its long wait was deferred.

        :param left: the ``watch``, as ``resume.to_json`` returns it, and the ``context`` of the task that deferred it
        :param event: the event with which the trigger ended
        """
        watch = resume.from_json(self.client.project, left["watch"], steady())
        flow = resume.Resumption(watch, event).run()
        return self.run(restart.check_restarted(flow, left["context"] or {})).deployment

    def _bring_back(self, name: str) -> None:
        """Start what was left down, within the seconds that a task which is being killed still has."""
        backoff = Backoff(first=0.2, most=1.0, deadline=time.time() + _BRING_BACK)
        try:
            drive(restart.start_again(self.client.project, name, backoff), self.client.send, time.sleep)
        except Exception:
            log.exception("Deployment %r may be left stopped: start it", name)

    def delete_deployment(
        self, name: str, *, force: bool = False, timeout: float = 600.0, poll_interval: float = 10.0
    ) -> Deployment | None:
        """
        Delete a deployment and wait until it is gone; one that is not there is deleted already.

        :param name: the deployment's name
        :param force: delete it also when it runs
        :param timeout: seconds until it must be gone
        :param poll_interval: seconds between looks
        :return: as it was before; None when there was none
        :raises InvalidInputError: it is neither Created nor Stopped, and ``force`` was not given
        """
        backoff = self._backoff(timeout, poll_interval)
        return self.run(stop.delete(self.client.project, check_deployment_name(name), backoff, force=force))

    def _backoff(self, timeout: float, poll_interval: float) -> Backoff:
        clock = steady()
        return Backoff(first=0.5, most=poll_interval, deadline=clock() + timeout, clock=clock)
