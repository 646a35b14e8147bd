"""
The key of a rejection: a version fails with a configuration, so another configuration gets a chance of its own.

The key covers the model server, the protocol, the scripts and configuration file, and the environments of a deployment;
its resources too, where its instances did not come up. It leaves out the description, tags, scaling, logging and the
values of environment variables, none of which makes an answer right or wrong.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from .diff import HASHED
from .settings import base_name

if TYPE_CHECKING:
    from collections.abc import Mapping

_RESOURCES = ("predictorResources", "transformerResources")
_ENVIRONMENTS = ("predictorEnvironment", "environmentDTO", "transformerEnvironment")
_WITH_RESOURCES = "resources:"


def rejection_key(raw: Mapping[str, Any], *, with_resources: bool) -> str:
    """
    Return the key under which a model version is rejected.

    An uploaded script is named after the hash of its content; any other one is compared by its whole path, as far as
    the deployment resource has it.

    :param raw: the deployment resource with the configuration that failed
    :param with_resources: whether the instances did not come up, so that other resources may help
    """
    facts: dict[str, Any] = {
        "modelServer": raw.get("modelServer"),
        "apiProtocol": raw.get("apiProtocol") or "REST",
        **{name: _script(raw.get(name)) for name in ("predictor", "transformer", "configFile")},
        **{name: (raw.get(name) or {}).get("name") for name in _ENVIRONMENTS},
    }
    if with_resources:
        facts |= {name: raw.get(name) for name in _RESOURCES}
    text = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return f"{_WITH_RESOURCES}{text}" if with_resources else text


def is_same_configuration(key: str | None, raw: Mapping[str, Any]) -> bool:
    """
    Return whether a rejection concerns a configuration.

    :param key: the key of the rejection; None: it is of the version alone, with every configuration
    :param raw: the deployment resource with the configuration
    """
    return key is None or key == rejection_key(raw, with_resources=key.startswith(_WITH_RESOURCES))


def _script(path: Any) -> str | None:
    """Return the part of a script's path that is compared: its name, where only that tells scripts apart."""
    name = base_name(path)
    if name is None or "/" not in path or "/Artifacts/" in path or HASHED.fullmatch(name):
        return name
    return str(path.rpartition("/Projects/")[2])
