"""Workers die at any moment; the next run leaves a deployment that serves a version that was verified."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.domain import model_version
from airflow_provider_hsml.hopsworks.domain.journal_entry import EntryState
from airflow_provider_hsml.hopsworks.errors import HopsworksError, RolledBackError, VerificationError
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes
from airflow_provider_hsml.local import LocalServing
from airflow_provider_hsml.local.cluster.faults import Hold
from tests.conftest import run_model
from tests.support.promotion_crashes import BAD, BETTER, GOOD, MODEL, SPEEDS, Died, World, fast_worlds
from tests.support.tasks import resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_hsml.hopsworks.api import Call


MORE_MEMORY = {"resources.limits.memory": 2048}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], World]]:
    """Makes a fast server of a line, with three versions of a model; one for all tests."""
    with fast_worlds(tmp_path_factory) as world:
        yield world


@dataclass(frozen=True)
class Scenario:
    """What a worker was about when it died."""

    before: tuple[int, ...]
    """Versions that were deployed one after the other, before."""
    candidates: tuple[int, ...]
    """To choose the best of; none: what was there before is wanted again."""
    recreate: bool
    ends: frozenset[int | None]
    """Versions that may serve when the next run has ended."""
    starts: int
    """STARTs that are needed for all of it."""

    def wish(self, world: World, name: str, run: str) -> Any:
        if not self.candidates:
            return world.back(name, run)
        return world.wish(name, *self.candidates, run=run, recreate=self.recreate)


SCENARIOS = {
    "create": Scenario((), (GOOD,), False, frozenset({GOOD}), 1),
    "createbad": Scenario((), (BAD,), False, frozenset({None}), 1),
    "update": Scenario((GOOD,), (GOOD, BETTER), False, frozenset({BETTER}), 1),
    "recreate": Scenario((GOOD,), (GOOD, BETTER), True, frozenset({BETTER}), 2),
    "bad": Scenario((GOOD,), (GOOD, BAD), False, frozenset({GOOD}), 1),
    "recreatebad": Scenario((GOOD,), (GOOD, BAD), True, frozenset({GOOD}), 3),
    "back": Scenario((GOOD, BETTER), (), False, frozenset({GOOD}), 1),
}


QUICK = {
    *(("5.2", what) for what in ("create", "update", "recreate", "bad", "back")),
    *(("3.7", what) for what in ("bad", "recreatebad", "back")),
}


def _cases() -> Iterator[Any]:
    for line, what, then in itertools.product(("5.2", "3.7"), SCENARIOS, ("in turns", "retry", "next")):
        is_quick = (line, what) in QUICK and then == "in turns"
        if is_quick or then != "in turns":
            yield pytest.param(line, what, then, marks=() if is_quick else pytest.mark.slow)


@pytest.mark.parametrize(("line", "what", "how"), list(_cases()))
def test_whenever_a_worker_dies_the_next_run_leaves_what_is_verified(
    worlds: Callable[[str], World], line: str, what: str, how: str
) -> None:
    """Whether that is the same task's next try, or another run; or one after the other."""
    world = worlds(line)
    scenario = SCENARIOS[what]
    for changes in itertools.count(1):
        then = how if how != "in turns" else ("retry", "next")[(changes + (line == "3.7")) % 2]
        name = f"{what}{how[:2]}{changes}"
        for version in scenario.before:
            world.run(world.wish(name, version, run="before"))
        try:
            world.run(scenario.wish(world, name, "first"), changes)
        except Died as died:
            when = f"{what}, {then} after {changes}, {died}"
        except HopsworksError:
            break
        else:
            break
        left = world.journal(name).newest
        action = world.ends(scenario.wish(world, name, "first" if then == "retry" else "second"))
        (row,) = world.deployments(name) or [{"id": None, "answering": None}]
        if what == "back" and then == "next" and left and (left.run, left.state) == ("first", EntryState.VERIFIED):
            assert row["answering"] == BETTER, "it was done: this is another wish, for what was there before it"
        else:
            assert row["answering"] in scenario.ends, (when, action)
        assert world.accepted(row["id"], "START") <= scenario.starts, (when, action)
        assert world.is_finished(name), (when, action)
        if left and left.is_pending and row["answering"] not in {None, GOOD}:
            assert action in {"updated", "attached", "started"}, when
    assert changes > 4


