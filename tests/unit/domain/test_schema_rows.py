"""Rows against the schema of a deployment's requests, judged as Hopsworks' SDK judges them."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain import schema_rows
from airflow_provider_hsml.hopsworks.domain.deployment_schema import DeploymentSchema
from airflow_provider_hsml.hopsworks.domain.schema_rows import Fault, encoded, matching_body
from airflow_provider_hsml.hopsworks.domain.verification import request_body
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from tests.support.request_schemas import DOCUMENT, SAMPLES

RECORDED = json.loads((SAMPLES / "values.json").read_text())
SCHEMA = DeploymentSchema.read({**DOCUMENT, "extraLoggingFeatures": [{"name": "source", "type": "string"}]}, "x")


def found(rows: Any) -> list[Fault]:
    return list(schema_rows.faults(SCHEMA, rows))


@pytest.mark.parametrize("recorded", RECORDED["types"], ids=[str(one["type"]) for one in RECORDED["types"]])
def test_values_by_type(recorded: dict[str, Any]) -> None:
    schema = DeploymentSchema.read(
        {"schemaVersion": 1, "passedFeatures": [{"name": "f", "type": recorded["type"]}]}, "x"
    )

    accepted = [not list(schema_rows.faults(schema, [{"f": value}])) for value in RECORDED["values"]]

    assert dict(zip(map(str, RECORDED["values"]), accepted, strict=True)) == dict(
        zip(map(str, RECORDED["values"]), recorded["accepted"], strict=True)
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"cc_num": 1, "amount": 2.5}], []),
        ([{"cc_num": 1, "amount": None, "source": None}], []),
        ([[1, 2.5, "web"]], []),
        ([{"cc_num": 1}], [Fault(0, "amount", "missing")]),
        ([{"cc_num": 1, "amount": 1, "x": 1}], [Fault(0, "x", "unknown field")]),
        ([{"cc_num": None, "amount": 1}], [Fault(0, "cc_num", "must not be null")]),
        ([[1, 2.5]], [Fault(0, None, "expected 3 values, got 2")]),
        (["x"], [Fault(0, None, "expected an object or a list, got str")]),
        ([], [Fault(None, None, "there are 0 rows, and at least one is needed")]),
        ([[1, 1, ""]] * 513, [Fault(None, None, "there are 513 rows, and at most 512 are accepted")]),
        ({"cc_num": 1}, [Fault(None, None, "the rows are not a list")]),
        ([[1, 1, ""], {"cc_num": 1}], [Fault(None, None, "some rows are objects and some are lists")]),
    ],
)
def test_faults(rows: Any, expected: list[Fault]) -> None:
    assert found(rows) == expected


def test_all_faults_are_found_and_ten_are_named() -> None:
    rows = [{"cc_num": "x", "amount": "y"}] * 6
    assert len(found(rows)) == 12

    with pytest.raises(InvalidInputError) as error:
        schema_rows.check_body(SCHEMA, {"inputs": rows}, "deployment 'fraud'")

    assert "row 0, field 'cc_num': must be an integer, or one as text (bigint)" in str(error.value)
    assert "row 4, field 'amount'" in str(error.value)
    assert "and 2 more" in str(error.value)
    assert str(error.value).endswith("lists in the order of the fields: cc_num, amount, source.")


def test_a_fault_names_no_value() -> None:
    with pytest.raises(InvalidInputError) as error:
        schema_rows.check_body(SCHEMA, {"instances": [{"cc_num": "secret", "amount": 1}]}, "x")

    assert "secret" not in str(error.value)


class TestEncoded:
    """As recorded of the SDK's own encoder."""

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (dt.datetime(2024, 1, 1, 12, 0, 0, 5), "2024-01-01T12:00:00.000005Z"),  # noqa: DTZ001 - one in UTC
            (dt.datetime(2024, 1, 1, 13, tzinfo=dt.timezone(dt.timedelta(hours=1))), "2024-01-01T12:00:00Z"),
            (dt.date(2024, 1, 1), "2024-01-01"),
            (b"a", "YQ=="),
            (bytearray(b"a"), "YQ=="),
            (Decimal("1.50"), "1.50"),
            (Decimal("0E-10"), "0.0000000000"),
            (Decimal("1E+3"), "1000"),
            ("text", "text"),
            (1.5, 1.5),
            (None, None),
        ],
    )
    def test_values(self, value: Any, text: Any) -> None:
        assert encoded([{"a": value, "b": (value,)}]) == [{"a": text, "b": [text]}]

    def test_a_decimal_that_json_cannot_hold_is_left_to_be_refused(self) -> None:
        assert str(encoded(Decimal("NaN"))) == "NaN"

    def test_a_missing_date(self) -> None:
        """As in pandas, it does not equal itself; it is refused later, with its place."""

        class Missing(dt.datetime):
            def __ne__(self, other: object) -> bool:
                return True

        missing = Missing(2024, 1, 1)

        assert encoded([missing])[0] is missing

    def test_a_frame_becomes_objects(self) -> None:
        frame = Frame(("amount", "at"), (2.5, dt.datetime(2024, 1, 1, tzinfo=dt.UTC)))

        assert encoded(frame, names=frozenset({"amount", "at"})) == [{"amount": 2.5, "at": "2024-01-01T00:00:00Z"}]

    @pytest.mark.parametrize("columns", [(0, 1), ("AMOUNT", "AT"), ("amount", "amount"), ("amount", "other")])
    def test_a_frame_with_other_names_becomes_lists(self, columns: tuple[Any, ...]) -> None:
        assert encoded(Frame(columns, (1, 2)), names=frozenset({"amount", "at"})) == [[1, 2]]

    def test_a_frame_of_unknown_fields_becomes_lists(self) -> None:
        assert encoded(Frame(("amount",), (Decimal("1.5"),))) == [["1.5"]]


