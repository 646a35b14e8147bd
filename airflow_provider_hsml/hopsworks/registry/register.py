"""
Registration of a model version: upload the files into the project, then add the version to the registry.

A version's number is claimed by creating its folder, which the server confirms to one caller only. Tasks that register
at the same time therefore never share a number, nor delete each other's files. A task writes its claim into a small
file, so that its retry finds the number again and registers the version once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import arguments, model_version
from airflow_provider_hsml.hopsworks.domain.model_version import Framework, ModelVersion, check_model_name
from airflow_provider_hsml.hopsworks.errors import HopsworksError, InvalidInputError
from airflow_provider_hsml.hopsworks.flow import Backoff, read_patiently

from . import lookup, sources, upload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.flow import Clock

    from .sources import Source

log = logging.getLogger(__name__)

AWAIT_REGISTRATION = 120.0
"""Seconds within which the registry must return a version that it accepted."""
CLAIMS = "Resources/airflow-provider-hsml/registered"
SCHEMA = "model_schema.json"
BESIDE = frozenset({model_version.INPUT_EXAMPLE, SCHEMA, model_version.EXPECTED})
"""A version's metadata files, beside the model's own files."""
_METRIC_NAME = re.compile(r"[a-zA-Z0-9_]+")


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model version to register. Build it with ``read``, which checks the arguments."""

    name: str
    source: Source
    """The source of its files."""
    framework: Framework
    metrics: Mapping[str, float] = field(default_factory=dict)
    version: int | None = None
    """None for the next free number."""
    description: str | None = None
    input_example: Any = None
    """One row or several, as in a request."""
    model_schema: Any = None
    expected: Mapping[str, Any] | None = None
    """``{"instances": [...], "predictions": [...]}``: this version's answers, by which verification identifies it."""
    environment: str | None = None
    feature_view: str | None = None
    training_dataset_version: int | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)
    """Name -> value. Hopsworks must have a schema for each."""

    @classmethod
    def read(
        cls, *, model_name: object, model_path: object, framework: object, metrics: object = None, **more: Any
    ) -> NewModel:
        """
        Parse and check the arguments of users.

        :param model_name: letters, digits, underscores
        :param model_path: a file or folder of this machine, or ``hopsfs:/Projects/...``
        :param framework: one of ``Framework``
        :param metrics: name -> finite number
        :param more: the other fields
        :raises InvalidInputError: an argument is wrong; the message names it
        """
        name = check_model_name(model_name)
        source = sources.read_source("model_path", model_path)
        more["tags"] = arguments.mapping("tags", more.get("tags") or {})
        for argument in ("input_example", "model_schema", "expected", "tags"):
            if more.get(argument) is not None:
                _check_json(argument, more[argument])
        if more.get("version") is not None:
            more["version"] = arguments.integer("model_version", more["version"], least=1)
        if more.get("training_dataset_version") is not None:
            more["training_dataset_version"] = arguments.integer(
                "training_dataset_version", more["training_dataset_version"], least=1
            )
        if more.get("expected") is not None:
            more["expected"] = _expected(more["expected"])
        return cls(
            name,
            source,
            Framework(arguments.choice("framework", framework, [one.value for one in Framework])),
            _metrics(metrics),
            **more,
        )


def _metrics(value: object) -> dict[str, float]:
    """Read metrics: names that the registry can sort by, and finite numbers."""
    found = {}
    for name, number in arguments.mapping("metrics", value or {}).items():
        if not _METRIC_NAME.fullmatch(name):
            arguments.refuse(
                "metrics", "names of letters, digits and underscores, which the registry can sort by", name
            )
        found[name] = arguments.number(f"metrics[{name!r}]", number)
    return found


def _expected(value: object) -> Mapping[str, Any]:
    """Read recorded answers: one prediction a row."""
    given = arguments.mapping("expected", value, ("instances", "predictions"))
    rows, answers = given.get("instances"), given.get("predictions")
    if not isinstance(rows, list) or not isinstance(answers, list) or not rows or len(rows) != len(answers):
        arguments.refuse(
            "expected", "the keys instances and predictions, lists of the same length and not empty", sorted(given)
        )
    return given


