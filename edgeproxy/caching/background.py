"""Work that goes on without a client to wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Background:
    """The tasks of one cache, each held until it is done."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin[T](self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return task

    async def settled(self) -> None:
        """Return when nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def end(self, within_s: float) -> None:
        """The same, but give up what takes longer: a disk that hangs does not keep us here."""
        try:
            async with asyncio.timeout(within_s):
                await self.settled()
        except TimeoutError:
            log.warning("%d answers could not be stored in time", len(self._tasks))
            for task in self._tasks:
                task.cancel()
