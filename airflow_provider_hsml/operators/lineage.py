"""
What OpenLineage's provider is told: which model version went into which deployment.

It has to be installed for this module to be imported, so the operators do that where they are asked by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from airflow.providers.common.compat.openlineage.facet import Dataset
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.facet_v2 import dataset_version_dataset

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.access import Access
    from airflow_provider_hsml.hopsworks.promotion.record import Record

Lineage: TypeAlias = "OperatorLineage[Any, Any]"


def of_promotion(access: Access, record: Record) -> Lineage:
    """
    Say what a deployment serves after a task that succeeded, be it new or not; a plan changes nothing.

    :param access: where it is
    :param record: what was done
    """
    if record.deployment_id is None or record.action == "planned":
        return OperatorLineage()
    inputs = []
    if record.model_name is not None and record.model_version is not None:
        owner = record.model_project or access.project
        inputs = [_model(access, owner, record.model_name, record.model_version)]
    name = f"{access.project}/deployments/{record.deployment_name}"
    return OperatorLineage(inputs=inputs, outputs=[Dataset(namespace=_namespace(access), name=name)])


def of_registration(access: Access, name: str, version: int) -> Lineage:
    """
    Say which model version was registered.

    :param access: where it is
    :param name: the model's
    :param version: its number
    """
    return OperatorLineage(outputs=[_model(access, access.project, name, version)])


def none() -> Lineage:
    """Say nothing: after a failure a deployment serves what it served before."""
    return OperatorLineage()


def _model(access: Access, project: str, name: str, version: int) -> Dataset:
    """Give a model as a data set; the version is a facet of it, so that all of them are one in a graph."""
    facet = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(version))
    return Dataset(namespace=_namespace(access), name=f"{project}/models/{name}", facets={"version": facet})


def _namespace(access: Access) -> str:
    """Give the cluster, as OpenLineage names sources of data: scheme and authority."""
    return f"hopsworks://{urlsplit(access.url).netloc}"
