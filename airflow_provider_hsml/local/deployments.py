"""
Deployments as rows: what is wanted, its versions, and what is refused. What runs is ``cluster``'s to say.

A row holds the configuration by its keys on the wire. ``VERSIONED`` belongs to a version and comes back with a
rollback; ``UNVERSIONED`` lives on the deployment and is edited in place either way.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .cluster import Status, Wanted
from .engines import ModelFiles
from .errors import Refusal, malformed
from .registry import FRAMEWORKS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .accounts import Project
    from .cluster import Cluster, State
    from .files import ProjectFiles
    from .store import Store

log = logging.getLogger(__name__)

_MODEL = ("modelPath", "modelName", "modelVersion", "modelFramework")
_KEPT_WHEN_NULL = frozenset({*_MODEL, "description", "modelServer", "servingTool", "requestedInstances"})
VERSIONED = (
    *_MODEL,
    *("modelServer", "predictor", "transformer", "configFile", "requestedInstances", "requestedTransformerInstances"),
    *("predictorResources", "transformerResources", "predictorScalingConfig", "transformerScalingConfig"),
    *("environmentDTO", "predictorEnvironment", "transformerEnvironment", "predictorEnvVars", "transformerEnvVars"),
    *("vllmVariant", "vllmImageTag", "tracing", "featureLogging"),
    *("gitUrl", "gitProvider", "gitBranch", "gitAutoRedeploy"),
)
UNVERSIONED = (
    *("description", "servingTool", "apiProtocol", "batchingConfiguration", "inferenceLogging", "kafkaTopicDTO"),
    *("knativeMode", "tags"),
)
_SET_BY_THE_SERVER = frozenset(
    {"id", "name", "version", "created", "creator", "status", "condition", "deployed", "revision", "projectNamespace"}
    | {"availableInstances", "availableTransformerInstances", "internalPort", "hopsworksInferencePath"}
    | {"modelServerInferencePath", "missingMandatoryTags", "gitCurrentCommit", "gitResolvedBranch", "artifactVersion"}
    | {"modelRegistryId", "projectName"},
)
FIELDS = frozenset({*VERSIONED, *UNVERSIONED}) | _SET_BY_THE_SERVER

_TYPES: dict[str, tuple[type, str]] = {
    **dict.fromkeys(
        ("description", "modelPath", "modelName", "predictor", "transformer", "configFile"), (str, "a text")
    ),
    **dict.fromkeys((key for key in VERSIONED if key.endswith(("Resources", "ScalingConfig"))), (dict, "an object")),
    **dict.fromkeys(("predictorEnvironment", "transformerEnvironment", "environmentDTO"), (dict, "an object")),
    **dict.fromkeys(("batchingConfiguration", "kafkaTopicDTO", "tracing", "featureLogging"), (dict, "an object")),
    **dict.fromkeys(("predictorEnvVars", "transformerEnvVars"), (list, "a list")),
}
_OF_TRANSFORMER = frozenset(key for key in VERSIONED if "ransformer" in key) - {"transformer"}
"""Left out where there is no transformer: hsml 3.7 does not read a null among them."""
_SERVERS = ("TENSORFLOW_SERVING", "PYTHON", "VLLM")
_LOGGED = ("ALL", "PREDICTIONS", "MODEL_INPUTS", "NONE")
_NAME = re.compile(r"[a-zA-Z0-9]+")
_MODEL_FILES = (".joblib", ".pkl", ".pickle", ".py")
_ENVIRONMENTS = {
    "PYTHON": "pandas-inference-pipeline",
    "VLLM": "vllm-inference-pipeline",
    "TENSORFLOW_SERVING": "tensorflow-inference-pipeline",
}
_CREATOR = "Local User"


class Deployments:
    """
    The deployments of one project.

    :param project: the project
    :param store: where the rows are
    :param files: the project's files
    :param cluster: what runs them
    """

    def __init__(self, project: Project, store: Store, files: ProjectFiles, cluster: Cluster) -> None:
        self._project = project
        self._store = store
        self._files = files
        self._cluster = cluster
        self._lock = threading.RLock()
        self._rows: dict[int, dict[str, Any]] = {}

    def restore(self) -> None:
        """Take the rows in as they were when the server ended; what was to run is started again."""
        for deployment, _project, _name, row in self._store.deployments(self._project.id):
            self._rows[deployment] = row
            self._cluster.adopt(deployment, row["name"], has_run=row["revision"] is not None)
            if row["isWanted"]:
                self._cluster.start(deployment, self._wanted(row))

    # --- Reading

    def get(self, deployment: int) -> dict[str, Any]:
        """Give a deployment, as on the wire."""
        with self._lock:
            row = self._row(deployment)
            return self._on_the_wire(deployment, row, self._cluster.look(deployment))

    def by_name(self, name: str) -> dict[str, Any]:
        """Find a deployment by its exact name."""
        return self.get(self.id_of(name))

    def id_of(self, name: str, code: int = 240000) -> int:
        """Give the id of a deployment; refused with ``code`` when there is none."""
        with self._lock:
            found = next((number for number, row in self._rows.items() if row["name"] == name), None)
        if found is None:
            raise Refusal(code, f"Deployment {name} not found.")
        return found

    def config(self, deployment: int) -> Mapping[str, Any]:
        """Give a deployment's configuration, which is not to be changed."""
        with self._lock:
            config: Mapping[str, Any] = self._row(deployment)["config"]
            return config

    def find(
        self, model: str | None = None, model_version: int | None = None, status: str | None = None
    ) -> list[dict[str, Any]]:
        """
        List deployments.

        :param model: of one model only
        :param model_version: of one version of that model only
        :param status: in one status only, in any case
        """
        if model_version is not None and model is None:
            raise malformed("modelVersion needs model as well.")
        if status is not None and status.capitalize() not in set(Status):
            raise malformed(f"Status {status!r} is not known: expected one of {', '.join(Status)}.")
        with self._lock:
            rows = sorted(self._rows.items())
            shown = [self._on_the_wire(number, row, self._cluster.look(number)) for number, row in rows]
        return [
            row
            for row in shown
            if (model is None or row["modelName"] == model)
            and (model_version is None or row["modelVersion"] == model_version)
            and (status is None or row["status"] == status.capitalize())
        ]

    def versions(self, deployment: int) -> list[dict[str, Any]]:
        """Give the versions of a deployment, as on the wire, newest first."""
        with self._lock:
            row = self._row(deployment)
            return [
                {"version": number, "active": number == row["version"], **document}
                for number, document in self._store.versions(deployment).items()
            ]

    def logs(self, deployment: int, component: str, tail: int) -> list[dict[str, str]]:
        """Give the last lines of each instance of a component, as on the wire."""
        if component not in ("predictor", "transformer"):
            raise malformed(f"Component {component!r} is not known: expected predictor or transformer.")
        with self._lock:
            self._row(deployment)
            logs = self._cluster.logs(deployment, tail)
        if component == "transformer":  # Transformers do not run yet.
            return []
        return [{"instanceName": instance, "content": content} for instance, content in logs]

    def uses(self, name: str, version: int) -> str | None:
        """Give the name of a deployment that serves this version of a model, if there is one."""
        with self._lock:
            rows = [row for row in self._rows.values() if row["config"]["modelName"] == name]
            return next((row["name"] for row in rows if row["config"]["modelVersion"] == version), None)

    # --- Changing

    def put(self, body: dict[str, Any], *, new_version: bool = False) -> dict[str, Any]:
        """
        Create a deployment (without ``id``), or change one (with it).

        :param body: as on the wire; fields that are not known are dropped
        :param new_version: store a change of what is versioned as a new version, instead of in the active one
        :return: the deployment, as PUT answers
        """
        if unknown := sorted(set(body) - FIELDS):
            log.warning("PUT serving: fields %s are not known, and dropped", ", ".join(unknown))
        deployment = body.get("id")
        with self._lock:
            if deployment is None:
                return self._create(body)
            if not isinstance(deployment, int) or isinstance(deployment, bool):
                raise malformed(f"id {deployment!r} is not a number.")
            return self._update(deployment, body, new_version=new_version)

    def start(self, deployment: int) -> None:
        """Start a deployment; refused when it is not Created or Stopped."""
        with self._lock:
            row = self._row(deployment)
            status = self._cluster.state(deployment).status
            if status not in (Status.CREATED, Status.STOPPED):
                why = {
                    Status.CREATING: "is being created",
                    Status.FAILED: "is in a failed state: stop it first",
                    Status.STOPPING: "is stopping",
                }
                raise Refusal(240003, f"Deployment {row['name']} {why.get(status, 'is already started')} ({status}).")
            row = {**row, "revision": self._revision(row), "deployed": _now(), "isWanted": True}
            self._keep(deployment, row)
            self._cluster.start(deployment, self._wanted(row))

    def stop(self, deployment: int) -> None:
        """Stop a deployment; refused when it is not started."""
        with self._lock:
            row = self._row(deployment)
            status = self._cluster.state(deployment).status
            if status in (Status.CREATING, Status.CREATED, Status.STOPPING, Status.STOPPED):
                why = "is being created" if status is Status.CREATING else "is already stopped"
                raise Refusal(240003, f"Deployment {row['name']} {why} ({status}).")
            self._keep(deployment, {**row, "deployed": None, "isWanted": False})
            self._cluster.stop(deployment)

    def delete(self, deployment: int) -> None:
        """Delete a deployment in any status, and what it runs."""
        with self._lock:
            self._row(deployment)
            self._store.delete_deployment(deployment)
            del self._rows[deployment]
            self._cluster.remove(deployment)

    def roll_back(self, deployment: int, version: Any) -> dict[str, Any]:
        """
        Make an earlier version the active one again, under its old number.

        :param version: its number; that of the active one changes nothing
        :return: the deployment, as PUT answers
        """
        with self._lock:
            row = self._row(deployment)
            versions = self._store.versions(deployment)
            if version not in versions or isinstance(version, bool):
                known = ", ".join(str(number) for number in versions)
                raise malformed(f"Version {version!r} of deployment {row['name']} not found: it has {known}.")
            status = self._cluster.state(deployment).status
            if status in (Status.CREATING, Status.STARTING, Status.STOPPING):
                raise Refusal(240003, f"Deployment {row['name']} is {status}: wait before rolling back.")
            if version == row["version"]:
                return self._answer_to_put(deployment)
            config = row["config"] | {key: versions[version].get(key) for key in VERSIONED}
            self._apply(deployment, {**row, "version": version, "config": config}, status)
            return self._answer_to_put(deployment)

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = _checked_name(body.get("name"))
        if any(row["name"] == name for row in self._rows.values()):
            raise Refusal(240011, f"A deployment with the name {name} exists already.")
        config = self._checked(self._completed(body))
        row = {
            "name": name,
            "version": 1,
            "revision": None,
            "deployed": None,
            "isWanted": False,
            "created": _now(),
            "creator": _CREATOR,
            "config": config,
        }
        with self._store.transaction():
            deployment = self._store.insert_deployment(self._project.id, name, row)
            if deployment is None:
                raise Refusal(240011, f"A deployment with the name {name} exists already.")
            self._keep_version(deployment, row)
        self._rows[deployment] = row
        self._cluster.prepare(deployment, name)
        return self._answer_to_put(deployment)

    def _update(self, deployment: int, body: dict[str, Any], *, new_version: bool) -> dict[str, Any]:
        row = self._row(deployment)
        name = row["name"]
        old = row["config"]
        status = self._cluster.state(deployment).status
        if body.get("name") not in (None, name):
            raise malformed(f"Deployment {name} cannot be renamed to {body['name']!r}.")
        if status is Status.CREATING:
            raise Refusal(240004, f"Deployment {name} is being created.")
        if status in (Status.STARTING, Status.UPDATING, Status.STOPPING):
            raise Refusal(240002, f"Deployment {name} is {status}: wait before changing it.")
        if body.get("version") not in (None, row["version"]):
            raise Refusal(240028, f"Version {body['version']} of deployment {name} is not active: {row['version']} is.")
        if body.get("modelServer") not in (None, old["modelServer"]):
            raise Refusal(240013, f"Deployment {name} has the model server {old['modelServer']}.")
        if body.get("servingTool") not in (None, old["servingTool"]):
            raise malformed(f"Deployment {name} has the serving tool {old['servingTool']}, which cannot be changed.")
        kept = {key: old[key] for key in _KEPT_WHEN_NULL if body.get(key) is None}
        if body.get("modelVersion") is not None and body.get("modelFramework") is None:
            kept["modelFramework"] = old["modelFramework"]
        scripts = {
            key: old[key]
            for key in ("predictor", "transformer", "configFile")
            if old[key] and body.get(key) == old[key].rpartition("/")[2]
        }
        config = self._checked(self._completed({**body, **kept, **scripts}))
        if config == old:
            return self._answer_to_put(deployment)
        changed = {**row, "config": config}
        if new_version and any(config[key] != old[key] for key in VERSIONED):
            changed["version"] = max(self._store.versions(deployment)) + 1
        self._apply(deployment, changed, status)
        return self._answer_to_put(deployment)

    def _apply(self, deployment: int, row: dict[str, Any], status: Status) -> None:
        """Write a changed row, and have the cluster follow if it runs."""
        has_run = status not in (Status.CREATED, Status.STOPPED)
        if has_run:
            row = {**row, "revision": self._revision(row), "deployed": _now(), "isWanted": True}
        with self._store.transaction():
            self._store.update_deployment(deployment, row)
            self._keep_version(deployment, row)
        self._rows[deployment] = row
        if has_run:
            self._cluster.update(deployment, self._wanted(row))

    # --- Checking

    def _completed(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take what is known of a body, with the server's defaults."""
        config = {key: body.get(key) for key in (*VERSIONED, *UNVERSIONED)}
        _check_types(config)
        if config["requestedInstances"] is None and config["predictorScalingConfig"]:
            config["requestedInstances"] = config["predictorScalingConfig"].get("minInstances")
        server = config["modelServer"]
        has_model = any(config[key] is not None for key in ("modelPath", "modelName", "modelVersion"))
        if has_model and config["modelName"] is None and isinstance(config["modelPath"], str):
            config["modelName"] = (config["modelPath"].split("/") + [""] * 5)[4]
        if has_model and config["modelFramework"] is None:
            config["modelFramework"] = "TENSORFLOW" if server == "TENSORFLOW_SERVING" else "SKLEARN"
        environment = config["predictorEnvironment"] or config["environmentDTO"]
        config["predictorEnvironment"] = config["environmentDTO"] = environment or {
            "name": _ENVIRONMENTS.get(str(server), _ENVIRONMENTS["PYTHON"])
        }
        config["predictorResources"] = config["predictorResources"] or _default_resources()
        config["predictorScalingConfig"] = config["predictorScalingConfig"] or {
            "minInstances": config["requestedInstances"]
        }
        if config["transformer"]:
            config["transformerResources"] = config["transformerResources"] or _default_resources()
            config["transformerScalingConfig"] = config["transformerScalingConfig"] or {
                "minInstances": config["requestedTransformerInstances"]
            }
        config["batchingConfiguration"] = config["batchingConfiguration"] or {"batchingEnabled": False}
        config["apiProtocol"] = config["apiProtocol"] or "REST"
        config["inferenceLogging"] = config["inferenceLogging"] or "NONE"
        return config

    def _checked(self, config: dict[str, Any]) -> dict[str, Any]:
        """Check a whole configuration, in the words of Hopsworks."""
        _check_fields(config)
        _check_instances(config)
        _check_logger(config)
        self._check_scripts(config)
        if config["modelName"] is None:
            if config["modelServer"] != "PYTHON" or not config["predictor"]:
                raise malformed("Model path not provided: a deployment without a model needs PYTHON and a predictor.")
            return config
        self._check_model(config)
        return config

    def _check_model(self, config: dict[str, Any]) -> None:
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
            folder = self._files.here(f"{path}/{version}")
        except Refusal:
            raise Refusal(240006, f"{path} is not in project {self._project.name}.") from None
        if not folder.is_dir():
            raise Refusal(240006, f"{path}/{version} not found.")
        _check_structure(config, _model_folder(folder))

    def _check_scripts(self, config: dict[str, Any]) -> None:
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
            self._check_script(kind, script)
        if config["configFile"] is not None and self._script(config["configFile"]) is None:
            raise Refusal(240016, f"Configuration file {config['configFile']} not found.")

    def _check_script(self, kind: str, script: str | None) -> None:
        if script is None:
            return
        if not script.endswith(".py"):
            raise malformed(f"{kind} script should have a valid extension: .py")
        if self._script(script) is None:
            raise Refusal(240016, f"{kind} script {script} not found.")

    def _script(self, path: str) -> Path | None:
        """Give a script's place on this machine; None when it is not there."""
        try:
            place = self._files.here(path)
        except Refusal:
            return None
        return place if place.is_file() else None

    # --- Rows

    def _row(self, deployment: int) -> dict[str, Any]:
        row = self._rows.get(deployment)
        if row is None:
            raise Refusal(240000, f"Deployment {deployment} not found.")
        return row

    def _keep(self, deployment: int, row: dict[str, Any]) -> None:
        self._store.update_deployment(deployment, row)
        self._rows[deployment] = row

    def _keep_version(self, deployment: int, row: dict[str, Any]) -> None:
        number, now = row["version"], _now()
        known = self._store.versions(deployment).get(number, {"created": now, "createdBy": _CREATOR})
        document = {
            **{key: row["config"][key] for key in VERSIONED},
            "created": known["created"],
            "createdBy": known["createdBy"],
            "updated": now,
            "updatedBy": _CREATOR,
        }
        self._store.put_version(deployment, number, document)

    def _revision(self, row: dict[str, Any]) -> str:
        if self._cluster.profile.random_revisions:
            return f"{secrets.randbelow(10**8):08d}"
        return f"{int(row['revision'] or 0) + 1:05d}"

    def _wanted(self, row: dict[str, Any]) -> Wanted:
        config = row["config"]
        scaling = config["predictorScalingConfig"] or {}
        minimum = scaling.get("minInstances")
        path = None
        if config["modelPath"]:
            path = _model_folder(self._files.here(f"{config['modelPath']}/{config['modelVersion']}"))
        script = config["predictor"] and self._script(config["predictor"])
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
            "HOPSWORKS_PROJECT_ID": str(self._project.id),
            "HOPSWORKS_PROJECT_NAME": self._project.name,
            "PROJECT_ID": str(self._project.id),
            "PROJECT_NAME": self._project.name,
        }
        model = ModelFiles(
            deployment=row["name"],
            name=config["modelName"],
            version=config["modelVersion"],
            path=path,
            framework=config["modelFramework"],
            server=config["modelServer"],
            script=script or None,
            transformer=self._script(config["transformer"]) if config["transformer"] else None,
            env={**own, **env},
        )
        minimum = config["requestedInstances"] if minimum is None else minimum
        return Wanted(row["revision"], model, minimum, _gpus(config["predictorResources"]))

    def _on_the_wire(self, deployment: int, row: dict[str, Any], state: State) -> dict[str, Any]:
        config = row["config"]
        path = f"/project/{self._project.id}/inference/models/{row['name']}"
        shown = config if config["transformer"] else {key: config[key] for key in config if key not in _OF_TRANSFORMER}
        return {
            **shown,
            # Only the names of scripts are told, as newer servers do; they may be sent back so.
            **{key: config[key] and config[key].rpartition("/")[2] for key in ("predictor", "transformer")},
            "id": deployment,
            "name": row["name"],
            "version": row["version"],
            "revision": row["revision"],
            "deployed": row["deployed"],
            "created": row["created"],
            "creator": row["creator"],
            "projectNamespace": self._project.namespace,
            "status": state.status,
            "condition": asdict(state.condition),
            "availableInstances": state.available,
            "availableTransformerInstances": state.available if config["transformer"] else None,
            "hopsworksInferencePath": path,
            "modelServerInferencePath": f"/v1/{self._project.namespace}/{row['name']}/v1/models/{row['name']}",
            "missingMandatoryTags": [],
        }

    def _answer_to_put(self, deployment: int) -> dict[str, Any]:
        answer = self._on_the_wire(deployment, self._row(deployment), self._cluster.state(deployment))
        if self._cluster.profile.put_without_state:
            hidden = ("status", "condition", "availableInstances", "availableTransformerInstances")
            answer |= dict.fromkeys((*hidden, "hopsworksInferencePath", "modelServerInferencePath"))
        return answer


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise malformed("Serving name not provided")
    if " " in name:
        raise malformed("Serving name cannot contain spaces")
    if not _NAME.fullmatch(name):
        raise malformed('Serving name must follow regex: "[a-zA-Z0-9]+"')
    return name


def _check_types(config: dict[str, Any]) -> None:
    for key, (kind, what) in _TYPES.items():
        if config[key] is not None and not isinstance(config[key], kind):
            raise malformed(f"{key} {config[key]!r} is not {what}.")


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


def _gpus(resources: dict[str, Any]) -> int:
    """Give how many GPUs an instance needs: what it may have is what it gets, as Kubernetes hands them out."""
    numbers = [(resources.get(key) or {}).get("gpus") or 0 for key in ("requests", "limits")]
    return max(numbers)


def _default_resources() -> dict[str, Any]:
    return {
        "requests": {"cores": 0.2, "memory": 32, "gpus": 0},
        "limits": {"cores": 2, "memory": 1024, "gpus": 0},
    }


def _model_folder(folder: Path) -> Path:
    """Give the folder of a version's files: ``Files``, or the version's own where older clients put them."""
    return folder / "Files" if (folder / "Files").is_dir() else folder


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
