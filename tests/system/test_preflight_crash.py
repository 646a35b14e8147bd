"""Workers die at any request of a preflight: production is untouched, and nothing is left after the lease's expiry."""

from __future__ import annotations

import dataclasses
import itertools
import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_hsml.hopsworks.domain.side_deployment import SECONDS, is_lease_file, side_name
from airflow_provider_hsml.hopsworks.errors import DeploymentError, HopsworksError
from airflow_provider_hsml.hopsworks.promotion.journal import list_files
from airflow_provider_hsml.hopsworks.promotion.preflight import PreflightMode
from tests.support.promotion_crashes import BAD, BETTER, GOOD, Died, World, fast_worlds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_hsml.hopsworks.promotion.promote import Promotion

NOW = time.time
LINES = ["5.2", pytest.param("4.6", marks=pytest.mark.slow), pytest.param("3.7", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], World]]:
    """Makes a fast server of a line, with three versions of a model; one for all tests."""
    with fast_worlds(tmp_path_factory) as world:
        yield world


def tried(wish: Promotion) -> Promotion:
    """Have a promotion try its version first."""
    return dataclasses.replace(wish, preflight=PreflightMode.REQUIRED)


def later(wish: Promotion) -> Promotion:
    """Have a promotion run once each lease of now has expired."""
    return dataclasses.replace(wish, run=dataclasses.replace(wish.run, clock=lambda: time.time() + SECONDS + 1))


@dataclasses.dataclass(frozen=True)
class Scene:
    """A deployment whose promotion is killed."""

    world: World
    name: str

    @property
    def sides(self) -> list[dict[str, object]]:
        """The temporary deployments beside it."""
        return self.world.deployments(side_name(self.name, "preflight"))

    @property
    def leases(self) -> list[str]:
        """The files of leases."""
        files = self.world.hook.run(list_files(self.world.hook.client.project, self.name)) or {}
        return [name for name in files if is_lease_file(name)]

    @property
    def documents(self) -> bool:
        """Whether files of a temporary deployment are left."""
        files = self.world.serving.world.project(119).files
        return files.folder(f"/Projects/example/Deployments/{side_name(self.name, 'preflight')}") is not None

    def live(self) -> tuple[object, ...]:
        """What production is: its configuration, its revision, and who answers."""
        return tuple(
            (row.get("version"), row["revision"], row["modelVersion"], row["answering"])
            for row in self.world.deployments(self.name)
        )

    def check_nothing_is_left(self, when: str) -> None:
        assert (self.sides, self.leases, self.documents) == ([], [], False), when


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("challenger", [BETTER, BAD])
@pytest.mark.parametrize("first", [False, True], ids=["update", "first"])
def test_whenever_a_worker_dies_production_is_untouched_and_nothing_is_left(
    worlds: Callable[[str], World], line: str, challenger: int, first: bool
) -> None:
    """The next one is another task before the expiry, then one after it; or another try of the same task."""
    world = worlds(line)
    kills = 0
    for changes in itertools.count(1):
        scene = Scene(world, f"{'first' if first else 'update'}{challenger}n{changes}")
        if not first:
            world.run(world.wish(scene.name, GOOD, run="before"))
        candidates = (challenger,) if first else (GOOD, challenger)
        before = scene.live()
        try:
            world.run(tried(world.wish(scene.name, *candidates, run="first")), changes)
        except Died as died:
            when = f"{challenger} after {changes}, {died}"
        except HopsworksError:
            break
        else:
            break
        if not (scene.sides or scene.leases):
            if kills:
                break  # The preflight has ended: what follows is the promotion itself.
            continue  # Only folders were made.
        kills += 1
        assert scene.live() == before, when
        assert len(scene.sides) <= 1, when
        if changes % 2:
            ended = next_ones(scene, candidates, when, keeps=None if first else GOOD)
        else:
            ended = world.ends(tried(world.wish(scene.name, *candidates, run="first")))
        scene.check_nothing_is_left(when)
        if challenger == BAD:
            assert ended == "failed", when
            assert scene.live() == before, when
            assert world.ends(world.wish(scene.name, *candidates, run="next")) == "kept", when
        else:
            assert ended in ("updated", "created"), when
            assert world.serves(scene.name) == BETTER, when
    assert kills >= 5


def next_ones(scene: Scene, candidates: tuple[int, ...], when: str, *, keeps: int | None) -> str:
    """Run other tasks: one that tries before the expiry, one that tries nothing after it, and one that tries."""
    world, before = scene.world, scene.live()
    with pytest.raises(DeploymentError, match="is in use by task first") as caught:
        world.run(tried(world.wish(scene.name, *candidates, run="second")))
    assert caught.value.transient
    assert scene.live() == before, when
    if keeps is not None:
        assert world.ends(later(world.wish(scene.name, keeps, run="third"))) == "kept", when
        assert scene.live() == before, when
        scene.check_nothing_is_left(when)
    return world.ends(later(tried(world.wish(scene.name, *candidates, run="fourth"))))


def test_a_rollback_and_the_hook_delete_what_is_left(worlds: Callable[[str], World]) -> None:
    world = worlds("5.2")
    for number, way in enumerate(("rollback", "hook", "all")):
        scene = Scene(world, f"tidied{number}")
        for version in (GOOD, BETTER):
            world.run(world.wish(scene.name, version, run="before"))
        with pytest.raises(Died):
            world.run(tried(world.deploy(scene.name, GOOD, "first")), after=killed_at_start)
        assert len(scene.sides) == 1
        assert world.hook.remove_expired_side_deployments(scene.name) == [], "its lease has not expired"
        assert len(scene.sides) == 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda: NOW() + SECONDS + 1)
            match way:
                case "rollback":
                    world.hook.rollback_deployment(scene.name, timeout=20, poll_interval=0.02)
                case "hook":
                    assert len(world.hook.remove_expired_side_deployments(scene.name)) == 1
                case "all":
                    assert len(world.hook.remove_expired_side_deployments()) == 1

        scene.check_nothing_is_left(way)


def killed_at_start(call: object) -> None:
    """Kill a worker once the temporary deployment was started."""
    if str(getattr(call, "what", "")).startswith("start deployment"):
        raise Died
