"""
The promotions of a deployment, read from the journal that the provider keeps in the project's files.

The journal has a file for each step, ``Resources/airflow-provider-hsml/journal/<deployment>/<number>-<id>.json``. It is
the provider's, and any client may write there: a key of another type counts as missing, and an unreadable file is left
out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_provider_hsml.local.world.files import ProjectFiles

FOLDER = "Resources/airflow-provider-hsml/journal"
_FILE = re.compile(r"[0-9]{8}-.*\.json")
_FILE_BYTES = 4 << 20
_LETTERS = 2000
"""The longest text that is shown."""
_LATEST = 4e9
"""Seconds since 1970: a later time is none."""
IN_PROGRESS, ROLLING_BACK, ROLLED_BACK, REJECTED = "in progress", "rolling back", "rolled back", "rejected"
_ENDS = {"verified": "verified", "rolled_back": ROLLED_BACK, "superseded": "superseded", "failed": "unverified"}
_BEGUN = {"promoting": IN_PROGRESS, "rolling_back": ROLLING_BACK}


class Served(NamedTuple):
    """A model version; for a script without a model, all fields are None."""

    project: str | None
    name: str | None
    version: int | None

    @classmethod
    def read(cls, data: Any) -> Served:
        """Read the version from JSON of any form."""
        row = data if isinstance(data, dict) else {}
        version = row.get("version")
        is_number = isinstance(version, int) and not isinstance(version, bool)
        return cls(_text(row.get("project")), _text(row.get("name")), version if is_number else None)


@dataclass(frozen=True, slots=True)
class Promotion:
    """One promotion, or the rejection of a version that never answered."""

    deployment: str
    at: float
    """Seconds since 1970."""
    result: str
    """One of the words above, in ``_ENDS``, or ``not finished``."""
    served: Served
    before: Served
    is_rollback: bool
    """Whether a person asked for it."""
    reason: str
    task: str
    """``<DAG>/<run>/<task>/<map index>``; empty outside of Airflow."""

    @property
    def is_in_progress(self) -> bool:
        """Whether it may still change the deployment."""
        return self.result in (IN_PROGRESS, ROLLING_BACK)


@dataclass(frozen=True, slots=True)
class Mark:
    """The last thing that a deployment's journal says against a model version."""

    result: str
    reason: str
    deployment: str


def deployments(files: ProjectFiles) -> list[str]:
    """Return the names of the deployments that have a journal."""
    folder = files.folder(FOLDER)
    return [] if folder is None else sorted(place.name for place in folder.iterdir() if place.is_dir())


def promotions(files: ProjectFiles, deployment: str, now: float) -> list[Promotion]:
    """
    Return the promotions of a deployment, newest first, as far as the journal keeps them.

    :param now: seconds since 1970
    """
    entries = list(_entries(files, deployment))
    last = {_text(entry.get("id")): entry for entry in entries}
    shown = [_promotion(deployment, entry, now if entry is entries[-1] else None) for entry in last.values()]
    shown += _rejections(deployment, entries)
    return sorted(shown, key=lambda each: each.at)[::-1]


def marks(history: Iterable[Promotion]) -> dict[Served, Mark]:
    """
    Return the versions that were rolled back or rejected, and not verified since.

    :param history: the promotions of one deployment, newest first
    """
    found: dict[Served, Mark] = {}
    for each in reversed(list(history)):
        if each.result in (ROLLING_BACK, ROLLED_BACK, REJECTED) and each.served != each.before:
            found[each.served] = Mark(each.result, each.reason, each.deployment)
        elif each.result == "verified":
            found.pop(each.served, None)
            if each.is_rollback and each.served != each.before:
                found[each.before] = Mark(ROLLED_BACK, each.reason, each.deployment)
    return found


def _entries(files: ProjectFiles, deployment: str) -> Iterator[dict[str, Any]]:
    """Read the files of a deployment's journal, oldest first."""
    folder = files.folder(f"{FOLDER}/{deployment}")
    for place in sorted(folder.iterdir()) if folder else ():
        if _FILE.fullmatch(place.name) is None:
            continue
        try:
            entry = json.loads(place.read_bytes()) if place.stat().st_size <= _FILE_BYTES else None
        except (OSError, ValueError, RecursionError):  # Deleted meanwhile, or no JSON.
            continue
        if isinstance(entry, dict):
            yield entry


def _promotion(deployment: str, entry: dict[str, Any], now: float | None) -> Promotion:
    """
    Return the promotion of an entry, the last one of its id.

    :param now: seconds since 1970, for the newest entry of the journal; None for another
    """
    before = entry.get("before")
    is_rollback = entry.get("is_rollback") is True
    run = _text(entry.get("run")) or ""
    return Promotion(
        deployment,
        _time(entry.get("at")),
        _result(entry, now),
        Served.read(entry.get("challenger")),
        Served.read(before.get("served") if isinstance(before, dict) else None),
        is_rollback=is_rollback,
        reason=_text(entry.get("reason")) or ("A rollback was asked for." if is_rollback else ""),
        task=run.rpartition("@")[0] or run,
    )


def _result(entry: dict[str, Any], now: float | None) -> str:
    state = _text(entry.get("state")) or "unknown"
    if state not in _BEGUN:
        return _ENDS.get(state, state[:40])
    if now is None:
        return "not finished"
    return _BEGUN[state] if now - _time(entry.get("at")) < _time(entry.get("timeout")) else "unverified"


def _rejections(deployment: str, entries: list[dict[str, Any]]) -> Iterator[Promotion]:
    """Return the rejections that no promotion shows: those of a preflight, and those whose entry was deleted."""
    seen = set()
    for entry in entries:
        shown = _promotion(deployment, entry, None)
        rejected = entry.get("rejected")
        for row in rejected if isinstance(rejected, list) else ():
            if not isinstance(row, dict):
                continue
            served, at, reason = Served.read(row.get("served")), _time(row.get("at")), _text(row.get("reason")) or ""
            if (served, at) in seen:
                continue
            seen.add((served, at))
            is_own = shown.served == served and shown.result != "verified" and at <= shown.at
            if not is_own and not (shown.is_rollback and shown.before == served):
                yield Promotion(deployment, at, REJECTED, served, _NONE, is_rollback=False, reason=reason, task="")


_NONE = Served(None, None, None)


def _time(value: Any) -> float:
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LATEST
    return float(value) if is_one else 0.0


def _text(value: Any) -> str | None:
    return value[:_LETTERS] if isinstance(value, str) else None
