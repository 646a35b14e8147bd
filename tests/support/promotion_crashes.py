"""A world in which workers die: a server, models good and bad, and promotions that end after their n-th request."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.hopsworks.api import Call
from airflow_provider_hsml.hopsworks.domain import rollout_tracker
from airflow_provider_hsml.hopsworks.domain.gate import Metric
from airflow_provider_hsml.hopsworks.domain.model_version import Direction
from airflow_provider_hsml.hopsworks.errors import HopsworksError
from airflow_provider_hsml.hopsworks.flow import Sleep, inlined
from airflow_provider_hsml.hopsworks.inference import predict
from airflow_provider_hsml.hopsworks.promotion.journal import Journal, open_journal
from airflow_provider_hsml.hopsworks.promotion.promote import Promotion, Selection
from airflow_provider_hsml.hopsworks.promotion.rollback import PREVIOUS, Rollback
from airflow_provider_hsml.hopsworks.rollout import inputs
from airflow_provider_hsml.hopsworks.rollout.inputs import RolloutPolicy, Run
from airflow_provider_hsml.local import LocalServing, Speeds
from tests.conftest import run_model
from tests.support.tasks import change_by_rest, resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_hsml.hopsworks.promotion.record import PromotionResult

GOOD, BETTER, BAD = 1, 2, 3
"""Versions of the model; the bad one has the best metric, and answers otherwise than was recorded."""
MODEL = "crash"
SPEEDS = Speeds(0.01, 0.02, 0.05, 0.02, 0.02, routing=0.01, handing_over=0.02)
"""Of a server on which a rollout takes a fraction of a second."""
_WAITS = (
    (predict, "BETWEEN_PROBES", 0.0),
    (predict, "ROUTE_BUDGET", 1.0),
    (inputs, "FIRST_DELAY_START", 0.01),
    (inputs, "FIRST_DELAY_UPDATE", 0.01),
    (rollout_tracker, "START_GRACE", 0.3),
    (rollout_tracker, "SETTLE_SEEN", 0.05),
    (rollout_tracker, "SETTLE_UNSEEN", 0.2),
    (rollout_tracker, "NAMES_AGAIN", 0.02),
)
"""How long a rollout waits, for such a server."""
_NEVER_CLOSED: list[Any] = []
"""A worker that is killed runs no ``finally``: its procedure is not closed, either."""


class Died(Exception):
    """The worker was killed."""


@dataclass
class World:
    """One server, and what is done to its deployments."""

    serving: LocalServing
    hook: HsmlHook

    def register(self, folder: Path) -> None:
        """Register the versions of the model."""
        rows = [[0.0], [1.0]]
        for version, answer in ((GOOD, GOOD), (BETTER, BETTER), (BAD, 66)):
            path = folder / str(version)
            path.mkdir()
            (path / "model.joblib").write_text(json.dumps({"answer": answer}))
            self.hook.register_model(
                model_name=MODEL,
                model_path=path,
                framework="SKLEARN",
                metrics={"auc": 0.7 + version / 20},
                input_example=rows,
                expected={"instances": rows, "predictions": [version] * 2},
            )

    def wish(self, name: str, *candidates: int, run: str, **given: Any) -> Promotion:
        """Wish for the best of some versions."""
        selection = Selection(MODEL, by=Metric("auc", Direction.MAX, candidates))
        return Promotion(self.task(name, run), selection, {}, RolloutPolicy(**given))

    def deploy(self, name: str, version: int, run: str, **settings: Any) -> Promotion:
        """Wish for one version."""
        return Promotion(self.task(name, run), Selection(MODEL, version), settings)

    def task(self, name: str, run: str) -> Run:
        """Return the work of one task on a deployment."""
        return Run(self.hook.client.project, name, 20.0, 0.02, key=run)

    def back(self, name: str, run: str, to: int | str = PREVIOUS) -> Rollback:
        """Wish for what was there before."""
        return Rollback(self.task(name, run), to)

    def run(
        self,
        wish: Promotion | Rollback,
        changes: int | None = None,
        after: Callable[[Call[Any]], None] = lambda _call: None,
    ) -> PromotionResult:
        """
        Do it in a worker that is killed right after so many changes; predictions in a row count as one.

        A kill after a read leaves what one after the change before it leaves: those are left out.

        :param after: what happens after each request
        :raises Died: it was killed
        """
        flow = inlined(wish.promote() if isinstance(wish, Promotion) else wish.roll_back())
        _NEVER_CLOSED.append(flow)
        last, sent, answer, error = None, 0, None, None
        while True:
            try:
                step = flow.throw(error) if error else flow.send(answer)
            except StopIteration as done:
                promoted: PromotionResult = done.value
                return promoted
            answer = error = None
            if isinstance(step, Sleep):
                time.sleep(step.seconds)
                continue
            assert isinstance(step, Call)
            try:
                answer = self.hook.client.send(step)
            except HopsworksError as refused:
                error = refused
            after(step)
            if step.method != "GET" and not (step.path == last and step.path.endswith(":predict")):
                sent += 1
                if sent == changes:
                    message = f"right after {step.what}"
                    raise Died(message)
            last = step.path

    def ends(self, wish: Promotion | Rollback, after: Callable[[Call[Any]], None] = lambda _call: None) -> str:
        """Do it, and give the action of its record, be it an error's."""
        try:
            return self.run(wish, after=after).record(None).action
        except HopsworksError as error:
            if error.record is None:
                raise
            return str(error.record.action)

    def interfere(self, name: str, version: int = BETTER) -> None:
        """Change a deployment as somebody who knows of nothing: another version, in two instances."""
        has_versions = resource(self.hook, name).get("version") is not None
        changed = {"modelVersion": version, "requestedInstances": 2, "predictorScalingConfig": {"minInstances": 2}}
        self.change(name, new_version=has_versions, **changed)

    def change(self, name: str, *, new_version: bool = False, **changed: Any) -> None:
        """Change keys of a deployment by plain REST; in those that are objects, the given keys only."""

        def apply(row: dict[str, Any]) -> None:
            for key, value in changed.items():
                row[key] = {**(row.get(key) or {}), **value} if isinstance(value, dict) else value

        change_by_rest(self.hook, name, apply, new_version=new_version)

    def journal(self, name: str) -> Journal:
        """Read a deployment's journal."""
        return self.hook.run(open_journal(self.hook.client.project, name))

    def is_finished(self, name: str) -> bool:
        """Tell whether the last change was seen through, or taken back."""
        newest = self.journal(name).newest
        return newest is None or not newest.is_pending

    def deployments(self, name: str) -> list[dict[str, Any]]:
        """Give the deployments of a name as the server has them, with who really answers."""
        return [row for row in self.serving.world.project(119).deployments.all_shown() if row["name"] == name]

    def serves(self, name: str) -> int | None:
        """Ask the process which version it has."""
        (row,) = self.deployments(name)
        version: int | None = row["answering"]
        return version

    def accepted(self, number: int, action: str) -> int:
        """Count what the server was asked to do with a deployment, and did."""
        asked = [one for one in self.serving.requests if one.path.endswith(f"/serving/{number}")]
        return sum(one.method == "POST" and f"action={action}" in one.query and one.status < 300 for one in asked)


@contextlib.contextmanager
def fast_worlds(folders: pytest.TempPathFactory) -> Iterator[Callable[[str], World]]:
    """Give what makes a fast server of a line, with three versions of a model; one per line."""
    found: dict[str, World] = {}
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for module, name, seconds in _WAITS:
            patch.setattr(module, name, seconds)

        def world(line: str) -> World:
            if line not in found:
                serving = LocalServing(engine=run_model, hopsworks_version=line, speeds=SPEEDS)
                stack.enter_context(serving)
                patch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
                found[line] = World(serving, HsmlHook())
                found[line].register(folders.mktemp("models"))
            return found[line]

        yield world
