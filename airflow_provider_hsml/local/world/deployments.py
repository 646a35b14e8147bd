"""Deployments as rows: what is wanted, its versions, and what is refused. What runs is ``cluster``'s to say."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

from airflow_provider_hsml.local.cluster.engines import Component
from airflow_provider_hsml.local.cluster.states import Status
from airflow_provider_hsml.local.errors import Refusal, malformed

from . import artifacts, tags
from .administration import SCHEMA_OF_LOGS
from .checks import check, checked_name
from .configuration import FIELDS, KEPT_WHEN_NULL, UNVERSIONED, VERSIONED, completed
from .kafka import topic_of
from .locks import Locks
from .wanted import wanted
from .wire import NOT_TOLD_BY_PUT, on_the_wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.local.cluster.cluster import Cluster
    from airflow_provider_hsml.local.cluster.rollouts import Wanted
    from airflow_provider_hsml.local.cluster.states import State
    from airflow_provider_hsml.local.lines import Line
    from airflow_provider_hsml.local.store import Store

    from .accounts import Project
    from .administration import Administration
    from .files import ProjectFiles

log = logging.getLogger(__name__)

_CREATOR = "Local User"


class Deployments:
    """
    The deployments of one project.

    :param project: the project
    :param store: where the rows are
    :param files: the project's files
    :param cluster: what runs them
    :param line: whose ways it has
    :param administration: what the cluster's administrators have set
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
        self._store = store
        self._files = files
        self._cluster = cluster
        self._line = line
        self._administration = administration
        self._topics = dict(administration.kafka_topics)
        """The topics that there are, with their schemas."""
        self._lock = threading.RLock()
        self._rows: dict[int, dict[str, Any]] = {}
        self.locks = Locks()

    def restore(self) -> None:
        """Take the rows in as they were when the server ended; what was to run is started again."""
        for deployment, _project, _name, row in self._store.deployments(self._project.id):
            row["config"] = dict.fromkeys((*VERSIONED, *UNVERSIONED)) | row["config"]
            self._rows[deployment] = row
            if topic := row["config"]["kafkaTopicDTO"]:
                self._topics.setdefault(topic["name"], SCHEMA_OF_LOGS)
            self._cluster.adopt(deployment, row["name"], has_run=row["revision"] is not None)
            if row["isWanted"]:
                self._cluster.start(deployment, self._wanted(row))

    # --- Reading

    def get(self, deployment: int) -> dict[str, Any]:
        """Give a deployment, as on the wire."""
        with self._lock:
            row = self._row(deployment)
            return self._told(deployment, row, self._cluster.look(deployment))

    def by_name(self, name: str) -> dict[str, Any]:
        """Find a deployment by its exact name."""
        return self.get(self.id_of(name))

    def id_of(self, name: str, code: int = 240000, *, any_case: bool = False) -> int:
        """
        Give the id of a deployment.

        :param name: its name; in lower case for one in any case
        :param code: with which it is refused when there is none
        """
        with self._lock:
            names = ((number, row["name"]) for number, row in self._rows.items())
            found = next((number for number, own in names if name == (own.lower() if any_case else own)), None)
        if found is None:
            raise Refusal(code, f"Deployment {name} not found.")
        return found

    def config(self, deployment: int) -> Mapping[str, Any]:
        """Give a deployment's configuration, which is not to be changed."""
        with self._lock:
            config: Mapping[str, Any] = self._row(deployment)["config"]
            return config

    def find(
        self, model: str | None = None, model_version: int | None = None, status: str | None = None
    ) -> list[dict[str, Any]]:
        """
        List deployments.

        :param model: of one model only
        :param model_version: of one version of that model only
        :param status: in one status only, in any case
        """
        if model_version is not None and model is None:
            raise malformed("modelVersion needs model as well.")
        if status is not None and status.capitalize() not in set(Status):
            raise malformed(f"Status {status!r} is not known: expected one of {', '.join(Status)}.")
        time.sleep(self._cluster.profile.list_cost * len(self._rows))
        with self._lock:
            rows = sorted(self._rows.items())
            shown = [self._told(number, row, self._cluster.look(number)) for number, row in rows]
        return [
            row
            for row in shown
            if (model is None or row["modelName"] == model)
            and (model_version is None or row["modelVersion"] == model_version)
            and (status is None or row["status"] == status.capitalize())
        ]

    def versions(self, deployment: int) -> list[dict[str, Any]]:
        """Give the versions of a deployment, as on the wire, newest first."""
        with self._lock:
            row = self._row(deployment)
            return [
                {"version": number, "active": number == row["version"]}
                | {key: value for key, value in document.items() if self._line.knows(key)}
                for number, document in self._store.versions(deployment).items()
            ]

    def logs(self, deployment: int, component: str, tail: int) -> list[dict[str, str]]:
        """Give the last lines of each instance of a component, as on the wire."""
        known = next((known for known in get_args(Component) if known == component), None)
        if known is None:
            raise malformed(f"Component {component!r} is not known: expected predictor or transformer.")
        with self._lock:
            self._row(deployment)
            logs = self._cluster.logs(deployment, known, tail)
        if self._cluster.profile.logs_lock:
            with self.locks.reading(deployment):
                time.sleep(self._cluster.speeds.reading_logs)
        return [{"instanceName": instance, "content": content} for instance, content in logs]

    def all_shown(self) -> list[dict[str, Any]]:
        """
        Give all deployments for people: as on the wire, without what it costs a client to look.

        ``answering`` is added: the version of the model that really answers, or None.
        """
        with self._lock:
            rows = sorted(self._rows.items())
            told = [self._told(number, row, self._cluster.state(number)) for number, row in rows]
            answering = [self._cluster.answering(number) for number, _ in rows]
        return [row | {"answering": model and model.version} for row, model in zip(told, answering, strict=True)]

    def tails(self, deployment: int, lines: int) -> list[tuple[Component, str, str]]:
        """Give (component, instance, last lines) for people, without a client's lock; none where nothing runs."""
        with contextlib.suppress(Refusal):
            return [
                (component, instance, text)
                for component in get_args(Component)
                for instance, text in self._cluster.logs(deployment, component, lines)
            ]
        return []

    def tags_of(self, deployment: int) -> tags.Tags:
        """Give the tags of a deployment."""
        with self._lock:
            found: tags.Tags = self._row(deployment).get("tags", [])
            return found

    def set_tags(self, deployment: int, now: tags.Tags) -> None:
        """Replace the tags of a deployment."""
        with self._lock:
            self._keep(deployment, {**self._row(deployment), "tags": list(now)})

    def uses(self, path: str, version: int) -> str | None:
        """Give the name of a deployment that serves this version of the model at ``path``, if there is one."""
        with self._lock:
            served = ((row["name"], row["config"]) for row in self._rows.values())
            is_it = (path, version)
            return next((name for name, c in served if (c["modelPath"], c["modelVersion"]) == is_it), None)

    # --- Changing

    def put(self, body: dict[str, Any], *, new_version: bool = False) -> dict[str, Any]:
        """
        Create a deployment (without ``id``), or change one (with it).

        :param body: as on the wire; fields that are not known are dropped
        :param new_version: store a change of what is versioned as a new version, instead of in the active one
        :return: the deployment, as PUT answers
        """
        known = {key for key in FIELDS if self._line.knows(key)} | {"artifactVersion"}  # Clients of all lines send it.
        if unknown := sorted(set(body) - known):
            log.warning("PUT serving: fields %s are not known, and dropped", ", ".join(unknown))
        deployment = body.get("id")
        seconds = self._cluster.speeds.putting if self._cluster.profile.slow_put else 0.0
        if deployment is None:
            time.sleep(seconds)
            with self._lock:
                return self._create(body)
        if not isinstance(deployment, int) or isinstance(deployment, bool):
            raise malformed(f"id {deployment!r} is not a number.")
        with self.locks.changing(deployment):
            time.sleep(seconds)
            with self._lock:
                return self._update(deployment, body, new_version=new_version)

    def start(self, deployment: int) -> None:
        """Start a deployment; refused when it is not Created or Stopped."""
        with self.locks.changing(deployment), self._lock:
            row = self._row(deployment)
            status = self._cluster.state(deployment).status
            if status not in (Status.CREATED, Status.STOPPED):
                why = {
                    Status.CREATING: "is being created",
                    Status.FAILED: "is in a failed state: stop it first",
                    Status.STOPPING: "is stopping",
                }
                raise Refusal(240003, f"Deployment {row['name']} {why.get(status, 'is already started')} ({status}).")
            running, most = sum(other["isWanted"] for other in self._rows.values()), self._administration.quota.running
            if most is not None and running >= most:
                raise Refusal(240003, f"Running deployments quota reached: {running} of {most}.")
            row = {**row, "revision": self._revision(row), "deployed": _now(), "isWanted": True}
            self._keep(deployment, row)
            self._cluster.start(deployment, self._wanted(row))

    def stop(self, deployment: int) -> None:
        """Stop a deployment; refused when it is not started."""
        with self.locks.changing(deployment), self._lock:
            row = self._row(deployment)
            status = self._cluster.state(deployment).status
            if status in (Status.CREATING, Status.CREATED, Status.STOPPING, Status.STOPPED):
                why = "is being created" if status is Status.CREATING else "is already stopped"
                raise Refusal(240003, f"Deployment {row['name']} {why} ({status}).")
            self._refuse_while_rolling(row, status, 240003)
            self._keep(deployment, {**row, "deployed": None, "isWanted": False})
            self._cluster.stop(deployment)

    def delete(self, deployment: int) -> None:
        """Delete a deployment in any status (where the line does not lock a rollout), and what it runs."""
        with self.locks.changing(deployment), self._lock:
            row = self._row(deployment)
            self._refuse_while_rolling(row, self._cluster.state(deployment).status, 240001)
            self._delete(deployment)

    def clear(self) -> None:
        """Delete all deployments, whatever is under way."""
        with self._lock:
            for deployment in list(self._rows):
                self._delete(deployment)

    def _delete(self, deployment: int) -> None:
        self._store.delete_deployment(deployment)
        del self._rows[deployment]
        self._cluster.remove(deployment)

    def roll_back(self, deployment: int, version: Any) -> dict[str, Any]:
        """
        Make an earlier version the active one again, under its old number.

        :param version: its number; that of the active one changes nothing
        :return: the deployment, as PUT answers
        """
        with self.locks.changing(deployment), self._lock:
            row = self._row(deployment)
            versions = self._store.versions(deployment)
            if not isinstance(version, int) or isinstance(version, bool) or version not in versions:
                known = ", ".join(str(number) for number in versions)
                raise malformed(f"Version {version!r} of deployment {row['name']} not found: it has {known}.")
            status = self._cluster.state(deployment).status
            if status in (Status.CREATING, Status.STARTING, Status.STOPPING):
                raise Refusal(240003, f"Deployment {row['name']} is {status}: wait before rolling back.")
            if version == row["version"]:
                return self._answer_to_put(deployment)
            config = row["config"] | {key: versions[version].get(key) for key in VERSIONED}
            self._apply(deployment, {**row, "version": version, "config": config}, status)
            return self._answer_to_put(deployment)

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = checked_name(body.get("name"), body.get("servingTool"), self._line)
        if any(row["name"] == name for row in self._rows.values()):
            raise Refusal(240011, f"A deployment with the name {name} exists already.")
        given_tags = tags.read(body.get("tags") if self._line.knows("tags") else None, self._administration.tag_schemas)
        most = self._administration.quota.deployments
        if most is not None and len(self._rows) >= most:
            raise Refusal(240026, f"Deployments quota reached: {len(self._rows)} of {most}.")
        config = self._checked(body)
        row = {
            "name": name,
            "version": 1,
            "revision": None,
            "deployed": None,
            "isWanted": False,
            "created": _now(),
            "creator": _CREATOR,
            "tags": given_tags,
            "config": config,
        }
        with self._store.transaction():
            deployment = self._store.insert_deployment(self._project.id, name, row)
            if deployment is None:
                raise Refusal(240011, f"A deployment with the name {name} exists already.")
            self._keep_version(deployment, row)
        self._rows[deployment] = row
        self._cluster.prepare(deployment, name)
        return self._answer_to_put(deployment)

    def _update(self, deployment: int, body: dict[str, Any], *, new_version: bool) -> dict[str, Any]:
        row = self._row(deployment)
        name = row["name"]
        old = row["config"]
        status = self._cluster.state(deployment).status
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
            return self._answer_to_put(deployment)
        changed = {**row, "config": config}
        if new_version and self._line.has_versions and any(config[key] != old[key] for key in VERSIONED):
            changed["version"] = max(self._store.versions(deployment)) + 1
        self._apply(deployment, changed, status)
        return self._answer_to_put(deployment)

    def _checked(self, body: dict[str, Any], row: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make a whole configuration of a body, check it, and make what it asks for: its topic, its artifact."""
        config = completed(body, self._line)
        if self._line.has_artifacts:
            config = artifacts.located(config, row and row["config"], self._files)
        check(config, self._files, self._line, self._administration)
        topic = topic_of(config["kafkaTopicDTO"], row["name"] if row else body["name"], self._topics)
        config["kafkaTopicDTO"] = topic
        if topic is not None:
            self._topics[topic["name"]] = SCHEMA_OF_LOGS
        return artifacts.made(config, self._files) if self._line.has_artifacts else config

    def _refuse_while_rolling(self, row: dict[str, Any], status: Status, code: int) -> None:
        if self._line.locks_rollouts and status in (Status.STARTING, Status.UPDATING):
            raise Refusal(code, f"Deployment {row['name']} is {status}: wait until it is not.")

    def _apply(self, deployment: int, row: dict[str, Any], status: Status) -> None:
        """Write a changed row, and have the cluster follow if it runs."""
        has_run = status not in (Status.CREATED, Status.STOPPED)
        if has_run:
            row = {**row, "revision": self._revision(row), "deployed": _now(), "isWanted": True}
        with self._store.transaction():
            self._store.update_deployment(deployment, row)
            self._keep_version(deployment, row)
        self._rows[deployment] = row
        if has_run:
            self._cluster.update(deployment, self._wanted(row))

    # --- Rows

    def _row(self, deployment: int) -> dict[str, Any]:
        row = self._rows.get(deployment)
        if row is None:
            raise Refusal(240000, f"Deployment {deployment} not found.")
        return row

    def _keep(self, deployment: int, row: dict[str, Any]) -> None:
        self._store.update_deployment(deployment, row)
        self._rows[deployment] = row

    def _keep_version(self, deployment: int, row: dict[str, Any]) -> None:
        number, now = row["version"], _now()
        known = self._store.versions(deployment).get(number, {"created": now, "createdBy": _CREATOR})
        document = {
            **{key: row["config"][key] for key in VERSIONED},
            "created": known["created"],
            "createdBy": known["createdBy"],
            "updated": now,
            "updatedBy": _CREATOR,
        }
        self._store.put_version(deployment, number, document)
        if not self._line.has_artifacts:
            artifacts.keep(row["name"], number, row["config"], self._files)

    def _revision(self, row: dict[str, Any]) -> str:
        if self._cluster.profile.random_revisions:
            return f"{secrets.randbelow(10**8):08d}"
        return f"{int(row['revision'] or 0) + 1:05d}"

    def _wanted(self, row: dict[str, Any]) -> Wanted:
        return wanted(row, self._project, self._files, self._line)

    def _told(self, deployment: int, row: dict[str, Any], state: State) -> dict[str, Any]:
        return on_the_wire(deployment, row, state, self._project, self._line)

    def _answer_to_put(self, deployment: int) -> dict[str, Any]:
        answer = self._told(deployment, self._row(deployment), self._cluster.state(deployment))
        if self._cluster.profile.put_without_state:
            answer |= dict.fromkeys(NOT_TOLD_BY_PUT)
        return answer


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
