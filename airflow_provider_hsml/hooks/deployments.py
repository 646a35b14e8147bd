"""Verbs that create, change, start, stop and delete deployments."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import reading, restarting, stopping
from airflow_provider_hsml.hopsworks.arrival import Arrival, Arrived
from airflow_provider_hsml.hopsworks.changes import model_wanted
from airflow_provider_hsml.hopsworks.deployments import check_deployment_name
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInput, Superseded
from airflow_provider_hsml.hopsworks.gate import Gate, Metric
from airflow_provider_hsml.hopsworks.plan import Plan
from airflow_provider_hsml.hopsworks.promotion import Promotion, Record
from airflow_provider_hsml.hopsworks.rollback import PREVIOUS, Rollback
from airflow_provider_hsml.hopsworks.specs import DeploymentSpec
from airflow_provider_hsml.hopsworks.verification import Verification
from airflow_provider_hsml.hopsworks.waiting import Pace, drive

from .looks import DeploymentLooks
from .models import direction_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hsml.hopsworks.deployments import Deployment
    from airflow_provider_hsml.hopsworks.models import ModelVersion
    from airflow_provider_hsml.hopsworks.settings import Wanted
    from airflow_provider_hsml.hopsworks.verification import Checks

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
        wanted = DeploymentSpec.read(spec or {}).wanted()
        return self.converge(deployment_name, model, wanted, timeout=timeout, wait=False).deployment

    def converge(
        self,
        name: str,
        model: ModelVersion | None,
        wanted: Wanted,
        *,
        timeout: float = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
    ) -> Arrived:
        """
        Bring a deployment to a configuration and see that it serves: create, update, start, attach, or nothing.

        :param name: the deployment's name
        :param model: the version to serve; None to keep the one being served
        :param wanted: settings that were asked for
        :param timeout: seconds for one change: sent, arrived, first prediction answered
        :param poll_interval: seconds between looks
        :param wait: whether to wait for the last change to arrive
        """
        wanted = wanted | (model_wanted(model) if model else {})
        return self.run(
            Arrival(
                self.client.project,
                check_deployment_name(name),
                wanted,
                timeout=timeout,
                interval=poll_interval,
                model=model,
                wait=wait,
            ).run()
        )

    def deploy_model(
        self,
        model_name: str | None,
        model_version: int | str = "latest",
        *,
        deployment_name: str | None = None,
        spec: DeploymentSpec | Mapping[str, Any] | str | None = None,
        verification: Verification | Mapping[str, Any] | str | None = None,
        model_project: str | None = None,
        rollout: str = "rolling",
        plan_only: bool | str = False,
        plan: Mapping[str, Any] | str | None = None,
        run_key: str = "",
        timeout: float = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
    ) -> Record:
        """
        Serve a version of a model, or a script without one, and see that it really does. See ``DeployModelOperator``.

        :param model_name: the model; None to serve the script in ``spec`` alone
        :param model_version: its number, or ``"latest"``
        :param deployment_name: None for the model's own
        :param spec: the deployment's configuration
        :param verification: what it has to show; None: what was registered with the version
        :param model_project: the project that owns the model and shares its registry; None for this one
        :param rollout: ``rolling``, or ``recreate``: stopped for the change, where there is no room for old and new
        :param plan_only: decide, and say what would change; the record's ``plan`` has it
        :param plan: the record of such a plan: that is done and nothing else
        :param run_key: which task this is, the same when it is tried again
        :param timeout: seconds for one change, and again for taking it back
        :param poll_interval: seconds between looks
        :param wait: whether to wait until it has arrived
        :raises TakenBack: it failed, and what was there before is there again; with the record
        """
        newest = model_version == "latest"
        wish = Promotion(
            model_name,
            DeploymentSpec.read(spec or {}).wanted(),
            timeout,
            poll_interval,
            time.time,
            deployment_name,
            version=None if newest else reading.integer("model_version", model_version, least=1),
            model_project=model_project or None,
            wait=wait,
            checks=_checks(verification, wait=wait),
            recreate=_is_recreate(rollout),
            plan_only=reading.boolean("plan_only", plan_only),
            plan=None if plan is None else Plan.read(plan),
            run_key=run_key,
        )
        return self._promote(wish)

    def deploy_best_model(
        self,
        model_name: str,
        metric: str,
        direction: str = "max",
        *,
        candidates: Sequence[int | str | Mapping[str, Any]] | None = None,
        deployment_name: str | None = None,
        spec: DeploymentSpec | Mapping[str, Any] | str | None = None,
        gate: Gate | Mapping[str, Any] | str | None = None,
        verification: Verification | Mapping[str, Any] | str | None = None,
        model_project: str | None = None,
        rollout: str = "rolling",
        plan_only: bool | str = False,
        run_key: str = "",
        timeout: float = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
    ) -> Record:
        """
        Serve the best version of a model, if it beats the one being served. See ``DeployBestModelOperator``.

        :param model_name: the model
        :param metric: the metric to compare by
        :param direction: ``max`` or ``min``
        :param candidates: numbers of versions, or mappings with the key ``model_version``; None for all
        :param deployment_name: None for the model's own
        :param spec: the deployment's configuration
        :param gate: what it has to show before it takes the place of what is served; None: be better
        :param verification: what it has to show before it counts as arrived; None: what was registered with it
        :param model_project: the project that owns the model and shares its registry; None for this one
        :param rollout: ``rolling``, or ``recreate``: stopped for the change, where there is no room for old and new
        :param plan_only: decide, and say what would change; the record's ``plan`` has it
        :param run_key: which task this is, the same when it is tried again
        :param timeout: seconds for one change, and again for taking it back
        :param poll_interval: seconds between looks
        :param wait: whether to wait until it has arrived
        """
        wish = Promotion(
            model_name,
            DeploymentSpec.read(spec or {}).wanted(),
            timeout,
            poll_interval,
            time.time,
            deployment_name,
            rules=Gate.read(gate or {}, "gate").rules(),
            by=Metric(
                reading.text("metric", metric), direction_of("direction", direction), _version_numbers(candidates)
            ),
            model_project=model_project or None,
            wait=wait,
            checks=_checks(verification, wait=wait),
            recreate=_is_recreate(rollout),
            plan_only=reading.boolean("plan_only", plan_only),
            run_key=run_key,
        )
        return self._promote(wish)

    def rollback_deployment(
        self,
        name: str,
        to: int | str = PREVIOUS,
        *,
        model_version: int | str | None = None,
        run_key: str = "",
        timeout: float = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
    ) -> Record:
        """
        Have a deployment serve what it served before. See ``RollbackDeploymentOperator``.

        :param name: the deployment's name
        :param to: ``previous``, or the number of a deployment version
        :param model_version: serve this version of the model instead
        :param run_key: which task this is, the same when it is tried again
        :param timeout: seconds for one change, and again for taking it back
        :param poll_interval: seconds between looks
        :param wait: whether to wait until it has arrived
        """
        if model_version is None:
            target = to if to == PREVIOUS else reading.integer("to", to, least=1)
            name = check_deployment_name(name)
            return self._promote(Rollback(name, target, timeout, poll_interval, time.time, wait=wait, run_key=run_key))
        if to != PREVIOUS:
            message = f"Deployment {name!r}: give one of to ({to!r}) and model_version ({model_version!r})."
            raise InvalidInput(message)
        live = self.get_deployment(name)
        if live.model_name is None:
            message = f"{live} serves no model: give to, a deployment version."
            raise InvalidInput(message)
        return self.deploy_model(
            live.model_name,
            model_version,
            deployment_name=name,
            model_project=live.model_project,
            run_key=run_key,
            timeout=timeout,
            poll_interval=poll_interval,
            wait=wait,
        )

    def _promote(self, wish: Promotion | Rollback) -> Record:
        by = wish.by if isinstance(wish, Promotion) else None
        try:
            promoted = self.run(wish.run(self.client.project))
        except HopsworksError as error:
            if error.record is not None and error.record.deployment_id is not None:
                error.record = replace(error.record, url=self.deployment_url(error.record.deployment_id))
            raise
        except BaseException:
            # Airflow 2 ends a killed task by an exception that is no Exception.
            if isinstance(wish, Promotion) and wish.recreate:
                self._start_what_was_stopped(wish)
            raise
        deployment = promoted.arrived.deployment if promoted.arrived else promoted.before
        if deployment is None:
            return promoted.record(by)
        return promoted.record(
            by, inference_url=self.inference_url(deployment.name), url=self.deployment_url(deployment.id)
        )

    def start_deployment(
        self, name: str, *, timeout: float = 600.0, poll_interval: float = 10.0, wait: bool = True
    ) -> Deployment:
        """
        Start a deployment; one that serves already is fine as it is.

        :param name: the deployment's name
        :param timeout: seconds until it must serve
        :param poll_interval: seconds between looks
        :param wait: whether to wait until it serves
        """
        return self.converge(name, None, {}, timeout=timeout, poll_interval=poll_interval, wait=wait).deployment

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
            stopping.stop(
                self.client.project, check_deployment_name(name), self._pace(timeout, poll_interval), wait=wait
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
        :raises NotFound: there is none; the message names those that are
        """
        before = self.get_deployment(name)
        how = restarting.roll if rolling else restarting.restart
        try:
            return self.run(
                how(self.client.project, name, timeout=timeout, interval=poll_interval, wait=wait)
            ).deployment
        except Superseded:
            raise
        except BaseException:
            # Airflow 2 ends a killed task by an exception that is no Exception.
            if not (rolling or before.status.is_down):
                self._bring_back(name)
            raise

    def _start_what_was_stopped(self, wish: Promotion) -> None:
        """See that a deployment which a promotion has stopped for its change is started, whatever ended that."""
        try:
            name, journal = drive(wish.look(self.client.project), self.client.send, time.sleep)
        except HopsworksError:
            log.exception("What a deployment was stopped for has ended: look whether it serves")
            return
        entry = journal.newest
        if entry is not None and entry.is_unfinished and entry.before is not None and entry.before.was_up:
            self._bring_back(name)

    def _bring_back(self, name: str) -> None:
        """Start what was left down, within the seconds that a task which is being killed still has."""
        pace = Pace(first=0.2, most=1.0, deadline=time.time() + _BRING_BACK)
        try:
            drive(restarting.bring_back(self.client.project, name, pace), self.client.send, time.sleep)
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
        :raises InvalidInput: it is neither Created nor Stopped, and ``force`` was not given
        """
        pace = self._pace(timeout, poll_interval)
        return self.run(stopping.delete(self.client.project, check_deployment_name(name), pace, force=force))

    def _pace(self, timeout: float, poll_interval: float) -> Pace:
        return Pace(first=0.5, most=poll_interval, deadline=time.time() + timeout)


def _is_recreate(rollout: str) -> bool:
    return reading.choice("rollout", rollout, ("rolling", "recreate")) == "recreate"


def _checks(given: object, *, wait: bool) -> Checks | None:
    """Read a verification."""
    if given is None:
        return None
    if not wait:
        message = "verification: it needs wait=True, since only what is waited for can be verified."
        raise InvalidInput(message)
    return Verification.read(given, "verification").checks()


def _version_numbers(given: object) -> list[int] | None:
    """Read candidates: numbers, or what registering returned."""
    if given is None:
        return None
    rows = reading.sequence("candidates", given)
    numbers = [row.get("model_version") if isinstance(row, Mapping) else row for row in rows]
    return [reading.integer("candidates", number, least=1) for number in numbers]
