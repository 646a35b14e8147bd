"""The model servers' environments: built once, never taken half built."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hsml.local.cluster import environments, inherited
from airflow_provider_hsml.local.cluster.environments import (
    EnvironmentFailedError,
    Environments,
    NamedEnvironments,
    default_requirements,
)

REQUIREMENTS = ("first==1", "second")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been run; the first makes the interpreter."""
    ran: list[list[str]] = []

    def run(command: list[str], env: dict[str, str], _cancelled: threading.Event) -> None:
        assert "PYTHONDONTWRITEBYTECODE" not in env
        ran.append(command)
        if "venv" in command:
            interpreter = Path(command[-1]) / "bin" / "python"
            interpreter.parent.mkdir(parents=True)
            interpreter.touch()

    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(environments, "_run", run)
    return ran


def test_built_once(tmp_path: Path, commands: list[list[str]]) -> None:
    said: list[str] = []
    kept = Environments(tmp_path)
    assert not kept.is_built(REQUIREMENTS)

    interpreter = kept.python(REQUIREMENTS, said.append)

    assert interpreter.exists()
    assert kept.is_built(REQUIREMENTS)
    assert [command[-1] for command in commands][1] == "second"
    assert "--compile-bytecode" in commands[1]
    assert "first==1" in said[0]
    assert kept.python(REQUIREMENTS, said.append) == interpreter
    assert len(commands) == 3
    assert kept.python(("other",), said.append) != interpreter


_SECRETS = (
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW_CONN_HSML_DEFAULT",
    "AIRFLOW_VAR_X",
    "AIRFLOW_HOME",
    "AIRFLOW_CTX_DAG_ID",
)
_OTHERS = (
    "HSML_LOCAL_API_KEY",
    "HOPSWORKS_API_KEY",
    "SECRETS_DIR",
    "AWS_SECRET_ACCESS_KEY",
    "PGPASSWORD",
    "PYTHONPATH",
)


def test_processes_that_run_other_peoples_code_get_no_settings_of_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*_SECRETS, *_OTHERS):
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setenv("UV_INDEX_URL", "https://index.example.com")
    monkeypatch.setenv("https_proxy", "http://proxy.example.com")

    assert "a secret" not in {**inherited.of_installer(), **inherited.of_model_server()}.values()
    assert inherited.of_installer()["UV_INDEX_URL"] == "https://index.example.com"
    assert inherited.of_installer()["https_proxy"] == "http://proxy.example.com"
    assert inherited.of_installer()["PATH"] == inherited.of_model_server()["PATH"] == os.environ["PATH"]


def test_a_build_gets_no_settings_of_airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is built from source runs its own code: each command of a build says its environment here."""
    program = tmp_path / "uv"
    program.write_text(f'#!/bin/sh\nenv >> "{tmp_path}/said"\nfor last; do :; done\n'
                       'case "$1" in venv) mkdir -p "$last/bin"; cp "$0" "$last/bin/python";; esac\n')  # fmt: skip
    program.chmod(0o700)
    monkeypatch.setattr(environments, "_uv", lambda: str(program))
    for name in (*_SECRETS, *_OTHERS):
        monkeypatch.setenv(name, "a secret")

    Environments(tmp_path / "cache").python(REQUIREMENTS, print)

    said = (tmp_path / "said").read_text()
    assert said.count("PATH=") >= 3
    assert "a secret" not in said


def test_two_at_once_build_once(tmp_path: Path, commands: list[list[str]]) -> None:
    threads = [threading.Thread(target=Environments(tmp_path).python, args=(REQUIREMENTS, print)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(commands) == 3


def test_what_is_half_built_is_built_anew(
    tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = environments._run

    def fails(command: list[str], env: dict[str, str], cancelled: threading.Event) -> None:
        works(command, env, cancelled)
        if "install" in command:
            raise EnvironmentFailedError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(environments, "_run", fails)
        with pytest.raises(EnvironmentFailedError, match="no network"):
            Environments(tmp_path).python(REQUIREMENTS, print)
    assert not Environments(tmp_path).is_built(REQUIREMENTS)

    assert Environments(tmp_path).python(REQUIREMENTS, print).exists()


def test_without_uv(tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "_uv", lambda: None)

    Environments(tmp_path).python(REQUIREMENTS, print)

    assert commands[0][:3] == [sys.executable, "-m", "venv"]
    assert commands[1][1:4] == ["-m", "pip", "install"]


def test_uv_from_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/somewhere/{name}")

    assert environments._uv() == "/somewhere/uv"


def test_a_command_that_fails_says_its_last_words() -> None:
    program = "import sys; sys.exit('the index is away')"

    with pytest.raises(EnvironmentFailedError, match="the index is away"):
        environments._run([sys.executable, "-c", program], {}, threading.Event())


def test_a_command_is_given_up() -> None:
    cancelled = threading.Event()
    cancelled.set()
    begin = time.monotonic()

    with pytest.raises(EnvironmentFailedError, match="another change"):
        environments._run(["sleep", "60"], dict(os.environ), cancelled)
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("content", [b"-r other.txt", b"caf\xe9", b"==1"])
def test_a_file_that_is_no_list_of_requirements(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.txt").write_bytes(content)

    with pytest.raises(EnvironmentFailedError, match=r"mine\.txt: expected a requirement a line"):
        NamedEnvironments(Environments(tmp_path), tmp_path).python("mine", print)


def test_ones_own_requirements_are_on_top_of_the_default_ones(tmp_path: Path, commands: list[list[str]]) -> None:
    (tmp_path / "mine.txt").write_text("# for the script\nScikit_Learn==1.5.2\ncowsay==6.1  # of course\n")
    named = NamedEnvironments(Environments(tmp_path), tmp_path)

    own, default, hopsworks = (named.python(name, print) for name in ("mine", None, "pandas-inference-pipeline"))

    assert own != default == hopsworks
    assert commands[1][-1] == "cowsay==6.1"
    assert [each for each in commands[1] if each.lower().startswith("scikit")] == ["Scikit_Learn==1.5.2"]
    assert environments.KSERVE in commands[1]


def test_pickles_are_loaded_with_what_they_were_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"scikit-learn": "1.5.2", "numpy": "2.1.0"}

    def version(name: str) -> Any:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert default_requirements() == (environments.KSERVE, "scikit-learn==1.5.2", "numpy==2.1.0")
    versions.clear()
    assert default_requirements() == (environments.KSERVE, "scikit-learn")


def test_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert environments.cache_folder() == tmp_path / "hsml-local" / "environments"
