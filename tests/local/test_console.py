from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local import AccessOptions, LocalServing, Speeds
from tests.local.conftest import Client, load

if TYPE_CHECKING:
    import requests

    from airflow_provider_hsml.local import ModelFiles

PROJECT = "/p/119"


def page(client: Client, path: str, status: int = 200, **headers: str) -> str:
    """Get a page as a browser does: without a key."""
    answer = client.session.get(f"{client.serving.url}{path}", headers=headers, timeout=30, verify=True)
    assert answer.status_code == status, answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    return answer.text


def words(text: str) -> str:
    """Give what a page says, without its markup."""
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def send(client: Client, number: int, body: str, **headers: str) -> requests.Response:
    """Send the form, as a page of ours or of another site."""
    url = f"{client.serving.url}{PROJECT}/deployments/{number}"
    return client.session.post(url, data={"body": body}, headers=headers, timeout=30, verify=True)


def test_the_start_page_leads_to_the_projects(client: Client) -> None:
    assert f'<a href="{PROJECT}">example</a>' in page(client, "/")
    assert "foreign" not in page(client, "/p")


def test_a_project_without_anything(client: Client) -> None:
    said = words(page(client, PROJECT))

    assert "Deployments No deployments yet." in said
    assert "digits 3 3 accuracy 0.93" in said


@pytest.mark.usefixtures("unhurried")
def test_a_deployment(client: Client) -> None:
    number = client.running(predictorEnvVars=["TOKEN=secret"])
    here = f"{PROJECT}/deployments/{number}"
    said = page(client, here)

    assert "http-equiv" not in said, "nothing is under way"
    said = words(said)
    assert "digits Running Deployment is ready" in said
    assert "Serves digits 1 Metrics accuracy 0.91" in said
    assert "POST /hopsworks-api/api/project/119/inference/models/digits:predict" in said
    assert f"{client.serving.ingress_url}/v1/example/digits/v1/models/digits:predict" in said
    assert "Loading model digits version 1" in said
    assert "predictorEnvVars TOKEN=…" in said
    assert "secret" not in said
    assert "1 active digits 1" in said

    client.give("PUT", "/serving?newVersion=true", json=client.see(number) | {"modelVersion": 3})
    client.until(number, "Updating")
    assert 'http-equiv="refresh"' in page(client, here), "something is under way"
    client.until(number, "Failed")
    said = words(page(client, here))
    assert "Failed to run: RuntimeError: the pickle is broken" in said
    assert "2 active digits 3" in said
    assert "Serves digits 3 but model version 1 answers" in said
    models = page(client, f"{PROJECT}/models/digits")
    assert "version 1: 0.91, served" in models
    assert "version 3: 0.93, served" not in models


def test_reading_pages_takes_no_lock(client: Client) -> None:
    """With a client's lock on the logs it would take a minute, and nobody could write meanwhile."""
    number = client.running()
    client.serving.world.cluster.speeds = Speeds(reading_logs=60)

    assert "Loading model digits" in page(client, f"{PROJECT}/deployments/{number}")
    client.give("PUT", "/serving", json=client.see(number) | {"modelVersion": 2})


def test_the_form_sends_a_prediction(client: Client) -> None:
    number = client.running()
    answer = send(client, number, '{"instances": [[1], [2]]}', origin=client.serving.url)

    said = words(answer.text)
    assert answer.status_code == 200
    assert re.search(r"200 after \d+ ms, from model version 1 \( digits-predictor-", said)
    assert "{ &#34;predictions&#34;: [1, 1] }" in said
    refused = send(client, number, "{}", **{"sec-fetch-site": "same-origin"})
    assert "400 after" in words(refused.text)
    assert "with one of instances and inputs, got neither" in words(refused.text)


@pytest.mark.parametrize("files", [None, {"other": ("a file", b"x" * (2 << 20))}])
def test_the_form_takes_a_megabyte(client: Client, files: Any) -> None:
    """In either encoding, of which the one of browsers makes three bytes of a bracket; files are no fields."""
    number = client.running()
    url, origin = f"{client.serving.url}{PROJECT}/deployments/{number}", {"origin": client.serving.url}

    def sent(length: int) -> requests.Response:
        body = '{"instances": [1]}'.ljust(length // 2) + "[" * (length - length // 2)
        return client.session.post(url, data={"body": body}, files=files, headers=origin, timeout=30, verify=True)

    assert sent(1 << 20).status_code == 200
    refused = sent((1 << 20) + 1)
    assert refused.status_code == 413
    assert "longer than 1024 kB" in refused.text


def test_a_broken_form(client: Client) -> None:
    headers = {"origin": client.serving.url, "content-type": "multipart/form-data; boundary=x"}
    url = f"{client.serving.url}{PROJECT}/deployments/{client.running()}"

    assert client.session.post(url, data=b"no form", headers=headers, timeout=30, verify=True).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "none"},
    ],
)
def test_the_form_of_another_site_is_refused(client: Client, headers: dict[str, str]) -> None:
    number = client.running()

    assert send(client, number, '{"instances": [[1]]}', **headers).status_code == 403


@pytest.mark.parametrize("host", ["localhost@evil.example", "127.0.0.1.evil.example", "evil.example#:80", ""])
def test_a_host_that_cannot_be_read_is_refused(client: Client, host: str) -> None:
    answer = client.session.get(f"{client.serving.url}{PROJECT}", headers={"host": host}, timeout=30, verify=True)

    assert answer.status_code in (400, 421)
    assert "digits" not in answer.text


