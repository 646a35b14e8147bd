"""Operators that start, stop, restart and delete deployments."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.deferral import defer_timeout
from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.links import DeploymentLink

from .base import HsmlOperator, WaitingOperator, unreported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.trigger_event import Event
    from airflow_provider_hsml.hopsworks.flow import Defer


_RESTARTED = "hsml_restarted"
"""The key under which a restart stores the revision that it replaces, for its retries."""


class StartDeploymentOperator(WaitingOperator):
    """
    Start a deployment and wait until it serves. One that already serves is left unchanged.

    Returns ``{"deployment_name", "deployment_id", "status", "url"}``. Fails if the deployment does not exist or does
    not serve within ``timeout``.

    :param deployment_name: the name of an existing deployment
    """

    operator_extra_links = (DeploymentLink(),)
    template_fields: Sequence[str] = (*WaitingOperator.template_fields, "deployment_name")

    def __init__(self, *, deployment_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_literal(arguments.deployment_name, "deployment_name", deployment_name)
        self.deployment_name = deployment_name

    def act(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Start the deployment."""
        deployment = self.hook.start_deployment(self.deployment_name, **self._wait_arguments())
        return _summary(self.hook, self.deployment_name, deployment)

    def act_after_wait(self, context: Context, left: Mapping[str, Any], event: Event) -> dict[str, Any]:  # noqa: ARG002
        """
        Return the result after the wait in the triggerer.

        :param left: the state kept when the task was deferred
        :param event: the result of the wait
        """
        deployment = self.hook.resume_start(left, event)
        return _summary(self.hook, self.deployment_name, deployment)


