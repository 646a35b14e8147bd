"""Deployments over HTTP: what is told, what changes, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local import Speeds
from tests.local.conftest import deployment

if TYPE_CHECKING:
    from airflow_provider_hsml.local import LocalServing
    from tests.local.conftest import Client


@pytest.mark.usefixtures("unhurried")
def test_the_life_of_a_deployment(client: Client) -> None:
    answer = client.ask("PUT", "/serving", json=deployment())
    number = answer.json()["id"]

    assert answer.status_code == 201
    created = client.until(number, "Created")
    assert created["condition"] == {"type": "STOPPED", "status": True, "reason": "Deployment is not running"}
    assert (created["revision"], created["deployed"], created["availableInstances"]) == (None, None, 0)
    assert client.ask("POST", f"/serving/{number}?action=start").content == b"", "in any case, and no body"
    assert client.see(number)["status"] == "Starting"
    running = client.until(number, "Running")
    assert running["condition"] == {"type": "READY", "status": True, "reason": "Deployment is ready"}
    assert (running["availableInstances"], running["version"], running["modelVersion"]) == (1, 1, 1)
    assert running["predictorScalingConfig"] == {"minInstances": 1}
    assert running["projectNamespace"] == "example"
    client.until_routed(number)
    assert client.predict().json() == {"predictions": [1, 1]}
    client.give("POST", f"/serving/{number}?action=STOP")
    assert client.see(number)["status"] == "Stopping"
    stopped = client.until(number, "Stopped")
    assert (stopped["availableInstances"], stopped["deployed"]) == (0, None)
    assert client.ask("DELETE", f"/serving/{number}").content == b""
    assert client.refused("GET", f"/serving/{number}") == (404, 240000)


def test_find(client: Client) -> None:
    first, second = client.put("first")["id"], client.put("second", modelVersion=2)["id"]
    client.until(first, "Created")
    client.until(second, "Created")

    def ids(query: str) -> list[int]:
        return [row["id"] for row in client.give("GET", f"/serving?{query}")]

    assert client.give("GET", "/serving?name=second&expand=mandatorytags")["id"] == second
    assert client.refused("GET", "/serving?name=Second") == (404, 240000)
    assert ids("") == [first, second]
    assert ids("model=digits&modelVersion=2") == [second]
    assert ids("status=created") == [first, second]
    assert ids("status=Running") == []
    assert client.refused("GET", "/serving?modelVersion=2") == (422, 120001)
    assert client.refused("GET", "/serving?status=Sleeping") == (422, 120001)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": None}, (422, 120001)),
        ({"name": "two words"}, (422, 120001)),
        ({"name": "under_score"}, (422, 120001)),
        ({"modelPath": None}, (422, 120001)),
        ({"modelVersion": None}, (422, 120001)),
        ({"modelVersion": "1"}, (422, 120001)),
        ({"modelName": "other"}, (422, 120001)),
        ({"modelFramework": "SPARK"}, (422, 120001)),
        ({"modelServer": None}, (422, 120001)),
        ({"servingTool": "SELDON"}, (422, 120001)),
        ({"requestedInstances": None}, (422, 120001)),
        ({"requestedInstances": -1}, (422, 120001)),
        ({"apiProtocol": "SOAP"}, (422, 120001)),
        ({"predictorEnvVars": ["NOVALUE"]}, (422, 120001)),
        ({"predictorResources": 3}, (422, 120001)),
        ({"predictorResources": {"requests": 3}}, (422, 120001)),
        ({"predictorResources": {"limits": {"gpus": "many"}}}, (422, 120001)),
        ({"predictorResources": {"limits": {"gpus": -1}}}, (422, 120001)),
        ({"predictorScalingConfig": {"minInstances": True}}, (422, 120001)),
        ({"predictorScalingConfig": {"minInstances": 1, "maxInstances": "2"}}, (422, 120001)),
        ({"predictorScalingConfig": {"minInstances": 3, "maxInstances": 2}}, (422, 120001)),
        ({"predictorEnvironment": {"name": 5}}, (422, 120001)),
        ({"kafkaTopicDTO": {"name": ["topic"]}, "inferenceLogging": "ALL"}, (422, 120001)),
        ({"modelPath": "/Projects/example/Models/digits/"}, (422, 120001)),
        ({"modelPath": "Models/digits"}, (400, 240006)),
        ({"modelFramework": "PYTHON"}, (422, 120001)),
        ({"predictor": "/Projects/example/Resources/predict.txt"}, (422, 120001)),
        ({"predictor": "/Projects/example/Resources/nothing.py"}, (400, 240016)),
        ({"predictor": "/Projects/foreign/Resources/predict.py"}, (400, 240016)),
        ({"configFile": "/Projects/example/Resources/nothing.yml"}, (400, 240016)),
        ({"requestedTransformerInstances": 1}, (422, 120001)),
        ({"inferenceLogging": "ALL"}, (422, 120001)),
        ({"kafkaTopicDTO": {"name": "topic"}}, (422, 120001)),
        ({"modelVersion": 9}, (400, 240006)),
        ({"modelPath": "/Projects/foreign/Models/digits"}, (400, 240006)),
        ({"servingTool": "DEFAULT"}, (400, 240018)),
        ({"modelServer": "TENSORFLOW_SERVING", "modelFramework": "TENSORFLOW"}, (400, 240017)),
        ({"modelName": None, "modelPath": None, "modelVersion": None}, (422, 120001)),
        ({"id": "1"}, (422, 120001)),
        ({"id": 99}, (404, 240000)),
    ],
)
def test_what_cannot_be_created(unchanged: Client, fields: dict[str, Any], expected: tuple[int, int]) -> None:
    assert unchanged.refused("PUT", "/serving", json=deployment(**fields)) == expected
    assert unchanged.give("GET", "/serving") == [], "nothing was changed"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_object(unchanged: Client, body: bytes) -> None:
    assert unchanged.refused("PUT", "/serving", data=body) == (422, 120001)


def test_a_name_is_taken_once(client: Client) -> None:
    client.put()

    assert client.refused("PUT", "/serving", json=deployment()) == (400, 240011)


def test_unknown_fields_are_dropped_with_a_warning(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    number = client.put(colour="red")["id"]

    assert "colour" not in client.see(number)
    assert "colour" in caplog.text


@pytest.mark.usefixtures("unhurried")
def test_what_a_status_does_not_allow(client: Client) -> None:
    number = client.put()["id"]
    start, stop = f"/serving/{number}?action=START", f"/serving/{number}?action=STOP"
    client.until(number, "Created")

    assert client.refused("POST", stop) == (400, 240003)
    client.give("POST", start)
    body = client.see(number)
    assert client.refused("POST", start) == (400, 240003)
    assert client.refused("PUT", "/serving", json=body | {"modelVersion": 2}) == (500, 240002)
    client.until(number, "Running")
    assert client.refused("POST", start) == (400, 240003)
    client.give("POST", stop)
    assert client.refused("POST", start) == (400, 240003)
    assert client.refused("POST", stop) == (400, 240003)
    client.until(number, "Stopped")
    assert client.refused("POST", f"/serving/{number}?action=RESTART") == (400, 240007)
    assert client.refused("POST", f"/serving/{number}") == (422, 120001)
    assert client.refused("POST", "/serving/99?action=START") == (404, 240000)


def test_what_an_update_may_not_change(client: Client) -> None:
    number = client.put()["id"]
    body = client.until(number, "Created")

    server = {"modelServer": "TENSORFLOW_SERVING", "modelFramework": "TENSORFLOW"}
    assert client.refused("PUT", "/serving", json=body | server) == (400, 240013)
    assert client.refused("PUT", "/serving", json=body | {"servingTool": "DEFAULT"}) == (422, 120001)
    assert client.refused("PUT", "/serving", json=body | {"name": "other"}) == (422, 120001)
    assert client.refused("PUT", "/serving", json=body | {"version": 7})[0] == 409
    assert client.see(number)["version"] == 1


def test_an_update_keeps_what_is_not_given(client: Client) -> None:
    number = client.put(description="what it is for", batchingConfiguration={"batchingEnabled": True})["id"]
    client.until(number, "Created")

    client.give("PUT", "/serving", json={"id": number, "name": "digits", "modelVersion": 2})

    seen = client.see(number)
    assert (seen["modelVersion"], seen["description"], seen["requestedInstances"]) == (2, "what it is for", 1)
    assert seen["batchingConfiguration"] == {"batchingEnabled": False}, "null resets it"


@pytest.mark.usefixtures("unhurried")
def test_versions_and_rollback(client: Client) -> None:
    number = client.running(description="first")
    new = "/serving?newVersion=true"
    client.give("PUT", new, json=client.see(number) | {"modelVersion": 2, "description": "second"})
    client.until(number, "Updating")
    client.until(number, "Running")

    versions = client.give("GET", f"/serving/{number}/versions")
    assert versions["count"] == 2
    assert [(v["version"], v["active"], v["modelVersion"]) for v in versions["items"]] == [(2, True, 2), (1, False, 1)]
    assert len(client.give("GET", f"/serving/{number}/versions?offset=1&limit=1")["items"]) == 1
    back = client.give("POST", f"/serving/{number}/rollback", json={"version": 1})
    assert (back["version"], back["modelVersion"]) == (1, 1)
    client.until(number, "Updating")
    seen = client.until(number, "Running")
    client.until_answered_by(1)
    assert (seen["version"], seen["description"]) == (1, "second"), "what is not in a version stays"
    revision = seen["revision"]
    client.give("POST", f"/serving/{number}/rollback", json={"version": 1})
    assert client.see(number)["revision"] == revision, "it is active: nothing to do"
    assert client.refused("POST", f"/serving/{number}/rollback", json={"version": 9}) == (422, 120001)
    client.give("PUT", new, json=client.see(number) | {"modelVersion": 2})
    assert client.see(number)["version"] == 3, "numbers are not used again"
    assert client.refused("GET", "/serving/99/versions") == (404, 240000)


def test_a_rollback_does_not_bring_back_what_is_not_versioned(client: Client) -> None:
    number = client.put()["id"]
    client.until(number, "Created")
    edited = {
        "apiProtocol": "GRPC",
        "batchingConfiguration": {"batchingEnabled": True},
        "inferenceLogging": "ALL",
        "kafkaTopicDTO": {"name": "CREATE"},
        "knativeMode": True,
    }
    client.give("PUT", "/serving?newVersion=true", json=client.see(number) | edited | {"modelVersion": 2})
    before = client.see(number)

    client.give("POST", f"/serving/{number}/rollback", json={"version": 1})

    seen = client.see(number)
    assert (seen["version"], seen["modelVersion"]) == (1, 1)
    assert {key: seen[key] for key in edited} == {key: before[key] for key in edited}
    assert (seen["apiProtocol"], seen["knativeMode"]) == ("GRPC", True)


def test_a_plain_put_edits_the_active_version(client: Client) -> None:
    number = client.put()["id"]
    client.until(number, "Created")

    client.give("PUT", "/serving", json=client.see(number) | {"modelVersion": 2})

    (version,) = client.give("GET", f"/serving/{number}/versions")["items"]
    assert (version["version"], version["modelVersion"]) == (1, 2)


def test_only_what_is_versioned_makes_a_version(client: Client) -> None:
    number = client.put()["id"]
    client.until(number, "Created")

    client.give("PUT", "/serving?newVersion=true", json=client.see(number) | {"description": "other words"})

    assert client.see(number)["version"] == 1


@pytest.mark.usefixtures("unhurried")
def test_a_rollback_is_taken_while_updating(client: Client) -> None:
    number = client.running()
    client.give("PUT", "/serving?newVersion=true", json=client.see(number) | {"modelVersion": 2})
    client.until(number, "Updating")
    assert client.refused("PUT", "/serving", json=client.see(number) | {"modelVersion": 1}) == (500, 240002)

    client.give("POST", f"/serving/{number}/rollback", json={"version": 1})

    client.until(number, "Running")
    assert client.predict().json() == {"predictions": [1, 1]}


def test_failed_says_why(client: Client) -> None:
    number = client.put(modelVersion=3)["id"]
    client.until(number, "Created")
    client.give("POST", f"/serving/{number}?action=START")

    failed = client.until(number, "Failed")

    assert failed["condition"]["type"] == "STARTED"
    assert failed["condition"]["status"] is False
    assert failed["condition"]["reason"] == "Failed to run: RuntimeError: the pickle is broken"
    (log,) = client.give("GET", f"/serving/{number}/logs?tail=20")
    assert "Traceback" in log["content"]
    assert "RuntimeError: the pickle is broken" in log["content"]
    assert client.predict().json()["errorCode"] == 250008, "there is no route"
    assert client.refused("POST", f"/serving/{number}?action=START") == (400, 240003)
    client.give("POST", f"/serving/{number}?action=STOP")
    client.until(number, "Stopped")


def test_a_failed_update_leaves_the_old_instances_serving(client: Client) -> None:
    number = client.running()

    client.give("PUT", "/serving?newVersion=true", json=client.see(number) | {"modelVersion": 3})

    failed = client.until(number, "Failed")
    assert failed["availableInstances"] == 1
    assert client.predict().json() == {"predictions": [1, 1]}
    logs = client.give("GET", f"/serving/{number}/logs?tail=20")
    assert [("Traceback" in log["content"]) for log in logs] == [False, True]
    client.give("POST", f"/serving/{number}/rollback", json={"version": 1})
    client.until(number, "Running")


def test_logs(client: Client) -> None:
    number = client.put()["id"]
    client.until(number, "Created")
    path = f"/serving/{number}/logs"

    assert client.refused("GET", path) == (404, 240027)
    client.give("POST", f"/serving/{number}?action=START")
    revision = client.until(number, "Running")["revision"]
    (log,) = client.give("GET", f"{path}?component=predictor&tail=1")
    assert log["instanceName"].startswith(f"digits-predictor-{revision}-deployment-")
    assert log["content"] == "Model is ready"
    assert client.give("GET", f"{path}?component=transformer") == []
    assert client.refused("GET", f"{path}?component=sidecar") == (422, 120001)
    assert client.refused("GET", "/serving/99/logs") == (404, 240000)


def _archived(client: Client, name: str = "digits") -> dict[str, str]:
    """Give the archived logs of a deployment by the instance's name."""
    answer = client.ask("GET", f"/dataset/Logs/Serving/{name}?action=listing")
    names = [each["attributes"]["name"] for each in answer.json()["items"]] if answer.ok else []
    download = f"/dataset/download/with_auth/Logs/Serving/{name}"
    return {each.removesuffix(".log"): client.ask("GET", f"{download}/{each}").text for each in names}


