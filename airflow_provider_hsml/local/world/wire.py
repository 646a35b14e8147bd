"""The representation of a deployment in the REST API."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import tags
from .artifacts import told
from .configuration import VERSIONED

if TYPE_CHECKING:
    from airflow_provider_hsml.local.cluster.states import State
    from airflow_provider_hsml.local.lines import Line

    from .accounts import Project

_OF_TRANSFORMER = frozenset(key for key in VERSIONED if "ransformer" in key) - {"transformer"}
"""Left out without a transformer, because hsml 3.7 cannot read null in these fields."""
NOT_TOLD_BY_PUT = (
    *("status", "condition", "availableInstances", "availableTransformerInstances"),
    *("hopsworksInferencePath", "modelServerInferencePath"),
)
"""Null in the response to a PUT."""


def on_the_wire(deployment: int, row: dict[str, Any], state: State, project: Project, line: Line) -> dict[str, Any]:
    """Return a deployment in the format of a GET response."""
    config = row["config"]
    path = f"/project/{project.id}/inference/models/{row['name']}"
    shown = config if config["transformer"] else {key: config[key] for key in config if key not in _OF_TRANSFORMER}
    whole = {
        **shown,
        # Only the names of the scripts, as in newer servers; clients may send them back like this.
        **{key: config[key] and told(key, config[key]) for key in ("predictor", "transformer")},
        "id": deployment,
        "name": row["name"],
        "version": row["version"],
        "revision": row["revision"],
        "deployed": row["deployed"],
        "created": row["created"],
        "creator": row["creator"],
        "tags": tags.on_the_wire(row.get("tags", [])),
        "projectNamespace": project.namespace,
        "status": state.status,
        "condition": asdict(state.condition),
        "availableInstances": state.available,
        "availableTransformerInstances": state.available if config["transformer"] else None,
        "hopsworksInferencePath": path,
        "modelServerInferencePath": f"/v1/{project.namespace}/{row['name']}/v1/models/{row['name']}",
        "missingMandatoryTags": [],
    }
    return {key: value for key, value in whole.items() if line.knows(key)}
