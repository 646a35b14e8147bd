"""
Lineage for OpenLineage's provider: which model version went into which deployment.

This module needs that provider. So the operators import it only in the methods that the provider calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from airflow.providers.common.compat.openlineage.facet import Dataset
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.facet_v2 import dataset_version_dataset

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.access import Access
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.promotion.record import Record

Lineage: TypeAlias = "OperatorLineage[Any, Any]"


def of_promotion(access: Access, record: Record) -> Lineage:
    """
    Return the served model version as input and the deployment as output, whether or not the task changed it.

    Empty for a plan, which changes nothing.
    """
    if record.deployment_id is None or record.action == "planned":
        return OperatorLineage()
    inputs = []
    if record.model_name is not None and record.model_version is not None:
        owner = record.model_project or access.project
        inputs = [_model(access, owner, record.model_name, record.model_version)]
    name = f"{access.project}/deployments/{record.deployment_name}"
    return OperatorLineage(inputs=inputs, outputs=[Dataset(namespace=_namespace(access), name=name)])


def of_registration(access: Access, model: ModelVersion) -> Lineage:
    """Return the registered model version as output, and the feature view and training dataset as inputs."""
    inputs, view = [], model.feature_view
    if view is not None and model.feature_view_version is not None:
        store = f"{access.project}/feature_views/{view}"
        inputs = [_versioned(access, store, model.feature_view_version)]
        if model.training_dataset_version is not None:
            name = f"{store}/{model.feature_view_version}/training_datasets"
            inputs.append(_versioned(access, name, model.training_dataset_version))
    return OperatorLineage(inputs=inputs, outputs=[_model(access, access.project, model.name, model.version)])


def none() -> Lineage:
    """Return empty lineage: after a failure the deployment serves the same version as before."""
    return OperatorLineage()


def _model(access: Access, project: str, name: str, version: int) -> Dataset:
    """Return a model as a data set. The version is a facet, so that all versions are one node of a graph."""
    return _versioned(access, f"{project}/models/{name}", version)


def _versioned(access: Access, name: str, version: int) -> Dataset:
    """Return a data set of the cluster with its version."""
    facet = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(version))
    return Dataset(namespace=_namespace(access), name=name, facets={"version": facet})


def _namespace(access: Access) -> str:
    """Return the cluster's name in OpenLineage's form for data sources: scheme and authority."""
    return f"hopsworks://{urlsplit(access.url).netloc}"
