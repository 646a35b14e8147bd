"""The part of ``HsmlHook`` that creates, updates, starts, stops, restarts and deletes deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name
from airflow_provider_hsml.hopsworks.domain.diff import model_settings
from airflow_provider_hsml.hopsworks.domain.spec import DeploymentSpec
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError, SupersededError
from airflow_provider_hsml.hopsworks.flow import Deferred, steady
from airflow_provider_hsml.hopsworks.promotion import resume
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.rollout import restart, stop
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, RolloutPolicy
from airflow_provider_hsml.hopsworks.rollout.reconcile import Reconciler, reconcile

from .base import HsmlBaseHook, in_time, new_backoff

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome
    from airflow_provider_hsml.hopsworks.domain.settings import SettingValues
    from airflow_provider_hsml.hopsworks.domain.trigger_event import Event


class DeploymentChangesMixin(HsmlBaseHook):
    """Change deployments by name, without comparing model versions: ``deploy_best_model`` does that."""

    @in_time
    def save_deployment(
        self,
        spec: DeploymentSpec | Mapping[str, Any] | None = None,
        *,
        deployment_name: str,
        model_name: str | None = None,
        model_version: int | None = None,
        timeout: float | timedelta = 600.0,
    ) -> Deployment:
        """
        Create or update a deployment and start it. Return once the request was sent, without waiting for the rollout.

        :param spec: the configuration; an update keeps the live values of the fields that are not set
        :param deployment_name: letters and digits
        :param model_name: the model to serve; None keeps the served one, or serves a script without a model
        :param model_version: the version's number; None for the newest
        :param timeout: seconds, or a ``timedelta``, for the steps before the last request
        """
        desired = DeploymentSpec.read(spec).setting_values()
        number = None if model_version is None else arguments.integer("model_version", model_version, least=1)
        check_deployment_name(deployment_name)
        if model_name is None and number is not None:
            message = "model_version: it needs model_name.\nGive both, or neither to keep the served version."
            raise InvalidInputError(message)
        model = None
        if model_name is not None:
            model = self.run(lookup.find_version(self.client.project, model_name, number))
        return self._reconcile(deployment_name, model, desired, timeout=timeout, wait=False).deployment.public

    @in_time
    def _reconcile(
        self,
        name: str,
        model: ModelVersion | None,
        settings: SettingValues,
        *,
        timeout: float | timedelta = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
        trust: bool = True,
    ) -> Outcome:
        """
        Bring a deployment to the desired settings, live and verified: create, update, start, attach, or do nothing.

        :param model: the version to serve; None to keep the served one
        :param settings: the settings that the user asked for
        :param timeout: seconds, or a ``timedelta``, for one change: sent, live, first prediction answered
        :param poll_interval: seconds between polls
        :param wait: whether to wait until the last change is live
        :param trust: whether a deployment that already has the desired settings counts as live without a check
        """
        settings = settings | (model_settings(model) if model else {})
        run = self._new_run(check_deployment_name(name), timeout, poll_interval)
        policy = RolloutPolicy(wait=arguments.boolean("wait", wait), trust=arguments.boolean("trusted", trust))
        return self.run(reconcile(Reconciler(run, Desired(settings, model), policy)))

    def start_deployment(
        self,
        name: str,
        *,
        timeout: float | timedelta = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
        trusted: bool = True,
    ) -> Deployment:
        """
        Start a deployment. One that already serves is left unchanged.

        :param name: the deployment's name
        :param timeout: seconds, or a ``timedelta``, until it must serve
        :param poll_interval: seconds between polls
        :param wait: whether to wait until it serves
        :param trusted: whether to believe the reported state; False right after a change, when it may be stale
        """
        return self._reconcile(
            name, None, {}, timeout=timeout, poll_interval=poll_interval, wait=wait, trust=trusted
        ).deployment.public

    @in_time
    def stop_deployment(
        self, name: str, *, timeout: float | timedelta = 600.0, poll_interval: float = 10.0, wait: bool = True
    ) -> Deployment | None:
        """
        Stop a deployment in any state. Nothing happens when it is stopped already or does not exist.

        :param name: the deployment's name
        :param timeout: seconds, or a ``timedelta``, until it must be stopped
        :param poll_interval: seconds between polls
        :param wait: whether to wait until it is stopped
        :return: the deployment after the stop; None when it does not exist
        """
        backoff, wait = new_backoff(timeout, poll_interval), arguments.boolean("wait", wait)
        stopped = self.run(stop.stop(self.client.project, check_deployment_name(name), backoff, wait=wait))
        return stopped and stopped.public

    @in_time
    def restart_deployment(
        self,
        name: str,
        *,
        rolling: bool = False,
        timeout: float | timedelta = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
    ) -> Deployment:
        """
        Stop a deployment and start it. One that is stopped is only started.

        An error or a kill between stop and start still sends the start: a serving deployment is not left stopped.

        :param name: the deployment's name
        :param rolling: replace the instances while the old ones answer, without a stop (Hopsworks 4.8 and later)
        :param timeout: seconds, or a ``timedelta``, for the stop, and again for the start
        :param poll_interval: seconds between polls
        :param wait: whether to wait until it serves; the stop is waited for in any case
        :raises NotFoundError: there is none; the message lists the names that exist
        """
        rolling, wait = arguments.boolean("rolling", rolling), arguments.boolean("wait", wait)
        run = self._new_run(check_deployment_name(name), timeout, poll_interval)
        before = self.get_deployment(name)
        how = restart.rolling_restart if rolling else restart.restart
        try:
            return self.run(how(run, wait=wait)).deployment.public
        except (Deferred, SupersededError):
            raise
        except BaseException as error:
            # Airflow 2 ends a killed task by an exception that is not an Exception.
            if rolling or before.status.is_down or self._start_before_exit(name):
                raise
            if isinstance(error, HopsworksError):
                raise error.extended(f"Deployment {name!r} is left stopped: start it.") from error
            raise

    def resume_start(self, left: Mapping[str, Any], event: Event) -> Deployment:
        """
        Resume a start or a restart after a trigger has run its long wait.

        :param left: the state kept when the task was deferred: ``watch`` from ``resume.to_json``, and ``context``
        :param event: the event with which the trigger ended
        """
        watch = resume.from_json(self.client.project, left["watch"], steady())
        flow = resume.Resumption(watch, event).run()
        return self.run(restart.check_restarted(flow, left["context"] or {})).deployment.public

    @in_time
    def delete_deployment(
        self, name: str, *, force: bool = False, timeout: float | timedelta = 600.0, poll_interval: float = 10.0
    ) -> Deployment | None:
        """
        Delete a deployment and wait until it is gone. Nothing happens when it does not exist.

        :param name: the deployment's name
        :param force: delete it even when it is neither Created nor Stopped
        :param timeout: seconds, or a ``timedelta``, until it must be gone
        :param poll_interval: seconds between polls
        :return: the deployment before the deletion; None when there was none
        :raises InvalidInputError: it is neither Created nor Stopped, and ``force`` is false
        """
        backoff, force = new_backoff(timeout, poll_interval), arguments.boolean("force", force)
        deleted = self.run(stop.delete(self.client.project, check_deployment_name(name), backoff, force=force))
        return deleted and deleted.public
