"""Plays one cell: prepares it, runs its task in a thread with the fault, runs it again without, and judges."""

from __future__ import annotations

import asyncio
import copy
import functools
import importlib
import json
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, NoResponseError
from tests.support.tasks import FakeTaskInstance

from . import judge
from .catalogue import FAULTS
from .operations import OPERATIONS
from .pace import POLL, REQUEST_TIMEOUT, TIMEOUT
from .plot import Plot
from .proxy import Exchange, Loop, Position, Proxy, Rule
from .witness import full_text, has_key

if TYPE_CHECKING:
    from pathlib import Path

    from .answers import Response
    from .plot import Server
    from .witness import Witness

HANGS_AFTER = 150.0
"""Seconds after which a try counts as hanging."""
_MOST_LATE = 3
"""Timeouts of a task without a fault, on an overloaded machine, after which it is run again."""
_UNKNOWN_EVENT = {"codec": "hsml/99", "payload": "AAEC", "status": "finished"}


@dataclass(frozen=True, slots=True, order=True)
class Ground:
    """What a clean run is made for: an operation and where it runs."""

    operation: str
    line: str
    route: str
    mode: str

    def __str__(self) -> str:
        return f"{self.operation}/{self.line}/{self.route}/{self.mode}"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request of a clean run."""

    position: Position
    after: Position | None
    gap: float
    is_deferred: bool
    exchange: Exchange

    @property
    def is_at_ingress(self) -> bool:
        return not self.exchange.request.target.startswith("/hopsworks-api/")


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell."""

    ground: Ground
    seen: Seen
    fault: str

    def __str__(self) -> str:
        return f"{self.ground}/{self.seen.position}/{self.fault}"


@dataclass(slots=True)
class Outcome:
    """How a cell went."""

    name: str
    operation: str
    fault: str
    problems: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    """How each try ended."""
    is_met: bool = True
    seconds: float = 0.0
    exchanges: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @property
    def survived(self) -> bool:
        return not self.problems


