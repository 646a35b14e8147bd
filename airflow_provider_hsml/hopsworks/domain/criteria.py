"""Criteria that a model version must meet, as sensors and triggers wait for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hsml.hopsworks.errors import InvalidInputError

from . import arguments
from .model_version import check_model_name, tag_value
from .settings import tag_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model_version import ModelVersion


@dataclass(frozen=True, slots=True)
class Criteria:
    """Criteria for a model version, all of which it must meet. The default is met by any version."""

    version: int | None = None
    """The version's number; None for any."""
    newer_than: int | None = None
    metric: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)
    """Required values by tag name. The version may have other tags as well."""

    @classmethod
    def read(
        cls,
        *,
        model_version: Any = None,
        newer_than: Any = None,
        metric: Any = None,
        at_least: Any = None,
        at_most: Any = None,
        tag: Any = None,
    ) -> Self:
        """
        Read the arguments of ``ModelVersionSensor``, which documents them. Numbers may be strings.

        :raises InvalidInputError: an argument is wrong, or no version can ever meet the criteria
        """
        least = None if at_least is None else arguments.number("at_least", at_least)
        most = None if at_most is None else arguments.number("at_most", at_most)
        if metric is None and (least is not None or most is not None):
            message = "at_least and at_most are bounds of a metric.\nGive its name as well, as in metric='accuracy'."
            raise InvalidInputError(message)
        if least is not None and most is not None and least > most:
            message = f"No {metric} can be at_least {least:g} and at_most {most:g}."
            raise InvalidInputError(message)
        tags = {} if tag is None else arguments.tags("tag", tag)
        if tag is not None and not tags:
            arguments.refuse("tag", "at least one tag, as in {'approval': 'approved'}", tag)
        return cls(
            version=None if model_version is None else arguments.integer("model_version", model_version, least=1),
            newer_than=None if newer_than is None else arguments.integer("newer_than", newer_than, least=0),
            metric=None if metric is None else arguments.text("metric", metric),
            at_least=least,
            at_most=most,
            tags={name: tag_value(tag_text(value)) for name, value in tags.items()},
        )

    def shortcoming(self, model: ModelVersion) -> str | None:
        """Return the first criterion that a version misses, tags aside; None when it meets them all."""
        if self.newer_than is not None and model.version <= self.newer_than:
            return f"is not newer than {self.newer_than}"
        if self.metric is None:
            return None
        value = model.metric(self.metric)
        if value is None:
            return f"has no finite {self.metric}"
        if self.at_least is not None and value < self.at_least:
            return f"has {self.metric} {value:g}, less than {self.at_least:g}"
        if self.at_most is not None and value > self.at_most:
            return f"has {self.metric} {value:g}, more than {self.at_most:g}"
        return None

    def untagged(self, tags: Mapping[str, Any]) -> str | None:
        """Return the first required tag that a version lacks; None when it has them all."""
        for name, value in self.tags.items():
            if name not in tags:
                return f"has no tag {name!r} (an administrator makes the schema that such a tag needs)"
            if tags[name] != value:
                return f"has the tag {name!r} with {tags[name]!r}, not {value!r}"
        return None


def read_wanted(name: object, *, model_project: object = None, **desired: Any) -> tuple[str, Criteria, str | None]:
    """
    Read the arguments of ``ModelVersionSensor``: the model, the criteria, and the project that owns the model.

    :param model_project: None for the connection's project
    :param desired: the arguments of ``Criteria.read``
    :raises InvalidInputError: an argument is wrong, or no version can ever meet the criteria
    """
    owner = None if model_project is None else arguments.text("model_project", model_project)
    return check_model_name(name), Criteria.read(**desired), owner
