"""Something that has to happen within a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `then` when its time has come. Moving it costs next to nothing: the timer looks."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then
        self._at_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at_s = 0.0  # uvloop's own does not tell if that is at once

    @property
    def is_set(self) -> bool:
        return self._at_s is not None

    def set(self, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._at_s = loop.time() + within_s
        if self._timer is None or self._fires_at_s > self._at_s:
            self.cancel()
            self._start(self._at_s)

    def clear(self) -> None:
        """It has happened, or is not awaited any more. The timer is left to find out."""
        self._at_s = None

    def cancel(self) -> None:
        """Keep no timer: the end of whoever waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._at_s is None:
            return
        loop = asyncio.get_running_loop()
        if self._at_s > loop.time():
            self._start(self._at_s)
        else:
            self._at_s = None
            self._then()

    def _start(self, at_s: float) -> None:
        self._fires_at_s = at_s
        self._timer = asyncio.get_running_loop().call_at(at_s, self._look)
