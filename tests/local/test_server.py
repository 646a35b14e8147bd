"""The server itself: where it listens, what it keeps, and what it keeps to itself."""

from __future__ import annotations

import json
import sqlite3
import ssl
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import requests

from airflow_provider_hsml.local import AccessOptions, Administration, LocalServing
from airflow_provider_hsml.local.store import StoreTooNewError
from airflow_provider_hsml.local.world.world import RootInUseError
from tests.local.conftest import Client, load

if TYPE_CHECKING:
    from pathlib import Path


def test_importing_the_package_costs_nothing() -> None:
    program = (
        "import sys, airflow_provider_hsml.local as local; "
        "print(sorted({'starlette', 'uvicorn', 'httpx', 'airflow', 'trustme'} & set(sys.modules)), local.__all__)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert said.startswith("[] ")


def test_a_name_that_is_not_there() -> None:
    import airflow_provider_hsml.local

    with pytest.raises(AttributeError, match="LocalServing"):
        _ = airflow_provider_hsml.local.Nothing


def test_the_connection(serving: LocalServing) -> None:
    fields = json.loads(serving.connection)

    assert (fields["conn_type"], fields["host"]) == ("hsml", "http://127.0.0.1")
    assert serving.url == f"http://127.0.0.1:{fields['port']}"
    assert fields["password"] == serving.api_key
    assert fields["extra"] == {"project": "example"}


def test_what_was_asked_is_noted(client: Client) -> None:
    asked = client.serving.requests
    client.put()
    client.give("GET", "/serving?name=digits")

    assert [(request.method, request.path, request.query, request.status) for request in asked] == [
        ("PUT", "/project/119/serving", "", 201),
        ("GET", "/project/119/serving", "name=digits", 200),
    ]
    assert asked[0].body["name"] == "digits"
    assert asked[-1].body is None
    assert asked.where("PUT", "/project/119/serving") == asked[:1]
    asked.clear()
    assert len(asked) == 0


def test_all_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with LocalServing(root, engine=load) as serving:
        key = serving.api_key
        for _ in range(2):
            serving.world.register_model("digits", {"model.pkl": b"kept"}, metrics={"accuracy": 0.5})
        client = Client(serving)
        with client.session:
            running = client.running()
            client.give("PUT", "/serving?newVersion=true", json=client.see(running) | {"modelVersion": 2})
            stopped = client.running("stopped")
            client.give("POST", f"/serving/{stopped}?action=STOP")
            created = client.put("created")["id"]
    (root / "staging" / "example" / "leftover").write_bytes(b"half of a file")

    with LocalServing(root, engine=load) as serving:
        assert serving.api_key == key
        client = Client(serving)
        with client.session:
            seen = client.until(running, "Running")
            assert (seen["version"], seen["modelVersion"]) == (2, 2)
            client.until_answered_by(2)
            assert client.see(stopped)["status"] == "Stopped"
            assert client.see(created)["status"] == "Created"
            assert client.give("GET", f"/serving/{running}/versions")["count"] == 2
            assert client.ask("GET", "/dataset/download/with_auth/Models/digits/1/Files/model.pkl").content == b"kept"
            assert client.give("GET", "/modelregistries/119/models")["count"] == 2
            assert client.put("next")["id"] > created
    assert not (root / "staging" / "example" / "leftover").exists()


def test_a_temporary_root_is_gone_afterwards() -> None:
    with LocalServing(engine=load) as serving:
        root = serving.root
        assert root.is_dir()

    assert not root.exists()
    serving.stop()  # A second time does nothing.


def test_no_thread_survives() -> None:
    before = set(threading.enumerate())
    with LocalServing(engine=load) as serving:
        serving.world.register_model("digits", {"model.pkl": b""})
        client = Client(serving)
        with client.session:
            client.running()

    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("hsml-local")]
    assert left == []


def test_one_server_a_root(tmp_path: Path) -> None:
    with LocalServing(tmp_path, engine=load) as serving:
        with pytest.raises(RootInUseError, match=serving.url), LocalServing(tmp_path, engine=load):
            pass

        assert requests.get(f"{serving.url}/hopsworks-api/api/variables/versions", timeout=5, verify=True).ok


def test_a_port_that_is_taken(tmp_path: Path, serving: LocalServing) -> None:
    port = int(serving.url.rpartition(":")[2])

    with pytest.raises(OSError, match="in use"), LocalServing(tmp_path, port=port, engine=load):
        pass

    with LocalServing(tmp_path, engine=load):
        """The root was let go."""


def test_a_root_of_a_newer_version(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "state.sqlite3")
    database.execute("PRAGMA user_version = 99")
    database.close()

    with pytest.raises(StoreTooNewError, match="newer"), LocalServing(tmp_path, engine=load):
        pass


@pytest.mark.parametrize(
    "access",
    [
        AccessOptions({"a.b": {"EVERYTHING"}}),
        AccessOptions(roles={"a.b": "Data owner"}),
        AccessOptions({"a.b": {"SERVING"}}, {"a.b": "King"}),
        AccessOptions(shared_registries={"unknown": ["example"]}),
    ],
)
def test_unknown_scopes_roles_and_projects(access: AccessOptions) -> None:
    with pytest.raises(ValueError, match="expected"), LocalServing(engine=load, access=access):
        pass


def test_an_unknown_line() -> None:
    with pytest.raises(ValueError, match="expected"), LocalServing(engine=load, hopsworks_version="3.6"):
        pass


def test_a_variable_that_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="expected"):
        Administration({"kube_serving_max_num_instances": "many"})


def test_the_key_is_its_owners(tmp_path: Path) -> None:
    with LocalServing(tmp_path, engine=load, api_key="mine.secret") as serving:
        assert serving.api_key == "mine.secret"
        assert stat.S_IMODE(serving.api_key_file.stat().st_mode) == 0o600
        assert serving.api_key_file.read_text() == "mine.secret\n"


def test_https_with_a_ca_of_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        with LocalServing(tmp_path, engine=load, tls=True) as serving:
            client = Client(serving)
            with client.session:
                assert client.give("GET", "/serving") == []
                with pytest.raises(requests.exceptions.SSLError):
                    requests.get(serving.url, timeout=5, verify=ssl.get_default_verify_paths().cafile or True)
            fields = json.loads(serving.connection)
            assert fields["host"] == "127.0.0.1"
            assert fields["extra"]["ca_bundle"] == str(tmp_path / "tls" / "ca.pem")
    assert stat.S_IMODE((tmp_path / "tls" / "server.pem").stat().st_mode) == 0o600


def test_a_certificate_that_was_half_made_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "server.pem").write_text("the first half of a")

    with LocalServing(tmp_path, engine=load, tls=True) as serving:
        client = Client(serving)
        client.session.headers["Connection"] = "close"
        with client.session:
            assert client.give("GET", "/serving") == []


def test_several_projects() -> None:
    with LocalServing(engine=load, project=["train", "serve"]) as serving:
        serving.world.register_model("digits", {"model.pkl": b""}, project="serve")
        client = Client(serving)
        with client.session:
            assert client.give("GET", "//project/119/modelregistries/119/models")["count"] == 0
            assert client.give("GET", "//project/120/modelregistries/120/models")["count"] == 1
            assert [row["project"]["name"] for row in client.give("GET", "//project")] == ["train", "serve"]
