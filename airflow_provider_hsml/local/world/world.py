"""The state of the server, without HTTP: projects with their files, models and deployments, and the cluster."""

from __future__ import annotations

import fcntl
import functools
import json
import os
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.cluster.cluster import Cluster
from airflow_provider_hsml.local.cluster.faults import LostChange
from airflow_provider_hsml.local.cluster.request_schemas import EnforcingEngine
from airflow_provider_hsml.local.errors import Refusal

from .deployments import Deployments
from .executions import Executions
from .feature_store import FeatureStore
from .files import DATASETS, ProjectFiles
from .holdings import Holdings
from .jobs import Jobs
from .registry import Registry, split_id
from .request_schemas import find_schema

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from airflow_provider_hsml.local.cluster.behaviour import Profile, Speeds
    from airflow_provider_hsml.local.cluster.engines import Engine
    from airflow_provider_hsml.local.cluster.faults import Faults
    from airflow_provider_hsml.local.cluster.job_runner import JobRunner
    from airflow_provider_hsml.local.lines import Line
    from airflow_provider_hsml.local.store import Store

    from .accounts import Accounts, Project
    from .administration import Administration
    from .feature_store import FeatureView


_LINE = "hopsworks-version"


class RootInUseError(Exception):
    """Another server uses the root."""


class Root:
    """
    The data folder, for one server at a time.

    :param folder: created if it does not exist
    :raises RootInUseError: another server uses it
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._lock, 1000).decode("utf-8", "replace").strip()
            os.close(self._lock)
            raise RootInUseError(
                f"{folder} is in use by {owner or 'another server'}: end that one, or give another --root.",
            ) from None

    def keep_version(self, version: str) -> None:
        """
        Record the emulated Hopsworks version in the root, or check it against the recorded one.

        :raises ValueError: the root was created with another version, so its data cannot be read with this one
        """
        file = self.folder / _LINE
        recorded = (file.read_text().strip() if file.exists() else "") or version
        if recorded != version:
            raise ValueError(
                f"{self.folder} was created with --hopsworks-version {recorded}: pass that version, or another --root."
            )
        file.write_text(f"{version}\n")

    def say_who(self, owner: str) -> None:
        """Record the owner of the root, for the error message of a second server."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{owner}\n".encode(), 0)

    def release(self) -> None:
        """Release the root for another server."""
        os.close(self._lock)


