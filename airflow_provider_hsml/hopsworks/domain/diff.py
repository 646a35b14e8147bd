"""Differences between the live deployment and the desired settings, and the request that removes them."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import legacy_artifacts, script_file
from .model_version import Framework
from .settings import (
    COMPUTE,
    CREATE_TOPIC,
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

if TYPE_CHECKING:
    from collections.abc import Collection

    from .deployment import Deployment
    from .model_version import ModelVersion
    from .project import Project

DEFAULT_REQUESTS = {"cores": 0.2, "memory": 32, "gpus": 0}
DEFAULT_LIMITS = {"cores": 2, "memory": 1024, "gpus": 0}
_TRANSFORMER_KEYS = (
    *("transformer", "transformerResources", "requestedTransformerInstances"),
    *("transformerScalingConfig", "transformerEnvironment", "transformerEnvVars"),
)
HASHED = re.compile(r".*-[0-9a-f]{16}\.[A-Za-z0-9]+")
"""The file names of scripts that ``script_file`` named after their content."""


def model_settings(model: ModelVersion) -> SettingValues:
    """Return the settings that make a deployment serve a model version."""
    return {
        "model_name": model.name,
        "model_version": model.version,
        "model_path": model.path,
        "framework": (model.framework or Framework.PYTHON).value,
    }


def differences(raw: Mapping[str, Any], desired: SettingValues) -> dict[str, tuple[Any, Any]]:
    """
    Return the settings that have to change, as setting -> (live, desired). Empty when nothing has to.

    Description and tags are left out: they are no reason to change a running deployment.

    :param raw: the deployment resource
    """
    return {
        name: (setting.read(raw), value)
        for name, value in desired.items()
        if (setting := setting_of(name)).compared and not setting.is_met(raw, value)
    }


def describe_changes(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """
    Describe changes in one line, without the values of environment variables, which may be secrets.

    :param changes: the result of ``differences``
    """
    shows = ((name, setting_of(name).kind.show, change) for name, change in changes.items())
    return ", ".join(f"{name} {show(old)} -> {show(new)}" for name, show, (old, new) in shows)


def changes_as_json(changes: Mapping[str, tuple[Any, Any]]) -> dict[str, list[Any]]:
    """
    Return changes as plain JSON for people, setting -> [live, desired], by the same rule as ``describe_changes``.

    :param changes: the result of ``differences``
    """
    found = {}
    for name, change in changes.items():
        show = setting_of(name).kind.show
        old, new = change if show is repr else map(show, change)
        found[name] = [old, f"{new}, values changed" if show is not repr and old == new else new]
    return found


def update_body(raw: Mapping[str, Any], desired: SettingValues) -> dict[str, Any]:
    """
    Build the body of an update: the live deployment with the differing settings replaced and all else kept.

    :param raw: the deployment resource; not modified
    """
    body, changed = copy.deepcopy(dict(raw)), differences(raw, desired)
    for name in [*changed, *({"description"} & set(desired)), *path_to_write(raw, desired, changed)]:
        setting_of(name).write(body, desired[name])
    return _completed(body, desired)


def path_to_write(raw: Mapping[str, Any], desired: SettingValues, changed: Collection[str]) -> list[str]:
    """
    Return ``model_path`` if an update has to name it although it is not among the changes: the live one may be unknown.

    :param raw: the deployment resource
    :param changed: the settings that change
    """
    if "model_path" not in desired or "model_path" in changed:
        return []
    is_needed = "model_version" in changed or SETTINGS["model_path"].wire(raw) is None
    is_written = "model_name" in changed or (is_needed and desired["model_path"] is not None)
    return ["model_path"] if is_written else []


def _completed(body: dict[str, Any], desired: SettingValues) -> dict[str, Any]:
    """Add the keys that follow from other settings, and remove those of a component that is removed."""
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
        # As in the SDK, logging without a topic creates a topic.
        topic.write(body, Topic(CREATE_TOPIC))
    elif has_topic and not logs and topic.name in desired:
        mode.write(body, "ALL")
    if body.get("kafkaTopicDTO") is None:
        body.pop("kafkaTopicDTO", None)
    return body


def _with_defaults(resources: Any) -> dict[str, Any]:
    """Fill in the SDK's default resources, with no request above its limit and no limit below its request."""
    resources = resources or {}
    requests, limits = dict(resources.get("requests") or {}), dict(resources.get("limits") or {})
    for unit in COMPUTE:
        most = limits.get(unit)
        requests.setdefault(unit, DEFAULT_REQUESTS[unit] if most is None else min(DEFAULT_REQUESTS[unit], most))
        limits.setdefault(unit, max(DEFAULT_LIMITS[unit], requests[unit]))
    return {**resources, "requests": requests, "limits": limits}


