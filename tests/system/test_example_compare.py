"""The nightly retrain with a comparison, run by a real Airflow: made, kept in spite of a better number, promoted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.local.demo.nights import read_result
from airflow_provider_hsml.testing import load_with_joblib
from tests.conftest import HOPSWORKS
from tests.support import commands, pace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytest.importorskip("sklearn", reason="the example trains with scikit-learn")
pytestmark = pytest.mark.airflow

EXAMPLES = Path(__file__).parents[2] / "example_dags"
NIGHTS = [
    {"training_images": 150, "luck": 2},
    {"training_images": 150, "luck": 11},
    {"training_images": 1100, "luck": 0},
]
"""What the nights train with. The second has a better number of its own, and is no better."""


@dataclass
class Nights:
    """What came of the nights."""

    hook: HsmlHook
    serving: LocalServing
    ran: list[commands.Ran]

    def result(self, number: int) -> dict[str, Any]:
        """Give what the last task of a night has printed."""
        output = self.ran[number].output
        results = [result for line in output.splitlines() if (result := read_result(line))]
        assert len(results) == 1, output
        return dict(results[0])


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    """Three nights."""
    from airflow_provider_hsml.hooks import HsmlHook
    from airflow_provider_hsml.local import LocalServing

    asked = [
        ("dags", "test", "retrain_compare_deploy", f"2026-11-0{number}", "--conf", json.dumps({"trees": 10} | night))
        for number, night in enumerate(NIGHTS, 1)
    ]
    with (
        pytest.MonkeyPatch.context() as patch,
        LocalServing(engine=load_with_joblib, hopsworks_version=HOPSWORKS) as serving,
    ):
        patch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
        home = tmp_path_factory.mktemp("airflow")
        commands.migrate(home)
        pace.hurry(home)
        environment = commands.environment(
            home,
            AIRFLOW__CORE__DAGS_FOLDER=str(EXAMPLES),
            AIRFLOW_CONN_HSML_DEFAULT=serving.connection,
        )
        yield Nights(HsmlHook(), serving, commands.run(asked, environment))


def test_all_nights_are_green(nights: Nights) -> None:
    assert [ran.code for ran in nights.ran] == ["0"] * 3, nights.ran[-1].output


def test_the_first_night_makes_a_deployment_without_a_champion(nights: Nights) -> None:
    result = nights.result(0)

    assert (result["promotion"]["action"], result["promotion"]["model_version"]) == ("created", 1)
    assert result["accuracy"]["champion"] is None


def test_a_better_number_in_the_registry_that_is_noise_changes_nothing(nights: Nights) -> None:
    result = nights.result(1)
    registered = {model.version: model.metric("accuracy") or 0 for model in nights.hook.get_models("numerals")}

    assert registered[2] > registered[1], "the number of the training is better"
    assert result["accuracy"]["lower_bound"] < 0 < result["accuracy"]["interval"][1], "and it may be worse"
    assert (result["promotion"]["action"], result["promotion"]["model_version"]) == ("kept", 1)


def test_a_version_that_is_better_on_the_same_rows_is_deployed(nights: Nights) -> None:
    result = nights.result(2)

    assert result["accuracy"]["lower_bound"] > 0
    assert (result["promotion"]["action"], result["promotion"]["model_version"]) == ("updated", 3)
    assert result["promotion"]["preflight"] == "passed"
    assert nights.hook.get_deployment("numerals").model_version == 3


def test_nothing_is_left_beside_production_and_the_reports_are_there(nights: Nights) -> None:
    assert [deployment.name for deployment in nights.hook.get_deployments()] == ["numerals"]
    for number in range(3):
        assert "<html" in Path(nights.result(number)["report"].removeprefix("file://")).read_text()
