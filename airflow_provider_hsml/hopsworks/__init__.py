"""
Hopsworks, without Airflow: models, deployments, and what it takes to change them safely.

The names below are the dataclasses that users give as arguments; they are looked up on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .deployments import Deployment, DeploymentStatus
    from .gate import Gate
    from .models import ModelVersion
    from .specs import Batcher, DeploymentSpec, InferenceLogger, Resources, Scaling, TransformerSpec
    from .verification import Verification

_HOMES = {
    "Batcher": "specs",
    "Deployment": "deployments",
    "DeploymentSpec": "specs",
    "DeploymentStatus": "deployments",
    "Gate": "gate",
    "InferenceLogger": "specs",
    "ModelVersion": "models",
    "Resources": "specs",
    "Scaling": "specs",
    "TransformerSpec": "specs",
    "Verification": "verification",
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
