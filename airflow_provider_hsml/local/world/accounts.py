"""Access control: API keys with their scopes, and the projects of their user."""

from __future__ import annotations

import hmac
import os
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_hsml.local.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

SCOPES = frozenset(
    {
        "PROJECT",
        "SERVING",
        "MODELREGISTRY",
        "DATASET_VIEW",
        "DATASET_CREATE",
        "DATASET_DELETE",
        "FEATURESTORE",
        "USER",
        "JOB",
        "KAFKA",
        "ADMIN",
    },
)
OWNER = "Data owner"
ROLES = (OWNER, "Data scientist")
FIRST_PROJECT_ID = 119
_HEADER = "ApiKey "
_PROJECT = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Project:
    """A project. Its id is also that of its model registry."""

    id: int
    name: str
    is_foreign: bool = False
    """Whether the keys' user has no role in it."""

    @property
    def namespace(self) -> str:
        """Its Kubernetes namespace: the name, with the characters that Kubernetes allows."""
        return self.name.lower().replace("_", "-")


class Accounts:
    """
    The projects, and the keys with access to them.

    :param projects: names of the projects that the keys' user is a member of
    :param foreign: names of projects in which the user has no role
    :param keys: the scopes of each key
    :param roles: the role of a key's user in the projects; Data owner by default
    :param shared: for each project that shares its ``Models``, the names of the projects with access
    :param tokens: the session tokens of the user; they have every scope
    """

    def __init__(
        self,
        projects: Sequence[str],
        foreign: Sequence[str],
        keys: Mapping[str, Collection[str]],
        roles: Mapping[str, str],
        shared: Mapping[str, Collection[str]],
        *,
        tokens: Collection[str] = (),
    ) -> None:
        names = [*projects, *foreign]
        if unknown := {*shared, *(name for others in shared.values() for name in others)} - set(names):
            raise ValueError(f"projects {sorted(unknown)} are not known: expected some of {names}")
        if roles.keys() - keys.keys():
            raise ValueError("roles has an unknown API key: expected those of keys, and api_key")
        if unknown := set(roles.values()) - set(ROLES):
            raise ValueError(f"roles {sorted(unknown)} are not known: expected some of {list(ROLES)}")
        self._roles = dict(roles)
        self._shared = shared
        self.projects = [Project(FIRST_PROJECT_ID + n, name, name in foreign) for n, name in enumerate(names)]
        self._keys = {key: frozenset(scopes) for key, scopes in keys.items()}
        self._tokens = [f"Bearer {token}".encode() for token in tokens]
        for scopes in self._keys.values():
            if unknown := set(scopes - SCOPES):
                raise ValueError(f"scopes {sorted(unknown)} are not known: expected some of {sorted(SCOPES)}")

    def check(self, authorization: str, allowed: Collection[str]) -> None:
        """
        Check the Authorization header of a request.

        :param authorization: the header's value, empty when there is none
        :param allowed: the key must have one of these scopes
        :raises Refusal: there is no key, it is unknown, or it lacks the scope
        """
        if any(hmac.compare_digest(token, authorization.encode()) for token in self._tokens):
            return
        if not authorization.startswith(_HEADER):
            raise Refusal(200003, "No API key: expected the header 'Authorization: ApiKey <key>'.")
        key = self._known(authorization)
        if key is None:
            unknown_key = authorization.removeprefix(_HEADER).strip()
            prefix, dot, _ = unknown_key.partition(".")
            is_prefix_known = bool(dot) and any(other.startswith(f"{prefix}.") for other in self._keys)
            raise Refusal(320012 if is_prefix_known else 320013)
        if allowed and not self._keys[key] & frozenset(allowed):
            raise Refusal(320004, f"The API key lacks the scope {' or '.join(sorted(allowed))}.")

    def role(self, authorization: str) -> str:
        """Return the role of a key's user in the projects."""
        return self._roles.get(self._known(authorization) or "", OWNER)

    def shared_with(self, project: Project) -> list[Project]:
        """Return the projects whose registries a project can read: its own, and those shared with it."""
        return [p for p in self.projects if p == project or project.name in self._shared.get(p.name, ())]

    def hide_keys(self, text: str) -> str:
        """Replace all API keys in a text, before it is shown to people without a key: a script may have printed one."""
        for key in self._keys:
            text = text.replace(key, "<API key>")
        return text

    def _known(self, authorization: str) -> str | None:
        sent = authorization.removeprefix(_HEADER).strip().encode()
        return next((key for key in self._keys if hmac.compare_digest(key.encode(), sent)), None)

    def by_name(self, name: str) -> Project:
        """Return a project by its name; refuse one that is unknown or foreign."""
        return self._member(next((project for project in self.projects if project.name == name), None), name)

    def by_id(self, project_id: int) -> Project:
        """Return a project by its id; refuse one that is unknown or foreign."""
        return self._member(next((p for p in self.projects if p.id == project_id), None), str(project_id))

    @staticmethod
    def _member(project: Project | None, requested: str) -> Project:
        if project is None:
            raise Refusal(150004, f"Project {requested} not found.")
        if project.is_foreign:
            raise Refusal(160000, f"The user has no role in project {requested}.")
        return project


def check_projects(names: Sequence[str]) -> None:
    """
    Refuse projects that no client can name: the name is also a segment of paths and a part of host names.

    :raises ValueError: there are none, two have the same name, or a name is not valid
    """
    if not names:
        raise ValueError("project is missing: expected the name of one project, or several.")
    for name in names:
        if not _PROJECT.fullmatch(name):
            raise ValueError(f"project {name!r} is not valid: expected letters, digits and underscores.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"projects {twice} are given twice: expected each name once.")


def check_keys(what: str, keys: Iterable[str]) -> None:
    """
    Refuse API keys and tokens that no client can send. The message does not repeat them.

    :param what: their origin, for the message
    :raises ValueError: one is empty, or has a character that no key has
    """
    for key in keys:
        if not key or not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError(f"{what}: expected API keys of printable ASCII characters, without spaces.")


def kept_key(file: Path) -> str:
    """
    Return the API key that is stored in a file; create both if the file does not exist.

    :param file: readable by its owner only
    :raises ValueError: the file has no key
    """
    try:
        key = file.read_text(errors="replace").strip()
    except FileNotFoundError:
        key = f"{secrets.token_hex(8)}.{secrets.token_hex(32)}"
        keep_key(file, key)
    check_keys(str(file), [key])
    return key


def keep_key(file: Path, key: str) -> None:
    """
    Write an API key to a file that only its owner can read.

    :param file: replaced if it exists
    """
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged = file.with_suffix(".new")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(f"{key}\n")
        stream.flush()
        os.fsync(stream.fileno())
    staged.replace(file)
