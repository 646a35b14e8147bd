"""Topics of inference loggers: which there are, and what a PUT asks for."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.errors import Refusal

from .administration import SCHEMA_OF_LOGS

if TYPE_CHECKING:
    from collections.abc import Mapping

_NEW = "CREATE"


def topic_of(given: Mapping[str, Any] | None, deployment: str, known: Mapping[str, str]) -> dict[str, Any] | None:
    """
    Give the topic that a deployment logs to; None for none.

    :param given: ``kafkaTopicDTO`` of a PUT
    :param deployment: the deployment's name, after which a new topic is named
    :param known: the topics that there are, with their schemas
    """
    name = (given or {}).get("name")
    if given is None or name in (None, "NONE"):
        return None
    if name == _NEW:
        numbers = [given.get(key, 1) for key in ("numOfReplicas", "numOfPartitions")]
        if any(not isinstance(number, int) or isinstance(number, bool) or number < 1 for number in numbers):
            raise Refusal(190015, f"Topic of {deployment}: expected at least one replica and one partition.")
        name = f"{deployment}-inf{secrets.randbelow(10**4):04d}"
        while name in known:
            name = f"{deployment}-inf{secrets.randbelow(10**4):04d}"
        return _told(name)
    if name not in known:
        raise Refusal(240022, f"Topic {name} not found.")
    if known[name] != SCHEMA_OF_LOGS:
        raise Refusal(240023, f"Topic {name} has the schema {known[name]}, not {SCHEMA_OF_LOGS}.")
    return _told(name)


def _told(name: str) -> dict[str, Any]:
    # Without numbers of replicas and partitions: hsml 3.7 refuses to read them of a topic that is there.
    return {
        "name": name,
        "schemaName": SCHEMA_OF_LOGS,
        "schemaVersion": 1,
    }
