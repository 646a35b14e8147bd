"""What is stored in the folder of a result: parts, the progress of each try, and the manifest."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol, Self

from .served import Served
from .statistics import Distribution, Latencies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MANIFEST = "manifest.json"
FORM = 1
"""The version of what is stored."""
_PROGRESS = re.compile(r"_progress-[a-z0-9-]+\.json")
_OWN = re.compile(r"(part|_errors|errors)-\d{12}-[a-z0-9-]+\.[a-z.]+|_progress-[a-z0-9-]+\.json")
EXAMPLES = (
    MANIFEST,
    *(f"part-{0:012d}-try.{ending}" for ending in ("jsonl", "parquet")),
    *(f"{begin}-{0:012d}-try.jsonl" for begin in ("errors", "_errors")),
    "_progress-try.json",
)
"""A name of each kind of file in the folder of a result."""


class Results(Protocol):
    """The folder of a result."""

    is_local: bool
    """Whether ``create`` of two tasks at once writes one file: object storage cannot promise that."""

    def names(self) -> list[str]:
        """Return the names of its files."""

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if there is no such file."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file: whole, or not at all."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a file whole, unless there is one of that name; return whether it was written."""

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""

    def join(self, name: str, parts: Sequence[str]) -> None:
        """Write a file with the contents of others, one after the other."""


class Part(Protocol):
    """The rows of a part that is not written yet, encoded."""

    @property
    def size(self) -> int:
        """Bytes that it holds, about."""

    def add(self, rows: ResultRows) -> None:
        """Add the rows of a chunk."""

    def finish(self) -> bytes:
        """Return the content of its file."""


class Format(Protocol):
    """A format of result files."""

    ending: str

    def begin(self, remembered: dict[str, Any]) -> Part:
        """
        Begin a part.

        :param remembered: what the parts of a result share, as plain JSON; the first one fills it
        """


@dataclass(frozen=True, slots=True)
class ResultRows:
    """Rows of the result that follow each other."""

    first: int
    """The number of the first row in the input, from 0."""
    keys: Mapping[str, list[Any]]
    """The values of each key column."""
    predictions: list[Any]
    errors: Mapping[int, str] = field(default_factory=dict)
    """Why there is no prediction, by the place of the row."""


@dataclass(slots=True)
class Progress:
    """What a try has scored: the parts that it has written or taken over, and the counts of their rows."""

    key: str
    """A hash of what the task scores: the run, the input, the columns, the size of a chunk."""
    served: dict[str, Any]
    """What the deployment served when the last part was written."""
    single_version: bool | str = True
    """Whether all rows were answered by one version; ``unknown`` where Hopsworks does not tell versions apart."""
    rows: int = 0
    errors: int = 0
    answered: int | None = None
    """The number of a row with a prediction; None while there is none."""
    errors_file: str | None = None
    """The file with the errors of all parts; None without any, and until all rows are scored."""
    seconds: float = 0.0
    """Seconds of all tries that these parts are of."""
    parts: list[dict[str, Any]] = field(default_factory=list)
    """``file``, ``first``, ``rows``, ``errors``, and ``errors_file`` where there are any."""
    latencies: Latencies = field(default_factory=Latencies)
    distribution: Distribution = field(default_factory=Distribution)
    remembered: dict[str, Any] = field(default_factory=dict)
    """What the parts of a format share."""

    @property
    def success(self) -> int:
        """The number of rows with a prediction."""
        return self.rows - self.errors

    @property
    def files(self) -> list[str]:
        """The names of the parts, in the order of their rows."""
        return [part["file"] for part in self.parts]

    @property
    def error_files(self) -> list[str]:
        """The names of the files with the errors of parts. They are deleted when the result is complete."""
        return [part["errors_file"] for part in self.parts if "errors_file" in part]

    @property
    def is_whole(self) -> bool:
        """Whether the parts have each of the counted rows once."""
        ends = [0, *(part["first"] + part["rows"] for part in self.parts)]
        return [*(part["first"] for part in self.parts), self.rows] == ends

    def adopt(self, other: Progress) -> None:
        """Become the same as a later progress."""
        for one in fields(self):
            setattr(self, one.name, getattr(other, one.name))

    @property
    def served_key(self) -> list[Any]:
        """What the answers of the last part depend on."""
        return Served.key_from_json(self.served)

    @property
    def fingerprint(self) -> str:
        """A hash of all that the result depends on."""
        return digest([self.key, self.served_key])

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "form": FORM,
            "key": self.key,
            "served": self.served,
            "single_version": self.single_version,
            "rows": self.rows,
            "errors": self.errors,
            "answered": self.answered,
            "errors_file": self.errors_file,
            "seconds": self.seconds,
            "parts": self.parts,
            "latencies": self.latencies.to_json(),
            "distribution": self.distribution.to_json(),
            "remembered": self.remembered,
        }

    @classmethod
    def from_json(cls, data: Any) -> Self | None:
        """Read what ``to_json`` returned; None if it is something else."""
        try:
            if data.pop("form") != FORM:
                return None
            latencies = Latencies.from_json(data.pop("latencies"))
            distribution = Distribution.from_json(data.pop("distribution"))
            found = cls(**data, latencies=latencies, distribution=distribution)
            found.served_key  # noqa: B018 - raises an error if it is not complete
            is_whole = found.is_whole
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        return found if is_whole else None

    def manifest(self, result_path: str) -> dict[str, Any]:
        """
        Return the manifest of a complete result: small, for XCom.

        :param result_path: the folder
        """
        return {
            "result_path": result_path,
            "files": self.files,
            "errors_file": self.errors_file,
            "counts": {"success": self.success, "error": self.errors, "skipped": 0},
            "model_name": self.served["model_name"],
            "model_version": self.served["model_version"],
            "deployment_version": self.served["deployment_version"],
            "single_version": self.single_version,
            "fingerprint": self.fingerprint,
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(self.rows / self.seconds, 1) if self.seconds else None,
            "latency_ms": self.latencies.percentiles(),
            "distribution": self.distribution.summary(),
        }


def digest(value: Any) -> str:
    """Return a hash of plain JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_progress(results: Results, names: Sequence[str]) -> list[Progress]:
    """
    Return the stored progress of all tries, the one that came furthest first.

    :param names: the files of the folder. A try counts only if its parts are among them
    """
    found, is_complete = [], MANIFEST in names
    for name in sorted(names):
        content = results.read(name) if _PROGRESS.fullmatch(name) else None
        try:
            progress = None if content is None else Progress.from_json(json.loads(content))
        except ValueError:
            continue
        if progress is not None:
            needed = {*progress.files, *(() if is_complete else progress.error_files)}
            if needed <= set(names):
                found.append(progress)
    return sorted(found, key=lambda one: -one.rows)


def is_own(name: str) -> bool:
    """Return whether a file has a name that only a task like this one gives, and is no manifest."""
    return bool(_OWN.fullmatch(name))
