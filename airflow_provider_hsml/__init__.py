"""
Take trained models to verified deployments on Hopsworks Model Serving, from Airflow DAGs.

The packages and modules:

- ``operators``: tasks that register, compare, deploy, roll back, start, stop, restart, delete, predict, clean up, and
  run jobs
- ``sensors``: tasks that wait for a deployment's status or a model version
- ``triggers``: the waits of deferred tasks, in the triggerer
- ``hooks``: ``HsmlHook``, the Airflow connection and its methods
- ``hopsworks``: models, deployments, promotions and the REST API, without Airflow
- ``doctor``: the command ``hsml-doctor``, which compares a Hopsworks with the answers that this package expects
- ``local``: a local Model Serving for a laptop or CI, which runs the models
- ``provider_info``: the provider's metadata for Airflow

The names below are imported on first use, so that importing this package stays fast.
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
        BatchPredictOperator,
        CompareModelsOperator,
        DeleteDeploymentOperator,
        DeleteModelVersionsOperator,
        DeployBestModelOperator,
        DeployModelOperator,
        PredictOperator,
        RegisterModelOperator,
        RestartDeploymentOperator,
        RollbackDeploymentOperator,
        RunHopsworksJobOperator,
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
    "BatchPredictOperator": "operators",
    "CompareModelsOperator": "operators",
    "DeleteDeploymentOperator": "operators",
    "DeleteModelVersionsOperator": "operators",
    "DeployBestModelOperator": "operators",
    "DeployModelOperator": "operators",
    "PredictOperator": "operators",
    "RegisterModelOperator": "operators",
    "RestartDeploymentOperator": "operators",
    "RollbackDeploymentOperator": "operators",
    "RunHopsworksJobOperator": "operators",
    "StartDeploymentOperator": "operators",
    "StopDeploymentOperator": "operators",
    "DeploymentStatusSensor": "sensors",
    "ModelVersionSensor": "sensors",
    "DeploymentTrigger": "triggers",
    "ModelVersionTrigger": "triggers",
}

__all__ = [
    "BatchPredictOperator",
    "Batcher",
    "CompareModelsOperator",
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
    "RunHopsworksJobOperator",
    "Scaling",
    "StartDeploymentOperator",
    "StopDeploymentOperator",
    "TransformerSpec",
    "Verification",
]


def __getattr__(name: str) -> object:
    """Import the module that defines ``name`` on first use (PEP 562)."""
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    """List the public names, so that completion shows them before their first use."""
    return sorted([*globals(), *__all__])
