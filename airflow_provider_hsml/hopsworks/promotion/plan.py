"""The plan of a promotion, for a person to approve. Applying it makes exactly the planned change, or none."""

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
    """The planned change, and the state of the deployment when the plan was made."""

    deployment_name: str
    deployment_id: int | None
    """None when the deployment would be created."""
    version: int | None
    """The deployment version when the plan was made."""
    revision: str | None
    """The revision when the plan was made."""
    previous_model_version: int | None
    model_version: int | None
    changes: Mapping[str, list[Any]]
    """Setting -> [live, planned], with only the names of environment variables. Empty when no setting would change."""

    @classmethod
    def of(cls, found: Situation, chosen: ModelVersion | None, differing: Mapping[str, tuple[Any, Any]]) -> Self:
        """
        Build the plan.

        :param found: the situation of the deployment
        :param chosen: the version that would be served
        :param differing: the settings that would change, setting -> (live, desired)
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
        Read a plan from the result of a planning task: its whole record, or the plan in it.

        :param value: the record or the plan, also as JSON text
        :raises InvalidInputError: the value is neither
        """
        plan: Mapping[str, Any] = arguments.json_mapping("plan", value, "the result of a task with plan_only=True")
        if isinstance(plan.get("plan"), Mapping):
            plan = plan["plan"]
        names = [field.name for field in fields(cls)]
        if set(names) - set(plan):
            arguments.refuse("plan", "the result of a task with plan_only=True", sorted(plan))
        return cls(**{name: plan[name] for name in names})

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return asdict(self)

    def check(self, found: Situation, differing: Mapping[str, tuple[Any, Any]]) -> None:
        """
        Raise an error unless the plan still fits the deployment and the requested change.

        :param found: the situation now
        :param differing: the settings that would change now, setting -> (live, desired)
        :raises InvalidInputError: it is another deployment or another change; nothing was changed
        """
        live = found.live
        chosen = found.decision.chosen if found.decision else None
        if found.name != self.deployment_name or (chosen.version if chosen else None) != self.model_version:
            planned = f"version {self.model_version} in deployment {self.deployment_name!r}"
            asked = f"version {chosen.version if chosen else None} in deployment {found.name!r}"
            message = f"plan: it is for {planned}, but this task asks for {asked}.\nUse the arguments of the plan."
            raise InvalidInputError(message)
        if not differing or found.adopts:
            # A retry of this task: the change is made already, or in progress.
            return
        was = (self.deployment_id, self.version, self.revision)
        if was != ((live.id, live.version, live.revision) if live else (None, None, None)):
            then = (
                f"served version {self.previous_model_version}" if self.deployment_id is not None else "did not exist"
            )
            message = (
                f"plan: {live or f'deployment {found.name!r}'} was changed, restarted or replaced since the plan was "
                f"made; it {then} then. Nothing was changed.\nMake a new plan."
            )
            raise InvalidInputError(message)
        changes = diff.changes_as_json(differing)
        if changes != self.changes:
            message = (
                f"plan: it was made for the changes {dict(self.changes)}, and the changes would now be {changes}. "
                "Nothing was changed.\nGive both tasks the same spec, or make a new plan."
            )
            raise InvalidInputError(message)
