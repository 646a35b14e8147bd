"""
Registration of a model version: upload the files into the project, then add the version to the registry.

A version's number is claimed by creating its folder, which the server confirms to one caller only. Tasks that register
at the same time therefore never share a number, nor delete each other's files. A task also records its number in a
small file, so that its retry finds the number again and registers the version once. A number can be given back and
claimed by another task meanwhile, so the folder holds a mark of its task, and a retry uses only a folder with its mark.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import arguments, feature_view, model_version, wire
from airflow_provider_hsml.hopsworks.domain.model_version import Framework, ModelVersion, check_model_name
from airflow_provider_hsml.hopsworks.domain.plain import from_text, plain, rows
from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    InvalidInputError,
    NoResponseError,
    SupersededError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.flow import Backoff, Sleep, read_patiently

from . import feature_views, lookup, sources, tags, trained_until, upload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.feature_view import FeatureView, ViewName
    from airflow_provider_hsml.hopsworks.flow import Clock

    from .sources import Source

log = logging.getLogger(__name__)

AWAIT_REGISTRATION = 120.0
"""Seconds within which the registry must return a version that it accepted."""
MOST_NUMBERS = 100
"""Numbers that are tried: other tasks take a few of them meanwhile, but never all."""
CLAIMS = "Resources/airflow-provider-hsml/registered"
"""The folder of the notes for retries. Its path is stored in projects and must not change."""
_DELETE_TRIES = 3
SCHEMA = "model_schema.json"
MARK = "airflow_run.json"
"""The file in a version's folder that names the task whose folder it is: ``{"run": hash of its key}``."""
UNCLAIMED = 30.0
"""Seconds after which an empty folder is no other task's: it would hold that task's first file."""
BESIDE = frozenset({model_version.INPUT_EXAMPLE, SCHEMA, model_version.EXPECTED, trained_until.FILE, MARK})
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
    feature_view: ViewName | None = None
    """The feature view that it was trained on. It is looked up before anything is uploaded."""
    training_dataset_version: int | None = None
    trained_until: str | None = None
    """The end of the training data's interval, ISO 8601 in UTC."""
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
        given = {argument: value for argument, value in more.items() if value is not None}
        view = feature_view.read_arguments(given)
        for argument, reader in _READERS.items():
            if argument in given:
                given[argument] = reader("model_version" if argument == "version" else argument, given[argument])
        return cls(
            name,
            source,
            Framework(arguments.choice("framework", framework, [one.value for one in Framework])),
            {} if metrics is None else _metrics(metrics),
            feature_view=view,
            **given,
        )


def _metrics(value: object) -> dict[str, float]:
    """Read metrics: names that the registry can sort by, and finite numbers."""
    found = {}
    for name, number in arguments.mapping("metrics", from_text("metrics", value, '{"accuracy": 0.9}')).items():
        if not _METRIC_NAME.fullmatch(name):
            arguments.refuse(
                "metrics", "names of letters, digits and underscores, which the registry can sort by", name
            )
        found[name] = arguments.number(f"metrics[{name!r}]", number)
    return found


def _expected(what: str, value: object) -> Mapping[str, Any]:
    """Read recorded answers: one prediction a row."""
    read = from_text(what, value, '{"instances": [...], "predictions": [...]}')
    given = plain(what, arguments.mapping(what, read, ("instances", "predictions")))
    if not model_version.is_recorded(given):
        arguments.refuse(what, model_version.RECORDED, sorted(given))
    return given  # type: ignore[no-any-return]


def _schema(what: str, value: object) -> Any:
    return plain(what, from_text(what, value, '{"input_schema": {...}}'))


def _version(what: str, value: object) -> int:
    return arguments.integer(what, value, least=1)


_READERS: Mapping[str, Callable[[str, object], Any]] = {
    "version": _version,
    "description": arguments.text,
    "input_example": rows,
    "model_schema": _schema,
    "expected": _expected,
    "environment": arguments.resource_name,
    "training_dataset_version": _version,
    "trained_until": lambda _, value: trained_until.read_argument(value),
    "tags": arguments.tags,
}
"""The readers of the optional arguments."""