def _check_json(argument: str, value: object) -> None:
    """Raise an error for values that JSON cannot hold, before anything is sent."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        message = f"{argument}: expected plain JSON values ({error}).\nUse .tolist() for arrays and data frames."
        raise InvalidInputError(message) from error


async def register(
    project: Project, model: NewModel, *, run_key: str | None = None, clock: Clock = time.time
) -> ModelVersion:
    """
    Register a model version; with a run key, only once for the same files.

    :param run_key: identifies the task across its retries; None to register a new version each time
    :param clock: returns the seconds since 1970
    :raises InvalidInputError: the version exists already
    """
    claim = None
    if run_key:
        path = f"{CLAIMS}/{hashlib.sha256(run_key.encode()).hexdigest()}.json"
        claim = _Claim(path, model.name, await model.source.fingerprint(project))
    version = await claim.find(project) if claim else None
    if version is not None:
        registered = await api.get_model(project, model.name, version)
        if registered is not None:
            log.info("Version %s of model %r was registered by an earlier try of this task", version, model.name)
            return await _tagged(project, model, registered)
    is_ours = version is None
    if version is None:
        version = await _take_number(project, model)
    folder = f"Models/{model.name}/{version}"
    try:
        if claim and is_ours:
            await claim.write(project, version)
        await _upload_model(project, model, folder)
    except Exception:
        await _clean_up(project, claim, folder)
        raise
    try:
        await _put(project, model, version, clock)
    except HopsworksError as error:
        if not (error.transient or error.outcome_unknown) and await _is_unknown(project, model.name, version):
            await _clean_up(project, claim, folder)
        raise
    registered = await _await_registered(project, model.name, version, clock)
    return await _tagged(project, model, registered)


async def _clean_up(project: Project, claim: _Claim | None, folder: str) -> None:
    """
    Delete the files of a version that was not registered, so that its number is free again.

    The folder is ours, since the server confirmed it to us. The claim goes first, so that no retry reads it.
    """
    for leftover in [*([claim.path] if claim else []), folder]:
        await _tidy(project, leftover)


async def _is_unknown(project: Project, name: str, version: int) -> bool:
    """Whether the registry surely does not have a version: its files are not deleted otherwise."""
    try:
        return await api.get_model(project, name, version) is None
    except HopsworksError as error:
        log.warning("%s; the uploaded files are kept", error)
        return False


async def _tagged(project: Project, model: NewModel, registered: ModelVersion) -> ModelVersion:
    """Set the tags; a retry sets them again."""
    for tag, value in model.tags.items():
        await api.put_model_tag(project, registered.name, registered.version, tag, value)
    return replace(registered, tags={**registered.tags, **model.tags})


class _Claim:
    """A small file in which a retry finds the version number that an earlier try claimed."""

    def __init__(self, path: str, model_name: str, files: str) -> None:
        self.path = path
        self.model_name = model_name
        self.files = files
        self._is_there = False

    async def find(self, project: Project) -> int | None:
        """Return the number that an earlier try claimed for the same files; None when there is none."""
        content = await api.download(project, self.path)
        if content is None:
            return None
        self._is_there = True
        claim = json.loads(content)
        if (claim.get("files"), claim.get("model_name")) != (self.files, self.model_name):
            log.info("The files differ from those of the earlier try: registering a new version")
            return None
        return int(claim["model_version"])

    async def write(self, project: Project, version: int) -> None:
        """Record the number, before any file is uploaded."""
        if not await api.path_exists(project, CLAIMS):
            await api.make_folder(project, CLAIMS.rpartition("/")[0])
            await api.make_folder(project, CLAIMS)
        if self._is_there:
            await api.delete_path(project, self.path)
        content = {"model_name": self.model_name, "model_version": version, "files": self.files}
        await upload.upload_bytes(project, self.path, json.dumps(content).encode())


async def _await_registered(project: Project, name: str, version: int, clock: Clock) -> ModelVersion:
    """Wait until the registry returns a version that it accepted."""
    backoff = Backoff(first=0.5, most=5.0, deadline=clock() + AWAIT_REGISTRATION, clock=clock)
    while True:
        registered = await read_patiently(api.get_model(project, name, version), backoff)
        if registered is not None:
            return registered
        await backoff.wait(
            f"Version {version} of model {name!r} was accepted, but the registry did not show it within "
            f"{AWAIT_REGISTRATION:g} s.\nRetry the task: it looks for the same version.",
            about=f"Version {version} of model {name!r}",
        )


async def _take_number(project: Project, model: NewModel) -> int:
    """Claim a version number by creating its folder."""
    root = f"Models/{model.name}"
    if not await api.path_exists(project, root):
        await api.make_folder(project, root)
    if model.version is not None:
        if not await api.make_folder(project, f"{root}/{model.version}"):
            message = (
                f"Version {model.version} of model {model.name!r} exists already.\nLeave model_version out to take the "
                "next number."
            )
            raise InvalidInputError(message)
        return model.version
    # A version may have lost its folder, and a running task may have claimed a folder: both count.
    registered = await lookup.list_versions(project, model.name)
    version = 1 + max([await _highest(project, root), *(known.version for known in registered)])
    while not await api.make_folder(project, f"{root}/{version}"):
        version += 1
    return version


async def _highest(project: Project, root: str) -> int:
    """Return the highest number among a model's folders."""
    highest = seen = 0
    while True:
        names = await api.list_folder(project, root, offset=seen) or []
        if not names:
            return highest
        seen += len(names)
        highest = max([highest, *(int(name) for name in names if name.isdecimal())])


async def _upload_model(project: Project, model: NewModel, folder: str) -> None:
    """Upload all files, and delete those of an incomplete earlier try first."""
    for leftover in await api.list_folder(project, folder) or []:
        await api.delete_path(project, f"{folder}/{leftover}")
    files = f"{folder}/Files" if project.has_files_folder else folder
    if files != folder:
        await api.make_folder(project, files)
    await model.source.fill(project, files)
    beside = (
        (model_version.INPUT_EXAMPLE, model.input_example),
        (SCHEMA, model.model_schema),
        (model_version.EXPECTED, model.expected),
    )
    for name, content in beside:
        if content is not None:
            await upload.upload_bytes(project, f"{folder}/{name}", json.dumps(content).encode())


async def _put(project: Project, model: NewModel, version: int, clock: Clock) -> None:
    """Add the version to the registry. From here on, files are deleted only if the registry refused the version."""
    description = {
        "description": model.description or f"A collection of models for {model.name}",
        "framework": model.framework.value,
        "metrics": dict(model.metrics) or None,
        "environment": model.environment,
        "featureView": model.feature_view and {"name": model.feature_view},
        "trainingDatasetVersion": model.training_dataset_version,
    }
    call = api.put_model(
        project, model.name, version, {key: value for key, value in description.items() if value is not None}
    )
    try:
        await call
    except HopsworksError as error:
        if not error.outcome_unknown:
            raise
        log.warning("%s; checking whether it was registered", error)
        backoff = Backoff(first=1.0, most=5.0, deadline=clock() + AWAIT_REGISTRATION, clock=clock)
        if await read_patiently(api.get_model(project, model.name, version), backoff) is None:
            await call


async def _tidy(project: Project, path: str) -> None:
    try:
        await api.delete_path(project, path)
    except HopsworksError as error:
        log.warning("%s; the leftover files are kept", error)
