"""Values of environment variables are in no rendered field, no log and no message."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_hsml import DeployModelOperator
from airflow_provider_hsml.local import StartFault
from tests.support.tasks import FakeTaskInstance, execute, resource

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("serving")]

_numbers = itertools.count()

SECRET = "sesame-4711"
FROM_TEMPLATE = {"TOKEN": "{{ token }}", "LEVEL": "{{ params.level }}", "MODE": "strict", "FEW": "{{ few }}"}
SPECS = {
    "mapping": {"env_vars": FROM_TEMPLATE},
    "transformer": {"transformer": {"env_vars": FROM_TEMPLATE}},
    "text": json.dumps({"env_vars": FROM_TEMPLATE}),
    "text in it": {"transformer": json.dumps({"env_vars": FROM_TEMPLATE})},
    "whole": "{{ whole }}",
}


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was registered with Airflow's masker."""
    masked: list[str] = []
    monkeypatch.setattr("airflow.providers.common.compat.sdk.mask_secret", masked.append, raising=False)
    return masked


def rendered(spec: Any, *, times: int = 1) -> DeployModelOperator:
    operator = DeployModelOperator(
        task_id="task",
        model_name="{{ model }}",
        deployment_name=f"hidden{next(_numbers)}",
        poll_interval=0.2,
        spec=spec,
    )
    whole = json.dumps({"env_vars": {"TOKEN": SECRET, "LEVEL": "verbose", "MODE": "strict", "FEW": "0.5"}})
    context: Any = {"token": SECRET, "few": 0.5, "params": {"level": "verbose"}, "model": "hidden", "whole": whole}
    for _ in range(times):
        operator.render_template_fields(context)
    return operator


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_rendered_fields_have_no_value_and_what_is_deployed_has(spec: Any, times: int, masked: list[str]) -> None:
    operator = rendered(spec, times=times)

    shown = json.dumps(operator.spec)
    assert '"TOKEN": "***"' in shown
    assert '"MODE": "***"' in shown
    assert not any(value in shown for value in (SECRET, "verbose", "strict", "0.5"))
    whole = operator._unmasked_spec()
    of = whole.get("transformer", whole)
    assert of["env_vars"] == {"TOKEN": SECRET, "LEVEL": "verbose", "MODE": "strict", "FEW": "0.5"}
    assert SECRET in masked
    assert {"verbose", "0.5"}.isdisjoint(masked), "what is shown anyway, and what is short"


@pytest.mark.since_hopsworks("4.8")
def test_what_is_deployed(hook: HsmlHook, register: Callable[..., int]) -> None:
    register("hidden", 1)
    operator = rendered({"env_vars": FROM_TEMPLATE, "scaling": {"min_instances": "{{ 1 }}"}})

    record = execute(operator)

    assert record["action"] == "created"
    assert SECRET not in str(record)
    assert f"TOKEN={SECRET}" in resource(hook, str(operator.deployment_name))["predictorEnvVars"]
    assert operator.spec["scaling"] == {"min_instances": "1"}


def test_what_a_dying_script_says(
    serving: LocalServing, register: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow masks the task's log where it writes it, but neither what its scheduler prints of it nor its XComs."""
    caplog.set_level("DEBUG")
    register("hidden", 1)
    operator, ti = rendered({"env_vars": FROM_TEMPLATE}), FakeTaskInstance()
    serving.faults.add(StartFault(str(operator.deployment_name), reason=f"RuntimeError: {SECRET} is refused"))

    with pytest.raises(AirflowFailException, match=r"RuntimeError: \*\*\* is refused"):
        execute(operator, ti)

    assert "RuntimeError: *** is refused" in ti.pushed["failure"]
    assert SECRET not in str(ti.pushed)
    said = [record.getMessage() for record in caplog.records if "airflow_provider_hsml" in record.name]
    assert any("RuntimeError: *** is refused" in one for one in said)
    assert not [one for one in said if SECRET in one]


def test_mapped_tasks(masked: list[str]) -> None:
    with DAG("mapped", schedule=None):
        mapped = DeployModelOperator.partial(task_id="task", model_name="m").expand(spec=[SPECS["mapping"]])
    operator: Any = mapped.unmap({"spec": SPECS["mapping"]})

    operator._do_render_template_fields(
        parent=operator,
        template_fields=operator.template_fields,
        context=cast("Any", {"token": SECRET, "few": 1, "params": {"level": "verbose"}}),
        jinja_env=operator.get_template_env(),
        seen_oids=set(),
    )

    assert operator.spec == {"env_vars": dict.fromkeys(FROM_TEMPLATE, "***")}
    assert masked == [SECRET]


UNREADABLE: list[Callable[[str], Any]] = [
    lambda text: text,
    lambda text: [text],
    lambda text: {"env_vars": text},
    lambda text: {"env_vars": [text]},
    lambda text: {"env_vars": {"A": [text]}},
]


@pytest.mark.parametrize("spec", UNREADABLE)
def test_what_cannot_be_read_is_not_told_when_the_dag_is_parsed(spec: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="spec") as caught:
        rendered(spec(SECRET))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("spec", UNREADABLE)
def test_what_cannot_be_read_is_not_told(spec: Callable[[str], Any]) -> None:
    operator = rendered(spec("{{ token }}"))

    assert SECRET not in str(operator.spec)
    with pytest.raises(AirflowFailException, match="spec") as caught:
        execute(operator)
    assert SECRET not in str(caught.value)
