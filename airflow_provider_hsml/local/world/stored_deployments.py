"""The stored deployments of a project: their settings and versions, and the topics of their inference loggers."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.errors import Refusal

from . import artifacts
from .administration import SCHEMA_OF_LOGS
from .configuration import UNVERSIONED, VERSIONED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.local.lines import Line
    from airflow_provider_hsml.local.store import Store

    from .accounts import Project
    from .files import ProjectFiles
    from .tags import Tags

CREATOR = "Local User"


class StoredDeployments:
    """
    The deployments of one project, written through to the store. Refuses ids and names that do not exist.

    A stored deployment is a dict with ``name``, ``version``, ``config`` (keys of the wire), ``revision``, ``isWanted``
    (started and not stopped) and a few more. It is replaced, never changed. Thread-safe; hold ``lock`` to read and
    write in one step.

    :param topics: the Kafka topics that exist at first, with their schemas
    """

    def __init__(
        self, project: Project, store: Store, files: ProjectFiles, line: Line, topics: Mapping[str, str]
    ) -> None:
        self._project = project
        self._store = store
        self._files = files
        self._line = line
        self._by_id: dict[int, dict[str, Any]] = {}
        self.topics = dict(topics)
        """The Kafka topics that exist, with their schemas."""
        self.lock = threading.RLock()

    def load(self) -> list[tuple[int, dict[str, Any]]]:
        """Read the deployments that an earlier server stored, and return them with their ids."""
        for deployment, _project, _name, row in self._store.deployments(self._project.id):
            row["config"] = dict.fromkeys((*VERSIONED, *UNVERSIONED)) | row["config"]
            self._by_id[deployment] = row
            if topic := row["config"]["kafkaTopicDTO"]:
                self.topics.setdefault(topic["name"], SCHEMA_OF_LOGS)
        return list(self._by_id.items())

    # --- Reads

    def get(self, deployment: int) -> dict[str, Any]:
        """Return a stored deployment."""
        with self.lock:
            row = self._by_id.get(deployment)
        if row is None:
            raise Refusal(240000, f"Deployment {deployment} not found.")
        return row

    def all(self) -> list[tuple[int, dict[str, Any]]]:
        """Return all deployments with their ids, in the order of the ids."""
        with self.lock:
            return sorted(self._by_id.items())

    def has_name(self, name: str) -> bool:
        """Whether a deployment has this name."""
        with self.lock:
            return any(row["name"] == name for row in self._by_id.values())

    def id_of(self, name: str, code: int = 240000, *, any_case: bool = False) -> int:
        """
        Return the id of a deployment.

        :param name: the exact name; the lower-case name with ``any_case``
        :param code: Hopsworks' error code when no deployment has the name
        """
        with self.lock:
            names = ((number, row["name"]) for number, row in self._by_id.items())
            found = next((number for number, own in names if name == (own.lower() if any_case else own)), None)
        if found is None:
            raise Refusal(code, f"Deployment {name} not found.")
        return found

    def config(self, deployment: int) -> Mapping[str, Any]:
        """Return a deployment's configuration, for reading only."""
        config: Mapping[str, Any] = self.get(deployment)["config"]
        return config

    def versions(self, deployment: int) -> dict[int, dict[str, Any]]:
        """Return the versions of a deployment by their numbers, newest first."""
        return self._store.versions(deployment)

    def tags_of(self, deployment: int) -> Tags:
        """Return the tags of a deployment."""
        found: Tags = self.get(deployment).get("tags", [])
        return found

    def uses(self, path: str, version: int) -> str | None:
        """Return the name of a deployment that serves this version of the model at ``path``; None without one."""
        with self.lock:
            served = ((row["name"], row["config"]) for row in self._by_id.values())
            searched = (path, version)
            return next((name for name, c in served if (c["modelPath"], c["modelVersion"]) == searched), None)

    # --- Writes

    def insert(self, row: dict[str, Any]) -> int:
        """
        Store a new deployment with its first version, and return its id.

        :raises Refusal: the store has a deployment of that name
        """
        with self._store.transaction():
            deployment = self._store.insert_deployment(self._project.id, row["name"], row)
            if deployment is None:
                raise Refusal(240011, f"A deployment with the name {row['name']} exists already.")
            self._save_version(deployment, row)
        self._by_id[deployment] = row
        return deployment

    def save(self, deployment: int, row: dict[str, Any]) -> None:
        """Replace a deployment; its versions stay as they are."""
        self._store.update_deployment(deployment, row)
        self._by_id[deployment] = row

    def save_with_version(self, deployment: int, row: dict[str, Any]) -> None:
        """Replace a deployment and the version that is active in it."""
        with self._store.transaction():
            self._store.update_deployment(deployment, row)
            self._save_version(deployment, row)
        self._by_id[deployment] = row

    def set_tags(self, deployment: int, tags: Tags) -> None:
        """Replace the tags of a deployment."""
        with self.lock:
            self.save(deployment, {**self.get(deployment), "tags": list(tags)})

    def delete(self, deployment: int) -> None:
        """Delete a deployment with all its versions."""
        self._store.delete_deployment(deployment)
        del self._by_id[deployment]

    def _save_version(self, deployment: int, row: dict[str, Any]) -> None:
        number, time = row["version"], now()
        known = self._store.versions(deployment).get(number, {"created": time, "createdBy": CREATOR})
        document = {
            **{key: row["config"][key] for key in VERSIONED},
            "created": known["created"],
            "createdBy": known["createdBy"],
            "updated": time,
            "updatedBy": CREATOR,
        }
        self._store.put_version(deployment, number, document)
        if not self._line.has_artifacts:
            artifacts.keep(row["name"], number, row["config"], self._files)


def now() -> str:
    """Return the current time as on the wire: UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
