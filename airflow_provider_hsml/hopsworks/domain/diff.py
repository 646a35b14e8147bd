"""How a deployment differs from what is wanted, and what to send so that it does no more. All by ``SETTINGS``."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from .model_version import Framework
from .settings import COMPUTE, CREATE_TOPIC, SETTINGS, Topic, Wanted, setting_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model_version import ModelVersion

DEFAULT_REQUESTS = {"cores": 0.2, "memory": 32, "gpus": 0}
DEFAULT_LIMITS = {"cores": 2, "memory": 1024, "gpus": 0}
_TRANSFORMER_KEYS = (
    *("transformer", "transformerResources", "requestedTransformerInstances"),
    *("transformerScalingConfig", "transformerEnvironment", "transformerEnvVars"),
)


def model_wanted(model: ModelVersion) -> Wanted:
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


def differences(raw: Mapping[str, Any], wanted: Wanted) -> dict[str, tuple[Any, Any]]:
    """
    Tell what would have to change: setting -> (live, wanted). Empty when nothing has to.

    Description and tags are left out: they are no reason to touch what runs.

    :param raw: the deployment as the server gives it
    :param wanted: what was asked for
    """
    return {
        name: (setting.read(raw), value)
        for name, value in wanted.items()
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


def changed(raw: Mapping[str, Any], wanted: Wanted) -> dict[str, Any]:
    """
    Give the deployment to send: the live one, all it holds kept, with what differs in it.

    :param raw: the deployment as the server gives it; not changed
    :param wanted: what was asked for
    """
    body = copy.deepcopy(dict(raw))
    for name in [*differences(raw, wanted), *({"description"} & set(wanted))]:
        setting_of(name).write(body, wanted[name])
    return _completed(body, wanted)


def _completed(body: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    """Put in what follows from something else, and take out what belongs to something that is gone."""
    if body.get("transformer"):
        minimum = SETTINGS["transformer.scaling.min_instances"]
        if minimum.wire(body) is None:
            minimum.write(body, min(1, SETTINGS["scaling.min_instances"].read(body) or 0))
        body["transformerResources"] = _with_defaults(body.get("transformerResources"))
    elif any(name.startswith("transformer.") for name in wanted):
        for key in _TRANSFORMER_KEYS:
            body.pop(key, None)
    topic, mode = SETTINGS["inference_logger.kafka_topic"], SETTINGS["inference_logger.mode"]
    logs, has_topic = mode.read(body) != "NONE", not topic.is_met(body, None)
    if logs and not has_topic and mode.name in wanted:
        # As the SDK does: logging without a topic is logging to a new one.
        topic.write(body, Topic(CREATE_TOPIC))
    elif has_topic and not logs and topic.name in wanted:
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
    name: str, model: ModelVersion | None, wanted: Wanted, *, serving_tool: str, minimum: int
) -> dict[str, Any]:
    """
    Give the body that creates a deployment, with the SDK's defaults where nothing was asked for.

    :param name: the deployment's name
    :param model: the version to serve; None for a deployment of a script alone
    :param wanted: what was asked for
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
    given: Wanted = {"scaling.min_instances": minimum} | (model_wanted(model) if model else {}) | wanted
    body = changed(body, {name: value for name, value in given.items() if value is not None})
    if wanted.get("tags"):
        SETTINGS["tags"].write(body, wanted["tags"])
    body["predictorResources"] = _with_defaults(body.get("predictorResources"))
    return body
