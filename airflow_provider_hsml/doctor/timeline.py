"""How the state of the doctor's own deployment moves after each change that the doctor sends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .report import Moment

if TYPE_CHECKING:
    from collections.abc import Iterable


class Timeline:
    """The states after each change, each with its time. It begins when it is made."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.event = "begin"
        """The last change that was sent."""
        self._begun = time.monotonic()

    def add(self, state: str) -> None:
        """Add a state, if it is another one than before, or the first after a change."""
        last = self.moments[-1] if self.moments else None
        if last is None or (last.event, last.state) != (self.event, state):
            self.moments.append(Moment(time.monotonic() - self._begun, self.event, state))

    def statuses(self, event: str) -> str:
        """Return the statuses after a change, one after the other."""
        return _way(one.state.partition(",")[0] for one in self.moments if one.event == event)

    def predictions(self, event: str) -> str:
        """Return how predictions were answered after a change, one after the other."""
        found = (one.state.partition("; predictions: ")[2] for one in self.moments if one.event == event)
        return _way(text for text in found if text)


def _way(words: Iterable[str]) -> str:
    way: list[str] = []
    for word in words:
        if way[-1:] != [word]:
            way.append(word)
    return " > ".join(way)
