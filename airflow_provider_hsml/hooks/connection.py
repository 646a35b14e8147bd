"""The connection, read once, and the client on top of it."""

from __future__ import annotations

import contextlib
import functools
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_hsml import logs
from airflow_provider_hsml.connection import access_of, mask_key
from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import HopsworksError, NoResponseError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.flow import Deferred, drive

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hopsworks.domain.access import Access
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.flow import Defer, Flow
    from airflow_provider_hsml.hopsworks.transport.client import Client

T = TypeVar("T")
_TEST_SECONDS = 10.0


class ConnectedHook(BaseHook):
    """What all verbs need: where Hopsworks is, and somebody to send calls."""

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
        leave: Callable[[Defer[Any]], bool] = lambda _wait: False,
        on_answer: Callable[[Any], object] = lambda _answer: None,
        on_decided: Callable[[ModelVersion], object] = lambda _model: None,
    ) -> None:
        super().__init__()
        self.hsml_conn_id = hsml_conn_id
        self.project = project
        self._sleep = sleep
        self._leave = leave
        self._on_answer = on_answer
        self._on_decided = on_decided
        self._can_answer: set[str] = set()
        """Deployments that are known to have predictions to give: looked at once, not at every prediction."""

    @functools.cached_property
    def access(self) -> Access:
        """
        Where Hopsworks is and how to get in, read once.

        :raises InvalidInputError: a field of the connection is wrong, or there is no connection and no environment
        """
        try:
            connection = self.get_connection(self.hsml_conn_id)
        except AirflowNotFoundException:
            access = access_of(self.hsml_conn_id, self.project, None)
        else:
            access = access_of(self.hsml_conn_id, self.project, connection, connection.extra_dejson)
        mask_key(access.key)
        logs.mask()
        return access

    @functools.cached_property
    def client(self) -> Client:
        """The client, with the project it works in."""
        from airflow_provider_hsml.hopsworks.transport.client import Client  # noqa: PLC0415 - brings requests, which parsing a DAG does not need

        return Client(self.access, sleep=self._sleep, on_new_key=mask_key, on_answer=self._on_answer)

    def get_conn(self) -> Client:
        """Give the client."""
        return self.client

    def run(self, flow: Flow[T]) -> T:
        """
        Do what a procedure says, with this connection.

        :param procedure: what to do
        :raises Deferred: a long wait in it is left to somebody else
        """
        try:
            return drive(flow, self.client.send, self._sleep, self._watch)
        finally:
            flow.close()

    def _watch(self, wait: Defer[T]) -> T:
        """Look first; leave what is not there yet to somebody else, where that is wanted."""
        if self._leave(wait):
            try:
                return drive(wait.run(), self.client.send, _not_there_yet)
            except _NotThereYet:
                raise Deferred(wait) from None
        return drive(wait.run(), self.client.send, self._sleep)

    def test_connection(self) -> tuple[bool, str]:
        """
        Try the connection: whether it works, and what was reached or what is wrong.

        Behind Airflow's Test button somebody waits: each thing is asked once, for ten seconds.
        """
        from airflow_provider_hsml.hopsworks.transport.client import Client  # noqa: PLC0415 - as above

        try:
            access = replace(self.access, request_timeout=min(self.access.request_timeout, _TEST_SECONDS))
            with contextlib.closing(Client(access, on_new_key=mask_key, attempts=1)) as client:
                project = client.project
                version = client.send(api.get_server_version())
                # Rows are not wanted, only whether the key's scopes are enough.
                client.send(api.get_models(project, limit=1))
                client.send(api.get_deployments(project, model_name="nosuchmodel"))
        except (HopsworksError, OSError) as error:
            # The button tests a copy of the connection, under an id that nobody knows.
            said = str(error).replace(f"connection {self.hsml_conn_id!r}", "This connection")
            if isinstance(error, NoResponseError | UnexpectedResponseError) and "the connection" not in said:
                said = f"{said.removesuffix('.')}. Check the connection's host and port, and 'https://' or 'http://'."
            return False, said
        reached = f"Hopsworks {version or 'of unknown version'} at {access.url}"
        return True, f"Reached {reached}, project {project.name!r} (id {project.id})."


class _NotThereYet(Exception):
    """There is something to wait for."""


def _not_there_yet(_seconds: float) -> None:
    raise _NotThereYet
