"""How triggers are stored, and the client that they share, against a local Model Serving."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.connection import get_async_connection
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_hsml import triggers
from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.errors import (
    HopsworksError,
    InvalidInputError,
    NoResponseError,
    RequestRefusedError,
)
from airflow_provider_hsml.hopsworks.transport import request
from airflow_provider_hsml.local import LocalServing, RequestFault
from airflow_provider_hsml.triggers import base
from airflow_provider_hsml.triggers.base import HsmlTrigger, shared_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path


pytestmark = pytest.mark.airflow


class SampleTrigger(HsmlTrigger):
    """Waits for nothing."""

    def __init__(self, *, name: str, deadline: float, poll_interval: float = 10.0, **more: Any) -> None:
        super().__init__(**more)
        self.name = name
        self.deadline = max(deadline, 0)
        self._interval = poll_interval

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent(self.name)  # type: ignore[no-untyped-call]


class DerivedTrigger(SampleTrigger):
    """Has more to store."""

    def __init__(self, *, versions: list[int], **more: Any) -> None:
        super().__init__(**more)
        self.versions = versions


class TestStored:
    @pytest.mark.parametrize(
        "trigger",
        [
            SampleTrigger(name="digits", deadline=1.5),
            SampleTrigger(name="digits", deadline=-1, poll_interval=3, hsml_conn_id="other", project="example"),
            DerivedTrigger(name="digits", deadline=1, versions=[1, 2]),
        ],
    )
    def test_a_trigger_that_was_stored_is_the_same(self, trigger: HsmlTrigger) -> None:
        path, arguments = trigger.serialize()
        again = resolve_name(path)(**json.loads(json.dumps(arguments)))

        assert type(again) is type(trigger)
        assert again.serialize() == (path, arguments)
        mine, theirs = dict(vars(trigger)), dict(vars(again))
        assert mine == theirs

    def test_the_path_of_ours_is_public(self) -> None:
        ours = type("SomeTrigger", (SampleTrigger,), {"__module__": "airflow_provider_hsml.triggers.somewhere"})

        assert ours(name="x", deadline=1).serialize()[0] == "airflow_provider_hsml.triggers.SomeTrigger"
        assert SampleTrigger(name="x", deadline=1).serialize()[0] == f"{__name__}.SampleTrigger"

    def test_all_of_ours_are_there_under_their_public_path(self) -> None:
        def kinds(kind: type[Any]) -> set[type[Any]]:
            below = {each for each in kind.__subclasses__() if each.__module__.startswith("airflow_provider_hsml.")}
            return set.union(*map(kinds, below)) if below else {kind}

        exported = {getattr(triggers, name) for name in triggers.__all__}
        assert exported == kinds(HsmlTrigger)
        for kind in exported:
            assert resolve_name(kind.__new__(kind).serialize()[0]) is kind

    def test_what_is_stored_is_no_longer_changed(self) -> None:
        trigger = SampleTrigger(name="x", deadline=1)
        trigger.serialize()[1]["name"] = "y"

        assert trigger.serialize()[1] == {"name": "x", "deadline": 1}

    @pytest.mark.parametrize("arguments", [{"name": "x"}, {"name": "x", "deadline": 1, "unknown": 2}])
    def test_wrong_arguments_are_refused(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(TypeError):
            SampleTrigger(**arguments)

    def test_it_is_shown_by_its_names_and_numbers(self) -> None:
        trigger = DerivedTrigger(name="digits", deadline=1.5, versions=[1, 2], project=None)

        assert repr(trigger) == "DerivedTrigger(name='digits', deadline=1.5, versions=..., project=None)"
        assert isinstance(trigger, BaseTrigger)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which connections were read."""
    seen: list[str] = []

    async def read(conn_id: str) -> Any:
        seen.append(conn_id)
        return await get_async_connection(conn_id)

    monkeypatch.setattr(base, "get_async_connection", read)
    return seen


def leftover() -> bool:
    """Tell whether some client is still shared, on whatever loop."""
    return any(base._SHARED.values())


