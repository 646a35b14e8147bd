"""Starting, stopping, restarting and deleting deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import reading

from .base import HsmlOperator, WaitingOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.hopsworks.deployments import Deployment


class StartDeploymentOperator(WaitingOperator):
    """
    Start a deployment and wait until it serves. One that serves already is fine as it is.

    Returns ``{"deployment_name", "deployment_id", "status", "url"}``.

    :param deployment_name: the deployment
    """

    template_fields: Sequence[str] = (*WaitingOperator.template_fields, "deployment_name")

    def __init__(self, *, deployment_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deployment_name = deployment_name

    def act(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """
        Start it.

        :param context: Airflow's
        """
        deployment = self.hook.start_deployment(self.deployment_name, **self._waits())
        return _summary(self.hook, self.deployment_name, deployment)


class StopDeploymentOperator(WaitingOperator):
    """
    Stop a deployment and wait until it is stopped. One that is stopped, or not there, is fine as it is.

    Returns ``{"deployment_name", "deployment_id", "status", "url"}``; all but the name are None when there is no such
    deployment.

    :param deployment_name: the deployment
    """

    template_fields: Sequence[str] = (*WaitingOperator.template_fields, "deployment_name")

    def __init__(self, *, deployment_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deployment_name = deployment_name

    def act(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """
        Stop it.

        :param context: Airflow's
        """
        deployment = self.hook.stop_deployment(self.deployment_name, **self._waits())
        return _summary(self.hook, self.deployment_name, deployment)


class RestartDeploymentOperator(WaitingOperator):
    """
    Stop a deployment, start it, and wait until it serves. One that is stopped is only started.

    A task that is killed or fails in between asks for the start all the same. ``timeout`` is for the stop, and again
    for the start; ``wait_for_completion=False`` still waits for the stop.

    Returns ``{"deployment_name", "deployment_id", "status", "url"}``.

    :param deployment_name: the deployment
    :param rolling: replace the instances while the old ones answer, without a stop. For this an environment variable
        (``HSML_RESTARTED_AT``) is changed, since Hopsworks has no command for it: 4.8 and later
    """

    template_fields: Sequence[str] = (*WaitingOperator.template_fields, "deployment_name", "rolling")

    def __init__(self, *, deployment_name: str, rolling: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deployment_name = deployment_name
        self.rolling = rolling

    def act(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """
        Restart it.

        :param context: Airflow's
        """
        rolling = reading.boolean("rolling", self.rolling)
        deployment = self.hook.restart_deployment(self.deployment_name, rolling=rolling, **self._waits())
        return _summary(self.hook, self.deployment_name, deployment)


class DeleteDeploymentOperator(HsmlOperator):
    """
    Delete a deployment and wait until it is gone. One that is not there is deleted already.

    Returns ``{"deployment_name", "deployment_id", "status", "url"}``, as it was before; all but the name are None when
    there was none.

    :param deployment_name: the deployment
    :param force: delete it also when it is neither Stopped nor Created
    """

    template_fields: Sequence[str] = (*HsmlOperator.template_fields, "deployment_name", "force")

    def __init__(self, *, deployment_name: str, force: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deployment_name = deployment_name
        self.force = force

    def act(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """
        Delete it.

        :param context: Airflow's
        """
        deployment = self.hook.delete_deployment(self.deployment_name, force=reading.boolean("force", self.force))
        return _summary(self.hook, self.deployment_name, deployment)


def _summary(hook: HsmlHook, name: str, deployment: Deployment | None) -> dict[str, Any]:
    """Give what Start, Stop, Restart and Delete return."""
    return {
        "deployment_name": name,
        "deployment_id": deployment and deployment.id,
        "status": deployment and deployment.status.value,
        "url": deployment and hook.deployment_url(deployment),
    }
