"""
The schema of a deployment's requests, as an instance enforces it: which rows it takes, and how it refuses others.

``EnforcingEngine`` wraps an engine. An instance whose deployment names a schema checks each prediction of the V1
protocol before the model sees it. Hopsworks' default predictor also looks features up and checks at its start that the
schema is of its model; here this module does both, since that predictor needs Hopsworks' SDK.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .engines import Answer

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .engines import Engine, Forwarded, Instance, Logs, ModelFiles

DEFAULT_PREDICTOR = "default_predictor.py"
"""The script that Hopsworks' SDK uploads for a deployment that it serves with its default predictor."""
SCHEMA_VARIABLE = "SERVING_SCHEMA_ID"
GROUPS = ("servingKeys", "passedFeatures", "requestParameters", "extraLoggingFeatures")
_DEFAULT_MOST = 512
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_INTEGER = re.compile(r"-?[0-9]+")
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_BASE64 = re.compile(r"([A-Za-z0-9+/=]{4})*")


@dataclass(frozen=True, slots=True)
class RequestSchema:
    """
    A published schema, with the features of its model.

    :param document: as published
    :param inputs: the columns of the model, if the default predictor assembles them; None for a script of one's own
    :param entity: finds the online features of an entity by its serving keys; None if there is none
    """

    document: Mapping[str, Any]
    inputs: Sequence[str] | None = None
    entity: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] = lambda _keys: None

    @property
    def serving_keys(self) -> list[str]:
        """The names of the serving keys."""
        return [field["name"] for field in self.document.get("servingKeys") or []]

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The fields, in the order of a row without names."""
        return [field for group in GROUPS for field in self.document.get(group) or []]

    def answer(self, name: str, request: Forwarded) -> Answer | Forwarded:
        """
        Check a prediction.

        :param name: of the deployment
        :return: the refusal, or the request for the model
        """
        try:
            body = json.loads(request.body)
            rows = body.get("instances", body.get("inputs"))
        except (ValueError, AttributeError, RecursionError):
            return request  # The model server says what is wrong with it.
        headers = {key.lower(): value for key, value in request.headers.items()}
        request_id = headers.get("x-request-id") or str(uuid.uuid4())
        most = self.document.get("maxBatchRows") or _DEFAULT_MOST
        if isinstance(rows, list) and len(rows) > most:
            text = f"The request has {len(rows)} rows, and {name} takes at most {most}."
            return self._refusal(413, "BATCH_TOO_LARGE", text, request_id)
        if found := faults(self.fields, rows, optional=self.document.get("extraLoggingFeatures") or ()):
            order = ", ".join(field["name"] for field in self.fields)
            text = f"The request does not match the schema of {name}. Fields in order: {order}."
            return self._refusal(400, "SCHEMA_VALIDATION", text, request_id, found)
        if self.inputs is None:
            return request
        named = [row if isinstance(row, dict) else dict(zip(self._names(), row, strict=True)) for row in rows]
        entities = [self.entity({key: row[key] for key in self.serving_keys}) for row in named]
        if self.serving_keys and (
            missing := [
                _fault(number, ", ".join(self.serving_keys), "no entity with these serving keys")
                for number, entity in enumerate(entities)
                if entity is None
            ]
        ):
            return self._refusal(404, "ENTITY_NOT_FOUND", "Some rows match no entity.", request_id, missing)
        vectors = [
            [{**(entity or {}), **row}.get(column) for column in self.inputs]
            for row, entity in zip(named, entities, strict=True)
        ]
        return replace(request, body=json.dumps({"instances": vectors}).encode())

    def _names(self) -> list[str]:
        return [field["name"] for field in self.fields]

    def _refusal(
        self, status: int, code: str, message: str, request_id: str, errors: Iterable[Any] | None = None
    ) -> Answer:
        detail = {"code": code, "message": message, "request_id": request_id}
        detail |= {"schema_id": self.document.get("schemaId")} | ({"errors": errors} if errors else {})
        return Answer(status, json.dumps({"detail": detail}).encode(), {"content-type": "application/json"})


class EnforcingEngine:
    """
    An engine whose instances enforce the schemas of their deployments.

    :param engine: runs the models
    :param find: returns the schema of a deployment that is about to start, None without one; may raise ``StartError``
    """

    def __init__(self, engine: Engine, find: Callable[[ModelFiles], RequestSchema | None]) -> None:
        self._engine = engine
        self._find = find

    def start(self, model: ModelFiles, logs: Logs, cancelled: threading.Event, timeout: float) -> Instance:
        """Load a model, and return when it answers. The default predictor is replaced by the model alone."""
        schema = self._find(model) if model.env.get(SCHEMA_VARIABLE) else None
        if schema is None:
            return self._engine.start(model, logs, cancelled, timeout)
        if schema.inputs is not None:
            model = replace(model, script=None, framework="SKLEARN")
        return _Enforcing(self._engine.start(model, logs, cancelled, timeout), schema, model.deployment)

    async def aclose(self) -> None:
        """Release the resources that all instances share."""
        await self._engine.aclose()


class _Enforcing:
    def __init__(self, instance: Instance, schema: RequestSchema, deployment: str) -> None:
        self._instance = instance
        self._schema = schema
        self._deployment = deployment

    async def ask(self, request: Forwarded) -> Answer:
        path = request.path.partition("?")[0]
        if request.method == "POST" and path == f"/v1/models/{self._deployment}:predict":
            checked = self._schema.answer(self._deployment, request)
            if isinstance(checked, Answer):
                return checked
            request = checked
        return await self._instance.ask(request)

    def failure(self) -> str | None:
        return self._instance.failure()

    def stop(self) -> None:
        self._instance.stop()


# --- Rows -----------------------------------------------------------------------------------------------------------


def faults(fields: Sequence[Mapping[str, Any]], rows: Any, *, optional: Iterable[Mapping[str, Any]]) -> list[Any]:
    """
    Return the faults of rows, each with its row, field and reason.

    :param fields: of the schema, in their order
    :param optional: those of the fields that an object may leave out
    """
    if not isinstance(rows, list):
        return [_fault(None, None, "instances must be an array")]
    if not rows:
        return [_fault(None, None, "instances must not be empty")]
    if len({isinstance(row, dict) for row in rows}) > 1:
        return [_fault(None, None, "rows must all be objects or all be arrays")]
    left_out = {field["name"] for field in optional}
    return [fault for number, row in enumerate(rows) for fault in _of_row(number, row, fields, left_out)]


def _fault(row: int | None, field: str | None, reason: str) -> dict[str, Any]:
    return {"row": row, "field": field, "reason": reason}


def _of_row(number: int, row: Any, fields: Sequence[Mapping[str, Any]], left_out: set[str]) -> list[Any]:
    names = [field["name"] for field in fields]
    if isinstance(row, list):
        if len(row) != len(names):
            return [_fault(number, None, f"expected {len(names)} values, got {len(row)}")]
        row = dict(zip(names, row, strict=True))
    elif not isinstance(row, dict):
        return [_fault(number, None, "a row must be an object or an array")]
    found = [_fault(number, name, "missing") for name in names if name not in row and name not in left_out]
    found += [_fault(number, name, "unknown field") for name in row if name not in names]
    for field in fields:
        value = row.get(field["name"], "")
        if field["name"] not in row:
            continue
        if value is None and not field.get("nullable", True):
            found.append(_fault(number, field["name"], "must not be null"))
        elif value is not None and not is_of(field.get("type"), value):
            found.append(_fault(number, field["name"], f"must be of the type {field['type']}"))
    return found


def _is_integer(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_text(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_time(pattern: re.Pattern[str], read: Callable[[str], object]) -> Callable[[Any], bool]:
    def is_time(value: Any) -> bool:
        if _is_integer(value):
            return True
        try:
            return _is_text(pattern)(value) and read(value.upper()) is not None
        except ValueError:
            return False

    return is_time


_TYPES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("tinyint", "smallint", "int", "integer"), _is_integer),
    "bigint": lambda value: _is_integer(value) or _is_text(_INTEGER)(value),
    **dict.fromkeys(("float", "double"), _is_number),
    "decimal": lambda value: _is_number(value) or _is_text(_DECIMAL)(value),
    **dict.fromkeys(("string", "varchar", "char"), lambda value: isinstance(value, str)),
    "boolean": lambda value: isinstance(value, bool),
    "timestamp": _is_time(_MOMENT, dt.datetime.fromisoformat),
    "date": _is_time(_DATE, dt.date.fromisoformat),
    "binary": _is_text(_BASE64),
}


def is_of(kind: str | None, value: Any) -> bool:
    """
    Return whether a value that is not null has a type of the feature store.

    :param kind: such as ``bigint`` or ``array<double>``; any value has an unknown type
    """
    outer, bracket, inner = (kind or "").partition("<")
    if bracket and inner.endswith(">"):
        return _is_nested(outer, inner[:-1], value)
    check = _TYPES.get(outer.partition("(")[0])
    return check is None or check(value)


def _is_nested(outer: str, inner: str, value: Any) -> bool:
    parts = _parts(inner)
    if outer == "array":
        return isinstance(value, list) and all(item is None or is_of(inner, item) for item in value)
    if outer == "map" and len(parts) == 2:
        return isinstance(value, dict) and all(item is None or is_of(parts[1], item) for item in value.values())
    if outer == "struct":
        members = {name: kind for name, _, kind in (part.partition(":") for part in parts)}
        return (
            isinstance(value, dict)
            and value.keys() == members.keys()
            and all(value[name] is None or is_of(kind, value[name]) for name, kind in members.items())
        )
    return True


def _parts(text: str) -> list[str]:
    """Split types at the commas that are in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += {"<": 1, ">": -1}.get(letter, 0)
        parts += [""] if letter == "," and not depth else []
        parts[-1] += "" if letter == "," and not depth else letter
    return [part.strip() for part in parts]
