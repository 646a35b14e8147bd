"""Workers die after any change that a comparison makes: production is untouched, and nothing is left afterwards."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.hopsworks.domain.side_deployment import SECONDS, is_lease_file
from airflow_provider_hsml.hopsworks.promotion.journal import list_files
from airflow_provider_hsml.local import LocalServing
from airflow_provider_hsml.testing import SHORT_WAITS
from tests.conftest import HOPSWORKS, run_model
from tests.support.promotion_crashes import SPEEDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("sklearn", reason="a comparison measures with scikit-learn")

NOW = time.time
ROWS = [{"x": number, "y": 11} for number in range(200)]


class Died(BaseException):
    """The worker is dead: nothing is sent any more."""


@pytest.fixture(scope="module")
def world() -> Iterator[LocalServing]:
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        serving = stack.enter_context(LocalServing(engine=run_model, hopsworks_version=HOPSWORKS, speeds=SPEEDS))
        patch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        for name, seconds in SHORT_WAITS.items():
            patch.setattr(name, seconds)
        yield serving


class Scene:
    """A deployment of its own, and comparisons for it."""

    def __init__(self, serving: LocalServing, folder: Path, name: str) -> None:
        self.serving, self.folder, self.name, self.hook = serving, folder, name, HsmlHook()
        for version in (1, 2):
            model = folder / f"{name}{version}"
            model.mkdir()
            (model / "model.joblib").write_text(json.dumps({"answer": 11 * version}))
            self.hook.register_model(model_name=name, model_path=model, framework="SKLEARN", input_example=[{"x": 0}])
        self.hook.deploy_model(name, 1, poll_interval=0.02)

    def compare(self, run: str, dies_after: int | None = None) -> dict[str, Any]:
        """Compare as a task does; die after some change."""
        hook, changes = HsmlHook(), 0
        send = hook.client.send

        def dying(call: Any) -> Any:
            nonlocal changes
            if changes == dies_after:
                raise Died
            answer = send(call)
            if call.method != "GET" and not call.path.endswith(":predict"):
                changes += 1
                if changes == dies_after:
                    raise Died(call.what)
            return answer

        hook.client.send = dying  # type: ignore[method-assign]
        with contextlib.closing(hook.client):
            return hook.compare_models(
                self.name,
                2,
                ROWS,
                label_column="y",
                metrics=["accuracy"],
                resamples=100,
                result_path=self.folder / "results",
                reuse_key=run,
                run_key=f"{run}@0",
                timeout=20,
                poll_interval=0.02,
            )

    def live(self) -> tuple[Any, ...]:
        found = self.hook.get_deployment(self.name)
        return (found.id, found.version, found.revision, found.model_version, found.status)

    def left(self) -> tuple[list[str], list[str]]:
        """Give the temporary deployments and the leases."""
        names = [one.name for one in self.hook.get_deployments() if one.name != self.name]
        files = self.hook.run(list_files(self.hook.client.project, self.name)) or {}
        return [name for name in names if name.startswith(self.name)], [name for name in files if is_lease_file(name)]


def test_whenever_a_worker_dies_production_is_untouched_and_nothing_is_left(
    world: LocalServing, tmp_path: Path
) -> None:
    scene, kills = Scene(world, tmp_path, "crashed"), 0
    before = scene.live()
    for changes in itertools.count(1):
        try:
            record = scene.compare(f"run{changes}", changes)
        except Died as died:
            when = f"after {changes}: {died}"
        else:
            assert record["metrics"]["accuracy"]["champion"] == 1.0
            break
        kills += 1
        assert scene.live() == before, when
        assert len(scene.left()[0]) <= 1, when
        with pytest.MonkeyPatch.context() as patch:
            if changes % 2:
                patch.setattr(time, "time", lambda: NOW() + SECONDS + 1)
                record = scene.compare("another")
            else:
                record = scene.compare(f"run{changes}")
        assert record["metrics"]["accuracy"]["challenger"] == 0.0, when
        assert scene.live() == before, when
        assert scene.left() == ([], []), when

    assert kills >= 10
    assert scene.left() == ([], [])
