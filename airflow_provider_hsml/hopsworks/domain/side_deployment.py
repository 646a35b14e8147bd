"""
Temporary deployments beside a live one: their name, their configuration, and the lease that holds them. No I/O.

A lease is written before its deployment is created, and says when it ends. The description of the deployment names the
lease. So whatever ends a task, the next one finds out whose a temporary deployment is and whether it is still in use.
"""

from __future__ import annotations

import copy
import hashlib
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from . import wire
from .deployment_schema import FEATURE_LOGGING
from .diff import update_body
from .model_version import tag_value
from .settings import RESTARTED, SET_BY_THE_SERVER, SettingValues

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .deployment import Deployment

SECONDS = 600.0
"""The shortest duration of a lease."""
_LONGEST_NAME = 30
"""Characters of a name: hosts and Kubernetes objects are derived from it, and have limits of their own."""
_FILE = re.compile(r"lease-(?P<purpose>[a-z]+)-(?P<id>[0-9a-f]{32})-(?P<number>[0-9]{6})\.json")
_REPLACED = ("scaling.", "transformer.scaling.", "inference_logger.", "tags", "description")
"""Settings that a temporary deployment has its own values of, or none; beginnings of their names."""
_OWN_EXTRA = frozenset({"extra.featureLogging", "extra.gitAutoRedeploy"})
_MODEL_KEYS = frozenset({"modelName", "modelVersion", "modelPath", "modelFramework", "modelServer"})
_LEFT_OUT = (SET_BY_THE_SERVER - _MODEL_KEYS) | {
    *("tags", "description", "featureLogging", "gitAutoRedeploy", "inferenceLogging", "kafkaTopicDTO"),
    *("requestedInstances", "requestedTransformerInstances", "predictorScalingConfig", "transformerScalingConfig"),
}
"""Keys of the live deployment that are not copied."""
_LEFT_OUT_VARIABLES = (RESTARTED, FEATURE_LOGGING)


def side_name(live_name: str, purpose: str) -> str:
    """
    Return the name of a temporary deployment: lower-case letters and digits, which every Hopsworks accepts.

    The end is a hash of the whole live name, so names that differ in case or behind the cut get different ones.

    :param live_name: the name of the live deployment
    :param purpose: lower-case letters, such as ``preflight``
    """
    end = f"{purpose}{hashlib.sha256(f'{live_name} {purpose}'.encode()).hexdigest()[:8]}"
    return f"{live_name.lower()[: _LONGEST_NAME - len(end)]}{end}"


def side_settings(settings: SettingValues, minimum: int, description: str) -> SettingValues:
    """
    Return the settings of a temporary deployment: those of the live one, without instances to spare, logs and tags.

    :param settings: the settings that the live deployment would be sent
    :param minimum: the minimum number of instances
    :param description: from ``Lease.description``
    """
    kept = {
        name: value for name, value in settings.items() if not name.startswith(_REPLACED) and name not in _OWN_EXTRA
    }
    return kept | {
        "scaling.min_instances": minimum,
        "inference_logger.mode": "NONE",
        "inference_logger.kafka_topic": None,
        "description": description,
    }


def template(live: Deployment | None, settings: SettingValues, minimum: int) -> dict[str, Any]:
    """
    Return the body that a temporary deployment is made from: the live deployment after the update, with one instance.

    :param live: the live deployment; None if there is none
    :param settings: the settings that it would be sent, with the whole path of each script
    :param minimum: the minimum number of instances
    """
    most = {"maxInstances": max(minimum, 1)}
    if live is None:
        return {"predictorScalingConfig": most} | (
            {"transformerScalingConfig": dict(most)} if settings.get("transformer.script_file") else {}
        )
    updated = update_body(live.raw, settings)
    body = {key: copy.deepcopy(value) for key, value in updated.items() if key not in _LEFT_OUT}
    for key in ("predictorEnvVars", "transformerEnvVars"):
        if body.get(key):
            body[key] = [text for text in body[key] if text.partition("=")[0] not in _LEFT_OUT_VARIABLES]
    body["predictorScalingConfig"] = most
    if body.get("transformer"):
        body["transformerScalingConfig"] = dict(most)
    return body


