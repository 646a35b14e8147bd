"""Rows against the schema of a deployment's requests, judged as Hopsworks' SDK judges them."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain import schema_rows
from airflow_provider_hsml.hopsworks.domain.deployment_schema import DeploymentSchema
from airflow_provider_hsml.hopsworks.domain.schema_rows import Fault, encoded
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
        class Frame:
            columns = ("amount", "at")

            def itertuples(self, *, index: bool, name: object) -> list[tuple[Any, ...]]:
                assert (index, name) == (False, None)
                return [(2.5, dt.datetime(2024, 1, 1, tzinfo=dt.UTC))]

        assert encoded(Frame()) == [{"amount": 2.5, "at": "2024-01-01T00:00:00Z"}]
