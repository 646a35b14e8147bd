"""Verbs on models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import arguments, gate
from airflow_provider_hsml.hopsworks.domain.gate import Metric
from airflow_provider_hsml.hopsworks.domain.model_version import Direction
from airflow_provider_hsml.hopsworks.registry import download, lookup, retention

from .connection import ConnectedHook
from .storage import on_this_machine

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion


class ModelVerbs(ConnectedHook):
    """What can be asked of the registry, and changed in it."""

    def get_models(self, name: str) -> list[ModelVersion]:
        """
        List all versions of a model.

        :param name: the model's name
        """
        return self.run(lookup.list_versions(self.client.project, name))

    def get_model(self, name: str, version: int | None = None) -> ModelVersion:
        """
        Get a version of a model.

        :param name: the model's name
        :param version: its number; None for the newest (the SDK gives version 1 then)
        :raises NotFoundError: there is none; the message names those that are
        """
        return self.run(lookup.find_version(self.client.project, name, version))

    def get_best_model(self, name: str, metric: str, direction: str = "max") -> ModelVersion:
        """
        Get the version with the best value of a metric.

        Asks the server for one row, as the SDK does; where that row has not got the metric, looks at all versions.

        :param name: the model's name
        :param metric: the metric's name
        :param direction: ``max`` or ``min``
        :raises NotFoundError: there is no version
        :raises InvalidInputError: no version has the metric
        """
        end = direction_of("direction", direction)
        page = self.client.send(api.get_models(self.client.project, name, sort_by=metric, direction=end, limit=1))
        if page.items and page.items[0].metric(metric) is not None:
            return page.items[0]
        versions = self.get_models(name)
        if not versions:
            raise lookup.no_version(name, self.client.project.name)
        return gate.best_candidate(versions, Metric(metric, end))

    def register_model(self, *, run_key: str | None = None, **model: Any) -> ModelVersion:
        """
        Register a model version: upload its files, then put it into the registry.

        :param run_key: what a retry has in common with the try before, so that it registers once; None: anew each time
        :param model: the arguments of ``RegisterModelOperator`` (its ``model_version`` is ``version`` here)
        """
        from airflow_provider_hsml.hopsworks.registry.register import NewModel, register  # noqa: PLC0415 - not needed to parse a DAG

        with on_this_machine("model_path", model.pop("model_path", None)) as path:
            new = NewModel.read(model_path=path, **model)
            return self.run(register(self.client.project, new, run_key=run_key))

    def download_model(self, name: str, version: int | None = None, *, folder: str | os.PathLike[str]) -> Path:
        """
        Write a version's files into a folder of this machine. Each is held in memory as a whole meanwhile.

        :param name: the model's name
        :param version: its number; None for the newest
        :param folder: it is made; what lies in it under the same names is replaced
        :return: the folder
        :raises NotFoundError: there is no such version, or it has no files
        """
        target = Path(folder)
        self.run(download.download_model(self.client.project, self.get_model(name, version), target))
        return target

    def delete_model(self, name: str, version: int) -> None:
        """
        Delete a version with its files; one that is not there is deleted already.

        :param name: the model's name
        :param version: its number
        """
        self.client.send(api.delete_model(self.client.project, name, version))

    def delete_model_versions(
        self, name: str, *, keep: int = 5, keep_best: Sequence[str] | None = None
    ) -> retention.Retained:
        """
        Delete old versions of a model; none that a deployment serves or can be rolled back to.

        :param name: the model's name
        :param keep: how many of the newest to keep, at least 1
        :param keep_best: a metric and its good end (``max`` or ``min``), to keep the best version as well
        :return: what was deleted, and what was kept and why
        """
        best_by = None
        if keep_best is not None:
            pair = arguments.sequence("keep_best", keep_best)
            if len(pair) != 2:
                arguments.refuse("keep_best", "a metric and a direction, as in ('accuracy', 'max')", keep_best)
            best_by = (arguments.text("keep_best", pair[0]), direction_of("keep_best", pair[1]))
        least = arguments.integer("keep", keep, least=1)
        return self.run(retention.delete_versions(self.client.project, name, keep=least, best_by=best_by))

    def get_model_tags(self, name: str, version: int) -> dict[str, Any]:
        """
        Read the tags of a version: name -> value.

        :param name: the model's name
        :param version: its number
        :raises NotFoundError: there is no such version; the message names those that are
        """
        model = self.get_model(name, version)
        return self.client.send(api.get_model_tags(self.client.project, model.name, model.version))

    def set_model_tag(self, name: str, version: int, tag: str, value: Any) -> None:
        """
        Set a tag of a version, or replace its value.

        :param name: the model's name
        :param version: its number
        :param tag: the name of a tag; Hopsworks must have a schema for it, which an administrator makes
        :param value: what the schema allows
        :raises NotFoundError: there is no such version; the message names those that are
        """
        model = self.get_model(name, version)
        self.client.send(api.put_model_tag(self.client.project, model.name, model.version, tag, value))

    def model_url(self, model: ModelVersion) -> str:
        """
        Give the address of a model version's page in the Hopsworks UI.

        :param model: the version
        """
        return self.access.ui_url(model.registry_id, "models", model.name, model.version)


def direction_of(what: str, value: object) -> Direction:
    """
    Read which end of a metric is the good one.

    :param what: the argument's name
    :param value: what was given
    """
    return Direction(arguments.choice(what, value, [one.value for one in Direction]))
