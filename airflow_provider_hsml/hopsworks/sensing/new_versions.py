"""Telling of each new version of a model once, also when whoever tells it is started again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.registry import lookup

from . import search
from .conditions import describe

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.api import Project
    from airflow_provider_hsml.hopsworks.domain.access import Access

    from .conditions import VersionCondition

REMEMBERED = 20
"""Versions that were told of and are remembered one by one; below them none is new any more."""


@dataclass(slots=True)
class NewVersionFeed:
    """Tells of versions that were not there, or did not meet what is asked for, when it began."""

    lookout: VersionCondition
    told: set[int] = field(default_factory=set)
    """Numbers of versions that are not told of any more."""
    has_begun: bool = False
    """Whether what is there has been looked at before; not yet: it is not new, but for what ``newer_than`` says."""

    def recall(self, state: object) -> None:
        """
        Go on where an earlier one ended.

        :param state: its ``state``; anything else begins anew
        """
        match state:
            case {"newer_than": int() as floor, "told": list() as told}:
                self._raise(floor)
                self.told = {number for number in told if isinstance(number, int)}
                self.has_begun = True

    @property
    def state(self) -> dict[str, Any]:
        """What has to be remembered, as plain JSON."""
        return {"newer_than": self.lookout.criteria.newer_than or 0, "told": sorted(self.told)}

    async def look(self, access: Access, project: Project) -> list[dict[str, Any]]:
        """
        Look once.

        :param access: where Hopsworks is
        :param project: the project
        :return: what is new, the oldest first, as sensors return it
        """
        desired, name = self.lookout.criteria, self.lookout.name
        owner = await lookup.find_registry(project, self.lookout.owner)
        seen = await search.search(project, name, desired, owner, but=self.told, is_one_enough=False)
        self.told |= {model.version for model in seen.models}
        is_news = self.has_begun or desired.newer_than is not None
        self.has_begun = True
        if old := sorted(self.told)[:-REMEMBERED]:
            self._raise(old[-1])
        found = reversed(seen.models) if is_news else ()
        return [describe(access, model, with_tags=bool(desired.tags)) for model in found]

    def _raise(self, floor: int) -> None:
        """Forget what is not above a number."""
        self.lookout.criteria = replace(self.lookout.criteria, newer_than=floor)
        self.told = {number for number in self.told if number > floor}
