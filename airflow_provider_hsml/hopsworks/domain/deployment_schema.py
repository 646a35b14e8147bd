"""
The schema of a deployment's requests (Hopsworks 5.2): its document, its id, and its environment variables. No I/O.

The client that saves a deployment publishes the document in the project's files, under an id that is the hash of its
content, and names the id in ``SERVING_SCHEMA_ID``. Instances of the default predictor start only if the document is of
the model's feature view and training dataset.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from . import wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .deployment import Deployment

SCHEMA_ID = "SERVING_SCHEMA_ID"
ENFORCER = "SERVING_SCHEMA_ENFORCER"
MAX_BATCH_ROWS = "SERVING_MAX_BATCH_ROWS"
FEATURE_VIEW = "SERVING_FEATURE_VIEW_NAME"
FEATURE_VIEW_VERSION = "SERVING_FEATURE_VIEW_VERSION"
TRAINING_DATASET = "SERVING_TRAINING_DATASET_VERSION"
FEATURE_LOGGING = "SERVING_FEATURE_LOGGING"
SCRIPT_KIND = "SERVING_SCRIPT_KIND"
RESERVED = frozenset(
    {SCHEMA_ID, ENFORCER, FEATURE_VIEW, FEATURE_VIEW_VERSION, TRAINING_DATASET, FEATURE_LOGGING, SCRIPT_KIND}
)
"""The variables above that Hopsworks' SDK sets itself, and refuses from users: all but ``MAX_BATCH_ROWS``."""
VERSION = 1
DEFAULT_MAX_BATCH_ROWS = 512
GROUPS = ("servingKeys", "passedFeatures", "requestParameters", "extraLoggingFeatures")
"""The groups of fields, in the order that a row without names has."""
FORMATS = {"schema": ".json", "jsonschema": ".jsonschema.json", "openapi": ".openapi.json"}
"""The formats in which a schema is published, with the endings of their files."""
_OPTIONAL_GROUP = "extraLoggingFeatures"
_KEYS = frozenset(
    {"schemaVersion", "schemaId", *GROUPS, "featureView", "trainingDatasetVersion", "output", "inferred"}
    | {"maxBatchRows"}
)
_FIELD_KEYS = frozenset({"name", "type", "nullable", "description"})
_FAMILIES = {
    family: re.compile(pattern)
    for family, pattern in {
        "integer": r"(tinyint|smallint|bigint)$|u?int",
        "float": r"double$|decimal|float",
        "string": r"string|str(?!uct)|varchar|char|category",
        "boolean": r"bool",
        "timestamp": r"timestamp$|date$|datetime",
        "binary": r"binary$",
        "array": r"array<",
        "map": r"map<",
        "struct": r"struct<",
    }.items()
}
"""The beginnings of types by the families that the default predictor compares: of the feature store, and of pandas."""
_OUTPUT_KINDS = ("predictions", "feature_vectors")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request."""

    name: str
    type: str | None
    """The feature store's type, such as ``bigint``; None if it is unknown, and any value is accepted."""
    nullable: bool
    required: bool = True


