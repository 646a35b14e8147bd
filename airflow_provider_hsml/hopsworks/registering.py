"""
Registering a model: the files into the project, then the version into the registry.

The number of a version is claimed by making its folder, which the server grants to one caller only; so tasks that
register at the same time never share a number, nor clean up each other's files. A task's retry finds what the try
before it claimed by a small file of its own, and registers once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import calls, predicting, reading, registry
from .calls import Upload
from .errors import HopsworksError, InvalidInput, NotInTime
from .models import Framework, ModelVersion, check_model_name
from .waiting import Pace, Pause, Procedure, ask, patiently

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .calls import Project
    from .waiting import Clock

log = logging.getLogger(__name__)

CHUNK = 10 * 1024 * 1024
"""Bytes of a file that are sent at once."""
AWAIT_REGISTRATION = 120.0
"""Seconds within which the registry has to show a version that it accepted."""
CLAIMS = "Resources/airflow-provider-hsml/registered"
SCHEMA = "model_schema.json"
_METRIC_NAME = re.compile(r"[a-zA-Z0-9_]+")


@dataclass(frozen=True, slots=True)
class NewModel:
    """What is to be registered, checked when it is made."""

    name: str
    path: Path
    """A file, or a folder with all that the model needs."""
    framework: Framework
    metrics: Mapping[str, float] = field(default_factory=dict)
    version: int | None = None
    """None for the next free number."""
    description: str | None = None
    input_example: Any = None
    """One row or several, as a request would have them."""
    model_schema: Any = None
    expected: Mapping[str, Any] | None = None
    """``{"instances": [...], "predictions": [...]}``: what this version answers, to know it by later."""
    environment: str | None = None
    feature_view: str | None = None
    training_dataset_version: int | None = None

    @classmethod
    def read(
        cls, *, model_name: object, model_path: object, framework: object, metrics: object = None, **more: Any
    ) -> NewModel:
        """
        Read what users give, strictly.

        :param model_name: letters, digits, underscores
        :param model_path: a file or folder of this machine
        :param framework: one of ``Framework``
        :param metrics: name -> finite number
        :param more: the other fields
        :raises InvalidInput: what is wrong, by the name of the argument
        """
        name = check_model_name(model_name)
        path = Path(reading.text("model_path", str(model_path) if isinstance(model_path, Path) else model_path))
        if not path.exists():
            message = (
                f"model_path {str(path)!r}: no such file or folder on this machine. Tasks may run on different "
                "machines: train and register in one place, or share the folder."
            )
            raise InvalidInput(message)
        if path.is_dir() and not any(entry.is_file() for entry in path.rglob("*")):
            message = f"model_path {str(path)!r}: the folder is empty. Save the model into it before it is registered."
            raise InvalidInput(message)
        for argument in ("input_example", "model_schema", "expected"):
            if more.get(argument) is not None:
                _check_json(argument, more[argument])
        if more.get("version") is not None:
            more["version"] = reading.integer("model_version", more["version"], least=1)
        if more.get("training_dataset_version") is not None:
            more["training_dataset_version"] = reading.integer(
                "training_dataset_version", more["training_dataset_version"], least=1
            )
        if more.get("expected") is not None:
            more["expected"] = _expected(more["expected"])
        return cls(
            name,
            path,
            Framework(reading.choice("framework", framework, [one.value for one in Framework])),
            _metrics(metrics),
            **more,
        )

    def files(self) -> list[tuple[str, Path]]:
        """List the files, by their path below the model's folder."""
        if self.path.is_file():
            return [(self.path.name, self.path)]
        return sorted(
            (entry.relative_to(self.path).as_posix(), entry) for entry in self.path.rglob("*") if entry.is_file()
        )

    def digest(self) -> str:
        """Compute the SHA-256 of all files, names and contents."""
        total = hashlib.sha256()
        for name, path in self.files():
            with path.open("rb") as file:
                total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return total.hexdigest()


def _metrics(value: object) -> dict[str, float]:
    """Read metrics: names that the registry can sort by, and finite numbers."""
    found = {}
    for name, number in reading.mapping("metrics", value or {}).items():
        if not _METRIC_NAME.fullmatch(name):
            reading.refuse("metrics", "names of letters, digits and underscores, which the registry can sort by", name)
        found[name] = reading.number(f"metrics[{name!r}]", number)
    return found


