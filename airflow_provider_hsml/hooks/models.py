"""The part of ``HsmlHook`` for models in the registry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import arguments, gate
from airflow_provider_hsml.hopsworks.domain.gate import Metric
from airflow_provider_hsml.hopsworks.domain.model_version import Direction, check_model_name
from airflow_provider_hsml.hopsworks.domain.plain import from_text, plain
from airflow_provider_hsml.hopsworks.promotion import retention
from airflow_provider_hsml.hopsworks.registry import download, feature_views, lookup, tags
from airflow_provider_hsml.hopsworks.routes import Routes

from .base import HsmlBaseHook, read_version
from .object_storage import local_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hsml.hopsworks.domain.feature_view import Provenance
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion


class ModelsMixin(HsmlBaseHook):
    """Read, register, download, tag and delete versions of models."""

    def get_models(self, name: str) -> list[ModelVersion]:
        """List all versions of a model."""
        return list(self.run(lookup.list_versions(self.client.project, check_model_name(name))).models)

    def get_model(self, name: str, version: int | None = None) -> ModelVersion:
        """
        Return a version of a model.

        :param name: the model's name
        :param version: the version's number; None for the newest (the SDK takes version 1 then)
        :raises NotFoundError: there is none; the message lists the versions that exist
        """
        number = None if version is None else read_version(version)
        return self.run(lookup.find_version(self.client.project, check_model_name(name), number))

    def get_best_model(self, name: str, metric: str, direction: str) -> ModelVersion:
        """
        Return the version with the best value of a metric.

        One version is requested from the server, sorted, as the SDK does. If it lacks the metric, or the server returns
        several, all versions are read.

        :param name: the model's name
        :param metric: the metric's name
        :param direction: ``max`` or ``min``: which end is better
        :raises NotFoundError: the model has no version
        :raises InvalidInputError: no version has the metric
        """
        name, end, metric = (
            check_model_name(name),
            direction_of("direction", direction),
            arguments.text("metric", metric),
        )
        page = self.client.send(api.get_models(self.client.project, name, sort_by=metric, direction=end, limit=1))
        if len(page.items) == 1 and not page.unreadable and page.items[0].metric(metric) is not None:
            return page.items[0]
        versions = self.get_models(name)
        if not versions:
            raise lookup.no_version(name, self.client.project.name)
        return gate.best_candidate(versions, Metric(metric, end))

    def register_model(self, *, run_key: str | None = None, **model: Any) -> ModelVersion:
        """
        Register a model version: upload its files, then create the version in the registry.

        :param run_key: a text that a retry shares with the first attempt, so that only one version is registered;
            None registers a new version each time
        :param model: the arguments of ``RegisterModelOperator`` (its ``model_version`` is ``version`` here)
        """
        from airflow_provider_hsml.hopsworks.registry.register import NewModel, register  # noqa: PLC0415 - not needed to parse a DAG

        if run_key is not None:
            arguments.text("run_key", run_key)
        with local_copy("model_path", model.pop("model_path", None)) as path:
            new = NewModel.read(model_path=path, **model)
            return self.run(register(self.client.project, new, run_key=run_key))

    def download_model(self, name: str, version: int | None = None, *, folder: str | os.PathLike[str]) -> Path:
        """
        Download a version's files into a local folder. A file has its name once it has arrived as a whole.

        :param name: the model's name
        :param version: the version's number; None for the newest
        :param folder: created if necessary; files of the same names are replaced
        :return: the folder
        :raises NotFoundError: there is no such version, or it has no files
        """
        target = Path(arguments.text("folder", os.fspath(folder) if isinstance(folder, os.PathLike) else folder))
        self.run(download.download_model(self.client.project, self.get_model(name, version), target))
        return target

    def delete_model(self, name: str, version: int) -> None:
        """Delete a version with its files. Nothing happens when it does not exist."""
        self.client.send(api.delete_model(self.client.project, name, read_version(version)))

    def delete_model_versions(
        self, name: str, *, keep: int = 5, keep_best: Sequence[str] | None = None
    ) -> retention.Retained:
        """
        Delete old versions of a model, but none that a deployment serves or can be rolled back to.

        These are the versions that kept versions of deployments name, and those in the newest journal entries.

        :param name: the model's name
        :param keep: how many of the newest to keep, at least 1
        :param keep_best: a metric and a direction (``max`` or ``min``), to keep the best version as well
        :return: the versions that were deleted, and those that were kept, with the reasons
        :raises InvalidInputError: this Hopsworks keeps no versions of deployments, and the API key may not read the
            journal; nothing was deleted
        """
        best_by = None
        if keep_best is not None:
            pair = arguments.sequence("keep_best", from_text("keep_best", keep_best, '["accuracy", "max"]'))
            if len(pair) != 2:
                arguments.refuse("keep_best", "a metric and a direction, as in ('accuracy', 'max')", keep_best)
            best_by = (arguments.text("keep_best", pair[0]), direction_of("keep_best", pair[1]))
        least = arguments.integer("keep", keep, least=1)
        return self.run(retention.delete_versions(self.client.project, name, keep=least, best_by=best_by))

    def get_model_tags(self, name: str, version: int) -> dict[str, Any]:
        """
        Return the tags of a version by name.

        :raises NotFoundError: there is no such version; the message lists the versions that exist
        """
        project, model = self.client.project, self.get_model(name, read_version(version))
        witness = api.get_model(project, model.name, model.version)
        flow = Routes().read(api.get_model_tags(project, model.name, model.version), witness)
        found = self.run(flow)
        return {} if found is None else found

    def get_provenance(self, name: str, version: int, *, model_project: str | None = None) -> Provenance:
        """
        Return the feature view and the training dataset from which a version was made.

        Each is None if Hopsworks has recorded none, which is also so for a version without a training dataset. A
        deleted or inaccessible one has its name, its version and that state.

        :param name: the model's name
        :param version: the version's number
        :param model_project: the project whose shared registry has the model; None for the hook's own project
        :raises NotFoundError: there is no such version, or the registry is not shared; the message lists those that
            exist
        """
        owner = None if model_project is None else arguments.resource_name("model_project", model_project)
        flow = feature_views.read_provenance(self.client.project, check_model_name(name), read_version(version), owner)
        return self.run(flow)

    def set_model_tag(self, name: str, version: int, tag: str, value: Any) -> None:
        """
        Set a tag of a version, or replace its value.

        :param name: the model's name
        :param version: the version's number
        :param tag: the tag's name; an administrator must have created a schema for it in Hopsworks
        :param value: any value that the schema allows
        :raises NotFoundError: there is no such version; the message lists the versions that exist
        """
        tag, value = arguments.resource_name("tag", tag), plain("value", value)
        model = self.get_model(name, read_version(version))
        self.run(tags.set_tags(self.client.project, model.name, model.version, {tag: value}))

    def model_url(self, model: ModelVersion) -> str:
        """Return the URL of a model version's page in the Hopsworks UI."""
        return self.access.ui_url(model.registry_id, "models", model.name, model.version)


def direction_of(name: str, value: object) -> Direction:
    """
    Read whether a higher or a lower value of a metric is better.

    :param name: the argument's name, for the error message
    :param value: ``max`` or ``min``
    """
    return Direction(arguments.choice(name, value, [one.value for one in Direction]))
