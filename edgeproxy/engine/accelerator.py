"""Answers in the front what need not wait; begins in the front what then goes on in the core.

Every journey of a plain GET or HEAD begins here. If it ends without waiting (a hit in memory, a
304, a range of it, a redirect, a refusal), the front sends the answer, and remembers it where that
can be: see `recall`. If not, the same journey goes on inside a mitmproxy flow. It is never begun
twice, and asks no origin before the core has it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from edgeproxy import log as access_log
from edgeproxy.app import App
from edgeproxy.engine.arrival import arrived, sent_body
from edgeproxy.engine.message import RequestHead, head_bytes
from edgeproxy.engine.recall import Recall, Remembered, Visitor
from edgeproxy.engine.watching import WatchedExchange
from edgeproxy.http import Exchange, Headers, Origin, Request, Response


class Begun:
    """A journey under way. `response` is its answer once that is whole and in memory."""

    def __init__(self, app: App, exchange: Exchange) -> None:
        self.exchange = exchange
        self.learn: Callable[[bytes, bytes], None] | None = None  # given head and body as sent
        self._app = app
        self._gate = asyncio.Event()  # open: its fetches may go
        self._interim: Callable[[int, Headers], None] | None = None
        self._is_taken = False
        self._task = asyncio.Task(
            app.handle(exchange, self._fetch), loop=asyncio.get_running_loop(), eager_start=True
        )

    @property
    def response(self) -> Response | None:
        """The answer, if it has not had to wait and needs no stream."""
        if not self._task.done():
            return None
        response = self._task.result()
        is_whole = response.body.data is not None and response.tunnel is None
        return response if is_whole else None

    def delivered(self, response: Response) -> tuple[bytes, bytes]:
        """Head and body of `response`, as the core would write them."""
        self.open()
        data = sent_body(self.exchange, response)
        self.exchange.bytes_sent = len(data)
        return head_bytes(response.status, response.headers.fields), data

    def finish(self, head: bytes, body: bytes, *, closes: bool) -> None:
        """It has been sent, as `head` and `body`; the connection closes behind it or not."""
        if self.learn is not None and not closes:
            self.learn(head, body)
        self._app.finish(self.exchange)

    async def go_on(self, interim: Callable[[int, Headers], None]) -> Response:
        """The answer, waited for in the core, which passes on what comes before it."""
        self._interim = interim
        self._is_taken = True
        self.open()
        return await self._task

    def open(self) -> None:
        """Let its fetches go: the core has it, or nobody needs it but the cache."""
        self._gate.set()

    def abandon(self) -> None:
        """The client has left. If the core has taken it, it is the core's to end."""
        if self._is_taken:
            return
        self.open()
        if not self._task.done():
            self._task.cancel()
            return
        self._app.finish(self.exchange)
        closing = asyncio.ensure_future(self._task.result().body.close())
        self._app.background(closing)

    async def _fetch(self, origin: Origin, request: Request) -> Response:
        await self._gate.wait()
        request.on_interim = self._interim
        return await self._app.fetch(origin, request)


class Accelerator:
    """What the front asks before it asks the core."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._recall: Recall | None = None

    def recall(self, who: str, line: bytes, tail: bytes) -> list[bytes] | None:
        """What the client at `who` is sent for a request whose bytes are `line` and `tail`, if an
        answer to such a request is remembered. A policy that is tried would not see the request,
        so it goes the whole way, unless that policy is behind anyhow."""
        recall, candidate = self._recall, self._app.candidate
        if recall is None or recall.plan is not self._app.plan:
            return None
        if self._app.recorder is not None or (candidate is not None and not candidate.is_behind):
            return None
        now_s = time.time()
        found = recall.find(who, line, tail, now_s)
        if found is None:
            return None
        if candidate is not None:
            candidate.missed()
        return self._given(recall, *found, line, now_s)

    def _given(
        self, recall: Recall, visitor: Visitor, answer: Remembered, line: bytes, now_s: float
    ) -> list[bytes] | None:
        wire = answer.wire(now_s, visitor.introduced.said)
        if wire is None:
            recall.forget(visitor, line)
            return None
        if recall.is_counting and self._app.wait_s(recall.plan, visitor.client):
            return None  # the journey tells the client so
        tally = answer.tally
        tally.remembered += 1
        tally.bytes += answer.bytes
        if answer.log:
            self._app.log(access_log.repeated(answer.log, visitor.logged))
        return wire

    @property
    def remembered(self) -> int:
        """How many answers were given again as they were."""
        return self._app.counts.remembered

    def takes(self, head: RequestHead) -> bool:
        """Whether the journey of `head` may begin in the front. While a candidate decides for some
        visitors, the core has to find out first which plan it is."""
        candidate = self._app.candidate
        return head.is_plain and (candidate is None or not candidate.share)

    def begin(
        self,
        who: str,
        peer: str,
        spoken: tuple[str, str],
        head: RequestHead,
        line: bytes,
        tail: bytes,
    ) -> Begun | list[bytes]:
        """Begin the journey of a request without a body; or what is remembered for its likes.

        Its client is at `peer`, and has `spoken` this scheme and this protocol.

        Without a `tail`, of HTTP/1.0 for example, it is like no other.
        """
        recall = self.recalling()
        scheme, protocol = spoken
        exchange = arrived(
            recall.plan,
            peer,
            scheme,
            head.method.decode("ascii"),
            head.authority.decode("ascii"),
            head.target.decode("ascii"),
            Headers([(b"Host", head.authority), *head.fields]),
        )
        exchange.protocol = protocol
        if not tail or not recall.is_able or self._is_alone(head, exchange):
            return Begun(self._app, exchange)
        visitor = recall.meet(who, line, tail, exchange)
        if visitor.audience is None:
            return Begun(self._app, exchange)
        answer = visitor.audience.get(line)
        if answer is not None:
            wire = self._given(recall, visitor, answer, line, time.time())
            if wire is not None:
                return wire
        if not recall.is_worth_learning(line):
            begun = Begun(self._app, exchange)
            if exchange.hit is not None:
                recall.note_hit(line)
            return begun
        watched = WatchedExchange.of(exchange)
        begun = Begun(self._app, watched)
        if watched.hit is not None:
            begun.learn = partial(recall.learn, visitor, line, watched)
        watched.reads.end()
        return begun

    def _is_alone(self, head: RequestHead, exchange: Exchange) -> bool:
        """Whether nobody else may have its answer, or somebody has to see the exchange itself."""
        app = self._app
        return (
            not head.keep_alive  # its answer says so
            or exchange.trace is not None  # it is told what others are not
            or app.recorder is not None
            or app.candidate is not None
        )

    def start_over(self) -> None:
        """Remember nothing of what was sent: from now on it would be something else."""
        self._recall = None

    def recalling(self) -> Recall:
        """The memory for the plan in force, an empty one after a reload."""
        if self._recall is None or self._recall.plan is not self._app.plan:
            app = self._app
            self._recall = Recall(
                app.plan,
                app.counts.tally,
                wants_log=app.is_logging,
                names_clients=app.names_clients,
            )
        return self._recall
