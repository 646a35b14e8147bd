"""Checks before a change that need requests: the files of a model version, and its schema."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain.model_version import Framework, ModelVersion
from airflow_provider_hsml.hopsworks.domain.settings import RESERVED
from airflow_provider_hsml.hopsworks.errors import SCOPE_MISSING, InvalidInputError, RequestRefusedError
from airflow_provider_hsml.hopsworks.registry import lookup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
log = logging.getLogger(__name__)

_SCHEMA_ID = "SERVING_SCHEMA_ID"
_TRAINED_ON = "SERVING_TRAINING_DATASET_VERSION"
_FEATURE_VIEW = "SERVING_FEATURE_VIEW_NAME"


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


async def check_schema(project: Project, live: Deployment, model: ModelVersion | None) -> None:
    """
    Raise an error if the schema of a deployment's requests is of another training dataset than the model.

    The client that saves a deployment publishes the schema. An update sends the schema back, and with a model of
    another training dataset the new instances refuse to start.

    :param project: the project that owns the models
    :param model: the version to serve; None for a script alone
    :raises InvalidInputError: the training dataset is another one, or not known to be the same
    """
    texts = (text.partition("=") for text in live.raw.get("predictorEnvVars") or [] if text.startswith(RESERVED))
    reserved = {name: value for name, _, value in texts}
    if _SCHEMA_ID not in reserved or model is None or model.version == live.model_version:
        return
    theirs: tuple[str | None, str | None] = (reserved.get(_FEATURE_VIEW), reserved.get(_TRAINED_ON))
    if theirs[1] is None:
        served = await lookup.served_model(project, live)
        theirs = _trained_on(served) if served else theirs
    ours = _trained_on(model)
    views = {view for view in (ours[0], theirs[0]) if view is not None}
    if ours[1] is None or ours[1] != theirs[1] or len(views) > 1:
        message = (
            f"{live} checks its requests by the schema of training dataset {theirs[1] or 'unknown'}, and version "
            f"{model.version} of model {model.name!r} was trained on {ours[1] or 'an unknown one'}: its instances "
            "would refuse to start.\nSave it once with Hopsworks' SDK, which publishes the new schema, or deploy it "
            "under another deployment_name."
        )
        raise InvalidInputError(message)


def _trained_on(model: ModelVersion) -> tuple[str | None, str | None]:
    """Return the feature view and the training dataset version, in the form of the environment variables."""
    version = model.training_dataset_version
    return model.feature_view, None if version is None else str(version)
