"""What the server refuses before it starts: the rules for projects and keys are the provider's own, tried on both."""

from __future__ import annotations

import random
import stat
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.api import Call
from airflow_provider_hsml.hopsworks.domain.access import Access
from airflow_provider_hsml.hopsworks.errors import InvalidInputError
from airflow_provider_hsml.hopsworks.transport.request import HttpRequest
from airflow_provider_hsml.local import AccessOptions, LocalServing
from tests.local.conftest import Client, deployment, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DRAW = random.Random(14)  # noqa: S311 - a test
_CHARACTERS = "aZ09__..-/ \t\n\0\x1b\x7f\u00e9\u0661\u202e\ud800"
DRAWN = ["".join(_DRAW.choices(_CHARACTERS, k=_DRAW.randint(0, 5))) for _ in range(1000)]
PROJECTS = ["example", "Demo_2", "", "my project", "my-project", "..", "../x", "a/b", "d\u00e9mo", "\u0661"]
KEYS = [
    "a.b",
    "",
    " ",
    "\n",
    " a.b ",
    "a.b\n",
    "a b",
    "a\tb",
    "k\u00e9y.x",
    "key\0",
    "\x7f",
    "\ud800",
    "\u2028",
    "a" * 9999,
]


def _is_refused(error: type[Exception], call: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    try:
        call(*arguments, **named)
    except error:
        return True
    return False


def _provider(project: str, key: str) -> None:
    access = Access.from_connection(host="http://127.0.0.1", port=1, password=key, extra={"project": project})
    HttpRequest(access, Call("read", "GET", "path", lambda data: data), access.key)


def test_projects_as_in_the_provider() -> None:
    # The provider strips the value of a connection's field.
    for project in (text.strip() for text in (*PROJECTS, *DRAWN)):
        refused = _is_refused(ValueError, LocalServing, project=project, engine=load)

        assert refused == _is_refused(InvalidInputError, _provider, project, "key.secret"), repr(project)


def test_keys_as_in_the_provider() -> None:
    for key in (*KEYS, *DRAWN):
        refused = _is_refused(ValueError, LocalServing, api_key=key, engine=load)

        assert refused == _is_refused(InvalidInputError, _provider, "example", key), repr(key)


@pytest.mark.parametrize(
    "given",
    [
        {"project": []},
        {"project": ["example", "example"]},
        {"project": ["example", "../up"]},
        {"access": AccessOptions(foreign_projects=["a/b"])},
        {"access": AccessOptions(foreign_projects=["example"])},
        {"access": AccessOptions(keys={"s\u00e9cret": {"PROJECT"}})},
        {"access": AccessOptions(keys={"": {"PROJECT"}})},
        {"access": AccessOptions(tokens=["a token"])},
        {"api_key": "a secr\u00e9t"},
    ],
)
def test_nothing_is_written_when_an_argument_is_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|missing") as raised:
        LocalServing(tmp_path / "root", engine=load, **given)

    assert not (tmp_path / "root").exists()
    assert "cr\u00e9t" not in str(raised.value), "the message must not show a key"


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"caf\xe9.key"])
def test_a_kept_key_that_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "api.key").write_bytes(content)

    with pytest.raises(ValueError, match=r"api\.key: expected API keys"):
        LocalServing(tmp_path, engine=load).start()


def test_a_key_is_stripped_as_in_the_connection() -> None:
    with LocalServing(engine=load, api_key=" a.key\n") as serving:
        client = Client(serving)
        with client.session:
            assert client.ask("GET", "/serving", key="a.key").ok


def test_only_the_owner_can_read_the_state(tmp_path: Path) -> None:
    """Also in a root that a server of before made readable for others."""
    (tmp_path / "state.sqlite3").touch(0o644)
    for _ in range(2):
        with LocalServing(tmp_path, engine=load) as serving:
            serving.world.register_model("digits", {"model.pkl": b""}, version=1)
            client = Client(serving)
            with client.session:
                client.ask("PUT", "/serving", json=deployment(predictorEnvVars=["TOKEN=a secret"]))
            files = sorted(tmp_path.glob("state.sqlite3*"))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in files}
            assert set(modes.values()) == {0o600}, modes
            assert len(modes) == 3
        for file in tmp_path.glob("state.sqlite3*"):
            file.chmod(0o644)
