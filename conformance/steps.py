"""
The steps of the conformance run: how they are defined, and how they run one after the other in an SDK's interpreter.

Nothing here imports an SDK at module level, so the list of steps can be read without one.
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
Release = tuple[int, int]
"""Major and minor version of an SDK."""
OLDEST: Release = (3, 7)

SCRIPTS = Path(__file__).with_name("scripts")
WAIT_SECONDS = 180
"""Time limit of a start or an update."""


@dataclass
class Session:
    """The state that the steps share: the SDK, and the objects that earlier steps have created with it."""

    sdk: Sdk
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    """Part of the name of everything created, to avoid collisions on a shared cluster."""
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="conformance-")))
    """A working folder on this machine."""
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
        """Return a deployment name: in lower case, since Hopsworks before 4 accepts no other."""
        return f"conf{self.mark}{purpose}"

    def version(self, number: int) -> Any:
        """Get a version of the model from the registry."""
        return self.registry.get_model(self.model, version=number)


@dataclass(frozen=True, slots=True)
class Step:
    """One use of an SDK."""

    name: str
    subject: str
    does: str
    run: Callable[[Session], None]
    impossible: Mapping[str, str]
    """
    The reasons why this is not possible, by the SDK's name, or its name and release (``hopsworks_4_6``). With the key
    ``local``, the reason why the local Model Serving does not support it. The step runs all the same, and must fail.
    With the key ``cluster``, the reason why it is not run against a cluster.
    """
    since: Release
    """The first release of the SDKs that has the calls."""

    def reason_against(self, package: str, release: Release) -> str:
        """Return the reason why this release of an SDK cannot do it; empty if it can."""
        for key in (package, f"{package}_{release[0]}_{release[1]}"):
            if reason := self.impossible.get(key):
                return reason
        if release < self.since:
            return f"{package} {release[0]}.{release[1]} has no such call"
        return ""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a step."""

    step: str
    outcome: Outcome
    reason: str
    seconds: float


STEPS: list[Step] = []


def step(
    subject: str, does: str, since: Release = OLDEST, **impossible: str
) -> Callable[[Callable[[Session], None]], Callable[[Session], None]]:
    """
    Add a function to the steps.

    :param subject: the section that it belongs to
    :param does: a description for the table
    :param since: the first release of the SDKs that has the calls
    :param impossible: the reason why an SDK cannot do it, by its name, or name and release; as ``local``, why the
        local Model Serving cannot; as ``cluster``, why it is not tried on a cluster
    """

    def add(run: Callable[[Session], None]) -> Callable[[Session], None]:
        STEPS.append(Step(run.__name__, subject, does, run, impossible, since))
        return run

    return add


def run_all(session: Session, *, is_local: bool) -> Iterator[dict[str, Any]]:
    """Run the steps in order and yield the result of each, ready for JSON. A failed log-in ends the run."""
    for each in STEPS:
        if not is_local and "cluster" in each.impossible:
            yield asdict(Result(each.name, "not possible", each.impossible["cluster"], 0.0))
            continue
        begin = time.monotonic()
        lack = each.reason_against(session.sdk.name, session.sdk.release)
        outcome, reason = _run(each, session, lack or (each.impossible.get("local", "") if is_local else ""))
        yield asdict(Result(each.name, outcome, reason, time.monotonic() - begin))
        if each.name == "log_in" and outcome == "FAILED":
            return


def _run(each: Step, session: Session, lack: str) -> tuple[Outcome, str]:
    """Run a step; one with a declared lack has to fail."""
    try:
        each.run(session)
    except Exception as error:  # noqa: BLE001 - any error is a result of the step
        traceback.print_exc()
        if lack:
            return "not possible", lack
        return "FAILED", " ".join(f"{type(error).__name__}: {error}".split())
    return ("FAILED", f"the step succeeded, but is declared as not possible: {lack}") if lack else ("ok", "")


def expect(actual: object, expected: object, subject: str) -> None:
    """Raise an error unless the two values are equal."""
    if actual != expected:
        raise AssertionError(f"{subject}: expected {expected!r}, got {actual!r}")


def refused(call: Callable[[], object], *words: str) -> None:
    """Raise an error unless the call raises an exception whose text contains one of the words."""
    try:
        answer = call()
    except Exception as error:
        if words and not any(word in str(error) for word in words):
            raise
        return
    raise AssertionError(f"the call should have been refused, but returned {answer!r}")
