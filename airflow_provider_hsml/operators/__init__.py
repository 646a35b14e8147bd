"""
Operators for models, deployments and jobs on Hopsworks Model Serving.

Operators are thin: they read their arguments, call the hook, and return a small plain dict. Decisions and waits are
in ``hopsworks``.
"""

from __future__ import annotations

from .batch import BatchPredictOperator
from .comparison import CompareModelsOperator
from .deployments import (
    DeleteDeploymentOperator,
    RestartDeploymentOperator,
    StartDeploymentOperator,
    StopDeploymentOperator,
)
from .jobs import RunHopsworksJobOperator
from .models import DeleteModelVersionsOperator, RegisterModelOperator
from .predictions import PredictOperator
from .promotion import DeployBestModelOperator, DeployModelOperator
from .rollback import RollbackDeploymentOperator

__all__ = [
    "BatchPredictOperator",
    "CompareModelsOperator",
    "DeleteDeploymentOperator",
    "DeleteModelVersionsOperator",
    "DeployBestModelOperator",
    "DeployModelOperator",
    "PredictOperator",
    "RegisterModelOperator",
    "RestartDeploymentOperator",
    "RollbackDeploymentOperator",
    "RunHopsworksJobOperator",
    "StartDeploymentOperator",
    "StopDeploymentOperator",
]
