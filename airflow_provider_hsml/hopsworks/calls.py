"""
The REST contract: one function an endpoint, each of which says what to send and how to read the answer. No I/O.

A ``Call`` is sent by a client, sync or async, which knows nothing of endpoints. Everything that gets into a path is
checked here, so that no name can lead out of its place, wherever it came from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

from .deployments import Deployment, check_deployment_name
from .errors import HopsworksError, InvalidInput, NotUnderstood, Refused
from .models import Direction, ModelVersion, check_model_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

API = "hopsworks-api/api"
PAGE = 1000
"""Rows asked for at once where a list is paged."""

INSTANCE_NOT_FOUND = 240000
DUPLICATED_ENTRY = 240011
SERVING_NOT_FOUND = 250000
MODEL_NOT_FOUND = 360000
LOGS_NOT_AVAILABLE = 240027
KUBERNETES_NOT_INSTALLED = 240014
VARIABLE_NOT_FOUND = 100050
_PATH_NOT_FOUND = frozenset({110008, 110011, 110018})
_PATH_EXISTS = frozenset({110012, 110047})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, before anybody has judged it."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """With lower-case names."""

    @property
    def retry_after(self) -> float | None:
        """Seconds from the Retry-After header; None without one that is a number."""
        value = self.headers.get("retry-after", "")
        return float(value) if value.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Upload:
    """One part of a file, as the dataset endpoint takes it: a multipart form."""

    filename: str
    content: bytes
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how to read its answer."""

    what: str
    """What is being asked, for messages: "start deployment 'digits'"."""
    method: str
    path: str
    """Percent-encoded, below the host."""
    read: Callable[[Any], T]
    """From the answer's JSON (None when it is empty) to what the caller wants."""
    query: tuple[tuple[str, str], ...] = ()
    body: Any = None
    upload: Upload | None = field(default=None, repr=False)
    repeatable: bool = False
    """Whether sending it a second time does no harm."""
    is_write_slow: bool = False
    """Whether the server may take minutes to answer."""
    raw: bool = False
    """Whether the answer is bytes, not JSON."""
    absent: frozenset[int] = frozenset()
    """Error codes that mean 'not there': read as None, not raised."""
    optional: bool = False
    """Whether some servers lack the endpoint: a 404 of its own kind is then read as None."""
    seconds: float | None = None
    """How long to wait for the answer, where that is not the connection's to say."""

    def outcome(self, answer: Answer) -> T:
        """
        Judge an answer.

        :param answer: what came back
        :return: what ``read`` makes of it
        :raises Refused: Hopsworks said no
        :raises NotUnderstood: it is not an answer of Hopsworks
        """
        if not 200 <= answer.status < 300:
            error = _error(self.what, answer)
            code = error.code if isinstance(error, Refused) else None
            if code in self.absent or (self.optional and answer.status == 404 and code != INSTANCE_NOT_FOUND):
                return self.read(None)
            raise error
        if self.raw:
            return self.read(answer.content)
        try:
            return self.read(json.loads(answer.content) if answer.content.strip() else None)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            message = (
                f"{self.what}: the answer is not what Hopsworks gives ({type(error).__name__}: {error}). It began: "
                f"{_beginning(answer)}"
            )
            raise NotUnderstood(message, status=answer.status) from error


def _beginning(answer: Answer) -> str:
    """Show how an answer begins, for a message."""
    return repr(answer.content[:200].decode("utf-8", "replace")) if answer.content else "nothing, it is empty"


def _error(what: str, answer: Answer) -> HopsworksError:
    """Make the error that an answer stands for."""
    if 300 <= answer.status < 400:
        message = (
            f"{what}: redirected (HTTP {answer.status}), which is not followed, since the API key would go along. Put "
            "the host "
            "that answers into the connection."
        )
        return NotUnderstood(message, status=answer.status)
    try:
        body = json.loads(answer.content)
        body = json.loads(body) if isinstance(body, str) else body
        code = int(body["errorCode"])
    except (KeyError, TypeError, ValueError):
        message = (
            f"{what}: HTTP {answer.status} from something that is not Hopsworks, such as a proxy. It began: "
            f"{_beginning(answer)}"
        )
        return NotUnderstood(message, status=answer.status, retry_after=answer.retry_after)
    text = str(body.get("usrMsg") or body.get("errorMsg") or "")
    if 250000 <= code < 260000:
        text = str(body.get("usrMsg") or "")
    return Refused(what, status=answer.status, code=code, text=text, retry_after=answer.retry_after)


def _path(*segments: str | int) -> str:
    """Build a path from segments, each encoded so that it stays one."""
    for segment in segments:
        if str(segment) in ("", ".", ".."):
            message = f"{segment!r} can be no part of a path."
            raise InvalidInput(message)
    return "/".join([API, *(quote(str(segment), safe=":") for segment in segments)])


