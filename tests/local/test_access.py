"""Who gets in, and what those who do not are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

if TYPE_CHECKING:
    from airflow_provider_hsml.local import LocalServing
    from tests.local.conftest import Client


def test_without_a_key(serving: LocalServing) -> None:
    answer = requests.get(f"{serving.url}/hopsworks-api/api/project", timeout=5, verify=True)

    assert (answer.status_code, answer.json()["errorCode"]) == (401, 200003)
    assert answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("reader.wrong", (401, 320012)),
        ("unknown.secret", (401, 320013)),
        ("nobody.secret", (403, 320004)),
    ],
)
def test_with_a_key_that_does_not_do(unchanged: Client, key: str, expected: tuple[int, int]) -> None:
    assert unchanged.refused("GET", "/serving", key=key) == expected


def test_a_missing_scope_is_named(unchanged: Client) -> None:
    answer = unchanged.ask("GET", f"/modelregistries/{unchanged.serving.project_id}/models", key="reader.secret")

    assert (answer.status_code, answer.json()["errorCode"]) == (403, 320004)
    assert "MODELREGISTRY" in answer.json()["usrMsg"]


def test_projects(unchanged: Client) -> None:
    found = unchanged.give("GET", "//project/getProjectInfo/example")

    assert (found["projectId"], found["projectName"]) == (unchanged.serving.project_id, "example")
    assert unchanged.give("GET", "//project/119")["projectName"] == "example"
    assert unchanged.give("GET", "//project")[0]["project"]["name"] == "example"
    assert unchanged.refused("GET", "//project/getProjectInfo/unknown") == (404, 150004)
    assert unchanged.refused("GET", "//project/getProjectInfo/foreign") == (403, 160000)
    assert unchanged.refused("GET", "//project/120/serving") == (403, 160000)
    assert unchanged.refused("GET", "//project/9999/serving") == (404, 150004)


def test_what_the_cluster_says_of_itself(unchanged: Client) -> None:
    assert unchanged.give("GET", "//variables/versions") == [{"software": "hopsworks", "version": "5.2.0"}]
    assert unchanged.give("GET", "//variables/kube_kserve_installed") == {"successMessage": "true"}
    assert unchanged.refused("GET", "//variables/unknown") == (404, 100050)


def test_what_is_not_built_is_a_loud_501(unchanged: Client) -> None:
    answer = unchanged.ask("GET", "/jupyter")

    assert answer.status_code == 501
    assert "GET /hopsworks-api/api/project/119/jupyter" in answer.json()["usrMsg"]