def test_the_last_log_of_a_failed_deployment_outlives_its_stop(client: Client) -> None:
    number = client.put(modelVersion=3)["id"]
    client.until(number, "Created")
    for times in (1, 2):
        client.give("POST", f"/serving/{number}?action=START")
        client.until(number, "Failed")
        (log,) = client.give("GET", f"/serving/{number}/logs?tail=1000")
        client.give("POST", f"/serving/{number}?action=STOP")

        archived = _archived(client)
        assert len(archived) == times, "a file for each instance"
        assert archived[log["instanceName"]].rstrip() == log["content"]
        assert "the pickle is broken" in log["content"]
        client.until(number, "Stopped")
        assert client.refused("GET", f"/serving/{number}/logs") == (404, 240027)
    client.give("DELETE", f"/serving/{number}")
    assert len(_archived(client)) == 2


def test_a_failed_update_leaves_both_logs(client: Client) -> None:
    number = client.running()
    client.give("PUT", "/serving?newVersion=true", json=client.see(number) | {"modelVersion": 3})
    client.until(number, "Failed")
    client.give("POST", f"/serving/{number}?action=STOP")

    assert sorted("broken" in text for text in _archived(client).values()) == [False, True]


def test_a_deployment_that_never_failed_leaves_no_log(client: Client) -> None:
    number = client.running()
    client.give("POST", f"/serving/{number}?action=STOP")

    assert _archived(client) == {}


