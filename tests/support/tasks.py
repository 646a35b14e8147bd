"""Runs an operator as Airflow would, without a scheduler."""

from __future__ import annotations

import asyncio
import copy
import functools
import importlib
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import RequestRefusedError
from airflow_provider_hsml.hopsworks.promotion.guarded_change import GuardedChange

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    import pytest

    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome

_numbers = itertools.count()


@dataclass
class FakeTaskInstance:
    """What operators ask of a task instance."""

    dag_id: str = "dag"
    run_id: str = field(default_factory=lambda: f"run-{next(_numbers)}")
    task_id: str = "task"
    map_index: int = -1
    max_tries: int = 0
    region_index: int | None = None
    """The iteration of a task loop, on Airflow 3.4 and later; None before."""
    region_id: UUID | None = None
    """The execution of a task loop or mapped task, on Airflow 3.4 and later; zero for other tasks, None before."""
    try_number: int = 1
    state: str | None = "running"
    """Its current state in Airflow's database; None also of a cleared one."""
    pushed: dict[str, Any] = field(default_factory=dict)
    earlier: dict[str, Any] = field(default_factory=dict)
    """The XComs of the task's run before."""

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep an XCom."""
        self.pushed[key] = value

    def get_task_states(
        self, *, dag_id: str, task_ids: list[str], run_ids: list[str], map_index: int
    ) -> dict[str, dict[str, str | None]]:
        """Give its own state, as Airflow 3 does: by the task's name, which ends with the map index if it is mapped."""
        assert (dag_id, task_ids, run_ids, map_index) == (self.dag_id, [self.task_id], [self.run_id], self.map_index)
        name = self.task_id if self.map_index < 0 else f"{self.task_id}_{self.map_index}"
        return {} if self.state == "deleted" else {self.run_id: {name: self.state}}

    def current_state(self) -> str | None:
        """Give its own state, as Airflow 2 does."""
        return self.state

    def xcom_pull(self, *, task_ids: str, key: str, include_prior_dates: bool, map_indexes: int) -> Any:
        """Give an XCom of this task's run before: it pulls no others."""
        assert (task_ids, include_prior_dates, map_indexes) == (self.task_id, True, self.map_index)
        return self.earlier.get(key)


def rendered(operator: Any, **values: Any) -> Any:
    """Give an operator as it is once Airflow has rendered templates: with values that no DAG file had."""
    operator.__dict__["_is_rendered"] = True
    for name, value in values.items():
        setattr(operator, name, value)
    return operator


def begin(operator: Any, ti: FakeTaskInstance | None = None) -> Any:
    """Execute an operator as far as a worker does at first: until it defers."""
    return operator.execute({"ti": ti or FakeTaskInstance()})


def execute(operator: Any, ti: FakeTaskInstance | None = None, **more: Any) -> Any:
    """
    Execute an operator; where it defers, its trigger is run, and another instance of it goes on.

    :param more: what else is in its context
    """
    context: Any = {"ti": ti or FakeTaskInstance(), **more}
    go_on = functools.partial(operator.execute, context)
    while True:
        try:
            return go_on()
        except TaskDeferred as deferred:
            event = asyncio.run(run_trigger(deferred.trigger))
            fresh = copy.copy(operator)
            fresh.__dict__.pop("hook", None)
            kwargs = json.loads(json.dumps({**(deferred.kwargs or {}), "event": event}))
            go_on = functools.partial(fresh.resume_execution, deferred.method_name, kwargs, context)


def prepare_thread() -> None:
    """Let this thread execute operators: Airflow 2 expects that of the thread alone that has imported it."""
    if not AIRFLOW_V_3_0_PLUS:
        importlib.import_module("airflow.models.baseoperator").ExecutorSafeguard._sentinel.callers = {}


async def run_trigger(trigger: Any) -> Any:
    """Store a trigger, make it anew, and give what it tells first."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    async for event in getattr(importlib.import_module(module), name)(**json.loads(json.dumps(kwargs))).run():
        return event.payload
    raise AssertionError("a trigger that ends without an event")


def changes(serving: Any) -> list[tuple[str, str]]:
    """Give what was asked of the server to change since its list was cleared; predictions too, reads not."""
    return [(asked.method, asked.path.rpartition("/")[2]) for asked in serving.requests if asked.method != "GET"]


def reads(serving: Any) -> int:
    """Count what was read."""
    return sum(asked.method == "GET" for asked in serving.requests)


def resource(hook: Any, name: str) -> dict[str, Any]:
    """Give a deployment as Hopsworks describes it, which no method of the hook does."""
    return dict(whole(hook, name).raw)


def change_by_rest(
    hook: Any, name: str, change: Callable[[dict[str, Any]], None], *, new_version: bool = False
) -> None:
    """Change a deployment as somebody who knows of nothing, by one PUT, once the server takes it."""
    while True:
        row = resource(hook, name)
        change(row)
        try:
            hook.client.send(api.put_deployment(hook.client.project, row, new_version=new_version))
        except RequestRefusedError as busy:
            if not busy.not_now:
                raise
            time.sleep(0.01)
        else:
            return


def whole(hook: Any, name: str) -> Any:
    """Give a deployment as the provider reads it, with all that Hopsworks says of it."""
    found = hook.client.send(api.get_deployment(hook.client.project, name))
    assert found is not None
    return found


def before_the_change(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Have something done once, between a promotion's decision and its entry in the journal."""
    apply = GuardedChange.apply

    async def late(change: GuardedChange) -> Outcome:
        monkeypatch.setattr(GuardedChange, "apply", apply)
        do()
        return await apply(change)

    monkeypatch.setattr(GuardedChange, "apply", late)
