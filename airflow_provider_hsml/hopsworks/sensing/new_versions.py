"""A feed of new model versions that returns each version once, even across restarts of the triggerer."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.errors import UnexpectedResponseError
from airflow_provider_hsml.hopsworks.registry import lookup

from . import search
from .conditions import describe

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.access import Access
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion

    from .conditions import VersionCondition

log = logging.getLogger(__name__)

REMEMBERED = 20
"""Number of returned versions that are remembered one by one; versions below them never count as new."""


@dataclass(slots=True)
class NewVersionFeed:
    """Returns the versions that appear, or begin to meet the criteria, after the feed has begun."""

    condition: VersionCondition
    returned: set[int] = field(default_factory=set)
    """Numbers of versions that were returned already."""
    unread: set[int] = field(default_factory=set)
    """Versions that existed at the first poll and could not be read since: one that meets the criteria is not new."""
    has_begun: bool = False
    """Whether the first poll is done. It returns existing versions only if ``newer_than`` is set."""

    def recall(self, state: object) -> None:
        """
        Resume where an earlier feed ended.

        :param state: the earlier feed's ``state``; any other value is ignored
        """
        match state:
            case {"newer_than": int() as floor, "told": list() as told, **more}:
                self._raise(floor)
                self.returned = _numbers(told)
                self.unread = _numbers(more.get("unread"))
                self.has_begun = True

    @property
    def state(self) -> dict[str, Any]:
        """The state to store, as plain JSON."""
        return {
            "newer_than": self.condition.criteria.newer_than or 0,
            "told": sorted(self.returned),
            "unread": sorted(self.unread),
        }

    async def look(self, access: Access, project: Project) -> list[dict[str, Any]]:
        """
        Poll once.

        :return: the new versions, the oldest first, as sensors return them
        :raises UnexpectedResponseError: at the first poll there is a version whose number cannot be read
        """
        desired, name = self.condition.criteria, self.condition.name
        owner = await lookup.find_registry(project, self.condition.owner)
        seen = await search.search(project, name, desired, owner, but=self.returned, is_one_enough=False)
        unread = self._unread(seen)
        is_news = self.has_begun or desired.newer_than is not None
        news = [model for model in reversed(seen.models) if is_news and model.version not in self.unread]
        found = [_described(access, model, with_tags=bool(desired.tags)) for model in news]
        self.has_begun, self.unread = True, unread
        self.returned |= {model.version for model in seen.models}
        if old := sorted(self.returned)[:-REMEMBERED]:
            self._raise(old[-1])
        return [description for description in found if description is not None]

    def _unread(self, seen: search.SearchResult) -> set[int]:
        """
        Return the versions that count as existing at the first poll, and still cannot be read.

        :raises UnexpectedResponseError: this is the first poll, and the number of a version cannot be read
        """
        numbers = {number for number in seen.unread if number is not None}
        if self.has_begun:
            return self.unread if None in seen.unread else self.unread & numbers
        if self.condition.criteria.newer_than is not None:
            return set()
        if None in seen.unread:
            message = (
                f"list the versions of model {self.condition.name!r}: the number of a version cannot be read, so it "
                "would count as new later.\nIf this remains, correct or delete that version."
            )
            raise UnexpectedResponseError(message, status=200)
        return numbers

    def _raise(self, floor: int) -> None:
        """Forget the versions up to a number, which no longer count as new."""
        self.condition.criteria = replace(self.condition.criteria, newer_than=floor)
        self.returned = {number for number in self.returned if number > floor}


def _numbers(stored: object) -> set[int]:
    return {number for number in stored if isinstance(number, int)} if isinstance(stored, list) else set()


def _described(access: Access, model: ModelVersion, *, with_tags: bool) -> dict[str, Any] | None:
    """Return the description of a version; None, with a warning, if it has none, so that no other version is lost."""
    try:
        return describe(access, model, with_tags=with_tags)
    except Exception as error:  # noqa: BLE001 - whatever its metrics and tags cause, such as a RecursionError
        log.warning(
            "Version %s of model %r is left out: it cannot be described (%s)",
            model.version,
            model.name,
            type(error).__name__,
        )
        return None
