"""What a PUT is refused for: the checks of a whole configuration, in the words of Hopsworks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .errors import Refusal, malformed
from .registry import FRAMEWORKS

if TYPE_CHECKING:
    from pathlib import Path

    from .files import ProjectFiles

_SERVERS = ("TENSORFLOW_SERVING", "PYTHON", "VLLM")
_LOGGED = ("ALL", "PREDICTIONS", "MODEL_INPUTS", "NONE")
_NAME = re.compile(r"[a-zA-Z0-9]+")
_MODEL_FILES = (".joblib", ".pkl", ".pickle", ".py")


def checked_name(name: Any) -> str:
    """Check the name of a new deployment."""
    if not isinstance(name, str) or not name:
        raise malformed("Serving name not provided")
    if " " in name:
        raise malformed("Serving name cannot contain spaces")
    if not _NAME.fullmatch(name):
        raise malformed('Serving name must follow regex: "[a-zA-Z0-9]+"')
    return name


def check(config: dict[str, Any], files: ProjectFiles) -> None:
    """Check a whole configuration, in the words of Hopsworks."""
    _check_fields(config)
    _check_instances(config)
    _check_logger(config)
    _check_scripts(config, files)
    if config["modelName"] is None:
        if config["modelServer"] != "PYTHON" or not config["predictor"]:
            raise malformed("Model path not provided: a deployment without a model needs PYTHON and a predictor.")
        return
    _check_model(config, files)


def _check_model(config: dict[str, Any], files: ProjectFiles) -> None:
    name, path, version = config["modelName"], config["modelPath"], config["modelVersion"]
    if not path:
        raise malformed("Model path not provided")
    if version is None:
        raise malformed("Model version not provided")
    if not isinstance(version, int) or isinstance(version, bool):
        raise malformed(f"Model version {version!r} is not a number.")
    if path.rstrip("/").rpartition("/")[2] != name:
        raise malformed("Model name does not match the model path")
    try:
        folder = files.here(f"{path}/{version}")
    except Refusal:
        raise Refusal(240006, f"{path} is not in project {files.project}.") from None
    if not folder.is_dir():
        raise Refusal(240006, f"{path}/{version} not found.")
    _check_structure(config, model_folder(folder))


def _check_scripts(config: dict[str, Any], files: ProjectFiles) -> None:
    predictor, transformer = config["predictor"], config["transformer"]
    server, is_default = config["modelServer"], config["servingTool"] == "DEFAULT"
    if server == "TENSORFLOW_SERVING" and predictor:
        raise Refusal(240020, "TensorFlow Serving takes no predictor script.")
    if server == "PYTHON" and not predictor:
        if is_default:
            raise Refusal(240018, "Default deployments require a predictor")
        if config["modelFramework"] in ("PYTHON", "TORCH"):
            raise malformed(f"Predictor script not provided: {config['modelFramework']} models need one.")
    if transformer and is_default:
        raise Refusal(240021, "Transformers need the serving tool KSERVE.")
    for kind, script in (("Predictor", predictor), ("Transformer", transformer)):
        _check_script(kind, script, files)
    if config["configFile"] is not None and files.file(config["configFile"]) is None:
        raise Refusal(240016, f"Configuration file {config['configFile']} not found.")


def _check_script(kind: str, script: str | None, files: ProjectFiles) -> None:
    if script is None:
        return
    if not script.endswith(".py"):
        raise malformed(f"{kind} script should have a valid extension: .py")
    if files.file(script) is None:
        raise Refusal(240016, f"{kind} script {script} not found.")


def _check_fields(config: dict[str, Any]) -> None:
    """Check the words of single fields."""
    if config["modelServer"] not in _SERVERS:
        raise malformed("Model server not provided or unsupported")
    if config["servingTool"] not in ("DEFAULT", "KSERVE"):
        raise malformed("Serving tool not provided or invalid")
    if config["modelFramework"] is not None and config["modelFramework"] not in FRAMEWORKS:
        raise malformed("Model framework not provided or unsupported")
    if config["apiProtocol"] not in ("REST", "GRPC"):
        raise malformed(f"API protocol {config['apiProtocol']!r} is not known: expected REST or GRPC.")
    for key in ("predictorEnvVars", "transformerEnvVars"):
        if any(not isinstance(text, str) or "=" not in text for text in config[key] or []):
            raise malformed(f"{key}: expected texts of the form NAME=value.")


def _check_logger(config: dict[str, Any]) -> None:
    """Check that the inference logger has both a mode and a topic, or neither."""
    mode = config["inferenceLogging"]
    has_topic = (config["kafkaTopicDTO"] or {}).get("name", "NONE") != "NONE"
    if mode not in _LOGGED or (has_topic and mode == "NONE"):
        raise malformed("A valid inference logger mode must be provided with a Kafka topic")
    if mode != "NONE" and not has_topic:
        raise malformed("Inference logger mode cannot be provided without a Kafka topic")


def _check_structure(config: dict[str, Any], files: Path) -> None:
    """Check that the model's files are what its server loads."""
    found = list(files.rglob("*"))
    if config["modelServer"] == "TENSORFLOW_SERVING":
        if not any(file.name == "variables" for file in found) or not any(file.suffix == ".pb" for file in found):
            raise Refusal(240017, "Model path does not respect the Tensorflow standard: variables/ and a .pb file.")
    elif config["modelServer"] == "PYTHON" and not config["predictor"]:
        if any(file.suffix in _MODEL_FILES for file in found):
            return
        raise Refusal(240017, f"{config['modelPath']} has no file that ends {', '.join(_MODEL_FILES)}.")


def _check_instances(config: dict[str, Any]) -> None:
    """Check the numbers of instances."""
    for key in ("requestedInstances", "requestedTransformerInstances"):
        number = config[key]
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
            raise malformed(f"{key} {number!r} is not a number of instances.")
    if config["requestedInstances"] is None:
        raise malformed("Number of instances not provided")
    has_numbers = config["requestedTransformerInstances"] is not None
    if config["transformer"] and not has_numbers:
        raise malformed("Number of transformer instances not provided")
    if not config["transformer"] and (has_numbers or config["transformerResources"]):
        raise malformed("Transformer instances and resources cannot be provided without a transformer")
    scaling = config["predictorScalingConfig"]
    if not isinstance(scaling.get("minInstances"), int):
        raise malformed("predictorScalingConfig: minInstances not provided")


def model_folder(folder: Path) -> Path:
    """Give the folder of a version's files: ``Files``, or the version's own where older clients put them."""
    return folder / "Files" if (folder / "Files").is_dir() else folder
