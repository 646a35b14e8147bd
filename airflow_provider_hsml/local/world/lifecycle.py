"""The life of a deployment after its creation: START, STOP, DELETE, and the restart with the server."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.cluster.states import Status
from airflow_provider_hsml.local.errors import Refusal

from .stored_deployments import now
from .wanted import wanted

if TYPE_CHECKING:
    from airflow_provider_hsml.local.cluster.behaviour import Profile
    from airflow_provider_hsml.local.cluster.cluster import Cluster
    from airflow_provider_hsml.local.lines import Line

    from .accounts import Project
    from .administration import Administration
    from .files import ProjectFiles
    from .locks import Locks
    from .stored_deployments import StoredDeployments


class Lifecycle:
    """Starts, stops and deletes the deployments of one project. Commands that do not fit the status are refused."""

    def __init__(
        self,
        project: Project,
        stored: StoredDeployments,
        locks: Locks,
        files: ProjectFiles,
        cluster: Cluster,
        *,
        line: Line,
        administration: Administration,
    ) -> None:
        self._project = project
        self._stored = stored
        self._locks = locks
        self._files = files
        self._cluster = cluster
        self._line = line
        self._administration = administration

    def restore(self) -> None:
        """Load the deployments of an earlier server, and start those again that were started."""
        for deployment, row in self._stored.load():
            self._cluster.adopt(deployment, row["name"], has_run=row["revision"] is not None)
            if row["isWanted"]:
                self._start(deployment, row)

    def start(self, deployment: int) -> None:
        """Start a deployment; refused when it is not Created or Stopped."""
        with self._locks.changing(deployment), self._stored.lock:
            row = self._stored.get(deployment)
            status = self._cluster.slots.state(deployment).status
            if status not in (Status.CREATED, Status.STOPPED):
                why = {
                    Status.CREATING: "is being created",
                    Status.FAILED: "is in a failed state: stop it first",
                    Status.STOPPING: "is stopping",
                }
                raise Refusal(240003, f"Deployment {row['name']} {why.get(status, 'is already started')} ({status}).")
            running, most = sum(each["isWanted"] for _, each in self._stored.all()), self._administration.quota.running
            if most is not None and running >= most:
                raise Refusal(240003, f"Running deployments quota reached: {running} of {most}.")
            row = started(row, self._cluster.profile)
            self._stored.save(deployment, row)
            self._start(deployment, row)

    def stop(self, deployment: int) -> None:
        """Stop a deployment; refused when it is not started."""
        with self._locks.changing(deployment), self._stored.lock:
            row = self._stored.get(deployment)
            status = self._cluster.slots.state(deployment).status
            if status in (Status.CREATING, Status.CREATED, Status.STOPPING, Status.STOPPED):
                why = "is being created" if status is Status.CREATING else "is already stopped"
                raise Refusal(240003, f"Deployment {row['name']} {why} ({status}).")
            self._refuse_during_rollout(row, status, 240003)
            self._stored.save(deployment, {**row, "deployed": None, "isWanted": False})
            self._cluster.stop(deployment)

    def delete(self, deployment: int) -> None:
        """Delete a deployment in any status (unless the line locks rollouts), and end its instances."""
        with self._locks.changing(deployment), self._stored.lock:
            row = self._stored.get(deployment)
            self._refuse_during_rollout(row, self._cluster.slots.state(deployment).status, 240001)
            self._delete(deployment)

    def clear(self) -> None:
        """Delete all deployments, also those with a change in progress."""
        with self._stored.lock:
            for deployment, _ in self._stored.all():
                self._delete(deployment)

    def _start(self, deployment: int, row: dict[str, Any]) -> None:
        self._cluster.start(deployment, wanted(row, self._project, self._files, self._line))

    def _delete(self, deployment: int) -> None:
        self._stored.delete(deployment)
        self._cluster.remove(deployment)

    def _refuse_during_rollout(self, row: dict[str, Any], status: Status, code: int) -> None:
        if self._line.locks_rollouts and status in (Status.STARTING, Status.UPDATING):
            raise Refusal(code, f"Deployment {row['name']} is {status}: wait until it is not.")


def started(row: dict[str, Any], profile: Profile) -> dict[str, Any]:
    """Return a stored deployment with a new revision, as one that is started now."""
    if profile.random_revisions:
        revision = f"{secrets.randbelow(10**8):08d}"
    else:
        revision = f"{int(row['revision'] or 0) + 1:05d}"
    return {**row, "revision": revision, "deployed": now(), "isWanted": True}
