"""The checks of a PUT: a whole configuration is accepted or refused, with Hopsworks' error messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.local.errors import Refusal, malformed

from .artifacts import FOLDER as ARTIFACTS

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_hsml.local.lines import Line

    from .administration import Administration
    from .files import ProjectFiles

_LOGGED = ("ALL", "PREDICTIONS", "MODEL_INPUTS", "NONE")
_NAME = re.compile(r"[a-zA-Z0-9]+")
_LOADED_FILES = (".joblib", ".pkl", ".pickle")
_MODEL_FILES = (*_LOADED_FILES, ".py")
VARIANTS = ("VLLM", "VLLM_OMNI")
_FINE_BATCHING = ("maxBatchSize", "maxLatency", "timeout")


def checked_name(name: Any, tool: Any, line: Line) -> str:
    """Check the name of a new deployment."""
    if not isinstance(name, str) or not name:
        raise malformed("Serving name not provided")
    if " " in name:
        raise malformed("Serving name cannot contain spaces")
    if not _NAME.fullmatch(name):
        raise malformed('Serving name must follow regex: "[a-zA-Z0-9]+"')
    if line.lower_case_names and tool == "KSERVE" and name != name.lower():
        raise malformed("Serving name must consist of lower case alphanumeric characters")
    return name


def check(config: dict[str, Any], files: ProjectFiles, line: Line, administration: Administration) -> None:
    """
    Check a whole configuration, and refuse it with Hopsworks' error messages.

    :param config: including the defaults
    :param files: of the project
    :param line: the Hopsworks line to emulate
    :param administration: the settings of the cluster's administrators
    """
    _check_fields(config, line)
    if config["servingTool"] == "KSERVE" and not administration.is_on("kube_kserve_installed"):
        raise Refusal(240015, "KServe is not installed: the serving tool is DEFAULT.")
    _check_instances(config)
    _check_bounds(config, *administration.bounds())
    _check_logger(config)
    _check_batching(config)
    _check_scripts(config, files)
    if config["modelName"] is None:
        if not line.is_model_free:
            raise malformed("Model path not provided")
        if config["modelServer"] != "PYTHON" or not config["predictor"]:
            raise malformed("Model path not provided: a deployment without a model needs PYTHON and a predictor.")
        return
    _check_model(config, files, line)


def _check_model(config: dict[str, Any], files: ProjectFiles, line: Line) -> None:
    name, path, version = config["modelName"], config["modelPath"], config["modelVersion"]
    if not path:
        raise malformed("Model path not provided")
    if version is None:
        raise malformed("Model version not provided")
    if not isinstance(version, int) or isinstance(version, bool):
        raise malformed(f"Model version {version!r} is not a number.")
    if path.rpartition("/")[2] != name:
        raise malformed("Model name does not match the model path")
    folder = files.folder(f"{path}/{version}") if path.startswith("/Projects/") else None
    if folder is None:
        raise Refusal(240006, f"{path}/{version} not found.")
    _check_structure(config, model_folder(folder, line), line)


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


def _check_fields(config: dict[str, Any], line: Line) -> None:
    """Check the values of single fields."""
    if config["modelServer"] not in line.servers:
        raise malformed("Model server not provided or unsupported")
    if config["servingTool"] not in ("DEFAULT", "KSERVE"):
        raise malformed("Serving tool not provided or invalid")
    if config["modelFramework"] is not None and config["modelFramework"] not in line.frameworks:
        raise malformed("Model framework not provided or unsupported")
    if config["apiProtocol"] not in (None, "REST", "GRPC"):
        raise malformed(f"API protocol {config['apiProtocol']!r} is not known: expected REST or GRPC.")
    for key in ("predictorEnvVars", "transformerEnvVars"):
        if any(not isinstance(text, str) or "=" not in text for text in config[key] or []):
            raise malformed(f"{key}: expected texts of the form NAME=value.")
    if config["vllmVariant"] is not None and config["modelServer"] != "VLLM":
        raise malformed("vllmVariant is for the model server VLLM only.")
    if config["vllmVariant"] not in (None, *VARIANTS):
        raise malformed(f"vllmVariant {config['vllmVariant']!r} is not known: expected {' or '.join(VARIANTS)}.")


def _check_logger(config: dict[str, Any]) -> None:
    """Check that the inference logger has both a mode and a topic, or neither."""
    mode = config["inferenceLogging"]
    has_topic = (config["kafkaTopicDTO"] or {}).get("name", "NONE") != "NONE"
    if mode not in _LOGGED or (has_topic and mode == "NONE"):
        raise malformed("A valid inference logger mode must be provided with a Kafka topic")
    if mode != "NONE" and not has_topic:
        raise malformed("Inference logger mode cannot be provided without a Kafka topic")
    if config["servingTool"] == "DEFAULT" and mode not in ("ALL", "NONE"):
        raise Refusal(240024, "With the serving tool DEFAULT, inference logging is ALL or nothing.")


def _check_batching(config: dict[str, Any]) -> None:
    """Check that a deployment with the serving tool DEFAULT does not request KServe's batcher."""
    batching = config["batchingConfiguration"]
    if config["servingTool"] != "DEFAULT":
        return
    if any(batching.get(key) is not None for key in _FINE_BATCHING):
        raise Refusal(240025, f"{', '.join(_FINE_BATCHING)} need the serving tool KSERVE.")
    if batching.get("batchingEnabled") and config["modelServer"] == "PYTHON":
        raise Refusal(240025, "Python deployments batch requests with the serving tool KSERVE only.")


