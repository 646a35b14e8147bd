"""A value that several tasks of an event loop compute once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class Once(Generic[T]):
    """
    A value that is computed once for all callers. After a failure, the next caller retries.

    :param find: computes the value
    """

    def __init__(self, find: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._find = find
        self._task: asyncio.Task[T] | None = None

    @property
    def is_found(self) -> bool:
        """Whether the value has been computed."""
        task = self._task
        return task is not None and task.done() and not task.cancelled() and task.exception() is None

    async def get(self) -> T:
        """Wait for the value. The cancellation of one caller leaves the others unaffected."""
        if self._task is None or (self._task.done() and not self.is_found):
            self._task = asyncio.create_task(self._find())
        return await asyncio.shield(self._task)

    def cancel(self) -> None:
        """Cancel a computation in progress."""
        if self._task is not None:
            self._task.cancel()
