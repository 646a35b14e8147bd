"""What mapped tasks are called in Airflow's UI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

BY_DEPLOYMENT = "deployment {{ task.deployment_name }}"
BY_MODEL = "model {{ task.model_name }}"


class NamesMappedTasks:
    """
    Gives a name that reads well to the tasks that ``partial`` and ``expand`` make, where the user gives none.

    Airflow takes ``map_index_template`` from what ``partial`` is given; before 3.3 it sees no default of an operator.
    """

    map_index_template_default: ClassVar[str] = BY_DEPLOYMENT
    """Begins with a word: Airflow may render natively, which would make a number of a name of digits."""

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """
        Begin mapped tasks.

        :param kwargs: what they have in common
        """
        kwargs.setdefault("map_index_template", cls.map_index_template_default)
        begun: OperatorPartial = super().partial(**kwargs)  # type: ignore[misc]
        return begun