def _expected(value: object) -> Mapping[str, Any]:
    """Read recorded answers: one prediction a row."""
    given = reading.mapping("expected", value, ("instances", "predictions"))
    rows, answers = given.get("instances"), given.get("predictions")
    if not isinstance(rows, list) or not isinstance(answers, list) or not rows or len(rows) != len(answers):
        reading.refuse(
            "expected", "the keys instances and predictions, lists of the same length and not empty", sorted(given)
        )
    return given


def _check_json(argument: str, value: object) -> None:
    """Refuse what JSON cannot hold, before anything is sent."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        message = f"{argument}: expected plain JSON values ({error}). Use .tolist() for arrays and data frames."
        raise InvalidInput(message) from error


def register(
    project: Project, model: NewModel, *, run_key: str | None = None, clock: Clock = time.time
) -> Procedure[ModelVersion]:
    """
    Register a model version; with a run key, only once for the same files.

    :param project: the project to register in
    :param model: what to register
    :param run_key: what a retry of the same task has in common with the try before; None: register anew each time
    :param clock: tells the seconds since 1970
    :raises InvalidInput: the version exists already
    """
    claim = _Claim(f"{CLAIMS}/{hashlib.sha256(run_key.encode()).hexdigest()}.json", model) if run_key else None
    version = (yield from claim.find(project)) if claim else None
    if version is not None:
        registered = yield from ask(calls.get_model(project, model.name, version))
        if registered is not None:
            log.info("Version %s of model %r was registered by an earlier try of this task", version, model.name)
            return registered
    else:
        version = yield from _take_number(project, model)
        if claim:
            yield from claim.write(project, version)
    folder = f"Models/{model.name}/{version}"
    try:
        yield from _upload_model(project, model, folder)
    except Exception:
        # The folder is ours: making it was answered to us. The claim goes first, so that nobody takes it for live.
        for leftover in [*([claim.path] if claim else []), folder]:
            yield from _tidy(project, leftover)
        raise
    yield from _put(project, model, version, clock)
    return (yield from _await_registered(project, model.name, version, clock))


class _Claim:
    """A small file by which a retry finds the number that the try before it took."""

    def __init__(self, path: str, model: NewModel) -> None:
        self.path = path
        self.model_name = model.name
        self.files = model.digest()
        self._is_there = False

    def find(self, project: Project) -> Procedure[int | None]:
        """Find the number that an earlier try took for the same files."""
        content = yield from ask(calls.download(project, self.path))
        if content is None:
            return None
        self._is_there = True
        claim = json.loads(content)
        if (claim.get("files"), claim.get("model_name")) != (self.files, self.model_name):
            log.info("The files are not those of the earlier try: registering a new version")
            return None
        return int(claim["model_version"])

    def write(self, project: Project, version: int) -> Procedure[None]:
        """Note the number, before any file is sent."""
        if not (yield from ask(calls.path_exists(project, CLAIMS))):
            yield from ask(calls.make_folder(project, CLAIMS.rpartition("/")[0]))
            yield from ask(calls.make_folder(project, CLAIMS))
        if self._is_there:
            yield from ask(calls.delete_path(project, self.path))
        content = {"model_name": self.model_name, "model_version": version, "files": self.files}
        yield from _upload_bytes(project, self.path, json.dumps(content).encode())


def _await_registered(project: Project, name: str, version: int, clock: Clock) -> Procedure[ModelVersion]:
    """Wait until the registry shows a version that it accepted."""
    pace = Pace(first=0.5, most=5.0, deadline=clock() + AWAIT_REGISTRATION, clock=clock)
    while True:
        registered = yield from patiently(calls.get_model(project, name, version), pace)
        if registered is not None:
            return registered
        pause = pace.pause()
        if pause is None:
            message = (
                f"Version {version} of model {name!r} was accepted, but the registry did not show it within "
                f"{AWAIT_REGISTRATION:g} s. Try again: the same version is looked for."
            )
            raise NotInTime(message)
        yield Pause(pause)


def _take_number(project: Project, model: NewModel) -> Procedure[int]:
    """Take a number by making its folder."""
    root = f"Models/{model.name}"
    if not (yield from ask(calls.path_exists(project, root))):
        yield from ask(calls.make_folder(project, root))
    if model.version is not None:
        if not (yield from ask(calls.make_folder(project, f"{root}/{model.version}"))):
            message = (
                f"Version {model.version} of model {model.name!r} exists already. Leave model_version out to take the "
                "next number."
            )
            raise InvalidInput(message)
        return model.version
    # A version may have lost its folder, and a folder may be claimed by a task that is not done yet: both count.
    registered = yield from registry.list_versions(project, model.name)
    version = 1 + max([(yield from _highest(project, root)), *(known.version for known in registered)])
    while not (yield from ask(calls.make_folder(project, f"{root}/{version}"))):
        version += 1
    return version


def _highest(project: Project, root: str) -> Procedure[int]:
    """Find the highest number among a model's folders."""
    highest = seen = 0
    while True:
        names = (yield from ask(calls.list_folder(project, root, offset=seen))) or []
        if not names:
            return highest
        seen += len(names)
        highest = max([highest, *(int(name) for name in names if name.isdecimal())])