class Frame:
    """As much of a frame as is used."""

    def __init__(self, columns: tuple[Any, ...], *rows: tuple[Any, ...]) -> None:
        self.columns = columns
        self.rows = rows

    columns: tuple[Any, ...] = ()

    def itertuples(self, *, index: bool, name: object) -> list[tuple[Any, ...]]:
        assert (index, name) == (False, None)
        return list(self.rows)


class TestMatching:
    """Rows in the form that the schema accepts."""

    def sent(self, kinds: list[str | None], **given: Any) -> Any:
        fields = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(kinds)]
        schema = DeploymentSchema.read({"schemaVersion": 1, "passedFeatures": fields}, "x")
        return matching_body(schema, lambda encode: request_body("", **given, encode=encode) or {}, "x")

    @pytest.mark.parametrize(
        ("kind", "value", "text"),
        [
            ("double", "1.5", "1.5"),
            ("float", "3", "3"),
            ("int", "3", "3"),
            ("bigint", "3", "3"),
            (None, "1.5", "1.5"),
            ("decimal(10,2)", "1.50", '"1.50"'),
            ("decimal(38,10)", "0E-10", '"0.0000000000"'),
            ("decimal(10,0)", "1E+3", '"1000"'),
            ("decimal(38,0)", "1E+400", f'"1{"0" * 400}"'),
            ("string", "1.5", '"1.5"'),
        ],
    )
    def test_decimals(self, kind: str | None, value: str, text: str) -> None:
        by_name = self.sent([kind], instances=[{"f0": Decimal(value)}])
        by_position = self.sent([kind], payload={"inputs": [[Decimal(value)]]})

        assert json.dumps(by_name) == f'{{"instances": [{{"f0": {text}}}]}}'
        assert json.dumps(by_position) == f'{{"inputs": [[{text}]]}}'

    def test_decimals_inside_of_a_value(self) -> None:
        row = {"f0": [Decimal("1.5")], "f1": {"a": Decimal("2.5")}, "f2": Decimal("1.10")}

        body = self.sent(["array<double>", "struct<a:decimal(3,1)>", "decimal(3,2)"], instances=[row])

        assert body == {"instances": [{"f0": [1.5], "f1": {"a": "2.5"}, "f2": "1.10"}]}

    @pytest.mark.parametrize("columns", [(0, 1), ("F0", "F1"), ("f0", "f0"), ("f0", "F1")])
    def test_a_frame_by_position(self, columns: tuple[Any, ...]) -> None:
        body = self.sent(["double", "decimal(3,1)"], instances=Frame(columns, (Decimal("1.5"), Decimal("2.5"))))

        assert body == {"instances": [[1.5, "2.5"]]}

    def test_a_frame_by_name(self) -> None:
        assert self.sent(["double", "int"], instances=Frame(("f1", "f0"), (1, 2.5))) == {
            "instances": [{"f1": 1, "f0": 2.5}]
        }

    def test_the_form_from_before_where_the_encoded_one_is_refused(self) -> None:
        """A date for a text, which an encoder of its own writes: only the plain form has no zone."""
        moment = dt.time(12)

        assert self.sent(["string"], instances=[[moment]]) == {"instances": [["12:00:00"]]}

    def test_columns_of_a_smaller_schema_by_position(self) -> None:
        """By name a field is missing; by position there are as many values as fields."""
        frame = Frame(("f1", "f1"), (1, 2))

        assert self.sent(["int", "int"], instances=frame) == {"instances": [[1, 2]]}

    def test_neither_form(self) -> None:
        with pytest.raises(InvalidInputError, match="row 0, field 'f0': must be an integer"):
            self.sent(["int"], instances=[[b"a"]])
        with pytest.raises(InvalidInputError, match="row 0, field 'f0': must be an integer"):
            self.sent(["int"], instances=[{"f0": Decimal("1.5")}])