def test_a_log_that_cannot_be_kept_does_not_prevent_a_stop(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.serving.world.project(119).files.write("Logs/Serving", b"a file in the way")
    number = client.put(modelVersion=3)["id"]
    client.until(number, "Created")
    client.give("POST", f"/serving/{number}?action=START")
    client.until(number, "Failed")
    client.give("POST", f"/serving/{number}?action=STOP")

    client.until(number, "Stopped")
    assert "could not be archived" in caplog.text


def test_scripts_are_told_by_their_names(client: Client, serving: LocalServing) -> None:
    files = serving.world.project(serving.project_id).files
    files.write("Resources/predict.py", b"class Predict: ...")
    number = client.put(predictor="/Projects/example/Resources/predict.py", modelFramework="PYTHON")["id"]
    seen = client.until(number, "Created")

    assert seen["predictor"] == "predict.py"
    client.give("PUT", "/serving?newVersion=true", json=seen)
    assert client.see(number)["version"] == 1, "sent back as it was told, it is no change"


def test_a_deployment_without_a_model(client: Client, serving: LocalServing) -> None:
    serving.world.project(serving.project_id).files.write("Resources/server.py", b"")
    nothing: dict[str, Any] = dict.fromkeys(("modelName", "modelPath", "modelVersion", "modelFramework"))

    number = client.put(predictor="/Projects/example/Resources/server.py", **nothing)["id"]

    assert client.until(number, "Created")["modelName"] is None


def test_scale_to_zero(client: Client) -> None:
    number = client.running(requestedInstances=0)

    idle = client.until(number, "Idle")
    assert idle["availableInstances"] == 0
    assert client.refused("GET", f"/serving/{number}/logs") == (404, 240027)
    assert client.predict().json() == {"predictions": [1, 1]}, "a request wakes it"
    assert client.see(number)["status"] == "Running"


def test_delete_while_it_runs(client: Client) -> None:
    number = client.running()

    client.give("DELETE", f"/serving/{number}")

    assert client.predict().json()["errorCode"] == 250000
    client.put()


def test_scripts_and_their_rules(client: Client, serving: LocalServing) -> None:
    files = serving.world.project(serving.project_id).files
    files.write("Resources/script.py", b"")
    files.write("Models/digits/7/Files/variables/x", b"")
    files.write("Models/digits/7/Files/saved_model.pb", b"")
    files.write("Models/digits/8/Files/notes.txt", b"")
    script = "/Projects/example/Resources/script.py"
    tensorflow: dict[str, Any] = {"modelServer": "TENSORFLOW_SERVING", "modelVersion": 7}
    tensorflow |= {"modelFramework": None, "modelName": None}

    assert client.put("flow", **tensorflow)["modelFramework"] == "TENSORFLOW"
    with_script = deployment("other", **tensorflow, predictor=script)
    assert client.refused("PUT", "/serving", json=with_script) == (400, 240020)
    both = {"predictor": script, "transformer": script, "requestedTransformerInstances": 1}
    default = deployment("other", servingTool="DEFAULT", **both)
    assert client.refused("PUT", "/serving", json=default) == (400, 240021)
    assert client.refused("PUT", "/serving", json=deployment("other", transformer=script)) == (422, 120001)
    assert client.refused("PUT", "/serving", json=deployment("other", modelVersion=8)) == (400, 240017)
    transformed = client.put("other", transformer=script, requestedTransformerInstances=1)
    assert transformed["transformerScalingConfig"] == {"minInstances": 1}


def test_the_minimum_has_two_places(client: Client) -> None:
    first = client.put("first", requestedInstances=None, predictorScalingConfig={"minInstances": 2})
    assert first["requestedInstances"] == 2
    empty: dict[str, Any] = {"requestedInstances": 1, "predictorScalingConfig": {"maxInstances": 2}}
    assert client.refused("PUT", "/serving", json=deployment("other", **empty)) == (422, 120001)

    number = client.running("second", requestedInstances=1, predictorScalingConfig={"minInstances": 3})
    assert client.see(number)["availableInstances"] == 3


def test_what_must_wait(client: Client, serving: LocalServing) -> None:
    serving.world.cluster.speeds = Speeds(creating=0.3, starting=0.3)
    number = client.put()["id"]
    body = client.see(number)

    assert body["status"] == "Creating"
    assert body["condition"]["reason"] == "Deployment is being prepared"
    assert client.refused("PUT", "/serving", json=body | {"modelVersion": 2}) == (500, 240004)
    assert client.refused("POST", f"/serving/{number}?action=START") == (400, 240003)
    assert client.refused("POST", f"/serving/{number}?action=STOP") == (400, 240003)
    client.until(number, "Created")
    client.give("POST", f"/serving/{number}?action=START")
    assert client.refused("POST", f"/serving/{number}/rollback", json={"version": 1}) == (400, 240003)
    client.give("POST", f"/serving/{number}?action=STOP")
    client.until(number, "Stopped")
    assert client.predict().json()["errorCode"] == 250001, "what was starting did not come up after all"


def test_an_error_of_ours_is_failed_and_logged(
    client: Client, serving: LocalServing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no room on the device")

    monkeypatch.setattr(serving.world.engine, "start", fail)
    number = client.put()["id"]
    client.until(number, "Created")
    client.give("POST", f"/serving/{number}?action=START")

    assert "no room on the device" in client.until(number, "Failed")["condition"]["reason"]
    assert "no room on the device" in caplog.text


def test_one_that_does_not_wake(client: Client, serving: LocalServing) -> None:
    number = client.running(requestedInstances=0)
    client.until(number, "Idle")
    serving.world.project(serving.project_id).files.write("Models/digits/1/Files/broken", b"")

    answer = client.predict()

    assert (answer.status_code, answer.json()["errorCode"]) == (500, 250007)
    assert client.see(number)["status"] == "Idle"


def test_a_write_that_fails_changes_nothing(
    client: Client, serving: LocalServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = client.put()["id"]
    before = client.until(number, "Created")

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(serving.world._store, "put_version", fail)
        assert client.refused("PUT", "/serving", json=before | {"modelVersion": 2}) == (500, 120000)
    assert client.see(number) == before
    assert client.give("GET", f"/serving/{number}/versions")["items"][0]["modelVersion"] == 1
