"""The desired state of a deployment for the cluster: the model, its files and scripts, and its environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.cluster.engines import ModelFiles
from airflow_provider_hsml.local.cluster.rollouts import Wanted

from .checks import model_folder

if TYPE_CHECKING:
    from airflow_provider_hsml.local.lines import Line

    from .accounts import Project
    from .files import ProjectFiles


def wanted(row: dict[str, Any], project: Project, files: ProjectFiles, line: Line) -> Wanted:
    """Return the desired state of a deployment, with its revision."""
    config = row["config"]
    scaling = config["predictorScalingConfig"] or {}
    minimum = scaling.get("minInstances")
    path = None
    if config["modelPath"]:
        path = model_folder(files.here(f"{config['modelPath']}/{config['modelVersion']}"), line)
    environment = config["predictorEnvironment"] or config["environmentDTO"]
    env = {
        "DEPLOYMENT_NAME": row["name"],
        "DEPLOYMENT_VERSION": str(row["version"]),
        "MODEL_NAME": config["modelName"] or "",
        "MODEL_VERSION": "" if config["modelVersion"] is None else str(config["modelVersion"]),
        "MODEL_FILES_PATH": str(path or ""),
        "HOPSWORKS_PROJECT_ID": str(project.id),
        "HOPSWORKS_PROJECT_NAME": project.name,
        "PROJECT_ID": str(project.id),
        "PROJECT_NAME": project.name,
    }
    model = ModelFiles(
        deployment=row["name"],
        name=config["modelName"],
        version=config["modelVersion"],
        path=path,
        framework=config["modelFramework"],
        server=config["modelServer"],
        script=files.here(config["predictor"]) if config["predictor"] else None,
        transformer=files.here(config["transformer"]) if config["transformer"] else None,
        config=files.here(config["configFile"]) if config["configFile"] else None,
        env=_own_env(config["predictorEnvVars"]) | env,
        environment=_name(environment),
        transformer_env=_own_env(config["transformerEnvVars"]) | env,
        transformer_environment=_name(config["transformerEnvironment"] or environment),
        logged=config["inferenceLogging"],
        topic=_name(config["kafkaTopicDTO"]),
    )
    minimum = config["requestedInstances"] if minimum is None else minimum
    archive = files.here(f"Logs/Serving/{row['name']}")
    return Wanted(row["revision"], model, minimum, _gpus(config["predictorResources"]), archive)


def _gpus(resources: dict[str, Any]) -> int:
    """Return the number of GPUs of an instance: as in Kubernetes, it gets its whole limit."""
    numbers = [(resources.get(key) or {}).get("gpus") or 0 for key in ("requests", "limits")]
    return max(numbers)


def _own_env(texts: list[str] | None) -> dict[str, str]:
    return dict(text.partition("=")[::2] for text in texts or [])


def _name(named: dict[str, Any] | None) -> str | None:
    return named.get("name") if named else None
