"""Checks before a change that need requests: the files of a model version."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.model_version import Framework
from airflow_provider_hsml.hopsworks.errors import SCOPE_MISSING, InvalidInputError, RequestRefusedError
from airflow_provider_hsml.hopsworks.registry import lookup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
log = logging.getLogger(__name__)


async def check_files(project: Project, model: ModelVersion | None, body: Mapping[str, Any]) -> None:
    """
    Raise an error for a scikit-learn model that the model server cannot load.

    :param model: the version to serve; None for a script alone
    :param body: the body of the request; with a predictor script, the script loads the model
    :raises InvalidInputError: the model has not exactly one file that can be loaded
    """
    if model is None or model.framework is not Framework.SKLEARN or body.get("predictor"):
        return
    folder = lookup.model_folder(project, model)
    files = f"{folder}/Files" if project.has_files_folder else folder
    try:
        page = await api.list_folder(project, files)
    except RequestRefusedError as error:
        if error.code != SCOPE_MISSING:
            raise
        log.warning("%s; not checked whether the model server can load the model's file", error)
        return
    if page is None:
        return
    loadable = [entry.name for entry in page.items if entry.name.endswith((".joblib", ".pkl", ".pickle"))]
    if len(loadable) != 1:
        found = ", ".join(sorted(loadable)) or "none"
        message = (
            f"Version {model.version} of model {model.name!r}: scikit-learn serving without a script needs exactly one "
            f"file ending in .joblib, .pkl or .pickle; found {found}.\nRegister the model again with exactly one."
        )
        raise InvalidInputError(message)