class World:
    """
    All projects and their content. Thread-safe.

    :param root: the data folder
    :param accounts: projects and keys
    :param store: the database in ``root``
    :param engine: runs the models
    :param job_runner: runs the jobs
    :param speeds: the durations of transitions
    :param profile: the simulated quirks of a cluster
    :param faults: failures on command
    :param line: the Hopsworks line to emulate
    :param administration: the settings of the cluster's administrators
    :param ca_bundle: the CA certificate for clients; None for plain HTTP
    :param ingress_port: the port of the ingress, as reported to clients
    """

    def __init__(
        self,
        root: Path,
        accounts: Accounts,
        store: Store,
        engine: Engine,
        *,
        job_runner: JobRunner,
        speeds: Speeds,
        profile: Profile,
        faults: Faults,
        line: Line,
        administration: Administration,
        ca_bundle: Path | None = None,
        ingress_port: int,
    ) -> None:
        self.accounts = accounts
        self.faults = faults
        self.engine = engine
        self.line = line
        self.administration = administration
        self.ca_bundle = ca_bundle
        self.ingress_port = ingress_port
        self.ingress_by_path = line.ingress_by_path
        self._speeds = speeds
        enforcing = EnforcingEngine(engine, functools.partial(find_schema, self._sharing))
        self.cluster = Cluster(enforcing, speeds, profile, faults)
        self._store = store
        self._holdings: dict[int, Holdings] = {}
        for project in accounts.projects:
            files = ProjectFiles(project.name, root / "projects" / project.name, root / "staging" / project.name)
            registry = Registry(project, store, files, line, administration.tag_schemas)
            deployments = Deployments(project, store, files, self.cluster, line=line, administration=administration)
            features = FeatureStore(project, root / "feature-stores" / f"{project.name}.json")
            executions = Executions(project, store, files, job_runner, lambda: self.cluster.speeds, administration)
            jobs = Jobs(project, store, files, executions)
            self._holdings[project.id] = Holdings(project, files, registry, deployments, features, jobs)
        for project in accounts.projects:
            files = self._holdings[project.id].files
            others = [other for other in accounts.shared_with(project) if other != project]
            files.shared = {other.name: self._holdings[other.id].files for other in others}
            self._holdings[project.id].deployments.lifecycle.restore()
            self._holdings[project.id].jobs.restore()

    def project(self, project_id: int) -> Holdings:
        """Return a project; refuse one that is unknown, or in which the user has no role."""
        return self._holdings[self.accounts.by_id(project_id).id]

    def registry(self, project_id: int, registry_id: int) -> Registry:
        """Return a project's own registry, or one that is shared with it; refuse any other."""
        project = self.accounts.by_id(project_id)
        if any(other.id == registry_id for other in self.accounts.shared_with(project)):
            return self._holdings[registry_id].registry
        raise Refusal(
            360007 if registry_id in self._holdings else 360006, f"Model registry {registry_id} is not this project's."
        )

    def lose_next_change(self) -> None:
        """
        Lose the next update or rollback of a running deployment.

        The request is answered with 201 and the deployment resource changes, but the cluster never receives the change:
        the old instances keep running.
        """
        self.faults.add(LostChange())

    def reset(self, *, everything: bool = False) -> None:
        """
        Remove all faults, holds and stale locks, and reset the speeds, so that tests do not affect each other.

        :param everything: delete all deployments, models, jobs and files as well
        """
        self.faults.clear()
        self.cluster.speeds = self._speeds
        for holdings in self._holdings.values():
            holdings.deployments.locks.forget()
        for holdings in self._holdings.values() if everything else ():
            holdings.deployments.lifecycle.clear()
            holdings.jobs.clear()
            holdings.features.clear()
            for row in holdings.registry.find().get("items", []):
                holdings.registry.delete(row["id"])
            for entry in (entry for dataset in DATASETS for entry in holdings.files.listing(dataset)):
                holdings.files.delete(entry.path)

    def leave_lock(self, name: str, *, seconds: float = 60.0) -> None:
        """
        Leave a stale lock on a deployment, like a server that crashes during a change; changes are refused.

        :param name: of a deployment of the first project
        :param seconds: until the lock expires
        """
        deployments = self.project(self.accounts.projects[0].id).deployments
        deployments.locks.leave(deployments.stored.id_of(name), seconds)

    def register_model(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        version: int | None = None,
        metrics: Mapping[str, float] | None = None,
        framework: str | None = "SKLEARN",
        input_example: Any = None,
        project: str | None = None,
    ) -> int:
        """
        Register a model without HTTP, to set up tests.

        :param files: the content of its folder ``Files``, by path relative to it
        :param version: None for the next one
        :param framework: one of Hopsworks' names, such as SKLEARN
        :param input_example: a JSON value
        :param project: None for the first; the user needs no role in it
        :return: the version
        """
        holdings = self._of_project(project)
        if version is None:
            listed = holdings.registry.find([f"name_eq:{name}"]).get("items", [])
            version = max((row["version"] for row in listed), default=0) + 1
        folder = f"Models/{name}/{version}"
        for path, content in files.items():
            holdings.files.write(f"{folder}/{'Files/' if self.line.has_files_folder else ''}{path}", content)
        if input_example is not None:
            holdings.files.write(f"{folder}/input_example.json", json.dumps(input_example).encode())
        numbers = {key: float(number) for key, number in (metrics or {}).items()}
        holdings.registry.put(f"{name}_{version}", {"framework": framework, "metrics": numbers})
        return version

    def declare(self, view: FeatureView, *, project: str | None = None) -> FeatureStore:
        """
        Add a feature view to a project's feature store, or replace the one of its name and version.

        :param project: None for the first
        :return: the feature store
        """
        store = self._of_project(project).features
        store.declare(view)
        return store

    def _sharing(self, project_id: int) -> list[Holdings]:
        """Return what a project holds, and then what those projects hold that share their models with it."""
        project = self.accounts.by_id(project_id)
        others = [other for other in self.accounts.shared_with(project) if other != project]
        return [self._holdings[each.id] for each in (project, *others)]

    def holdings_of(self, project: Project) -> Holdings:
        """Return what a project holds, also one whose models are only shared with the user's."""
        return self._holdings[project.id]

    def _of_project(self, name: str | None) -> Holdings:
        by_name = {holdings.project.name: holdings for holdings in self._holdings.values()}
        if name is not None and name not in by_name:
            raise ValueError(f"project {name!r} is not known: expected one of {', '.join(by_name)}.")
        return by_name[name or self.accounts.projects[0].name]

    def delete_model(self, project_id: int, model_id: str) -> None:
        """Delete a version of a model; refuse one that a deployment uses."""
        holdings = self.project(project_id)
        name, version = split_id(model_id)
        path = holdings.files.hopsfs("Models", name)
        for other in self._holdings.values():
            if user := other.deployments.stored.uses(path, version):
                raise Refusal(360009, f"Model {model_id} is used by deployment {user} of {other.project.name}.")
        holdings.registry.delete(model_id)

    def close(self) -> None:
        """End all instances and executions, and close the database."""
        for holdings in self._holdings.values():
            holdings.jobs.executions.close()
        self.cluster.close()
        self._store.close()