async def register(
    project: Project, model: NewModel, *, run_key: str | None = None, clock: Clock = time.time
) -> ModelVersion:
    """
    Register a model version; with a run key, only once for the same files.

    :param run_key: identifies the task across its retries; None to register a new version each time
    :param clock: returns the seconds since 1970
    :raises InvalidInputError: the version exists already
    """
    note = None
    if run_key:
        run = hashlib.sha256(run_key.encode()).hexdigest()
        note = _RetryNote(run, model.name, await model.source.fingerprint(project))
    version = await note.find(project) if note else None
    if version is not None:
        registered = await api.get_model(project, model.name, version)
        if registered is not None:
            log.info("Version %s of model %r was registered by an earlier try of this task", version, model.name)
            return await _tagged(project, model, registered)
    view = None
    if model.feature_view is not None:
        view = await feature_views.find_view(project, model.feature_view, model.training_dataset_version)
        model = _with_view(model, view)
    if version is None:
        version = await _take_number(project, model)
        if note:
            await _take_note(project, note, version)
    folder = f"Models/{model.name}/{version}"
    await _upload_model(project, model, folder, note)
    try:
        await _put(project, model, version, view, clock)
    except HopsworksError as error:
        if not (error.transient or error.outcome_unknown) and await _is_unknown(project, model.name, version):
            await _clean_up(project, note, folder)
        raise
    registered = await _await_registered(project, model.name, version, clock)
    return await _tagged(project, model, registered)


async def _take_note(project: Project, note: _RetryNote, version: int) -> None:
    """
    Write the retry note for a version, whose folder this try has claimed.

    :raises SupersededError: another try of this task has written it
    """
    folder = f"Models/{note.model_name}/{version}"
    await note.make_folder(project)
    await _check_alone(project, note, folder)
    try:
        await note.write(project, version)
    except Exception:
        await _clean_up(project, note, folder)
        raise
    # Both may have found no note. The one that was written last counts.
    await _check_alone(project, note, folder, version)


async def _check_alone(project: Project, note: _RetryNote, folder: str, ours: int | None = None) -> None:
    """
    Check that no later try of this task has begun while this one stood still: it would be registered twice.

    :param folder: of the version that this try has claimed
    :param ours: the number that this try has written into the note; None before that
    :raises SupersededError: another try has written the note; its version stays, and ours is deleted
    """
    before = note.noted
    # A note that is new may have no mark yet: that is uploaded after it.
    if await note.find(project) in (None, ours) and note.noted == before:
        return
    await _tidy(project, folder)
    message = (
        f"Model {note.model_name!r}: another try of this task is registering its files as version {note.noted}, which "
        "is kept."
    )
    raise SupersededError(message)


async def _clean_up(project: Project, note: _RetryNote | None, folder: str) -> None:
    """
    Delete the files of a version that was not registered, so that its number is free again.

    The folder is ours, since the server confirmed it to us, or it has our mark. The note goes first, and the folder
    stays if the note does: a retry that finds the note finds its own folder.
    """
    for leftover in [*([note.path] if note else []), folder]:
        if not await _tidy(project, leftover):
            return


async def _is_unknown(project: Project, name: str, version: int) -> bool:
    """Return whether the registry says that it lacks a version: its files are not deleted otherwise."""
    try:
        return await api.get_model(project, name, version) is None
    except HopsworksError as error:
        log.warning("%s; the uploaded files are kept", error)
        return False


async def _tagged(project: Project, model: NewModel, registered: ModelVersion) -> ModelVersion:
    """
    Set the tags; a retry sets them again.

    The feature view is that of the request: the registry shows it only once it has recorded the provenance.
    """
    await tags.set_tags(project, registered.name, registered.version, model.tags)
    view = model.feature_view
    return replace(
        registered,
        tags={**registered.tags, **model.tags},
        feature_view=registered.feature_view or (view.name if view else None),
        feature_view_version=registered.feature_view_version or (view.version if view else None),
        training_dataset_version=registered.training_dataset_version or model.training_dataset_version,
    )


