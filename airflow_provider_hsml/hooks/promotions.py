"""The part of ``HsmlHook`` that promotes model versions and rolls deployments back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.deployment import check_deployment_name, check_model
from airflow_provider_hsml.hopsworks.domain.gate import Gate, Metric
from airflow_provider_hsml.hopsworks.domain.plain import from_text
from airflow_provider_hsml.hopsworks.domain.spec import DeploymentSpec
from airflow_provider_hsml.hopsworks.domain.verification import Verification
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.promotion.plan import Plan
from airflow_provider_hsml.hopsworks.promotion.preflight import PreflightMode
from airflow_provider_hsml.hopsworks.promotion.promote import Promotion, Selection
from airflow_provider_hsml.hopsworks.promotion.rollback import PREVIOUS, PromotionReference, Rollback
from airflow_provider_hsml.hopsworks.rollout.inputs import RolloutPolicy

from .base import in_time
from .models import direction_of
from .promotion_driver import PromotionDriverMixin

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow_provider_hsml.hopsworks.domain.judge import Checks
    from airflow_provider_hsml.hopsworks.promotion.record import Record


class PromotionsMixin(PromotionDriverMixin):
    """Promote a model version to a deployment, and roll a deployment back. Each method returns the promotion record."""

    @in_time
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
        unschedulable_grace: float | str = 300.0,
        preflight: bool | str = False,
        run_key: str = "",
        audit: Mapping[str, Any] | None = None,
        timeout: float | timedelta = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
    ) -> Record:
        """
        Deploy a version of a model, or a script without a model, and verify that it serves.

        See ``DeployModelOperator`` for the details of the arguments.

        :param model_name: the model; None to serve the script in ``spec`` without a model
        :param model_version: the version's number, or ``"latest"``
        :param deployment_name: None derives the name from the model's
        :param spec: the deployment's configuration
        :param verification: the checks that the version has to pass; None for those registered with it
        :param model_project: the project that owns the model and shares its registry; None for this project
        :param rollout: ``rolling``, or ``recreate`` to stop the deployment for the change, when the cluster has no room
            for old and new instances
        :param plan_only: decide and return the planned change in the record's ``plan``, without changing anything
        :param plan: the record of an earlier ``plan_only``: exactly that plan is applied; ``latest`` then means the
            planned version
        :param when_killed: ``leave`` or ``stop`` a deployment that is being created when this call is interrupted
        :param unschedulable_grace: seconds for which a cluster without room for the instances may find some
        :param preflight: try the change in a temporary deployment before the live one is touched: False, True, or
            ``"if_possible"``, to go on without where there is no room for one
        :param run_key: identifies the task; a retry uses the same
        :param audit: the try of the task and who approved it, as plain JSON, for the journal
        :param timeout: seconds, or a ``timedelta``, for one change, and again for its rollback
        :param poll_interval: seconds between polls
        :param wait: whether to wait until the version is live and verified
        :raises RolledBackError: the change failed and the previous version serves again; the error has the record
        """
        wait = arguments.boolean("wait", wait)
        planned = None if plan is None else Plan.read(plan)
        newest = model_version == "latest"
        if newest and planned is not None:
            newest, model_version = planned.model_version is None, planned.model_version or "latest"
        promotion = Promotion(
            self._new_run(_name(deployment_name), timeout, poll_interval, run_key, audit),
            Selection(
                model_name,
                None if newest else arguments.integer("model_version", model_version, least=1),
                model_project=_optional_text("model_project", model_project),
            ),
            DeploymentSpec.read(spec).setting_values(),
            RolloutPolicy(wait=wait, unschedulable_grace=_grace(unschedulable_grace), recreate=_is_recreate(rollout)),
            _checks(verification, wait=wait),
            plan_only=arguments.boolean("plan_only", plan_only),
            plan=planned,
            stop_when_killed=stops_when_killed(when_killed),
            on_decided=self._on_decided,
            preflight=_preflight(preflight, wait=wait),
        )
        return self._promote(promotion.promote(), promotion)

    @in_time
    def deploy_best_model(
        self,
        model_name: str,
        metric: str,
        direction: str,
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
        unschedulable_grace: float | str = 300.0,
        preflight: bool | str = False,
        run_key: str = "",
        audit: Mapping[str, Any] | None = None,
        timeout: float | timedelta = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
    ) -> Record:
        """
        Deploy the best version of a model, if it is better than the serving version.

        See ``DeployBestModelOperator`` for details, and ``deploy_model`` for arguments not listed here.

        :param model_name: the model's name
        :param metric: the metric to compare by
        :param direction: ``max`` or ``min``: which end is better
        :param candidates: numbers of versions, or mappings with the key ``model_version``; None for all
        :param gate: the conditions for replacing the serving version; None: a better metric suffices
        :param verification: the checks that the new version has to pass; None for those registered with it
        :raises RolledBackError: the change failed and the previous version serves again; the error has the record
        """
        wait = arguments.boolean("wait", wait)
        rules = Gate.read(gate, "gate").rules()
        by = Metric(
            arguments.text("metric", metric),
            direction_of("direction", direction),
            _version_numbers(candidates, model_name),
        )
        promotion = Promotion(
            self._new_run(_name(deployment_name), timeout, poll_interval, run_key, audit),
            Selection(model_name, by=by, rules=rules, model_project=_optional_text("model_project", model_project)),
            DeploymentSpec.read(spec).setting_values(),
            RolloutPolicy(wait=wait, unschedulable_grace=_grace(unschedulable_grace), recreate=_is_recreate(rollout)),
            _checks(verification, wait=wait),
            plan_only=arguments.boolean("plan_only", plan_only),
            stop_when_killed=stops_when_killed(when_killed),
            on_decided=self._on_decided,
            preflight=_preflight(preflight, wait=wait),
        )
        return self._promote(promotion.promote(), promotion)

    @in_time
    def rollback_deployment(
        self,
        name: str,
        to: int | str = PREVIOUS,
        *,
        model_version: int | str | None = None,
        reject: bool | str = True,
        promotion: Mapping[str, Any] | str | None = None,
        run_key: str = "",
        audit: Mapping[str, Any] | None = None,
        timeout: float | timedelta = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
    ) -> Record:
        """
        Roll a deployment back to its previous version.

        See ``RollbackDeploymentOperator`` for the details of the arguments.

        :param name: the deployment's name
        :param to: ``previous``, or the number of a deployment version
        :param model_version: deploy this version of the model instead
        :param reject: whether ``deploy_best_model`` must not choose the removed version again; ignored with
            ``model_version``
        :param promotion: the record of the promotion to undo; a newer one is not undone. Not with ``model_version``
        :param run_key: identifies the task; a retry uses the same
        :param audit: the try of the task and who approved it, as plain JSON, for the journal
        :param timeout: seconds, or a ``timedelta``, for one change, and again for its rollback
        :param poll_interval: seconds between polls
        :param wait: whether to wait until the previous version is live and verified
        """
        undone = None if promotion is None else PromotionReference.read(promotion)
        reject = arguments.boolean("reject", reject)
        if undone is not None and (model_version is not None or undone.deployment_name != name):
            message = (
                f"promotion: the record is of deployment {undone.deployment_name!r}; expected one of {name!r}, and no "
                "model_version beside it."
            )
            raise InvalidInputError(message)
        if model_version is None:
            target = to if to == PREVIOUS else arguments.integer("to", to, least=1)
            name = check_deployment_name(name)
            run = self._new_run(name, timeout, poll_interval, run_key, audit)
            rollback = Rollback(
                run,
                target,
                wait=arguments.boolean("wait", wait),
                reject=reject,
                promotion=undone,
                on_decided=self._on_decided,
            )
            return self._promote(rollback.roll_back())
        if to != PREVIOUS:
            message = (
                f"Deployment {name!r}: to ({to!r}) and model_version ({model_version!r}) were given.\nGive one of them."
            )
            raise InvalidInputError(message)
        live = self._find_deployment(name)
        check_model(live)
        if live.model_name is None:
            message = f"{live} serves no model.\nGive to, a deployment version, in place of model_version."
            raise InvalidInputError(message)
        return self.deploy_model(
            live.model_name,
            model_version,
            deployment_name=name,
            model_project=live.model_project,
            run_key=run_key,
            audit=audit,
            timeout=timeout,
            poll_interval=poll_interval,
            wait=wait,
        )


def _name(deployment_name: str | None) -> str:
    """Read ``deployment_name``; empty to derive the name from the model's."""
    return "" if deployment_name is None else check_deployment_name(deployment_name)


