"""
Carry the schema of a deployment's requests over a retrain: the same feature view, another training dataset.

The limit of rows that users set in ``SERVING_MAX_BATCH_ROWS`` is part of the schema: another one is another schema.

The pods of the default predictor start only if the schema is of the training dataset of their model. So the live
document is published again, with that training dataset and therefore under another id, and the variables that name it
change with the same request that changes the model version. The old files stay: a rollback finds them.

All checks come before anything is changed. A schema that another client has to make anew is refused.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import deployment_schema, diff, wire
from airflow_provider_hsml.hopsworks.domain.deployment_schema import FORMATS, DeploymentSchema
from airflow_provider_hsml.hopsworks.domain.feature_view import Origin
from airflow_provider_hsml.hopsworks.domain.settings import SETTINGS
from airflow_provider_hsml.hopsworks.errors import (
    SCOPE_MISSING,
    HopsworksError,
    InvalidInputError,
    RequestRefusedError,
    UnexpectedResponseError,
)
from airflow_provider_hsml.hopsworks.inference import schemas
from airflow_provider_hsml.hopsworks.registry import lookup
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion
    from airflow_provider_hsml.hopsworks.flow import Backoff
    from airflow_provider_hsml.hopsworks.routes import Routes

log = logging.getLogger(__name__)

_MODEL = ("model_name", "model_version", "model_path")
_MODEL_SCHEMA = "model_schema.json"
_DEFAULT_PREDICTOR = "default_predictor.py"
_ELSEWHERE = (
    "Publish a schema for it once with Hopsworks' SDK (deployment.schema = ..., then save), or deploy it under another "
    "deployment_name."
)


@dataclass(frozen=True, slots=True)
class CarriedSchema:
    """The schema that a deployment has after an update."""

    live_id: str | None
    """The id of the schema that was checked; None if the deployment named none."""
    variables: Mapping[str, str | None] = field(default_factory=dict)
    """The variables that the update sets; None for those that it removes. Without any, all stay as they are."""

    def is_of(self, raw: Mapping[str, Any]) -> bool:
        """Return whether a deployment still names the schema that was checked, or still none."""
        return (deployment_schema.variables_of(raw).get(deployment_schema.SCHEMA_ID) or None) == self.live_id

    def write(self, body: dict[str, Any]) -> None:
        """
        Set the variables in the body of an update.

        :param body: modified in place
        """
        if self.variables:
            deployment_schema.write_variables(body, self.variables)

    def is_stored(self, raw: Mapping[str, Any]) -> bool:
        """Return whether a stored deployment has the variables."""
        return deployment_schema.are_written(raw, self.variables)


async def carry_schema(
    project: Project,
    routes: Routes,
    live: Deployment,
    model: ModelVersion | None,
    body: Mapping[str, Any],
    *,
    backoff: Backoff,
    to: str | None = None,
) -> CarriedSchema:
    """
    Check that the schema of a deployment can be carried over to an update, and publish it.

    :param routes: the optional routes, as far as the task knows them
    :param model: the version to serve; None if it stays or there is none
    :param body: the body of the update
    :param backoff: how often to retry the read of the schema
    :param to: the name of another deployment, which gets the schema in place of the live one; None for the live one
    :return: without variables if the deployment has no schema, or its variables stay as they are
    :raises InvalidInputError: the schema cannot be carried over; the message names the difference, nothing was changed
    """
    live_id = deployment_schema.schema_id_of(live)
    if live_id is None:
        return CarriedSchema(None)
    is_same_model = not diff.differences(live.raw, {name: SETTINGS[name].read(body) for name in _MODEL})
    rows = deployment_schema.batch_rows_of(body)
    if is_same_model and to is None and rows is None:
        return _kept(live, live_id, body)
    subject = f"{live}, whose requests have schema {live_id}"
    if model is None and not is_same_model:
        _refuse(subject, "the model version to serve is not in the registry, so its training dataset is unknown")
    document = await schemas.read_document(project, live, routes, backoff=backoff)
    schema = _read(document, live, live_id, subject)
    if model is not None and not is_same_model:
        subject += f", and version {model.version} of model {model.name!r}"
        await _check_origin(project, schema, model, subject)
        await _Columns(project, schema, live, model, subject).check(_script_of(body))
        dataset = None if schema.training_dataset is None else model.training_dataset_version
        schema = schema.changed(training_dataset=dataset, max_batch_rows=rows)
    else:
        schema = schema.changed(training_dataset=schema.training_dataset, max_batch_rows=rows)
    if is_same_model and to is None and schema.id == live_id:
        return _kept(live, live_id, body)
    await _publish(project, routes, live, schema, schemas.folder_of(to or live.name))
    return CarriedSchema(live_id, schema.variables())


def _kept(live: Deployment, live_id: str, body: Mapping[str, Any]) -> CarriedSchema:
    """Keep the schema, and name it on each component if the update adds or removes the transformer."""
    if bool(body.get("transformer")) == bool(live.raw.get("transformer")):
        return CarriedSchema(live_id)
    return CarriedSchema(live_id, deployment_schema.schema_variables_of(live.raw))


def _refuse(subject: str, why: str, advice: str = _ELSEWHERE) -> NoReturn:
    message = f"{subject}: {why}.\n{advice}"
    raise InvalidInputError(message)


def _read(document: dict[str, Any] | None, live: Deployment, live_id: str, subject: str) -> DeploymentSchema:
    if document is None:
        _refuse(subject, "there is no published schema of this id")
    schema = DeploymentSchema.read(document, str(live))
    if schema.id != live_id:
        _refuse(subject, f"the published document has the id {schema.id}, so it was changed or has another form")
    return schema


async def _check_origin(project: Project, schema: DeploymentSchema, model: ModelVersion, subject: str) -> None:
    """Check that the model was trained on the feature view of the schema, and on a known training dataset."""
    name, version = schema.feature_view
    ours = model.training_dataset_version
    if name is None and schema.training_dataset is None:
        return
    registry = await lookup.find_registry(project, model.project)
    found = await api.get_provenance(project, model.name, model.version, registry=registry)
    if schema.training_dataset is not None and ours is None:
        _refuse(
            subject,
            f"the schema is of training dataset {schema.training_dataset}, and none was registered with the model",
            "Register the model with its training_dataset_version.",
        )
    dataset = found.training_dataset
    if ours is not None and dataset is not None and dataset.version != ours:
        _refuse(
            subject,
            f"the registry has training_dataset_version {ours}, and the provenance training dataset {dataset.version}",
            "Register the model again with the training dataset that it was trained on.",
        )
    view = found.feature_view
    if view is None and model.feature_view is not None and model.feature_view_version is not None:
        view = Origin(model.feature_view, model.feature_view_version)
    if name is None:
        return
    if view is None:
        _refuse(
            subject,
            f"the schema is of feature view {name!r} version {version}, and the model's feature view is unknown",
            "Register the model with its feature_view and training_dataset_version.",
        )
    if (view.name, view.version) != (name, version):
        _refuse(
            subject,
            f"the schema is of feature view {name!r} version {version}, and the model was trained on feature view "
            f"{view.name!r} version {view.version}",
        )
    if view.state in ("deleted", "faulty"):
        _refuse(subject, f"feature view {view.name!r} version {view.version} is {view.state} in the feature store")


def _script_of(body: Mapping[str, Any]) -> str:
    return str(body.get("predictor") or "").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a new version, next to those of the schema and of the serving version."""

    project: Project
    schema: DeploymentSchema
    live: Deployment
    model: ModelVersion
    subject: str

    async def check(self, script: str) -> None:
        """
        Check that the new version takes and gives the columns of the schema.

        :param script: the name of the predictor script
        """
        published = self.schema.output_columns
        is_default = script == _DEFAULT_PREDICTOR
        ours = await self._read(self.model)
        if ours is None and (is_default or published):
            _refuse(
                self.subject,
                f"no {_MODEL_SCHEMA} was registered with the model, so its columns are unknown",
                "Register the model with model_schema, or with feature_view and training_dataset_version.",
            )
        if ours is None:
            return
        if published:
            self._compare("output columns", _columns(ours, "output_schema"), published, "the schema publishes")
        inputs = _columns(ours, "input_schema")
        if self.schema.feature_view[0] is None:
            if is_default and inputs is not None:
                self._compare_inputs(inputs, self.schema.document["passedFeatures"], "the schema has")
            return
        served = await lookup.served_model(self.project, self.live)
        before = None if served is None else await self._read(served)
        expected = None if before is None else _columns(before, "input_schema")
        if expected is not None:
            self._compare_inputs(inputs, expected, "the serving version has")

    def _compare_inputs(self, ours: list[dict[str, Any]] | None, theirs: list[dict[str, Any]], who: str) -> None:
        """
        Compare features as the default predictor does when it starts: by name, and by the families of their types.

        Each feature that the model takes has to be among the known ones. Unknown types fit any.
        """
        if ours is None:
            self._compare("features", ours, theirs, who)
            return
        known = {one["name"]: one["type"] for one in theirs}
        unknown = sorted({one["name"] for one in ours} - known.keys())
        if unknown:
            _refuse(self.subject, f"the model's features {', '.join(unknown)} are not among those that {who}")
        if other := [one for one in ours if not deployment_schema.are_alike(one["type"], known[one["name"]])]:
            self._compare("features", other, [{"name": one["name"], "type": known[one["name"]]} for one in other], who)

    def _compare(self, what: str, ours: list[dict[str, Any]] | None, theirs: list[dict[str, Any]], who: str) -> None:
        if ours != theirs:
            _refuse(self.subject, f"the model's {what} are {_shown(ours)}, and {who} {_shown(theirs)}")

    async def _read(self, model: ModelVersion) -> dict[str, Any] | None:
        """Read the schema that was registered with a version; None if there is none."""
        path = f"{lookup.model_folder(self.project, model)}/{_MODEL_SCHEMA}"
        try:
            entry = await api.get_entry(self.project, path)
            if entry is None:
                return None
            return await api.read_json(self.project, path, _read_model_schema, size=entry.size)
        except RequestRefusedError as error:
            if error.code != SCOPE_MISSING:
                raise
            message = f"{self.subject}: the columns cannot be compared without the scope DATASET_VIEW of the API key."
            raise InvalidInputError(message) from error