def _nothing(_data: object) -> None:
    """Read an answer of which nothing is needed."""


# --- The project and the server ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Project:
    """The project that a client works in."""

    id: int
    name: str


def get_project(name: str) -> Call[Project]:
    """
    Look a project up by its name.

    :param name: the project's name
    """
    return Call(
        f"find project {name!r}",
        "GET",
        _path("project", "getProjectInfo", name),
        lambda data: Project(int(data["projectId"]), str(data["projectName"])),
        repeatable=True,
    )


def get_server_version() -> Call[str | None]:
    """Ask for the Hopsworks version, for messages only: features are told by what is answered."""
    return Call(
        "ask for the Hopsworks version",
        "GET",
        _path("variables", "versions"),
        lambda data: next((row.get("version") for row in data or [] if row.get("software") == "hopsworks"), None),
        repeatable=True,
        optional=True,
    )


def get_variable(name: str) -> Call[str | None]:
    """
    Ask for a setting of the cluster; None when it is not set.

    :param name: the variable's id
    """
    return Call(
        f"ask for the cluster's setting {name!r}",
        "GET",
        _path("variables", name),
        lambda data: data and data.get("successMessage"),
        repeatable=True,
        absent=frozenset({VARIABLE_NOT_FOUND}),
        optional=True,
    )


# --- The model registry -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows of a list, and how many there are in all."""

    items: list[T]
    count: int


def _models(project: Project, *more: str | int) -> str:
    return _path("project", project.id, "modelregistries", project.id, "models", *more)


def get_model(project: Project, name: str, version: int) -> Call[ModelVersion | None]:
    """
    Get one version of a model; None when it is not there.

    :param project: the project that owns it
    :param name: the model's name
    :param version: the version's number
    """
    return Call(
        f"get version {version} of model {name!r}",
        "GET",
        _models(project, f"{check_model_name(name)}_{int(version)}"),
        lambda data: data and ModelVersion.from_json(data, project=project.name, registry_id=project.id),
        query=(("expand", "trainingdatasets"), ("expand", "mandatorytags")),
        repeatable=True,
        absent=frozenset({MODEL_NOT_FOUND}),
    )


def get_models(
    project: Project,
    name: str | None = None,
    *,
    sort_by: str | None = None,
    direction: Direction = Direction.MAX,
    limit: int | None = None,
    offset: int = 0,
) -> Call[Page[ModelVersion]]:
    """
    List versions of models.

    :param project: the project that owns them
    :param name: of one model only
    :param sort_by: a metric; versions without it come last, but they come
    :param direction: which end of the metric comes first
    :param limit: how many at the most
    :param offset: how many to leave out
    """
    order = "desc" if direction is Direction.MAX else "asc"
    query = [("expand", "trainingdatasets")]
    query += [("filter_by", f"name_eq:{check_model_name(name)}")] if name is not None else []
    query += [("sort_by", f"{check_model_name(sort_by)}:{order}")] if sort_by is not None else []
    query += [("limit", str(limit))] if limit is not None else []
    query += [("offset", str(offset))] if offset else []
    return Call(
        "list models" if name is None else f"list the versions of model {name!r}",
        "GET",
        _models(project),
        lambda data: Page(
            [
                ModelVersion.from_json(row, project=project.name, registry_id=project.id)
                for row in data.get("items") or []
            ],
            int(data.get("count") or 0),
        ),
        query=tuple(query),
        repeatable=True,
    )


def put_model(project: Project, name: str, version: int, description: Mapping[str, Any]) -> Call[ModelVersion]:
    """
    Put a version, whose files lie there already, into the registry.

    :param project: the project that owns it
    :param name: the model's name
    :param version: its number
    :param description: framework, metrics, and what else is known of it, by their keys on the wire
    """
    model_id = f"{check_model_name(name)}_{int(version)}"
    return Call(
        f"register version {version} of model {name!r}",
        "PUT",
        _models(project, model_id),
        lambda data: ModelVersion.from_json(data, project=project.name, registry_id=project.id),
        body={"id": model_id, "projectName": project.name, "name": name, "version": version, **description},
        is_write_slow=True,
    )


def delete_model(project: Project, name: str, version: int) -> Call[None]:
    """
    Delete a version with its files. One that is not there is deleted already.

    :param project: the project that owns it
    :param name: the model's name
    :param version: its number
    """
    return Call(
        f"delete version {version} of model {name!r}",
        "DELETE",
        _models(project, f"{check_model_name(name)}_{int(version)}"),
        _nothing,
        repeatable=True,
        absent=frozenset({MODEL_NOT_FOUND}),
    )