class TestShared:
    def test_those_who_come_together_share_one(self, serving: LocalServing, reads: list[str]) -> None:
        serving.requests.clear()

        async def use() -> tuple[Any, api.Project]:
            async with shared_client("hsml_default") as client:
                project = await client.project()
                assert await client.send(api.get_deployments(project)) is not None
                await everybody_in.wait()
                return client, project

        async def main() -> None:
            waits = asyncio.gather(*(use() for _ in range(50)))
            async with shared_client("hsml_default", "example") as other:
                everybody_in.set()
            used = await waits
            assert {client for client, _ in used} == {used[0][0]}
            assert other is not used[0][0]
            assert not leftover()

        everybody_in = asyncio.Event()
        asyncio.run(main())
        assert reads == ["hsml_default"] * 2
        projects = [each for each in serving.requests if "getProjectInfo" in each.path]
        assert len(projects) == 1

    def test_when_all_have_left_it_is_read_anew(self, serving: LocalServing, reads: list[str]) -> None:
        async def main() -> None:
            async with shared_client("hsml_default") as first:
                async with shared_client("hsml_default") as second:
                    assert first is second
                await first.project()
            async with shared_client("hsml_default") as third:
                assert third is not first

        asyncio.run(main())
        assert len(reads) == 2
        assert not leftover()

    def test_a_read_that_failed_is_tried_again(
        self, serving: LocalServing, reads: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection = json.loads(serving.connection)
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(connection | {"password": ""}))

        async def enter() -> str:
            async with shared_client("hsml_default") as client:
                return client.access.project

        async def main() -> None:
            failed = await asyncio.gather(*(enter() for _ in range(3)), return_exceptions=True)
            assert {str(error) for error in failed} == {failure(lambda: HsmlHook().access)}
            assert len(reads) == 1
            assert not leftover()
            monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", serving.connection)
            assert await enter() == "example"

        asyncio.run(main())

    def test_who_is_cancelled_takes_it_from_nobody(self, serving: LocalServing, reads: list[str]) -> None:
        async def main() -> None:
            entering = [asyncio.create_task(enter()) for _ in range(2)]
            await asyncio.sleep(0)
            entering[0].cancel()
            assert await entering[1] == "example"
            assert entering[0].cancelled()

            alone = asyncio.create_task(enter())
            await asyncio.sleep(0)
            alone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await alone
            assert not leftover()

        async def enter() -> str:
            async with shared_client("hsml_default") as client:
                return client.access.project

        asyncio.run(main())
        assert len(reads) == 2

    def test_each_loop_has_its_own(self, serving: LocalServing, reads: list[str]) -> None:
        async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
            async with shared_client("hsml_default") as client:
                await client.project()
            return weakref.ref(asyncio.get_running_loop())

        loops = [asyncio.run(main()) for _ in range(2)]
        gc.collect()

        assert len(reads) == 2
        assert loops[0]() is None  # asyncio itself remembers the last one for a while.

    def test_over_tls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with LocalServing(tls=True, engine=lambda _: lambda rows: rows) as secure:
            monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", secure.connection)
            assert run(look) is None

            fields = json.loads(secure.connection)
            monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(fields | {"extra": {"project": "example"}}))
            said = failure(lambda: run(look))
            assert "ca_bundle" in said
            assert said == failure(lambda: HsmlHook().get_deployment("digits"))

    @pytest.mark.parametrize("given", [False, True])
    def test_models_are_asked_at_the_ingress(
        self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch, *, given: bool
    ) -> None:
        fields = json.loads(serving.connection)
        fields["extra"] |= {"inference_route": "istio"} | ({"ingress_url": serving.ingress_url} if given else {})
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(fields))

        async def ingress(_client: Any, project: api.Project) -> str:
            assert project.ingress is not None
            return str(getattr(project.ingress, "url", None))

        assert run(ingress) == serving.ingress_url

    def test_a_loop_is_blocked_by_nothing(self, serving: LocalServing) -> None:
        """The connection is read, and the client made, while others go on."""
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        async def main() -> None:
            ticking = asyncio.create_task(tick())
            async with shared_client("hsml_default"):
                ticking.cancel()

        asyncio.run(main())
        assert ticks > 10


def failure(act: Callable[[], object]) -> str:
    """Run something that is refused, and give what it says."""
    with pytest.raises(HopsworksError) as caught:
        act()
    return str(caught.value)


def run(act: Callable[[Any, api.Project], Coroutine[Any, Any, Any]], conn_id: str = "hsml_default") -> Any:
    """Do something with the shared client."""

    async def main() -> Any:
        async with shared_client(conn_id) as client:
            return await act(client, await client.project())

    return asyncio.run(main())


