"""What the cluster's administrators have set, and what is refused for it; roles; the serving tool DEFAULT."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local import Administration, Quota
from airflow_provider_hsml.local.world.accounts import SCOPES
from tests.local.conftest import ACCESS, client_of, deployment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.local.conftest import Client

_SCRIPT = "/Projects/example/Resources/predict.py"


@pytest.fixture(scope="module")
def scripted() -> Iterator[Client]:
    """A client that tests share, with a script and topics."""
    topics = {"events": "inferenceschema", "orders": "orderschema"}
    with client_of(administration=Administration(kafka_topics=topics)) as client:
        client.serving.world.project(client.serving.project_id).files.write(_SCRIPT, b"class Predict: ...")
        yield client


# --- Roles, flags, variables


def test_a_data_scientist_reads_and_predicts_and_changes_nothing() -> None:
    access = replace(ACCESS, keys={"scientist.secret": SCOPES}, roles={"scientist.secret": "Data scientist"})
    with client_of(access=access) as client:
        number = client.running()
        as_scientist = {"key": "scientist.secret"}

        assert client.give("GET", f"/serving/{number}", **as_scientist)["name"] == "digits"
        predicted = client.ask("POST", "/inference/models/digits:predict", json={"instances": [[1]]}, **as_scientist)
        assert predicted.status_code == 200
        assert client.give("GET", "//project", **as_scientist)[0]["teamRole"] == "Data scientist"
        for method, path in (
            ("PUT", "/serving"),
            ("POST", f"/serving/{number}?action=STOP"),
            ("POST", f"/serving/{number}/rollback"),
            ("DELETE", f"/serving/{number}"),
            ("PUT", f"/serving/{number}/tags/approval"),
        ):
            assert client.refused(method, path, json=deployment("other"), **as_scientist) == (403, 150068)
        assert client.see(number)["status"] == "Running"


def test_without_the_feature_flag(caplog: pytest.LogCaptureFixture) -> None:
    with client_of(administration=Administration({"enable_data_science_profile": "false"})) as client:
        registry = f"/modelregistries/{client.serving.project_id}/models"
        for path in ("/serving", registry, "/inference/endpoints"):
            assert client.refused("GET", path) == (400, 120012)
        assert client.give("GET", "/dataset/Models")["attributes"]["dir"]
        assert client.give("GET", "//variables/enable_data_science_profile") == {"successMessage": "false"}
    assert "Traceback" not in caplog.text


def test_variables(unchanged: Client) -> None:
    assert unchanged.give("GET", "//servingconf", key="")["kafkaTopicSchema"] == "inferenceschema"
    assert unchanged.refused("GET", "//variables/kube_master_url") == (403, 200014)
    assert "VLLM" in unchanged.give("GET", "/serving/vllmImageTags")


# --- Bounds and quotas


@pytest.mark.parametrize(
    ("bounds", "fields", "is_refused"),
    [
        ({"max": "3"}, {"requestedInstances": 4}, True),
        ({"max": "3"}, {"requestedInstances": 3}, False),
        ({"max": "3"}, {"predictorScalingConfig": {"minInstances": 1, "maxInstances": 4}}, True),
        ({"min": "0"}, {"requestedInstances": 1}, True),
        ({"min": "0"}, {"requestedInstances": 0}, False),
        ({"min": "0"}, {"requestedInstances": 0, "predictorScalingConfig": {"minInstances": 1}}, True),
        ({"min": "2"}, {"requestedInstances": 1}, True),
        ({"max": "-1"}, {"requestedInstances": 1000}, False),
    ],
)
def test_bounds_of_instances(bounds: dict[str, str], fields: dict[str, Any], is_refused: bool) -> None:
    variables = {f"kube_serving_{end}_num_instances": number for end, number in bounds.items()}
    with client_of(administration=Administration(variables)) as client:
        answer = client.ask("PUT", "/serving", json=deployment(**fields))

    assert answer.status_code == (422 if is_refused else 201)


def test_quota_of_deployments() -> None:
    with client_of(administration=Administration(quota=Quota(deployments=1))) as client:
        number = client.put()["id"]
        answer = client.ask("PUT", "/serving", json=deployment("second"))

        assert (answer.status_code, answer.json()["errorCode"]) == (400, 240026)
        assert "quota reached" in answer.json()["usrMsg"]
        client.give("DELETE", f"/serving/{number}")
        assert client.put("second")["id"]


def test_quota_of_running_deployments() -> None:
    """A Failed one counts; what waits for room does not get it by waiting."""
    with client_of(administration=Administration(quota=Quota(running=1))) as client:
        failed, other = client.put("failed", modelVersion=3)["id"], client.put("other")["id"]
        client.until(failed, "Created")
        client.until(other, "Created")
        client.give("POST", f"/serving/{failed}?action=START")
        client.until(failed, "Failed")

        answer = client.ask("POST", f"/serving/{other}?action=START")
        assert (answer.status_code, answer.json()["errorCode"]) == (400, 240003)
        assert "quota reached" in answer.json()["usrMsg"]
        assert client.see(other)["status"] == "Created"
        client.give("POST", f"/serving/{failed}?action=STOP")
        client.give("POST", f"/serving/{other}?action=START")
        client.until(other, "Running")


# --- The serving tool


def test_without_kserve() -> None:
    with client_of(administration=Administration({"kube_kserve_installed": "false"})) as client:
        assert client.refused("PUT", "/serving", json=deployment()) == (400, 240015)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"predictor": None}, (400, 240018)),
        ({"transformer": _SCRIPT, "requestedTransformerInstances": 1}, (400, 240021)),
        ({"inferenceLogging": "PREDICTIONS", "kafkaTopicDTO": {"name": "events"}}, (400, 240024)),
        ({"batchingConfiguration": {"batchingEnabled": True}}, (400, 240025)),
        ({"batchingConfiguration": {"batchingEnabled": False, "maxBatchSize": 5}}, (400, 240025)),
        ({"requestedInstances": None}, (422, 120001)),
    ],
)
def test_what_the_tool_default_refuses(scripted: Client, fields: dict[str, Any], expected: tuple[int, int]) -> None:
    body = deployment(**{"servingTool": "DEFAULT", "predictor": _SCRIPT} | fields)

    assert scripted.refused("PUT", "/serving", json=body) == expected


def test_the_tool_default_has_one_instance(scripted: Client) -> None:
    number = scripted.put("single", servingTool="DEFAULT", predictor=_SCRIPT, requestedInstances=3)["id"]

    seen = scripted.see(number)
    assert (seen["requestedInstances"], seen["predictorScalingConfig"]["minInstances"]) == (1, 1)


# --- Topics, vLLM


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kafkaTopicDTO": {"name": "unknown"}}, (400, 240022)),
        ({"kafkaTopicDTO": {"name": "orders"}}, (400, 240023)),
        ({"kafkaTopicDTO": {"name": "CREATE", "numOfPartitions": 0}}, (400, 190015)),
        ({"kafkaTopicDTO": {"name": "CREATE", "numOfReplicas": "many"}}, (400, 190015)),
        ({"inferenceLogging": "NONE", "kafkaTopicDTO": {"name": "events"}}, (422, 120001)),
        ({"kafkaTopicDTO": {"name": "NONE"}}, (422, 120001)),
        ({"inferenceLogging": "NONE", "vllmVariant": "VLLM"}, (422, 120001)),
    ],
)
def test_what_a_logger_may_not_be(scripted: Client, fields: dict[str, Any], expected: tuple[int, int]) -> None:
    body = deployment("logged", **{"inferenceLogging": "ALL"} | fields)

    assert scripted.refused("PUT", "/serving", json=body) == expected


def test_topics_are_created_kept_and_detached(client: Client) -> None:
    topic = {"name": "CREATE", "numOfReplicas": 1, "numOfPartitions": 2}
    number = client.running(inferenceLogging="ALL", kafkaTopicDTO=topic)
    before = client.see(number)
    name = before["kafkaTopicDTO"]["name"]

    assert name.startswith("digits-inf")
    assert name.removeprefix("digits-inf").isdecimal()
    assert len(name) == len("digits-inf") + 4
    client.give("PUT", "/serving", json=before)
    assert client.see(number)["kafkaTopicDTO"] == before["kafkaTopicDTO"]
    assert client.see(number)["revision"] == before["revision"]
    client.give("PUT", "/serving", json=before | {"kafkaTopicDTO": {"name": "NONE"}, "inferenceLogging": None})
    assert client.see(number)["kafkaTopicDTO"] is None
    assert client.see(number)["inferenceLogging"] == "NONE"
    second = client.put("second", inferenceLogging="MODEL_INPUTS", kafkaTopicDTO={"name": name})["id"]
    assert client.see(second)["kafkaTopicDTO"]["name"] == name
