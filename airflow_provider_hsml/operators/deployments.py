"""Starting, stopping, restarting and deleting deployments."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.links import DeploymentLink

from .base import HsmlOperator, WaitingOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Defer


_RESTARTED = "hsml_restarted"
"""What a restart remembers from one try to the next: the revision that it replaces."""


class StartDeploymentOperator(WaitingOperator):
    """
    Start a deployment and wait until it serves. One that serves already is fine as it is.

    Returns ``{"deployment_name", "deployment_id", "status", "url"}``.

    :param deployment_name: the deployment
    """

    operator_extra_links = (DeploymentLink(),)
    template_fields: Sequence[str] = (*WaitingOperator.template_fields, "deployment_name")

    def __init__(self, *, deployment_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._written(arguments.deployment_name, "deployment_name", deployment_name)
        self.deployment_name = deployment_name

    def act(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """
        Start it.

        :param context: Airflow's
        """
        deployment = self.hook.start_deployment(self.deployment_name, **self._waits())
        return _summary(self.hook, self.deployment_name, deployment)

    def go_on(self, context: Context, left: Mapping[str, Any], event: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """
        Go on after the wait in the triggerer.

        :param context: Airflow's
        :param left: what was left to it
        :param event: how it ended
        """
        deployment = self.hook.resume_start(left, event)
        return _summary(self.hook, self.deployment_name, deployment)


class StopDeploymentOperator(WaitingOperator):
    """
    Stop a deployment and wait until it is stopped. One that is stopped, or not there, is fine as it is.

    Returns ``{"deployment_name", "deployment_id", "status", "url"}``; all but the name are None when there is no such
    deployment.

    :param deployment_name: the deployment
    """

    operator_extra_links = (DeploymentLink(),)
    template_fields: Sequence[str] = (*WaitingOperator.template_fields, "deployment_name")

    def __init__(self, *, deployment_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._written(arguments.deployment_name, "deployment_name", deployment_name)
        self.deployment_name = deployment_name

    def act(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """
        Stop it.

        :param context: Airflow's
        """
        return self._stop(time.time() + self.timeout)

    def _stop(self, deadline: float) -> dict[str, Any]:
        waits = {**self._waits(), "timeout": deadline - time.time()}
        deployment = self.hook.stop_deployment(self.deployment_name, **waits)
        return _summary(self.hook, self.deployment_name, deployment)

    def _leaves(self, wait: Defer[Any]) -> bool:  # noqa: ARG002 - there is one kind of it
        return self.deferrable

    def _leave(self, wait: Any) -> None:
        from airflow_provider_hsml.triggers import DeploymentTrigger  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        deadline = min(wait.backoff.deadline, self._cut_off or wait.backoff.deadline)
        trigger = DeploymentTrigger(
            hsml_conn_id=self.hsml_conn_id,
            project=self.project,
            deployment_name=wait.name,
            target_status=["Stopped"],
            deadline=deadline,
            poll_interval=self.poll_interval,
        )
        left = {"deadline": deadline, "cut_off": self._cut_off}
        self.defer(trigger=trigger, method_name="resume", kwargs={"left": left}, timeout=None)

    def _resume(self, context: Context, event: Any, left: Mapping[str, Any] | None) -> dict[str, Any]:  # noqa: ARG002
        # However that ended: it looks for itself.
        return self._stop((left or {}).get("deadline", time.time()))


class RestartDeploymentOperator(WaitingOperator):
    """
    Stop a deployment, start it, and wait until it serves. One that is stopped is only started.

    A task that is killed or fails in between asks for the start all the same. ``timeout`` is for the stop, and again
    for the start; ``wait_for_completion=False`` still waits for the stop. A retry after a worker died waits for the
    restart that is under way (Airflow 3.3 and later; before, nothing tells of it, and it restarts once more).

    Returns ``{"deployment_name", "deployment_id", "status", "url"}``.

    :param deployment_name: the deployment
    :param rolling: replace the instances while the old ones answer, without a stop. For this an environment variable
        (``HSML_RESTARTED_AT``) is changed, since Hopsworks has no command for it: 4.8 and later
    """

    operator_extra_links = (DeploymentLink(),)
    template_fields: Sequence[str] = (*WaitingOperator.template_fields, "deployment_name", "rolling")

    def __init__(self, *, deployment_name: str, rolling: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._written(arguments.deployment_name, "deployment_name", deployment_name)
        self.deployment_name = deployment_name
        self._written(arguments.boolean, "rolling", rolling)
        self.rolling = rolling

    def act(self, context: Context) -> dict[str, Any]:
        """
        Restart it.

        :param context: Airflow's
        """
        rolling, store = arguments.boolean("rolling", self.rolling), context.get("task_state_store")
        before = self.hook.get_deployment(self.deployment_name)
        noted = store.get(_RESTARTED) if store else None
        if noted is not None and (before.status.is_down or (before.revision or "") != noted):
            self.log.info("An earlier try has restarted %s; waiting for that", before)
            deployment = self.hook.start_deployment(self.deployment_name, trusted=False, **self._waits())
        else:
            if store:
                store.set(_RESTARTED, before.revision or "")
            deployment = self.hook.restart_deployment(self.deployment_name, rolling=rolling, **self._waits())
        return self._end(context, deployment)

    def go_on(self, context: Context, left: Mapping[str, Any], event: Mapping[str, Any]) -> dict[str, Any]:
        """
        Go on after the wait in the triggerer.

        :param context: Airflow's
        :param left: what was left to it
        :param event: how it ended
        """
        return self._end(context, self.hook.resume_start(left, event))

    def _end(self, context: Context, deployment: Deployment) -> dict[str, Any]:
        if store := context.get("task_state_store"):
            store.delete(_RESTARTED)
        return _summary(self.hook, self.deployment_name, deployment)


class DeleteDeploymentOperator(HsmlOperator):
    """
    Delete a deployment and wait until it is gone. One that is not there is deleted already.

    Returns ``{"deployment_name", "deployment_id", "status", "url"}``, as it was before; all but the name are None when
    there was none.

    :param deployment_name: the deployment
    :param force: delete it also when it is neither Stopped nor Created
    """

    operator_extra_links = (DeploymentLink(),)
    template_fields: Sequence[str] = (*HsmlOperator.template_fields, "deployment_name", "force")

    def __init__(self, *, deployment_name: str, force: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._written(arguments.deployment_name, "deployment_name", deployment_name)
        self.deployment_name = deployment_name
        self._written(arguments.boolean, "force", force)
        self.force = force

    def act(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """
        Delete it.

        :param context: Airflow's
        """
        deployment = self.hook.delete_deployment(self.deployment_name, force=arguments.boolean("force", self.force))
        return _summary(self.hook, self.deployment_name, deployment)


def _summary(hook: HsmlHook, name: str, deployment: Deployment | None) -> dict[str, Any]:
    """Give what Start, Stop, Restart and Delete return."""
    return {
        "deployment_name": name,
        "deployment_id": deployment and deployment.id,
        "status": deployment and deployment.status.value,
        "url": deployment and hook.deployment_url(deployment),
    }