def _check_structure(config: dict[str, Any], files: Path, line: Line) -> None:
    """Check that the model's files have the structure that its model server needs."""
    paths = [path for path in files.rglob("*") if ARTIFACTS not in path.relative_to(files).parts[:1]]
    if config["modelServer"] == "TENSORFLOW_SERVING":
        if not any(path.name == "variables" for path in paths) or not any(path.suffix == ".pb" for path in paths):
            raise Refusal(240017, "Model path does not respect the Tensorflow standard: variables/ and a .pb file.")
    elif config["modelServer"] == "PYTHON" and not config["predictor"]:
        if not any(path.suffix in _MODEL_FILES for path in paths):
            raise Refusal(240017, f"{config['modelPath']} has no file that ends {', '.join(_MODEL_FILES)}.")
        number = len([file for file in files.iterdir() if file.suffix in _LOADED_FILES])
        if line.one_model_file and number > 1:
            ends = ", ".join(_LOADED_FILES)
            raise Refusal(240017, f"Expected one file that ends {ends} directly in the model's folder, got {number}.")


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
    for key in ("predictorScalingConfig", "transformerScalingConfig"):
        if config[key] is None:
            continue
        least, most = (config[key].get(f"{end}Instances") for end in ("min", "max"))
        if least is None:
            raise malformed(f"{key}: minInstances not provided")
        if most is not None and least > most:
            raise malformed(f"{key}: minInstances {least} is more than maxInstances {most}.")


def _check_bounds(config: dict[str, Any], least: int | None, highest: int | None) -> None:
    """Check the numbers of instances against the limits of the cluster."""
    if config["servingTool"] == "DEFAULT":
        return
    scaling = {key: config[key] or {} for key in ("predictorScalingConfig", "transformerScalingConfig")}
    numbers = {key: config[key] for key in ("requestedInstances", "requestedTransformerInstances")}
    for key, limits in scaling.items():
        numbers |= {f"{key}.{end}Instances": limits.get(f"{end}Instances") for end in ("min", "max")}
    for key, number in numbers.items():
        if number is None:
            continue
        if least == 0 and number != 0 and not key.endswith("maxInstances"):
            raise malformed(f"{key} is {number}: the cluster requires scaling to zero, that is 0.")
        if (least is not None and number < least) or (highest is not None and number > highest):
            raise malformed(
                f"{key} is {number}: the cluster allows {least or 0} to {'any number' if highest is None else highest}."
            )


def model_folder(folder: Path, line: Line) -> Path:
    """Return the folder of a version's files: ``Files``, or the version's own folder, which older clients use."""
    return folder / "Files" if line.has_files_folder and (folder / "Files").is_dir() else folder
