"""
The steps of the conformance run: what they are, and how they are run one after the other in an SDK's own interpreter.

Nothing here imports an SDK at module level, so that the list of steps can be read without one.
"""

from __future__ import annotations

import tempfile
import time
import traceback
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from conformance.sdks import Sdk

Outcome = Literal["ok", "not possible", "FAILED"]

SCRIPTS = Path(__file__).with_name("scripts")
WAIT_SECONDS = 180
"""How long a start or an update may take."""


@dataclass
class Session:
    """What the steps share: the SDK, and what earlier steps have made with it."""

    sdk: Sdk
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    """In the name of all that is made, so that a run on a shared cluster meets nobody else's."""
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="conformance-")))
    """On this machine."""
    registry: Any = None
    serving: Any = None
    deployments: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return f"conformance{self.mark}"

    @property
    def resources(self) -> str:
        """A folder in HopsFS of this run's own."""
        return f"Resources/conformance{self.mark}"

    def named(self, purpose: str) -> str:
        """Name a deployment: lower case, since lines before 4 take no other."""
        return f"conf{self.mark}{purpose}"

    def version(self, number: int) -> Any:
        """Get a version of the model from the registry."""
        return self.registry.get_model(self.model, version=number)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that people do with an SDK."""

    name: str
    subject: str
    does: str
    run: Callable[[Session], None]
    impossible: Mapping[str, str]
    """By the SDK's name: why it cannot do this. ``local``: why the local Model Serving cannot; then it is tried."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a step went."""

    step: str
    outcome: Outcome
    reason: str
    seconds: float


STEPS: list[Step] = []


def step(
    subject: str, does: str, **impossible: str
) -> Callable[[Callable[[Session], None]], Callable[[Session], None]]:
    """
    Add a function to the steps.

    :param subject: the chapter it belongs to
    :param does: what the SDK does, as the table says it
    :param impossible: why an SDK cannot do it, by the SDK's name; or as ``local`` why the local Model Serving cannot
    """

    def add(run: Callable[[Session], None]) -> Callable[[Session], None]:
        STEPS.append(Step(run.__name__, subject, does, run, impossible))
        return run

    return add


def run_all(session: Session, *, is_local: bool) -> Iterator[dict[str, Any]]:
    """Run the steps in their order and give the result of each, as JSON has it. Without a log-in there is no more."""
    for each in STEPS:
        begin = time.monotonic()
        outcome, reason = _run(each, session, each.impossible.get("local", "") if is_local else "")
        yield asdict(Result(each.name, outcome, reason, time.monotonic() - begin))
        if each.name == "log_in" and outcome == "FAILED":
            return


def _run(each: Step, session: Session, lack: str) -> tuple[Outcome, str]:
    if reason := each.impossible.get(session.sdk.name):
        return "not possible", reason
    try:
        each.run(session)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
        if lack:
            return "not possible", lack
        traceback.print_exc()
        return "FAILED", " ".join(f"{type(error).__name__}: {error}".split())
    return ("FAILED", f"it is possible, and said not to be: {lack}") if lack else ("ok", "")


def expect(said: object, expected: object, what: str) -> None:
    """Fail unless the two are equal."""
    if said != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {said!r}")


def refused(call: Callable[[], object], *words: str) -> None:
    """Fail unless the call ends in an exception whose text has one of the words."""
    try:
        answer = call()
    except Exception as error:
        if words and not any(word in str(error) for word in words):
            raise
        return
    raise AssertionError(f"it was expected to be refused, and answered {answer!r}")
