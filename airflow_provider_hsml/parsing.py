"""Parsing of DAG files, for operators and sensors: checks of arguments, and names of mapped tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk.definitions.mappedoperator import OperatorPartial

T = TypeVar("T")

BY_DEPLOYMENT = "deployment {{ task.deployment_name }}"
BY_MODEL = "model {{ task.model_name }}"
_TEMPLATE_CHARACTERS = frozenset("{}[]<>$%#")
"""Characters of template delimiters. A DAG may define its own delimiters."""


class TaskMixin:
    """Argument checks and mapped task names, for operators and sensors."""

    task_id: str
    map_index_template_default: ClassVar[str] = BY_DEPLOYMENT
    """
    The default name of a mapped task in Airflow's UI. It begins with a word: a DAG may render templates natively, which
    would turn a name of digits into a number.
    """

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """
        Return the partial operator of mapped tasks, with the default ``map_index_template``.

        Airflow before 3.3 ignores an operator's default for it.

        :param kwargs: the arguments that the mapped tasks share
        """
        kwargs.setdefault("map_index_template", cls.map_index_template_default)
        partial: OperatorPartial = super().partial(**kwargs)  # type: ignore[misc]
        return partial

    def _check_argument(self, read: Callable[..., T], name: str, value: object, **limits: Any) -> T:
        """
        Check an argument when the DAG is parsed, and return its value.

        :param read: a function of ``hopsworks.domain.arguments``
        :param limits: further arguments of ``read``
        :raises ValueError: naming the task, the argument and the expected value
        """
        try:
            return read(name, value, **limits)
        except InvalidInputError as error:
            message = f"Task {self.task_id!r}: {error}"
            raise ValueError(message) from error

    def _check_literal(self, read: Callable[..., object], name: str, value: object, **limits: Any) -> None:
        """
        Check a templated argument, if the DAG file has its literal value. Otherwise the running task reads it.

        :param read: a function of ``hopsworks.domain.arguments``
        :param limits: further arguments of ``read``
        :raises ValueError: naming the task, the argument and the expected value
        """
        is_template = isinstance(value, str) and (not value or bool(_TEMPLATE_CHARACTERS & set(value)))
        # A mapped argument's value comes from outside as well, so the running task checks it.
        is_mapped = getattr(self, "_BaseOperator__from_mapped", False)
        if isinstance(value, bool | int | float | str) and not is_template and not is_mapped:
            self._check_argument(read, name, value, **limits)