class StopDeploymentOperator(WaitingOperator):
    """
    Stop a deployment and wait until it is stopped. Nothing happens when it is stopped already or does not exist.

    Returns ``{"deployment_name", "deployment_id", "status", "url"}``. All but the name are None when the deployment
    does not exist.

    :param deployment_name: the name of the deployment
    """

    operator_extra_links = (DeploymentLink(),)
    template_fields: Sequence[str] = (*WaitingOperator.template_fields, "deployment_name")

    def __init__(self, *, deployment_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_literal(arguments.deployment_name, "deployment_name", deployment_name)
        self.deployment_name = deployment_name

    def act(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Stop the deployment."""
        return self._stop(time.time() + self.timeout)

    def _stop(self, deadline: float) -> dict[str, Any]:
        waits = {**self._wait_arguments(), "timeout": max(deadline - time.time(), 0.0)}
        deployment = self.hook.stop_deployment(self.deployment_name, **waits)
        return _summary(self.hook, self.deployment_name, deployment)

    def _should_defer(self, wait: Defer[Any]) -> bool:  # noqa: ARG002 - stopping has one kind of wait
        return self.deferrable

    def _defer(self, wait: Any) -> None:
        from airflow_provider_hsml.triggers import DeploymentTrigger  # noqa: PLC0415 - not needed to parse a DAG

        deadline = min(wait.backoff.deadline, self._execution_deadline or wait.backoff.deadline)
        trigger = DeploymentTrigger(
            hsml_conn_id=self.hsml_conn_id,
            project=self.project,
            deployment_name=wait.name,
            target_status=["Stopped"],
            deadline=deadline,
            poll_interval=self.poll_interval,
        )
        left = {"deadline": deadline, "cut_off": self._execution_deadline}
        self.defer(trigger=trigger, method_name="resume", kwargs={"left": left}, timeout=defer_timeout(deadline))

    def act_without_event(self, context: Context, reason: str) -> dict[str, Any]:  # noqa: ARG002
        """
        Read the state after a trigger that has not reported.

        :param reason: Airflow's reason
        """
        self.log.warning("%s", unreported(reason))
        return self._stop(time.time())

    def _resume(self, context: Context, event: Any, left: Mapping[str, Any] | None) -> dict[str, Any]:  # noqa: ARG002
        # The event does not matter: the worker reads the deployment's state again.
        return self._stop((left or {}).get("deadline", time.time()))


class RestartDeploymentOperator(WaitingOperator):
    """
    Stop a deployment, start it, and wait until it serves. One that is stopped is only started.

    A task that is killed or fails between stop and start still sends the start. ``timeout`` is for the stop, and again
    for the start. ``wait_for_completion=False`` still waits for the stop. A retry after a worker died waits for the
    restart in progress on Airflow 3.3 and later; before 3.3 it cannot know of it, and restarts once more.

    Returns ``{"deployment_name", "deployment_id", "status", "url"}``. Fails if the deployment does not exist or does
    not serve within ``timeout``.

    :param deployment_name: the name of an existing deployment
    :param rolling: replace the instances while the old ones answer, without a stop. Hopsworks has no command for it, so
        an environment variable (``HSML_RESTARTED_AT``) is changed. Needs Hopsworks 4.8 or later
    """

    operator_extra_links = (DeploymentLink(),)
    template_fields: Sequence[str] = (*WaitingOperator.template_fields, "deployment_name", "rolling")

    def __init__(self, *, deployment_name: str, rolling: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_literal(arguments.deployment_name, "deployment_name", deployment_name)
        self.deployment_name = deployment_name
        self._check_literal(arguments.boolean, "rolling", rolling)
        self.rolling = rolling

    def act(self, context: Context) -> dict[str, Any]:
        """Restart the deployment, or wait for the restart of an earlier try."""
        rolling, store = arguments.boolean("rolling", self.rolling), context.get("task_state_store")
        before = self.hook.get_deployment(self.deployment_name)
        replaced = store.get(_RESTARTED) if store else None
        if replaced is not None and (before.status.is_down or (before.revision or "") != replaced):
            self.log.info("An earlier try has restarted %s; waiting for that restart", before)
            deployment = self.hook.start_deployment(self.deployment_name, trusted=False, **self._wait_arguments())
        else:
            if store:
                store.set(_RESTARTED, before.revision or "")
            deployment = self.hook.restart_deployment(self.deployment_name, rolling=rolling, **self._wait_arguments())
        return self._complete(context, deployment)

    def act_after_wait(self, context: Context, left: Mapping[str, Any], event: Event) -> dict[str, Any]:
        """
        Return the result after the wait in the triggerer.

        :param left: the state kept when the task was deferred
        :param event: the result of the wait
        """
        return self._complete(context, self.hook.resume_start(left, event))

    def _complete(self, context: Context, deployment: Deployment) -> dict[str, Any]:
        if store := context.get("task_state_store"):
            store.delete(_RESTARTED)
        return _summary(self.hook, self.deployment_name, deployment)


class DeleteDeploymentOperator(HsmlOperator):
    """
    Delete a deployment and wait until it is gone. Nothing happens when it does not exist.

    Returns ``{"deployment_name", "deployment_id", "status", "url"}`` from before the deletion. All but the name are
    None when the deployment did not exist.

    :param deployment_name: the name of the deployment
    :param force: delete it even when it is neither Stopped nor Created, instead of failing
    """

    operator_extra_links = (DeploymentLink(),)
    template_fields: Sequence[str] = (*HsmlOperator.template_fields, "deployment_name", "force")

    def __init__(self, *, deployment_name: str, force: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_literal(arguments.deployment_name, "deployment_name", deployment_name)
        self.deployment_name = deployment_name
        self._check_literal(arguments.boolean, "force", force)
        self.force = force

    def act(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Delete the deployment."""
        deployment = self.hook.delete_deployment(self.deployment_name, force=arguments.boolean("force", self.force))
        return _summary(self.hook, self.deployment_name, deployment)


def _summary(hook: HsmlHook, name: str, deployment: Deployment | None) -> dict[str, Any]:
    """Return the result of the operators in this file."""
    return {
        "deployment_name": name,
        "deployment_id": deployment and deployment.id,
        "status": deployment and deployment.status.value,
        "url": deployment and hook.deployment_url(deployment),
    }
