"""Values of environment variables, kept out of what Airflow stores and shows of a task's arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, cast

from .base import WaitingOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow.providers.common.compat.sdk import Context

HIDDEN = "***"
SHORT = 5
"""Texts of fewer characters are masked by no Airflow."""


class SpecOperator(WaitingOperator):
    """
    What the operators with a ``spec`` have in common: once rendered, no value of an environment variable is in it.

    Airflow stores rendered arguments, and masks in them only what has a telling name or was registered. What stands
    there instead is ``***``; what is used is kept beside it. What a template brought is masked in the task's log, too.
    """

    spec: Any
    _hidden: Mapping[str, Any] = {}

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, *args: Any, **kwargs: Any
    ) -> None:
        """Render: the one method that Airflow calls for tasks and for mapped tasks alike."""
        written = _values(self.spec)
        super()._do_render_template_fields(parent, template_fields, context, *args, **kwargs)
        if parent is self:
            self._hide(written, context)

    def _hide(self, written: Mapping[str, Any], context: Context) -> None:
        """Put ``***`` for each value, and have those masked that the DAG file does not show, nor anything else."""
        from airflow.providers.common.compat.sdk import mask_secret  # noqa: PLC0415 - a DAG is parsed without it, and sooner

        rendered = {at: value for at, value in _values(self.spec).items() if value != HIDDEN}
        self._hidden = {**self._hidden, **rendered}
        self.spec = _swapped(self.spec, lambda _at, _value: HIDDEN)
        shown = [getattr(self, name) for name in self.template_fields]
        shown += [context.get("run_id"), context.get("ts"), *dict(context.get("params") or {}).values()]
        for at, value in rendered.items():
            if isinstance(value, str) and len(value) >= SHORT and value != written.get(at) and value not in str(shown):
                mask_secret(value)

    def _whole_spec(self) -> Any:
        """Give the spec with the values."""
        return _swapped(self.spec, lambda at, value: self._hidden.get(at, value) if value == HIDDEN else value)


def _values(spec: Any) -> dict[str, Any]:
    """Give the values in a spec by where they stand: ``spec.transformer.env_vars.TOKEN``."""
    found: dict[str, Any] = {}
    _swapped(spec, found.setdefault)
    return found


def _swapped(spec: Any, put: Callable[[str, Any], Any], at: str = "spec") -> Any:
    """
    Give a spec with other values for its environment variables.

    :param spec: a dataclass, a mapping, or JSON text of one; what is none of these is taken for a value
    :param put: is told where a value stands and what it is, and gives what is to stand there
    :param at: where the spec stands
    """
    spec = cast("Any", spec).given() if is_dataclass(spec) else _from_text(spec)
    if not spec or str(spec).strip().lower() == "false":
        return spec
    if not isinstance(spec, Mapping):
        return put(at, spec)
    swapped = dict(spec)
    if variables := swapped.get("env_vars"):
        where = f"{at}.env_vars"
        swapped["env_vars"] = (
            {name: put(f"{where}.{name}", value) for name, value in variables.items()}
            if isinstance(variables, Mapping)
            else put(where, variables)
        )
    if "transformer" in swapped:
        swapped["transformer"] = _swapped(swapped["transformer"], put, f"{at}.transformer")
    return swapped


def _from_text(spec: Any) -> Any:
    """Read a mapping as JSON text."""
    if isinstance(spec, str):
        try:
            read = json.loads(spec)
        except ValueError:
            return spec
        return read if isinstance(read, Mapping) else spec
    return spec
