"""Masking of environment variables in ``spec``: Airflow stores and shows the rendered arguments of a task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, cast

from .base import WaitingOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow.providers.common.compat.sdk import Context

MASK = "***"
MIN_MASKED_LENGTH = 5
"""Airflow masks no text with fewer characters."""


class SpecOperator(WaitingOperator):
    """
    The base of operators with a ``spec``: after rendering, it holds no value of an environment variable.

    Airflow stores rendered arguments. It masks only values with a sensitive name and registered secrets. So each value
    in ``spec`` is replaced by ``***``, and kept in a private attribute. A value that came from a template is also
    masked in the task's log.
    """

    spec: Any
    _masked_values: Mapping[str, Any] = {}

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, *args: Any, **kwargs: Any
    ) -> None:
        """Render, then mask ``spec``. Airflow calls this method for tasks and for mapped tasks."""
        written = _values(self._masked_spec())
        super()._do_render_template_fields(parent, template_fields, context, *args, **kwargs)
        if parent is self:
            self._mask_spec(written, context)

    def _mask_spec(self, written: Mapping[str, Any], context: Context) -> None:
        """Replace each value by ``***``. Mask in the log those that neither the DAG file nor another field shows."""
        from airflow.providers.common.compat.sdk import mask_secret  # noqa: PLC0415 - not needed to parse a DAG

        rendered = {at: value for at, value in _values(self._masked_spec()).items() if value != MASK}
        self._masked_values = {**self._masked_values, **rendered}
        self._set_masked_spec(_replace_values(self._masked_spec(), lambda _at, _value: MASK))
        shown = [getattr(self, name) for name in self.template_fields]
        shown += [context.get("run_id"), context.get("ts"), *dict(context.get("params") or {}).values()]
        for at, value in rendered.items():
            if (
                isinstance(value, str)
                and len(value) >= MIN_MASKED_LENGTH
                and value != written.get(at)
                and value not in str(shown)
            ):
                mask_secret(value)

    def _masked_spec(self) -> Any:
        """Return the argument that holds environment variables, in the shape of a spec."""
        return self.spec

    def _set_masked_spec(self, spec: Any) -> None:
        """Replace that argument."""
        self.spec = spec

    def _field(self, name: str) -> Any:
        """Return the value of a template field, with the real values of environment variables."""
        return self._unmasked_spec() if name == "spec" else super()._field(name)

    def _unmasked_spec(self) -> Any:
        """Return the spec with the real values."""
        return _replace_values(
            self._masked_spec(), lambda at, value: self._masked_values.get(at, value) if value == MASK else value
        )


def _values(spec: Any) -> dict[str, Any]:
    """Return the values of a spec by their path, such as ``spec.transformer.env_vars.TOKEN``."""
    values: dict[str, Any] = {}
    _replace_values(spec, values.setdefault)
    return values


def _replace_values(spec: Any, put: Callable[[str, Any], Any], at: str = "spec") -> Any:
    """
    Return a spec with other values of its environment variables.

    :param spec: a dataclass, a mapping, or JSON text of one; anything else is treated as a value
    :param put: called with the path and the value; returns the new value
    :param at: the path of the spec
    """
    spec = cast("Any", spec).given() if is_dataclass(spec) else _from_text(spec)
    if not spec or str(spec).strip().lower() == "false":
        return spec
    if not isinstance(spec, Mapping):
        return put(at, spec)
    replaced = dict(spec)
    if variables := replaced.get("env_vars"):
        path = f"{at}.env_vars"
        replaced["env_vars"] = (
            {name: put(f"{path}.{name}", value) for name, value in variables.items()}
            if isinstance(variables, Mapping)
            else put(path, variables)
        )
    if "transformer" in replaced:
        replaced["transformer"] = _replace_values(replaced["transformer"], put, f"{at}.transformer")
    return replaced


def _from_text(spec: Any) -> Any:
    """Parse JSON text of a mapping; return any other value unchanged."""
    if isinstance(spec, str):
        try:
            read = json.loads(spec)
        except ValueError:
            return spec
        return read if isinstance(read, Mapping) else spec
    return spec
