"""Leaving an origin alone while it is in trouble, as long as there is a copy to serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeproxy.caching.freshness import retry_after_s
from edgeproxy.http import Headers

FIRST_S = 30.0
LONGEST_S = 600.0
MAX_ORIGINS = 1024
FAILURES_IN_A_ROW = 3

ORIGIN_WIDE = frozenset(
    (
        "connection_refused",
        "connection_timeout",
        "destination_ip_unroutable",
        "dns_error",
        "tls_certificate_error",
        "tls_protocol_error",
    )
)
"""Errors of RFC 9209 that no single page can cause."""


@dataclass(slots=True)
class Trouble:
    """Why an origin is left alone, and how long."""

    is_disconnected: bool  # it does not answer at all; else it answers with an error status
    delay_s: float
    until_s: float


class Backoff:
    """Per origin: when it may next be asked for something that a stale copy can answer.

    It rests when nobody is there, when it asks for it, or after a few failures in a row: one page
    that breaks says nothing of the others. The delay is what Retry-After says, else 30 s doubling
    to 10 min; an answer ends it.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._troubles: dict[str, Trouble] = {}
        self._failures: dict[str, int] = {}  # in a row, before a rest

    def trouble(self, origin: str) -> Trouble | None:
        """Why `origin` is to be left alone now; None if it is not."""
        trouble = self._troubles.get(origin)
        if trouble is None:
            return None
        # A clock that was set back must not lengthen the rest.
        return trouble if 0 < trouble.until_s - self._now() <= LONGEST_S else None

    def failed(self, origin: str, headers: Headers | None = None, *, error: str = "") -> None:
        """Note a failure: an error status with its `headers`, or an `error` and no answer at all.

        Failures of requests that were under way when the rest began do not lengthen it.
        """
        if self.trouble(origin) is not None:
            return
        now_s = self._now()
        asked_s = None if headers is None else retry_after_s(headers, now_s)
        before = self._troubles.get(origin)
        if before is None and asked_s is None and error not in ORIGIN_WIDE:
            failures = self._failures.pop(origin, 0) + 1
            if failures < FAILURES_IN_A_ROW:
                _room(self._failures)[origin] = failures
                return
        self._forget(origin)
        delay_s = min(before.delay_s * 2, LONGEST_S) if before else FIRST_S
        rest_s = delay_s if asked_s is None else min(asked_s, LONGEST_S)
        _room(self._troubles)[origin] = Trouble(headers is None, delay_s, now_s + rest_s)

    def answered(self, origin: str) -> None:
        """Note an answer: the next failure begins with the short delay again."""
        if self._troubles or self._failures:
            self._forget(origin)

    def _forget(self, origin: str) -> None:
        self._troubles.pop(origin, None)
        self._failures.pop(origin, None)


def _room[T](table: dict[str, T]) -> dict[str, T]:
    """`table`, with room for one more."""
    while len(table) >= MAX_ORIGINS:
        del table[next(iter(table))]
    return table
