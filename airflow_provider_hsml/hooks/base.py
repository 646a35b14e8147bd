"""The base of ``HsmlHook``: the connection, the client, running flows, and lookups that several mixins share."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_hsml import logs
from airflow_provider_hsml.connection import DEFAULT_CONN_ID, access_of, advice_of, mask_key, not_readable
from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment, check_deployment_name
from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    NoResponseError,
    NotFoundError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Deferred, drive, steady
from airflow_provider_hsml.hopsworks.rollout import restart
from airflow_provider_hsml.hopsworks.rollout.inputs import Run
from airflow_provider_hsml.hopsworks.untrusted_text import beginning, clean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_hsml.hopsworks.domain.access import Access
    from airflow_provider_hsml.hopsworks.domain.deployment_schema import DeploymentSchema
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.flow import Defer, Flow
    from airflow_provider_hsml.hopsworks.transport.client import Client

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")
MIN_POLL_INTERVAL = 0.01
"""Seconds. The operators allow 0.1 and more."""
_TEST_SECONDS = 10.0
_MOST_OF_VERSION = 50
"""Characters of the server's version that the Test button shows."""
_START_BEFORE_EXIT_SECONDS = 30.0
"""Seconds for a Stopping deployment to become Stopped, when its restart was interrupted."""


def in_time(method: Callable[P, T]) -> Callable[P, T]:
    """
    Decorate a method of the hook that has an argument ``timeout``: its reads before the first change end by then.

    :param method: takes ``timeout`` by keyword
    """
    default = (method.__kwdefaults__ or {})["timeout"]

    @functools.wraps(method)
    def timed(*args: P.args, **kwargs: P.kwargs) -> T:
        hook: Any = args[0]
        seconds = arguments.seconds("timeout", kwargs.get("timeout", default))
        hook.client.deadline = time.time() + seconds
        try:
            return method(*args, **kwargs)
        finally:
            hook.client.deadline = math.inf

    return timed


