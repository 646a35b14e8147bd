"""Rows of a table as requests: which columns the model gets, in which form, and which rows cannot be sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from airflow_provider_hsml.hopsworks.domain import arguments, schema_rows
from airflow_provider_hsml.hopsworks.domain.plain import as_json, from_text, plain
from airflow_provider_hsml.hopsworks.domain.records import INSTANCE, Shape
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_hsml.hopsworks.domain.deployment_schema import DeploymentSchema

_MISSING = "the column is missing"
_RESERVED = {"row", "prediction", "error", "field", "reason"}
"""Columns of the result and of the file with the rows that failed."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row without a prediction."""

    field: str | None
    """The column at fault; None if it is not known, or it is the whole row."""
    reason: str

    def __str__(self) -> str:
        """Return both, for messages."""
        return self.reason if self.field is None else f"{self.field}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of the input that are used, as the user names them."""

    model: Mapping[str, str] | None = None
    """The name for the model by the name in the input, in the model's order; None: all but the key columns."""
    keys: tuple[str, ...] = ()
    """The columns that are carried into the result."""

    @classmethod
    def read(cls, columns: object, key_columns: object) -> Self:
        """
        Read the arguments of these names.

        :param columns: names in the model's order, or a mapping of the input's names to the model's; also as JSON text
        :param key_columns: names, or one name
        :raises InvalidInputError: a name is no text, or is given twice
        """
        return cls(None if columns is None else cls._model(columns), cls._keys(key_columns))

    @staticmethod
    def _model(value: object) -> dict[str, str]:
        given = from_text("columns", value, '["age", "income"]')
        if isinstance(given, Mapping):
            names = {arguments.text("columns", old): arguments.text("columns", new) for old, new in given.items()}
        else:
            several = [arguments.text("columns", name) for name in arguments.sequence("columns", given)]
            names = {name: name for name in several}
            if len(names) < len(several):
                arguments.refuse("columns", "each column once", several)
        if not names or len(set(names.values())) < len(names):
            arguments.refuse("columns", "at least one column, and a different name for each", given)
        return names

    @staticmethod
    def _keys(value: object) -> tuple[str, ...]:
        if value is None:
            return ()
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = from_text("key_columns", value, '["customer_id"]')
        given = [value] if isinstance(value, str) else arguments.sequence("key_columns", value)
        names = tuple(arguments.text("key_columns", name) for name in given)
        if _RESERVED & set(names) or len(set(names)) < len(names):
            taken = ", ".join(sorted(_RESERVED))
            expected = f"different names, none of {taken}, which are names of the result or of the errors file"
            arguments.refuse("key_columns", expected, list(names))
        return names

    def to_json(self) -> list[Any]:
        """Return them as plain JSON."""
        return [None if self.model is None else list(self.model.items()), list(self.keys)]


class TableRows(Protocol):
    """Rows that are stored by columns, so that most of them need no look in Python."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the columns."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, places: slice) -> TableRows:
        """Return some of the rows."""

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows as objects; a ``BadRow`` in place of a row or a value that could not be read."""

    def keys(self, names: Sequence[str]) -> dict[str, list[Any]] | None:
        """Return the values of columns as plain JSON values; None if some have to be converted."""

    def texts(self, names: Mapping[str, str], kind: str) -> list[str | None] | None:
        """
        Return rows as JSON.

        :param names: the name for the model by the name in the table
        :param kind: ``object``, ``list`` or ``value``
        :return: None for a row that has to be looked at; None for all if the columns have other types
        """


@dataclass(slots=True)
class Prepared:
    """The rows of one chunk."""

    first: int
    """The number of the first row, from 0."""
    keys: dict[str, list[Any]]
    """The values of each key column; None where a row lacks it."""
    instances: list[str] = field(default_factory=list)
    """The rows that are sent, as JSON."""
    places: Sequence[int] = field(default_factory=list)
    """The place of each of them in the chunk."""
    bad: dict[int, BadRow] = field(default_factory=dict)
    """The rows that cannot be sent, by their places in the chunk."""