def test_a_model_without_metrics_and_with_an_example_that_is_no_json(client: Client, serving: LocalServing) -> None:
    serving.world.register_model("digits", {"model.pkl": b""}, version=4)
    files = serving.world.project(serving.project_id).files
    files.write("Models/digits/4/input_example.json", b"five, six")
    number = client.running(modelVersion=4)

    assert "five, six</textarea>" in page(client, f"{PROJECT}/deployments/{number}")
    assert "digits 4 none 1" in words(page(client, PROJECT))


def test_a_page_that_fails_says_so(client: Client, serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(serving.world, "project", fail)

    assert "could not be built (RuntimeError)" in words(page(client, PROJECT, 500))


def test_a_key_that_a_script_printed_is_not_shown() -> None:
    key = "reader.0123456789"

    def load_and_tell(_model: ModelFiles) -> Any:
        raise RuntimeError(f"opened with {key}")

    with LocalServing(engine=load_and_tell, access=AccessOptions({key: {"SERVING"}}), speeds=Speeds()) as serving:
        serving.world.register_model("digits", {"model.pkl": b""})
        client = Client(serving)
        with client.session:
            number = client.put()["id"]
            client.until(number, "Created")
            client.give("POST", f"/serving/{number}?action=START")
            client.until(number, "Failed")
            said = page(client, f"{PROJECT}/deployments/{number}")

            listed = page(client, PROJECT)

    assert "1 in all: 1 Failed." in words(listed)
    assert all("RuntimeError: opened with &lt;API key&gt;" in text and key not in text for text in (said, listed))


def test_a_rolled_back_deployment_says_so(client: Client) -> None:
    number = client.running()
    client.give("PUT", "/serving?newVersion=true", json={**client.see(number), "modelVersion": 2})
    client.until(number, "Updating")
    client.until(number, "Running")
    client.give("POST", f"/serving/{number}/rollback", json={"version": 1})

    assert "Rolled back to deployment version 1; the newest is 2" in words(
        page(client, f"{PROJECT}/deployments/{number}")
    )


def test_a_name_that_leads_here_from_elsewhere_is_refused(client: Client) -> None:
    """A page of another site whose name has been made to resolve to 127.0.0.1 cannot read what is here."""
    assert "for http://127.0.0.1 only" in page(client, PROJECT, 421, host="evil.example:8181")
    page(client, PROJECT, host=f"localhost:{client.serving.url.rpartition(':')[2]}")


def test_a_model_with_a_chart(client: Client) -> None:
    client.running(modelVersion=2)
    text = page(client, f"{PROJECT}/models/digits")

    assert text.count("<circle") == 3
    assert text.count('class="served"') == 1
    assert "model version 2: 0.92, served" in text
    assert "2 0.92 SKLEARN" in words(text)


def test_one_version(client: Client, serving: LocalServing) -> None:
    serving.world.register_model("letters", {"model.pkl": b"12345"}, input_example=[[1, 2]], metrics={"loss": 1e-9})
    said = words(page(client, f"{PROJECT}/models/letters/1"))

    assert "Metrics loss 1e-09 Served by no deployment" in said
    assert "Files/model.pkl 5" in said
    assert "Input example [ [1, 2] ]" in said
    client.put("letters", modelName="letters", modelPath="/Projects/example/Models/letters")
    assert "Served by letters Creat" in words(page(client, f"{PROJECT}/models/letters/1"))


def test_what_people_write_is_no_markup(client: Client) -> None:
    client.give("PUT", "/modelregistries/119/models/digits_1", json={"description": "<script>alert(1)</script>"})
    text = page(client, f"{PROJECT}/models/digits/1")

    assert "<script" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{PROJECT}/deployments/77", "There is no deployment 77 in example; there are: none."),
        (f"{PROJECT}/models/nothing", "There is no model nothing in example; there are: digits."),
        (f"{PROJECT}/models/digits/9", "There is no version 9 of model digits"),
        ("/p/1", "Project 1 not found."),
        ("/p/120", "no role in project"),
        (f"{PROJECT}/jobs", "There is no page /p/119/jobs."),
    ],
)
def test_what_is_not_there_is_said_in_words(client: Client, path: str, message: str) -> None:
    assert message in words(page(client, path, 404))


@pytest.mark.parametrize("line", ["3.7", "4.6"])
def test_pages_of_other_lines(line: str) -> None:
    with LocalServing(engine=load, hopsworks_version=line) as serving:
        serving.world.register_model("digits", {"model.pkl": b"x"}, metrics={"accuracy": 0.9})
        client = Client(serving)
        with client.session:
            number = client.running()
            for path in ("/p", PROJECT, f"{PROJECT}/models/digits", f"{PROJECT}/models/digits/1"):
                assert "digits" in page(client, path) or path == "/p"
            assert "Serves digits 1" in words(page(client, f"{PROJECT}/deployments/{number}"))


def test_a_model_of_a_shared_registry_and_its_namesake() -> None:
    access = AccessOptions(shared_registries={"training": ["example"]})
    with LocalServing(engine=load, project=["example", "training"], access=access) as serving:
        serving.world.register_model("digits", {"model.pkl": b"x"}, metrics={"accuracy": 0.1})
        serving.world.register_model("digits", {"model.pkl": b"x"}, metrics={"accuracy": 0.9}, project="training")
        client = Client(serving)
        with client.session:
            number = client.put(modelPath="/Projects/training/Models/digits")["id"]
            text = page(client, f"{PROJECT}/deployments/{number}")
            assert "Metrics accuracy 0.9" in words(text)
            assert 'href="/p/120/models/digits/1"' in text
            assert "Served by no deployment" in words(page(client, f"{PROJECT}/models/digits/1"))
