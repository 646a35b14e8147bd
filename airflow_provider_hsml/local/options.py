"""The options of ``LocalServing`` that few users need, grouped: who has access, and how the server itself runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

DEFAULT_PROJECT = "example"
"""Of at least five letters: Airflow warns in each task about a shorter value in a connection, which it cannot mask."""


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """
    Access to the server: further keys, roles, and projects beside the user's own.

    :param keys: further API keys, with the scopes of each
    :param roles: the role of a key in its projects: "Data owner" (the default) or "Data scientist"
    :param tokens: session tokens for ``Bearer``, as Hopsworks gives them to its jobs; predictions with one are refused
    :param foreign_projects: names of projects in which the keys' user has no role
    :param shared_registries: names of projects that share their ``Models``, with the projects that they share it with
    """

    keys: Mapping[str, Collection[str]] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    tokens: Collection[str] = ()
    foreign_projects: Sequence[str] = ()
    shared_registries: Mapping[str, Collection[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """
    How the server process runs.

    :param ingress_port: the port of the ingress, which is plain HTTP; 0: a free one
    :param control: also serve faults, speeds and the journal over HTTP, below ``/_local``
    :param cache: where the model server's environments are built; None: the user's cache folder
    :param keep_bodies: also keep the JSON bodies of requests in the journal, up to a limit; ``hsml-local serve`` keeps
        them only with ``--control``, since nothing else can read them
    """

    ingress_port: int = 0
    control: bool = False
    cache: str | Path | None = None
    keep_bodies: bool = True