# --- Files of the project ---------------------------------------------------------------------------------------------


def _dataset(project: Project, path: str, *before: str) -> str:
    if any(part in ("", ".", "..") for part in path.strip("/").split("/")):
        message = f"Path {path!r}: expected one inside the project, without empty parts, '.' or '..'."
        raise InvalidInput(message)
    return _path("project", project.id, "dataset", *before, path)


def path_exists(project: Project, path: str) -> Call[bool]:
    """
    Ask whether there is a file or folder.

    :param project: whose files
    :param path: from the project's folder on
    """
    return Call(f"look for {path!r}", "GET", _dataset(project, path), bool, repeatable=True, absent=_PATH_NOT_FOUND)


def list_folder(project: Project, path: str, *, offset: int = 0) -> Call[list[str] | None]:
    """
    List the names in a folder, a page at a time; None when there is no such folder.

    :param project: whose files
    :param path: from the project's folder on
    :param offset: how many to leave out
    """
    return Call(
        f"list {path!r}",
        "GET",
        _dataset(project, path),
        lambda data: None if data is None else [str(row["attributes"]["name"]) for row in data.get("items") or []],
        query=(
            ("action", "listing"),
            ("offset", str(offset)),
            ("limit", str(PAGE)),
            ("sort_by", "NAME:desc"),
            ("expand", "inodes"),
        ),
        repeatable=True,
        absent=_PATH_NOT_FOUND,
    )


def make_folder(project: Project, path: str) -> Call[bool]:
    """
    Make a folder. Only one caller is told that it made it: this is how a version's number is claimed.

    :param project: whose files
    :param path: from the project's folder on
    :return: False when it was there already
    """
    query = (("action", "create"), ("searchable", "true"), ("generate_readme", "false"), ("type", "DATASET"))
    return Call(
        f"make folder {path!r}",
        "POST",
        _dataset(project, path),
        lambda data: data is not None,
        query=query,
        absent=_PATH_EXISTS,
    )


def upload_part(project: Project, folder: str, upload: Upload) -> Call[None]:
    """
    Send one part of a file. The same part may be sent again.

    :param project: whose files
    :param folder: where the file goes
    :param upload: the part
    """
    return Call(
        f"upload {upload.filename!r} to {folder!r}",
        "POST",
        _dataset(project, folder, "upload"),
        _nothing,
        upload=upload,
        repeatable=True,
        is_write_slow=True,
    )


def download(project: Project, path: str) -> Call[bytes | None]:
    """
    Read a small file; None when there is none.

    :param project: whose files
    :param path: from the project's folder on
    """
    return Call(
        f"read {path!r}",
        "GET",
        _dataset(project, path, "download", "with_auth"),
        lambda data: data,
        query=(("type", "DATASET"),),
        repeatable=True,
        raw=True,
        absent=_PATH_NOT_FOUND,
    )


def delete_path(project: Project, path: str) -> Call[None]:
    """
    Delete a file, or a folder with all that is in it. One that is not there is deleted already.

    :param project: whose files
    :param path: from the project's folder on
    """
    return Call(
        f"delete {path!r}", "DELETE", _dataset(project, path), _nothing, repeatable=True, absent=_PATH_NOT_FOUND
    )


# --- Deployments ------------------------------------------------------------------------------------------------------


def _serving(project: Project, *more: str | int) -> str:
    return _path("project", project.id, "serving", *more)


def _deployment(data: Any) -> Deployment | None:
    return None if data is None else Deployment.from_json(data)


def get_deployments(
    project: Project, *, model_name: str | None = None, status: str | None = None
) -> Call[list[Deployment]]:
    """
    List deployments. The server computes the status of each: costly in a project with hundreds.

    :param project: the project
    :param model_name: only those of one model
    :param status: only those in one state
    """
    query = [("model", check_model_name(model_name))] if model_name is not None else []
    query += [("status", status)] if status is not None else []
    return Call(
        "list deployments",
        "GET",
        _serving(project),
        lambda data: [
            Deployment.from_json(row) for row in (data if isinstance(data, list) else data.get("items") or [])
        ],
        query=tuple(query),
        repeatable=True,
    )


def get_deployment(project: Project, name: str) -> Call[Deployment | None]:
    """
    Get a deployment by its name, letter for letter; None when there is none.

    :param project: the project
    :param name: the deployment's name
    """
    return Call(
        f"get deployment {name!r}",
        "GET",
        _serving(project),
        _deployment,
        query=(("name", check_deployment_name(name)),),
        repeatable=True,
        absent=frozenset({INSTANCE_NOT_FOUND}),
    )


