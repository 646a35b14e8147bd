"""Records: the columns that are needed, and what is sent to a model for each."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain.deployment_schema import DeploymentSchema
from airflow_provider_hsml.hopsworks.domain.records import Columns, Shape, instances, read_records
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

ALL = Columns("y", "who", "at", ("land",))
SCHEMA = DeploymentSchema.read(
    {
        "schemaVersion": 1,
        "passedFeatures": [{"name": "a", "type": "bigint"}],
        "extraLoggingFeatures": [{"name": "z", "type": "string"}],
    },
    "x",
)
RECORD = {"a": 1, "b": "two", "y": 0, "who": 7, "at": "2026-11-01", "land": None}


class TestColumns:
    def test_are_read(self) -> None:
        assert Columns.read("y", "who", "at", ["land"]) == ALL
        assert Columns.read(None, None, None, None) == Columns()
        assert [name for _, name in ALL.named()] == ["y", "who", "at", "land"]

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (("", None, None, None), "label_column: expected a text"),
            ((None, 1, None, None), "group_column: expected a text"),
            (("y", None, "y", None), "label_column: expected a column of its own"),
            (("y", None, None, ["y"]), "label_column: expected a column of its own"),
            ((None, None, None, "land"), "slice_columns: expected a list"),
            ((None, None, None, [1]), "slice_columns: expected a text"),
            ((None, None, None, ["a", "a"]), "slice_columns: expected each column once"),
        ],
    )
    def test_that_are_none(self, given: Any, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            Columns.read(*given)


class TestRecords:
    def test_are_read(self) -> None:
        assert read_records("input", (RECORD,), ALL) == [RECORD]
        assert read_records("input", [RECORD, {"a": 1, "b": 2}], Columns())[1] == {"a": 1, "b": 2}
        assert len(read_records("input", [RECORD, {**RECORD, "y": None}], ALL)) == 2, "some labels may be unknown"

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([], "input: expected rows, got none"),
            ("abc", "input: expected a list"),
            (RECORD, "input: expected a list"),
            ([RECORD] * 4, "input: expected at most 3 rows, got 4"),
            ([RECORD, ["Ann"]], r"input\[1\]: expected a record, values by their columns' names, got 'list'\."),
            ([{**RECORD, "y": None}] * 2, "input: the column 'y' of label_column is null in all rows"),
            ([RECORD, {**RECORD, "who": None}], r"input\[1\]: the column 'who' of group_column is null"),
            ([RECORD, {"a": 1}], r"input\[1\]: the column 'y' of label_column is not in the record"),
            ([{**RECORD, "a": float("inf")}], r"input\[0\].a: expected plain JSON values, got inf \(row 0"),
        ],
    )
    def test_that_are_none(self, rows: Any, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            read_records("input", rows, ALL, most=3)


class TestWhatIsSent:
    @pytest.mark.parametrize(
        ("shape", "sent"),
        [
            (Shape(), {"a": 1, "b": "two", "land": None}),
            (Shape.of_example({"instances": [{"b": 0, "a": 0}]}), {"b": "two", "a": 1}),
            (Shape.of_example({"inputs": [{"a": 0}]}), {"a": 1}),
            (Shape.of_example({"instances": [{"a": 0, "at": ""}]}), {"a": 1, "at": "2026-11-01"}),
            (Shape.of_example({"instances": [[0, 0]]}), [1, "two"]),
            (Shape.of_example({"instances": [[0, 0, 0]]}), [1, "two", None]),
            (Shape.of_example({"instances": [[0] * 5]}), [1, "two", 7, "2026-11-01", None]),
            (Shape.of_example({}), {"a": 1, "b": "two", "land": None}),
            (Shape.of_schema(SCHEMA), {"a": 1}),
        ],
    )
    def test_is_what_the_version_takes(self, shape: Shape, sent: Any) -> None:
        assert instances("input", [RECORD, RECORD], ALL, shape) == [sent, sent]

    def test_lists_of_columns_need_an_order_that_is_kept(self) -> None:
        """XComs of PostgreSQL sort the keys of an object."""
        shape = Shape.of_example({"instances": [[0, 0]]})
        rows = [{"income": 3, "age": 41, "y": 1}]

        assert instances("input", rows, ALL, shape) == [[3, 41]]
        with pytest.raises(InvalidInputError, match=r"lost the order of their columns\.\nGive each row as the model"):
            instances("input", rows, ALL, shape, is_ordered=False)
        whole = [{"instance": [3, 41], "y": 1}]
        assert instances("input", whole, ALL, shape, is_ordered=False) == [[3, 41]]
        one = Shape.of_example({"instances": [[0]]})
        assert instances("input", [{"age": 41, "y": 1}], ALL, one, is_ordered=False) == [[41]]

    def test_is_a_value_alone(self) -> None:
        assert instances("input", [{"text": "fine", "y": 1}], ALL, Shape.of_example({"instances": ["a"]})) == ["fine"]

    def test_is_the_whole_instance_whatever_else_is_there(self) -> None:
        rows = [{"instance": [[1]], "y": 1}, {"instance": "x", "y": 0}]

        assert instances("input", rows, ALL, Shape.of_example({"instances": [[0, 0]]})) == [[[1]], "x"]

    @pytest.mark.parametrize(
        ("example", "rows", "message"),
        [
            ([{"c": 0}], [RECORD], "no row has the column 'c', which the registered example of the version has"),
            (
                [{"a": 0, "y": 0}],
                [RECORD],
                r"version has the column 'y' of label_column, so the model would be sent the labels.\nRegister",
            ),
            ([[0] * 9], [RECORD], r"has 9 values, and the rows have 3 columns for the model: \['a', 'b', 'land'\]"),
            ([[0, 0]], [RECORD, {"a": 1, "y": 1}], r"input\[1\]: the column 'b' is missing, which row 0 has"),
        ],
    )
    def test_that_the_rows_lack_or_that_must_not_be(self, example: Any, rows: Any, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            instances("input", rows, ALL, Shape.of_example({"instances": example}))

    def test_a_column_that_only_some_rows_have_is_left_to_the_model(self) -> None:
        shape = Shape.of_example({"instances": [{"a": 0, "c": 0}]})

        assert instances("input", [{"a": 1}, {"a": 2, "c": 3}], Columns(), shape) == [{"a": 1}, {"a": 2, "c": 3}]
