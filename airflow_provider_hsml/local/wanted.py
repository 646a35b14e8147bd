"""What a deployment's row asks of the cluster: the model, its files and scripts, and what its process is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .checks import model_folder
from .cluster import Wanted
from .engines import ModelFiles

if TYPE_CHECKING:
    from .accounts import Project
    from .files import ProjectFiles


def wanted(row: dict[str, Any], project: Project, files: ProjectFiles) -> Wanted:
    """Give what a row asks for, with the revision that it has."""
    config = row["config"]
    scaling = config["predictorScalingConfig"] or {}
    minimum = scaling.get("minInstances")
    path = None
    if config["modelPath"]:
        path = model_folder(files.here(f"{config['modelPath']}/{config['modelVersion']}"))
    script = config["predictor"] and files.file(config["predictor"])
    own = dict(text.partition("=")[::2] for text in config["predictorEnvVars"] or [])
    env = {
        "DEPLOYMENT_NAME": row["name"],
        "DEPLOYMENT_VERSION": str(row["version"]),
        "MODEL_NAME": config["modelName"] or "",
        "MODEL_VERSION": "" if config["modelVersion"] is None else str(config["modelVersion"]),
        "MODEL_FILES_PATH": str(path or ""),
        "SCRIPT_PATH": str(script or ""),
        "SCRIPT_NAME": script.name if script else "",
        "IS_PREDICTOR": "true",
        "IS_TRANSFORMER": "false",
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
        script=script or None,
        transformer=files.file(config["transformer"]) if config["transformer"] else None,
        env={**own, **env},
    )
    minimum = config["requestedInstances"] if minimum is None else minimum
    return Wanted(row["revision"], model, minimum, _gpus(config["predictorResources"]))


def _gpus(resources: dict[str, Any]) -> int:
    """Give how many GPUs an instance needs: what it may have is what it gets, as Kubernetes hands them out."""
    numbers = [(resources.get(key) or {}).get("gpus") or 0 for key in ("requests", "limits")]
    return max(numbers)