def _upload_model(project: Project, model: NewModel, folder: str) -> Procedure[None]:
    """Send all files; anew, where an earlier try got part of the way."""
    if not (yield from ask(calls.make_folder(project, f"{folder}/Files"))):
        for leftover in ("Files", predicting.INPUT_EXAMPLE, SCHEMA, predicting.EXPECTED):
            yield from ask(calls.delete_path(project, f"{folder}/{leftover}"))
        yield from ask(calls.make_folder(project, f"{folder}/Files"))
    made: set[str] = set()
    for name, path in model.files():
        target = f"{folder}/Files/{name}"
        for parent in reversed(Path(name).parents):
            below = parent.as_posix()
            if below != "." and below not in made:
                yield from ask(calls.make_folder(project, f"{folder}/Files/{below}"))
                made.add(below)
        log.info("Uploading %s (%s bytes)", target, path.stat().st_size)
        for upload in _parts(path.name, path.stat().st_size, path):
            yield from ask(calls.upload_part(project, target.rpartition("/")[0], upload))
    beside = (
        (predicting.INPUT_EXAMPLE, model.input_example),
        (SCHEMA, model.model_schema),
        (predicting.EXPECTED, model.expected),
    )
    for name, content in beside:
        if content is not None:
            yield from _upload_bytes(project, f"{folder}/{name}", json.dumps(content).encode())


def _upload_bytes(project: Project, path: str, content: bytes) -> Procedure[None]:
    folder, _, name = path.rpartition("/")
    yield from ask(
        calls.upload_part(project, folder, Upload(name, content, _fields(name, len(content), 1, len(content))))
    )


def _parts(name: str, size: int, path: Path) -> Iterator[Upload]:
    """Cut a file into parts; an empty file is one empty part."""
    with path.open("rb") as file:
        for number in range(1, max(1, math.ceil(size / CHUNK)) + 1):
            content = file.read(CHUNK)
            yield Upload(name, content, _fields(name, size, number, len(content)))


def _fields(name: str, size: int, number: int, length: int) -> dict[str, str]:
    """Give the form fields that describe a part."""
    return {
        "templateId": "-1",
        "flowChunkSize": str(CHUNK),
        "flowCurrentChunkSize": str(length),
        "flowTotalSize": str(size),
        "flowIdentifier": f"{size}_{name}",
        "flowFilename": name,
        "flowRelativePath": name,
        "flowTotalChunks": str(math.ceil(size / CHUNK)),
        "flowChunkNumber": str(number),
    }


def _put(project: Project, model: NewModel, version: int, clock: Clock) -> Procedure[None]:
    """Put the version into the registry. From here on nothing is deleted any more."""
    description = {
        "description": model.description or f"A collection of models for {model.name}",
        "framework": model.framework.value,
        "metrics": dict(model.metrics) or None,
        "environment": model.environment,
        "featureView": model.feature_view and {"name": model.feature_view},
        "trainingDatasetVersion": model.training_dataset_version,
    }
    call = calls.put_model(
        project, model.name, version, {key: value for key, value in description.items() if value is not None}
    )
    try:
        yield from ask(call)
    except HopsworksError as error:
        if not error.in_doubt:
            raise
        log.warning("%s; looking whether it was registered", error)
        pace = Pace(first=1.0, most=5.0, deadline=clock() + AWAIT_REGISTRATION, clock=clock)
        if (yield from patiently(calls.get_model(project, model.name, version), pace)) is None:
            yield from ask(call)


def _tidy(project: Project, path: str) -> Procedure[None]:
    try:
        yield from ask(calls.delete_path(project, path))
    except HopsworksError as error:
        log.warning("%s; it is left where it is", error)
