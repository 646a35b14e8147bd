"""A plan: what a promotion would do, for somebody to approve; and what is applied later is that and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hsml.hopsworks.domain import arguments, diff
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.model_version import ModelVersion

    from .situation import Situation


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, and the state that it was planned against."""

    deployment_name: str
    deployment_id: int | None
    """None: it would be created."""
    version: int | None
    """The deployment's own version, and its revision, that the plan was made against."""
    revision: str | None
    previous_model_version: int | None
    model_version: int | None
    changes: Mapping[str, list[Any]]
    """Setting -> [live, planned]; of environment variables the names alone. Empty: no setting would change."""

    @classmethod
    def of(cls, found: Situation, chosen: ModelVersion | None, differing: Mapping[str, tuple[Any, Any]]) -> Self:
        """
        Make the plan.

        :param found: what there is
        :param chosen: the version that would be served
        :param differing: what would change
        """
        live = found.live
        return cls(
            deployment_name=found.name,
            deployment_id=live.id if live else None,
            version=live.version if live else None,
            revision=live.revision if live else None,
            previous_model_version=live.model_version if live else None,
            model_version=chosen.version if chosen else None,
            changes=diff.changes_as_json(differing),
        )

    @classmethod
    def read(cls, value: object) -> Self:
        """
        Read what a planning task returned: its whole record, or the plan in it.

        :param value: the record, also as JSON text
        :raises InvalidInputError: it is no such thing
        """
        expected = "what a task with plan_only=True returned, or that as JSON text"
        given = arguments.json_mapping("plan", arguments.json_text("plan", expected, value))
        if isinstance(given.get("plan"), Mapping):
            given = given["plan"]
        names = [field.name for field in fields(cls)]
        if set(names) - set(given):
            arguments.refuse("plan", "what a task with plan_only=True returned", value)
        return cls(**{name: given[name] for name in names})

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON values."""
        return asdict(self)

    def check(self, found: Situation, differing: Mapping[str, tuple[Any, Any]]) -> None:
        """
        Refuse to apply it to anything but what it was made for.

        :param found: what there is now
        :param differing: what would change now
        :raises InvalidInputError: the deployment is another, or another change would be made; nothing was changed
        """
        live = found.live
        chosen = found.decision.chosen if found.decision else None
        if found.name != self.deployment_name or (chosen.version if chosen else None) != self.model_version:
            planned = f"version {self.model_version} in deployment {self.deployment_name!r}"
            asked = f"version {chosen.version if chosen else None} in deployment {found.name!r}"
            message = f"plan: it is for {planned}, and what is asked for now is {asked}. Give what the plan names."
            raise InvalidInputError(message)
        if not differing or found.adopts:
            # It is done already, or under way: a task that is tried again.
            return
        was = (self.deployment_id, self.version, self.revision)
        if was != ((live.id, live.version, live.revision) if live else (None, None, None)):
            then = (
                f"served version {self.previous_model_version}" if self.deployment_id is not None else "was not there"
            )
            message = (
                f"plan: {live or f'deployment {found.name!r}'} was changed, restarted or replaced since the plan was "
                f"made; it {then} then. Nothing was changed. Plan anew."
            )
            raise InvalidInputError(message)
        changes = diff.changes_as_json(differing)
        if changes != self.changes:
            message = (
                f"plan: it was made for the changes {dict(self.changes)}, and the changes would now be {changes}. "
                "Nothing was changed.\nGive both tasks the same spec, or make a new plan."
            )
            raise InvalidInputError(message)
