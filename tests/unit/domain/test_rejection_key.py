"""A version is rejected with the configuration that failed, and with every one after two of them."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain.rejection_key import is_same_configuration, rejection_key
from tests.support.fake import row


def live(**changes: Any) -> dict[str, Any]:
    return row() | {"predictor": "/Projects/demo/Resources/a-0123456789abcdef.py"} | changes


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({}, True),
        ({"predictor": "a-0123456789abcdef.py"}, True),
        ({"description": "another", "inferenceLogging": "ALL", "requestedInstances": 7}, True),
        ({"predictorEnvVars": [{"name": "A", "value": "1"}]}, True),
        ({"predictor": "/Projects/demo/Resources/a-fedcba9876543210.py"}, False),
        ({"transformer": "/Projects/demo/Resources/t.py"}, False),
        ({"configFile": "/Projects/demo/Resources/c.yml"}, False),
        ({"modelServer": "VLLM"}, False),
        ({"apiProtocol": "GRPC"}, False),
        ({"predictorEnvironment": {"name": "other"}}, False),
    ],
)
def test_covers_what_makes_an_answer(changes: dict[str, Any], is_same: bool) -> None:
    key = rejection_key(live(), with_resources=False)

    assert is_same_configuration(key, live(**changes)) is is_same


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        ("/Projects/demo/Resources/v2/pre.py", False),
        ("hdfs://namenode/Projects/demo/Resources/v1/pre.py", True),
    ],
)
def test_a_script_of_the_project_counts_by_its_whole_path(other: str, is_same: bool) -> None:
    key = rejection_key(live(predictor="/Projects/demo/Resources/v1/pre.py"), with_resources=False)

    assert is_same_configuration(key, live(predictor=other)) is is_same


def test_a_copy_of_a_script_counts_by_its_name() -> None:
    copy = "/Projects/demo/Models/digits/2/Artifacts/7/predictor-pre.py"
    key = rejection_key(live(predictor=copy), with_resources=False)

    assert is_same_configuration(key, live(predictor="predictor-pre.py"))
    assert is_same_configuration(key, live(predictor=copy.replace("/7/", "/8/")))


def test_covers_resources_where_instances_did_not_come_up() -> None:
    more = {"predictorResources": {"requests": {"memory": 4096}}}

    assert not is_same_configuration(rejection_key(live(), with_resources=True), live(**more))
    assert is_same_configuration(rejection_key(live(), with_resources=False), live(**more))


def test_leaves_out_the_number_of_instances() -> None:
    more = {"requestedInstances": 3, "requestedTransformerInstances": 2}

    assert is_same_configuration(rejection_key(live(), with_resources=True), live(**more))


def test_without_a_key_every_configuration_is_the_same() -> None:
    assert is_same_configuration(None, live(predictor="b.py"))
