"""Verbs that put model versions into production, and back."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name
from airflow_provider_hsml.hopsworks.domain.gate import Gate, Metric
from airflow_provider_hsml.hopsworks.domain.spec import DeploymentSpec
from airflow_provider_hsml.hopsworks.domain.verification import Verification
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError
from airflow_provider_hsml.hopsworks.flow import Deferred, drive, steady
from airflow_provider_hsml.hopsworks.promotion import promote, resume
from airflow_provider_hsml.hopsworks.promotion.plan import Plan
from airflow_provider_hsml.hopsworks.promotion.promote import Promotion, Selection
from airflow_provider_hsml.hopsworks.promotion.rollback import PREVIOUS, PromotionReference, Rollback
from airflow_provider_hsml.hopsworks.rollout.inputs import RolloutPolicy, Run

from .deployments import DeploymentVerbs
from .models import direction_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hsml.hopsworks.domain.judge import Checks
    from airflow_provider_hsml.hopsworks.domain.trigger_event import Event
    from airflow_provider_hsml.hopsworks.flow import Flow
    from airflow_provider_hsml.hopsworks.promotion.record import PromotionResult, Record

log = logging.getLogger(__name__)


class PromotionVerbs(DeploymentVerbs):
    """What can be done to have another version serve."""

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
        when_killed: str = "leave",
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
        :param plan: the record of such a plan: that is done and nothing else; ``latest`` is then the planned version
        :param when_killed: what becomes of a deployment that is being created when this is broken off: ``leave``, or
            ``stop``
        :param run_key: which task this is, the same when it is tried again
        :param timeout: seconds for one change, and again for taking it back
        :param poll_interval: seconds between looks
        :param wait: whether to wait until it has arrived
        :raises RolledBackError: it failed, and what was there before is there again; with the record
        """
        planned = None if plan is None else Plan.read(plan)
        newest = model_version == "latest"
        if newest and planned is not None:
            newest, model_version = planned.model_version is None, planned.model_version or "latest"
        promotion = Promotion(
            Run(self.client.project, deployment_name or "", timeout, poll_interval, steady(), run_key),
            Selection(
                model_name,
                None if newest else arguments.integer("model_version", model_version, least=1),
                model_project=model_project or None,
            ),
            DeploymentSpec.read(spec or {}).setting_values(),
            RolloutPolicy(wait=wait, recreate=_is_recreate(rollout)),
            _checks(verification, wait=wait),
            plan_only=arguments.boolean("plan_only", plan_only),
            plan=planned,
            stop_when_killed=stops_when_killed(when_killed),
            on_decided=self._on_decided,
        )
        return self._promote(promotion.promote(), promotion)

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
        when_killed: str = "leave",
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
        :param when_killed: what becomes of a deployment that is being created when this is broken off: ``leave``, or
            ``stop``
        :param run_key: which task this is, the same when it is tried again
        :param timeout: seconds for one change, and again for taking it back
        :param poll_interval: seconds between looks
        :param wait: whether to wait until it has arrived
        """
        rules = Gate.read(gate or {}, "gate").rules()
        by = Metric(
            arguments.text("metric", metric), direction_of("direction", direction), _version_numbers(candidates)
        )
        promotion = Promotion(
            Run(self.client.project, deployment_name or "", timeout, poll_interval, steady(), run_key),
            Selection(model_name, by=by, rules=rules, model_project=model_project or None),
            DeploymentSpec.read(spec or {}).setting_values(),
            RolloutPolicy(wait=wait, recreate=_is_recreate(rollout)),
            _checks(verification, wait=wait),
            plan_only=arguments.boolean("plan_only", plan_only),
            stop_when_killed=stops_when_killed(when_killed),
            on_decided=self._on_decided,
        )
        return self._promote(promotion.promote(), promotion)

    def rollback_deployment(
        self,
        name: str,
        to: int | str = PREVIOUS,
        *,
        model_version: int | str | None = None,
        reject: bool | str = True,
        promotion: Mapping[str, Any] | str | None = None,
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
        :param reject: whether the version that is taken away is not to be chosen as the best one again; not with
            ``model_version``
        :param promotion: the record of the promotion that is to be undone, and of no other; not with ``model_version``
        :param run_key: which task this is, the same when it is tried again
        :param timeout: seconds for one change, and again for taking it back
        :param poll_interval: seconds between looks
        :param wait: whether to wait until it has arrived
        """
        undone = None if promotion is None else PromotionReference.read(promotion)
        if undone is not None and (model_version is not None or undone.deployment_name != name):
            message = (
                f"promotion: it is of deployment {undone.deployment_name!r}; expected one of {name!r}, and no "
                "model_version beside it."
            )
            raise InvalidInputError(message)
        if model_version is None:
            target = to if to == PREVIOUS else arguments.integer("to", to, least=1)
            name = check_deployment_name(name)
            reject = arguments.boolean("reject", reject)
            run = Run(self.client.project, name, timeout, poll_interval, steady(), run_key)
            rollback = Rollback(run, target, wait=wait, reject=reject, promotion=undone, on_decided=self._on_decided)
            return self._promote(rollback.roll_back())
        if to != PREVIOUS:
            message = f"Deployment {name!r}: give one of to ({to!r}) and model_version ({model_version!r})."
            raise InvalidInputError(message)
        live = self.get_deployment(name)
        if live.model_name is None:
            message = f"{live} serves no model: give to, a deployment version."
            raise InvalidInputError(message)
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

    def resume_promotion(self, left: Mapping[str, Any], event: Event) -> Record:
        """
        Resume one of the above after its long wait was deferred.

        :param left: the ``watch``, as ``resume.to_json`` returns it, and the ``context`` of the task that deferred it
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

    def _promote(self, flow: Flow[PromotionResult], promotion: Promotion | None = None) -> Record:
        by = promotion.selection.by if promotion else None
        try:
            result = self.run(flow)
        except Deferred:
            raise
        except HopsworksError as error:
            if error.record is not None and error.record.deployment_id is not None:
                error.record = replace(error.record, url=self.deployment_url(error.record.deployment_id))
            raise
        except BaseException:
            # Airflow 2 ends a killed task by an exception that is no Exception.
            if promotion is not None:
                self._tidy_up(promotion)
            raise
        deployment = result.outcome.deployment if result.outcome else result.before
        if deployment is None:
            return result.record(by)
        return result.record(
            by, inference_url=self.inference_url(deployment.name), url=self.deployment_url(deployment.id)
        )

    def _tidy_up(self, promotion: Promotion) -> None:
        """
        After a kill, see to what a promotion leaves half done.

        What it had stopped for its change is started; what it was creating is stopped, where that was asked for.
        """
        try:
            name, journal = drive(promotion.read_journal(), self.client.send, time.sleep)
            entry = journal.newest
            if entry is None or entry.run != promotion.run.key or not entry.is_pending:
                return
            if entry.before is not None:
                if promotion.policy.recreate and entry.before.was_up:
                    self._bring_back(name)
            elif promotion.stop_when_killed:
                self.stop_deployment(name, wait=False)
            else:
                log.warning("Deployment %r, which was being created, is left as it is", name)
        except HopsworksError:
            log.exception("What a killed task has left is not known: look at its deployment")


def _is_recreate(rollout: str) -> bool:
    return arguments.choice("rollout", rollout, ("rolling", "recreate")) == "recreate"


def stops_when_killed(given: str) -> bool:
    """
    Read ``when_killed``.

    :param given: ``leave`` or ``stop``
    """
    return arguments.choice("when_killed", given, ("leave", "stop")) == "stop"


def _checks(given: object, *, wait: bool) -> Checks | None:
    """Read a verification."""
    if given is None:
        return None
    if not wait:
        message = "verification: it needs wait=True, since only what is waited for can be verified."
        raise InvalidInputError(message)
    return Verification.read(given, "verification").checks()


def _version_numbers(given: object) -> list[int] | None:
    """Read candidates: numbers, or what registering returned."""
    if given is None:
        return None
    rows = arguments.sequence("candidates", given)
    numbers = [row.get("model_version") if isinstance(row, Mapping) else row for row in rows]
    return [arguments.integer("candidates", number, least=1) for number in numbers]