@dataclass(frozen=True, slots=True)
class RowForm:
    """What the model gets for a row."""

    columns: Columns
    names: Mapping[str, str] | None
    """The name for the model by the name in the input; None: all columns but the keys, under their own names."""
    kind: str
    """``object``, ``list`` or ``value``."""
    optional: frozenset[str] = frozenset()
    """The columns of the input that a row may lack."""
    schema: DeploymentSchema | None = None
    """The schema of the deployment's requests, which each row has to match."""
    is_read: bool = False
    """Whether the rows were read from files, so that the encoder finds all values that have to be looked at."""

    @classmethod
    def build(
        cls,
        columns: Columns,
        shape: Shape,
        first: object,
        schema: DeploymentSchema | None = None,
        row_format: str | None = None,
    ) -> Self:
        """
        Find out what the model gets for a row.

        :param columns: as the user named them
        :param shape: what is known of the rows that the model takes
        :param first: the first row of the input
        :param schema: the schema of the deployment's requests
        :param row_format: ``list`` or ``record``; None: as the schema or the registered example has it
        :raises InvalidInputError: the columns do not fit
        """
        kind = "object" if shape.width is None else "list" if shape.width else "value"
        kind = {None: kind, "list": "list", "record": "object"}[row_format]
        if not isinstance(first, Mapping) or (INSTANCE in first and columns.model is None):
            return cls(columns, None, kind, schema=schema)
        names, optional = columns.model, frozenset[str]()
        if names is None and shape.names is not None:
            names, optional = {name: name for name in shape.names}, frozenset(shape.names) - shape.required
        elif names is None and kind != "object":
            names = {name: name for name in first if name not in columns.keys}
        if kind == "value" and names is not None and len(names) != 1:
            _refuse_width(shape, 1, names)
        if shape.width and kind == "list" and names is not None and len(names) != shape.width:
            _refuse_width(shape, shape.width, names)
        return cls(columns, names, kind, optional, schema)

    @property
    def used(self) -> set[str] | None:
        """The columns of the input that are used; None for all."""
        return None if self.names is None else {*self.names, *self.columns.keys}

    def prepare(self, first: int, rows: Sequence[Any] | TableRows) -> Prepared:
        """
        Return the rows of a chunk as they are sent.

        :param first: the number of the first row, from 0
        :param rows: as they were read
        """
        keys = None
        if not isinstance(rows, list):
            table = cast("TableRows", rows)
            prepared = self._of_table(first, table)
            if prepared is not None:
                return prepared
            if set(self.columns.keys) <= set(table.names):
                keys = table.keys(self.columns.keys)
        chunk = Prepared(first, {name: [None] * len(rows) for name in self.columns.keys} if keys is None else keys)
        found: list[tuple[int, Any]] = []
        for place, row in enumerate(rows):
            fault = row if isinstance(row, BadRow) else None
            if fault is None and keys is None:
                fault = self._enter_keys(chunk.keys, place, row)
            instance, fault = (None, fault) if fault else self._instance(row)
            if fault is None:
                found.append((place, instance))
            else:
                chunk.bad[place] = fault
        if self.schema is not None and found:
            found = _matching(chunk, _plain(chunk, found, self.schema), self.schema)
        self._encode(chunk, found)
        return chunk

    def _of_table(self, first: int, rows: TableRows) -> Prepared | None:
        """Return the rows of a chunk without a look at each; None if each has to be looked at."""
        names, kind = self.names, self.kind
        if names is None and self.columns.model is None and INSTANCE in rows.names:
            names, kind = {INSTANCE: INSTANCE}, "value"
        elif names is None:
            names, kind = {name: name for name in rows.names if name not in self.columns.keys}, "object"
        elif kind == "object":
            names = {name: new for name, new in names.items() if name in rows.names or name not in self.optional}
        if self.schema is not None or not {*names, *self.columns.keys} <= set(rows.names):
            return None
        keys, texts = rows.keys(self.columns.keys), rows.texts(names, kind)
        if keys is None or texts is None:
            return None
        chunk = Prepared(first, keys, [text for text in texts if text is not None], range(len(texts)))
        if len(chunk.instances) < len(texts):
            self._look(chunk, rows, texts)
        return chunk

    def _look(self, chunk: Prepared, rows: TableRows, texts: Sequence[str | None]) -> None:
        """Look at the rows of a table that have no text."""
        kept = []
        for place, text in enumerate(texts):
            if text is None:
                one = self.prepare(chunk.first + place, list(rows[place : place + 1]))
                if one.bad:
                    chunk.bad[place] = one.bad[0]
                else:
                    kept.append((place, one.instances[0]))
            else:
                kept.append((place, text))
        _keep(chunk, kept)

    def _enter_keys(self, keys: dict[str, list[Any]], place: int, row: Any) -> BadRow | None:
        for name in self.columns.keys:
            if not isinstance(row, Mapping) or name not in row:
                return BadRow(name, _MISSING)
            if isinstance(row[name], BadRow):
                return cast("BadRow", row[name])
            try:
                keys[name][place] = plain(name, schema_rows.encoded(row[name]))
            except InvalidInputError as error:
                return BadRow(name, _first_line(error))
        return None

    def _instance(self, row: Any) -> tuple[Any, BadRow | None]:
        if self.names is None:
            return self._whole(row), None
        if not isinstance(row, Mapping):
            return None, BadRow(None, f"expected an object with the columns, got {type(row).__name__}")
        try:
            found = [row[name] for name in self.names]
        except KeyError:
            return self._part(row, self.names)
        if self.kind == "object":
            return dict(zip(self.names.values(), found, strict=True)), None
        return (found if self.kind == "list" else found[0]), None

    def _part(self, row: Mapping[str, Any], names: Mapping[str, str]) -> tuple[Any, BadRow | None]:
        """Return a row that lacks a column."""
        for name in names:
            if name not in row and (name not in self.optional or self.kind != "object"):
                return None, BadRow(name, _MISSING)
        return {new: row[name] for name, new in names.items() if name in row}, None

    def _whole(self, row: Any) -> Any:
        """Return a row of which the columns are not named."""
        if not isinstance(row, Mapping):
            return row
        if self.columns.model is None and INSTANCE in row:
            return row[INSTANCE]
        return {name: value for name, value in row.items() if name not in self.columns.keys}

    def _encode(self, chunk: Prepared, rows: list[tuple[int, Any]]) -> None:
        """Enter rows as JSON, with their places. Those that JSON cannot hold are entered as bad ones."""
        kept = []
        for place, row in rows:
            try:
                kept.append((place, as_json(row if self.is_read or self.schema else plain("", [row])[0])))
            except (InvalidInputError, TypeError, RecursionError):
                try:
                    kept.append((place, as_json(plain("", [row])[0])))
                except InvalidInputError as error:
                    chunk.bad[place] = _unsendable(row, error)
        _keep(chunk, kept)


