"""What differs from one line of Hopsworks to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local import LocalServing, Speeds
from airflow_provider_hsml.local.lines import LINES
from tests.local.conftest import client_of, deployment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.local.conftest import Client

_ANSWERS = Path(__file__).parent.parent / "samples" / "answers" / "serving"
_SCRIPT = "/Projects/example/Resources/predict.py"
_SLOW = Speeds(starting=1.5, stale=0.1, updating=1.5)


@pytest.fixture(params=LINES)
def line(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def client(line: str) -> Iterator[Client]:
    with client_of(hopsworks_version=line) as client:
        client.serving.world.project(client.serving.project_id).files.write(_SCRIPT, b"class Predict: ...")
        yield client


@pytest.fixture
def old() -> Iterator[Client]:
    """A client of Hopsworks 3.7, with scripts."""
    with client_of(hopsworks_version="3.7") as client:
        files = client.serving.world.project(client.serving.project_id).files
        for name in ("predict", "other"):
            files.write(f"/Projects/example/Resources/{name}.py", b"class Predict: ...")
        yield client


def _listed(answer: Any) -> list[Any]:
    items: list[Any] = answer if isinstance(answer, list) else answer.get("items", [])
    return items


def test_the_life_of_a_deployment(client: Client, line: str) -> None:
    versions = client.give("GET", "//variables/versions")
    number = client.running()
    client.serving.world.cluster.speeds = _SLOW
    client.give("PUT", "/serving", json=client.see(number) | {"modelVersion": 2, "artifactVersion": None})

    client.until(number, "Updating")
    client.until(number, "Running")
    assert versions == [{"software": "hopsworks", "version": f"{line}.0"}]
    client.until_answered_by(2)
    assert [row["id"] for row in _listed(client.give("GET", "/serving"))] == [number]
    client.give("POST", f"/serving/{number}?action=STOP")
    client.until(number, "Stopped")
    client.give("DELETE", f"/serving/{number}")
    assert _listed(client.give("GET", "/serving")) == []


@pytest.mark.parametrize(
    ("line", "sample"), [("3.7", "line_3_7.json"), ("5.2", "running.json")], indirect=["line"], ids=["3.7", "5.2"]
)
def test_a_deployment_has_the_fields_of_its_line(client: Client, sample: str) -> None:
    shown = client.see(client.running())
    expected = json.loads((_ANSWERS / sample).read_text())["body"]

    assert {key for key in expected if key not in shown} == set()


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("3.7", {"version", "apiProtocol", "environmentDTO", "projectNamespace", "predictorScalingConfig", "tags"}),
        ("4.6", {"artifactVersion", "predictorEnvVars", "tags", "tracing", "knativeMode", "predictorEnvironment"}),
        ("5.2", {"artifactVersion"}),
    ],
    indirect=["line"],
    ids=["3.7", "4.6", "5.2"],
)
def test_what_a_line_does_not_know_is_dropped_with_a_warning(
    client: Client, unknown: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    given: dict[str, Any] = {
        "apiProtocol": "REST",
        "environmentDTO": {"name": "mine"},
        "predictorScalingConfig": {"minInstances": 1},
        "predictorEnvVars": ["A=1"],
        "predictorEnvironment": {"name": "mine"},
        "tracing": {"enabled": True},
        "knativeMode": True,
        "tags": {"count": 0},
        "artifactVersion": -1,
    }
    number = client.put(**given)["id"]

    assert unknown.isdisjoint(client.see(number))
    for key in unknown & given.keys() - {"artifactVersion"}:
        assert key in caplog.text
    assert "artifactVersion" not in caplog.text, "clients of all lines send it to each"


@pytest.mark.parametrize(
    ("line", "kept"), [("4.6", {"minInstances", "maxInstances"}), ("5.2", None)], indirect=["line"], ids=["4.6", "5.2"]
)
def test_a_scaling_configuration_has_what_the_line_knows(client: Client, kept: set[str] | None) -> None:
    scaling: dict[str, Any] = {"minInstances": 1, "maxInstances": 2, "autoscaler": "KEDA", "idleCooldownSeconds": 5}
    number = client.put(predictorScalingConfig=scaling)["id"]

    assert set(client.see(number)["predictorScalingConfig"]) == (kept or set(scaling))


@pytest.mark.parametrize(("line", "is_counted"), [("3.7", False), ("4.6", True), ("5.2", False)], indirect=["line"])
def test_lists(client: Client, is_counted: bool) -> None:
    empty = client.give("GET", "/serving")
    client.put()

    assert empty == ({"count": 0} if is_counted else [])
    listed = client.give("GET", "/serving")
    assert ("items" in listed and listed["count"] == 1) if is_counted else isinstance(listed, list)


@pytest.mark.parametrize(
    ("line", "types"),
    [("3.7", ["LOAD_BALANCER", "NODE"]), ("4.6", ["LOAD_BALANCER", "KUBE_CLUSTER"])],
    indirect=["line"],
    ids=["3.7", "4.6"],
)
def test_endpoints(client: Client, types: list[str]) -> None:
    assert [endpoint["type"] for endpoint in _listed(client.give("GET", "/inference/endpoints"))] == types


@pytest.mark.parametrize("line", ["3.7", "4.6"], indirect=True)
def test_versions_are_unknown_before_5_2(client: Client) -> None:
    number = client.running()
    before = client.see(number)

    for method, path, body in (("GET", "versions", None), ("POST", "rollback", {"version": 1}), ("GET", "tags", None)):
        assert client.refused(method, f"/serving/{number}/{path}", json=body) == (404, 120004)
    changed = before | {"description": "edited in place"}
    client.give("PUT", "/serving?newVersion=true", json=changed)
    assert client.see(number).get("version") == before.get("version")


def test_models_of_a_registry(client: Client, line: str) -> None:
    registry = f"/modelregistries/{client.serving.project_id}"

    assert client.refused("GET", f"{registry}/models/digits_9?expand=mandatorytags") == (404, 360000)
    model = client.give("GET", f"{registry}/models/digits_1?expand=mandatorytags")
    assert ("missingMandatoryTags" in model) is (line == "5.2")
    patch = client.ask("PATCH", f"{registry}/models/digits_1", json={"framework": "PYTHON"})
    assert patch.status_code == (200 if line == "5.2" else 404)
    framework = client.give("GET", f"{registry}/models/digits_1")["framework"]
    assert framework == ("PYTHON" if line == "5.2" else "SKLEARN")


def test_where_the_files_of_a_model_are(client: Client, line: str) -> None:
    found = client.ask("GET", "/dataset/Models/digits/1/Files/model.pkl")

    assert found.ok is (line != "3.7")
    assert client.ask("GET", "/dataset/Models/digits/1/model.pkl").ok is (line == "3.7")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "Digits"}, (422, 120001)),
        ({"name": "Digits", "servingTool": "DEFAULT", "predictor": _SCRIPT}, None),
        ({"modelServer": "VLLM"}, (422, 120001)),
        ({"modelFramework": "LLM"}, (422, 120001)),
        ({"modelName": None, "modelPath": None, "modelVersion": None, "predictor": _SCRIPT}, (422, 120001)),
    ],
)
def test_what_3_7_refuses_and_later_ones_do_not(
    old: Client, fields: dict[str, Any], expected: tuple[int, int] | None
) -> None:
    body = deployment(**fields)

    if expected is None:
        assert old.ask("PUT", "/serving", json=body).status_code == 201
    else:
        assert old.refused("PUT", "/serving", json=body) == expected


def test_later_names_may_have_capitals() -> None:
    with client_of(hopsworks_version="4.6") as client:
        assert client.put("Digits")["name"] == "Digits"


def test_more_than_one_file_to_load_is_refused_by_3_7(old: Client) -> None:
    old.serving.world.register_model("twins", {"a.pkl": b"", "b.pkl": b""})
    fields = {"modelName": "twins", "modelPath": "/Projects/example/Models/twins"}

    assert old.refused("PUT", "/serving", json=deployment("twins", **fields)) == (400, 240017)
    assert old.put("twins", **fields, predictor="/Projects/example/Resources/predict.py")["id"]


@pytest.mark.parametrize("line", ["3.7", "4.6"], indirect=True)
def test_a_rollout_under_way(client: Client, line: str) -> None:
    is_locked = line == "3.7"
    number = client.put()["id"]
    client.until(number, "Created")
    client.serving.world.cluster.speeds = _SLOW
    body = client.see(number)

    client.give("POST", f"/serving/{number}?action=START")
    for status in ("Starting", "Updating"):
        client.until(number, status)
        changed = body | {"description": f"changed while {status}"}
        assert client.refused("PUT", "/serving", json=changed) == (500, 240002)
        if is_locked:
            assert client.refused("POST", f"/serving/{number}?action=STOP") == (400, 240003)
            assert client.refused("DELETE", f"/serving/{number}") == (500, 240001)
        client.until(number, "Running")
        client.give("PUT", "/serving", json=changed)
    if not is_locked:
        client.until(number, "Updating")
        client.give("POST", f"/serving/{number}?action=STOP")
        client.give("DELETE", f"/serving/{number}")


def test_a_minimum_has_one_place_in_3_7(old: Client) -> None:
    old.serving.world.cluster.speeds = Speeds(idle_after=0.1)
    number = old.running(requestedInstances=0)

    assert old.until(number, "Idle")["availableInstances"] == 0


# --- Artifacts


def _artifact(client: Client, number: int, artifact: int) -> list[str]:
    """List the files of an artifact of the deployment's model version."""
    version = client.see(number)["modelVersion"]
    items = client.give("GET", f"/dataset/Models/digits/{version}/Artifacts/{artifact}?action=listing")["items"]
    return [item["attributes"]["name"] for item in items]


