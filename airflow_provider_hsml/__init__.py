"""
Take trained models to verified deployments on Hopsworks Model Serving, from Airflow DAGs.

The map of the package:

- ``operators``: what a DAG does (register, deploy, deploy the best, start, stop, restart, delete, predict, clear up)
- ``sensors``: what a DAG waits for
- ``triggers``: what waits in the triggerer for tasks that are deferred
- ``hooks``: ``HsmlHook``, the Airflow connection and the verbs on top of it
- ``hopsworks``: models, deployments and the REST contract, without Airflow
- ``local``: a Model Serving for a laptop or CI, which really runs the models
- ``provider_info``: what Airflow discovers

The names below are looked up on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .hooks import HsmlHook
    from .hopsworks import (
        Batcher,
        Deployment,
        DeploymentSpec,
        DeploymentStatus,
        Gate,
        InferenceLogger,
        ModelVersion,
        Resources,
        Scaling,
        TransformerSpec,
        Verification,
    )
    from .operators import (
        DeleteDeploymentOperator,
        DeleteModelVersionsOperator,
        DeployBestModelOperator,
        DeployModelOperator,
        PredictOperator,
        RegisterModelOperator,
        RestartDeploymentOperator,
        RollbackDeploymentOperator,
        StartDeploymentOperator,
        StopDeploymentOperator,
    )
    from .sensors import DeploymentStatusSensor, ModelVersionSensor
    from .triggers import DeploymentTrigger, ModelVersionTrigger

__version__ = "0.1.0"

_HOMES = {
    "HsmlHook": "hooks",
    "Batcher": "hopsworks",
    "Deployment": "hopsworks",
    "DeploymentSpec": "hopsworks",
    "DeploymentStatus": "hopsworks",
    "Gate": "hopsworks",
    "InferenceLogger": "hopsworks",
    "ModelVersion": "hopsworks",
    "Resources": "hopsworks",
    "Scaling": "hopsworks",
    "TransformerSpec": "hopsworks",
    "Verification": "hopsworks",
    "DeleteDeploymentOperator": "operators",
    "DeleteModelVersionsOperator": "operators",
    "DeployBestModelOperator": "operators",
    "DeployModelOperator": "operators",
    "PredictOperator": "operators",
    "RegisterModelOperator": "operators",
    "RestartDeploymentOperator": "operators",
    "RollbackDeploymentOperator": "operators",
    "StartDeploymentOperator": "operators",
    "StopDeploymentOperator": "operators",
    "DeploymentStatusSensor": "sensors",
    "ModelVersionSensor": "sensors",
    "DeploymentTrigger": "triggers",
    "ModelVersionTrigger": "triggers",
}

__all__ = [
    "Batcher",
    "DeleteDeploymentOperator",
    "DeleteModelVersionsOperator",
    "DeployBestModelOperator",
    "DeployModelOperator",
    "Deployment",
    "DeploymentSpec",
    "DeploymentStatus",
    "DeploymentStatusSensor",
    "DeploymentTrigger",
    "Gate",
    "HsmlHook",
    "InferenceLogger",
    "ModelVersion",
    "ModelVersionSensor",
    "ModelVersionTrigger",
    "PredictOperator",
    "RegisterModelOperator",
    "Resources",
    "RestartDeploymentOperator",
    "RollbackDeploymentOperator",
    "Scaling",
    "StartDeploymentOperator",
    "StopDeploymentOperator",
    "TransformerSpec",
    "Verification",
]


def __getattr__(name: str) -> object:
    """Import the module that holds ``name`` when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    """List the public names, so that completion shows them before they are imported."""
    return sorted([*globals(), *__all__])
