"""The deployments of a project, as clients and people read them; changes and commands are in its parts."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, get_args

from airflow_provider_hsml.local.cluster.engines import Component
from airflow_provider_hsml.local.cluster.states import Status
from airflow_provider_hsml.local.errors import Refusal, malformed

from .deployment_changes import DeploymentChanges
from .lifecycle import Lifecycle
from .locks import Locks
from .stored_deployments import StoredDeployments
from .wire import on_the_wire

if TYPE_CHECKING:
    from airflow_provider_hsml.local.cluster.cluster import Cluster
    from airflow_provider_hsml.local.cluster.states import State
    from airflow_provider_hsml.local.lines import Line
    from airflow_provider_hsml.local.store import Store

    from .accounts import Project
    from .administration import Administration
    from .files import ProjectFiles


class Deployments:
    """
    The deployments of one project.

    The settings come from ``stored``, the state from the cluster. ``changes`` has PUT and rollback, ``lifecycle`` has
    START, STOP and DELETE.
    """

    def __init__(
        self,
        project: Project,
        store: Store,
        files: ProjectFiles,
        cluster: Cluster,
        *,
        line: Line,
        administration: Administration,
    ) -> None:
        self._project = project
        self._cluster = cluster
        self._line = line
        self.stored = StoredDeployments(project, store, files, line, administration.kafka_topics)
        self.locks = Locks()
        self.changes = DeploymentChanges(
            project, self.stored, self.locks, files, cluster, line=line, administration=administration
        )
        self.lifecycle = Lifecycle(
            project, self.stored, self.locks, files, cluster, line=line, administration=administration
        )

    # --- For clients

    def get(self, deployment: int) -> dict[str, Any]:
        """Return a deployment, as on the wire."""
        with self.stored.lock:
            row = self.stored.get(deployment)
            return self._on_the_wire(deployment, row, self._cluster.slots.poll(deployment))

    def by_name(self, name: str) -> dict[str, Any]:
        """Return the deployment of an exact name, as on the wire."""
        return self.get(self.stored.id_of(name))

    def find(
        self, model: str | None = None, model_version: int | None = None, status: str | None = None
    ) -> list[dict[str, Any]]:
        """
        Return deployments, as on the wire.

        :param model: only deployments of this model
        :param model_version: only deployments of this version; needs ``model``
        :param status: only deployments in this status, in any case
        """
        if model_version is not None and model is None:
            raise malformed("modelVersion needs model as well.")
        if status is not None and status.capitalize() not in set(Status):
            raise malformed(f"Status {status!r} is not known: expected one of {', '.join(Status)}.")
        time.sleep(self._cluster.profile.list_cost * len(self.stored.all()))
        with self.stored.lock:
            shown = [
                self._on_the_wire(number, row, self._cluster.slots.poll(number)) for number, row in self.stored.all()
            ]
        return [
            row
            for row in shown
            if (model is None or row["modelName"] == model)
            and (model_version is None or row["modelVersion"] == model_version)
            and (status is None or row["status"] == status.capitalize())
        ]

    def versions(self, deployment: int) -> list[dict[str, Any]]:
        """Return the versions of a deployment, as on the wire, newest first."""
        with self.stored.lock:
            row = self.stored.get(deployment)
            return [
                {"version": number, "active": number == row["version"]}
                | {key: value for key, value in document.items() if self._line.knows(key)}
                for number, document in self.stored.versions(deployment).items()
            ]

    def logs(self, deployment: int, component: str, tail: int) -> list[dict[str, str]]:
        """Return the last lines of each instance of a component, as on the wire."""
        known = next((known for known in get_args(Component) if known == component), None)
        if known is None:
            raise malformed(f"Component {component!r} is not known: expected predictor or transformer.")
        with self.stored.lock:
            self.stored.get(deployment)
            logs = self._cluster.slots.logs(deployment, known, tail)
        if self._cluster.profile.logs_lock:
            with self.locks.reading(deployment):
                time.sleep(self._cluster.speeds.reading_logs)
        return [{"instanceName": instance, "content": content} for instance, content in logs]

    # --- For people

    def all_shown(self) -> list[dict[str, Any]]:
        """
        Return all deployments, as on the wire, without the delays of a cluster and without counting as a poll.

        ``answering`` is added: the version of the model that really answers, or None.
        """
        with self.stored.lock:
            rows = self.stored.all()
            shown = [self._on_the_wire(number, row, self._cluster.slots.state(number)) for number, row in rows]
            answering = [self._cluster.slots.answering(number) for number, _ in rows]
        return [row | {"answering": model and model.version} for row, model in zip(shown, answering, strict=True)]

    def tails(self, deployment: int, lines: int) -> list[tuple[Component, str, str]]:
        """Return (component, instance, last lines), without a client's lock; none where nothing runs."""
        with contextlib.suppress(Refusal):
            return [
                (component, instance, text)
                for component in get_args(Component)
                for instance, text in self._cluster.slots.logs(deployment, component, lines)
            ]
        return []

    def _on_the_wire(self, deployment: int, row: dict[str, Any], state: State) -> dict[str, Any]:
        return on_the_wire(deployment, row, state, self._project, self._line)
