"""Set tags of a model version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import UnsupportedError
from airflow_provider_hsml.hopsworks.routes import Routes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project


async def set_tags(project: Project, name: str, version: int, tags: Mapping[str, Any]) -> None:
    """
    Set tags of a model version, and keep its others. A retry sets them again.

    :param name: the model's name
    :param tags: the values by name
    :raises UnsupportedError: this Hopsworks has no tags of models
    :raises RequestRefusedError: a tag has no schema, or its schema does not allow the value
    """
    witness = api.get_model(project, name, version)
    if tags and await Routes().read(api.get_model_tags(project, name, version), witness) is None:
        message = f"tags: this Hopsworks has no tags of models (version {version} of {name!r}).\nLeave them out."
        raise UnsupportedError(message)
    for tag, value in tags.items():
        await api.put_model_tag(project, name, version, tag, value)
