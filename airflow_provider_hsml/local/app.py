"""
HTTP: Hopsworks' REST API on top of the world. Each handler reads its arguments, asks the world, and answers JSON.

``_ROUTES`` is the list of all that is answered, with the API key scopes that open it. Whatever else is asked gets a
loud 501 that says what it was.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from . import sdk
from .engines import INSTANCE_HEADER, VERSION_HEADER
from .errors import Refusal, malformed
from .inference import Proxy
from .journal import Journal, JournalMiddleware
from .registry import FIELDS as MODEL_FIELDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .files import Entry
    from .world import Holdings, World

log = logging.getLogger(__name__)

PREFIX = "/hopsworks-api/api"
_PASSED_ON = ("content-type", VERSION_HEADER, INSTANCE_HEADER)
"""All that the proxy keeps of the headers of an answer."""


@dataclass(frozen=True, slots=True)
class _Asking:
    """A request whose key and project are in order, for a handler that runs in a thread."""

    request: Request
    world: World
    body: bytes

    @property
    def holdings(self) -> Holdings:
        return self.world.project(self.request.path_params["project"])

    def param(self, name: str) -> Any:
        return self.request.path_params[name]

    def query(self, name: str, default: str | None = None) -> str | None:
        return self.request.query_params.get(name, default)

    def number(self, name: str, default: int) -> int:
        """Read a query parameter that is a number."""
        text = self.query(name)
        if text is None:
            return default
        try:
            return int(text)
        except ValueError:
            raise malformed(f"{name}={text!r} is not a number.") from None

    def json_object(self) -> dict[str, Any]:
        """Read the body as a JSON object."""
        try:
            body = json.loads(self.body)
        except ValueError as error:
            raise malformed(f"The body is not JSON: {error}.") from None
        if not isinstance(body, dict):
            raise malformed("The body is not a JSON object.")
        return body


def _json(content: Any, status: int = 200) -> Response:
    # json.dumps and not JSONResponse: a metric that is NaN travels as Hopsworks' own JSON has it.
    return Response(json.dumps(content), status, media_type="application/json")


# --- Project and cluster ----------------------------------------------------------------------------------------------


def _versions_of_software(asking: _Asking) -> Response:
    return _json([{"software": "hopsworks", "version": asking.world.hopsworks_version}])


def _variable(asking: _Asking) -> Response:
    name = asking.param("name")
    value = asking.world.variables.get(name)
    if value is None:
        raise Refusal(100050, f"Variable {name} not found.")
    return _json({"successMessage": value})


def _projects(asking: _Asking) -> Response:
    user = {"uid": 10000, "username": "local000", "fname": "Local", "lname": "User", "email": "local@localhost"}
    mine = [project for project in asking.world.accounts.projects if not project.is_foreign]
    return _json(
        [
            {
                "project": {"id": project.id, "name": project.name, "owner": {"uid": 10000}},
                "user": user,
                "teamRole": "Data owner",
            }
            for project in mine
        ],
    )


def _project_by_name(asking: _Asking) -> Response:
    return _json(_project_on_the_wire(asking.world, asking.world.accounts.by_name(asking.param("name")).id))


def _project_by_id(asking: _Asking) -> Response:
    return _json(_project_on_the_wire(asking.world, asking.param("project")))


def _project_on_the_wire(world: World, project_id: int) -> dict[str, Any]:
    project = world.project(project_id).project
    return {
        "projectId": project.id,
        "projectName": project.name,
        "owner": "local@localhost",
        "description": "A project of the local Model Serving",
        "services": ["DATASETS", "MODELREGISTRY", "SERVING"],
        "namespace": project.namespace,
    }


# --- Model registry ---------------------------------------------------------------------------------------------------


def _registries(asking: _Asking) -> Response:
    item = _registry_on_the_wire(asking)
    return _json({"href": item["href"].rpartition("/")[0], "count": 1, "items": [item]})


def _registry(asking: _Asking) -> Response:
    _check_registry(asking)
    return _json(_registry_on_the_wire(asking))


def _registry_on_the_wire(asking: _Asking) -> dict[str, Any]:
    project = asking.holdings.project
    href = f"{PREFIX}/project/{project.id}/modelregistries/{project.id}"
    return {"href": href, "id": project.id, "name": project.name}


def _check_registry(asking: _Asking) -> None:
    """Each project has its own registry; others are not shared with it."""
    registry_id = asking.param("registry")
    if registry_id == asking.holdings.project.id:
        return
    known = any(project.id == registry_id for project in asking.world.accounts.projects)
    raise Refusal(360007 if known else 360006, f"Model registry {registry_id} is not this project's.")


def _models(asking: _Asking) -> Response:
    _check_registry(asking)
    filters = asking.request.query_params.getlist("filter_by")
    limit, offset = asking.number("limit", 0), asking.number("offset", 0)
    return _json(asking.holdings.registry.find(filters, asking.query("sort_by"), limit, offset))


def _model(asking: _Asking) -> Response:
    _check_registry(asking)
    return _json(asking.holdings.registry.get(asking.param("model")))


def _put_model(asking: _Asking) -> Response:
    _check_registry(asking)
    body = asking.json_object()
    if unknown := sorted(set(body) - MODEL_FIELDS):
        log.warning("PUT model: fields %s are not known, and dropped", ", ".join(unknown))
    return _json(asking.holdings.registry.put(asking.param("model"), body), 201)


def _delete_model(asking: _Asking) -> Response:
    _check_registry(asking)
    asking.world.delete_model(asking.param("project"), asking.param("model"))
    return Response(status_code=204)


# --- Files ------------------------------------------------------------------------------------------------------------


def _entry(asking: _Asking, entry: Entry) -> dict[str, Any]:
    project = asking.param("project")
    # Only a dataset, right below the project, is one: the official SDK moves a dataset's own folder nowhere.
    is_dataset = len(asking.holdings.files.parts(entry.path)) == 1
    return {
        "href": f"{PREFIX}/project/{project}/dataset/{quote(entry.path, safe='')}",
        **({"id": entry.id, "name": entry.name, "datasetType": "DATASET"} if is_dataset else {}),
        "attributes": {
            "id": entry.id,
            "name": entry.name,
            "path": entry.path,
            "dir": entry.is_folder,
            "size": entry.size,
            "owner": "local000",
            "permission": "rwxr-xr-x" if entry.is_folder else "rw-r--r--",
            "modificationTime": int(entry.modified * 1000),
        },
    }


def _look_at_path(asking: _Asking) -> Response:
    files, path = asking.holdings.files, asking.param("path")
    action = (asking.query("action") or "stat").lower()
    if action == "stat":
        return _json(_entry(asking, files.stat(path)))
    if action != "listing":
        raise malformed(f"action={action!r} is not known: expected stat or listing.")
    entries = files.listing(path, order=asking.query("sort_by") or "NAME:asc")
    offset, limit = max(asking.number("offset", 0), 0), asking.number("limit", 0)
    shown = entries[offset:][: limit if limit > 0 else None]
    # Unlike a list of models, an empty folder has its items: the official SDK needs them.
    return _json({"count": len(entries), "items": [_entry(asking, entry) for entry in shown]})


def _act_on_path(asking: _Asking) -> Response:
    files, path = asking.holdings.files, asking.param("path")
    action = (asking.query("action") or "").lower()
    if action == "create":
        return _json(_entry(asking, files.make_folder(path)), 201)
    if action not in ("copy", "move"):
        raise malformed(f"action={action!r} is not known: expected create, copy or move.")
    destination = asking.query("destination_path")
    if not destination:
        raise malformed("destination_path is missing.")
    (files.copy if action == "copy" else files.move)(path, destination)
    return Response(status_code=204)


def _delete_path(asking: _Asking) -> Response:
    asking.holdings.files.delete(asking.param("path"))
    return Response(status_code=204)


def _download(asking: _Asking) -> Response:
    return FileResponse(asking.holdings.files.read(asking.param("path")), media_type="application/octet-stream")


async def _upload(request: Request, world: World) -> Response:
    files = world.project(request.path_params["project"]).files
    async with request.form(max_part_size=1 << 27) as form:
        part = form.get("file")
        if part is None or isinstance(part, str):
            raise malformed("The form has no file: expected multipart/form-data with the part 'file'.")
        try:
            number, parts = (int(str(form.get(key, "1"))) for key in ("flowChunkNumber", "flowTotalChunks"))
            part_bytes = int(str(form.get("flowChunkSize", "0")))
        except ValueError:
            raise malformed("flowChunkNumber, flowTotalChunks and flowChunkSize must be numbers.") from None
        name = str(form.get("flowFilename") or part.filename or "")
        if not name or "/" in name:
            raise malformed(f"flowFilename {name!r} is not the name of a file.")
        path = f"{request.path_params['path']}/{name}"
        upload = str(form.get("flowIdentifier", ""))
        await run_in_threadpool(
            lambda: files.write_part(path, upload, part.file, number=number, parts=parts, part_bytes=part_bytes)
        )
    return Response(status_code=200)


# --- Deployments ------------------------------------------------------------------------------------------------------


def _deployments(asking: _Asking) -> Response:
    deployments, name = asking.holdings.deployments, asking.query("name")
    if name is not None:
        return _json(deployments.by_name(name))
    version = asking.number("modelVersion", -1) if asking.query("modelVersion") is not None else None
    return _json(deployments.find(asking.query("model"), version, asking.query("status")))


def _put_deployment(asking: _Asking) -> Response:
    new_version = (asking.query("newVersion") or "").lower() == "true"
    return _json(asking.holdings.deployments.put(asking.json_object(), new_version=new_version), 201)


def _deployment(asking: _Asking) -> Response:
    return _json(asking.holdings.deployments.get(asking.param("deployment")))


def _command(asking: _Asking) -> Response:
    deployments, action = asking.holdings.deployments, asking.query("action")
    match (action or "").upper():
        case "START":
            deployments.start(asking.param("deployment"))
        case "STOP":
            deployments.stop(asking.param("deployment"))
        case "":
            raise malformed("action is missing: expected START or STOP.")
        case _:
            raise Refusal(240007, f"action {action!r} is not known: expected START or STOP.")
    return Response(status_code=200)


def _delete_deployment(asking: _Asking) -> Response:
    asking.holdings.deployments.delete(asking.param("deployment"))
    return Response(status_code=200)


def _logs(asking: _Asking) -> Response:
    component = asking.query("component") or "predictor"
    return _json(asking.holdings.deployments.logs(asking.param("deployment"), component, asking.number("tail", 5)))


def _deployment_versions(asking: _Asking) -> Response:
    versions = asking.holdings.deployments.versions(asking.param("deployment"))
    offset, limit = max(asking.number("offset", 0), 0), asking.number("limit", 0)
    return _json({"count": len(versions), "items": versions[offset:][: limit if limit > 0 else None]})


def _roll_back(asking: _Asking) -> Response:
    version = asking.json_object().get("version")
    return _json(asking.holdings.deployments.roll_back(asking.param("deployment"), version))


def _endpoints(asking: _Asking) -> Response:
    ports = [{"name": "HTTP", "number": asking.world.ingress_port}]
    return _json([{"type": "LOAD_BALANCER", "hosts": ["127.0.0.1"], "ports": ports}])


async def _infer(request: Request, world: World, proxy: Proxy) -> Response:
    holdings = world.project(request.path_params["project"])
    answer = await proxy.infer(holdings, request.path_params["target"], await request.body())
    headers = {name: value for name, value in answer.headers.items() if name in _PASSED_ON}
    return Response(answer.content, answer.status, headers)


# --- The application --------------------------------------------------------------------------------------------------

_VIEW = ("DATASET_VIEW", "DATASET_CREATE", "DATASET_DELETE")
_PROJECT = "/project/{project:int}"
_REGISTRY = f"{_PROJECT}/modelregistries/{{registry:int}}"
_SERVING = f"{_PROJECT}/serving"
_ONE = f"{_SERVING}/{{deployment:int}}"
# Method, path, scopes of which the key needs one (empty: no key is needed), handler.
_ROUTES: list[tuple[str, str, tuple[str, ...], Callable[[_Asking], Response]]] = [
    ("GET", "/variables/versions", (), _versions_of_software),
    ("GET", "/variables/{name}", ("PROJECT",), _variable),
    ("GET", "/project", ("PROJECT",), _projects),
    ("GET", "/project/getProjectInfo/{name}", ("PROJECT",), _project_by_name),
    ("GET", _PROJECT, ("PROJECT",), _project_by_id),
    ("GET", f"{_PROJECT}/credentials", ("PROJECT",), sdk.credentials),
    ("GET", f"{_PROJECT}/modelregistries", ("MODELREGISTRY",), _registries),
    ("GET", _REGISTRY, ("MODELREGISTRY",), _registry),
    ("GET", f"{_REGISTRY}/models", ("MODELREGISTRY",), _models),
    ("GET", f"{_REGISTRY}/models/{{model}}", ("MODELREGISTRY",), _model),
    ("PUT", f"{_REGISTRY}/models/{{model}}", ("MODELREGISTRY",), _put_model),
    ("DELETE", f"{_REGISTRY}/models/{{model}}", ("MODELREGISTRY",), _delete_model),
    ("GET", f"{_REGISTRY}/models/{{model}}/provenance/links", ("MODELREGISTRY",), sdk.provenance_of_model),
    ("GET", f"{_PROJECT}/dataset/download/with_auth/{{path:path}}", ("DATASET_VIEW",), _download),
    ("GET", f"{_PROJECT}/dataset/{{path:path}}", _VIEW, _look_at_path),
    ("POST", f"{_PROJECT}/dataset/{{path:path}}", ("DATASET_CREATE",), _act_on_path),
    ("DELETE", f"{_PROJECT}/dataset/{{path:path}}", ("DATASET_DELETE",), _delete_path),
    ("GET", _SERVING, ("SERVING",), _deployments),
    ("PUT", _SERVING, ("SERVING",), _put_deployment),
    ("GET", _ONE, ("SERVING",), _deployment),
    ("POST", _ONE, ("SERVING",), _command),
    ("DELETE", _ONE, ("SERVING",), _delete_deployment),
    ("GET", f"{_ONE}/logs", ("SERVING",), _logs),
    ("GET", f"{_ONE}/versions", ("SERVING",), _deployment_versions),
    ("GET", f"{_ONE}/schema", ("SERVING",), sdk.schema_of_deployment),
    ("POST", f"{_ONE}/rollback", ("SERVING",), _roll_back),
    ("GET", f"{_PROJECT}/inference/endpoints", ("SERVING",), _endpoints),
]


def make_app(world: World, journal: Journal) -> Starlette:
    """
    Make the application.

    :param world: what it answers from
    :param journal: where requests are noted
    """
    proxy = Proxy(world)

    def check(request: Request, scopes: tuple[str, ...]) -> None:
        if scopes:
            world.accounts.check(request.headers.get("authorization", ""), scopes)
        if "project" in request.path_params:
            world.accounts.by_id(request.path_params["project"])

    def route(method: str, path: str, scopes: tuple[str, ...], handler: Callable[[_Asking], Response]) -> Route:
        async def endpoint(request: Request) -> Response:
            check(request, scopes)
            return await run_in_threadpool(handler, _Asking(request, world, await request.body()))

        return Route(f"{PREFIX}{path}", _guarded(endpoint), methods=[method], name=f"{method} {path}")

    async def upload(request: Request) -> Response:
        check(request, ("DATASET_CREATE",))
        return await _upload(request, world)

    async def inference(request: Request) -> Response:
        if request.headers.get("authorization", "").startswith("Bearer "):
            raise Refusal(250009, "Deployments are asked with an API key, not with a token.")
        check(request, ("SERVING",))
        return await _infer(request, world, proxy)

    return Starlette(
        routes=[
            Route(f"{PREFIX}{_PROJECT}/dataset/upload/{{path:path}}", _guarded(upload), methods=["POST"]),
            Route(f"{PREFIX}{_PROJECT}/inference/models/{{target:path}}", _guarded(inference), methods=["POST"]),
            *(route(*row) for row in _ROUTES),
        ],
        middleware=[Middleware(JournalMiddleware, journal=journal, prefix=PREFIX)],
        exception_handlers={
            Refusal: _refused,
            HTTPException: _not_here,
            ClientDisconnect: _gone,
        },
    )


def _guarded(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Answer 500 to what nobody foresaw. Starlette's own handler would raise it again, which cuts the connection."""

    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (Refusal, HTTPException, ClientDisconnect):
            raise
        except Exception as error:
            log.exception("%s %s failed", request.method, request.url.path)
            return _json(Refusal(120000, f"{type(error).__name__}: see the server's log.").body(), 500)

    return guarded


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101 - Starlette looks it up by its class
    log.info("%s %s: %s %s", request.method, request.url.path, error.status, error)
    answer = _json(error.body(), error.status)
    if error.status == 401:
        answer.headers["WWW-Authenticate"] = "ApiKey"
    return answer


def _not_here(request: Request, error: Exception) -> Response:
    """Answer what the local Model Serving lacks: loudly, so that nobody takes it for Hopsworks' own 404."""
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette looks it up by its class
    asked = f"{request.method} {request.url.path}"
    if error.status_code not in (404, 405):
        return _json(malformed(f"{asked}: {error.detail}").body(), 422)
    log.warning("%s is not built into the local Model Serving", asked)
    text = f"{asked} is not built into the local Model Serving. docs/local-serving.md lists what is."
    return _json({"errorCode": 120004, "errorMsg": "Not implemented", "usrMsg": text}, 501)


def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)