def test_a_script_makes_an_artifact(old: Client) -> None:
    first = old.running("first", predictor=_SCRIPT, artifactVersion=-1)
    second = old.put("second", predictor=_SCRIPT)["id"]
    plain = old.put("plain", artifactVersion=-1)["id"]

    shown = old.see(first)
    assert (shown["artifactVersion"], shown["predictor"]) == (1, "predict.py")
    assert _artifact(old, first, 1) == ["digits_1_1.zip", "predictor-predict.py"]
    assert old.see(second)["artifactVersion"] == 2, "a number belongs to the model's version, not to the deployment"
    assert old.see(plain)["artifactVersion"] == 0
    old.give("PUT", "/serving", json=shown)
    assert old.see(first) == shown, "what is echoed changes nothing"


def test_each_put_with_a_script_and_minus_one_is_a_new_artifact_and_rolls(old: Client) -> None:
    number = old.running(predictor=_SCRIPT)
    old.serving.world.cluster.speeds = _SLOW
    before = old.see(number)

    old.give("PUT", "/serving", json=before | {"predictor": _SCRIPT, "artifactVersion": -1})

    old.until(number, "Updating")
    after = old.until(number, "Running")
    assert (before["artifactVersion"], after["artifactVersion"]) == (1, 2)
    assert before["revision"] != after["revision"]


