"""What operators and sensors have in common when a DAG file is parsed: checks of arguments, names of mapped tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk.definitions.mappedoperator import OperatorPartial

T = TypeVar("T")

BY_DEPLOYMENT = "deployment {{ task.deployment_name }}"
BY_MODEL = "model {{ task.model_name }}"
_OF_TEMPLATES = frozenset("{}[]<>$%#")
"""What the marks of a template are made of; a DAG may choose its own."""


class ParsedTask:
    """What is the same for operators and sensors."""

    task_id: str
    map_index_template_default: ClassVar[str] = BY_DEPLOYMENT
    """
    What mapped tasks are called in Airflow's UI, where the user says nothing. Begins with a word: Airflow may render
    natively, which would make a number of a name of digits.
    """

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """
        Begin mapped tasks. Before 3.3, Airflow sees no default of an operator for ``map_index_template``.

        :param kwargs: what they have in common
        """
        kwargs.setdefault("map_index_template", cls.map_index_template_default)
        begun: OperatorPartial = super().partial(**kwargs)  # type: ignore[misc]
        return begun

    def _given(self, read: Callable[..., T], name: str, value: object, **limits: Any) -> T:
        """
        Check an argument when the DAG is parsed.

        :param read: one of ``hopsworks.reading``
        :param name: the argument's name
        :param value: what was given
        :param limits: for ``read``
        :raises ValueError: which task, which argument, and what is expected
        """
        try:
            return read(name, value, **limits)
        except InvalidInputError as error:
            message = f"Task {self.task_id!r}: {error}"
            raise ValueError(message) from error

    def _written(self, read: Callable[..., object], name: str, value: object, **limits: Any) -> None:
        """
        Check a templated argument, where the DAG file says all there is of it. Else it is read when the task runs.

        :param read: one of ``hopsworks.reading``
        :param name: the argument's name
        :param value: what was given
        :param limits: for ``read``
        :raises ValueError: which task, which argument, and what is expected
        """
        is_template = isinstance(value, str) and (not value or bool(_OF_TEMPLATES & set(value)))
        # What a mapped argument brings comes from outside, too, and is refused as such.
        is_mapped = getattr(self, "_BaseOperator__from_mapped", False)
        if isinstance(value, bool | int | float | str) and not is_template and not is_mapped:
            self._given(read, name, value, **limits)
