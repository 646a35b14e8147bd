"""Jobs: Python scripts that run in processes of their own, with states, logs and a stop."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_hsml.local import AccessOptions, Administration, Quota, Speeds
from airflow_provider_hsml.local.cluster.environments import (
    JOB_ENVIRONMENTS,
    EnvironmentFailedError,
    Environments,
    NamedEnvironments,
    job_requirements,
)
from tests.local.conftest import client_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.local.conftest import Client

PATIENT = "import sys, time; print('begun', flush=True); time.sleep(120)"
_PROGRAM = Path(__file__).parents[1] / "support" / "kill_server.py"
_KEY = "killed.secret"


@pytest.fixture(scope="module")
def shared() -> Iterator[Client]:
    """A client of a server with jobs; each test takes a job of its own."""
    keys = {"no.jobs": {"PROJECT", "DATASET_VIEW"}, "jobs.only": {"PROJECT", "JOB"}}
    with client_of(access=AccessOptions(keys)) as client:
        yield client


def declare(client: Client, name: str, script: str, **config: Any) -> None:
    client.serving.world.project(client.serving.project_id).jobs.declare(name, script, **config)


def run(client: Client, job: str, args: str = "") -> int:
    headers = {"Content-Type": "text/plain"}
    number: int = client.give("POST", f"/jobs/{job}/executions", data=args, headers=headers)["id"]
    return number


def until(client: Client, job: str, execution: int, *states: str) -> Any:
    deadline = time.monotonic() + 20
    while (seen := client.give("GET", f"/jobs/{job}/executions/{execution}"))["state"] not in states:
        assert time.monotonic() < deadline, seen
        time.sleep(0.02)
    return seen


def until_ended(process: str) -> None:
    """Wait until a process has ended; nobody may have asked for its exit code."""
    deadline = time.monotonic() + 10
    status = Path(f"/proc/{process}/stat")
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, f"process {process} runs"
        time.sleep(0.02)


def log(client: Client, path: str) -> str:
    return client.ask("GET", f"/dataset/download/with_auth/{path}", params={"type": "DATASET"}).text


class TestAnExecution:
    def test_runs_the_script_with_its_arguments_in_a_process_of_its_own(self, shared: Client) -> None:
        script = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getpid(), dict(os.environ)]))"
        declare(shared, "shows", script)
        headers = {"Content-Type": "text/plain"}

        started = shared.give("POST", "/jobs/shows/executions", data="--day '2024-01-01 00' x", headers=headers)
        ended = until(shared, "shows", started["id"], "FINISHED")

        assert (started["state"], started["finalStatus"]) == ("INITIALIZING", "UNDEFINED")
        assert (ended["finalStatus"], ended["args"], ended["progress"]) == ("SUCCEEDED", "--day '2024-01-01 00' x", 1.0)
        args, process, env = json.loads(log(shared, ended["stdoutPath"]))
        assert args == ["--day", "2024-01-01 00", "x"]
        assert process != os.getpid()
        assert env["HOPSWORKS_PROJECT_NAME"] == "example"
        assert env["HOPSWORKS_JOB_NAME"] == "shows"
        assert env["REST_ENDPOINT"] == shared.serving.url == f"http://{env['HOPSWORKS_PUBLIC_HOST']}"
        assert not any(name.startswith("AIRFLOW") for name in env)
        assert log(shared, ended["stderrPath"]) == ""

    def test_finds_the_key_stores_that_the_sdk_opens_at_login(self, shared: Client) -> None:
        """They are empty, in Java's format: no entries, and a digest with the password."""
        names = ("MATERIAL_DIRECTORY", "HADOOP_USER_NAME")
        script = f"import json, os; print(json.dumps([os.environ[name] for name in {names}]))"
        declare(shared, "stores", script)

        ended = until(shared, "stores", run(shared, "stores"), "FINISHED")

        folder, user = json.loads(log(shared, ended["stdoutPath"]))
        password = Path(folder, f"{user}__cert.key").read_text()
        for kind in ("kstore", "tstore"):
            content = Path(folder, f"{user}__{kind}.jks").read_bytes()
            assert content[:-20] == bytes.fromhex("feedfeed 00000002 00000000")
            salted = password.encode("utf-16-be") + b"Mighty Aphrodite" + content[:-20]
            assert content[-20:] == hashlib.sha1(salted, usedforsecurity=False).digest()

    def test_gets_environment_variables_of_a_json_body(self, shared: Client) -> None:
        declare(shared, "variables", "import os; print(os.environ['DAY'])")

        body = {"args": "", "envVars": {"DAY": "monday"}}
        number = shared.give("POST", "/jobs/variables/executions", json=body)["id"]

        assert log(shared, until(shared, "variables", number, "FINISHED")["stdoutPath"]) == "monday\n"

    def test_without_arguments_has_the_default_ones(self, shared: Client) -> None:
        declare(shared, "defaults", "import sys; print(sys.argv[1:])", default_args="--a 1")

        ended = until(shared, "defaults", run(shared, "defaults"), "FINISHED")

        assert ended["args"] == "--a 1"
        assert log(shared, ended["stdoutPath"]) == "['--a', '1']\n"

    @pytest.mark.parametrize("script", ["raise ValueError('no rows')", "import sys; sys.exit('no rows')"])
    def test_of_a_script_that_fails(self, shared: Client, script: str) -> None:
        declare(shared, "fails", script)

        ended = until(shared, "fails", run(shared, "fails"), "FAILED")

        assert ended["finalStatus"] == "FAILED"
        assert "no rows" in log(shared, ended["stderrPath"])

    @pytest.mark.parametrize(
        ("job_type", "folder", "state"),
        [("PYTHON", "Python", "INITIALIZATION_FAILED"), ("PYSPARK", "Spark", "APP_MASTER_START_FAILED")],
    )
    def test_of_a_file_that_is_no_script(self, shared: Client, job_type: str, folder: str, state: str) -> None:
        name = f"jar-{job_type}"
        declare(shared, name, "", job_type=job_type)
        job = shared.give("GET", f"/jobs/{name}")
        shared.serving.world.project(119).files.write("Resources/app.jar", b"")
        shared.give(
            "PUT", f"/jobs/{name}", json={**job["config"], "appPath": "hdfs:///Projects/example/Resources/app.jar"}
        )

        ended = until(shared, name, run(shared, name), state)

        assert ended["finalStatus"] == "FAILED"
        assert ended["stderrPath"] == f"Logs/{folder}/{name}/{ended['id']}/stderr.log"
        assert "Python scripts" in log(shared, ended["stderrPath"])

    def test_whose_environment_cannot_be_had(self, shared: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        declare(shared, "environment", "print(1)")

        def missing(*_: object) -> Path:
            raise EnvironmentFailedError("there is no environment 'x'")

        monkeypatch.setattr(shared.serving.world.project(119).jobs.executions._runner, "_python", missing)
        ended = until(shared, "environment", run(shared, "environment"), "INITIALIZATION_FAILED")

        assert "there is no environment 'x'" in log(shared, ended["stderrPath"])

    def test_that_cannot_be_carried_out_is_failed(self, shared: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        declare(shared, "disk", "print(1)")
        monkeypatch.setattr(shared.serving.world.project(119).files, "write", lambda *_: 1 / 0)

        ended = until(shared, "disk", run(shared, "disk"), "FRAMEWORK_FAILURE")

        assert ended["finalStatus"] == "FAILED"

    def test_has_its_logs_later_where_the_speeds_say_so(self) -> None:
        with client_of(speeds=Speeds(job_logs=0.5)) as client:
            declare(client, "late", "print('said')")
            ended = until(client, "late", run(client, "late"), "FINISHED")

            assert client.refused("GET", f"/dataset/{ended['stdoutPath']}") == (400, 110018)
            deadline = time.monotonic() + 10
            while log(client, ended["stdoutPath"]) != "said\n":
                assert time.monotonic() < deadline
                time.sleep(0.02)


class TestStop:
    @pytest.mark.parametrize("body", [{"data": "state=stopped"}, {"data": '{"state": "stopped"}'}])
    def test_ends_the_process(self, shared: Client, body: dict[str, str]) -> None:
        declare(shared, "patient", "import os; print(os.getpid(), flush=True)\n" + PATIENT)
        number = run(shared, "patient")
        until(shared, "patient", number, "RUNNING")
        pod = f"/jobs/patient/executions/{number}/pod-logs"
        while "begun" not in (live := shared.give("GET", pod))["log"]:
            time.sleep(0.02)
        headers = {"Content-Type": "application/json"}

        answer = shared.ask("PUT", f"/jobs/patient/executions/{number}/status", headers=headers, **body)

        assert answer.status_code == 202
        assert until(shared, "patient", number, "KILLED")["finalStatus"] == "KILLED"
        assert live["status"] == "AVAILABLE"
        until_ended(live["log"].split()[0])
        assert shared.give("GET", pod)["status"] == "LOGS_UNAVAILABLE"

    def test_before_the_process_has_begun(self) -> None:
        with client_of(speeds=Speeds(job_starting=60)) as client:
            declare(client, "waits", PATIENT)
            number = run(client, "waits")

            client.give("PUT", f"/jobs/waits/executions/{number}/status", json={"state": "stopped"})

            assert until(client, "waits", number, "KILLED")["finalStatus"] == "KILLED"

    def test_of_one_that_has_ended_changes_nothing(self, shared: Client) -> None:
        declare(shared, "ended", "")
        number = run(shared, "ended")
        until(shared, "ended", number, "FINISHED")

        answer = shared.give("PUT", f"/jobs/ended/executions/{number}/status", json={"state": "stopped"})

        assert answer["state"] == "FINISHED"

    def test_with_another_state(self, shared: Client) -> None:
        declare(shared, "other", "")
        number = run(shared, "other")

        path = f"/jobs/other/executions/{number}/status"
        assert shared.refused("PUT", path, json={"state": "paused"}) == (400, 130010)

    def test_by_a_deletion(self, shared: Client) -> None:
        declare(shared, "deleted", PATIENT)
        first, second = run(shared, "deleted"), run(shared, "deleted")

        shared.give("DELETE", f"/jobs/deleted/executions/{first}")
        assert shared.refused("GET", f"/jobs/deleted/executions/{first}") == (404, 130007)
        shared.give("DELETE", "/jobs/deleted")
        assert shared.refused("GET", f"/jobs/deleted/executions/{second}") == (404, 130009)


class TestLists:
    def test_of_executions_come_in_pages(self, shared: Client) -> None:
        declare(shared, "listed", "")
        path = "/jobs/listed/executions"
        assert shared.give("GET", path) == {"count": 0}
        numbers = [run(shared, "listed") for _ in range(3)]

        newest = shared.give("GET", path, params={"sort_by": "submissiontime:desc", "limit": 2})
        rest = shared.give("GET", path, params={"sort_by": "submissiontime:desc", "offset": 2, "limit": 2})

        assert (newest["count"], [row["id"] for row in newest["items"]]) == (3, numbers[:0:-1])
        assert [row["id"] for row in rest["items"]] == numbers[:1]
        assert [row["id"] for row in shared.give("GET", path)["items"]] == numbers
        assert shared.refused("GET", path, params={"sort_by": "colour"}) == (422, 120001)

    def test_of_jobs(self, shared: Client) -> None:
        declare(shared, "one-of-the-jobs", "")

        assert "one-of-the-jobs" in [row["name"] for row in shared.give("GET", "/jobs")["items"]]

    def test_logs_of_the_older_route(self, shared: Client) -> None:
        declare(shared, "says", "import sys; print('out'); print('err', file=sys.stderr)")
        number = run(shared, "says")
        until(shared, "says", number, "FINISHED")
        path = f"/jobs/says/executions/{number}/log"

        assert shared.give("GET", f"{path}/out")["log"] == "out\n"
        assert shared.give("GET", f"{path}/err")["log"] == "err\n"
        assert shared.refused("GET", f"{path}/all") == (422, 120001)


class TestAJob:
    def test_is_made_and_changed_by_a_client(self, shared: Client) -> None:
        shared.serving.world.project(119).files.write("Resources/mine.py", b"print('mine')")
        config = shared.give("GET", "/jobs/PYTHON/configuration") | {
            "appPath": "hdfs:///Projects/example/Resources/mine.py"
        }

        made = shared.give("PUT", "/jobs/mine", json=config)
        changed = shared.give("PUT", "/jobs/mine", json=config | {"defaultArgs": "x"})

        assert (made["jobType"], made["creator"]["username"]) == ("PYTHON", "local000")
        assert changed["id"] == made["id"]
        assert changed["config"] == {**config, "appName": "mine", "defaultArgs": "x"}
        assert log(shared, until(shared, "mine", run(shared, "mine"), "FINISHED")["stdoutPath"]) == "mine\n"

    def test_of_spark_that_runs_python(self, shared: Client) -> None:
        declare(shared, "spark", "print('spark')", job_type="PYSPARK")

        assert shared.give("GET", "/jobs/spark")["jobType"] == "PYSPARK"
        until(shared, "spark", run(shared, "spark"), "FINISHED")

    def test_of_an_unknown_type_is_not_declared(self, shared: Client) -> None:
        with pytest.raises(ValueError, match="PYTHON_APP"):
            declare(shared, "unknown", "", job_type="COBOL")

    @pytest.mark.parametrize(
        ("name", "config", "expected"),
        [
            ("a", {"type": "cobolJobConfiguration", "appPath": "a"}, (400, 130002)),
            ("a", {"type": "pythonJobConfiguration"}, (422, 120001)),
            ("a b", {"type": "pythonJobConfiguration", "appPath": "a"}, (400, 130006)),
        ],
    )
    def test_refusals(self, shared: Client, name: str, config: dict[str, str], expected: tuple[int, int]) -> None:
        assert shared.refused("PUT", f"/jobs/{name}", json=config) == expected


class TestRefusals:
    def test_of_what_does_not_exist(self, shared: Client) -> None:
        declare(shared, "exists", "")

        assert shared.refused("GET", "/jobs/missing") == (404, 130009)
        assert shared.refused("GET", "/jobs/exists/executions/999999") == (404, 130007)
        assert shared.refused("GET", "/jobs/cobol/configuration") == (400, 130002)

    def test_of_a_script_that_does_not_exist(self, shared: Client) -> None:
        shared.give("PUT", "/jobs/empty", json={"type": "pythonJobConfiguration", "appPath": "Resources/none.py"})

        headers = {"Content-Type": "text/plain"}
        assert shared.refused("POST", "/jobs/empty/executions", headers=headers) == (400, 130000)

    @pytest.mark.parametrize("args", ["x" * 10_001, "'unbalanced"])
    def test_of_arguments(self, shared: Client, args: str) -> None:
        declare(shared, "picky", "")

        headers = {"Content-Type": "text/plain"}
        assert shared.refused("POST", "/jobs/picky/executions", data=args, headers=headers) == (422, 120001)

    @pytest.mark.parametrize("body", [{"args": 1}, {"envVars": {"A": 1}}, {"envVars": "a"}])
    def test_of_a_body(self, shared: Client, body: dict[str, Any]) -> None:
        declare(shared, "bodies", "")

        assert shared.refused("POST", "/jobs/bodies/executions", json=body) == (422, 120001)

    def test_of_a_body_without_a_type(self, shared: Client) -> None:
        declare(shared, "types", "")

        assert shared.ask("POST", "/jobs/types/executions", data=b"").status_code == 415

    def test_of_a_json_body_where_hopsworks_has_none(self) -> None:
        with client_of(hopsworks_version="4.6") as client:
            declare(client, "older", "")

            assert client.ask("POST", "/jobs/older/executions", json={}).status_code == 415
            assert client.ask("GET", "/jobs/older/executions/1/pod-logs").status_code == 404
            until(client, "older", run(client, "older"), "FINISHED")

    def test_without_a_type_of_the_body_where_hopsworks_has_only_one(self) -> None:
        with client_of(hopsworks_version="4.6") as client:
            declare(client, "older", "")

            answer = client.ask("POST", "/jobs/older/executions", data=b"--day 1")

            assert (answer.status_code, answer.json()["args"]) == (201, "--day 1")

    def test_of_the_log_of_one_that_runs(self, shared: Client) -> None:
        declare(shared, "running", PATIENT)
        number = run(shared, "running")

        assert shared.refused("GET", f"/jobs/running/executions/{number}/log/out") == (400, 130010)
        shared.give("DELETE", "/jobs/running")

    def test_of_a_key_without_the_scope(self, shared: Client) -> None:
        declare(shared, "scoped", "")
        headers = {"Content-Type": "text/plain"}

        answer = shared.ask("POST", "/jobs/scoped/executions", key="no.jobs", headers=headers)
        assert (answer.status_code, answer.json()["errorCode"]) == (403, 320004)
        assert "JOB" in answer.json()["usrMsg"]
        assert shared.refused("GET", "/jobs/scoped", key="no.jobs") == (403, 320004)
        assert shared.give("GET", "/jobs/scoped", key="jobs.only")["name"] == "scoped"

    def test_of_a_project_without_credits(self) -> None:
        with client_of(administration=Administration(quota=Quota(executions=1))) as client:
            declare(client, "costly", "")
            run(client, "costly")

            headers = {"Content-Type": "text/plain"}
            assert client.refused("POST", "/jobs/costly/executions", headers=headers) == (412, 150029)


class TestTheEndOfTheServer:
    def test_ends_the_processes(self, tmp_path: Path) -> None:
        with client_of(root=tmp_path) as client:
            declare(
                client,
                "patient",
                f"open({str(tmp_path / 'pid')!r}, 'w').write(str(__import__('os').getpid()))\n{PATIENT}",
            )
            number = run(client, "patient")
            until(client, "patient", number, "RUNNING")
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                time.sleep(0.02)

        until_ended((tmp_path / "pid").read_text())
        with client_of(root=tmp_path) as client:
            assert client.give("GET", f"/jobs/patient/executions/{number}")["state"] == "KILLED"

    def test_by_a_kill_ends_the_processes_and_fails_the_executions(self, tmp_path: Path) -> None:
        env = {**os.environ, "HSML_LOCAL_API_KEY": _KEY}
        command = [sys.executable, str(_PROGRAM), str(tmp_path / "root")]

        def ask(url: str, method: str, path: str, **arguments: Any) -> Any:
            headers = {"Authorization": f"ApiKey {_KEY}", "Content-Type": "text/plain"} | arguments.pop("headers", {})
            with requests.Session() as session:
                session.trust_env = False
                below = f"{url}/hopsworks-api/api/project/119{path}"
                answer = session.request(method, below, headers=headers, timeout=30, verify=True, **arguments)
            assert answer.ok, answer.text
            return answer.json()

        scripts = tmp_path / "root" / "projects" / "example" / "Resources"
        scripts.mkdir(parents=True)
        pid = tmp_path / "pid"
        (scripts / "job.py").write_text(f"open({str(pid)!r}, 'w').write(str(__import__('os').getpid()))\n{PATIENT}")
        with (tmp_path / "said").open("w") as said:
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=env) as server:
                assert server.stdout is not None
                url = json.loads(server.stdout.readline())["url"]
                ask(url, "PUT", "/jobs/a", json={"type": "pythonJobConfiguration", "appPath": "Resources/job.py"})
                number = ask(url, "POST", "/jobs/a/executions", data="")["id"]
                while not pid.exists() or not pid.read_text():
                    time.sleep(0.02)
                server.send_signal(signal.SIGKILL)
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=env) as server:
                try:
                    assert server.stdout is not None
                    url = json.loads(server.stdout.readline())["url"]
                    execution = ask(url, "GET", f"/jobs/a/executions/{number}")
                    log = ask(url, "GET", f"/jobs/a/executions/{number}/log/err")["log"]
                finally:
                    server.terminate()

        assert (execution["state"], execution["finalStatus"]) == ("FAILED", "FAILED")
        assert "ended while this execution was running" in log
        until_ended(pid.read_text())


class TestTheEnvironments:
    def test_of_hopsworks_are_the_default_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def python(_self: Environments, requirements: tuple[str, ...], *_: object) -> Path:
            asked.append(requirements)
            return Path("python")

        monkeypatch.setattr(Environments, "python", python)
        (tmp_path / "mine.txt").write_text("hopsworks==5.2.1\n")
        named = NamedEnvironments(Environments(tmp_path), tmp_path, JOB_ENVIRONMENTS, job_requirements)

        for name in (None, "pandas-training-pipeline", "mine"):
            named.python(name, print)

        assert asked == [job_requirements(), job_requirements(), (*job_requirements(), "hopsworks==5.2.1")]
        assert not any(line.startswith("kserve") for line in job_requirements())
        with pytest.raises(EnvironmentFailedError, match=r"pandas-training-pipeline, .*mine"):
            named.python("minimal-inference-pipeline", print)
