"""The way back of a change: by a kept version of the deployment, where the list of them can be trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState, JournalEntry, PreviousState, ServedVersion
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.promotion.change_record import ChangeRecord
from airflow_provider_hsml.hopsworks.promotion.journal import Journal
from airflow_provider_hsml.hopsworks.promotion.way_back import WayBack, find_way_back
from airflow_provider_hsml.hopsworks.rollout.inputs import Desired, ResumePoint, RolloutPolicy, Run
from tests.support.fake import PROJECT, FakeHopsworks, row

LIVE = {"version": 5, "active": True}
ODD = {"modelName": 7}
"""Makes a version one that cannot be read."""


def way_back(versions: Any, *, hides_env_vars: bool = True) -> int | None:
    """Return the version to activate for a deployment whose version 5 is live and whose version 4 was active."""
    fake = FakeHopsworks(row(version=5), faults={"versions": [Answer(200, json.dumps(versions).encode())]})
    run = Run(PROJECT, "digits", 0.5, 1.0, fake.clock)
    live = Deployment.from_json(row(version=5))
    return fake.run(find_way_back(run, live, 4, row(version=4), hides_env_vars=hides_env_vars))[0]


@pytest.mark.parametrize(
    "versions",
    [{"count": 0}, [], {"items": []}, [{"version": 4}], [{"version": 3}], [LIVE, {"version": "4"}], [LIVE, ODD]],
    ids=str,
)
@pytest.mark.parametrize("hides_env_vars", [True, False])
def test_a_list_that_may_lack_the_version_is_not_trusted(versions: Any, *, hides_env_vars: bool) -> None:
    """Trusted, it would end the rollback for good, or restore no environment variables."""
    with pytest.raises(UnexpectedResponseError):
        way_back(versions, hides_env_vars=hides_env_vars)


@pytest.mark.parametrize("others", [[{"version": 4}], [{"version": 4} | ODD], [{"version": 4}, {"version": 3} | ODD]])
def test_a_kept_version_is_activated_whatever_else_is_odd(others: list[Any]) -> None:
    assert way_back([LIVE, *others]) == 4
    assert way_back({"count": 1 + len(others), "items": [LIVE | ODD, *others]}) == 4


def test_a_version_that_is_not_kept() -> None:
    assert way_back([LIVE, {"version": 3}], hides_env_vars=False) is None
    with pytest.raises(InvalidInputError, match="stored nowhere"):
        way_back([LIVE, {"version": 3}])


@pytest.mark.parametrize(
    "had", [{}, {"predictorEnvVars": None, "transformerEnvVars": []}, {"predictorEnvVars": ["A=1"]}]
)
@pytest.mark.parametrize("stored", [{}, {"predictorEnvVars": ["A=2"]}])
def test_another_process_needs_no_values_of_environment_variables_that_were_not_there(
    had: dict[str, Any], stored: dict[str, Any]
) -> None:
    """Also where Hopsworks, which keeps no versions, did not store those of the change."""
    fake = FakeHopsworks(row(modelVersion=2, **stored), has_versions=False)
    fake.files["models/digits_1"] = {"id": "digits_1", "name": "digits", "version": 1, "framework": "SKLEARN"}
    before = PreviousState.of(Deployment.from_json(row(**had)))
    assert not before.row.keys() & had.keys()
    entry = JournalEntry(
        "id", EntryState.PROMOTING, "run", 1.0, ServedVersion("demo", "digits", 2), {}, before, touches_env_vars=True
    )
    record = ChangeRecord(
        Run(PROJECT, "digits", 0.5, 1.0, fake.clock), Desired({}), Journal(PROJECT, "digits"), decided_on=None
    )
    record.resume(JournalEntry.from_json(json.loads(json.dumps(entry.to_json()))))
    assert fake.row is not None
    desired = WayBack(record, ResumePoint(), RolloutPolicy())._desired(Deployment.from_json(fake.row), before)

    if had.get("predictorEnvVars"):
        with pytest.raises(InvalidInputError, match="stored nowhere"):
            fake.run(desired)
    else:
        cleared: dict[str, Any] = {"env_vars": {}} if stored else {}
        assert (
            fake.run(desired).settings == {"model_version": 1, "model_path": "/Projects/demo/Models/digits"} | cleared
        )


@pytest.mark.parametrize(
    "path",
    [None, "/Projects/demo/Models/digits/2", "hdfs:///Projects/demo/Models/digits", "/Projects/DEMO/Models/digits"],
)
def test_another_version_is_sent_with_its_path(path: str | None) -> None:
    """The live path may be of the version that is rolled back from."""
    fake = FakeHopsworks(row(), has_versions=False)
    live = Deployment.from_json(row(modelVersion=2, modelPath=path))

    found = fake.run(find_way_back(Run(PROJECT, "digits", 0.5, 1.0, fake.clock), live, 1, row()))
    assert found == (None, {"model_version": 1, "model_path": "/Projects/demo/Models/digits"})
