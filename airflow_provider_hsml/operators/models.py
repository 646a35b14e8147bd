"""Operators that register model versions and delete old ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.links import ModelVersionLink
from airflow_provider_hsml.parsing import BY_MODEL

from . import events
from .base import HsmlOperator, task_instance_id

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context

    from .lineage import Lineage

FRAMEWORKS = ("SKLEARN", "PYTHON", "TENSORFLOW", "TORCH", "LLM")


class RegisterModelOperator(HsmlOperator):
    """
    Register a trained model as a new version: upload its files, then create the version in the Model Registry.

    Use it after a training task. A retry of the same task with the same files registers only one version. Mapped tasks
    that register versions of one model at the same time get one version each.

    Returns ``{"model_name", "model_version", "model_id", "metrics", "url"}``, each also under its own XCom key.

    :param model_name: letters, digits and underscores
    :param model_path: a file, or a folder with all files of the model: on the machine where the task runs, in object
        storage (``s3://connection@bucket/folder``), or in the cluster (``hopsfs:/Projects/...``, copied there)
    :param framework: SKLEARN, PYTHON, TENSORFLOW, TORCH or LLM
    :param metrics: finite numbers by name, for comparing versions later
    :param model_version: the version's number; None for the next free one
    :param description: text shown in the registry
    :param input_example: one row or several; deploying the version probes the deployment with it
    :param model_schema: JSON that describes inputs and outputs
    :param expected: ``{"instances": [...], "predictions": [...]}``: this version's predictions for some rows. Deploying
        then proves that this version answers, if the previous version's predictions differ
    :param environment: name of the Python environment that the model was trained in
    :param feature_view: the feature view that the model was trained on: its name, or ``{"name": ..., "version": ...}``.
        It is looked up before the upload, which needs the scope FEATURESTORE
    :param feature_view_version: the view's version; needed unless the view has exactly one
    :param training_dataset_version: version number of the training dataset, which must exist if a view is given. With
        both, ``model_schema`` defaults to the columns of the training dataset, as in Hopsworks' SDK
    :param trained_until: the end of the training data's interval, a datetime or ISO 8601 text; None: the run's
        ``data_interval_end``, where it has one. ``DeployBestModelOperator`` leaves out a version that was trained on
        older data than the served one
    :param tags: values by tag name, set after the registration; an administrator must have created a schema for each
    """

    operator_extra_links = (ModelVersionLink(),)
    template_fields: Sequence[str] = (
        *HsmlOperator.template_fields,
        "model_name",
        "model_path",
        "framework",
        "metrics",
        "model_version",
        "description",
        "input_example",
        "model_schema",
        "expected",
        "environment",
        "feature_view",
        "feature_view_version",
        "training_dataset_version",
        "trained_until",
        "tags",
    )
    template_fields_renderers = {  # noqa: RUF012 - as in Airflow
        "metrics": "json",
        "input_example": "json",
        "model_schema": "json",
        "expected": "json",
        "tags": "json",
    }
    map_index_template_default = (
        BY_MODEL + "{% if task.description %}: {{ task.description | string | truncate(100) }}{% endif %}"
    )

    def __init__(
        self,
        *,
        model_name: str,
        model_path: str | os.PathLike[str],
        framework: str,
        metrics: Mapping[str, float] | None = None,
        model_version: int | str | None = None,
        description: str | None = None,
        input_example: Any = None,
        model_schema: Any = None,
        expected: Mapping[str, Any] | None = None,
        environment: str | None = None,
        feature_view: str | Mapping[str, Any] | None = None,
        feature_view_version: int | str | None = None,
        training_dataset_version: int | str | None = None,
        trained_until: datetime | str | None = None,
        tags: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self._check_literal(arguments.model_name, "model_name", model_name)
        self._check_literal(arguments.choice, "framework", framework, allowed=FRAMEWORKS)
        self._check_literal(arguments.integer, "model_version", model_version, least=1)
        self.model_name = model_name
        self.model_path = model_path
        self.framework = framework
        self.metrics = metrics
        self.model_version = model_version
        self.description = description
        self.input_example = input_example
        self.model_schema = model_schema
        self.expected = expected
        self.environment = environment
        self.feature_view = feature_view
        self.feature_view_version = feature_view_version
        self.training_dataset_version = training_dataset_version
        self.trained_until = trained_until
        self.tags = tags

    def act(self, context: Context) -> dict[str, Any]:
        """Register the version."""
        from airflow_provider_hsml.hopsworks.sensing.conditions import describe  # noqa: PLC0415 - not needed to parse a DAG

        model = self.hook.register_model(
            run_key=json.dumps([self.hook.access.project, self.model_name, *task_instance_id(context)]),
            model_name=self.model_name,
            model_path=self.model_path,
            framework=self.framework,
            metrics=self.metrics,
            version=self.model_version,
            description=self.description,
            input_example=self.input_example,
            model_schema=self.model_schema,
            expected=self.expected,
            environment=self.environment,
            feature_view=self.feature_view,
            feature_view_version=self.feature_view_version,
            training_dataset_version=self.training_dataset_version,
            trained_until=context.get("data_interval_end") if self.trained_until is None else self.trained_until,
            tags=self.tags,
        )
        self._registered = model
        self.log.info("Registered version %s of model %r", model.version, model.name)
        events.emit_registration(self, context, model)
        return describe(self.hook.access, model)

    def _on_answer(self, answer: Any) -> None:
        """Push the link to the version as soon as the registry has it: setting its tags may still fail."""
        from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion  # noqa: PLC0415 - not needed to parse a DAG

        if isinstance(answer, ModelVersion):
            self._links.push(ModelVersionLink(), self.hook.model_url(answer))

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Lineage:  # noqa: ARG002
        """Return the registered version as lineage. OpenLineage's provider calls this."""
        from . import lineage  # noqa: PLC0415 - OpenLineage's provider may not be installed

        return lineage.of_registration(self.hook.access, self._registered)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Lineage:  # noqa: ARG002
        """Return empty lineage. Without this method, OpenLineage's provider calls the one for success."""
        from . import lineage  # noqa: PLC0415 - OpenLineage's provider may not be installed

        return lineage.none()


class DeleteModelVersionsOperator(HsmlOperator):
    """
    Delete old versions of a model, with their files.

    Use it regularly, to bound the registry's size. It keeps the newest versions, the best by a metric, and each version
    that a deployment of the project is configured to serve or can be rolled back to: those of its kept versions (5.2
    and later), and those in the newest entry of its journal. The log gives the reason for each kept version. Versions
    that are deleted already are skipped, so a retry resumes.

    Returns ``{"deleted": [...], "kept": [...]}``, the numbers of the versions.

    :param model_name: the model in the registry
    :param keep: how many of the newest to keep, at least 1
    :param keep_best: a metric and a direction, such as ``("accuracy", "max")``, to keep the best version as well
    """

    template_fields: Sequence[str] = (*HsmlOperator.template_fields, "model_name", "keep", "keep_best")
    map_index_template_default = BY_MODEL

    def __init__(
        self, *, model_name: str, keep: int | str = 5, keep_best: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._check_literal(arguments.model_name, "model_name", model_name)
        self._check_literal(arguments.integer, "keep", keep, least=1)
        self.model_name = model_name
        self.keep = keep
        self.keep_best = keep_best

    def act(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Delete the old versions."""
        keep = arguments.integer("keep", self.keep)
        done = self.hook.delete_model_versions(self.model_name, keep=keep, keep_best=self.keep_best)
        return {"deleted": list(done.deleted), "kept": list(done.kept)}
