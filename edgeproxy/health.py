"""The health of origins, as their answers show it. Nothing is sent from here, and time is told.

An origin is `healthy`, `failing` after a failure or two, or `down` (Envoy's outlier detection
says: ejected). It is down when nobody is there, when it asks to be left alone, or after a few
failures in a row: one page that breaks says nothing of the others. While it is down, whatever a
stored copy can answer is answered so at once, and one request at a time, the probe, goes to see
whether it is back: after 1 s, then 2, doubling to a minute. Any good answer ends it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["healthy", "failing", "down"]

CONSECUTIVE_FAILURES = 3
BASE_EJECTION_S = 1.0
MAX_EJECTION_S = 60.0
BASE_RATE_LIMIT_S = 30.0  # after a 429, which says that there were too many requests already
MAX_RATE_LIMIT_S = 600.0  # also of what Retry-After may ask for
MAX_ORIGINS = 1024

ORIGIN_WIDE = frozenset(
    (
        "connection_refused",
        "connection_timeout",
        "destination_ip_prohibited",
        "destination_ip_unroutable",
        "destination_not_found",
        "dns_error",
        "tls_certificate_error",
        "tls_protocol_error",
    )
)
"""Errors of RFC 9209 that no single page can cause."""

log = logging.getLogger("edgeproxy")


@dataclass(frozen=True, slots=True)
class Cause:
    """The last failure: an error of RFC 9209, or the status of an answer."""

    error: str = ""
    status: int = 0

    def __str__(self) -> str:
        return self.error or f"it answers {self.status}"

    @property
    def is_disconnected(self) -> bool:
        """It does not answer at all, as against with an error status."""
        return not self.status


@dataclass(slots=True)
class Record:
    """What is known of one origin that is not well."""

    cause: Cause
    since_s: float
    failures: int = 0  # in a row
    is_down: bool = False
    delay_s: float = 0.0
    probe_at_s: float = 0.0
    is_probed: bool = False  # a probe is under way


@dataclass(frozen=True, slots=True)
class Report:
    """The health of one origin, for people. Times are in seconds."""

    origin: str
    state: State
    failures: int = 0
    cause: str = ""
    for_s: float = 0.0
    next_probe_in_s: float | None = None


class Health:
    """The origins, by authority. `now` is the wall clock; it may be set back at any time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._records: dict[str, Record] = {}  # without an entry, an origin is healthy

    # ------------------------------------------------------------ what is seen

    def failed(
        self, origin: str, *, error: str = "", status: int = 0, retry_after_s: float | None = None
    ) -> None:
        """Note that there was no answer, with an `error` of RFC 9209, or a `status` for one.

        Failures of requests that were under way when a pause began do not lengthen it.
        """
        now_s = self._now()
        record = self._records.get(origin)
        if record is None:
            while len(self._records) >= MAX_ORIGINS:
                del self._records[next(iter(self._records))]
            record = self._records[origin] = Record(Cause(error, status), now_s)
        record.failures += 1
        record.cause = Cause(error, status)
        at_once = error in ORIGIN_WIDE or retry_after_s is not None
        if record.is_down:
            if self._is_due(record, now_s):
                self._pause(record, now_s, retry_after_s)
        elif at_once or record.failures >= CONSECUTIVE_FAILURES:
            record.is_down, record.since_s = True, now_s
            self._pause(record, now_s, retry_after_s)
            log.warning("origin %s is down: %s; stored copies stand in", origin, record.cause)

    def answered(self, origin: str) -> None:
        """Note a good answer: the origin is healthy."""
        if not self._records:
            return
        record = self._records.pop(origin, None)
        if record is not None and record.is_down:
            away_s = max(0.0, self._now() - record.since_s)
            log.info("origin %s answers again, after %.0f s", origin, away_s)

    # ------------------------------------------------------------ what follows from it

    def state(self, origin: str) -> State:
        record = self._records.get(origin)
        if record is None:
            return "healthy"
        return "down" if record.is_down else "failing"

    def cause(self, origin: str) -> Cause | None:
        """The last failure, if there was no good answer since."""
        record = self._records.get(origin)
        return record.cause if record is not None else None

    def trouble(self, origin: str) -> Cause | None:
        """Why `origin` is down; None if it is not."""
        record = self._records.get(origin)
        return record.cause if record is not None and record.is_down else None

    def begin_probe(self, origin: str) -> bool:
        """Whether it is time for a probe, and nobody else makes one. `end_probe` must follow."""
        record = self._records.get(origin)
        if record is None or not record.is_down or record.is_probed:
            return False
        record.is_probed = self._is_due(record, self._now())
        return record.is_probed

    def end_probe(self, origin: str) -> None:
        """The probe is over. One that told nothing counts as a failure."""
        record = self._records.get(origin)
        if record is not None and record.is_probed:
            record.is_probed = False
            if self._is_due(record, self._now()):
                self._pause(record, self._now(), None)

    def reports(self) -> list[Report]:
        """Every origin that is not healthy."""
        now_s = self._now()
        return [
            Report(
                origin,
                self.state(origin),
                record.failures,
                str(record.cause),
                max(0.0, now_s - record.since_s),
                max(0.0, record.probe_at_s - now_s) if record.is_down else None,
            )
            for origin, record in self._records.items()
        ]

    def _is_due(self, record: Record, now_s: float) -> bool:
        return not 0 < record.probe_at_s - now_s <= MAX_RATE_LIMIT_S

    def _pause(self, record: Record, now_s: float, retry_after_s: float | None) -> None:
        is_limited = record.cause.status == 429
        base_s = BASE_RATE_LIMIT_S if is_limited else BASE_EJECTION_S
        max_s = MAX_RATE_LIMIT_S if is_limited else MAX_EJECTION_S
        record.delay_s = min(max(record.delay_s * 2, base_s), max_s)
        wait_s = record.delay_s if retry_after_s is None else min(retry_after_s, MAX_RATE_LIMIT_S)
        record.probe_at_s = now_s + wait_s