def creation_body(
    name: str,
    model: ModelVersion | None,
    desired: SettingValues,
    *,
    serving_tool: str,
    minimum: int,
    template: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Build the body that creates a deployment, with the SDK's defaults for settings that were not requested.

    :param model: the version to serve; None for a deployment of a script alone
    :param serving_tool: KSERVE or DEFAULT, used if none was requested
    :param minimum: minimum number of instances, used if none was requested
    :param template: keys of the body that come before those defaults; not modified
    """
    framework = (model.framework or Framework.PYTHON) if model else Framework.PYTHON
    body: dict[str, Any] = {
        "modelServer": framework.model_server,
        "servingTool": serving_tool,
        "apiProtocol": "REST",
        "batchingConfiguration": {"batchingEnabled": False},
        **(template or {}),
        "name": name,
    }
    settings: SettingValues = {"scaling.min_instances": minimum} | (model_settings(model) if model else {}) | desired
    body = update_body(body, {name: value for name, value in settings.items() if value is not None})
    if desired.get("tags"):
        SETTINGS["tags"].write(body, desired["tags"])
    body["predictorResources"] = _with_defaults(body.get("predictorResources"))
    return body


def read_settings(project: Project, raw: Mapping[str, Any], *, also: Collection[str] = ()) -> SettingValues:
    """
    Return the whole configuration of a deployment, as desired settings.

    :param raw: the deployment resource; environment variables are left out of the result if it lacks them
    :param also: further settings to return, ``extra.<key>``
    """
    names = [name for name, setting in SETTINGS.items() if setting.compared]
    left_out = [] if ENV_VAR_KEYS & set(raw) else ENV_VAR_SETTINGS
    found = {
        name: _desired(setting_of(name), setting_of(name).read(raw))
        for name in [*names, *(name for name in also if name.startswith(EXTRA))]
        if name not in left_out
    }
    for key, name in (("predictor", "script_file"), ("transformer", "transformer.script_file")):
        if raw.get(key):
            found[name] = Script(path_of_script(project, raw, key, str(raw[key])))
    return found


def versioned_settings(project: Project, raw: Mapping[str, Any]) -> SettingValues:
    """
    Return the settings that a deployment version holds, without environment variables, as desired settings.

    :param raw: the version; settings are left out of the result if it lacks their keys
    """
    return {
        name: value
        for name, value in read_settings(project, raw).items()
        if (setting := setting_of(name)).versioned
        and name not in ENV_VAR_SETTINGS
        and any(path[0] in raw for path in setting.paths)
    }


def is_unchanged(project: Project, now: Deployment, was: Deployment) -> bool:
    """
    Return whether a deployment is unchanged since an earlier read.

    The signature alone does not tell: where Hopsworks keeps no versions, a change of a stopped deployment keeps it.
    Here an unknown version or revision equals only an unknown one, unlike in ``Deployment.continues``: a first START
    is a change too, and gives the deployment its revision.
    """
    is_same = (now.id, now.signature) == (was.id, was.signature)
    return is_same and not differences(now.raw, read_settings(project, was.raw))


def settings_to_json(desired: SettingValues) -> dict[str, Any]:
    """Return settings as plain JSON, without environment variables, whose values may be secrets."""
    return {name: _plain(value) for name, value in desired.items() if name not in ENV_VAR_SETTINGS}


def settings_from_json(values: Mapping[str, Any]) -> SettingValues:
    """Read settings that ``settings_to_json`` wrote; unknown ones are left out."""
    known = {name: value for name, value in values.items() if name in SETTINGS or name.startswith(EXTRA)}
    return {name: _desired(setting_of(name), value) for name, value in known.items()}


def _plain(value: object) -> Any:
    if isinstance(value, Script):
        return value.path
    return dataclasses.asdict(value) if isinstance(value, Topic) else value


def _desired(setting: Setting, value: Any) -> Any:
    """Convert a value that was read or stored to a desired value."""
    if setting.kind is SCRIPT and isinstance(value, str):
        return Script(value)
    if setting.kind is TOPIC and isinstance(value, Mapping):
        name = value.get("name")
        return None if name in (None, "NONE") else Topic(name)
    return value


def path_of_script(project: Project, raw: Mapping[str, Any], key: str, script: str) -> str:
    """
    Return the whole path of a script of a deployment, as far as its name tells; some servers return the name alone.

    :param raw: the deployment resource
    :param key: ``predictor``, ``transformer`` or ``configFile``
    :param script: the path or the name of the script
    """
    if "/" in script:
        return script
    if raw.get("artifactVersion") is not None and raw.get("version") is None and key != "configFile":
        return legacy_artifacts.path_of(raw, key, script)
    return f"/Projects/{project.name}/{script_file.FOLDER}/{script}" if HASHED.fullmatch(script) else script
