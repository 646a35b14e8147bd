"""Which try of which task made a change, and who approved it: in the record, in the journal, and for callbacks."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, JournalEntry, ServedVersion
from airflow_provider_hsml.hopsworks.errors import RequestRefusedError
from airflow_provider_hsml.local import LocalServing, RequestFault
from airflow_provider_hsml.operators import DeployBestModelOperator, DeployModelOperator, RollbackDeploymentOperator
from airflow_provider_hsml.operators.promotion_record import audit
from tests.support.tasks import FakeTaskInstance, execute

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hooks import HsmlHook

pytestmark = pytest.mark.airflow

QUICK: dict[str, Any] = {"task_id": "task", "poll_interval": 0.1, "timeout": 20.0}


@dataclasses.dataclass
class BundledTaskInstance(FakeTaskInstance):
    """One of Airflow 3, whose DAG comes from a bundle."""

    bundle_instance: Any = dataclasses.field(default_factory=lambda: SimpleNamespace(name="dags", version="4f2a9c1"))


def expected(ti: FakeTaskInstance, **more: Any) -> dict[str, Any]:
    """Return the audit of a task instance."""
    of_task = {name: getattr(ti, name) for name in ("dag_id", "run_id", "task_id", "map_index", "try_number")}
    return {**of_task, "iteration": None, "bundle_name": None, "bundle_version": None, "approved_by": None, **more}


def deploy(name: str, version: int, **more: Any) -> DeployModelOperator:
    return DeployModelOperator(model_name=name, model_version=version, **QUICK, **more)


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_approved_plan_names_who_approved_it(deferrable: bool, hook: HsmlHook, register: Callable[..., int]) -> None:
    name = f"approved{deferrable:d}"
    register(name, 1)
    plan = execute(deploy(name, 1, plan_only=True))
    ti = BundledTaskInstance(map_index=3, try_number=2)

    record = execute(deploy(name, 1, plan=plan, approved_by="ada", deferrable=deferrable), ti)

    audit = expected(ti, bundle_name="dags", bundle_version="4f2a9c1", approved_by="ada")
    assert record["audit"] == ti.pushed["promotion"]["audit"] == ti.pushed["audit"] == audit
    assert hook.get_promotion_state(name).audit == audit


@pytest.mark.parametrize(
    ("given", "context", "iteration"),
    [
        ({"region_index": 2}, {}, 2),
        ({"region_index": 0}, {}, 0),
        ({"map_index": 3, "region_index": 3}, {}, None),
        ({"map_index": 3, "region_index": 3}, {"loop": SimpleNamespace(index=1)}, 1),
        ({"region_index": -1}, {"loop": None}, None),
    ],
    ids=["iteration", "first", "mapped", "mapped in a loop", "neither"],
)
def test_iterations_of_a_task_loop_differ(given: dict[str, Any], context: dict[str, Any], iteration: Any) -> None:
    ti = FakeTaskInstance(**given)
    whole: Any = {"ti": ti, **context}

    assert audit(whole) == expected(ti, iteration=iteration)


def test_the_journal_keeps_the_try_that_made_the_change(
    hook: HsmlHook, register: Callable[..., int], serving: LocalServing
) -> None:
    register("pendingaudit", 1, auc=0.8)
    execute(deploy("pendingaudit", 1))
    register("pendingaudit", 2, auc=0.9)
    first, second = FakeTaskInstance(), FakeTaskInstance(dag_id="another")
    calls: list[Any] = []
    body = {"errorCode": 200014, "usrMsg": "not now"}
    serving.faults.add(RequestFault("GET", "/project/*/serving/*", status=403, body=body, times=3))
    with pytest.raises(RequestRefusedError, match="live but unverified"):
        execute(deploy("pendingaudit", 2, on_unverified=calls.append), first)
    serving.faults.clear()
    assert calls[0]["promotion"]["audit"] == expected(first)

    # The next run settles it, and changes nothing itself.
    best = DeployBestModelOperator(model_name="pendingaudit", metric="auc", direction="max", **QUICK)
    assert execute(best, second)["audit"] == expected(second)
    state = hook.get_promotion_state("pendingaudit")
    assert (state.state, state.audit) == ("verified", expected(first))


def test_a_rollback_names_its_task(hook: HsmlHook, register: Callable[..., int]) -> None:
    for version in (1, 2):
        register("rolledaudit", version)
        execute(deploy("rolledaudit", version))
    ti = FakeTaskInstance()

    record = execute(RollbackDeploymentOperator(deployment_name="rolledaudit", **QUICK), ti)

    assert record["audit"] == hook.get_promotion_state("rolledaudit").audit == expected(ti)


def test_an_entry_of_an_older_version_of_this_package_is_read() -> None:
    entry = JournalEntry("1", EntryState.VERIFIED, "a/b/c/-1@0", 1.0, ServedVersion(), {}, None, touches_env_vars=False)
    older = {
        key: value
        for key, value in json.loads(json.dumps(entry.to_json())).items()
        if key not in ("audit", "failed_probes")
    }

    assert JournalEntry.from_json(older) == entry
