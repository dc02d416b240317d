"""Two policies compared on real requests: what the other one would have decided.

Both decide each request again, by a rehearsal, once its answer is on its way. No origin is asked,
nothing is stored and nothing applied. Requests wait in a short queue for that; beyond it they are
dropped and counted, so that what is compared is a sample when there is much to do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from edgeproxy.decision import Decision, Rehearsal
from edgeproxy.differences import KINDS, Difference, differences
from edgeproxy.http import Address, Body, Exchange, Headers, Origin, Request, Response
from edgeproxy.plan import Plan

log = logging.getLogger("edgeproxy")

MAX_WAITING = 256
REST_PER_COMPARISON = 9  # a tenth of the time at most, however many requests there are
MAX_EXAMPLES = 5  # of each kind of difference
MAX_SHOWN = 400  # characters of each side of an example

_COMPARED = ("GET", "HEAD")  # a hook may act on what the others send


@dataclass(frozen=True, slots=True)
class Visit:
    """What of an exchange is needed to decide it again, and what the origin seemed to say."""

    request: Request
    client: Address
    status: int
    content_type: str

    def exchange(self) -> Exchange:
        request = replace(self.request, headers=self.request.headers.copy(), body=Body())
        return Exchange(request, self.client)


@dataclass(slots=True)
class Example:
    """A request on which two policies differ. Its query is left out, as in the access log."""

    method: str
    url: str
    before: str
    after: str


@dataclass(slots=True)
class Shadow:
    """What `candidate` would do otherwise than the plan in force, counted by kind of difference.

    `offer` each exchange that is over; `left_out` are those of other methods than GET and HEAD.
    """

    candidate: Plan
    compared: int = 0
    different: int = 0
    dropped: int = 0
    left_out: int = 0
    failed: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    _waiting: asyncio.Queue[Visit] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING))
    _rehearsals: dict[str, Rehearsal] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None
    _in_force: Plan | None = None  # now: what was when a request came may be closed already
    _visit: Visit | None = None

    def offer(self, exchange: Exchange, in_force: Plan) -> None:
        """Compare `exchange` when there is time."""
        if exchange.request.method not in _COMPARED:
            self.left_out += 1
            return
        self._in_force = in_force
        try:
            self._waiting.put_nowait(_visit(exchange))
        except asyncio.QueueFull:
            self.dropped += 1
            return
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._compare_on())

    @property
    def is_full(self) -> bool:
        """Whether what is offered now would be dropped."""
        return self._waiting.full()

    async def settled(self) -> None:
        """Return when nothing waits to be compared."""
        await self._waiting.join()

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _compare_on(self) -> None:
        while True:
            visit = await self._waiting.get()
            await asyncio.sleep(0)  # what led here goes first
            began_s = time.monotonic()
            try:
                await self._compare(visit)
            except Exception:
                self.failed += 1
                log.exception("a request could not be compared in shadow")
            finally:
                self._waiting.task_done()
            await asyncio.sleep(REST_PER_COMPARISON * (time.monotonic() - began_s))

    async def _compare(self, visit: Visit) -> None:
        assert self._in_force is not None
        self._visit = visit
        before = await self._decided("before", self._in_force)
        after = await self._decided("after", self.candidate)
        found = differences(before, after)
        self.compared += 1
        self.different += bool(found)
        for one in found:
            self._note(visit.request, one)

    async def _decided(self, side: str, plan: Plan) -> Decision:
        assert self._visit is not None
        rehearsal = self._rehearsals.get(side)
        if rehearsal is None or rehearsal.plan is not plan:
            rehearsal = self._rehearsals[side] = Rehearsal(plan, self._answer)
        return await rehearsal.decide(self._visit.exchange())

    async def _answer(self, origin: Origin, request: Request) -> Response:
        """In the place of an origin: what it seems to have said, to whichever policy asks."""
        assert self._visit is not None
        headers = Headers.of(("content-type", self._visit.content_type))
        return Response(self._visit.status, headers)

    def _note(self, request: Request, one: Difference) -> None:
        self.counts[one.kind] += 1
        examples = self.examples.setdefault(one.kind, [])
        if len(examples) < MAX_EXAMPLES:
            url = request.authority + request.path
            examples.append(
                Example(request.method, url, one.before[:MAX_SHOWN], one.after[:MAX_SHOWN])
            )

    def report(self) -> dict[str, Any]:
        """The counts, and the examples by kind in the order of causes."""
        return {
            "compared": self.compared,
            "different": self.different,
            "dropped": self.dropped,
            "left_out": self.left_out,
            "failed": self.failed,
            "waiting": self._waiting.qsize(),
            "kinds": [
                {"kind": kind, "count": self.counts[kind], "examples": self.examples[kind]}
                for kind in KINDS
                if self.counts[kind]
            ],
        }


def _visit(exchange: Exchange) -> Visit:
    response, status, kind = exchange.response, 200, None
    if response is not None and exchange.origin is not None and not exchange.error:
        status = response.status if response.status not in (206, 304) else 200
        kind = response.headers.get("content-type")
    request = replace(exchange.request, body=Body(), on_interim=None)
    return Visit(request, exchange.client, status, kind or "text/html; charset=utf-8")