def get_deployment_by_id(project: Project, deployment_id: int) -> Call[Deployment | None]:
    """
    Get a deployment by its id; None when there is none.

    :param project: the project
    :param deployment_id: Hopsworks' number for it
    """
    return Call(
        f"get deployment {int(deployment_id)}",
        "GET",
        _serving(project, int(deployment_id)),
        _deployment,
        repeatable=True,
        absent=frozenset({INSTANCE_NOT_FOUND}),
    )


def put_deployment(project: Project, body: Mapping[str, Any], *, new_version: bool = False) -> Call[Deployment]:
    """
    Create a deployment (a body without id) or update one. The answer's state means nothing: look afterwards.

    :param project: the project
    :param body: the whole deployment
    :param new_version: keep the version before, so that a rollback can bring it back
    """
    verb = "update" if body.get("id") is not None else "create"
    return Call(
        f"{verb} deployment {check_deployment_name(body.get('name'))!r}",
        "PUT",
        _serving(project),
        Deployment.from_json,
        query=(("newVersion", "true"),) if new_version else (),
        body=dict(body),
        is_write_slow=True,
    )


def _action(project: Project, deployment: Deployment, action: str) -> Call[None]:
    return Call(
        f"{action.lower()} deployment {deployment.name!r}",
        "POST",
        _serving(project, deployment.id),
        _nothing,
        query=(("action", action),),
    )


def start_deployment(project: Project, deployment: Deployment) -> Call[None]:
    """
    Ask for a start. Done when the state says so, not when this is answered.

    :param project: the project
    :param deployment: what to start
    """
    return _action(project, deployment, "START")


def stop_deployment(project: Project, deployment: Deployment) -> Call[None]:
    """
    Ask for a stop. Done when the state says so, not when this is answered.

    :param project: the project
    :param deployment: what to stop
    """
    return _action(project, deployment, "STOP")


def delete_deployment(project: Project, deployment: Deployment) -> Call[None]:
    """
    Delete a deployment, also one that runs.

    :param project: the project
    :param deployment: what to delete
    """
    return Call(
        f"delete deployment {deployment.name!r}",
        "DELETE",
        _serving(project, deployment.id),
        _nothing,
        absent=frozenset({INSTANCE_NOT_FOUND}),
    )


@dataclass(frozen=True, slots=True)
class InstanceLog:
    """The end of the log of one instance."""

    instance: str
    content: str


def get_logs(
    project: Project, deployment: Deployment, *, component: str = "predictor", tail: int = 10
) -> Call[list[InstanceLog] | None]:
    """
    Read the end of each instance's log; None when there is none in this state. Reading takes a lock on the deployment.

    :param project: the project
    :param deployment: whose log
    :param component: ``predictor`` or ``transformer``
    :param tail: how many lines
    """
    return Call(
        f"read the {component} log of deployment {deployment.name!r}",
        "GET",
        _serving(project, deployment.id, "logs"),
        lambda data: (
            None
            if data is None
            else [InstanceLog(str(row["instanceName"]), str(row.get("content") or "")) for row in data]
        ),
        query=(("component", component), ("tail", str(tail))),
        repeatable=True,
        absent=frozenset({LOGS_NOT_AVAILABLE, KUBERNETES_NOT_INSTALLED}),
    )


def has_versions(project: Project, deployment: Deployment) -> Call[bool]:
    """
    Ask whether the server keeps versions of deployments (5.2 does). Older ones ignore ``new_version`` silently.

    :param project: the project
    :param deployment: any deployment there
    """
    return Call(
        f"list the versions of deployment {deployment.name!r}",
        "GET",
        _serving(project, deployment.id, "versions"),
        lambda data: data is not None,
        query=(("offset", "0"), ("limit", "1")),
        repeatable=True,
        optional=True,
    )


def predict(project: Project, name: str, body: Mapping[str, Any], *, seconds: float | None = None) -> Call[Any]:
    """
    Ask a deployment for predictions, through Hopsworks.

    :param project: the project
    :param name: the deployment's name
    :param body: ``{"instances": [...]}`` or ``{"inputs": ...}``; neither or both is refused here, since a server may
        make up an answer to it
    :param seconds: how long to wait for the answer
    """
    if len({"instances", "inputs"} & set(body)) != 1:
        message = (
            f"A request to deployment {name!r} needs exactly one of the keys 'instances' and 'inputs', got "
            f"{sorted(body)}."
        )
        raise InvalidInput(message)
    return Call(
        f"ask deployment {name!r} for predictions",
        "POST",
        _path("project", project.id, "inference", "models", f"{check_deployment_name(name)}:predict"),
        _predictions,
        body=dict(body),
        seconds=seconds,
    )


def _predictions(data: Any) -> Any:
    if not isinstance(data, dict):
        message = "expected a JSON object"
        raise TypeError(message)
    return data