def _with_view(model: NewModel, view: FeatureView) -> NewModel:
    """Fill in what the feature view says of a model: its version, and the schema that the SDK infers from it."""
    model = replace(model, feature_view=feature_view.ViewName(view.name, view.version))
    rows = (model.expected or {}).get("instances") or ()
    if view.serving_keys and any(not isinstance(row, dict) or set(view.serving_keys) & set(row) for row in rows):
        log.warning(
            "expected: %s has the serving keys %s. Predictions for rows with serving keys change as online features "
            "do, so a deployment that looks features up is probed for 'same_length' and 'finite' only",
            view,
            ", ".join(view.serving_keys),
        )
    if model.training_dataset_version is None:
        log.warning("%s: without training_dataset_version, Hopsworks records no provenance of the model", view)
    elif model.model_schema is None:
        schema = view.model_schema()
        if schema is not None:
            return replace(model, model_schema=schema)
        log.warning("%s has transformation functions: give model_schema, which is not inferred from these", view)
    return model


class _RetryNote:
    """A small file in which a retry finds the version number that an earlier try took. It keeps no other task away."""

    def __init__(self, run: str, model_name: str, files: str) -> None:
        self.run = run
        self.path = f"{CLAIMS}/{run}.json"
        self.model_name = model_name
        self.files = files
        self.mark = json.dumps({"run": run}).encode()
        self.noted: int | None = None
        """The number in the note as it was read last, whether or not its version is still that of this task."""

    async def find(self, project: Project) -> int | None:
        """Return the number that an earlier try claimed for the same files; None when there is none."""
        entry = await api.get_entry(project, self.path)
        read = functools.partial(wire.resource, required={"model_version": int}, optional={})
        claim = None if entry is None else await api.read_json(project, self.path, read, size=entry.size)
        if claim is None:
            return None
        self.noted = cast("int", claim["model_version"])
        if (claim.get("files"), claim.get("model_name")) != (self.files, self.model_name):
            log.info("The files differ from those of the earlier try: registering a new version")
            return None
        if not await self.has_marked(project, self.noted):
            log.info("Version %s is no longer that of the earlier try: registering a new version", self.noted)
            return None
        return self.noted

    async def has_marked(self, project: Project, version: int) -> bool:
        """Return whether a version's folder has the mark of this task."""
        read = functools.partial(wire.resource, required={"run": str}, optional={})
        mark = await api.read_json(project, self._mark(version), read, size=None)
        return mark is not None and mark["run"] == self.run

    def _mark(self, version: int) -> str:
        return f"Models/{self.model_name}/{version}/{MARK}"

    @staticmethod
    async def make_folder(project: Project) -> None:
        """Make the folder of the notes."""
        if not await api.path_exists(project, CLAIMS):
            await api.make_folder(project, CLAIMS.rpartition("/")[0])
            await api.make_folder(project, CLAIMS)

    async def write(self, project: Project, version: int) -> None:
        """Record the number, and mark its folder, before any file is uploaded."""
        if self.noted is not None:
            await api.delete_path(project, self.path)
        content = {"model_name": self.model_name, "model_version": version, "files": self.files}
        await upload.upload_bytes(project, self.path, json.dumps(content).encode())
        await upload.upload_bytes(project, self._mark(version), self.mark)
        self.noted = version


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
        is_ours = await _claim(project, model.name, model.version)
        if not is_ours and not await _claim_left(project, model.name, model.version):
            message = (
                f"Version {model.version} of model {model.name!r} exists already.\nLeave model_version out to take the "
                "next number."
            )
            raise InvalidInputError(message)
        return model.version
    # Both sources count: a registered version may have lost its folder, and a running task may have created a folder
    # whose version is not registered yet.
    registered = await lookup.list_versions(project, model.name)
    first = 1 + max([await _highest(project, root), *registered.numbers])
    for version in range(first, first + MOST_NUMBERS):
        if await _claim(project, model.name, version):
            return version
    message = (
        f"register model {model.name!r}: Hopsworks lists no version above {first - 1}, but {MOST_NUMBERS} folders "
        "after it are taken.\nRun the task again."
    )
    raise UnexpectedResponseError(message, status=400)


