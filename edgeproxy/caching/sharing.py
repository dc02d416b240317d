"""Answers that need the origin: one fetch for all who want the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from edgeproxy.caching.background import Background
from edgeproxy.caching.bodies import Budget
from edgeproxy.caching.errand import Answer, Errand
from edgeproxy.caching.fetching import TROUBLE_STATUSES, Fetcher
from edgeproxy.caching.flights import (
    Coming,
    Failed,
    Flight,
    GivenAway,
    Kept,
    Outcome,
    Reading,
    Single,
    Stale,
)
from edgeproxy.caching.keeping import Keeper
from edgeproxy.caching.levels import Found, Levels
from edgeproxy.caching.neighbours import NOTHING, Brought, Neighbours, turn_of
from edgeproxy.caching.reuse import Reuse, fwd_of, is_chosen, left_s, may_reuse, response_of
from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.errors import UpstreamError
from edgeproxy.health import Cause, Health
from edgeproxy.http import Body, Response

log = logging.getLogger(__name__)


class Sharing:
    """The fetches under way, and who waits for them.

    A stored response that answers comes back as `Reuse`, anything else as the `Answer` itself.
    """

    def __init__(
        self,
        levels: Levels,
        fetcher: Fetcher,
        keeper: Keeper,
        health: Health,
        background: Background,
        budget: Budget,
        neighbours: Neighbours,
        now: Callable[[], float],
    ) -> None:
        self._levels = levels
        self._purges = levels.purges
        self._fetcher = fetcher
        self._keeper = keeper
        self._health = health
        self._background = background
        self._budget = budget
        self._neighbours = neighbours
        self._now = now
        self._flights: dict[tuple[str, str], Flight] = {}  # that may be joined, by key and variant
        self._aloft: set[Flight] = set()

    def is_under_way(self, errand: Errand, found: Found) -> bool:
        """Whether a fetch is on its way that this client could share."""
        return self._flight(errand, found) is not None

    def begin(self, errand: Errand, found: Found) -> asyncio.Task[None]:
        """Ask for news of what is stored, while nobody waits."""
        flight = self._new_flight(errand, found, in_background=True)
        return self._take_off(errand, found, flight)

    def forget(self, key: str) -> None:
        """Let nobody join what is being fetched for `key`, and keep nothing of it."""
        for flight in self._flights.values():
            if flight.key == key:
                flight.is_doomed = True
        self._flights = {id: f for id, f in self._flights.items() if f.key != key}

    def close(self) -> None:
        """End all fetches."""
        for flight in self._aloft:
            if flight.task is not None:
                flight.task.cancel()

    def _flight(self, errand: Errand, found: Found) -> Flight | None:
        """The fetch under way that may answer, unless a purge has overtaken it."""
        flight = self._flights.get((errand.key, found.id))
        if flight is None or self._purges.covers(flight.asked_at_s, flight.url, errand.url):
            return None
        return flight

    def _new_flight(self, errand: Errand, found: Found, *, in_background: bool = False) -> Flight:
        """A fetch that others may join from now on."""
        turn = turn_of(errand.key, found.id)
        stamp_s = self._purges.stamp()
        flight = Flight(errand.key, errand.url, stamp_s, turn, in_background=in_background)
        self._flights[errand.key, found.id] = flight
        return flight

    async def answer(self, errand: Errand, found: Found) -> Answer | Reuse:
        """What this client gets, by asking the origin; `found` is what is stored and stale.

        Raises what the fetch raises, if no stored copy may stand in.
        """
        asked = errand.asked
        if asked.has_credentials and not (found.entry and may_reuse(found.entry, asked)):
            return await self.alone(errand, found, "bypass; detail=authorization")
        if found.entry is None:
            if asked.is_head and self._flight(errand, found) is None:
                return await self.alone(errand, found, fwd_of(found))
            if self._keeper.is_hit_for_miss(found.id):
                return await self.alone(errand, found, "bypass; detail=hit_for_miss")
        elif self._keeper.is_hit_for_miss(found.id):
            return await self.alone(errand, found, fwd_of(found), as_asked=False)
        return await self._together(errand, found)

    async def _together(self, errand: Errand, found: Found) -> Answer | Reuse:
        """Lead a fetch, or follow one that is under way.

        A follower whose leader has failed gets one try of its own, together with its likes; so
        many clients never become many requests to an origin that is down.
        """
        for is_own_try in (False, True):
            flight = self._flight(errand, found)
            if flight is None:
                return await self._lead(errand, found)
            is_range = errand.asked.range is not None
            outcome = await flight.follow(
                needs_length=is_range, needs_end=is_range and found.entry is not None
            )
            match outcome:
                case Coming() if self._suits(errand, outcome):
                    status = self._collapsed(errand, found, outcome.entry)
                    response = await self._along(errand, flight, outcome, is_reused=True)
                    return Answer(response, "collapsed", f"edgeproxy; {status}")
                case Kept(entry) if self._suits(errand, outcome):
                    return Reuse(entry, "collapsed", self._collapsed(errand, found, entry))
                case Stale() if self._suits(errand, outcome):
                    return self._stale_on_error(errand, outcome, fwd_of(found))
                case Kept(entry, True) | Coming(entry) if not is_chosen(entry, errand):
                    await flight.ended()  # by then the tiers know which variants there are
                case Kept(entry, True) | Coming(entry) if self._is_overtaken(entry, errand):
                    pass
                case Stale():
                    pass
                case Failed(error):
                    if is_own_try:
                        raise _own_error(errand, error)
                case Single(head=StoredResponse() as head) if self._may_cut(errand, head):
                    return Reuse(head, "collapsed", self._collapsed(errand, found, head))
                case Single(response) if response.status in TROUBLE_STATUSES:
                    if is_own_try:
                        raise _unavailable(errand, response.status)
                case _:
                    await flight.leave()
                    return await self.alone(errand, found, fwd_of(found))
            await flight.leave()
            found = await self._load(errand)
            fresh_for_s = left_s(found.entry, errand.rule, self._now()) if found.entry else 0.0
            if fresh_for_s > 0 and found.entry and may_reuse(found.entry, errand.asked):
                status = f"hit; ttl={int(fresh_for_s)}; detail={found.tier}"
                return Reuse(found.entry, "hit", status, tier=found.home)
        return await self.alone(errand, found, fwd_of(found))

    async def _load(self, errand: Errand) -> Found:
        headers = errand.request.headers
        return await self._levels.load(errand.key, headers, errand.coding, errand.url)

    def _suits(self, errand: Errand, outcome: Kept | Coming | Stale) -> bool:
        entry = outcome.entry
        if not (is_chosen(entry, errand) and may_reuse(entry, errand.asked)):
            return False
        if isinstance(outcome, Stale):
            return self._purges.seen(entry, errand.url) is not None
        if self._is_overtaken(entry, errand):
            return False
        is_shared = not outcome.body.is_cut_short if isinstance(outcome, Coming) else outcome.shared
        return is_shared and left_s(entry, errand.rule, self._now()) > 0

    def _may_cut(self, errand: Errand, head: StoredResponse) -> bool:
        """Whether this client wants a range of what another one's fetch has found too large."""
        is_for_it = is_chosen(head, errand) and may_reuse(head, errand.asked)
        return errand.asked.range is not None and is_for_it

    def _is_overtaken(self, entry: StoredResponse, errand: Errand) -> bool:
        """Whether `entry`, just fetched, was purged while it was on its way."""
        return self._purges.seen(entry, errand.url) is not entry

    async def _lead(self, errand: Errand, found: Found) -> Answer | Reuse:
        flight = self._new_flight(errand, found)
        self._take_off(errand, found, flight)
        return await self._answer(errand, found, flight, fwd_of(found))

    async def alone(
        self, errand: Errand, found: Found, fwd: str, *, as_asked: bool = True
    ) -> Answer | Reuse:
        """Fetch for this client only; `as_asked` with its own conditions and range."""
        if errand.asked.is_head and as_asked:
            response = await self._fetcher.ask(errand, errand.own_request())
            self._fetcher.hide_tags(response.headers)
            verdict = "pass" if fwd.startswith("bypass") else "miss"
            status = f"edgeproxy; fwd={fwd}; fwd-status={response.status}"
            return Answer(response, verdict, status)
        flight = Flight(errand.key)
        self._take_off(errand, found, flight, as_asked=as_asked)
        return await self._answer(errand, found, flight, fwd, as_asked=as_asked)

    async def _answer(
        self, errand: Errand, found: Found, flight: Flight, fwd: str, *, as_asked: bool = False
    ) -> Answer | Reuse:
        """What a fetch brings, as an answer to the client that caused it.

        `as_asked`, the origin has seen its range, and what it makes of that is as good as it gets.
        """
        may_cut = errand.asked.range is not None and not as_asked
        # Of what is stale here, a range can still be had if the new body breaks off.
        needs_end = may_cut and found.entry is not None
        outcome = await flight.lead(needs_length=may_cut, needs_end=needs_end)
        now_s = self._now()
        match outcome:
            case Kept(entry, is_collapsed=True):
                return Reuse(entry, "collapsed", self._collapsed(errand, found, entry))
            case Kept(entry, shared, fwd_status, detail):
                stored = "; stored" if shared else ""
                ttl_s = int(left_s(entry, errand.rule, now_s))
                status = f"fwd={fwd}; fwd-status={fwd_status}{stored}; ttl={ttl_s}"
                status += f"; detail={detail}" if detail else ""
                verdict = "revalidated" if fwd_status == 304 else "miss"
                verdict = "stale" if detail == "gone" else verdict
                return Reuse(entry, verdict, status, is_reused=False)
            case Coming(entry, _, fwd_status):
                ttl_s = int(left_s(entry, errand.rule, now_s))
                status = f"fwd={fwd}; fwd-status={fwd_status}; stored; ttl={ttl_s}"
                response = await self._along(errand, flight, outcome, is_reused=False)
                return Answer(response, "miss", f"edgeproxy; {status}")
            case Stale():
                return self._stale_on_error(errand, outcome, fwd)
            case Single(response, head=StoredResponse() as head) if may_cut:
                await response.body.close()
                ttl_s = int(left_s(head, errand.rule, now_s))
                status = f"fwd={fwd}; fwd-status={response.status}; stored; ttl={ttl_s}"
                return Reuse(head, "miss", status, is_reused=False)
            case Single(response, reason, too_large):
                response = await self._single(errand, response, again=too_large and may_cut)
                status = f"fwd={fwd}; fwd-status={response.status}; {reason}"
                verdict = "pass" if fwd.startswith("bypass") else "miss"
                return Answer(response, verdict, f"edgeproxy; {status}")
            case GivenAway():
                await flight.leave()
                return await self.alone(errand, found, fwd)
            case Failed(error):
                raise error

    async def _along(
        self, errand: Errand, flight: Flight, coming: Coming, *, is_reused: bool
    ) -> Response:
        """What this client gets of a body that still comes in, from its first byte on."""
        body = Reading(flight, coming.body, partial(self._fetcher.again, errand, coming.entry))
        is_measured = coming.body.length is not None
        if not is_measured:
            errand = replace(errand, asked=replace(errand.asked, range=None))
        response = response_of(
            errand,
            coming.entry,
            self._now(),
            is_reused=is_reused,
            body=body if is_measured else None,
        )
        if errand.asked.is_head or response.status in (304, 412, 416):
            await body.finish()
            return response
        stream = aiter(response.body) if is_measured else body.stream(0, None)
        length = response.body.length if is_measured else None
        response.body = Body(None, stream=stream, length=length, close=body.close)
        return response

    async def _single(self, errand: Errand, response: Response, *, again: bool) -> Response:
        """A whole response that is not kept, for the client that caused it; asked for `again` if
        there is less to be sent then."""
        if errand.asked.is_head:
            await response.body.close()
            return replace(response, body=Body())
        if again:
            await response.body.close()
            return await self._fetcher.ask(errand, errand.own_request())
        return response

    # ------------------------------------------------------------ the fetch itself

    def _take_off(
        self, errand: Errand, found: Found, flight: Flight, *, as_asked: bool = False
    ) -> asyncio.Task[None]:
        """Start `flight`. Whoever may join finds it by now: a task may run at once."""
        self._aloft.add(flight)
        work = self._fly(errand, found, flight, as_asked=as_asked)
        flight.task = self._background.begin(work)

        def clear(task: asyncio.Task[None]) -> None:  # also for a task cancelled before it ran
            self._aloft.discard(flight)
            self._leave_table(found.id, flight)
            flight.land(Failed(errand.given_up()))

        flight.task.add_done_callback(clear)
        return flight.task

    def _leave_table(self, id: str, flight: Flight) -> None:
        if self._flights.get((flight.key, id)) is flight:
            del self._flights[flight.key, id]

    async def _fly(self, errand: Errand, found: Found, flight: Flight, *, as_asked: bool) -> None:
        """Fetch, unless a neighbour does so already, and let those have it who wait there."""
        brought = await self._neighbours.take_turn(flight.turn) if flight.turn else NOTHING
        if brought is not None and await self._take_over(errand, found, flight, brought):
            return
        has_turn, fetched = brought is None, NOTHING
        try:
            outcome = await self._fetch(errand, found, flight, as_asked=as_asked)
            if isinstance(outcome, Kept) and outcome.shared and not flight.is_doomed:
                fetched = Brought(outcome.entry, is_stored=True)
        finally:
            if has_turn:
                self._neighbours.end_turn(flight.turn, fetched)

    async def _take_over(
        self, errand: Errand, found: Found, flight: Flight, brought: Brought
    ) -> bool:
        """Land with what a neighbour has fetched, if that answers here too."""
        entry = brought.entry
        if entry is None and brought.is_stored:
            entry = (await self._load(errand)).entry
        if entry is None:
            return False
        outcome = Kept(entry, shared=True, fwd_status=entry.status, is_collapsed=True)
        if not self._suits(errand, outcome):
            return False
        self._health.answered(errand.origin)
        flight.land(outcome)
        if brought.entry is not None:
            await self._keeper.keep(errand, found, outcome, flight)
        self._leave_table(found.id, flight)
        await flight.tidy()
        return True

    async def _fetch(
        self, errand: Errand, found: Found, flight: Flight, *, as_asked: bool
    ) -> Outcome:
        outcome: Outcome
        held = self._budget.hold()
        try:
            outcome = await self._fetcher.fetch(errand, found, flight, held, as_asked=as_asked)
        except Exception as error:
            outcome = Failed(error)
            if flight.is_unwatched and self._health.trouble(errand.origin) is None:
                path = errand.request.path  # a query may hold what is nobody's business
                log.warning("background revalidation of %s failed: %s", path, error)
        except BaseException:
            held.release()
            raise
        finally:
            self._aloft.discard(flight)
        flight.land(outcome)
        try:
            if isinstance(outcome, Single) and outcome.head is not None:
                head = Kept(outcome.head, shared=True, fwd_status=outcome.response.status)
                await self._keeper.keep(errand, found, head, flight)
            elif isinstance(outcome, Kept):
                await self._keeper.keep(errand, found, outcome, flight)
        finally:
            if not flight.is_cut_short:
                held.release()
        self._leave_table(found.id, flight)
        await flight.tidy()
        return outcome

    # ------------------------------------------------------------ how it is told

    def _stale_on_error(self, errand: Errand, outcome: Stale, fwd: str) -> Reuse:
        ttl_s = int(left_s(outcome.entry, errand.rule, self._now()))
        answered = f"; fwd-status={outcome.fwd_status}" if outcome.fwd_status else ""
        status = f"fwd={fwd}{answered}; ttl={ttl_s}; detail=stale_if_error"
        cause = self._health.cause(errand.origin)
        if outcome.fwd_status:
            cause = Cause(status=outcome.fwd_status)
        return Reuse(outcome.entry, "stale", status, cause)

    def _collapsed(self, errand: Errand, found: Found, entry: StoredResponse) -> str:
        ttl_s = int(left_s(entry, errand.rule, self._now()))
        return f"fwd={fwd_of(found)}; collapsed; ttl={ttl_s}"


def _unavailable(errand: Errand, status: int) -> UpstreamError:
    return errand.failure("destination_unavailable", f"it answers {status}", status=503)


def _own_error(errand: Errand, error: Exception) -> Exception:
    """What another client's fetch failed with, as an error of this one's own."""
    if isinstance(error, UpstreamError):
        return error.copy()
    return errand.failure("proxy_internal_error", f"another fetch failed: {error}")
