"""Reads the recorded requests and answers under ``tests/samples``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from airflow_provider_hsml.hopsworks.api import Answer, Call, Project
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment

SAMPLES = Path(__file__).parents[1] / "samples"
PROJECT = Project(119, "demo")


def answer(name: str) -> Answer:
    """Give an answer as a client would: ``serving/running``."""
    sample = json.loads((SAMPLES / "answers" / f"{name}.json").read_text())
    content = sample["text"] if "text" in sample else json.dumps(sample["body"])
    return Answer(sample["status"], content.encode(), {"content-type": sample["content_type"]})


def deployment(name: str, **changes: object) -> Deployment:
    """Give the deployment of an answer, with some keys changed."""
    return Deployment.from_json(json.loads(answer(name).content) | changes)


def sdk_requests(verb: str) -> list[dict[str, Any]]:
    """Give what the SDK sends for a verb."""
    requests: list[dict[str, Any]] = json.loads((SAMPLES / "sdk-5.2.1" / f"{verb}.json").read_text())["requests"]
    return requests


def as_sent(call: Call[Any]) -> dict[str, Any]:
    """Give a call the way the SDK's requests are recorded."""
    return {
        "method": call.method,
        "path": f"/{call.path}",
        "query": [list(pair) for pair in call.query],
        "body": call.body,
    }


def unquoted(path: str) -> str:
    """Give a path without its percent-encoding, for reading."""
    return unquote(path)