def killed_at(what: str) -> Callable[[Call[Any]], None]:
    """Make what kills a worker right after a request."""

    def after(call: Call[Any]) -> None:
        if call.what.startswith(what):
            raise Died

    return after


@pytest.mark.parametrize("line", ["5.2", "3.7"])
def test_two_workers_that_die_one_after_the_other(worlds: Callable[[str], World], line: str) -> None:
    """The second has noted a change over one that nobody has verified, and has not sent it."""
    world = worlds(line)
    world.run(world.wish("twice", GOOD, run="before"))
    with pytest.raises(Died):
        world.run(world.wish("twice", GOOD, BAD, run="first"), after=killed_at("update deployment"))
    with pytest.raises(Died):
        world.run(world.wish("twice", GOOD, BETTER, run="second"), after=killed_at("upload"))

    assert world.ends(world.wish("twice", GOOD, run="third")) == "kept"
    assert world.serves("twice") == GOOD


def test_a_rollback_over_what_nobody_has_verified(worlds: Callable[[str], World]) -> None:
    """Fails as well: the way back leads to what was verified last."""
    world = worlds("5.2")
    world.run(world.wish("handbad", GOOD, run="before"))
    world.interfere("handbad", version=BAD)
    world.run(world.deploy("handbad", GOOD, "verified"))
    (row,) = world.deployments("handbad")
    assert (row["version"], row["answering"]) == (3, GOOD)
    held = world.serving.faults.add(Hold("handbad", "Running"))
    with pytest.raises(Died):
        world.run(world.wish("handbad", GOOD, BAD, run="first"), after=killed_at("update deployment"))

    def let_go(call: Call[Any]) -> None:
        """From then on; before, what answers could be asked, and could not be told from what is to come."""
        if "roll" in call.what and call.method == "POST":
            world.serving.faults.remove(held)

    with pytest.raises(RolledBackError, match="serves again"):
        world.run(world.back("handbad", run="second", to=2), after=let_go)

    assert world.serves("handbad") == GOOD
    assert world.is_finished("handbad")


def test_a_rollback_that_goes_on_with_what_was_begun_says_what_serves(worlds: Callable[[str], World]) -> None:
    world = worlds("5.2")
    world.run(world.wish("goeson", GOOD, run="before"))

    def after(_: Call[Any]) -> None:
        newest = world.journal("goeson").newest
        if newest is not None and newest.state is EntryState.ROLLING_BACK:
            raise Died

    with pytest.raises(Died):
        world.run(world.wish("goeson", GOOD, BAD, run="first"), after=after)

    record = world.run(world.back("goeson", run="second")).record(None)

    assert (record.action, record.model_version) == ("rolled_back", GOOD)
    assert world.serves("goeson") == GOOD


def test_a_server_that_dies_in_the_middle_and_comes_back(worlds: Callable[[str], World], tmp_path: Path) -> None:
    worlds("5.2")  # It sets how long everything waits.
    (tmp_path / "models").mkdir()
    with (
        pytest.MonkeyPatch.context() as patch,
        LocalServing(root=tmp_path / "root", engine=run_model, speeds=SPEEDS) as first,
    ):
        patch.setenv("AIRFLOW_CONN_HSML_DEFAULT", first.connection)
        world = World(first, HsmlHook())
        world.register(tmp_path / "models")
        world.run(world.wish("away", GOOD, run="before"))
        again: list[LocalServing] = []

        def dies(call: Call[Any]) -> None:
            if call.what.startswith("update deployment") and not again:
                first.stop()
                port = int(first.url.rpartition(":")[2])
                again.append(LocalServing(root=tmp_path / "root", port=port, engine=run_model, speeds=SPEEDS))
                threading.Timer(0.5, again[0].start).start()

        try:
            assert world.ends(world.wish("away", GOOD, BETTER, run="first"), dies) == "updated"
            world.serving = again[0]
            assert world.serves("away") == BETTER
            assert world.ends(world.wish("away", GOOD, BETTER, run="second")) == "kept"
        finally:
            again[0].stop()


