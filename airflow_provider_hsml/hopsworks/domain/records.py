"""
Records: rows with named columns, of which some are for the model, and others tell how to judge its predictions.

Which columns a model takes is known from the schema of the deployment's requests or from the version's registered
example. A record that holds the whole row for the model in its column ``instance`` needs neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from . import arguments
from .plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .deployment_schema import DeploymentSchema

Record = Mapping[str, Any]

MOST_ROWS = 100_000
"""Rows of a comparison."""
INSTANCE = "instance"
"""The column that holds a whole row as the model takes it."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that are not for the model, or not for it alone."""

    label: str | None = None
    """The column with the true value."""
    group: str | None = None
    """Rows with the same value belong together: those of one user or day."""
    time: str | None = None
    """The column with the time of the row."""
    slices: tuple[str, ...] = ()
    """The columns by whose values the rows are compared apart."""

    @classmethod
    def read(cls, label: object, group: object, time: object, slices: object) -> Columns:
        """
        Read the arguments of these names.

        :raises InvalidInputError: a name is no text, or one is given twice
        """
        given = {"label_column": label, "group_column": group, "time_column": time}
        names = {what: None if value is None else arguments.text(what, value) for what, value in given.items()}
        several = () if slices is None else tuple(arguments.sequence("slice_columns", slices))
        for name in several:
            arguments.text("slice_columns", name)
        if names["label_column"] is not None and names["label_column"] in (*several, names["time_column"]):
            arguments.refuse("label_column", "a column of its own, not one that has another use", label)
        if len(set(several)) < len(several):
            arguments.refuse("slice_columns", "each column once", list(several))
        return cls(names["label_column"], names["group_column"], names["time_column"], several)

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield the argument and the column for each column that is needed in every record."""
        for what, name in (("label_column", self.label), ("group_column", self.group), ("time_column", self.time)):
            if name is not None:
                yield what, name
        for name in self.slices:
            yield "slice_columns", name


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model version takes as a row."""

    source: str = ""
    """What is known it from, for messages; empty when nothing is known."""
    names: tuple[str, ...] | None = None
    """The names of an object's values; None if rows are no objects."""
    required: frozenset[str] = frozenset()
    """Those of them that some record has to have."""
    width: int | None = None
    """The number of a list's values; None if rows are no lists; 0 if a row is a single value."""

    @classmethod
    def of_schema(cls, schema: DeploymentSchema) -> Shape:
        """Return what a deployment with this schema takes."""
        names = tuple(field.name for field in schema.fields)
        required = frozenset(field.name for field in schema.fields if field.required)
        return cls(f"the deployment's schema {schema.id}", names, required)

    @classmethod
    def of_example(cls, body: Mapping[str, Any]) -> Shape:
        """
        Return what a model takes.

        :param body: a request with its registered example
        """
        rows = body.get("instances", body.get("inputs"))
        row = rows[0] if isinstance(rows, list) and rows else None
        source = "the registered example of the version"
        if isinstance(row, Mapping):
            return cls(source, tuple(row), frozenset(row))
        if isinstance(row, list):
            return cls(source, width=len(row))
        return cls() if row is None else cls(source, width=0)


def read_records(what: str, value: object, columns: Columns, *, most: int = MOST_ROWS) -> list[Record]:
    """
    Read records, and check that each has the columns that are needed.

    :param what: the argument's name, for messages
    :param value: a list of mappings
    :param most: the number of rows that are accepted
    :raises InvalidInputError: naming the first row at fault; the first row is row 0
    """
    rows = plain(what, arguments.sequence(what, value))
    if not rows:
        message = f"{what}: expected rows, got none.\nCheck why there are none."
        raise InvalidInputError(message)
    if len(rows) > most:
        message = f"{what}: expected at most {most:,} rows, got {len(rows):,}.\nTake a sample of them."
        raise InvalidInputError(message)
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            # The message leaves the row out, since it may hold personal data.
            arguments.refuse(f"{what}[{number}]", "a record, values by their columns' names", type(row).__name__)
    check_columns(what, rows, columns)
    return list(rows)


