"""Leaving an origin alone while it is in trouble, as long as there is a copy to serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeproxy.caching.freshness import retry_after_s
from edgeproxy.http import Headers

FIRST_S = 30.0
LONGEST_S = 600.0
MAX_ORIGINS = 1024


@dataclass(slots=True)
class Trouble:
    """Why an origin is left alone, and how long."""

    is_disconnected: bool  # it does not answer at all; else it answers with an error status
    delay_s: float
    until_s: float


class Backoff:
    """Per origin: when it may next be asked for something that a stale copy can answer.

    The delay is what Retry-After says, else 30 s doubling to 10 min; an answer ends it.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._troubles: dict[str, Trouble] = {}

    def trouble(self, origin: str) -> Trouble | None:
        """Why `origin` is to be left alone now; None if it is not."""
        trouble = self._troubles.get(origin)
        if trouble is None:
            return None
        # A clock that was set back must not lengthen the rest.
        return trouble if 0 < trouble.until_s - self._now() <= LONGEST_S else None

    def failed(self, origin: str, headers: Headers | None = None) -> None:
        """Note a failure: an error status with its `headers`, or no answer at all.

        Failures of requests that were under way when the rest began do not lengthen it.
        """
        if self.trouble(origin) is not None:
            return
        now_s = self._now()
        before = self._troubles.pop(origin, None)
        delay_s = min(before.delay_s * 2, LONGEST_S) if before else FIRST_S
        asked_s = None if headers is None else retry_after_s(headers, now_s)
        rest_s = delay_s if asked_s is None else min(asked_s, LONGEST_S)
        while len(self._troubles) >= MAX_ORIGINS:
            del self._troubles[next(iter(self._troubles))]
        self._troubles[origin] = Trouble(headers is None, delay_s, now_s + rest_s)

    def answered(self, origin: str) -> None:
        """Note an answer: the next failure begins with the short delay again."""
        if self._troubles:
            self._troubles.pop(origin, None)
