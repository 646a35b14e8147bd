"""Files and folders of a project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response

from airflow_provider_hsml.local.errors import malformed
from airflow_provider_hsml.local.limits import FIELD_BYTES, limited_form

from .asking import PREFIX, PROJECT, ApiRoute, Asking, json_answer

if TYPE_CHECKING:
    from airflow_provider_hsml.local.world.files import Entry

_VIEW = ("DATASET_VIEW", "DATASET_CREATE", "DATASET_DELETE")


def _entry(asking: Asking, entry: Entry) -> dict[str, Any]:
    project = asking.param("project")
    # Only a folder directly below the project is a dataset: the official SDK refuses to move such a folder.
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


def _read_path(asking: Asking) -> Response:
    files, path = asking.holdings.files, asking.param("path")
    action = (asking.query("action") or "stat").lower()
    if action == "stat":
        return json_answer(_entry(asking, files.stat(path)))
    if action != "listing":
        raise malformed(f"action={action!r} is not known: expected stat or listing.")
    entries = files.listing(path, order=asking.query("sort_by") or "NAME:asc")
    offset, limit = max(asking.number("offset", 0), 0), asking.number("limit", 0)
    shown = entries[offset:][: limit if limit > 0 else None]
    # Unlike an empty list of models, an empty folder includes `items`: the official SDK needs it.
    return json_answer({"count": len(entries), "items": [_entry(asking, entry) for entry in shown]})


def _act_on_path(asking: Asking) -> Response:
    files, path = asking.holdings.files, asking.param("path")
    action = (asking.query("action") or "").lower()
    if action == "create":
        return json_answer(_entry(asking, files.make_folder(path)), 201)
    if action not in ("copy", "move"):
        raise malformed(f"action={action!r} is not known: expected create, copy or move.")
    destination = asking.query("destination_path")
    if not destination:
        raise malformed("destination_path is missing.")
    (files.copy if action == "copy" else files.move)(path, destination)
    return Response(status_code=204)


def _delete_path(asking: Asking) -> Response:
    asking.holdings.files.delete(asking.param("path"))
    return Response(status_code=204)


def _download(asking: Asking) -> Response:
    return FileResponse(asking.holdings.files.read(asking.param("path")), media_type="application/octet-stream")


async def _upload(asking: Asking) -> Response:
    files = asking.holdings.files
    async with limited_form(asking.request, FIELD_BYTES) as form:
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
        path = f"{asking.param('path')}/{name}"
        upload = str(form.get("flowIdentifier", ""))
        await run_in_threadpool(
            lambda: files.write_part(path, upload, part.file, number=number, parts=parts, part_bytes=part_bytes)
        )
    return Response(status_code=200)


ROUTES = [
    ApiRoute("POST", f"{PROJECT}/dataset/upload/{{path:path}}", ("DATASET_CREATE",), _upload),
    ApiRoute("GET", f"{PROJECT}/dataset/download/with_auth/{{path:path}}", ("DATASET_VIEW",), _download),
    ApiRoute("GET", f"{PROJECT}/dataset/{{path:path}}", _VIEW, _read_path),
    ApiRoute("POST", f"{PROJECT}/dataset/{{path:path}}", ("DATASET_CREATE",), _act_on_path),
    ApiRoute("DELETE", f"{PROJECT}/dataset/{{path:path}}", ("DATASET_DELETE",), _delete_path),
]
