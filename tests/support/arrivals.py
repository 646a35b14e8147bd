"""Arrivals of model versions, and how the faked Hopsworks goes about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hsml.hopsworks.domain.diff import model_settings
from airflow_provider_hsml.hopsworks.domain.model_version import Framework, ModelVersion
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, RolloutPolicy, Run
from airflow_provider_hsml.hopsworks.rollout.reconcile import PreparedChange, Reconciler, reconcile
from tests.support.fake import PROJECT, FakeHopsworks

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
    from airflow_provider_hsml.hopsworks.domain.outcome import Outcome

V1 = ModelVersion("digits", 1, "digits_1", "demo", 119, {}, Framework.SKLEARN)
V2 = ModelVersion("digits", 2, "digits_2", "demo", 119, {}, Framework.SKLEARN)

FILES = {
    "Models/digits/1/Files": {"items": [{"attributes": {"name": "model.joblib"}}]},
    "Models/digits/2/Files": {"items": [{"attributes": {"name": "model.joblib"}}]},
    "Models/digits/1/expected.json": {"instances": [[0]], "predictions": [1]},
    "Models/digits/2/expected.json": {"instances": [[0]], "predictions": [2]},
    "variables/kube_kserve_installed": {"successMessage": "true"},
    "variables/kube_serving_min_num_instances": {"successMessage": "-1"},
}
WITHOUT_EXPECTED = {name: content for name, content in FILES.items() if "expected" not in name}
WITH_EXAMPLE = WITHOUT_EXPECTED | {"Models/digits/2/input_example.json": [[0]]}


def arrival(
    fake: FakeHopsworks,
    model: ModelVersion | None = V2,
    *,
    timeout: float = 600.0,
    wait: bool = True,
    recreate: bool = False,
    serve: bool = True,
    restore: int | None = None,
    trust: bool = True,
    sends: bool = True,
    is_way_back: bool = False,
    **settings: Any,
) -> Reconciler:
    """Return the reconciler with which the version is to be served."""
    run = Run(PROJECT, "digits", timeout, 10.0, fake.clock)
    settings = (model_settings(model) if model else {}) | settings
    policy = RolloutPolicy(wait=wait, trust=trust, recreate=recreate, sends=sends, is_way_back=is_way_back)
    return Reconciler(run, Desired(settings, model, restore, serve), policy)


async def recorded(reconciler: Reconciler, record: Callable[[Deployment | None], object]) -> Outcome:
    """Reconcile as a guarded change does: each change is recorded before it is applied."""
    async with reconciler:
        step = await reconciler.prepare()
        while isinstance(step, PreparedChange):
            if step.needs_record:
                record(step.live)
            step = await reconciler.apply(step)
        return step


def arrive(fake: FakeHopsworks, model: ModelVersion | None = V2, **more: Any) -> Outcome:
    return fake.run(reconcile(arrival(fake, model, **more)))


def rolls(
    fake: FakeHopsworks,
    *,
    begins: float = 1.5,
    takes: float = 4.0,
    answers: Any = (2,),
    names: tuple[str, ...] = ("new",),
) -> None:
    """Let an update go as Hopsworks' do: the row first, the instances later."""

    def begin() -> None:
        fake.after(begins, fake.becomes("Updating", instances=1))
        fake.after(begins + takes, fake.becomes("Running"))
        fake.after(begins + takes, fake.serves(list(names), list(answers)))

    fake.on["PUT"] = begin


def starts(fake: FakeHopsworks, *, takes: float = 4.0, answers: Any = (2,)) -> None:
    """Let a START go as Hopsworks' do."""

    def begin() -> None:
        fake.becomes("Starting", revision="7")()
        fake.after(takes, fake.becomes("Running"))
        fake.after(takes, fake.serves(["new"], list(answers)))

    fake.on["START"] = begin


def stops(fake: FakeHopsworks) -> None:
    """Let a STOP go as Hopsworks' do."""

    def begin() -> None:
        fake.becomes("Stopping")()
        fake.after(3, fake.becomes("Stopped"))

    fake.on["STOP"] = begin
