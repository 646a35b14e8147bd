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

    from .api import Call, Page, Project
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
        :raises UnexpectedResponseError: the list lacks the active version, so that others may be missing
        """
        found = await self._versions(project, deployment, backoff, complete=complete)
        return None if found is None else found[0]

    async def version_numbers(
        self, project: Project, deployment: Deployment, backoff: Backoff | None = None
    ) -> set[int] | None:
        """
        Return the numbers of a deployment's versions; None if this Hopsworks keeps none (before 5.2).

        :param backoff: how to retry while the server is unavailable; None for no retry beyond the client's own
        :raises UnexpectedResponseError: a number cannot be read, or the list lacks the active version
        """
        found = await self._versions(project, deployment, backoff)
        if found is None:
            return None
        numbers = {number for number in found[1] if number is not None}
        if None in found[1]:
            message = (
                f"list the versions of deployment {deployment.name!r}: the number of a version cannot be read.\n"
                "Run the task again."
            )
            raise UnexpectedResponseError(message, status=200)
        return numbers

    async def _versions(
        self, project: Project, deployment: Deployment, backoff: Backoff | None, *, complete: bool = False
    ) -> tuple[list[DeploymentVersion], list[int | None]] | None:
        """
        Return the versions that can be read, and the numbers of all.

        :raises UnexpectedResponseError: the list lacks the active version
        """
        witness = api.get_deployment_by_id(project, deployment.id)
        unread: list[int | None] = []

        async def page(offset: int) -> Page[DeploymentVersion] | None:
            call = api.get_versions(project, deployment, offset=offset, complete=complete)
            rows = await self.read(call, witness, backoff)
            unread.extend(rows.unread_versions if rows is not None else ())
            return rows

        found = await all_pages(page)
        if found is None:
            return None
        numbers = [*(version.version for version in found), *unread]
        # A list without it was not read whole, whatever it counts: Hopsworks keeps the active version for certain.
        if not numbers or (deployment.version is not None and deployment.version not in numbers):
            active = (
                "the active version" if deployment.version is None else f"version {deployment.version}, the active one"
            )
            message = (
                f"list the versions of deployment {deployment.name!r}: the answer lacks {active}, and may lack others, "
                "too.\nRun the task again."
            )
            raise UnexpectedResponseError(message, status=200)
        return found, numbers
