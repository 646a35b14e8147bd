"""
Hopsworks, without Airflow: models, deployments, and what it takes to change them safely.

The names below are the dataclasses that users give as arguments; they are looked up on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .domain.deployment import Deployment, DeploymentStatus
    from .domain.gate import Gate
    from .domain.model_version import ModelVersion
    from .domain.spec import (
        Batcher,
        DeploymentSpec,
        InferenceLogger,
        Resources,
        Scaling,
        TransformerSpec,
    )
    from .domain.verification import Verification

_HOMES = {
    "Batcher": "domain.spec",
    "Deployment": "domain.deployment",
    "DeploymentSpec": "domain.spec",
    "DeploymentStatus": "domain.deployment",
    "Gate": "domain.gate",
    "InferenceLogger": "domain.spec",
    "ModelVersion": "domain.model_version",
    "Resources": "domain.spec",
    "Scaling": "domain.spec",
    "TransformerSpec": "domain.spec",
    "Verification": "domain.verification",
}

__all__ = [
    "Batcher",
    "Deployment",
    "DeploymentSpec",
    "DeploymentStatus",
    "Gate",
    "InferenceLogger",
    "ModelVersion",
    "Resources",
    "Scaling",
    "TransformerSpec",
    "Verification",
]


def __getattr__(name: str) -> object:
    """Import the module that holds ``name`` when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
