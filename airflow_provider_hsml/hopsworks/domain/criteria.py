"""Which version of a model is waited for: whether one will do, what it lacks, and how to look for one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import InvalidInput, Refused
from airflow_provider_hsml.hopsworks.flow import Procedure, ask
from airflow_provider_hsml.hopsworks.registry import lookup

from . import arguments
from .model_version import tag_value
from .settings import tag_text

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from airflow_provider_hsml.hopsworks.api import Project, Registry

    from .model_version import ModelVersion


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a version has to meet, all of it. The default: being there."""

    version: int | None = None
    """Its number; None for any."""
    newer_than: int | None = None
    metric: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)
    """Values by name; it may have others as well."""

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
        Read the arguments of ``ModelVersionSensor``, which are named there; numbers may be text.

        :raises InvalidInput: one is wrong, or no version can ever meet them
        """
        least = None if at_least is None else arguments.number("at_least", at_least)
        most = None if at_most is None else arguments.number("at_most", at_most)
        if metric is None and (least is not None or most is not None):
            message = "at_least and at_most are bounds of a metric: give its name as well, as in metric='accuracy'."
            raise InvalidInput(message)
        if least is not None and most is not None and least > most:
            message = f"No {metric} can be at_least {least:g} and at_most {most:g}."
            raise InvalidInput(message)
        if tag is not None and not arguments.json_mapping("tag", tag):
            arguments.refuse("tag", "at least one tag, as in {'approval': 'approved'}", tag)
        return cls(
            version=None if model_version is None else arguments.integer("model_version", model_version, least=1),
            newer_than=None if newer_than is None else arguments.integer("newer_than", newer_than, least=0),
            metric=None if metric is None else arguments.text("metric", metric),
            at_least=least,
            at_most=most,
            tags={name: tag_value(tag_text(value)) for name, value in (tag or {}).items()},
        )

    def shortcoming(self, model: ModelVersion) -> str | None:
        """
        Say what a version lacks, but for the tags; None when it will do.

        :param model: the version
        """
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
        """
        Say which tag a version lacks; None when it has them all.

        :param tags: its own
        """
        for name, value in self.tags.items():
            if name not in tags:
                return f"has no tag {name!r} (an administrator makes the schema that such a tag needs)"
            if tags[name] != value:
                return f"has the tag {name!r} with {tags[name]!r}, not {value!r}"
        return None


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen in the registry."""

    models: tuple[ModelVersion, ...]
    """Versions that will do, the newest first, with their tags where they were asked for."""
    reason: str = ""
    """Why there is none yet."""


def look(
    project: Project,
    name: str,
    criteria: Criteria,
    owner: Registry | None = None,
    *,
    but: Container[int] = (),
    is_one_enough: bool = True,
) -> Procedure[Look]:
    """
    Look for a version once. Tags are read only of those that meet the rest, the newest first.

    :param project: the project that asks
    :param name: the model's name
    :param criteria: what it has to meet
    :param owner: the registry it is in; None for the project's own
    :param but: numbers of versions that are passed over
    :param is_one_enough: whether the newest is wanted alone, else all of them
    """
    if criteria.version is None:
        versions = yield from lookup.list_versions(project, name, owner)
        wanted = f"Model {name!r}"
    else:
        model = yield from ask(api.get_model(project, name, criteria.version, registry=owner))
        versions = [] if model is None else [model]
        wanted = f"Version {criteria.version} of model {name!r}"
    found, reasons = [], []
    for version in sorted(versions, key=lambda model: model.version, reverse=True):
        if version.version in but:
            continue
        lack, tags = yield from _judge(project, version, criteria, owner)
        if lack is not None:
            reasons.append(f"version {version.version} {lack}")
            continue
        found.append(replace(version, tags=tags))
        if is_one_enough:
            break
    if found:
        return Look(tuple(found))
    if not reasons:
        return Look((), f"{wanted} is not in the registry of project {(owner or project).name!r} yet")
    others = f"; the {len(reasons) - 1} before it will not do either" if len(reasons) > 1 else ""
    return Look((), f"Model {name!r}: {reasons[0]}{others}")


def _judge(
    project: Project, version: ModelVersion, criteria: Criteria, owner: Registry | None
) -> Procedure[tuple[str | None, Mapping[str, Any]]]:
    """Tell what a version lacks, and its tags where they were asked for."""
    lack, tags = criteria.shortcoming(version), version.tags
    if lack is not None or not criteria.tags:
        return lack, tags
    try:
        tags = yield from ask(api.get_model_tags(project, version.name, version.version, registry=owner))
    except Refused as error:
        if error.code != api.MODEL_NOT_FOUND:
            raise
        tags = {}  # It was deleted since it was listed.
    return criteria.untagged(tags), tags