class Store:
    """The state that Airflow keeps for the tries of a task."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def set(self, key: str, value: Any) -> None:
        self._values[key] = value

    def delete(self, key: str) -> None:
        self._values.pop(key, None)


@dataclass(slots=True)
class Try:
    """A try of a task."""

    result: Any = None
    error: BaseException | None = None
    texts: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{type(self.error).__name__}: {self.error}"[:300] if self.error else f"green {judge.shown(self.result)}"


@dataclass(eq=False)
class Loops:
    """The two event loops: of all proxies, and of all triggers."""

    proxies: Loop = field(default_factory=lambda: Loop("proxies"))
    triggers: Loop = field(default_factory=lambda: Loop("triggers"))

    def close(self) -> None:
        self.proxies.close()
        self.triggers.close()


class Player:
    """
    Plays cells on one plot after another.

    :param server: of the line
    :param number: the plot's number: no two players have the same at once
    :param tls: the bundle of the trusted authority, and the chains of both
    """

    def __init__(
        self, server: Server, number: int, loops: Loops, witness: Witness, tls: tuple[Path, list[Path]] | None
    ) -> None:
        self.server = server
        self.number = number
        self.loops = loops
        self.witness = witness
        self.tls = tls
        self.connection = f"faults_{server.line.replace('.', '')}_{number}"

    # --- One cell

    def record(self, ground: Ground) -> list[Exchange]:
        """Run an operation without a fault, and return its requests."""
        run = _Run(self, ground, None)
        outcome = run.play(str(ground))
        if outcome.problems:
            raise AssertionError(f"{ground} fails without a fault: {outcome.problems}, {outcome.ends}")
        return run.proxy.exchanges

    def play(self, cell: Cell) -> Outcome:
        self.loops.proxies.await_calm()
        return _Run(self, cell.ground, cell).play(str(cell))


class _Run:
    """A cell while it is played."""

    def __init__(self, player: Player, ground: Ground, cell: Cell | None) -> None:
        self.player = player
        self.ground = ground
        self.cell = cell
        self.operation = OPERATIONS[ground.operation]
        self.fault = FAULTS[cell.fault] if cell else None
        self.plot = Plot(player.server, player.number)
        self.proxy: Proxy
        self.password = self.plot.key
        self.tries: list[Try] = []
        self.run = f"run-{self.plot.name}"
        self.cleared = 0
        self.beside: list[threading.Thread] = []
        self.stores: dict[str, Store] = {}
        self.keys = 1
        self.late = 0
        """Tries after a timeout on an overloaded machine."""
        self.in_hand = 0
        """1 if a worker stood still after its last look before a change: nothing tells it that this is outdated."""

    def play(self, name: str) -> Outcome:
        begun = time.monotonic()
        outcome = Outcome(name, self.ground.operation, self.cell.fault if self.cell else "")
        thread = threading.current_thread().name
        log = self.player.witness.lines.setdefault(thread, [])
        log.clear()
        try:
            self.operation.prepare(self.plot)
            self._open()
            try:
                outcome.problems += self._play()
            finally:
                self.player.loops.proxies.run(self.proxy.close())
                outcome.is_met = self.rule is None or self.rule.is_met
                outcome.exchanges = [str(exchange) for exchange in self.proxy.exchanges]
        except Exception as error:  # noqa: BLE001 - the cell is lost, and the matrix goes on
            outcome.problems.append(f"the cell itself failed: {full_text(error)[-1500:]}")
        finally:
            self.plot.clear()
        outcome.ends = [str(each) for each in self.tries]
        outcome.seconds = time.monotonic() - begun
        if outcome.problems:
            outcome.log = list(log)
        return outcome

    # --- The proxy and the connection

    def _open(self) -> None:
        cell, fault = self.cell, self.fault
        self.rule = None
        if cell is not None and fault is not None and fault.name != "unknown event":
            self.rule = Rule(fault, cell.seen.position, cell.seen.after, cell.seen.gap)
        is_tls = fault is not None and fault.prepares == "certificate"
        assert not is_tls or self.player.tls is not None
        chains = self.player.tls[1] if is_tls and self.player.tls else []
        self.proxy = Proxy(self.plot, self.rule, chains, on_fault=self._somebody)
        self.proxy.pretended = self._pretended()
        self.player.loops.proxies.run(self.proxy.open())
        self._connect()

    @property
    def _variable(self) -> str:
        return f"AIRFLOW_CONN_{self.player.connection.upper()}"

    def _connect(self) -> None:
        # The clock of a worker that stands still stands still too: its retry takes longer than one request.
        seconds = HANGS_AFTER if self.fault is not None and self.fault.name == "zombie" else REQUEST_TIMEOUT
        extra: dict[str, Any] = {
            "project": self.plot.project,
            "request_timeout": seconds,
            "write_timeout": seconds,
            "max_response_mb": 1,
            "inference_route": self.ground.route,
        }
        host = "http://127.0.0.1"
        if self.proxy.chains and self.player.tls:
            host, extra["ca_bundle"] = "https://127.0.0.1", str(self.player.tls[0])
            extra |= {"ingress_url": f"https://127.0.0.1:{self.proxy.port}"} if self.ground.route == "istio" else {}
        fields = {"conn_type": "hsml", "host": host, "port": self.proxy.port, "password": self.password}
        os.environ[self._variable] = json.dumps(fields | {"extra": extra})

    def _pretended(self) -> Response | None:
        """Return the answer of the clean run, about this cell's things."""
        if self.cell is None:
            return None
        clean = self.cell.seen.exchange
        response = clean.response
        assert response is not None
        # Names have one length; the id is the deployment's own.
        body = response.body.replace(clean.cell_name.encode(), self.plot.name.encode())
        row = self.plot.row()
        if row is not None and isinstance(response.document, dict) and "id" in response.document:
            document = json.loads(body)
            if isinstance(document["id"], int):
                body = json.dumps(document | {"id": row["id"]}).encode()
        return response.with_body(body)

    # --- Tries

    def _play(self) -> list[str]:
        self.operation.begin(self.plot)
        found = self._first()
        found += self._again()
        found += self._final()
        return found

    def _first(self) -> list[str]:
        if self.fault is not None and self.fault.name == "zombie":
            return self._zombie()
        first = self._try(self._operator(), self.run)
        found = []
        if first.error is None:
            found += self._check(first)
        elif not judge.is_ours(first.error):
            found.append(f"the error is not the provider's: {full_text(first.error)[-800:]}")
        elif not self._is_disturbed:
            found += judge.interrupted(self.operation, self.plot)
        return found

    def _zombie(self) -> list[str]:
        """Let the worker stand still; the same task runs again, and then the worker goes on."""
        thread = threading.Thread(
            target=self._try, args=(self._operator(), self.run), name=f"{threading.current_thread().name}z", daemon=True
        )
        thread.start()
        while thread.is_alive() and not self.proxy.held.wait(0.05):
            pass
        found = []
        if not self.proxy.held.is_set():
            thread.join(HANGS_AFTER)
        else:
            self.plot.notes["stood still"] = True
            retry = self._try(self._operator(), self.run)
            if retry.error is not None and not judge.is_ours(retry.error):
                found.append(f"the error is not the provider's: {full_text(retry.error)[-800:]}")
            before = len(self.proxy.exchanges)
            self.player.loops.proxies.loop.call_soon_threadsafe(self.proxy.release.set)
            thread.join(HANGS_AFTER)
            held = [each for each in self.proxy.exchanges if each.fault == "zombie"]
            self.in_hand = int(any(each.effect for each in (*held, *self.proxy.exchanges[before:][:1])))
        if thread.is_alive():
            found.append("the zombie hangs")
        return found

    def _again(self) -> list[str]:
        """Run the task again without the fault, if it has failed; where somebody has acted, in any case."""
        self._end_fault()
        stood_still = self.plot.notes.get("stood still", False)
        last, is_client = self.tries[-1], self.fault is not None and self.fault.is_client
        is_done = last.error is None and (not is_client or self.operation.repeats)  # Run again, it would do it again.
        if is_done or (self.operation.rejects and judge.is_rollback(last.error) and not is_client):
            return []
        times = 2 if is_client else 1
        while times:
            times -= 1
            if last.error is None:
                self.run += "n"
                self.keys += 1
            elif judge.is_permanent(last.error) or (stood_still and any(each.error is None for each in self.tries)):
                # A person clears it. So it is where only the worker that stood still has failed: the retry was green.
                self.cleared += 1
                self.keys += 1
            begun = time.monotonic()
            last = self._try(self._operator(), self.run)
            if last.error is None or (self.operation.rejects and judge.is_rollback(last.error)):
                return self._check(last)
            is_timeout = isinstance(last.error, NoResponseError | DeadlineExceededError)
            if is_timeout and self.player.loops.proxies.late_at > begun and self.late < _MOST_LATE:
                # The cell's seconds are too short: the machine was overloaded.
                self.late, times = self.late + 1, times + 1
                self.player.loops.proxies.await_calm()
        if "deletes" in self.plot.notes.get("disturbed", ()) and self.operation.needs_deployment:
            return []
        return [] if self._is_superseded else [f"it does not complete without the fault: {last}"]

    @property
    def _is_superseded(self) -> bool:
        """Whether the server said that the deployment is gone: a bad version that is there again is somebody else's."""
        is_told = self.cell is not None and self.cell.fault == "404 code"
        return is_told and self.operation.rejects and all(each.error is not None for each in self.tries)

    def _end_fault(self) -> None:
        self.player.loops.proxies.run(self.proxy.disarm())
        if self.fault is not None and self.fault.name == "key rotated":
            self.password, self.proxy.keys = self.plot.next_key, (self.plot.next_key,)
            self._connect()
        for thread in self.beside:
            thread.join(HANGS_AFTER)

    def _check(self, last: Try) -> list[str]:
        """Check what a green task says; a task that rejects a version is never green."""
        fault = self.fault.name if self.fault else ""
        if fault == "404 code" and self.operation.believes:
            return []
        if self._is_disturbed and last is self.tries[0]:
            return []
        if self.operation.rejects and last.error is None:
            return ["a version that answers otherwise than recorded is green"]
        found = self.operation.check(self.plot, last.result)
        if fault == "404 code":  # A version of which the server says that it does not exist is in no record.
            found = [problem for problem in found if not problem.startswith("the record says")]
        return [f"green, and {problem}" for problem in found]

    @property
    def _is_disturbed(self) -> bool:
        return bool(self.plot.notes.get("disturbed"))

    def _final(self) -> list[str]:
        others = len(self.plot.notes.get("disturbed", ())) + self.in_hand
        keys = self.keys + len(self.beside)
        found = judge.effects(self.operation, self.proxy.exchanges, others=others, keys=keys, late=self.late)
        found += judge.leftovers(self.operation, self.plot)
        found += [f"sent to a server with another certificate: {sent}" for sent in self.proxy.trusted_blindly]
        found += [f"the proxy itself failed: {error[-800:]}" for error in self.proxy.broken]
        if self.operation.rejects and not self._is_superseded:
            found += self.operation.check(self.plot, None)
        if self.operation.rejects and not self._is_disturbed and any(each.error is None for each in self.tries[:-1]):
            found.append("a version that answers otherwise than recorded was green")
        for each in self.tries:
            found += ["the key is in a text"] * any(map(has_key, each.texts))
        leaks, self.player.witness.leaks = self.player.witness.leaks, []
        found += [f"the key was logged: {leak}" for leak in leaks]
        heard = self.player.server.trap.heard
        found += [f"another server heard {heard[0][:200]!r}"] if heard else []
        return found

    # --- A task

    def _operator(self) -> Any:
        common = {"task_id": "task", "hsml_conn_id": self.player.connection}
        waits = {"deferrable": self.ground.mode == "deferred", "timeout": TIMEOUT, "poll_interval": POLL}
        return self.operation.make(self.plot, common, waits)

    def _try(self, operator: Any, run: str) -> Try:
        """Run a task to its end, as a worker and a triggerer do."""
        done = Try()
        ti = FakeTaskInstance(run_id=run, max_tries=self.cleared)
        context: Any = {"ti": ti, "task_state_store": self.stores.setdefault(f"{run}@{self.cleared}", Store())}
        go_on = functools.partial(operator.execute, context)
        try:
            while True:
                try:
                    done.result = go_on()
                    break
                except TaskDeferred as deferred:
                    self.proxy.is_deferred = True
                    path, kwargs = deferred.trigger.serialize()
                    event = self.player.loops.triggers.run(_triggered(path, json.dumps(kwargs)), HANGS_AFTER)
                    done.texts += [json.dumps([path, kwargs]), json.dumps(event), repr(deferred.trigger)]
                    if self.fault is not None and self.fault.name == "unknown event" and not self.tries:
                        event = _UNKNOWN_EVENT
                    _close(operator)
                    operator = fresh = copy.copy(operator)
                    fresh.__dict__.pop("hook", None)
                    left = json.loads(json.dumps({**(deferred.kwargs or {}), "event": event}))
                    done.texts.append(json.dumps(left))
                    go_on = functools.partial(fresh.resume_execution, deferred.method_name, left, context)
        except Exception as error:  # noqa: BLE001 - the judge tells whether it is one of ours
            done.error = error
            done.texts.append(full_text(error))
        _close(operator)
        done.texts += [json.dumps(ti.pushed, default=repr), repr(done.result)]
        self.tries.append(done)
        return done

    # --- Somebody else

    def _somebody(self, what: str) -> None:
        if what != "promoter":
            self.plot.disturb(what)
            return
        thread = threading.Thread(
            target=self._try, args=(self._operator(), f"{self.run}b"), name=f"{self.plot.name}b", daemon=True
        )
        self.beside.append(thread)
        thread.start()


def _close(operator: Any) -> None:
    """Close the connections of a task, as the end of its process does."""
    hook = operator.__dict__.get("hook")
    if hook is not None and "client" in hook.__dict__:
        hook.client.close()


async def _triggered(path: str, kwargs: str) -> Any:
    """Make a trigger of what Airflow stores of it, and return its first event."""
    module, _, name = path.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**json.loads(kwargs))
    async with asyncio.timeout(HANGS_AFTER):
        async for event in trigger.run():
            return event.payload
    raise AssertionError("a trigger that ends without an event")