def test_a_new_model_version_takes_the_script_along_by_its_whole_path(old: Client) -> None:
    number = old.running(predictor=_SCRIPT)
    old.serving.world.cluster.speeds = _SLOW
    script = "/Projects/example/Models/digits/1/Artifacts/1/predictor-predict.py"

    old.give("PUT", "/serving", json=old.see(number) | {"modelVersion": 2, "artifactVersion": -1, "predictor": script})

    old.until(number, "Updating")
    seen = old.until(number, "Running")
    assert (seen["modelVersion"], seen["artifactVersion"], seen["predictor"]) == (2, 1, "predict.py")
    assert _artifact(old, number, 1) == ["digits_2_1.zip", "predictor-predict.py"]
    old.until_answered_by(2)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"modelVersion": 2}, (422, 120001)),
        ({"modelVersion": 2, "artifactVersion": -1}, (400, 240016)),
        ({"modelVersion": 2, "artifactVersion": None}, (400, 240016)),
        ({"artifactVersion": -1}, (400, 240016)),
        ({"artifactVersion": 0}, (400, 240019)),
        ({"artifactVersion": 7}, (422, 120001)),
        ({"artifactVersion": -2}, (422, 120001)),
        ({"artifactVersion": "1"}, (422, 120001)),
        ({"predictor": "/Projects/example/Resources/other.py"}, (400, 240019)),
        ({"predictor": "other.py"}, (400, 240016)),
        ({"transformer": "/Projects/example/Resources/other.py", "requestedTransformerInstances": 1}, (400, 240019)),
    ],
)
def test_what_an_artifact_does_not_allow(old: Client, fields: dict[str, Any], expected: tuple[int, int]) -> None:
    number = old.put(predictor=_SCRIPT)["id"]
    before = old.until(number, "Created")

    assert old.refused("PUT", "/serving", json=before | fields) == expected
    assert old.see(number) == before
    assert old.refused("GET", "/dataset/Models/digits/2/Artifacts") == (400, 110018), "nothing was begun"


def test_a_script_is_taken_away_by_null(old: Client) -> None:
    script = "/Projects/example/Resources/other.py"
    number = old.put(predictor=_SCRIPT, transformer=script, requestedTransformerInstances=1)["id"]
    before = old.until(number, "Created")
    without = {key: value for key, value in before.items() if key != "transformer" and "Transformer" not in key}

    old.give("PUT", "/serving", json={**without, "transformer": None, "transformerResources": None})

    seen = old.see(number)
    assert (seen["transformer"], seen["predictor"], seen["artifactVersion"]) == (None, "predict.py", 1)


def test_a_script_may_go_with_the_old_number_where_the_artifact_has_it(old: Client) -> None:
    """The trap: the new model version has an artifact of the same number, with another script."""
    old.put("other", modelVersion=2, predictor="/Projects/example/Resources/other.py")
    number = old.put(predictor=_SCRIPT)["id"]
    before = old.until(number, "Created")

    assert old.refused("PUT", "/serving", json=before | {"modelVersion": 2}) == (400, 240016)


def test_a_root_has_one_line(tmp_path: Path) -> None:
    with LocalServing(root=tmp_path, engine=lambda _: list, hopsworks_version="3.7"):
        pass
    with (
        pytest.raises(ValueError, match=r"created with --hopsworks-version 3\.7"),
        LocalServing(root=tmp_path, engine=lambda _: list),
    ):
        pass
    with LocalServing(root=tmp_path, engine=lambda _: list, hopsworks_version="3.7"):
        pass
