"""Who may do what: API keys with their scopes, and the projects of their user."""

from __future__ import annotations

import hmac
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_hsml.local.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

SCOPES = frozenset(
    {
        "PROJECT",
        "SERVING",
        "MODELREGISTRY",
        "DATASET_VIEW",
        "DATASET_CREATE",
        "DATASET_DELETE",
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


@dataclass(frozen=True, slots=True)
class Project:
    """A project. Its id is also that of its model registry."""

    id: int
    name: str
    is_foreign: bool = False
    """Whether the keys' user has no role in it."""

    @property
    def namespace(self) -> str:
        """Its Kubernetes namespace: the name, as far as Kubernetes takes it."""
        return self.name.lower().replace("_", "-")


class Accounts:
    """
    The projects, and the keys that open them.

    :param projects: names of the projects that the keys' user is a member of
    :param foreign: names of projects in which the user has no role
    :param keys: the scopes of each key
    :param roles: what the user of a key is in the projects; Data owner where nothing is said
    :param shared: names of projects that share their ``Models``, with those that they share it with
    :param tokens: of the user's sessions; they have every scope
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
            raise ValueError("roles has a key that there is not: expected those of keys, and api_key")
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
        :param allowed: scopes of which the key must have one
        :raises Refusal: there is no key, it is not one of ours, or it lacks the scope
        """
        if any(hmac.compare_digest(token, authorization.encode()) for token in self._tokens):
            return
        if not authorization.startswith(_HEADER):
            raise Refusal(200003, "No API key: expected the header 'Authorization: ApiKey <key>'.")
        key = self._known(authorization)
        if key is None:
            given = authorization.removeprefix(_HEADER).strip()
            prefix, dot, _ = given.partition(".")
            is_prefix_known = bool(dot) and any(other.startswith(f"{prefix}.") for other in self._keys)
            raise Refusal(320012 if is_prefix_known else 320013)
        if allowed and not self._keys[key] & frozenset(allowed):
            raise Refusal(320004, f"The API key lacks the scope {' or '.join(sorted(allowed))}.")

    def role(self, authorization: str) -> str:
        """Give what the user of a key is in the projects."""
        return self._roles.get(self._known(authorization) or "", OWNER)

    def shared_with(self, project: Project) -> list[Project]:
        """Give the projects whose registries a project reads: its own, and those that are shared with it."""
        return [p for p in self.projects if p == project or project.name in self._shared.get(p.name, ())]

    def hide_keys(self, text: str) -> str:
        """Make a text fit to be shown to somebody without a key: a script may have printed one."""
        for key in self._keys:
            text = text.replace(key, "<API key>")
        return text

    def _known(self, authorization: str) -> str | None:
        given = authorization.removeprefix(_HEADER).strip().encode()
        return next((key for key in self._keys if hmac.compare_digest(key.encode(), given)), None)

    def by_name(self, name: str) -> Project:
        """Find a project by its name; refused when it is unknown or foreign."""
        return self._member(next((project for project in self.projects if project.name == name), None), name)

    def by_id(self, project_id: int) -> Project:
        """Find a project by its id; refused when it is unknown or foreign."""
        return self._member(next((p for p in self.projects if p.id == project_id), None), str(project_id))

    @staticmethod
    def _member(project: Project | None, asked: str) -> Project:
        if project is None:
            raise Refusal(150004, f"Project {asked} not found.")
        if project.is_foreign:
            raise Refusal(160000, f"The user has no role in project {asked}.")
        return project


def kept_key(file: Path) -> str:
    """
    Give the API key that is kept in a file, making both where there is none.

    :param file: readable by its owner only
    """
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        key = f"{secrets.token_hex(8)}.{secrets.token_hex(32)}"
        keep_key(file, key)
        return key


def keep_key(file: Path, key: str) -> None:
    """
    Write an API key to a file that only its owner can read.

    :param file: is replaced
    :param key: the key
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