def _plain(chunk: Prepared, rows: list[tuple[int, Any]], schema: DeploymentSchema) -> list[tuple[int, Any]]:
    """Return rows with the encodings of a schema. Those that JSON cannot hold are entered as bad ones."""
    try:
        values = _encoded([row for _, row in rows], schema)
    except InvalidInputError:
        kept = []
        for place, row in rows:
            try:
                kept.append((place, _encoded([row], schema)[0]))
            except InvalidInputError as error:
                chunk.bad[place] = _unsendable(row, error)
        return kept
    return [(place, value) for (place, _), value in zip(rows, values, strict=True)]


def _encoded(rows: list[Any], schema: DeploymentSchema) -> list[Any]:
    texts = plain("", schema_rows.encoded(rows))
    numbers = plain("", schema_rows.encoded(rows, decimals=False))
    return list(schema_rows.by_field(schema, texts, numbers))


def _matching(chunk: Prepared, rows: list[tuple[int, Any]], schema: DeploymentSchema) -> list[tuple[int, Any]]:
    """Return the rows that match a schema. The others are entered as bad ones."""
    for fault in schema_rows.faults(schema, [row for _, row in rows]):
        for place, _ in rows if fault.row is None else [rows[fault.row]]:
            chunk.bad.setdefault(place, BadRow(fault.field, fault.reason))
    return [(place, row) for place, row in rows if place not in chunk.bad]


def _keep(chunk: Prepared, kept: Sequence[tuple[int, str]]) -> None:
    chunk.places = [place for place, _ in kept]
    chunk.instances = [instance for _, instance in kept]


def _unsendable(row: Any, error: InvalidInputError) -> BadRow:
    """
    Return the fault of a row that JSON cannot hold.

    :param row: may hold a ``BadRow`` in place of a value
    :param error: its message begins with the place in the list of one row
    """
    values = row.values() if isinstance(row, Mapping) else row if isinstance(row, list) else [row]
    for value in values:
        if isinstance(value, BadRow):
            return value
    place, _, reason = _first_line(error).partition(": ")
    inner = place.removeprefix("[0]").strip(".[]'\"")
    return BadRow(inner or None, reason.replace(" (row 0, the first is row 0)", ""))


def _first_line(error: InvalidInputError) -> str:
    return str(error).partition("\n")[0]


def _refuse_width(shape: Shape, width: int, names: Mapping[str, str]) -> None:
    message = (
        f"input: {shape.source or 'a row for the model'} has {width} values, and there are {len(names)} columns for "
        f"the model: {arguments.shown(list(names))}.\nName those that the model gets in 'columns', in its order."
    )
    raise InvalidInputError(message)
