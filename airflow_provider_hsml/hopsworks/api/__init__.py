"""
The REST endpoints of Hopsworks: each function builds a ``Call`` with the request and the parser of its response.

No function does I/O. All names and ids that become part of a path are checked here, so that no name can lead to
another path, wherever it came from.
"""

from __future__ import annotations

from airflow_provider_hsml.hopsworks.domain.project import Project
from airflow_provider_hsml.hopsworks.domain.verification import check_path

from .call import (
    API,
    INSTANCE_NOT_FOUND,
    MODEL_NOT_FOUND,
    PAGE,
    Answer,
    Call,
    MissingRoute,
    Page,
    Upload,
)
from .files import (
    FileEntry,
    copy_path,
    delete_path,
    download,
    download_to,
    get_entry,
    list_folder,
    make_folder,
    path_exists,
    read_json,
    upload_part,
)
from .inference import Address, Endpoint, get_at, get_endpoints, predict, predict_at
from .projects import get_project, get_server_version, get_variable
from .registry import (
    Registry,
    delete_model,
    get_model,
    get_model_tags,
    get_models,
    get_registries,
    put_model,
    put_model_tag,
)
from .response import LIMITS, MB, ResponseKind, is_within
from .serving import (
    DUPLICATED_ENTRY,
    TAGS,
    VERSIONS,
    InstanceLog,
    delete_deployment,
    delete_deployment_tag,
    get_deployment,
    get_deployment_by_id,
    get_deployment_tags,
    get_deployments,
    get_logs,
    get_newest_version,
    get_versions,
    put_deployment,
    put_deployment_tag,
    rollback_deployment,
    start_deployment,
    stop_deployment,
)

__all__ = [
    "API",
    "DUPLICATED_ENTRY",
    "INSTANCE_NOT_FOUND",
    "LIMITS",
    "MB",
    "MODEL_NOT_FOUND",
    "PAGE",
    "TAGS",
    "VERSIONS",
    "Address",
    "Answer",
    "Call",
    "Endpoint",
    "FileEntry",
    "InstanceLog",
    "MissingRoute",
    "Page",
    "Project",
    "Registry",
    "ResponseKind",
    "Upload",
    "check_path",
    "copy_path",
    "delete_deployment",
    "delete_deployment_tag",
    "delete_model",
    "delete_path",
    "download",
    "download_to",
    "get_at",
    "get_deployment",
    "get_deployment_by_id",
    "get_deployment_tags",
    "get_deployments",
    "get_endpoints",
    "get_entry",
    "get_logs",
    "get_model",
    "get_model_tags",
    "get_models",
    "get_newest_version",
    "get_project",
    "get_registries",
    "get_server_version",
    "get_variable",
    "get_versions",
    "is_within",
    "list_folder",
    "make_folder",
    "path_exists",
    "predict",
    "predict_at",
    "put_deployment",
    "put_deployment_tag",
    "put_model",
    "put_model_tag",
    "read_json",
    "rollback_deployment",
    "start_deployment",
    "stop_deployment",
    "upload_part",
]
