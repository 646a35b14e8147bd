"""The command ``hsml-local``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_hsml.local import cli
from airflow_provider_hsml.local.cluster import environments
from airflow_provider_hsml.local.cluster.environments import EnvironmentFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_hsml.local import LocalServing


@contextlib.contextmanager
def _served(root: Path, *arguments: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any], str]]:
    """Run the server, and give its process, what it said of itself, and the line to paste."""
    command = [sys.executable, "-m", "airflow_provider_hsml.local.cli", "serve", "--port", "0", "--root", str(root)]
    with subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(root), **env},
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline()), process.stdout.readline()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_where_it_is_and_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with _served(tmp_path / "a root") as (process, ready, export):
        program = "import os; print(os.environ['AIRFLOW_CONN_HSML_DEFAULT'])"
        pasted = f"{export.strip()}\n{sys.executable} -c {json.dumps(program)}"
        fields = json.loads(subprocess.run(["sh", "-c", pasted], capture_output=True, text=True, check=True).stdout)
        url = f"https://{fields['host']}:{fields['port']}"
        answer = requests.get(
            f"{url}/hopsworks-api/api/project/getProjectInfo/{fields['extra']['project']}",
            headers={"Authorization": f"ApiKey {fields['password']}"},
            verify=fields["extra"]["ca_bundle"],
            timeout=10,
        )
        process.send_signal(number)
        out, err = process.communicate(timeout=20)

    assert ready["url"] == url
    assert ready["project"] == "example"
    assert answer.ok
    assert process.returncode == 0
    assert out == ""
    assert fields["password"] not in json.dumps(ready) + export + err


def test_the_key_from_the_environment(tmp_path: Path) -> None:
    with _served(tmp_path, "--no-tls", "--project", "mine", HSML_LOCAL_API_KEY="given.secret") as (_, ready, export):
        answer = requests.get(
            f"{ready['url']}/hopsworks-api/api/project/getProjectInfo/mine",
            headers={"Authorization": "ApiKey given.secret"},
            timeout=10,
            verify=True,
        )

    assert answer.ok
    assert ready["url"].startswith("http://127.0.0.1:")
    assert ready["ca_bundle"] is None
    assert "given.secret" not in json.dumps(ready) + export


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_serve_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say_ready = cli._say_ready

    def say_and_end(serving: LocalServing) -> None:
        say_ready(serving)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(cli, "_say_ready", say_and_end)
    with _handlers_kept():
        code = cli.main(["serve", "--port", "0", "--root", str(tmp_path), "--cache", str(tmp_path / "cache")])

    said = capsys.readouterr()
    assert code == 0
    assert json.loads(said.out.splitlines()[0])["root"] == str(tmp_path)
    assert "hsml-local prepare" in said.err, "the first start of a deployment would take long"


def test_feature_views_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "views.json"
    file.write_text(json.dumps([{"name": "transactions_view", "training_datasets": [1]}]))
    declared = []

    def look_and_end(serving: LocalServing) -> None:
        declared.extend(serving.world.project(serving.project_id).features.named())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(cli, "_say_ready", look_and_end)
    with _handlers_kept():
        cli.main(["serve", "--port", "0", "--root", str(tmp_path / "root"), "--feature-views", str(file)])

    assert [(view.name, view.version) for view in declared] == [("transactions_view", 1)]


@pytest.mark.parametrize("content", [None, "no json", '{"name": "x"}', '[{"nome": "x"}]', '[{"name": "X-"}]'])
def test_feature_views_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    file = tmp_path / "views.json"
    if content is not None:
        file.write_text(content)

    said = _refusal(capsys, "--port", "0", "--root", str(tmp_path / "root"), "--feature-views", str(file))

    assert f"--feature-views {file}: expected a JSON list of feature views" in said


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with _handlers_kept():
        assert cli.main(["serve", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    return said.err


def test_what_serve_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with _served(tmp_path) as (_, ready, _export):
        port = ready["url"].rpartition(":")[2]
        assert "give another --root" in _refusal(capsys, "--root", str(tmp_path), "--port", "0")
        assert "give another --port" in _refusal(capsys, "--root", str(tmp_path / "other"), "--port", port)
    (tmp_path / "file").touch()
    assert "give another --root" in _refusal(capsys, "--root", str(tmp_path / "file" / "root"), "--port", "0")
    for number, project in enumerate(("", "my project", "../../up\n")):
        said = _refusal(capsys, "--root", str(tmp_path / str(number)), "--port", "0", "--project", project)
        assert "expected letters, digits and underscores" in said
        assert not (tmp_path / str(number)).exists()
    for key in ("", " ", "two words", "caf\u00e9.x"):
        said = _refusal(capsys, "--root", str(tmp_path / "other"), "--port", "0", "--api-key", key)
        assert "api_key: expected API keys of printable ASCII characters" in said
        assert not key.strip() or key not in said
    assert "expected one of 3.7, 4.6, 5.2" in _refusal(capsys, "--root", str(tmp_path), "--hopsworks-version", "3.6")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "_NEEDED", {"starlette": "not_there_at_all"})

    for command in ("serve", "prepare"):
        assert cli.main([command]) == 1
        said = capsys.readouterr().err
        assert "starlette" in said
        assert "pip install 'airflow-provider-hsml[local]'" in said


def test_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(environments, "_build", lambda place, *_: place.mkdir())

    assert cli.main(["prepare", "--cache", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("Ready after 0 s: ")


def test_prepare_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise EnvironmentFailedError("the index is away")

    monkeypatch.setattr(environments, "_build", fail)

    assert cli.main(["prepare", "--cache", str(tmp_path)]) == 1
    assert "the index is away" in capsys.readouterr().err


def test_demo_has_arguments_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = types.ModuleType("demo")
    demo.main = len  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "airflow_provider_hsml.local.demo", demo)

    assert cli.main(["demo", "--keep", "x"]) == 2
