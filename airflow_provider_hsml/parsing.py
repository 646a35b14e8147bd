"""
Arguments of operators and sensors: checks at parse time, checks of values from outside, and names of mapped tasks.

A literal None in the DAG file means that an argument is not given. A value that the DAG file takes from elsewhere (an
XCom, a template, ``expand``) and that arrives empty is an error: otherwise a task behind a skipped one would run with
the default. So the assignment of a template field records the source of each such value in it.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.hopsworks.domain.arguments import Arguments
from airflow_provider_hsml.hopsworks.domain.plain import place
from airflow_provider_hsml.hopsworks.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_provider_hsml.hopsworks.domain.plain import Path

    Check = Callable[[str, Any], object]

T = TypeVar("T")

BY_DEPLOYMENT = "deployment {{ task.deployment_name }}"
BY_JOB = "job {{ task.job_name }}"
BY_MODEL = "model {{ task.model_name }}"
_TEMPLATE_CHARACTERS = frozenset("{}[]<>$%#")
"""Characters of template delimiters. A DAG may define its own delimiters."""
_NO_SOURCES = (int, float, bool, type(None))
_SHOWN = 100
"""Characters of a template that a message shows."""


class TaskMixin:
    """Argument checks and mapped task names, for operators and sensors."""

    task_id: str
    template_fields: Sequence[str]
    map_index_template_default: ClassVar[str] = BY_DEPLOYMENT
    """
    The default name of a mapped task in Airflow's UI. It begins with a word: a DAG may render templates natively, which
    would turn a name of digits into a number.
    """
    structured: ClassVar[Mapping[str, Check]] = {}
    """
    The checks of templated arguments that are mappings or lists. Each is called with the argument's name and its
    literal fields when the DAG file is parsed, for a mapped task too.
    """
    _sources: Mapping[Path, str] = {}
    """The source of each value in a template field that the DAG file takes from elsewhere, by its path."""
    _is_rendered = False
    _gives_none = False
    """Whether an expression of the template that was rendered last gives None."""
    _with_none: tuple[str, ...] = ()
    """The templates with an expression that gives None."""
    records: ClassVar[tuple[Path, ...]] = ()
    """The places in ``structured`` arguments of results of other tasks, in which None has a meaning."""
    exclusive: ClassVar[tuple[str, ...]] = ()
    """The arguments of which only one may be given."""

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """
        Return the partial operator of mapped tasks, with the default ``map_index_template``.

        Airflow before 3.3 ignores an operator's default for it.

        :param kwargs: the arguments that the mapped tasks share
        :raises ValueError: a literal field is wrong; the message names the task, the field and the expected value
        """
        try:
            for name in kwargs.keys() & cls.structured.keys():
                _check_fields(cls.structured[name], name, kwargs[name])
            arguments.only_one("", **{name: kwargs.get(name) for name in cls.exclusive})
        except InvalidInputError as error:
            message = f"Task {kwargs.get('task_id')!r}: {error}"
            raise ValueError(message) from error
        kwargs.setdefault("map_index_template", cls.map_index_template_default)
        partial: OperatorPartial = super().partial(**kwargs)  # type: ignore[misc]
        return partial

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. Until Airflow renders the template fields, record the sources of a template field."""
        super().__setattr__(name, value)
        if name in self.template_fields and not self._is_rendered:
            found = {path: source for path, source in self._sources.items() if path[0] != name}
            self.__dict__["_sources"] = found | dict(_sources_in(value, (name,)))

    def _do_render_template_fields(
        self, parent: Any, template_fields: Any, context: Any, jinja_env: Any, seen_oids: Any
    ) -> None:
        """
        Render. From here on, the template fields hold values and no sources.

        An expression in longer text that gives None would become the word "None" in it, so each one is recorded.
        """
        self.__dict__["_is_rendered"] = True
        finalize = jinja_env.finalize
        jinja_env.finalize = self._record_none
        try:
            super()._do_render_template_fields(  # type: ignore[misc]
                parent, template_fields, context, jinja_env, seen_oids
            )
        finally:
            jinja_env.finalize = finalize

    def _record_none(self, value: Any) -> Any:
        """Record that an expression of the template that is being rendered gives None."""
        if value is None:
            self.__dict__["_gives_none"] = True
        return value

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Render a value, as Airflow does for each template field and each value in one.

        :param content: text with templates, or any other value
        :param args: the context, and Airflow's own further arguments
        :param kwargs: Airflow's own further arguments
        """
        self.__dict__["_gives_none"] = False
        rendered = super().render_template(content, *args, **kwargs)  # type: ignore[misc]
        if isinstance(content, str) and self._gives_none:
            self.__dict__["_with_none"] = (*self._with_none, content)
        return rendered

    def _check_arrived(self) -> None:
        """
        Check that each value from an XCom, a template or ``expand`` has arrived. Call it before anything else is done.

        :raises InvalidInputError: a value is None, blank or "None", or holds the word "None" where an expression gave
            None; the message names the argument and the source
        """
        mapped: dict[Path, str] = {(name,): "an argument of expand" for name in self._mapped_fields()}
        for path, source in {**mapped, **self._sources}.items():
            value = self._value_at(path)
            _refuse_empty(path, source, value)
            if len(path) == 1 and path[0] in self.structured:
                _refuse_nulls(path, source, _from_json(value), self.records)
        for template in self._with_none:
            message = (
                f"An expression in the template {_shortened(template)} gives None.\nCheck why it is empty: a task may "
                "have been skipped or may have failed. For a value that may be missing, write 'or' and a default."
            )
            raise InvalidInputError(message)

    def _value_at(self, path: Path) -> Any:
        """Return the value at a path of a template field; the value on the way where the path ends earlier."""
        value = self._field(str(path[0]))
        for key in path[1:]:
            value = _from_json(value)
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                break
        return value

    def _field(self, name: str) -> Any:
        """Return the value of a template field."""
        return getattr(self, name)

    @property
    def _is_from_mapped(self) -> bool:
        """Whether this is one of several mapped tasks, whose arguments may come from outside."""
        return bool(getattr(self, "_BaseOperator__from_mapped", False))

    def _mapped_fields(self) -> Iterator[str]:
        """Yield the template fields that ``expand`` or ``expand_kwargs`` filled."""
        task = cast("BaseOperator", self)
        if not self._is_from_mapped or not task.has_dag():  # type: ignore[no-untyped-call]
            return
        mapped = task.dag.get_task(self.task_id)
        written = getattr(mapped, "partial_kwargs", None)
        if written is None:
            return
        given = getattr(self, "_BaseOperator__init_kwargs", {})
        # In Airflow 2, only the mapped task itself knows its group.
        group = mapped.task_group
        defaults = {**task.dag.default_args, **(group.default_args if group else {})}
        for name in self.template_fields:
            if name in given and name not in written and (name not in defaults or defaults[name] is not given[name]):
                yield name

    def _invalid(self, message: str) -> Exception:
        """Return the error for an invalid argument: of the DAG file, or of a mapped task, which no retry can help."""
        return (AirflowFailException if self._is_from_mapped else ValueError)(f"Task {self.task_id!r}: {message}")

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
            raise self._invalid(str(error)) from error

    def _check_literal(self, read: Callable[..., object], name: str, value: object, **limits: Any) -> None:
        """
        Check a templated argument, if the DAG file has its literal value. Otherwise the running task reads it.

        :param read: a function of ``hopsworks.domain.arguments``
        :param limits: further arguments of ``read``
        :raises ValueError: naming the task, the argument and the expected value
        """
        # A mapped argument's value comes from outside as well, so the running task checks it.
        is_literal = isinstance(value, bool | int | float | str) and not any(_sources_in(value, (name,)))
        if is_literal and value != "" and not self._is_from_mapped:
            self._check_argument(read, name, value, **limits)

    def _check_exclusive(self, **given: Any) -> None:
        """
        Check that only one of several arguments is given.

        :raises ValueError: more than one is
        """
        try:
            arguments.only_one("", **given)
        except InvalidInputError as error:
            raise self._invalid(str(error)) from error

    def _check_structured(self, name: str, value: object) -> None:
        """
        Check the literal fields of a templated mapping, or a templated list without values from elsewhere.

        :raises ValueError: naming the task, the field and the expected value
        """
        if not self._is_from_mapped:
            self._check_argument(functools.partial(_check_fields, self.structured[name]), name, value)


def as_mappings(value: Any) -> Any:
    """Return an argument with its dataclasses as mappings: Airflow renders and resolves those, and no dataclass."""
    if isinstance(value, Arguments):
        return as_mappings(value.given())
    return {key: as_mappings(item) for key, item in value.items()} if type(value) is dict else value


def _check_fields(check: Check, name: str, value: Any) -> None:
    literal = _literal(as_mappings(value))
    if literal is not None:
        check(name, literal)


def _literal(value: Any) -> Any:
    """Return a value without what comes from elsewhere; None if nothing else is in it."""
    if not any(_sources_in(value, ())):
        return value
    if not isinstance(value, Mapping):
        return None
    return {key: kept for key, item in value.items() if (kept := _literal(item)) is not None}


def _refuse_empty(path: Path, source: str, value: Any) -> None:
    if value is None or (isinstance(value, str) and value.strip() in ("", "None")):
        message = (
            f"{place(path)}: expected a value from {source}, got {value!r}.\nCheck why it is empty: a task may have "
            "been skipped or may have failed. Only a literal None in the DAG file means 'not given'."
        )
        raise InvalidInputError(message)


def _refuse_nulls(path: Path, source: str, value: Any, records: Sequence[Path]) -> None:
    """Raise an error for a field without a value, in a mapping that came from elsewhere as a whole."""
    for key, item in value.items() if isinstance(value, Mapping) else ():
        if item is None:
            _refuse_empty((*path, key), source, item)
        if (*path, key) not in records:
            _refuse_nulls((*path, key), source, item, records)


def _sources_in(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the path and the source of each value that is an XCom, a template, or a function that Airflow calls."""
    if hasattr(value, "iter_references"):
        yield path, _source(value)
    elif isinstance(value, str) and _TEMPLATE_CHARACTERS & set(value):
        yield path, f"the template {_shortened(value)}"
        yield from () if (parsed := _from_json(value)) is value else _sources_in(parsed, path)
    elif inspect.isroutine(value):
        yield path, f"the function {getattr(value, '__name__', value)!r}"
    else:
        for key, item in _items(value):
            yield from _sources_in(item, (*path, *key))


def _items(value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the values in a mapping or list with their keys. Those of a set have none."""
    if isinstance(value, Mapping):
        yield from (((key,), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        # A DAG file may hold many rows of numbers.
        yield from (((number,), item) for number, item in enumerate(value) if type(item) not in _NO_SOURCES)
    elif isinstance(value, set | frozenset):
        yield from (((), item) for item in value)


def _shortened(template: str) -> str:
    return repr(template if len(template) <= _SHOWN else f"{template[:_SHOWN]}...")


def _source(value: Any) -> str:
    """Return the source of a value that Airflow resolves when the task runs."""
    for operator, key in value.iter_references():
        return f"the XCom {'' if key == 'return_value' else f'{key!r} '}of task {operator.task_id!r}"
    return {"DagParam": "a parameter of the DAG"}.get(type(value).__name__, "an argument of expand")


def _from_json(value: Any) -> Any:
    """Parse JSON text of a mapping or a list; return any other value unchanged."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