async def look(client: Any, project: api.Project) -> Any:
    return await client.send(api.get_deployment(project, "digits"))


class TestBadInput:
    @pytest.mark.parametrize(
        "changes",
        [
            {"host": "https://user@host"},
            {"password": ""},
            {"extra": {"project": "a/b"}},
            {"extra": {"project": "example", "ca_bundle": "/nowhere"}},
            {"extra": {"project": "nosuch"}},
            {"extra": {"project": "foreign"}},
            {"password": "wrong.key"},
            {"port": 1},
        ],
        ids=str,
    )
    def test_a_wrong_connection_is_refused_in_the_words_of_the_hook(
        self, serving: LocalServing, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(request, "ATTEMPTS", 1)
        connection = json.loads(serving.connection)
        extra = connection["extra"] if isinstance(connection["extra"], dict) else json.loads(connection["extra"])
        changed = connection | changes | {"extra": extra | changes.get("extra", {})}
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(changed))

        assert failure(lambda: run(look)) == failure(lambda: HsmlHook().get_deployment("digits"))

    def test_no_connection(self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_HSML_DEFAULT")
        with pytest.raises(
            InvalidInputError, match="connection 'hsml_default': Airflow has no such connection"
        ) as caught:
            run(look)
        assert str(caught.value) == failure(lambda: HsmlHook().access)

        fields = json.loads(serving.connection)
        for name, value in (("HOST", serving.url), ("PROJECT", "example"), ("API_KEY", fields["password"])):
            monkeypatch.setenv(f"HOPSWORKS_{name}", value)
        assert run(look) is None
        with pytest.raises(InvalidInputError, match="connection 'nothere': Airflow has no such connection"):
            run(look, "nothere")

    def test_a_key_that_is_revoked_in_the_middle(self, serving: LocalServing) -> None:
        """The first answer that says so is the last."""

        async def revoked(client: Any, project: api.Project) -> None:
            assert await look(client, project) is None
            serving.requests.clear()
            body = {"errorCode": 320013, "errorMsg": "API key not found"}
            serving.faults.add(RequestFault(path="**", status=401, body=body, times=None))
            await look(client, project)

        with pytest.raises(RequestRefusedError, match="it may have been deleted") as caught:
            run(revoked)
        serving.faults.clear()
        assert not caught.value.transient
        assert len(serving.requests) == 1

    def test_a_project_that_vanishes(self, serving: LocalServing) -> None:
        async def vanishes(client: Any, project: api.Project) -> None:
            body = {"errorCode": 150004, "errorMsg": "Project not found"}
            serving.faults.add(RequestFault(path="**", status=404, body=body, times=None))
            await look(client, project)

        with pytest.raises(RequestRefusedError, match="Check the project's name in the connection") as caught:
            run(vanishes)
        serving.faults.clear()
        assert not caught.value.transient

    def test_a_host_that_is_away(self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(request, "ATTEMPTS", 2)
        serving.faults.add(RequestFault(path="**", drop="before", times=None))
        with pytest.raises(NoResponseError, match="the answer was cut off") as caught:
            run(look)
        serving.faults.clear()
        assert caught.value.transient
        assert run(look) is None


class TestKeys:
    def test_the_key_is_masked(self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch) -> None:
        masked: list[str] = []
        monkeypatch.setattr("airflow_provider_hsml.connection.mask_secret", masked.append)
        run(look)

        assert {serving.api_key, serving.api_key.rpartition(".")[2]} <= set(masked)

    def test_a_renewed_key_is_masked_before_it_is_used(
        self, serving: LocalServing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Inside Hopsworks the key is renewed in its file, and read anew after a 401; by all who got one at once."""
        masked: list[str] = []
        monkeypatch.setattr("airflow_provider_hsml.connection.mask_secret", masked.append)
        monkeypatch.delenv("AIRFLOW_CONN_HSML_DEFAULT")
        (tmp_path / "api.key").write_text(serving.api_key)
        for name, value in (
            ("REST_ENDPOINT", serving.url),
            ("SECRETS_DIR", tmp_path),
            ("HOPSWORKS_PROJECT", "example"),
        ):
            monkeypatch.setenv(name, str(value))

        async def renewed(client: Any, project: api.Project) -> Any:
            client._key = "old.expired"
            return await asyncio.gather(*(look(client, project) for _ in range(20)))

        assert run(renewed) == [None] * 20
        assert serving.api_key in masked
