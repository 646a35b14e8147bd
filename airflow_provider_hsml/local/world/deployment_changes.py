"""Changes of a deployment's settings: PUT, which creates or updates one, and the rollback to an earlier version."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.cluster.states import Status
from airflow_provider_hsml.local.errors import Refusal, malformed
from airflow_provider_hsml.local.logs import logger

from . import artifacts, tags
from .administration import SCHEMA_OF_LOGS
from .checks import check, checked_name
from .configuration import FIELDS, KEPT_WHEN_NULL, VERSIONED, completed
from .kafka import topic_of
from .lifecycle import started
from .stored_deployments import CREATOR, now
from .wanted import wanted
from .wire import NOT_TOLD_BY_PUT, on_the_wire

if TYPE_CHECKING:
    from airflow_provider_hsml.local.cluster.cluster import Cluster
    from airflow_provider_hsml.local.lines import Line

    from .accounts import Project
    from .administration import Administration
    from .files import ProjectFiles
    from .locks import Locks
    from .stored_deployments import StoredDeployments

log = logger(__name__)


class DeploymentChanges:
    """Checks and stores new settings of one project's deployments, and has the cluster follow those that run."""

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

    def put(self, body: dict[str, Any], *, new_version: bool = False) -> dict[str, Any]:
        """
        Create a deployment (without ``id``), or update one (with it).

        :param body: as on the wire; unknown fields are dropped
        :param new_version: store a change of versioned fields as a new version, instead of in the active one
        :return: the deployment, as PUT answers
        """
        known = {key for key in FIELDS if self._line.knows(key)} | {"artifactVersion"}  # Clients of all lines send it.
        if unknown := sorted(set(body) - known):
            log.warning("PUT serving: unknown fields %s are dropped", ", ".join(unknown))
        deployment = body.get("id")
        seconds = self._cluster.speeds.putting if self._cluster.profile.slow_put else 0.0
        if deployment is None:
            time.sleep(seconds)
            with self._stored.lock:
                return self._create(body)
        if not isinstance(deployment, int) or isinstance(deployment, bool):
            raise malformed(f"id {deployment!r} is not a number.")
        with self._locks.changing(deployment):
            time.sleep(seconds)
            with self._stored.lock:
                return self._update(deployment, body, new_version=new_version)

    def roll_back(self, deployment: int, version: Any) -> dict[str, Any]:
        """
        Activate an earlier version again, under its old number.

        :param version: its number; the number of the active version changes nothing
        :return: the deployment, as PUT answers
        """
        with self._locks.changing(deployment), self._stored.lock:
            row = self._stored.get(deployment)
            versions = self._stored.versions(deployment)
            if not isinstance(version, int) or isinstance(version, bool) or version not in versions:
                known = ", ".join(str(number) for number in versions)
                raise malformed(f"Version {version!r} of deployment {row['name']} not found: it has {known}.")
            status = self._cluster.slots.state(deployment).status
            if status in (Status.CREATING, Status.STARTING, Status.STOPPING):
                raise Refusal(240003, f"Deployment {row['name']} is {status}: wait before rolling back.")
            if version == row["version"]:
                return self._answer(deployment)
            config = row["config"] | {key: versions[version].get(key) for key in VERSIONED}
            self._apply(deployment, {**row, "version": version, "config": config}, status)
            return self._answer(deployment)

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = checked_name(body.get("name"), body.get("servingTool"), self._line)
        if self._stored.has_name(name):
            raise Refusal(240011, f"A deployment with the name {name} exists already.")
        given_tags = tags.read(body.get("tags") if self._line.knows("tags") else None, self._administration.tag_schemas)
        number, most = len(self._stored.all()), self._administration.quota.deployments
        if most is not None and number >= most:
            raise Refusal(240026, f"Deployments quota reached: {number} of {most}.")
        row = {
            "name": name,
            "version": 1,
            "revision": None,
            "deployed": None,
            "isWanted": False,
            "created": now(),
            "creator": CREATOR,
            "tags": given_tags,
            "config": self._checked(body),
        }
        deployment = self._stored.insert(row)
        self._cluster.prepare(deployment, name)
        return self._answer(deployment)

    def _update(self, deployment: int, body: dict[str, Any], *, new_version: bool) -> dict[str, Any]:
        row = self._stored.get(deployment)
        old = row["config"]
        status = self._cluster.slots.state(deployment).status
        self._refuse_update(row, body, status)
        kept = {key: old[key] for key in KEPT_WHEN_NULL if body.get(key) is None}
        if body.get("modelVersion") is not None and body.get("modelFramework") is None:
            kept["modelFramework"] = old["modelFramework"]
        scripts = {
            key: old[key]
            for key in ("predictor", "transformer", "configFile")
            if old[key] and body.get(key) == artifacts.told(key, old[key]) and not self._line.has_artifacts
        }
        config = self._checked({**body, **kept, **scripts}, row)
        if config == old:
            return self._answer(deployment)
        changed = {**row, "config": config}
        if new_version and self._line.has_versions and any(config[key] != old[key] for key in VERSIONED):
            changed["version"] = max(self._stored.versions(deployment)) + 1
        self._apply(deployment, changed, status)
        return self._answer(deployment)

    def _refuse_update(self, row: dict[str, Any], body: dict[str, Any], status: Status) -> None:
        """Refuse an update in a wrong status, of another version than the active one, or of a constant field."""
        name, old = row["name"], row["config"]
        if body.get("name") not in (None, name):
            raise malformed(f"Deployment {name} cannot be renamed to {body['name']!r}.")
        if status is Status.CREATING:
            raise Refusal(240004, f"Deployment {name} is being created.")
        if status in (Status.STARTING, Status.UPDATING, Status.STOPPING):
            raise Refusal(240002, f"Deployment {name} is {status}: wait before changing it.")
        if self._line.has_versions and body.get("version") not in (None, row["version"]):
            raise Refusal(240028, f"Version {body['version']} of deployment {name} is not active: {row['version']} is.")
        if body.get("modelServer") not in (None, old["modelServer"]):
            raise Refusal(240013, f"Deployment {name} has the model server {old['modelServer']}.")
        if body.get("servingTool") not in (None, old["servingTool"]):
            raise malformed(f"Deployment {name} has the serving tool {old['servingTool']}, which cannot be changed.")

    def _checked(self, body: dict[str, Any], row: dict[str, Any] | None = None) -> dict[str, Any]:
        """Build and check the whole configuration of a body, and create the topic and the artifact that it names."""
        config = completed(body, self._line)
        if self._line.has_artifacts:
            config = artifacts.located(config, row and row["config"], self._files)
        check(config, self._files, self._line, self._administration)
        topic = topic_of(config["kafkaTopicDTO"], row["name"] if row else body["name"], self._stored.topics)
        config["kafkaTopicDTO"] = topic
        if topic is not None:
            self._stored.topics[topic["name"]] = SCHEMA_OF_LOGS
        return artifacts.made(config, self._files) if self._line.has_artifacts else config

    def _apply(self, deployment: int, row: dict[str, Any], status: Status) -> None:
        """Store a changed deployment, and have the cluster follow if it runs."""
        runs = status not in (Status.CREATED, Status.STOPPED)
        if runs:
            row = started(row, self._cluster.profile)
        self._stored.save_with_version(deployment, row)
        if runs:
            self._cluster.update(deployment, wanted(row, self._project, self._files, self._line))

    def _answer(self, deployment: int) -> dict[str, Any]:
        """Return a deployment as PUT answers."""
        row, state = self._stored.get(deployment), self._cluster.slots.state(deployment)
        answer = on_the_wire(deployment, row, state, self._project, self._line)
        if self._cluster.profile.put_without_state:
            answer |= dict.fromkeys(NOT_TOLD_BY_PUT)
        return answer