@dataclass(frozen=True, slots=True)
class DeploymentSchema:
    """The schema of a deployment's requests. Build it with ``read``, which refuses what it does not understand."""

    document: Mapping[str, Any]
    """The normalised document, without its id."""

    @classmethod
    def read(cls, data: Any, subject: str) -> Self:
        """
        Read a published document.

        Keys that this package does not know are refused: the id of a document without them would be another one.

        :param data: the document, with or without its id
        :param subject: the deployment, for messages
        :raises InvalidInputError: the document has another version, unknown keys or wrong types
        """
        try:
            return cls(_normalised(data))
        except ValueError as error:
            message = (
                f"{subject}: its request schema cannot be read ({error}).\nThis package reads version {VERSION} of "
                "such schemas, as Hopsworks 5.2 writes them: save the deployment with Hopsworks' SDK, or update the "
                "package."
            )
            raise InvalidInputError(message) from None

    @property
    def id(self) -> str:
        """The hash of the content: equal documents have equal ids."""
        text = json.dumps(self.document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def feature_view(self) -> tuple[str | None, int | None]:
        """The name and version of the feature view; None for both without one."""
        view = self.document["featureView"] or {}
        return view.get("name"), view.get("version")

    @property
    def training_dataset(self) -> int | None:
        """The version of the training dataset; None if the document names none."""
        version: int | None = self.document["trainingDatasetVersion"]
        return version

    @property
    def max_batch_rows(self) -> int:
        """The largest number of rows in a request."""
        return int(self.document["maxBatchRows"])

    @property
    def output_columns(self) -> list[dict[str, Any]] | None:
        """The names and types of the columns that the model answers; None if they are not published."""
        columns: list[dict[str, Any]] | None = self.document["output"]["columns"]
        return columns

    @property
    def serving_keys(self) -> tuple[str, ...]:
        """The names of the keys by which online features are looked up."""
        return tuple(field["name"] for field in self.document["servingKeys"])

    @property
    def fields(self) -> list[Field]:
        """The fields of a row, in the order that a row without names has."""
        return [
            Field(field["name"], field["type"], field["nullable"], group != _OPTIONAL_GROUP)
            for group in GROUPS
            for field in self.document[group]
        ]

    def changed(self, *, training_dataset: int | None, max_batch_rows: int | None = None) -> DeploymentSchema:
        """
        Return the schema for another training dataset of the same feature view, or another limit of rows.

        :param training_dataset: the version of the training dataset
        :param max_batch_rows: the limit that the deployment's variables set; None to keep that of the document
        """
        changes = {"trainingDatasetVersion": training_dataset}
        if max_batch_rows is not None:
            changes["maxBatchRows"] = max_batch_rows
        return DeploymentSchema({**self.document, **changes})

    def render(self) -> bytes:
        """Return the content of the published file."""
        return json.dumps({**self.document, "schemaId": self.id}, indent=2).encode()

    def variables(self) -> dict[str, str | None]:
        """Return the environment variables that name this schema, by name; None for one that must not exist."""
        name, version = self.feature_view
        values = {FEATURE_VIEW: name, FEATURE_VIEW_VERSION: version, TRAINING_DATASET: self.training_dataset}
        return {SCHEMA_ID: self.id, **{key: None if value is None else str(value) for key, value in values.items()}}


def variables_of(raw: Mapping[str, Any], component: str = "predictor") -> dict[str, str]:
    """Return the environment variables of a component of a deployment by name."""
    texts = raw.get(f"{component}EnvVars") or []
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def schema_variables_of(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a deployment that name its schema."""
    names = (SCHEMA_ID, FEATURE_VIEW, FEATURE_VIEW_VERSION, TRAINING_DATASET)
    found = variables_of(raw)
    return {name: found[name] for name in names if name in found}


def schema_id_of(deployment: Deployment) -> str | None:
    """Return the id of the schema that a deployment names; None if it has none."""
    return variables_of(deployment.raw).get(SCHEMA_ID) or None


def batch_rows_of(raw: Mapping[str, Any]) -> int | None:
    """Return the limit of rows that the variables of a deployment set; None if they set none."""
    text = variables_of(raw).get(MAX_BATCH_ROWS, "").strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None


def write_variables(body: dict[str, Any], variables: Mapping[str, str | None]) -> None:
    """
    Set the variables of a schema in the body of a request, on each of its components, and name the one that enforces.

    :param body: modified in place
    :param variables: from ``DeploymentSchema.variables``; other variables are kept
    """
    components = ["predictor", *(["transformer"] if body.get("transformer") else [])]
    for component in components:
        wanted = {**variables, ENFORCER: components[-1]}
        texts, written = [], set()
        for text in body.get(f"{component}EnvVars") or []:
            name = text.partition("=")[0]
            if name not in wanted:
                texts.append(text)
            elif name not in written and wanted[name] is not None:
                texts.append(f"{name}={wanted[name]}")
            # A name may be listed twice: its later values would win.
            written.add(name)
        texts += [f"{name}={value}" for name, value in wanted.items() if value is not None and name not in written]
        body[f"{component}EnvVars"] = texts


def are_written(raw: Mapping[str, Any], variables: Mapping[str, str | None]) -> bool:
    """Return whether each component of a stored deployment has the variables of a schema."""
    components = ["predictor", *(["transformer"] if raw.get("transformer") else [])]
    found = [variables_of(raw, component) for component in components]
    return all(own.get(name) == value for own in found for name, value in variables.items())


def are_alike(model: str | None, feature: str | None) -> bool:
    """
    Return whether the default predictor takes a feature for a model's input: their types are of one family.

    :param model: the type in the model's schema: one of the feature store, or the name of a pandas dtype; None if it is
        unknown
    :param feature: the type in the feature store, or again in a model's schema; None if it is unknown
    """
    families = _family(model), _family(feature)
    return None in families or families[0] == families[1]


def _family(kind: str | None) -> str | None:
    """Return the family of a type; None for an unknown one, which fits any."""
    text = (kind or "").strip().lower()
    return next((family for family, pattern in _FAMILIES.items() if pattern.match(text)), None)


def with_batch_rows(rendered: Any, most: int) -> bool:
    """
    Set the largest number of rows in a published JSON Schema or OpenAPI document.

    :param rendered: the document; modified in place
    :return: False if it does not have the known form
    """
    try:
        request = rendered["request"] if "request" in rendered else rendered["components"]["schemas"]["PredictRequest"]
        for form in request["properties"]["instances"]["oneOf"]:
            form["maxItems"] = most
    except (KeyError, TypeError):
        return False
    return True


# --- Normalisation: the id is the hash of this form ----------------------------------------------------------------


def _normalised(data: Any) -> dict[str, Any]:
    """
    Return a document in the form that is hashed.

    :raises ValueError: it has another version, unknown keys or wrong types
    """
    _check_keys("the document", data, _KEYS)
    if data.get("schemaVersion") != VERSION or isinstance(data["schemaVersion"], bool):
        message = f"schemaVersion is not {VERSION}"
        raise wire.FormError(message)
    wire.check(data, {"trainingDatasetVersion": int, "inferred": bool, "maxBatchRows": int})
    groups = {group: [_field(group, item) for item in _list(group, data.get(group))] for group in GROUPS}
    names = [field["name"] for fields in groups.values() for field in fields]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        message = f"field {twice[0]!r} is there twice"
        raise wire.FormError(message)
    rows = data.get("maxBatchRows")
    return {
        "schemaVersion": VERSION,
        **groups,
        "featureView": _feature_view(data.get("featureView")),
        "trainingDatasetVersion": data.get("trainingDatasetVersion"),
        "output": _output(data.get("output")),
        "inferred": bool(data.get("inferred")),
        "maxBatchRows": rows if rows is not None and rows > 0 else DEFAULT_MAX_BATCH_ROWS,
    }


def _check_keys(where: str, data: Any, known: frozenset[str]) -> None:
    if not isinstance(data, dict):
        message = f"{where} is {wire.kind_of(data)}"
        raise wire.FormError(message)
    if unknown := sorted(set(data) - known):
        message = f"{where} has the unknown key {unknown[0]!r}"
        raise wire.FormError(message)


def _list(where: str, data: Any) -> list[Any]:
    if data is None:
        return []
    if not isinstance(data, list):
        message = f"{where} is {wire.kind_of(data)}"
        raise wire.FormError(message)
    return data


def _field(group: str, data: Any) -> dict[str, Any]:
    data = {"name": data} if isinstance(data, str) else data
    _check_keys(f"a field of {group}", data, _FIELD_KEYS)
    wire.resource(data, {"name": str}, {"type": str, "nullable": bool, "description": str})
    nullable = data.get("nullable")
    field = {
        "name": data["name"],
        "type": _type(data.get("type")),
        "nullable": group != "servingKeys" if "nullable" not in data else bool(nullable),
    }
    return field | ({"description": data["description"]} if data.get("description") is not None else {})


def _type(text: str | None) -> str | None:
    return None if text is None else text.strip().lower()


def _feature_view(data: Any) -> dict[str, Any] | None:
    if data is None:
        return None
    _check_keys("featureView", data, frozenset({"name", "version"}))
    wire.check(data, {"name": str, "version": int}, "featureView")
    return {"name": data.get("name"), "version": data.get("version")}


def _output(data: Any) -> dict[str, Any]:
    data = {} if data is None else data
    _check_keys("output", data, frozenset({"kind", "columns"}))
    wire.check(data, {"kind": str}, "output")
    kind = data.get("kind") or _OUTPUT_KINDS[0]
    if kind not in _OUTPUT_KINDS:
        message = f"output.kind is none of {', '.join(_OUTPUT_KINDS)}"
        raise wire.FormError(message)
    columns = None if data.get("columns") is None else _list("output.columns", data["columns"])
    return {"kind": kind, "columns": None if columns is None else columns_of(columns)}


def columns_of(columns: list[Any]) -> list[dict[str, Any]]:
    """
    Return the names and types of columns, as they are hashed.

    :raises ValueError: a column has no name, or unknown keys
    """
    for column in columns:
        _check_keys("an output column", column, frozenset({"name", "type"}))
        wire.resource(column, {"name": str}, {"type": str})
    return [{"name": column["name"], "type": _type(column.get("type"))} for column in columns]
