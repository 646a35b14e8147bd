"""
Airflow's metrics of promotions, emitted by the worker when a promotion task has its record.

``docs/operations.md`` has the table of names. Project, deployment and action are tags where a metric can have tags:
with DogStatsD, InfluxDB's StatsD and OpenTelemetry. With plain StatsD they are the last parts of the name.
"""

from __future__ import annotations

import logging
import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .base import iteration_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_hsml.hopsworks.promotion.record import Record

    from .base import HsmlOperator

log = logging.getLogger(__name__)

PROMOTIONS = "hsml.promotions"
FAILED_PROBES = "hsml.failed_probes"
DURATIONS = {phase: f"hsml.{phase}_duration" for phase in ("rollout", "verification", "bake")}
PENDING_CHANGES = "hsml.pending_changes"
CHAMPION_CREATED = "hsml.champion_created"
CHAMPION_AGE = "hsml.champion_age"
KEPT_IN_A_ROW = "hsml.kept_in_a_row"
NAMES = (PROMOTIONS, FAILED_PROBES, *DURATIONS.values(), PENDING_CHANGES, CHAMPION_CREATED, CHAMPION_AGE, KEPT_IN_A_ROW)
"""All names."""
_SAY_NOTHING = ("planned", "failed", "superseded")
"""The actions that do not tell whether a change is pending."""


def emit_promotion(operator: HsmlOperator, record: Record) -> None:
    """Emit the metrics of a promotion. An exception here is only logged."""
    try:
        _emit(operator.hook.client.project.name, record)
    except Exception:
        log.exception("The metrics of the promotion could not be emitted")


def kept_in_a_row(context: Context, record: Record) -> int | None:
    """
    Return how many runs of this task, this one included, have kept the champion.

    None for a task without a gate, and in a task loop, where Airflow pulls no XCom of a run before.

    The XCom of the run before has the count until then. A promotion that failed does not change it. An exception while
    it is read is only logged.

    :param record: the record of this run
    """
    if record.metric is None or iteration_of(context) is not None:
        return None
    if record.has_changed and not record.is_kept and record.action != "rolled_back":
        return 0
    ti = context["ti"]
    before: Any = 0
    try:
        before = ti.xcom_pull(
            task_ids=ti.task_id, key="kept_in_a_row", include_prior_dates=True, map_indexes=ti.map_index
        )
    except Exception:
        log.exception("The number of runs that have kept the champion could not be read: counting from zero")
    return (before if isinstance(before, int) else 0) + record.is_kept


def _emit(project: str, record: Record) -> None:
    from airflow.providers.common.compat.sdk import Stats  # noqa: PLC0415 - not needed to parse a DAG

    deployment = {"project": project, "deployment": record.deployment_name}
    actions = [record.action] if record.rolled_back is None else [record.rolled_back["action"], record.action]
    for action in actions:
        name, tags = _named(PROMOTIONS, {**deployment, "action": action})
        Stats.incr(name, tags=tags)
    if record.failed_probes:
        name, tags = _named(FAILED_PROBES, deployment)
        Stats.incr(name, record.failed_probes, tags=tags)
    for phase, seconds in (record.seconds or {}).items():
        name, tags = _named(DURATIONS[phase], deployment)
        Stats.timing(name, timedelta(seconds=seconds), tags=tags)
    created = record.champion_created
    gauges = {
        PENDING_CHANGES: None if record.action in _SAY_NOTHING else record.action == "unverified",
        CHAMPION_CREATED: created,
        CHAMPION_AGE: None if created is None else time.time() - created,
        KEPT_IN_A_ROW: record.kept_in_a_row,
    }
    for gauge, value in gauges.items():
        if value is not None:
            name, tags = _named(gauge, deployment)
            Stats.gauge(name, float(value), tags=tags)


def _named(name: str, tags: Mapping[str, str]) -> tuple[str, dict[str, Any] | None]:
    """Return the name and the tags with which a metric is emitted."""
    from airflow.providers.common.compat.sdk import conf  # noqa: PLC0415 - not needed to parse a DAG

    def is_on(option: str) -> bool:
        return bool(conf.getboolean("metrics", option, fallback=False))

    if is_on("statsd_on") and not (is_on("statsd_influxdb_enabled") or is_on("statsd_datadog_enabled")):
        return ".".join([name, *(re.sub(r"[^A-Za-z0-9_-]", "_", value) for value in tags.values())]), None
    return name, dict(tags)
