"""The Airflow connection to Hopsworks Model Serving, and its verbs in the user's words."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, mask_secret

from .hopsworks import calls, predicting, promotion, reading, registry, stopping
from .hopsworks.access import Access
from .hopsworks.arrival import Arrival, Arrived
from .hopsworks.deployments import DeploymentStatus, check_deployment_name
from .hopsworks.errors import HopsworksError, InvalidInput, NotFound
from .hopsworks.models import Direction
from .hopsworks.promotion import Promotion, Record
from .hopsworks.specs import DeploymentSpec, Wanted, model_wanted
from .hopsworks.waiting import UNSCHEDULABLE_STAYS, Pace, Reach, drive, explained, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .hopsworks.client import Client
    from .hopsworks.deployments import Deployment
    from .hopsworks.models import ModelVersion
    from .hopsworks.waiting import Procedure

T = TypeVar("T")


class HsmlHook(BaseHook):
    """
    Talk to Hopsworks Model Serving from a task: look at models and deployments, change them, ask for predictions.

    Takes names, returns ``ModelVersion`` and ``Deployment``, and raises from
    ``airflow_provider_hsml.hopsworks.errors``. Operators are made of this; use it by itself in a ``@task`` for what no
    operator does.

    :param hsml_conn_id: the Airflow connection. Where it does not exist at all, the environment is used as a whole:
        ``HOPSWORKS_HOST``, ``HOPSWORKS_PROJECT``, ``HOPSWORKS_API_KEY`` and so on.
    :param project: another project than the connection's
    :param sleep: how to wait, in seconds; one that raises ends what waits
    """

    conn_name_attr = "hsml_conn_id"
    default_conn_name = "hsml_default"
    conn_type = "hsml"
    hook_name = "Hopsworks Model Serving"

    def __init__(
        self,
        hsml_conn_id: str = default_conn_name,
        project: str | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__()
        self.hsml_conn_id = hsml_conn_id
        self.project = project
        self._sleep = sleep

    @functools.cached_property
    def access(self) -> Access:
        """
        Where Hopsworks is and how to get in, read once.

        :raises InvalidInput: a field of the connection is wrong, or there is no connection and no environment
        """
        try:
            connection = self.get_connection(self.hsml_conn_id)
        except AirflowNotFoundException:
            access = Access.from_environment(project=self.project)
            if access is None:
                message = (
                    f"Airflow has no connection {self.hsml_conn_id!r}, and the environment names no Hopsworks. Make a "
                    "connection of type 'hsml' with host, API key (password) and extra 'project', or set "
                    "HOPSWORKS_HOST, HOPSWORKS_PROJECT and HOPSWORKS_API_KEY."
                )
                raise InvalidInput(message) from None
        else:
            access = Access.from_connection(
                host=connection.host,
                port=connection.port,
                password=connection.password,
                extra=connection.extra_dejson,
                project=self.project,
                schema=connection.schema,
                name=f"connection {self.hsml_conn_id!r}",
            )
        for secret in (access.key, access.key.rpartition(".")[2]):
            mask_secret(secret)
        return access

    @functools.cached_property
    def client(self) -> Client:
        """The client, with the project it works in."""
        from .hopsworks.client import Client  # noqa: PLC0415 - brings requests, which parsing a DAG does not need

        return Client(self.access, sleep=self._sleep)

    def get_conn(self) -> Client:
        """Give the client."""
        return self.client

    def run(self, procedure: Procedure[T]) -> T:
        """
        Do what a procedure says, with this connection.

        :param procedure: what to do
        """
        return drive(procedure, self.client.send, self._sleep)

    def test_connection(self) -> tuple[bool, str]:
        """Try the connection: whether it works, and what was reached or what is wrong."""
        try:
            project = self.client.project
            version = self.client.send(calls.get_server_version())
            # Rows are not wanted, only whether the key's scopes are enough.
            self.client.send(calls.get_models(project, limit=1))
            self.client.send(calls.get_deployments(project, model_name="nosuchmodel"))
        except (HopsworksError, OSError) as error:
            return False, str(error)
        reached = f"Hopsworks {version or 'of unknown version'} at {self.access.url}"
        return True, f"Reached {reached}, project {project.name!r} (id {project.id})."

    # --- Models -------------------------------------------------------------------------------------------------------

    def get_models(self, name: str) -> list[ModelVersion]:
        """
        List all versions of a model.

        :param name: the model's name
        """
        return self.run(registry.list_versions(self.client.project, name))

    def get_model(self, name: str, version: int | None = None) -> ModelVersion:
        """
        Get a version of a model.

        :param name: the model's name
        :param version: its number; None for the newest (the SDK gives version 1 then)
        :raises NotFound: there is none; the message names those that are
        """
        return self.run(registry.find_version(self.client.project, name, version))

    def get_best_model(self, name: str, metric: str, direction: str = "max") -> ModelVersion:
        """
        Get the version with the best value of a metric.

        Asks the server for one row, as the SDK does; where that row has not got the metric, looks at all versions.

        :param name: the model's name
        :param metric: the metric's name
        :param direction: ``max`` or ``min``
        :raises NotFound: there is no version
        :raises InvalidInput: no version has the metric
        """
        end = Direction(reading.choice("direction", direction, [one.value for one in Direction]))
        page = self.client.send(calls.get_models(self.client.project, name, sort_by=metric, direction=end, limit=1))
        if page.items and page.items[0].metric(metric) is not None:
            return page.items[0]
        by = promotion.Metric(metric, end)
        project = self.client.project
        return promotion.choose(self.get_models(name), None, by, model_name=name, project_name=project.name).chosen

    def register_model(self, *, run_key: str | None = None, **model: Any) -> ModelVersion:
        """
        Register a model version: upload its files, then put it into the registry.

        :param run_key: what a retry has in common with the try before, so that it registers once; None: anew each time
        :param model: the fields of ``airflow_provider_hsml.hopsworks.registering.NewModel``
        """
        from .hopsworks.registering import NewModel, register  # noqa: PLC0415 - not needed to parse a DAG

        new = NewModel.read(**model)
        return self.run(register(self.client.project, new, run_key=run_key))

    def delete_model(self, name: str, version: int) -> None:
        """
        Delete a version with its files; one that is not there is deleted already.

        :param name: the model's name
        :param version: its number
        """
        self.client.send(calls.delete_model(self.client.project, name, version))

    # --- Deployments --------------------------------------------------------------------------------------------------

    def get_deployments(self, model_name: str | None = None, status: str | None = None) -> list[Deployment]:
        """
        List deployments. Costly for a cluster with hundreds of them.

        :param model_name: only those of one model
        :param status: only those in one state, such as ``Running``
        """
        return self.client.send(calls.get_deployments(self.client.project, model_name=model_name, status=status))

    def get_deployment(self, name: str) -> Deployment:
        """
        Get a deployment by its name.

        :param name: letter for letter
        :raises NotFound: there is none; the message names those that are
        """
        deployment = self.client.send(calls.get_deployment(self.client.project, name))
        if deployment is None:
            known = ", ".join(sorted(other.name for other in self.get_deployments())) or "none"
            message = f"Deployment {name!r} does not exist in project {self.client.project.name!r}; there are: {known}."
            raise NotFound(message)
        return deployment

    def get_deployment_by_id(self, deployment_id: int) -> Deployment:
        """
        Get a deployment by its id.

        :param deployment_id: Hopsworks' number for it
        :raises NotFound: there is none
        """
        deployment = self.client.send(calls.get_deployment_by_id(self.client.project, deployment_id))
        if deployment is None:
            message = f"There is no deployment with id {deployment_id} in project {self.client.project.name!r}."
            raise NotFound(message)
        return deployment

    def get_deployment_state(self, name: str) -> str:
        """
        Get a deployment's state: Running, Idle, Updating and so on.

        :param name: the deployment's name
        """
        return self.get_deployment(name).status.value

    def get_deployment_logs(self, name: str, component: str = "predictor", tail: int = 10) -> dict[str, str]:
        """
        Read the end of each instance's log; empty in states that have none.

        :param name: the deployment's name
        :param component: ``predictor`` or ``transformer``
        :param tail: lines of each
        """
        reading.choice("component", component, ("predictor", "transformer"))
        logs = self.client.send(
            calls.get_logs(self.client.project, self.get_deployment(name), component=component, tail=tail)
        )
        return {log.instance: log.content for log in logs or []}

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
        :param model_name: the model to serve; None to keep the one being served
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
        model_name: str,
        model_version: int | str = "latest",
        *,
        deployment_name: str | None = None,
        spec: DeploymentSpec | Mapping[str, Any] | str | None = None,
        timeout: float = 600.0,
        poll_interval: float = 10.0,
        wait: bool = True,
    ) -> Record:
        """
        Serve a version of a model, and see that it really does. See ``DeployModelOperator``.

        :param model_name: the model
        :param model_version: its number, or ``"latest"``
        :param deployment_name: None for the model's own
        :param spec: the deployment's configuration
        :param timeout: seconds for one change
        :param poll_interval: seconds between looks
        :param wait: whether to wait until it has arrived
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
            wait=wait,
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
        :param timeout: seconds for one change
        :param poll_interval: seconds between looks
        :param wait: whether to wait until it has arrived
        """
        end = Direction(reading.choice("direction", direction, [one.value for one in Direction]))
        wish = Promotion(
            model_name,
            DeploymentSpec.read(spec or {}).wanted(),
            timeout,
            poll_interval,
            time.time,
            deployment_name,
            by=promotion.Metric(reading.text("metric", metric), end, _version_numbers(candidates)),
            wait=wait,
        )
        return self._promote(wish)

    def _promote(self, wish: Promotion) -> Record:
        promoted = self.run(wish.run(self.client.project))
        deployment = promoted.arrived.deployment
        return promoted.record(
            wish.by, inference_url=self.inference_url(deployment.name), url=self.deployment_url(deployment)
        )

    def watch_deployment(
        self, name: str, statuses: str | Sequence[str], *, must_exist: bool = True
    ) -> Deployment | None:
        """
        Look whether a deployment is in one of some states: once, or at a Failed until it is known whether it stays.

        :param name: the deployment's name
        :param statuses: a state or several; ``Running`` is met by Idle, ``Stopped`` by Created
        :param must_exist: whether one that is not there is a wrong name, not one that was deleted meanwhile
        :return: the deployment when it is; None when it is not yet
        :raises NotFound: there is none; the message names those that are
        :raises DeploymentFailed: it is Failed and stays so; with the end of the log
        """
        known = [status.value for status in DeploymentStatus if status is not DeploymentStatus.UNKNOWN]
        given = [statuses] if isinstance(statuses, str) else reading.sequence("target_status", statuses)
        targets = [DeploymentStatus(reading.choice("target_status", status, known)) for status in given]
        goal = Reach.of(check_deployment_name(name), *targets)
        if must_exist:
            self.get_deployment(name)
        pace = Pace(first=1.0, most=5.0, deadline=time.time() + 2 * UNSCHEDULABLE_STAYS)
        return self.run(explained(self.client.project, watch(self.client.project, goal, pace)))

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

    # --- Predictions --------------------------------------------------------------------------------------------------

    def predict(
        self,
        name: str,
        *,
        instances: Any = None,
        inputs: Any = None,
        payload: Any = None,
        timeout: float = 600.0,
    ) -> dict[str, Any]:
        """
        Ask a deployment for predictions. Give at most one of the three; none sends the served model's input example.

        :param name: the deployment's name
        :param instances: rows, sent as ``{"instances": ...}``
        :param inputs: one row or several, as the SDK's argument of that name
        :param payload: the whole body
        :param timeout: seconds; an Idle deployment is woken within them
        :return: the answer, such as ``{"predictions": [...]}``
        """
        check_deployment_name(name)
        body: Mapping[str, Any] | None = predicting.request_body(
            name, instances=instances, inputs=inputs, payload=payload
        )
        if body is None:
            body = self._example(name)
        return self.run(predicting.predict(self.client.project, name, body, timeout=timeout, clock=time.time))

    def _example(self, name: str) -> Mapping[str, Any]:
        """Find the input example of the model being served."""
        deployment = self.get_deployment(name)
        if deployment.model_name is not None and deployment.model_version is not None:
            model = self.get_model(deployment.model_name, deployment.model_version)
            example = self.run(predicting.input_example(self.client.project, model))
            if example is not None:
                return example
        message = f"{deployment} has no registered input example. Give instances, inputs or payload."
        raise InvalidInput(message)

    def inference_url(self, name: str) -> str:
        """
        Give the address that answers predictions.

        :param name: the deployment's name
        """
        return f"{self.access.url}/{calls.predict(self.client.project, name, {'instances': []}).path}"

    def deployment_url(self, deployment: Deployment) -> str:
        """
        Give the address of a deployment's page in the Hopsworks UI.

        :param deployment: the deployment
        """
        return self.access.ui_url(self.client.project.id, "deployments", deployment.id)

    def model_url(self, model: ModelVersion) -> str:
        """
        Give the address of a model version's page in the Hopsworks UI.

        :param model: the version
        """
        return self.access.ui_url(model.registry_id, "models", model.name, model.version)

    def _pace(self, timeout: float, poll_interval: float) -> Pace:
        return Pace(first=0.5, most=poll_interval, deadline=time.time() + timeout)


def _version_numbers(given: object) -> list[int] | None:
    """Read candidates: numbers, or what registering returned."""
    if given is None:
        return None
    rows = reading.sequence("candidates", given)
    numbers = [row.get("model_version") if isinstance(row, Mapping) else row for row in rows]
    return [reading.integer("candidates", number, least=1) for number in numbers]