@pytest.mark.parametrize("challenger", [BETTER, BAD])
def test_two_runs_at_once(worlds: Callable[[str], World], challenger: int) -> None:
    world = worlds("5.2")
    name = f"atonce{challenger}"
    world.run(world.wish(name, GOOD, run="before"))
    ends: list[str] = []

    def run(number: int) -> None:
        other = World(world.serving, HsmlHook())
        ends.append(other.ends(other.wish(name, GOOD, challenger, run=f"run {number}")))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ends) == len(threads), "the others broke"
    world.ends(world.wish(name, GOOD, challenger, run="next"))
    assert world.serves(name) == (BETTER if challenger == BETTER else GOOD), ends
    (row,) = world.deployments(name)
    assert world.accepted(row["id"], "START") == 1
    assert world.is_finished(name)


class TestSomebodyElse:
    """Changes it by hand, in the middle of it all."""

    @pytest.mark.parametrize("line", ["5.2", "3.7"])
    @pytest.mark.parametrize("when", ["right after our update", "while we ask", "while we take it back"])
    def test_and_what_they_set_stays(self, worlds: Callable[[str], World], line: str, when: str) -> None:
        world = worlds(line)
        name = f"else{next(_numbers)}"
        world.run(world.wish(name, GOOD, run="before"))
        seen: list[str] = []

        def after(call: Call[Any]) -> None:
            seen.append(call.what)
            has_changed = any(what.startswith("update deployment") for what in seen)
            newest = world.journal(name).newest
            is_back = newest is not None and newest.state is EntryState.ROLLING_BACK
            is_now = {
                "right after our update": has_changed,
                "while we ask": has_changed and call.what.startswith("ask"),
                "while we take it back": is_back and call.what.startswith("get deployment"),
            }[when]
            if is_now and "interfered" not in seen:
                seen.append("interfered")
                world.interfere(name)

        action = world.ends(world.wish(name, GOOD, BAD, run="first"), after)

        assert "interfered" in seen
        assert action == "superseded"
        assert world.ends(world.wish(name, GOOD, BETTER, run="second")) in {"kept", "attached"}
        assert world.serves(name) == BETTER
        (row,) = world.deployments(name)
        assert row["requestedInstances"] == 2

    @pytest.mark.parametrize(
        ("line", "one", "other"),
        [
            ("5.2", BAD, BETTER),
            *(
                pytest.param(line, *both, marks=pytest.mark.slow)
                for line, *both in itertools.product(("5.2", "3.7"), (BETTER, BAD), (BETTER, BAD))
            ),
        ],
    )
    def test_is_another_run_from_beginning_to_end(
        self, worlds: Callable[[str], World], line: str, one: int, other: int
    ) -> None:
        """Whenever it comes: after the first change of ours, the second, and so on."""
        world = worlds(line)
        for number in itertools.count(1):
            name = f"other{one}{other}{number}n{next(_numbers)}"
            world.run(world.wish(name, GOOD, run="before"))
            came = self.meets(world, name, one, other, number)
            if not came:
                break
            then = world.ends(world.wish(name, GOOD, BETTER, run="next"))
            what = f"{one} and {other} after {number}: {came}, {then}"
            assert world.serves(name) == BETTER, what
            assert world.is_finished(name), what
            assert then == "kept" or (one, other) != (BAD, BETTER), what
            (row,) = world.deployments(name)
            assert world.accepted(row["id"], "START") == 1, what
        assert number > 4

    @staticmethod
    def meets(world: World, name: str, one: int, other: int, number: int) -> list[str]:
        """Deploy one, and another after so many changes; give how both ended, the other first."""
        came: list[str] = []
        changes: list[str] = []

        def after(call: Call[Any]) -> None:
            if call.method != "GET" and call.what not in changes:
                changes.append(call.what)
                if len(changes) == number:
                    came.append(world.ends(world.wish(name, GOOD, other, run="other")))

        ended = world.ends(world.wish(name, GOOD, one, run="one"), after)
        return [*came, ended] if came else []