async def _claim(project: Project, name: str, version: int) -> bool:
    """Create a version's folder; return False if it existed."""
    try:
        return await api.make_folder(project, f"Models/{name}/{version}")
    except HopsworksError as error:
        if not error.outcome_unknown:
            raise
        log.warning("%s; checking whether the folder was made", error)
        if not await _claim_left(project, name, version):
            raise
        return True


async def _claim_left(project: Project, name: str, version: int) -> bool:
    """
    Claim a version's folder that an earlier request of ours may have made: return whether it is ours.

    Another task's does not stay empty. Of several claims to an empty one, the server confirms one: by ``Files``.
    """
    folder = f"Models/{name}/{version}"
    for pause in (0.0, UNCLAIMED):
        await Sleep(pause)
        found = await api.list_folder(project, folder)
        if found is None or found.items:
            return False
    is_free = project.has_files_folder and await api.get_model(project, name, version) is None
    return is_free and await api.make_folder(project, f"{folder}/Files")


async def _highest(project: Project, root: str) -> int:
    """Return the highest number among a model's folders."""
    entries = await sources.list_all(project, root)
    return max((int(entry.name) for entry in entries if entry.name.isdecimal()), default=0)


async def _upload_model(project: Project, model: NewModel, folder: str, note: _RetryNote | None) -> None:
    """Upload all files; if that fails, delete the folder with its note, unless a retry can continue with both."""
    try:
        await _upload_files(project, model, folder, note)
    except Exception as error:
        # Where requests stay unanswered, a clean-up may delete the note and not the folder.
        if note is None or not isinstance(error, NoResponseError):
            await _clean_up(project, note, folder)
        raise


async def _upload_files(project: Project, model: NewModel, folder: str, note: _RetryNote | None) -> None:
    """
    Upload all files, and delete those of an incomplete earlier try first.

    :param note: of this task, which has marked the folder
    """
    leftovers = await sources.list_all(project, folder)
    if note:
        sources.check_uploaded(project, folder, {MARK: len(note.mark)}, {entry.name: entry for entry in leftovers})
    for leftover in leftovers:
        if leftover.name != MARK:
            await api.delete_path(project, f"{folder}/{leftover.name}")
    files = f"{folder}/Files" if project.has_files_folder else folder
    if files != folder:
        await api.make_folder(project, files)
    beside = {
        model_version.INPUT_EXAMPLE: model.input_example,
        SCHEMA: model.model_schema,
        model_version.EXPECTED: model.expected,
        trained_until.FILE: trained_until.content(model.trained_until),
    }
    given = {name: content for name, content in beside.items() if content is not None}
    # Before 4.2 both are in one folder: there the argument wins over a file of the same name.
    await model.source.fill(project, files, leave_out={*given, MARK} if files == folder else ())
    sizes = {}
    for name, content in given.items():
        encoded = json.dumps(content).encode()
        sizes[name] = len(encoded)
        await upload.upload_bytes(project, f"{folder}/{name}", encoded)
    if sizes:
        there = {entry.name: entry for entry in await sources.list_all(project, folder) if not entry.is_folder}
        sources.check_uploaded(project, folder, sizes, there)


async def _put(project: Project, model: NewModel, version: int, view: FeatureView | None, clock: Clock) -> None:
    """Add the version to the registry. From here on, files are deleted only if the registry refused the version."""
    description = {
        "description": model.description or f"A collection of models for {model.name}",
        "framework": model.framework.value,
        "metrics": dict(model.metrics) or None,
        "environment": model.environment,
        "featureView": view.as_registered() if view else None,
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


async def _tidy(project: Project, path: str) -> bool:
    """Delete a file or a folder, and return whether it is certainly gone."""
    try:
        for _ in range(_DELETE_TRIES):
            await api.delete_path(project, path)
            if not await api.path_exists(project, path):
                return True
        log.warning("%r was deleted, as was answered, and still exists; the leftover files are kept", path)
    except HopsworksError as error:
        log.warning("%s; the leftover files are kept", error)
    return False
