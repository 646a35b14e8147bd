"""
The REST contract: one function an endpoint, each of which says what to send and how to read the answer. No I/O.

Everything that gets into a path is checked here, so that no name can lead out of its place, wherever it came from.
"""

from __future__ import annotations

from .files import delete_path, download, list_folder, make_folder, path_exists, upload_part
from .inference import predict
from .models import Page, delete_model, get_model, get_models, put_model
from .projects import Project, get_project, get_server_version, get_variable
from .serving import (
    DUPLICATED_ENTRY,
    InstanceLog,
    delete_deployment,
    get_deployment,
    get_deployment_by_id,
    get_deployments,
    get_logs,
    has_versions,
    put_deployment,
    start_deployment,
    stop_deployment,
)
from .wire import API, PAGE, Answer, Call, Upload

__all__ = [
    "API",
    "DUPLICATED_ENTRY",
    "PAGE",
    "Answer",
    "Call",
    "InstanceLog",
    "Page",
    "Project",
    "Upload",
    "delete_deployment",
    "delete_model",
    "delete_path",
    "download",
    "get_deployment",
    "get_deployment_by_id",
    "get_deployments",
    "get_logs",
    "get_model",
    "get_models",
    "get_project",
    "get_server_version",
    "get_variable",
    "has_versions",
    "list_folder",
    "make_folder",
    "path_exists",
    "predict",
    "put_deployment",
    "put_model",
    "start_deployment",
    "stop_deployment",
    "upload_part",
]
