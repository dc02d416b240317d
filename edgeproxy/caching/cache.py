"""Reading through the cache: from a request to an answer, asking the origin only if need be."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from edgeproxy.caching.answers import Asked
from edgeproxy.caching.background import Background
from edgeproxy.caching.bodies import Budget
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.encodings import wanted
from edgeproxy.caching.errand import Answer, Errand, Forward
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
from edgeproxy.caching.purges import Purges, Selection
from edgeproxy.caching.reuse import (
    fwd_of,
    hit,
    is_chosen,
    left_s,
    may_reuse,
    response_of,
    ruled_stale_use,
    stale,
)
from edgeproxy.caching.tiers import StoredResponse, Tier
from edgeproxy.caching.upkeep import Upkeep
from edgeproxy.caching.variants import accepted_coding
from edgeproxy.errors import UpstreamError
from edgeproxy.health import Cause, Health
from edgeproxy.http import Body, Headers, Request, Response

BODY_MEMORY_BYTES = 256 * 1024 * 1024
MAX_KEY_SHOWN = 512

log = logging.getLogger(__name__)


class Cache:
    """A shared HTTP cache over `tiers`, fastest first.

    `now` is the wall clock, in seconds since 1970. Every method is for one event loop.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        *,
        max_object_size: int,
        body_memory: int = BODY_MEMORY_BYTES,
        pass_tags: bool = False,
        status_key: bool = False,
        encodings: tuple[str, ...] = (),
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        purges: Purges | None = None,
        health: Health | None = None,
    ) -> None:
        self.purges = purges or Purges(now)
        self.health = health or Health(now)
        self.levels = Levels(tiers, self.purges)
        self.upkeep = Upkeep(self.levels)
        self.max_object_size = max_object_size
        self.body_memory = Budget(body_memory)
        self.encodings = encodings
        self.background = Background()
        self.keeper = Keeper(self.levels, self.background, encodings, now)
        self.fetcher = Fetcher(
            self.keeper,
            self.purges,
            self.health,
            max_object_size=max_object_size,
            pass_tags=pass_tags,
            now=now,
            chance=chance,
        )
        self._status_key = status_key
        self._now = now
        self._flights: dict[tuple[str, str], Flight] = {}  # by key and variant

    async def read_through(
        self,
        request: Request,
        key: str,
        rule: CacheRule | None,
        forward: Forward,
        *,
        origin: str | None = None,
        url: str | None = None,
        accept_encoding: str | None = None,
    ) -> Answer:
        """The answer to a GET or HEAD, from the tiers or through `forward`.

        `key` names what is asked for; Vary is taken care of here. Without `rule` the origin alone
        decides. `origin` is what is left alone when it fails, the request's authority if None.
        `url` is what a purge calls it: the public host and target, the request's own if None.
        `accept_encoding` is the client's own field, where `request` has what the origin is asked.
        A fresh hit in a tier that need not wait completes without suspending. Raises what
        `forward` raises, if no stored copy may stand in.
        """
        asked = Asked.by(request)
        coding = "identity" if asked.range is not None else _coding(asked.accept_encoding)
        url = url or f"{request.host}{request.target}"
        found = self.levels.get(key, request.headers, coding, url)
        errand = Errand(
            request, key, rule, forward, asked, coding, origin or request.authority, url
        )
        if self.encodings and asked.range is None:
            accepted = asked.accept_encoding if accept_encoding is None else accept_encoding
            errand.wanted = wanted(accepted or "", self.encodings)
        if found.entry is not None:
            now_s = self._now()
            fresh_for_s = left_s(found.entry, rule, now_s)
            if fresh_for_s > 0 and may_reuse(found.entry, asked):
                if errand.wanted and found.entry.encoded is None:
                    self.keeper.encode_later(found.id, found.entry)
                answer = hit(errand, found, fresh_for_s, now_s)
                return _with_key(answer, key) if self._status_key else answer
        answer = await self._not_at_hand(errand, found)
        return _with_key(answer, key) if self._status_key else answer

    async def watched(
        self, forward: Forward, request: Request, origin: str | None = None
    ) -> Response:
        """`forward`, past the tiers, with its outcome noted for the origin as a whole."""
        return await self.fetcher.watched(forward, request, origin or request.authority)

    def hide_tags(self, headers: Headers) -> None:
        """Keep from clients what is meant for caches, unless the policy says otherwise."""
        self.fetcher.hide_tags(headers)

    async def heed_change(self, urls: Iterable[str], groups: Iterable[str] = ()) -> None:
        """Have no answer for `urls` any more: a request has changed what is there (RFC 9111,
        section 4.4). `groups` changed with it (RFC 9875, section 3).

        Holds for all variants, in every tier, and against fetches under way.
        """
        found = [_marked(urls=(url,)) or _marked(hosts=(url.partition("/")[0],)) for url in urls]
        found += [_marked(tags=(group,)) for group in groups]
        for mark in found:
            if mark is not None:
                await self.upkeep.save(self.purges.add(mark, soft=False))

    async def purge(self, selection: Selection) -> list[str]:
        """Have no answer of `selection` any more; it is fetched anew when it is next asked for.

        In force for every lookup from now on. Returns once it will also hold after a crash: the
        names of tiers that could not see to that.
        """
        return await self._mark(selection, soft=False)

    async def invalidate(self, selection: Selection) -> list[str]:
        """Take no answer of `selection` for fresh any more: the origin is asked for news of it,
        and the copy may still stand in where stale ones may. Else as `purge`."""
        return await self._mark(selection, soft=True)

    async def _mark(self, selection: Selection, *, soft: bool) -> list[str]:
        changes = self.purges.add(selection, soft=soft)
        self.keeper.expect_anything()
        return await self.upkeep.save(changes)

    async def forget(self, key: str) -> None:
        """Drop everything under `key`, also what is being fetched at this moment."""
        for flight in self._flights.values():
            if flight.key == key:
                flight.is_doomed = True
        self._flights = {id: f for id, f in self._flights.items() if f.key != key}
        await self.levels.forget(key)

    def now(self) -> float:
        """The moment, in seconds since 1970."""
        return self._now()

    async def settled(self) -> None:
        """Return when no fetch, revalidation or store is under way in the background."""
        await self.background.settled()

    async def close(self) -> None:
        """End what goes on in the background. What has been fetched is still stored."""
        await self.upkeep.close()
        for flight in self._flights.values():
            if not flight.has_landed and flight.task is not None:
                flight.task.cancel()
        self.keeper.close()
        await self.settled()

    # ------------------------------------------------------------ with a store, without an origin

    async def _not_at_hand(self, errand: Errand, found: Found) -> Answer:
        if found.entry is None:
            found = await self._load(errand)
        if found.entry is None and self.health.trouble(errand.origin) is not None:
            errand, found = await self._without_coding(errand, found)
        entry = found.entry
        if entry is not None and may_reuse(entry, errand.asked):
            now_s = self._now()
            fresh_for_s = left_s(entry, errand.rule, now_s)
            if fresh_for_s > 0:
                if errand.wanted and entry.encoded is None:
                    self.keeper.encode_later(found.id, entry)
                return hit(errand, found, fresh_for_s, now_s)
            if self._may_wait_for_news(errand, found, -fresh_for_s):
                cause = self.health.trouble(errand.origin)
                detail = found.tier if cause is None else "origin_down"
                status = f"hit; ttl={int(fresh_for_s)}; detail={detail}"
                return stale(errand, entry, now_s, status, cause)
        return await self._from_origin(errand, found)

    async def _without_coding(self, errand: Errand, found: Found) -> tuple[Errand, Found]:
        """A copy without compression for who would rather have it compressed, if that is all there
        is while the origin is down. Hardly anybody refuses it (RFC 9110, section 12.5.3)."""
        if errand.coding == "identity" or "q=0" in (errand.asked.accept_encoding or ""):
            return errand, found
        plain = replace(errand, coding="identity")
        other = await self._load(plain)
        return (errand, found) if other.entry is None else (plain, other)

    def _may_wait_for_news(self, errand: Errand, found: Found, stale_for_s: float) -> bool:
        """Serve the stale copy now: the origin is down, or is asked in the background."""
        assert found.entry is not None
        use = ruled_stale_use(found.entry.headers, errand.rule)
        trouble = self.health.trouble(errand.origin)
        if trouble is not None:
            limit_s = use.if_disconnected_s if trouble.is_disconnected else use.if_status_error_s
            if stale_for_s >= max(limit_s, use.while_revalidating_s):
                return False
            if self._flight(errand, found) is None and self.health.begin_probe(errand.origin):
                self._probe(errand, found)
            return True
        if stale_for_s >= use.while_revalidating_s:
            return False
        if self._flight(errand, found) is None:
            self._take_off(errand, found, self._new_flight(errand, found, in_background=True))
        return True

    def _probe(self, errand: Errand, found: Found) -> None:
        """Ask for news of a page that is at hand, to see whether its origin is back."""
        flight = self._new_flight(errand, found, in_background=True)
        self._take_off(errand, found, flight)
        assert flight.task is not None
        flight.task.add_done_callback(lambda _: self.health.end_probe(errand.origin))

    def _flight(self, errand: Errand, found: Found) -> Flight | None:
        """The fetch under way that may answer, unless a purge has overtaken it."""
        flight = self._flights.get((errand.key, found.id))
        if flight is None or self.purges.covers(flight.asked_at_s, flight.url, errand.url):
            return None
        return flight

    def _new_flight(self, errand: Errand, found: Found, *, in_background: bool = False) -> Flight:
        """A fetch that others may join from now on."""
        flight = Flight(errand.key, errand.url, self.purges.stamp(), in_background=in_background)
        self._flights[errand.key, found.id] = flight
        return flight

    async def _load(self, errand: Errand) -> Found:
        headers = errand.request.headers
        return await self.levels.load(errand.key, headers, errand.coding, errand.url)

    # ------------------------------------------------------------ with the origin

    async def _from_origin(self, errand: Errand, found: Found) -> Answer:
        asked = errand.asked
        if asked.has_credentials and not (found.entry and may_reuse(found.entry, asked)):
            return await self._alone(errand, found, "bypass; detail=authorization")
        if found.entry is None:
            if asked.is_head and self._flight(errand, found) is None:
                return await self._alone(errand, found, fwd_of(found))
            if self.keeper.is_hit_for_miss(found.id):
                return await self._alone(errand, found, "bypass; detail=hit_for_miss")
        elif self.keeper.is_hit_for_miss(found.id):
            return await self._alone(errand, found, fwd_of(found), as_asked=False)
        return await self._together(errand, found)

    async def _together(self, errand: Errand, found: Found) -> Answer:
        """Lead a fetch, or follow one that is under way.

        A follower whose leader has failed gets one try of its own, together with its likes; so
        many clients never become many requests to an origin that is down.
        """
        for is_own_try in (False, True):
            flight = self._flight(errand, found)
            if flight is None:
                return await self._lead(errand, found)
            outcome = await flight.follow(needs_length=errand.asked.range is not None)
            match outcome:
                case Coming() if self._suits(errand, outcome):
                    status = self._collapsed(errand, found, outcome.entry)
                    response = await self._along(errand, flight, outcome, is_reused=True)
                    return Answer(response, "collapsed", status)
                case Kept() | Stale() if self._suits(errand, outcome):
                    return self._follower_answer(errand, found, outcome)
                case Kept(entry, True) | Coming(entry) if not is_chosen(entry, errand):
                    await flight.ended()  # by then the tiers know which variants there are
                case Kept(entry, True) | Coming(entry) if self._is_overtaken(entry, errand):
                    pass
                case Stale():
                    pass
                case Failed(error):
                    if is_own_try:
                        raise _own_error(errand, error)
                case Single(response) if response.status in TROUBLE_STATUSES:
                    if is_own_try:
                        raise _unavailable(errand, response.status)
                case _:
                    await flight.leave()
                    return await self._alone(errand, found, fwd_of(found))
            await flight.leave()
            found = await self._load(errand)
            now_s = self._now()
            fresh_for_s = left_s(found.entry, errand.rule, now_s) if found.entry else 0.0
            if fresh_for_s > 0 and found.entry and may_reuse(found.entry, errand.asked):
                return hit(errand, found, fresh_for_s, now_s)
        return await self._alone(errand, found, fwd_of(found))

    def _suits(self, errand: Errand, outcome: Kept | Coming | Stale) -> bool:
        entry = outcome.entry
        if not (is_chosen(entry, errand) and may_reuse(entry, errand.asked)):
            return False
        if isinstance(outcome, Stale):
            return self.purges.seen(entry, errand.url) is not None
        if self._is_overtaken(entry, errand):
            return False
        is_shared = not outcome.body.is_cut_short if isinstance(outcome, Coming) else outcome.shared
        return is_shared and left_s(entry, errand.rule, self._now()) > 0

    def _is_overtaken(self, entry: StoredResponse, errand: Errand) -> bool:
        """Whether `entry`, just fetched, was purged while it was on its way."""
        return self.purges.seen(entry, errand.url) is not entry

    async def _lead(self, errand: Errand, found: Found) -> Answer:
        flight = self._new_flight(errand, found)
        self._take_off(errand, found, flight)
        return await self._answer(errand, found, flight, fwd_of(found))

    async def _alone(
        self, errand: Errand, found: Found, fwd: str, *, as_asked: bool = True
    ) -> Answer:
        """Fetch for this client only; `as_asked` with its own conditions and range."""
        if errand.asked.is_head and as_asked:
            response = await self.fetcher.ask(errand, errand.own_request())
            self.hide_tags(response.headers)
            verdict = "pass" if fwd.startswith("bypass") else "miss"
            status = f"edgeproxy; fwd={fwd}; fwd-status={response.status}"
            return Answer(response, verdict, status)
        flight = Flight(errand.key)
        self._take_off(errand, found, flight, as_asked=as_asked)
        return await self._answer(errand, found, flight, fwd, as_asked=as_asked)

    async def _answer(
        self, errand: Errand, found: Found, flight: Flight, fwd: str, *, as_asked: bool = False
    ) -> Answer:
        """What a fetch brings, as an answer to the client that caused it.

        `as_asked`, the origin has seen its range, and what it makes of that is as good as it gets.
        """
        may_cut = errand.asked.range is not None and not as_asked
        outcome = await flight.lead(needs_length=may_cut)
        now_s = self._now()
        match outcome:
            case Kept(entry, shared, fwd_status, detail):
                stored = "; stored" if shared else ""
                ttl_s = int(left_s(entry, errand.rule, now_s))
                status = f"fwd={fwd}; fwd-status={fwd_status}{stored}; ttl={ttl_s}"
                status += f"; detail={detail}" if detail else ""
                response = response_of(errand, entry, now_s, is_reused=False)
                verdict = "revalidated" if fwd_status == 304 else "miss"
                verdict = "stale" if detail == "gone" else verdict
                return Answer(response, verdict, f"edgeproxy; {status}")
            case Coming(entry, _, fwd_status):
                ttl_s = int(left_s(entry, errand.rule, now_s))
                status = f"fwd={fwd}; fwd-status={fwd_status}; stored; ttl={ttl_s}"
                response = await self._along(errand, flight, outcome, is_reused=False)
                return Answer(response, "miss", f"edgeproxy; {status}")
            case Stale(entry, fwd_status):
                return self._stale_on_error(errand, entry, now_s, fwd_status, fwd)
            case Single(response, reason, too_large):
                response = await self._single(errand, response, again=too_large and may_cut)
                status = f"fwd={fwd}; fwd-status={response.status}; {reason}"
                verdict = "pass" if fwd.startswith("bypass") else "miss"
                return Answer(response, verdict, f"edgeproxy; {status}")
            case GivenAway():
                await flight.leave()
                return await self._alone(errand, found, fwd)
            case Failed(error):
                raise error

    async def _along(
        self, errand: Errand, flight: Flight, coming: Coming, *, is_reused: bool
    ) -> Response:
        """What this client gets of a body that still comes in, from its first byte on."""
        body = Reading(flight, coming.body, partial(self.fetcher.again, errand, coming.entry))
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
            return await self.fetcher.ask(errand, errand.own_request())
        return response

    # ------------------------------------------------------------ the fetch itself

    def _take_off(
        self, errand: Errand, found: Found, flight: Flight, *, as_asked: bool = False
    ) -> None:
        """Start `flight`. Whoever may join finds it by now: a task may run at once."""
        flight.task = self.background.begin(self._fly(errand, found, flight, as_asked=as_asked))

        def clear(task: asyncio.Task[None]) -> None:  # also for a task cancelled before it ran
            self._leave_table(found.id, flight)
            flight.land(Failed(errand.given_up()))

        flight.task.add_done_callback(clear)

    def _leave_table(self, id: str, flight: Flight) -> None:
        if self._flights.get((flight.key, id)) is flight:
            del self._flights[flight.key, id]

    async def _fly(self, errand: Errand, found: Found, flight: Flight, *, as_asked: bool) -> None:
        outcome: Outcome
        held = self.body_memory.hold()
        try:
            outcome = await self.fetcher.fetch(errand, found, flight, held, as_asked=as_asked)
        except Exception as error:
            outcome = Failed(error)
            if flight.is_unwatched and self.health.trouble(errand.origin) is None:
                path = errand.request.path  # a query may hold what is nobody's business
                log.warning("background revalidation of %s failed: %s", path, error)
        except BaseException:
            held.release()
            raise
        flight.land(outcome)
        try:
            if isinstance(outcome, Kept):
                await self.keeper.keep(errand, found, outcome, flight)
        finally:
            if not flight.is_cut_short:
                held.release()
        self._leave_table(found.id, flight)
        await flight.tidy()

    # ------------------------------------------------------------ how it is told

    def _stale_on_error(
        self, errand: Errand, entry: StoredResponse, now_s: float, fwd_status: int | None, fwd: str
    ) -> Answer:
        ttl_s = int(left_s(entry, errand.rule, now_s))
        answered = f"; fwd-status={fwd_status}" if fwd_status else ""
        status = f"fwd={fwd}{answered}; ttl={ttl_s}; detail=stale_if_error"
        cause = Cause(status=fwd_status) if fwd_status else self.health.cause(errand.origin)
        return stale(errand, entry, now_s, status, cause)

    def _follower_answer(self, errand: Errand, found: Found, outcome: Kept | Stale) -> Answer:
        now_s = self._now()
        if isinstance(outcome, Stale):
            fwd = fwd_of(found)
            return self._stale_on_error(errand, outcome.entry, now_s, outcome.fwd_status, fwd)
        status = self._collapsed(errand, found, outcome.entry)
        return Answer(response_of(errand, outcome.entry, now_s), "collapsed", status)

    def _collapsed(self, errand: Errand, found: Found, entry: StoredResponse) -> str:
        ttl_s = int(left_s(entry, errand.rule, self._now()))
        return f"edgeproxy; fwd={fwd_of(found)}; collapsed; ttl={ttl_s}"


def _coding(accept_encoding: str | None) -> str:
    if accept_encoding == "gzip" or accept_encoding == "identity":
        return accept_encoding
    return accepted_coding(accept_encoding or "")


def _marked(**what: tuple[str, ...]) -> Selection | None:
    """A selection, if there is such a thing: what cannot be named cannot be marked."""
    try:
        return Selection(**what)  # type: ignore[arg-type]
    except ValueError:
        return None


def _with_key(answer: Answer, key: str) -> Answer:
    """`answer` with the cache key in its status, as a string of RFC 9651, section 3.3.3."""
    shown = key.replace("\n", " ").encode("ascii", "backslashreplace").decode()[:MAX_KEY_SHOWN]
    shown = shown.replace("\\", "\\\\").replace('"', '\\"')
    return replace(answer, status=f'{answer.status}; key="{shown}"')


def _unavailable(errand: Errand, status: int) -> UpstreamError:
    return errand.failure("destination_unavailable", f"it answers {status}", status=503)


def _own_error(errand: Errand, error: Exception) -> Exception:
    """What another client's fetch failed with, as an error of this one's own."""
    if isinstance(error, UpstreamError):
        return error.copy()
    return errand.failure("proxy_internal_error", f"another fetch failed: {error}")