class TestAKilledRollbackToAKeptVersion:
    """The worker dies right after that version is active again; it has other settings than those of its model."""

    @pytest.fixture(params=[GOOD, BETTER])
    def name(self, worlds: Callable[[str], World], request: pytest.FixtureRequest) -> str:
        """Give a deployment whose first version is active again; it serves the model version of the second, or not."""
        world, name = worlds("5.2"), f"keptversion{next(_numbers)}"
        world.run(world.deploy(name, request.param, "before"))
        world.run(world.deploy(name, GOOD, "last", **MORE_MEMORY))
        with pytest.raises(Died):
            world.run(world.back(name, "by hand", 1), after=killed_at("roll deployment"))
        return name

    def test_is_pending_and_the_next_run_resumes_it(self, worlds: Callable[[str], World], name: str) -> None:
        world = worlds("5.2")
        assert world.hook.get_promotion_state(name).is_pending

        record = world.run(world.back(name, "of another run")).record(None)

        (row,) = world.deployments(name)
        assert (row["version"], row["answering"]) == (1, record.model_version)
        assert world.is_finished(name)

    def test_a_promotion_that_fails_over_it_leads_back_to_what_was_verified(
        self, worlds: Callable[[str], World], name: str
    ) -> None:
        world = worlds("5.2")

        with pytest.raises(RolledBackError, match="serves again"):
            world.run(world.deploy(name, BAD, "next"))

        (row,) = world.deployments(name)
        assert (row["version"], row["answering"]) == (2, GOOD)

    def test_the_change_of_another_client_in_that_version_is_theirs(
        self, worlds: Callable[[str], World], name: str
    ) -> None:
        world = worlds("5.2")
        limits = resource(world.hook, name)["predictorResources"]["limits"] | {"memory": 3000}
        world.change(name, predictorResources={"limits": limits})
        assert not world.hook.get_promotion_state(name).is_pending

        with pytest.raises(RolledBackError, match="serves again"):
            world.run(world.deploy(name, BAD, "next"))

        assert resource(world.hook, name)["predictorResources"]["limits"]["memory"] == 3000


def test_a_rollback_by_hand_over_what_nobody_verified_leads_back_to_what_was(worlds: Callable[[str], World]) -> None:
    """What is rolled back to fails as well."""
    world = worlds("5.2")
    for version in (GOOD, BETTER):
        world.run(world.wish("handback", version, run="before"))
    with pytest.raises(Died):
        world.run(world.wish("handback", BETTER, BAD, run="first"), after=killed_at("update deployment"))
    path = f"Models/{MODEL}/{GOOD}/{model_version.EXPECTED}"
    right = world.hook.client.send(api.download(world.hook.client.project, path))
    expect_of_good(world, b'{"instances": [[0.0]], "predictions": [44]}')
    try:
        with pytest.raises(RolledBackError, match="It was rolled back"):
            world.run(world.back("handback", "by hand", 1))
    finally:
        expect_of_good(world, right or b"")
    assert world.serves("handback") == BETTER


def expect_of_good(world: World, expected: bytes) -> None:
    """Have other answers expected of the good version."""
    project, path = world.hook.client.project, f"Models/{MODEL}/{GOOD}/{model_version.EXPECTED}"
    world.hook.client.send(api.delete_path(project, path))
    world.hook.run(upload_bytes(project, path, expected))


