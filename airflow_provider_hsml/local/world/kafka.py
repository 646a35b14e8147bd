"""Kafka topics of inference loggers: existing ones, and new ones that a PUT requests."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.errors import Refusal

from .administration import SCHEMA_OF_LOGS

if TYPE_CHECKING:
    from collections.abc import Mapping

_NEW = "CREATE"


def topic_of(requested: Mapping[str, Any] | None, deployment: str, known: Mapping[str, str]) -> dict[str, Any] | None:
    """
    Return the topic that a deployment logs to; None if it does not log.

    :param requested: ``kafkaTopicDTO`` of a PUT
    :param deployment: the deployment's name, which a new topic's name begins with
    :param known: the existing topics, with their schemas
    """
    name = (requested or {}).get("name")
    if requested is None or name in (None, "NONE"):
        return None
    if name == _NEW:
        numbers = [requested.get(key, 1) for key in ("numOfReplicas", "numOfPartitions")]
        if any(not isinstance(number, int) or isinstance(number, bool) or number < 1 for number in numbers):
            raise Refusal(190015, f"Topic of {deployment}: expected at least one replica and one partition.")
        name = f"{deployment}-inf{secrets.randbelow(10**4):04d}"
        while name in known:
            name = f"{deployment}-inf{secrets.randbelow(10**4):04d}"
        return _topic(name)
    if name not in known:
        raise Refusal(240022, f"Topic {name} not found.")
    if known[name] != SCHEMA_OF_LOGS:
        raise Refusal(240023, f"Topic {name} has the schema {known[name]}, not {SCHEMA_OF_LOGS}.")
    return _topic(name)


def _topic(name: str) -> dict[str, Any]:
    # Without the numbers of replicas and partitions, which hsml 3.7 refuses to read for an existing topic.
    return {
        "name": name,
        "schemaName": SCHEMA_OF_LOGS,
        "schemaVersion": 1,
    }
