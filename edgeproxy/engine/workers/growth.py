"""Has a worker replaced that has grown beyond `limits.process_memory`, before the system ends it.

Whatever leaks (a plugin, or a library of one), its memory comes back with its process. Another
begins to serve first, then the one that has grown finishes and ends; one worker at a time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from edgeproxy import memory
from edgeproxy.addresses import BadAddress
from edgeproxy.engine.process import NotStarted
from edgeproxy.engine.workers.child import Child
from edgeproxy.engine.workers.crew import STOP_GRACE_S, Crew
from edgeproxy.errors import PolicyError
from edgeproxy.policy.model import Limits
from edgeproxy.values import as_size

LOOK_EVERY_S = 1.0
FIRST_TERM_S = 60.0
MAX_TERM_S = 3600.0

log = logging.getLogger("edgeproxy.workers")


@dataclass(slots=True)
class Term:
    """How long a worker that has taken another's place stays, however much it holds.

    Where what is meant to be kept does not fit, it is as large as the former a moment later, and
    all that is stored in memory would begin anew again and again.
    """

    length_s: float = 0.0
    since_s: float = -math.inf
    is_told: bool = False  # that it stays although it has grown

    def left_s(self, now_s: float) -> float:
        return self.length_s - (now_s - self.since_s)

    def following(self, now_s: float) -> Term:
        """The term of the next one: twice as long if this one was over only just now."""
        has_grown_at_once = now_s - self.since_s < 2 * self.length_s
        length_s = min(2 * self.length_s, MAX_TERM_S) if has_grown_at_once else FIRST_TERM_S
        return Term(length_s, now_s)


class Growth:
    """`limits` gives those in force."""

    def __init__(self, crew: Crew, limits: Callable[[], Limits]) -> None:
        self._crew = crew
        self._limits = limits
        self._terms: defaultdict[int, Term] = defaultdict(Term)  # by the number of the worker

    async def watch(self) -> None:
        """Look after all of them, until this is cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._look()
            except Exception:  # whatever it was, a leak goes on
                log.exception("looking after the memory of workers failed")

    async def _look(self) -> None:
        limits = self._limits()
        for child in self._crew.ready() if limits.process_memory else ():
            held = memory.resident_bytes(child.process.pid)
            if held > limits.process_memory:
                await self._outgrown(child, held, limits)

    async def _outgrown(self, child: Child, held: int, limits: Limits) -> None:
        term, says = self._terms[child.number], f"{child} holds {as_size(held)}, and "
        says += f"limits.process_memory is {as_size(limits.process_memory)}"
        left_s = term.left_s(time.monotonic())
        if left_s <= 0:
            log.warning("%s: another takes its place", says)
            await self._replace(child, limits.shutdown_timeout + STOP_GRACE_S)
        elif not term.is_told:
            term.is_told = True
            log.error("%s, as did the one before it: it stays for %.0f s more; is the limit too "
                      "low for what the policy keeps in memory?", says, left_s)  # fmt: skip

    async def _replace(self, child: Child, within_s: float) -> None:
        term, number = self._terms[child.number], child.number
        try:
            number = await self._crew.replace(child, within_s)
        except (PolicyError, BadAddress, NotStarted) as error:
            log.error("%s stays: none could take its place: %s", child, error)
        self._terms[number] = term.following(time.monotonic())