def _optional_text(what: str, value: object) -> str | None:
    return None if value is None else arguments.text(what, value)


def _is_recreate(rollout: str) -> bool:
    return arguments.choice("rollout", rollout, ("rolling", "recreate")) == "recreate"


def _grace(value: float | str) -> float:
    return arguments.seconds("unschedulable_grace", value)


def stops_when_killed(given: str) -> bool:
    """Read ``when_killed``: whether it is ``stop``, and not ``leave``."""
    return arguments.choice("when_killed", given, ("leave", "stop")) == "stop"


def _preflight(given: object, *, wait: bool) -> PreflightMode:
    """Read the ``preflight`` argument."""
    mode = PreflightMode.read("preflight", given)
    if mode is not PreflightMode.OFF and not wait:
        message = "preflight: it needs wait=True, since a version is tried while the call waits."
        raise InvalidInputError(message)
    return mode


def _checks(given: object, *, wait: bool) -> Checks | None:
    """Read the ``verification`` argument."""
    if given is None:
        return None
    if not wait:
        message = "verification: it needs wait=True, since a version is verified while the call waits."
        raise InvalidInputError(message)
    read = Verification.read(given, "verification")
    if isinstance(given, str) and read.expect is not None:
        message = (
            "verification.expect: it names code to run, so it is not taken from JSON text.\nPass 'verification' as a "
            "Verification or a mapping."
        )
        raise InvalidInputError(message)
    return read.checks()


def _version_numbers(given: object, model_name: str) -> list[int] | None:
    """
    Read ``candidates``: numbers, or results of registering a model.

    :param model_name: the model of which they have to be versions
    """
    if given is None:
        return None
    numbers = []
    for row in arguments.sequence("candidates", from_text("candidates", given, "[1, 2]")):
        if isinstance(row, Mapping) and row.get("model_name") not in (None, model_name):
            arguments.refuse("candidates", f"versions of model {model_name!r}", row["model_name"])
        number = row.get("model_version") if isinstance(row, Mapping) else row
        numbers.append(arguments.integer("candidates", number, least=1))
    return numbers
