"""Finding something out once, for all tasks of an event loop that ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class Once(Generic[T]):
    """
    Finds something out once. What failed is tried anew by who asks next.

    :param find: how to find it out
    """

    def __init__(self, find: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._find = find
        self._task: asyncio.Task[T] | None = None

    @property
    def is_found(self) -> bool:
        """Whether it is there already."""
        task = self._task
        return task is not None and task.done() and not task.cancelled() and task.exception() is None

    async def get(self) -> T:
        """Give it, when it is there. Who is cancelled meanwhile leaves the others their answer."""
        if self._task is None or (self._task.done() and not self.is_found):
            self._task = asyncio.create_task(self._find())
        return await asyncio.shield(self._task)

    def cancel(self) -> None:
        """End a search that is under way."""
        if self._task is not None:
            self._task.cancel()