def test_a_try_that_was_rolled_back_and_died_then_is_not_tried_again(worlds: Callable[[str], World]) -> None:
    """The bad version was asked for by number; another run, or a person who clears the task, may try it again."""
    world = worlds("5.2")
    world.run(world.wish("died", GOOD, run="before"))
    bad = world.deploy("died", BAD, "first@1")
    with pytest.raises(RolledBackError):
        world.run(bad)
    puts = len(world.serving.requests.where("PUT", "/project/119/serving"))

    with pytest.raises(RolledBackError, match=r"answers otherwise(.|\n)*has failed with that for good") as caught:
        world.run(bad)

    record = caught.value.record
    assert record is not None
    assert (record.action, record.model_version, record.previous_model_version) == ("rolled_back", BAD, GOOD)
    assert len(world.serving.requests.where("PUT", "/project/119/serving")) == puts
    with pytest.raises(RolledBackError, match="It was rolled back"):
        world.run(world.deploy("died", BAD, "first@3"))


def test_what_was_taken_back_when_nothing_served_is_no_champion(worlds: Callable[[str], World]) -> None:
    """It never answered: the next one has nothing to beat."""
    world = worlds("5.2")
    unknown = {"extra.nosuchfield": 1}
    with pytest.raises(HopsworksError, match="does not know"):
        world.run(world.deploy("never", BETTER, "first", **unknown))
    with pytest.raises(HopsworksError, match="does not know"):
        world.run(world.deploy("never", BETTER, "again", **unknown))
    assert world.serves("never") is None

    assert world.ends(world.wish("never", GOOD, run="second")) in {"created", "updated", "started"}
    assert world.serves("never") == GOOD


def test_what_another_run_notes_at_once_vouches_for_nothing_of_ours(worlds: Callable[[str], World]) -> None:
    """It writes that its own version was verified, right after ours has noted and sent another."""
    world = worlds("5.2")
    world.run(world.wish("late", GOOD, run="before"))
    verified = world.journal("late").newest
    with pytest.raises(Died):
        world.run(world.wish("late", GOOD, BAD, run="first"), after=killed_at("update deployment"))
    journal = world.journal("late")
    assert verified is not None
    world.hook.run(journal.write(verified))

    with pytest.raises(VerificationError):
        world.run(world.wish("late", GOOD, BAD, run="second"))


def test_what_a_stranger_deployed_is_verified_once(worlds: Callable[[str], World]) -> None:
    world = worlds("5.2")
    world.run(world.wish("strange", GOOD, run="before"))
    world.interfere("strange")
    while world.serves("strange") != BETTER or world.deployments("strange")[0]["status"] != "Running":
        time.sleep(0.02)

    asked = []
    for run in ("second", "third"):
        world.serving.requests.clear()
        assert world.ends(world.wish("strange", GOOD, BETTER, run=run)) == "kept"
        asked.append(sum(one.path.endswith(":predict") for one in world.serving.requests))
    assert asked[0] > asked[1] == 1


@pytest.mark.parametrize("line", ["5.2", pytest.param("3.7", marks=pytest.mark.slow)])
def test_a_run_that_keeps_what_served_starts_what_a_dead_worker_has_stopped(
    worlds: Callable[[str], World], line: str
) -> None:
    world = worlds(line)
    for changes in itertools.count(1):
        name = f"stays{changes}"
        world.run(world.wish(name, GOOD, run="before"))
        try:
            world.run(world.wish(name, GOOD, BETTER, run="first", recreate=True), changes)
        except Died as died:
            when = f"{died}"
        else:
            break
        action = world.ends(world.wish(name, GOOD, run="second"))
        assert world.serves(name) in {GOOD, BETTER}, (changes, when, action)
        assert world.is_finished(name), (changes, when, action)
    assert changes > 4