class HsmlBaseHook(BaseHook):
    """
    The connection and the client, for the mixins of ``HsmlHook``.

    A mixin holds one subject and inherits this class only. A method that several mixins need is here.
    """

    conn_name_attr = "hsml_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "hsml"
    hook_name = "Hopsworks Model Serving"

    def __init__(
        self,
        hsml_conn_id: str = default_conn_name,
        project: str | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        leave: Callable[[Defer[Any]], bool] = lambda _wait: False,
        on_answer: Callable[[Any], object] = lambda _answer: None,
        on_decided: Callable[[ModelVersion], object] = lambda _model: None,
        is_over: Callable[[BaseException], bool] = lambda _error: True,
    ) -> None:
        super().__init__()
        self.hsml_conn_id = hsml_conn_id
        self.project = project
        self._sleep = sleep
        self._leave = leave
        self._on_answer = on_answer
        self._on_decided = on_decided
        self._is_over = is_over
        """Whether no other try continues work that an exception, not of this package, has broken off."""
        self._can_answer: dict[str, Deployment] = {}
        """Deployments known to answer predictions: checked once, not at every prediction."""
        self._request_schemas: dict[str, DeploymentSchema | None] = {}
        """The schemas of their requests, read once; None of a deployment without one."""

    @functools.cached_property
    def access(self) -> Access:
        """
        The address of Hopsworks and the credentials, read once.

        :raises InvalidInputError: a field of the connection is wrong, or there is no connection and no environment
        """
        access = access_of(self.hsml_conn_id, self.project, self._connection)
        mask_key(access.key)
        logs.mask()
        return access

    @functools.cached_property
    def _connection(self) -> Connection | None:
        """The Airflow connection; None if there is none."""
        try:
            return self.get_connection(self.hsml_conn_id)
        except AirflowNotFoundException:
            return None
        except Exception as error:  # noqa: BLE001 - whatever a secrets backend or Airflow's API raises
            raise not_readable(self.hsml_conn_id, error) from None

    @functools.cached_property
    def client(self) -> Client:
        """The client. It knows the project that it works in."""
        from airflow_provider_hsml.hopsworks.transport.client import Client  # noqa: PLC0415 - imports requests, which parsing a DAG does not need

        return Client(self.access, sleep=self._sleep, on_new_key=mask_key, on_answer=self._on_answer)

    def _connect(self, sleep: Callable[[float], None]) -> Client:
        """
        Return a client of its own, for one of several threads.

        :param sleep: waits between attempts; an exception from it ends them
        """
        from airflow_provider_hsml.hopsworks.transport.client import Client  # noqa: PLC0415 - as above

        return Client(self.access, sleep=sleep, on_new_key=mask_key)

    def get_conn(self) -> Client:
        """Return the client."""
        return self.client

    def run(self, flow: Flow[T]) -> T:
        """
        Drive a flow with this connection, and return its result.

        :raises Deferred: a long wait in the flow is left to a trigger
        """
        try:
            return drive(flow, self.client.send, self._sleep, self._watch)
        finally:
            flow.close()

    def _watch(self, wait: Defer[T]) -> T:
        """Run a long wait. Before it is deferred, poll once: a wait that is complete by then is not deferred."""
        if self._leave(wait):
            try:
                return drive(wait.run(), self.client.send, _not_complete)
            except _NotComplete:
                raise Deferred(wait) from None
        return drive(wait.run(), self.client.send, self._sleep)

    def test_connection(self) -> tuple[bool, str]:
        """
        Test the connection, for Airflow's Test button.

        A person waits for the button: each request is sent once, with a timeout of ten seconds.

        :return: whether it works, and a message: the server and project reached, or the error
        """
        from airflow_provider_hsml.hopsworks.transport.client import Client  # noqa: PLC0415 - as above

        try:
            access = replace(self.access, request_timeout=min(self.access.request_timeout, _TEST_SECONDS))
            with contextlib.closing(Client(access, on_new_key=mask_key, attempts=1)) as client:
                project = client.project
                version = client.send(api.get_server_version())
                version = beginning(version, _MOST_OF_VERSION) if isinstance(version, str) else None
                # The responses do not matter, only whether the key's scopes allow the requests.
                client.send(api.get_models(project, limit=1))
                client.send(api.get_deployments(project, model_name="nosuchmodel"))
        except (HopsworksError, OSError) as error:
            # The button tests a copy of the connection, under a generated id that the user has not seen.
            text = str(error) if isinstance(error, HopsworksError) else f"{type(error).__name__}: {error.strerror}"
            text = clean(text).replace(f"connection {self.hsml_conn_id!r}", "This connection")
            if isinstance(error, NoResponseError | UnexpectedResponseError) and "the connection" not in text:
                text = f"{text.removesuffix('.')}. Check the connection's host and port, and 'https://' or 'http://'."
            return False, "\n".join([text, *self._advice()])
        reached = f"Hopsworks {version or 'of unknown version'} at {access.url}"
        text = clean(f"Reached {reached}, project {project.name!r} (id {project.id}).")
        return True, "\n".join([text, *self._advice()])

    def _advice(self) -> list[str]:
        """Return sentences about extras of the connection that are ignored."""
        try:
            return advice_of(self._connection)
        except HopsworksError:  # It is the error that the test reports.
            return []

    def get_deployment(self, name: str) -> Deployment:
        """
        Return the deployment with this name.

        :param name: matched exactly
        :raises NotFoundError: there is none; the message lists the names that exist
        """
        return self._find_deployment(name).public

    def _find_deployment(self, name: str) -> Deployment:
        """Return the deployment with all that Hopsworks says of it, for other methods of the hook."""
        deployment = self.client.send(api.get_deployment(self.client.project, name))
        if deployment is None:
            others = self.client.send(api.get_deployments(self.client.project))
            known = ", ".join(sorted(other.name for other in others)) or "none"
            message = f"Deployment {name!r} does not exist in project {self.client.project.name!r}; there are: {known}."
            raise NotFoundError(message)
        return deployment

    def inference_url(self, name: str) -> str:
        """
        Return the URL that takes prediction requests.

        :param name: the deployment's name
        """
        project = self.client.project
        if project.ingress is not None:
            return self.run(project.ingress.prediction_url(project, check_deployment_name(name)))
        return f"{self.access.url}/{api.predict(project, name, {'instances': []}).path}"

    def deployment_url(self, deployment: Deployment | int) -> str:
        """
        Return the URL of a deployment's page in the Hopsworks UI.

        :param deployment: the deployment, or its id
        """
        number = deployment.id if isinstance(deployment, Deployment) else arguments.integer("deployment", deployment)
        return self.access.ui_url(self.client.project.id, "deployments", number)

    def _new_run(
        self, name: str, timeout: object, poll_interval: object, key: str = "", audit: Mapping[str, Any] | None = None
    ) -> Run:
        """
        Return a run that begins now.

        :param name: the deployment's name; empty to derive it from the model's
        :param timeout: seconds, or a ``timedelta``
        :param poll_interval: seconds, or a ``timedelta``
        :param key: identifies the task
        :param audit: the try of the task, for the journal
        :raises InvalidInputError: an argument is wrong
        """
        seconds = arguments.seconds("timeout", timeout)
        interval = arguments.seconds("poll_interval", poll_interval, least=MIN_POLL_INTERVAL)
        name = name and check_deployment_name(name)
        return Run(self.client.project, name, seconds, interval, steady(), key, audit or {})

    def _start_before_exit(self, name: str) -> bool:
        """
        Start a deployment that was left stopped, in the few seconds that a killed task still has.

        :return: False if it may be left stopped
        """
        backoff = Backoff(first=0.2, most=1.0, deadline=time.time() + _START_BEFORE_EXIT_SECONDS)
        self.client.sleep = time.sleep  # The hook's own may end each wait of a killed task.
        try:
            drive(restart.start_if_left_stopped(self.client.project, name, backoff), self.client.send, time.sleep)
        except Exception:
            log.exception("Deployment %r may be left stopped: start it", name)
            return False
        return True


def new_backoff(timeout: object, poll_interval: object) -> Backoff:
    """
    Return the delays of a wait that begins now.

    :param timeout: seconds until the wait ends, or a ``timedelta``
    :param poll_interval: seconds to which the delay between two polls grows, or a ``timedelta``
    :raises InvalidInputError: an argument is no duration
    """
    clock = steady()
    most = arguments.seconds("poll_interval", poll_interval, least=MIN_POLL_INTERVAL)
    return Backoff(first=0.5, most=most, deadline=clock() + arguments.seconds("timeout", timeout), clock=clock)


def read_version(version: object) -> int:
    """
    Read the number of a model version.

    :raises InvalidInputError: it is no whole number of 1 or more; True is none either
    """
    return arguments.integer("version", version, least=1)


class _NotComplete(Exception):
    """The wait would have to sleep: it is not complete at the first read."""


def _not_complete(_seconds: float) -> None:
    raise _NotComplete