def mandatory_tags(created: Deployment, live: Deployment | None, settings: SettingValues) -> dict[str, Any]:
    """
    Return the tags that Hopsworks demands of a new deployment, as far as the live one has them or is to get them.

    :param created: the temporary deployment, which names the tags that it lacks
    :param live: the live deployment; None if there is none
    :param settings: the settings that the live deployment would be sent
    """
    items = (live.raw.get("tags") or {}).get("items") if live else None
    known = {row.get("name"): tag_value(row.get("value")) for row in items or [] if isinstance(row, dict)}
    known |= settings.get("tags") or {}
    missing = created.raw.get("missingMandatoryTags")
    rows = missing if isinstance(missing, list) else []
    names = [row.get("name") if isinstance(row, dict) else row for row in rows]
    return {name: known[name] for name in names if isinstance(name, str) and name in known}


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one task to a temporary deployment, until it expires. Each state of it is a file of its own."""

    id: str
    """32 hexadecimal digits, the same in all its files."""
    purpose: str
    name: str
    """The name of the temporary deployment."""
    live_name: str
    """The name of the live deployment."""
    run: str
    """The task and its round of tries; empty outside of Airflow."""
    expires: float
    """Seconds since 1970."""
    seconds: float = SECONDS
    """The duration of the lease after each renewal."""
    deployment_id: int | None = None
    """None before the temporary deployment is known to exist."""
    number: int = 1
    """The number of the file: the highest one counts."""

    @property
    def file_name(self) -> str:
        """The name of its file in the journal's folder."""
        return f"lease-{self.purpose}-{self.id}-{self.number:06d}.json"

    @property
    def description(self) -> str:
        """The description of the temporary deployment, by which the deployment is known."""
        return f"Temporary, for the {self.purpose} of {self.live_name}; lease {self.id} of airflow-provider-hsml"

    @property
    def renewed_from(self) -> float:
        """When the lease is due to be renewed, in seconds since 1970: once a third of it has passed."""
        return self.expires - self.seconds * 2 / 3

    def holds(self, deployment: Deployment) -> bool:
        """Return whether a deployment is the one of this lease, by its name and its id or description."""
        if deployment.name != self.name:
            return False
        if self.deployment_id is not None:
            return deployment.id == self.deployment_id
        return deployment.raw.get("description") == self.description

    def is_beside(self, file_name: str) -> bool:
        """
        Return whether a lease is one of the same deployment.

        :param file_name: its file, in the same folder
        """
        match = _FILE.fullmatch(file_name)
        return match is not None and match["purpose"] == self.purpose

    def is_expired(self, now: float) -> bool:
        """
        Return whether the lease has ended.

        :param now: seconds since 1970
        """
        return now >= self.expires

    def is_of(self, run: str) -> bool:
        """Return whether a task holds the lease, be it in another try or after it was cleared."""
        return bool(run) and self.run.partition("@")[0] == run.partition("@")[0]

    def to_json(self) -> dict[str, Any]:
        """Return the lease as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """
        Read a lease that ``to_json`` wrote; keys that a newer version added are ignored.

        :raises ValueError: ``data`` is not a lease
        """
        texts = dict.fromkeys(("id", "purpose", "name", "live_name"), str)
        numbers: dict[str, wire.Shape] = {"seconds": float, "deployment_id": int, "number": int}
        row = wire.resource(data, {**texts, "expires": float}, {"run": str, **numbers})
        return cls(
            **{name: row[name] for name in texts},
            run=row.get("run") or "",
            expires=float(row["expires"]),
            seconds=float(row.get("seconds") or SECONDS),
            deployment_id=row.get("deployment_id"),
            number=row.get("number") or 1,
        )


def is_lease_file(name: str) -> bool:
    """Return whether a file in the journal's folder is one of a lease."""
    return _FILE.fullmatch(name) is not None


def newest_files(names: Iterable[str]) -> dict[str, list[str]]:
    """
    Return the files of each lease in a listing, newest first, by the lease's id.

    :param names: the names of all files
    """
    found: dict[str, list[str]] = {}
    for name in sorted(names, reverse=True):
        if match := _FILE.fullmatch(name):
            found.setdefault(match["id"], []).append(name)
    return found