def _read_model_schema(data: Any) -> dict[str, Any]:
    columns: wire.Shape = {name: [{"name": str, "type": str}] for name in ("columnar_schema", "columnarSchema")}
    keys = ("input_schema", "output_schema", "inputSchema", "outputSchema")
    return wire.resource({} if data is None else data, {}, dict.fromkeys(keys, columns))


def _columns(schema: Mapping[str, Any], part: str) -> list[dict[str, Any]] | None:
    """Return the names and types of one part of a model schema; None if they are not listed."""
    head, _, tail = part.partition("_")
    found = schema.get(part) or schema.get(f"{head}{tail.capitalize()}") or {}
    columns = found.get("columnar_schema") or found.get("columnarSchema")
    if not columns:
        return None
    named = [{"name": one["name"], "type": one.get("type")} for one in columns if one.get("name")]
    return deployment_schema.columns_of(named)


def _shown(columns: list[dict[str, Any]] | None) -> str:
    return ", ".join(f"{one['name']} ({one['type']})" for one in columns or []) or "unknown"


async def _publish(project: Project, routes: Routes, live: Deployment, schema: DeploymentSchema, folder: str) -> None:
    """
    Write the documents of a schema where they are missing, or are not whole: an upload may have been cut off.

    Files that are whole are never changed.

    :param folder: the folder of the deployment that gets the schema
    :raises UnexpectedResponseError: a file that was written cannot be read back; no change was sent
    """
    try:
        missing = [form for form in FORMATS if not await _is_published(project, folder, schema, form)]
        if not missing:
            return
        parts = folder.split("/")
        for depth in range(2, len(parts) + 1):
            above = "/".join(parts[:depth])
            if not await api.path_exists(project, above):
                await api.make_folder(project, above)
        # The document last: with it, the schema counts as published.
        for form in reversed(missing):
            content = await _content(project, routes, live, schema, form)
            if content is not None:
                await _write(project, folder, schema, form, content)
    except RequestRefusedError as error:
        if error.code != SCOPE_MISSING:
            raise
        message = (
            f"{live}: publishing its request schema for the new training dataset needs an API key with the scopes "
            "DATASET_VIEW and DATASET_CREATE, which this key does not have.\nUse a key with these scopes."
        )
        raise InvalidInputError(message) from error


