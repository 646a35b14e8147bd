"""The sensor that waits for a model version."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain import arguments
from airflow_provider_hsml.links import ModelVersionLink
from airflow_provider_hsml.parsing import BY_MODEL

from .base import HsmlSensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_hsml.hopsworks.sensing.conditions import VersionCondition
    from airflow_provider_hsml.triggers.models import AwaitModelVersionTrigger


class ModelVersionSensor(HsmlSensor):
    """
    Wait until the registry has a version of a model that meets all conditions. Of several, it takes the newest.

    The model or the version need not exist yet. For an approval, give ``model_version`` and ``tag``: the sensor waits
    until a person sets the tag in the Hopsworks UI, on any Airflow version. The log names the conditions that the
    newest version does not meet.

    Returns ``{"model_name", "model_version", "model_id", "metrics", "url"}`` as ``RegisterModelOperator`` does, and
    also ``"tags"`` if ``tag`` is set. Each value is also an XCom under its own key.

    :param model_name: the model in the registry
    :param model_version: exactly this version; None for any
    :param newer_than: only versions with a higher number than this one
    :param metric: only versions with a finite value of this metric
    :param at_least: the lowest accepted value of ``metric``
    :param at_most: the highest accepted value of ``metric``
    :param tag: only versions with these tags, values by tag name. Each version's tags are read separately, so set
        ``newer_than`` or ``model_version`` for a model with many versions
    :param model_project: another project that owns the model and shares its registry with this one
    """

    operator_extra_links = (ModelVersionLink(),)
    template_fields: Sequence[str] = (
        *HsmlSensor.template_fields,
        "model_name",
        "model_version",
        "newer_than",
        "metric",
        "at_least",
        "at_most",
        "tag",
        "model_project",
    )
    map_index_template_default = BY_MODEL

    def __init__(
        self,
        *,
        model_name: str,
        model_version: int | str | None = None,
        newer_than: int | str | None = None,
        metric: str | None = None,
        at_least: float | str | None = None,
        at_most: float | str | None = None,
        tag: Mapping[str, Any] | str | None = None,
        model_project: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self._check_literal(arguments.model_name, "model_name", model_name)
        self._check_literal(arguments.integer, "model_version", model_version, least=1)
        self._check_literal(arguments.integer, "newer_than", newer_than, least=0)
        self._check_literal(arguments.number, "at_least", at_least)
        self._check_literal(arguments.number, "at_most", at_most)
        self.model_name = model_name
        self.model_version = model_version
        self.newer_than = newer_than
        self.metric = metric
        self.at_least = at_least
        self.at_most = at_most
        self.tag = tag
        self.model_project = model_project

    @functools.cached_property
    def condition(self) -> VersionCondition:
        """The condition to wait for."""
        from airflow_provider_hsml.hopsworks.sensing.conditions import VersionCondition  # noqa: PLC0415 - not needed to parse a DAG

        return VersionCondition.read(self.model_name, **self._criteria())

    def trigger(self, **how: Any) -> AwaitModelVersionTrigger:
        """Build the trigger that waits for the version."""
        from airflow_provider_hsml.triggers.models import AwaitModelVersionTrigger  # noqa: PLC0415 - not needed to parse a DAG

        # As read: Airflow stores the arguments of a trigger, so they are numbers and text of Python.
        desired, owner = self.condition.criteria, self.condition.owner
        wanted = {
            "model_version": desired.version,
            "newer_than": desired.newer_than,
            "metric": desired.metric,
            "at_least": desired.at_least,
            "at_most": desired.at_most,
            "tag": dict(desired.tags) or None,
            "model_project": owner,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        return AwaitModelVersionTrigger(model_name=self.model_name, wanted=given, **how)

    def _criteria(self) -> dict[str, Any]:
        criteria = {
            "model_version": self.model_version,
            "newer_than": self.newer_than,
            "metric": self.metric,
            "at_least": self.at_least,
            "at_most": self.at_most,
            "tag": self.tag,
            "model_project": self.model_project,
        }
        return {name: value for name, value in criteria.items() if value is not None}
