"""
An earlier configuration as something to want again, from a row that was read before it was changed.

Where Hopsworks keeps versions of deployments it brings back what is in them itself; what is not in them, and all of it
before 5.2, is put back by an update.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import diff, legacy_artifacts
from airflow_provider_hsml.hopsworks.domain.settings import (
    EXTRA,
    SCRIPT,
    SETTINGS,
    TOPIC,
    Script,
    Setting,
    Topic,
    Wanted,
    setting_of,
)
from airflow_provider_hsml.hopsworks.errors import InvalidInput
from airflow_provider_hsml.hopsworks.flow import Procedure, patiently
from airflow_provider_hsml.hopsworks.rollout import scripts

from .journal import ENV_VAR_KEYS, ENV_VARS

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.flow import Pace

_HASHED = re.compile(r".*-[0-9a-f]{16}\.[A-Za-z0-9]+")
"""The names that ``scripts`` gives to what it uploads."""


def configuration(project: Project, raw: Mapping[str, Any], *, also: Collection[str] = ()) -> Wanted:
    """
    Give everything that a deployment is set to, as something to want.

    :param project: the deployment's project
    :param raw: the deployment as the server gave it; without environment variables they are not asked for
    :param also: settings beside those that have a name: ``extra.<key>``
    """
    names = [name for name, setting in SETTINGS.items() if setting.compared]
    left_out = [] if ENV_VAR_KEYS & set(raw) else ENV_VARS
    found = {
        name: _wanted(setting_of(name), setting_of(name).read(raw))
        for name in [*names, *(name for name in also if name.startswith(EXTRA))]
        if name not in left_out
    }
    for key, name in (("predictor", "script_file"), ("transformer", "transformer.script_file")):
        if raw.get(key):
            found[name] = Script(_path(project, raw, key))
    return found


def is_still(project: Project, now: Deployment, was: Deployment) -> bool:
    """
    Tell whether nobody has changed a deployment since.

    Where Hopsworks keeps no versions, a change of one that is stopped leaves the signature as it is.

    :param project: the deployment's project
    :param now: as it is
    :param was: as it was
    """
    is_same = (now.id, now.signature) == (was.id, was.signature)
    return is_same and not diff.differences(now.raw, configuration(project, was.raw))


def way_back(
    project: Project,
    live: Deployment,
    version: int | None,
    former: Mapping[str, Any],
    pace: Pace,
    *,
    also: Collection[str] = (),
    hides: bool = False,
) -> Procedure[tuple[int | None, Wanted]]:
    """
    Tell how a deployment becomes again what it was: the version to roll back to, where it is kept, and what to update.

    :param project: the deployment's project
    :param live: the deployment as it is
    :param version: the deployment version that was the active one
    :param former: the deployment as it was
    :param pace: how often to ask, and until when
    :param also: settings beside those that have a name
    :param hides: whether environment variables have changed and ``former`` does not have their values
    :raises InvalidInput: then, where Hopsworks keeps no versions
    """
    wanted = configuration(project, former, also=also)
    differing = diff.differences(live.raw, wanted)
    page = yield from patiently(api.get_versions(project, live), pace)
    is_kept = page is not None and version in [kept.version for kept in page.items]
    if hides and not is_kept:
        message = (
            f"{live} cannot be put back: the change touched environment variables, whose former values are stored "
            "nowhere. Deploy the former version with its environment variables in spec."
        )
        raise InvalidInput(message)
    return version if is_kept else None, {name: wanted[name] for name in differing}


def stored(wanted: Wanted) -> dict[str, Any]:
    """
    Write down what was wanted, in plain JSON, without environment variables: their values may be secrets.

    :param wanted: settings
    """
    return {name: _plain(value) for name, value in wanted.items() if name not in ENV_VARS}


def from_stored(values: Mapping[str, Any]) -> Wanted:
    """
    Read what ``stored`` wrote; a setting that is not known any more is left out.

    :param values: settings in plain JSON
    """
    known = {name: value for name, value in values.items() if name in SETTINGS or name.startswith(EXTRA)}
    return {name: _wanted(setting_of(name), value) for name, value in known.items()}


def _plain(value: object) -> Any:
    if isinstance(value, Script):
        return value.path
    return dataclasses.asdict(value) if isinstance(value, Topic) else value


def _wanted(setting: Setting, value: Any) -> Any:
    """Make a value that can be wanted of one that was read or stored."""
    if setting.kind is SCRIPT and isinstance(value, str):
        return Script(value)
    if setting.kind is TOPIC and isinstance(value, Mapping):
        name = value.get("name")
        return None if name in (None, "NONE") else Topic(name)
    return value


def _path(project: Project, raw: Mapping[str, Any], key: str) -> str:
    """Give the whole path of a script, of which servers may tell the name alone."""
    told = str(raw[key])
    if "/" in told:
        return told
    if raw.get("artifactVersion") is not None and raw.get("version") is None:
        return legacy_artifacts.path_of(raw, key)
    return f"/Projects/{project.name}/{scripts.FOLDER}/{told}" if _HASHED.fullmatch(told) else told