def check_columns(what: str, records: Sequence[Record], columns: Columns) -> None:
    """
    Check that each record has the columns that are needed.

    Labels that are null are unknown, and so are slices; the comparison leaves those rows out, and counts them.

    :param what: the argument's name, for messages
    :raises InvalidInputError: naming the first row at fault, the first row is row 0; or no row has a label
    """
    needed = list(columns.named())
    for number, record in enumerate(records):
        for argument, name in needed:
            if name not in record:
                _refuse(what, number, argument, name, "is not in the record")
            if record[name] is None and argument in ("group_column", "time_column"):
                _refuse(what, number, argument, name, "is null")
    if columns.label is not None and all(record[columns.label] is None for record in records):
        message = (
            f"{what}: the column {columns.label!r} of label_column is null in all rows.\nGive the labels, or leave "
            "label_column and metrics out to compare the answers alone."
        )
        raise InvalidInputError(message)


def _refuse(what: str, number: int, argument: str, name: str, fault: str) -> None:
    message = (
        f"{what}[{number}]: the column {arguments.shown(name)} of {argument} {fault}.\nGive it a value, leave the row "
        f"out, or leave {argument} out."
    )
    raise InvalidInputError(message)


def instances(
    what: str, records: Sequence[Record], columns: Columns, shape: Shape, *, is_ordered: bool = True
) -> list[Any]:
    """
    Return what is sent to the model for each record.

    :param what: the argument's name, for messages
    :param records: as ``read_records`` returns them
    :param shape: what the version takes
    :param is_ordered: whether the columns of the records have the order in which they were written, as in a file
    :raises InvalidInputError: the records lack what it takes, or it takes the label
    """
    if all(INSTANCE in record for record in records):
        return [record[INSTANCE] for record in records]
    if shape.names is not None:
        if columns.label in shape.names:
            message = (
                f"{what}: {shape.source} has the column {columns.label!r} of label_column, so the model would be sent "
                "the labels.\nRegister the version with an example without it, or give each row as the model takes it "
                f"in a column {INSTANCE!r}."
            )
            raise InvalidInputError(message)
        _check_required(what, records, shape)
        return [{name: record[name] for name in shape.names if name in record} for record in records]
    if shape.width is None:
        beside = {columns.label, columns.group, columns.time}
        return [{name: value for name, value in record.items() if name not in beside} for record in records]
    if shape.width > 1 and not is_ordered:
        # Airflow 3.2 and later store XComs as JSONB in PostgreSQL, which sorts the keys of an object.
        message = (
            f"{what}: {shape.source} is a list of {shape.width} values, and records from another task may have lost "
            f"the order of their columns.\nGive each row as the model takes it in a column {INSTANCE!r}, or the "
            "rows in a file."
        )
        raise InvalidInputError(message)
    names = _columns_of_list(what, records[0], columns, shape)
    for number, record in enumerate(records):
        for name in names:
            if name not in record:
                message = f"{what}[{number}]: the column {name!r} is missing, which row 0 has.\nGive all rows the same."
                raise InvalidInputError(message)
    if shape.width == 0:
        return [record[names[0]] for record in records]
    return [[record[name] for name in names] for record in records]


def _check_required(what: str, records: Sequence[Record], shape: Shape) -> None:
    """Raise an error for a column that no record has: a model may well answer without it, and otherwise."""
    missing = set(shape.required)
    for record in records:
        missing -= record.keys()
        if not missing:
            return
    message = (
        f"{what}: no row has the column {', '.join(sorted(map(repr, missing)))}, which {shape.source} has.\nAdd it, or "
        f"give each row as the model takes it in a column {INSTANCE!r}."
    )
    raise InvalidInputError(message)


def _columns_of_list(what: str, record: Record, columns: Columns, shape: Shape) -> list[str]:
    """Return the columns of which a row for the model is a list, in their order."""
    width = max(shape.width or 0, 1)
    label, beside = {columns.label}, {columns.label, columns.group, columns.time}
    for left_out in (label, beside, beside | set(columns.slices)):
        names = [name for name in record if name not in left_out]
        if len(names) == width:
            return names
    names = [name for name in record if name not in beside]
    message = (
        f"{what}: {shape.source} has {width} values, and the rows have {len(names)} columns for the model: "
        f"{arguments.shown(names)}.\nLeave the others out, or give each row as the model takes it in a column "
        f"{INSTANCE!r}."
    )
    raise InvalidInputError(message)