async def _content(
    project: Project, routes: Routes, live: Deployment, schema: DeploymentSchema, form: str
) -> bytes | None:
    """Return the content of one document; None for a format in which the live schema is not published either."""
    if form == "schema":
        return schema.render()
    rendered = await schemas.read_document(project, live, routes, form)
    if rendered is None:
        log.info("%s: its schema is not published as %s, so the new one is not either", live, form)
        return None
    if not deployment_schema.with_batch_rows(rendered, schema.max_batch_rows):
        log.warning("%s: its schema as %s has an unknown form, and is not published again", live, form)
        return None
    if form == "openapi" and isinstance(rendered.get("info"), dict):
        rendered["info"]["version"] = schema.id
    return json.dumps(rendered).encode()


async def _is_published(project: Project, folder: str, schema: DeploymentSchema, form: str) -> bool:
    """Return whether one document of a schema exists and is whole; the document itself has to be the one of its id."""
    path = f"{folder}/{schema.id}{FORMATS[form]}"
    entry = await api.get_entry(project, path)
    if entry is None:
        return False
    try:
        found = await api.read_json(project, path, lambda data: wire.resource(data, {}, {}), size=entry.size)
        is_whole = bool(found)
        if found and form == "schema":
            is_whole = DeploymentSchema.read(found, repr(path)).id == schema.id
    except (InvalidInputError, UnexpectedResponseError) as error:
        log.warning("%s", error)
        return False
    return is_whole


async def _write(project: Project, folder: str, schema: DeploymentSchema, form: str, content: bytes) -> None:
    path = f"{folder}/{schema.id}{FORMATS[form]}"
    log.info("Publishing %s (%s bytes)", path, len(content))
    if await api.path_exists(project, path):
        log.warning("%r is not the whole document, and is replaced", path)
        await api.delete_path(project, path)
    try:
        await upload_bytes(project, path, content)
    except HopsworksError as error:
        # Another task may have published the same schema meanwhile.
        if not await _is_published(project, folder, schema, form):
            raise
        log.info("%s; the file exists", error)
        return
    if not await _is_published(project, folder, schema, form):
        message = (
            f"{path!r} was uploaded, and cannot be read back. The deployment was not changed.\nRun the task again."
        )
        raise UnexpectedResponseError(message, status=200)
