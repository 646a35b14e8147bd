"""How recent a version's training data is: written when it is registered, compared before it is promoted."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import arguments, wire
from airflow_provider_hsml.hopsworks.errors import UnexpectedResponseError

from . import lookup

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.domain.project import Project

    from .version_files import VersionFiles

FILE = "airflow.json"
"""The file beside a version's own, ``{"trained_until": ISO 8601 in UTC}``."""
_KEY = "trained_until"


def read_argument(value: object) -> str:
    """
    Read the argument ``trained_until``.

    :param value: a datetime, or ISO 8601 text; UTC without an offset
    :return: ISO 8601 in UTC
    :raises InvalidInputError: it is neither
    """
    try:
        if isinstance(value, date):
            value = value.isoformat()
        return _in_utc(arguments.text(_KEY, value)).isoformat()
    except (ValueError, OverflowError):
        arguments.refuse(_KEY, "a datetime, or ISO 8601 text such as '2026-11-29T00:00:00+00:00'", value)


def content(trained_until: str | None) -> dict[str, str] | None:
    """Return the content of the file; None without a time."""
    return None if trained_until is None else {_KEY: trained_until}


async def read_trained_until(project: Project, model: ModelVersion, files: VersionFiles) -> datetime | None:
    """
    Read until when the training data of a version goes; None if that was not registered.

    :param files: the listings that the task has already
    :raises UnexpectedResponseError: the file cannot be read: an unknown age is not a missing one
    """
    sizes = await files.sizes(project, model)
    if FILE not in sizes:
        return None
    path = f"{lookup.model_folder(project, model)}/{FILE}"
    read = await api.read_json(project, path, _moment, size=sizes[FILE])
    if read is None:
        message = f"read {path!r}: the file is listed, and does not exist.\nRun the task again."
        raise UnexpectedResponseError(message, status=404)
    return read


def _moment(data: Any) -> datetime:
    return _in_utc(wire.resource(data, {_KEY: str}, {})[_KEY])


def _in_utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).astimezone(UTC)
