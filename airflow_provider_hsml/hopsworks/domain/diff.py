"""How a deployment differs from what is wanted, and what to send so that it does no more. All by ``SETTINGS``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import legacy_artifacts
from airflow_provider_hsml.hopsworks.domain.settings import (
    ENV_VAR_KEYS,
    ENV_VAR_SETTINGS,
    EXTRA,
    SCRIPT,
    SETTINGS,
    TOPIC,
    Script,
    Setting,
    SettingValues,
    Topic,
    setting_of,
)

from . import script_file

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.project import Project

import copy

from .model_version import Framework
from .settings import COMPUTE, CREATE_TOPIC

if TYPE_CHECKING:
    from .model_version import ModelVersion

DEFAULT_REQUESTS = {"cores": 0.2, "memory": 32, "gpus": 0}
DEFAULT_LIMITS = {"cores": 2, "memory": 1024, "gpus": 0}
_TRANSFORMER_KEYS = (
    *("transformer", "transformerResources", "requestedTransformerInstances"),
    *("transformerScalingConfig", "transformerEnvironment", "transformerEnvVars"),
)


def model_settings(model: ModelVersion) -> SettingValues:
    """
    Give the settings with which a deployment serves a model version.

    :param model: the version to serve
    """
    return {
        "model_name": model.name,
        "model_version": model.version,
        "model_path": model.path,
        "framework": (model.framework or Framework.PYTHON).value,
    }


def differences(raw: Mapping[str, Any], desired: SettingValues) -> dict[str, tuple[Any, Any]]:
    """
    Tell what would have to change: setting -> (live, wanted). Empty when nothing has to.

    Description and tags are left out: they are no reason to touch what runs.

    :param raw: the deployment as the server gives it
    :param desired: what was asked for
    """
    return {
        name: (setting.read(raw), value)
        for name, value in desired.items()
        if (setting := setting_of(name)).compared and not setting.is_met(raw, value)
    }


def described(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """
    Say what changes, without the values of environment variables, which may be secrets.

    :param changes: what ``differences`` gave
    """
    shows = ((name, setting_of(name).kind.show, change) for name, change in changes.items())
    return ", ".join(f"{name} {show(old)} -> {show(new)}" for name, show, (old, new) in shows)


def shown(changes: Mapping[str, tuple[Any, Any]]) -> dict[str, list[Any]]:
    """
    Give what changes as plain JSON for people, setting -> [live, wanted], by the same rule as ``described``.

    :param changes: what ``differences`` gave
    """
    found = {}
    for name, change in changes.items():
        show = setting_of(name).kind.show
        old, new = change if show is repr else map(show, change)
        found[name] = [old, f"{new}, values changed" if show is not repr and old == new else new]
    return found


def changed(raw: Mapping[str, Any], desired: SettingValues) -> dict[str, Any]:
    """
    Give the deployment to send: the live one, all it holds kept, with what differs in it.

    :param raw: the deployment as the server gives it; not changed
    :param desired: what was asked for
    """
    body = copy.deepcopy(dict(raw))
    for name in [*differences(raw, desired), *({"description"} & set(desired))]:
        setting_of(name).write(body, desired[name])
    return _completed(body, desired)


def _completed(body: dict[str, Any], desired: SettingValues) -> dict[str, Any]:
    """Put in what follows from something else, and take out what belongs to something that is gone."""
    if body.get("transformer"):
        minimum = SETTINGS["transformer.scaling.min_instances"]
        if minimum.wire(body) is None:
            minimum.write(body, min(1, SETTINGS["scaling.min_instances"].read(body) or 0))
        body["transformerResources"] = _with_defaults(body.get("transformerResources"))
    elif any(name.startswith("transformer.") for name in desired):
        for key in _TRANSFORMER_KEYS:
            body.pop(key, None)
    topic, mode = SETTINGS["inference_logger.kafka_topic"], SETTINGS["inference_logger.mode"]
    logs, has_topic = mode.read(body) != "NONE", not topic.is_met(body, None)
    if logs and not has_topic and mode.name in desired:
        # As the SDK does: logging without a topic is logging to a new one.
        topic.write(body, Topic(CREATE_TOPIC))
    elif has_topic and not logs and topic.name in desired:
        mode.write(body, "ALL")
    if body.get("kafkaTopicDTO") is None:
        body.pop("kafkaTopicDTO", None)
    return body


def _with_defaults(given: Any) -> dict[str, Any]:
    """Complete resources with the SDK's defaults: no request above its limit, no limit below its request."""
    given = given or {}
    requests, limits = dict(given.get("requests") or {}), dict(given.get("limits") or {})
    for unit in COMPUTE:
        most = limits.get(unit)
        requests.setdefault(unit, DEFAULT_REQUESTS[unit] if most is None else min(DEFAULT_REQUESTS[unit], most))
        limits.setdefault(unit, max(DEFAULT_LIMITS[unit], requests[unit]))
    return {**given, "requests": requests, "limits": limits}


def created(
    name: str, model: ModelVersion | None, desired: SettingValues, *, serving_tool: str, minimum: int
) -> dict[str, Any]:
    """
    Give the body that creates a deployment, with the SDK's defaults where nothing was asked for.

    :param name: the deployment's name
    :param model: the version to serve; None for a deployment of a script alone
    :param desired: what was asked for
    :param serving_tool: KSERVE or DEFAULT, where it was not asked for
    :param minimum: instances where none were asked for
    """
    framework = (model.framework or Framework.PYTHON) if model else Framework.PYTHON
    body: dict[str, Any] = {
        "name": name,
        "modelServer": framework.model_server,
        "servingTool": serving_tool,
        "apiProtocol": "REST",
        "batchingConfiguration": {"batchingEnabled": False},
    }
    given: SettingValues = {"scaling.min_instances": minimum} | (model_settings(model) if model else {}) | desired
    body = changed(body, {name: value for name, value in given.items() if value is not None})
    if desired.get("tags"):
        SETTINGS["tags"].write(body, desired["tags"])
    body["predictorResources"] = _with_defaults(body.get("predictorResources"))
    return body


_HASHED = re.compile(r".*-[0-9a-f]{16}\.[A-Za-z0-9]+")
"""The names that ``scripts`` gives to what it uploads."""


def configuration(project: Project, raw: Mapping[str, Any], *, also: Collection[str] = ()) -> SettingValues:
    """
    Give everything that a deployment is set to, as something to want.

    :param project: the deployment's project
    :param raw: the deployment as the server gave it; without environment variables they are not asked for
    :param also: settings beside those that have a name: ``extra.<key>``
    """
    names = [name for name, setting in SETTINGS.items() if setting.compared]
    left_out = [] if ENV_VAR_KEYS & set(raw) else ENV_VAR_SETTINGS
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
    return is_same and not differences(now.raw, configuration(project, was.raw))


def stored(desired: SettingValues) -> dict[str, Any]:
    """
    Write down what was wanted, in plain JSON, without environment variables: their values may be secrets.

    :param desired: settings
    """
    return {name: _plain(value) for name, value in desired.items() if name not in ENV_VAR_SETTINGS}


def from_stored(values: Mapping[str, Any]) -> SettingValues:
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
    return f"/Projects/{project.name}/{script_file.FOLDER}/{told}" if _HASHED.fullmatch(told) else told
