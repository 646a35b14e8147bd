"""
Routes that only some versions of Hopsworks have: versions and tags of deployments, tags of models, variables.

A route is missing if Hopsworks says so by its own error code. Older versions respond with a bare 404, as a proxy may
for a moment: such a 404 counts once it has repeated, while Hopsworks answered another read in between.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

from . import api
from .api import MissingRoute
from .errors import UnexpectedResponseError
from .flow import Sleep, all_pages, read_patiently

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .api import Call, Project
    from .domain.deployment import Deployment, DeploymentVersion
    from .flow import Backoff

log = logging.getLogger(__name__)

T = TypeVar("T")

TRIES = 3
"""Bare 404s after which a route counts as missing."""
BETWEEN_TRIES = 1.0
"""Seconds between them."""


class Routes:
    """The optional routes, as far as one task knows them: each is looked for once."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        """Routes that exist: Hopsworks never loses one."""
        self._missing: set[str] = set()

    def recall(self, used: Iterable[str]) -> None:
        """
        Add routes that an earlier task has used.

        :param used: their names
        """
        self.used |= set(used)

    async def read(self, call: Call[T | MissingRoute], witness: Call[Any], backoff: Backoff | None = None) -> T | None:
        """
        Read from an optional route; None if this Hopsworks lacks it.

        :param call: the read
        :param witness: a read that every Hopsworks answers, of the same thing or of its list
        :param backoff: how to retry while the server is unavailable; None for no retry beyond the client's own
        :raises UnexpectedResponseError: the route is missing although it was used before
        """
        if call.optional in self._missing:
            return None
        for number in range(TRIES):
            found = await (read_patiently(call, backoff) if backoff else call)
            if not isinstance(found, MissingRoute):
                self.used.add(call.optional)
                return found
            if call.optional in self.used:
                message = f"{call.what}: HTTP 404, although this Hopsworks has answered such requests before."
                raise UnexpectedResponseError(message, status=404)
            if found is MissingRoute.CERTAIN:
                break
            if number < TRIES - 1:
                await (read_patiently(witness, backoff) if backoff else witness)
                await Sleep(BETWEEN_TRIES)
        log.info("%s: this Hopsworks has no such route", call.what)
        self._missing.add(call.optional)
        return None

    async def versions(
        self, project: Project, deployment: Deployment, *, complete: bool = False, backoff: Backoff | None = None
    ) -> list[DeploymentVersion] | None:
        """
        List the versions of a deployment, newest first; None if this Hopsworks keeps none (before 5.2).

        :param complete: raise an error for a version that cannot be read; else it is logged and left out
        :param backoff: how to retry while the server is unavailable; None for no retry beyond the client's own
        """
        witness = api.get_deployment_by_id(project, deployment.id)
        return await all_pages(
            lambda offset: self.read(
                api.get_versions(project, deployment, offset=offset, complete=complete), witness, backoff
            )
        )
