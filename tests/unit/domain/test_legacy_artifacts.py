"""Hopsworks up to 4.4, where the artifact's number goes along with each change."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.domain import diff, legacy_artifacts
from airflow_provider_hsml.hopsworks.domain.settings import Script, SettingValues
from tests.support.fake import PROJECT, row

OWN = "/Projects/demo/Resources/other.py"


def live(**more: Any) -> dict[str, Any]:
    """A deployment of such a server."""
    return row(version=None, artifactVersion=3, predictor="one.py", predictorScalingConfig=None) | more


def sent(raw: dict[str, Any], desired: SettingValues) -> dict[str, Any]:
    return legacy_artifacts.for_changing(raw, diff.update_body(raw, desired), diff.differences(raw, desired))


def test_a_new_deployment_asks_for_a_new_artifact() -> None:
    assert legacy_artifacts.for_creating({"name": "digits"}) == {"name": "digits", "artifactVersion": -1}


def test_another_model_version_takes_the_scripts_out_of_the_old_artifact() -> None:
    body = sent(live(transformer="two.py"), {"model_version": 2})

    folder = "/Projects/demo/Models/digits/1/Artifacts/3"
    assert body["artifactVersion"] == -1
    assert body["predictor"] == f"{folder}/predictor-one.py"
    assert body["transformer"] == f"{folder}/transformer-two.py"


@pytest.mark.parametrize("lacks", [{"modelPath": None}, {"modelVersion": None}])
def test_a_path_that_cannot_be_told_is_not_made_up(lacks: dict[str, Any]) -> None:
    raw = live(**lacks)

    assert sent(raw, {"model_version": 2})["predictor"] == "one.py"
    assert diff.path_of_script(PROJECT, raw, "predictor", "one.py") == "one.py"
    assert diff.read_settings(PROJECT, raw)["script_file"] == Script("one.py")


def test_the_folder_that_a_server_left_out_is_that_of_the_models_other_versions() -> None:
    path = "/Projects/demo/Models/digits"

    body = sent(live(modelPath=None), {"model_version": 2, "model_path": path})

    assert body["predictor"] == f"{path}/1/Artifacts/3/predictor-one.py"


def test_another_models_folder_has_not_the_scripts() -> None:
    desired = {"model_name": "letters", "model_version": 1, "model_path": "/Projects/demo/Models/letters"}

    assert sent(live(modelPath=None), desired)["predictor"] == "one.py"


def test_another_script_is_sent_by_its_path() -> None:
    body = sent(live(), {"script_file": Script(OWN)})

    assert (body["artifactVersion"], body["predictor"]) == (-1, OWN)


def test_where_neither_changes_both_are_sent_back() -> None:
    body = sent(live(), {"scaling.min_instances": 2})

    assert (body["artifactVersion"], body["predictor"]) == (3, "one.py")
    assert body["requestedInstances"] == 2


def test_a_path_that_is_told_is_sent_back() -> None:
    path = "/Projects/demo/Models/digits/1/Artifacts/3/predictor-one.py"

    assert diff.differences(live(predictor=path), {"script_file": Script("/Projects/demo/Resources/one.py")}) == {}
    assert sent(live(predictor=path), {"model_version": 2})["predictor"] == path


def test_later_ones_are_left_alone() -> None:
    body = sent(row(predictor="one.py"), {"model_version": 2})

    assert "artifactVersion" not in body
    assert body["predictor"] == "one.py"
