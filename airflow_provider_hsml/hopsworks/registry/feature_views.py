"""Lookup of the feature view and the training dataset that a model was trained on, before it is registered."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import (
    SCOPE_MISSING,
    HopsworksError,
    InvalidInputError,
    NotFoundError,
    RequestRefusedError,
)

from . import lookup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_hsml.hopsworks.api import FeatureStore, Project
    from airflow_provider_hsml.hopsworks.domain.feature_view import FeatureView, Provenance, ViewName

log = logging.getLogger(__name__)


async def find_view(project: Project, wanted: ViewName, training_dataset: int | None) -> FeatureView:
    """
    Find a feature view of the project, and check that it has a training dataset.

    :param wanted: its name, and its version unless it has exactly one
    :param training_dataset: the version of the training dataset; None if none was named
    :raises NotFoundError: the view, its version or the training dataset does not exist; the message names those that do
    :raises InvalidInputError: the version is not named and there are several, or the key lacks the scope FEATURESTORE
    """
    try:
        store = await api.get_feature_store(project)
        view = await _find(project, store, wanted)
        if training_dataset is not None:
            known = await api.get_training_datasets(project, store, view)
            if training_dataset not in known:
                message = (
                    f"training_dataset_version {training_dataset}: {view} has no such training dataset; there are: "
                    f"{_joined(known)}.\nCreate the training dataset first, or name one of these."
                )
                raise NotFoundError(message)
    except RequestRefusedError as error:
        if error.code != SCOPE_MISSING:
            raise
        message = (
            f"{wanted} cannot be looked up: the API key does not have the scope FEATURESTORE.\n"
            "Use a key that has this scope as well, or leave feature_view out."
        )
        raise InvalidInputError(message) from error
    return view


async def read_provenance(project: Project, name: str, version: int, owner: str | None) -> Provenance:
    """
    Read the feature view and the training dataset of a model version.

    :param owner: the project that owns the model; None for this project
    :raises NotFoundError: the version does not exist, or the registry is not shared
    """
    registry = await lookup.find_registry(project, owner)
    model = await lookup.find_version(project, name, version, registry)
    return await api.get_provenance(project, model.name, model.version, registry=registry)


async def _find(project: Project, store: FeatureStore, wanted: ViewName) -> FeatureView:
    if wanted.version is not None:
        view = await api.get_feature_view(project, store, wanted.name, wanted.version)
        if view is not None:
            return view
    views = await api.get_feature_views(project, store, wanted.name)
    if not views:
        message = (
            f"feature_view {wanted.name!r}: there is no such feature view in {store.name!r}"
            f"{await _known_names(project, store)}.\nName one that exists."
        )
        raise NotFoundError(message)
    versions = _joined(sorted(view.version for view in views))
    if wanted.version is not None:
        message = (
            f"feature_view_version {wanted.version}: feature view {wanted.name!r} has no such version; there are: "
            f"{versions}.\nName one of these."
        )
        raise NotFoundError(message)
    if len(views) > 1:
        message = (
            f"feature_view {wanted.name!r} has the versions {versions}.\n"
            "Set feature_view_version to the one that the model was trained on."
        )
        raise InvalidInputError(message)
    return views[0]


async def _known_names(project: Project, store: FeatureStore) -> str:
    """Return the names of the views that exist, for a message; nothing if they cannot be listed."""
    try:
        return f"; there are: {_joined(await api.get_feature_view_names(project, store))}"
    except HopsworksError as error:
        log.info("%s; the existing feature views are not named", error)
        return ""


def _joined(items: Iterable[object]) -> str:
    return ", ".join(map(str, items)) or "none"
