"""Reading through the cache: from a request to an answer, asking the origin only if need be."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cachetools import TTLCache

from edgeproxy.caching.answers import Asked, tailored, without_conditions
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.encodings import (
    Encoder,
    chosen,
    encoded_fields,
    is_encodable,
    wanted,
    with_vary,
)
from edgeproxy.caching.fields import (
    format_date,
    seconds,
    storable_fields,
    updated_fields,
    weakly_equal,
)
from edgeproxy.caching.flights import (
    Budget,
    Failed,
    Flight,
    Growing,
    Held,
    Kept,
    Outcome,
    Single,
    Stale,
)
from edgeproxy.caching.freshness import (
    CLOCK_TOLERANCE_S,
    StaleUse,
    allows_credentials,
    browser_cache_control,
    current_age_s,
    governing,
    initial_age_s,
    retry_after_s,
    stale_use,
)
from edgeproxy.caching.levels import Found, Levels, vary_names
from edgeproxy.caching.purges import TAG_FIELDS, Purges, Selection, response_tags
from edgeproxy.caching.rules import jittered_s, policy_ttl_s, ruled_lifetime_s, unstorable
from edgeproxy.caching.tiers import StoredResponse, Tier, is_same
from edgeproxy.caching.upkeep import SLOWEST_FETCH_S, Upkeep
from edgeproxy.caching.variants import accepted_coding, selection
from edgeproxy.errors import UpstreamError
from edgeproxy.health import Cause, Health
from edgeproxy.http import Body, Headers, Request, Response

Forward = Callable[[Request], Awaitable[Response]]
"""Sends a request to the origin, with the hooks around it. Raises UpstreamError."""

TROUBLE_STATUSES = frozenset((429, 500, 502, 503, 504))
"""Answers that a stale copy is better than."""

GONE_STATUSES = frozenset((404, 410))
GONE_RECHECK_S = 60.0
"""How often the origin is asked whether it has again what is kept though it is gone."""

HIT_FOR_MISS_S = 120.0
MAX_HIT_FOR_MISS = 4096
STREAM_ABOVE_BYTES = 256 * 1024
"""Up to this size a body is at hand before the client sees the head, so that an origin that fails
half way can still be answered for. Beyond it, waiting would cost the client more than that."""

BODY_MEMORY_BYTES = 256 * 1024 * 1024
MAX_KEY_SHOWN = 512

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client is sent. The head is its own to edit; the body may be shared."""

    response: Response
    verdict: str  # hit, miss, stale, revalidated, collapsed, pass
    status: str  # our member of Cache-Status (RFC 9211)
    cause: Cause | None = None  # the origin's failure for which a stored copy stands in


@dataclass(slots=True)
class Errand:
    """One client's request, and all that is needed to answer it."""

    request: Request
    key: str
    rule: CacheRule | None
    forward: Forward
    asked: Asked
    coding: str
    origin: str
    url: str  # the public one
    wanted: tuple[str, ...] = ()  # codings made here that the client takes, the best first

    def upstream_request(self, stale: StoredResponse | None) -> Request:
        """For the whole response, or for news of `stale` if that can be asked."""
        headers = without_conditions(self.request.headers)
        headers.set("Accept-Encoding", self.coding)
        if stale is not None:
            for name, value in stale.validators or _validators(stale.headers):
                headers.set(name, value)
        return replace(self.request, method="GET", headers=headers)

    def own_request(self) -> Request:
        """With the client's conditions and range, for an answer that is its own."""
        headers = self.request.headers.copy()
        headers.set("Accept-Encoding", self.coding)
        return replace(self.request, headers=headers)


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
        self._pass_tags = pass_tags
        self._status_key = status_key
        self._chance = chance
        self.encodings = encodings
        self._encoder = Encoder(encodings) if encodings else None
        self._now = now
        self._flights: dict[tuple[str, str], Flight] = {}  # by key and variant
        self._hit_for_miss: TTLCache[str, bool] = TTLCache(
            MAX_HIT_FOR_MISS, HIT_FOR_MISS_S, timer=now
        )
        self._tasks: set[asyncio.Task[None]] = set()

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
        if self._encoder is not None and asked.range is None:
            accepted = asked.accept_encoding if accept_encoding is None else accept_encoding
            errand.wanted = wanted(accepted or "", self.encodings)
        if found.entry is not None:
            now_s = self._now()
            left_s = _left_s(found.entry, rule, now_s)
            if left_s > 0 and _may_reuse(found.entry, asked):
                if errand.wanted and found.entry.encoded is None:
                    self._encode_later(found.id, found.entry)
                answer = _hit(errand, found, left_s, now_s)
                return _with_key(answer, key) if self._status_key else answer
        answer = await self._not_at_hand(errand, found)
        return _with_key(answer, key) if self._status_key else answer

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
        self._hit_for_miss.clear()
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
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """End what goes on in the background. What has been fetched is still stored."""
        await self.upkeep.close()
        for flight in self._flights.values():
            if not flight.has_landed and flight.task is not None:
                flight.task.cancel()
        for task in self._encoder.tasks if self._encoder else ():
            task.cancel()
        await self.settled()

    # ------------------------------------------------------------ with a store, without an origin

    async def _not_at_hand(self, errand: Errand, found: Found) -> Answer:
        if found.entry is None:
            found = await self._load(errand)
        if found.entry is None and self.health.trouble(errand.origin) is not None:
            errand, found = await self._without_coding(errand, found)
        entry = found.entry
        if entry is not None and _may_reuse(entry, errand.asked):
            now_s = self._now()
            left_s = _left_s(entry, errand.rule, now_s)
            if left_s > 0:
                if errand.wanted and entry.encoded is None:
                    self._encode_later(found.id, entry)
                return _hit(errand, found, left_s, now_s)
            if self._may_wait_for_news(errand, found, -left_s):
                cause = self.health.trouble(errand.origin)
                detail = found.tier if cause is None else "origin_down"
                status = f"hit; ttl={int(left_s)}; detail={detail}"
                return _stale(errand, entry, now_s, status, cause)
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
        use = _stale_use(found.entry, errand.rule)
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
            self._take_off(errand, found, self._new_flight(errand, in_background=True))
        return True

    def _probe(self, errand: Errand, found: Found) -> None:
        """Ask for news of a page that is at hand, to see whether its origin is back."""
        flight = self._new_flight(errand, in_background=True)
        self._take_off(errand, found, flight)
        assert flight.task is not None
        flight.task.add_done_callback(lambda _: self.health.end_probe(errand.origin))

    def _flight(self, errand: Errand, found: Found) -> Flight | None:
        """The fetch under way that may answer, unless a purge has overtaken it."""
        flight = self._flights.get((errand.key, found.id))
        if flight is None or self.purges.covers(flight.asked_at_s, flight.url, errand.url):
            return None
        return flight

    def _new_flight(self, errand: Errand, **how: bool) -> Flight:
        return Flight(errand.key, errand.url, self.purges.stamp(), **how)

    async def _load(self, errand: Errand) -> Found:
        headers = errand.request.headers
        return await self.levels.load(errand.key, headers, errand.coding, errand.url)

    # ------------------------------------------------------------ with the origin

    async def _from_origin(self, errand: Errand, found: Found) -> Answer:
        asked = errand.asked
        if asked.has_credentials and not (found.entry and _may_reuse(found.entry, asked)):
            return await self._alone(errand, found, "bypass; detail=authorization")
        if found.entry is None:
            if asked.is_head:
                return await self._alone(errand, found, _fwd(found))
            if found.id in self._hit_for_miss:
                return await self._alone(errand, found, "bypass; detail=hit_for_miss")
        elif found.id in self._hit_for_miss:
            return await self._alone(errand, found, _fwd(found), as_asked=False)
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
            outcome = await flight.follow()
            match outcome:
                case Kept() | Stale() if self._suits(errand, outcome):
                    return self._follower_answer(errand, found, outcome, self._now())
                case Kept(entry, shared=True) if not _is_chosen(entry, errand):
                    await flight.ended()  # by then the tiers know which variants there are
                case Kept(entry, shared=True) if self._is_overtaken(entry, errand):
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
                    return await self._alone(errand, found, _fwd(found))
            found = await self._load(errand)
            left_s = _left_s(found.entry, errand.rule, self._now()) if found.entry else 0
            if left_s > 0 and found.entry and _may_reuse(found.entry, errand.asked):
                return _hit(errand, found, left_s, self._now())
        return await self._alone(errand, found, _fwd(found))

    def _suits(self, errand: Errand, outcome: Kept | Stale) -> bool:
        entry = outcome.entry
        if not (_is_chosen(entry, errand) and _may_reuse(entry, errand.asked)):
            return False
        if isinstance(outcome, Stale):
            return self.purges.seen(entry, errand.url) is not None
        if self._is_overtaken(entry, errand):
            return False
        return outcome.shared and _left_s(entry, errand.rule, self._now()) > 0

    def _is_overtaken(self, entry: StoredResponse, errand: Errand) -> bool:
        """Whether `entry`, just fetched, was purged while it was on its way."""
        return self.purges.seen(entry, errand.url) is not entry

    async def _lead(self, errand: Errand, found: Found) -> Answer:
        asked = errand.asked
        may_stream = not (asked.is_head or asked.has_conditions or asked.range is not None)
        flight = self._new_flight(errand, may_stream=may_stream)
        self._take_off(errand, found, flight)
        return await self._answer(errand, await flight.lead(), _fwd(found))

    async def _alone(
        self, errand: Errand, found: Found, fwd: str, *, as_asked: bool = True
    ) -> Answer:
        """Fetch for this client only; `as_asked` with its own conditions and range."""
        if errand.asked.is_head and as_asked:
            response = await self._forward(errand, errand.own_request())
            self.hide_tags(response.headers)
            verdict = "pass" if fwd.startswith("bypass") else "miss"
            status = f"edgeproxy; fwd={fwd}; fwd-status={response.status}"
            return Answer(response, verdict, status)
        held = self.body_memory.hold()
        try:
            outcome = await self._fetch(errand, found, None, held, as_asked=as_asked)
        except BaseException:
            held.release()
            raise
        if isinstance(outcome, Kept):
            self._in_background(self._keep(errand, found, outcome, None, held))
        else:
            held.release()
        return await self._answer(errand, outcome, fwd)

    async def _answer(self, errand: Errand, outcome: Outcome, fwd: str) -> Answer:
        """What a fetch brought, as an answer to the client that caused it."""
        now_s = self._now()
        match outcome:
            case Kept(entry, shared, fwd_status, detail):
                left_s = _left_s(entry, errand.rule, now_s)
                stored = "; stored" if shared else ""
                status = f"fwd={fwd}; fwd-status={fwd_status}{stored}; ttl={int(left_s)}"
                status += f"; detail={detail}" if detail else ""
                response = _response(errand, entry, now_s, is_reused=False)
                verdict = "revalidated" if fwd_status == 304 else "miss"
                verdict = "stale" if detail == "gone" else verdict
                return Answer(response, verdict, f"edgeproxy; {status}")
            case Stale(entry, fwd_status):
                return self._stale_on_error(errand, entry, now_s, fwd_status, fwd)
            case Single(response, reason, too_large):
                response = await self._single(errand, response, too_large=too_large)
                status = f"fwd={fwd}; fwd-status={response.status}; {reason}"
                verdict = "pass" if fwd.startswith("bypass") else "miss"
                return Answer(response, verdict, f"edgeproxy; {status}")
            case Failed(error):
                raise error

    async def _single(self, errand: Errand, response: Response, *, too_large: bool) -> Response:
        """A whole response that is not kept, as close as possible to what the client wants."""
        if errand.asked.is_head:
            await response.body.close()
            return replace(response, body=Body())
        if too_large and errand.asked.range is not None:
            await response.body.close()
            return await self._forward(errand, errand.own_request())
        return response

    # ------------------------------------------------------------ the fetch itself

    def _take_off(self, errand: Errand, found: Found, flight: Flight) -> None:
        """Start `flight`. It is in the table first: a task may run before it is returned."""
        self._flights[errand.key, found.id] = flight
        flight.task = self._in_background(self._fly(errand, found, flight))

        def clear(task: asyncio.Task[None]) -> None:  # also for a task cancelled before it ran
            self._leave_table(found.id, flight)
            flight.land(Failed(_given_up(errand)))

        flight.task.add_done_callback(clear)

    def _leave_table(self, id: str, flight: Flight) -> None:
        if self._flights.get((flight.key, id)) is flight:
            del self._flights[flight.key, id]

    async def _fly(self, errand: Errand, found: Found, flight: Flight) -> None:
        outcome: Outcome
        held = self.body_memory.hold()
        try:
            outcome = await self._fetch(errand, found, flight, held)
        except Exception as error:
            outcome = Failed(error)
            if flight.is_unwatched and self.health.trouble(errand.origin) is None:
                path = errand.request.path  # a query may hold what is nobody's business
                log.warning("background revalidation of %s failed: %s", path, error)
        except BaseException:
            held.release()
            raise
        flight.land(outcome)
        if isinstance(outcome, Kept):
            await self._keep(errand, found, outcome, flight, held)
        held.release()
        self._leave_table(found.id, flight)
        if isinstance(outcome, Single) and not flight.has_leader:
            await outcome.response.body.close()

    async def _fetch(
        self,
        errand: Errand,
        found: Found,
        flight: Flight | None,
        held: Held,
        *,
        as_asked: bool = False,
    ) -> Outcome:
        """Ask the origin, and take its answer in as far as it may be kept."""
        stale = None if as_asked else found.entry
        request = errand.own_request() if as_asked else errand.upstream_request(stale)
        requested_at_s = self.purges.stamp()
        try:
            response = await self._forward(errand, request)
            if response.status == 304 and stale is not None:
                if _is_news_of(stale, response.headers):
                    return await self._refreshed(errand, stale, response, requested_at_s)
                await response.body.close()
                response = await self._forward(errand, errand.upstream_request(None))
            if (
                stale is not None
                and response.status in TROUBLE_STATUSES
                and self._may_stand_in(stale, errand.rule, is_disconnected=False)
            ):
                await response.body.close()
                return Stale(stale, response.status)
            if stale is not None and _is_kept_though_gone(
                stale, response, errand.rule, self._now()
            ):
                await response.body.close()
                return self._gone(stale, response, requested_at_s)
            return await self._taken(errand, found, response, requested_at_s, flight, stale, held)
        except UpstreamError:
            if stale is not None and self._may_stand_in(stale, errand.rule, is_disconnected=True):
                return Stale(stale, None)
            raise

    async def _forward(self, errand: Errand, request: Request) -> Response:
        return await self.watched(errand.forward, request, errand.origin)

    async def watched(
        self, forward: Forward, request: Request, origin: str | None = None
    ) -> Response:
        """`forward`, with its outcome noted for the origin as a whole."""
        origin = origin or request.authority
        try:
            response = await forward(request)
        except UpstreamError as error:
            self.health.failed(origin, error=error.error)
            raise
        status = response.status
        if status in TROUBLE_STATUSES and status != 500:
            asked_s = retry_after_s(response.headers, self._now())
            self.health.failed(origin, status=status, retry_after_s=asked_s)
        elif status < 500:  # a 500 is one page's fault, and says nothing of the others
            self.health.answered(origin)
        return response

    async def _refreshed(
        self, errand: Errand, stale: StoredResponse, response: Response, requested_at_s: float
    ) -> Kept:
        """`stale` with the news of a 304 (RFC 9111, section 4.3.4)."""
        await response.body.close()
        received_at_s = self._now()
        newer = response.headers.copy()
        if "date" not in newer:
            newer.set("Date", format_date(received_at_s))
        tags = stale.tags
        if any(name in newer for name in (*TAG_FIELDS, "cache-groups")):
            tags = response_tags(newer, errand.rule.tags if errand.rule else ())
            self.hide_tags(newer)
        validators = stale.validators
        if validators:  # the origin's are news of the origin's; clients know the body by others
            validators = _validators(newer) or validators
            newer.remove("etag", "last-modified")
        headers = updated_fields(stale.headers, newer)
        age_s = initial_age_s(newer, requested_at_s, received_at_s)
        entry = replace(
            stale,
            headers=headers,
            tags=tags,
            url=errand.url,
            validators=validators,
            gone_at_s=0.0,
            stored_at_s=received_at_s,
            requested_at_s=requested_at_s,
            age_s=age_s,
            fresh_for_s=self._lifetime_s(errand, stale.status, headers, received_at_s, age_s),
        )
        why = unstorable(errand.rule, errand.asked.has_credentials, stale.status, headers)
        return Kept(entry, shared=why is None, fwd_status=304)

    def _gone(self, stale: StoredResponse, response: Response, requested_at_s: float) -> Kept:
        """`stale`, which the origin has no more, fresh until it is time to ask again."""
        now_s = self._now()
        age_s = current_age_s(stale.age_s, stale.stored_at_s, now_s)
        entry = replace(
            stale,
            gone_at_s=stale.gone_at_s or now_s,
            stored_at_s=now_s,
            requested_at_s=requested_at_s,
            age_s=age_s,
            fresh_for_s=age_s + GONE_RECHECK_S,
        )
        return Kept(entry, shared=True, fwd_status=response.status, detail="gone")

    def hide_tags(self, headers: Headers) -> None:
        """Keep from clients what is meant for caches, unless the policy says otherwise."""
        if not self._pass_tags:
            headers.remove(*TAG_FIELDS)

    async def _taken(
        self,
        errand: Errand,
        found: Found,
        response: Response,
        requested_at_s: float,
        flight: Flight | None,
        stale: StoredResponse | None,
        held: Held,
    ) -> Outcome:
        """A whole response: read in and kept if it may be, else left to the client that asked."""
        received_at_s = self._now()
        status = response.status
        tags = response_tags(response.headers, errand.rule.tags if errand.rule else ())
        self.hide_tags(response.headers)
        why = unstorable(errand.rule, errand.asked.has_credentials, status, response.headers)
        if why is not None:
            await self._not_kept(errand, found, status)
            return Single(response, f"detail={why.name.lower()}")
        age_s = initial_age_s(response.headers, requested_at_s, received_at_s)
        headers = storable_fields(response.headers)
        if "date" not in headers:
            headers.add("Date", format_date(received_at_s))
        fresh_for_s = self._lifetime_s(errand, status, headers, received_at_s, age_s)
        entry = StoredResponse(
            key=errand.key,
            status=status,
            headers=headers,
            body=b"",
            stored_at_s=received_at_s,
            requested_at_s=requested_at_s,
            fresh_for_s=fresh_for_s,
            age_s=age_s,
            vary=selection(errand.request.headers, errand.coding, vary_names(headers)),
            tags=tags,
            url=errand.url,
        )
        if fresh_for_s <= age_s and not _is_worth_keeping(entry, errand.rule):
            await self._not_kept(errand, found, status)
            return Single(response, "detail=no_freshness")
        body = await self._read(errand, entry, response, flight, held)
        if body is None and held.was_refused:
            return Single(response, "detail=no_memory", too_large=True)
        if body is None:
            await self._not_kept(errand, found, status)
            return Single(response, "detail=too_large", too_large=True)
        if status not in (204, 205):
            headers.set("Content-Length", str(len(body)))
        if stale is not None and _is_same(stale, entry, body):
            return Kept(
                _unchanged(stale, entry), shared=True, fwd_status=status, detail="unchanged"
            )
        return Kept(replace(entry, body=body), shared=True, fwd_status=status)

    def _lifetime_s(
        self, errand: Errand, status: int, headers: Headers, received_at_s: float, age_s: float
    ) -> float:
        lifetime_s = ruled_lifetime_s(errand.rule, status, headers, received_at_s, age_s)
        return jittered_s(errand.rule, lifetime_s, age_s, self._chance())

    async def _read(
        self,
        errand: Errand,
        entry: StoredResponse,
        response: Response,
        flight: Flight | None,
        held: Held,
    ) -> bytes | None:
        """The whole body; None if it is too large or memory is short, and still to be read then.

        Raises UpstreamError if it ends early.
        """
        body = response.body
        declared = body.length
        if declared is None:
            declared = seconds(response.headers.get("content-length"))
        if declared is not None and declared > self.max_object_size:
            return None
        expected = declared if body.data is None else None
        at_first = min(STREAM_ABOVE_BYTES, self.max_object_size)
        if not held.grow_to(at_first if declared is None else declared):
            return None
        try:
            data = await body.peek(at_first)
            if data is None and flight is not None and flight.may_stream and flight.has_leader:
                data = await self._read_along(errand, entry, response, flight, held, expected)
            elif data is None:
                data = await self._read_on(body, at_first, held)
        except UpstreamError:
            await body.close()
            raise
        except Exception as error:
            await body.close()
            raise _incomplete(errand, str(error) or type(error).__name__) from error
        except asyncio.CancelledError:
            await body.close()
            raise
        if data is None:
            return None
        await body.close()
        if expected is not None and len(data) != expected:
            raise _incomplete(errand, f"{len(data)} of {expected} bytes came")
        return data

    async def _read_on(self, body: Body, size: int, held: Held) -> bytes | None:
        """The same beyond the first `size` bytes, for as long as there is room for more."""
        data = None
        while data is None and size < self.max_object_size:
            size = min(2 * size, self.max_object_size)
            if not held.grow_to(size):
                return None
            data = await body.peek(size)
        return data

    async def _read_along(
        self,
        errand: Errand,
        entry: StoredResponse,
        response: Response,
        flight: Flight,
        held: Held,
        expected: int | None,
    ) -> bytes | None:
        """The same, while the leader already gets what has come in."""
        growing = Growing(response.body)
        is_open = True

        async def close() -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                if expected is None or growing.size < expected:
                    flight.leader_left()

        head = _response(errand, entry, self._now(), is_reused=False)
        body = Body(None, stream=growing.__aiter__(), length=expected, close=close)
        flight.hand_over(Response(head.status, head.headers, body), "stored")
        try:
            data = await growing.take(self.max_object_size, held)
            if data is not None and expected is not None and len(data) != expected:
                raise _incomplete(errand, f"{len(data)} of {expected} bytes came")
        except Exception as error:
            failure = error if isinstance(error, UpstreamError) else _incomplete(errand, str(error))
            growing.end(failure)
            raise failure from error
        if data is not None:
            growing.end()
        return data

    async def _not_kept(self, errand: Errand, found: Found, status: int) -> None:
        """Remember that answers like this one are not shared, and drop what they replace."""
        if status in (206, 304) or errand.asked.has_credentials:
            return
        if status < 400 or status in GONE_STATUSES:
            self._hit_for_miss[found.id] = True
            if found.entry is not None:
                await self.levels.forget(found.id)

    async def _keep(
        self, errand: Errand, found: Found, outcome: Kept, flight: Flight | None, held: Held
    ) -> None:
        """Store what was fetched; until then its body counts as held."""
        try:
            await self._store(errand, found, outcome, flight)
        finally:
            held.release()

    async def _store(
        self, errand: Errand, found: Found, outcome: Kept, flight: Flight | None
    ) -> None:
        entry = outcome.entry
        if flight is not None and flight.is_doomed:
            return
        if self._now() - entry.requested_at_s > SLOWEST_FETCH_S:
            return  # the mark of a purge meanwhile may be gone again
        if self.purges.seen(entry, errand.url) is None:
            return  # purged while it was under way
        if not outcome.shared:
            await self.levels.forget(found.id)
            return
        if _left_s(entry, errand.rule, self._now()) > 0:
            self._hit_for_miss.pop(found.id, None)
        else:
            self._hit_for_miss[found.id] = True
        if self._encoder is not None and entry.encoded is None and not is_encodable(entry):
            entry = replace(entry, encoded=())
        id = await self.levels.put(entry, errand.request.headers, errand.coding)
        if entry.encoded is None:
            self._encode_later(id, entry)

    def _encode_later(self, id: str, entry: StoredResponse) -> None:
        """Make the policy's codings of what has just been stored, or not been encoded yet."""
        encoder = self._encoder
        if encoder is None or entry.is_lazy or not encoder.is_free(id):
            return

        async def work() -> None:
            encoded = await encoder.encode(id, entry) if is_encodable(entry) else ()
            await self.levels.add_encoded(id, entry, encoded)

        encoder.tasks.add(task := self._in_background(work()))
        task.add_done_callback(encoder.tasks.discard)

    def _stale_on_error(
        self, errand: Errand, entry: StoredResponse, now_s: float, fwd_status: int | None, fwd: str
    ) -> Answer:
        left_s = int(_left_s(entry, errand.rule, now_s))
        answered = f"; fwd-status={fwd_status}" if fwd_status else ""
        status = f"fwd={fwd}{answered}; ttl={left_s}; detail=stale_if_error"
        cause = Cause(status=fwd_status) if fwd_status else self.health.cause(errand.origin)
        return _stale(errand, entry, now_s, status, cause)

    def _follower_answer(
        self, errand: Errand, found: Found, outcome: Kept | Stale, now_s: float
    ) -> Answer:
        if isinstance(outcome, Stale):
            status = outcome.fwd_status
            return self._stale_on_error(errand, outcome.entry, now_s, status, _fwd(found))
        left_s = int(_left_s(outcome.entry, errand.rule, now_s))
        line = f"edgeproxy; fwd={_fwd(found)}; collapsed; ttl={left_s}"
        return Answer(_response(errand, outcome.entry, now_s), "collapsed", line)

    def _may_stand_in(
        self, entry: StoredResponse, rule: CacheRule | None, *, is_disconnected: bool
    ) -> bool:
        if self.purges.seen(entry) is None:
            return False  # purged while the origin was asked
        stale_for_s = -_left_s(entry, rule, self._now())
        use = _stale_use(entry, rule)
        return stale_for_s < (use.if_disconnected_s if is_disconnected else use.if_status_error_s)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return task


def _coding(accept_encoding: str | None) -> str:
    if accept_encoding == "gzip" or accept_encoding == "identity":
        return accept_encoding
    return accepted_coding(accept_encoding or "")


def _left_s(entry: StoredResponse, rule: CacheRule | None, now_s: float) -> float:
    """For how long the entry is still fresh; below 0: for how long it has been stale.

    A `ttl` that the policy has shortened counts at once. An entry from the future is stale: the
    clock has been set back, and nobody knows its age.
    """
    lifetime = entry.fresh_for_s
    ttl_s = policy_ttl_s(rule, entry.status)
    if ttl_s is not None:
        lifetime = min(lifetime, ttl_s + entry.age_s)
    left_s = lifetime - current_age_s(entry.age_s, entry.stored_at_s, now_s)
    if entry.stored_at_s > now_s + CLOCK_TOLERANCE_S:
        return min(left_s, 0.0)
    return left_s


def _may_reuse(entry: StoredResponse, asked: Asked) -> bool:
    """A request with credentials takes only what is meant for such (RFC 9111, section 3.5)."""
    return not asked.has_credentials or allows_credentials(governing(entry.headers)[0])


def _stale_use(entry: StoredResponse, rule: CacheRule | None) -> StaleUse:
    if rule is None:
        return stale_use(entry.headers)
    return stale_use(
        entry.headers,
        while_revalidate_s=rule.stale_while_revalidate,
        if_error_s=rule.stale_if_error,
    )


def _is_worth_keeping(entry: StoredResponse, rule: CacheRule | None) -> bool:
    """Whether a response without freshness can still be of use: revalidated, or in need."""
    if "etag" in entry.headers or "last-modified" in entry.headers:
        return True
    return rule is not None and _stale_use(entry, rule).if_disconnected_s > 0


def _is_news_of(stale: StoredResponse, headers: Headers) -> bool:
    """Whether a 304 speaks of the entry that was asked about (RFC 9111, section 4.3.4)."""
    known = stale.validators or _validators(stale.headers)
    old, new = dict(known).get("If-None-Match"), headers.get("etag")
    return not old or not new or weakly_equal(old, new)


def _validators(headers: Headers) -> tuple[tuple[str, str], ...]:
    """The conditions that ask for news of a response with these fields."""
    found = (
        ("If-None-Match", headers.get("etag")),
        ("If-Modified-Since", headers.get("last-modified")),
    )
    return tuple((name, value) for name, value in found if value)


_OF_THE_BYTES = ("content-type", "content-encoding", "content-language")


def _is_same(stale: StoredResponse, entry: StoredResponse, body: bytes) -> bool:
    """Whether the origin has sent again what is here already, whatever it calls it now."""
    return (
        bool(_validators(stale.headers))
        and stale.status == entry.status
        and is_same(stale.body, body)
        and stale.vary == entry.vary
        and all(stale.headers.joined(n) == entry.headers.joined(n) for n in _OF_THE_BYTES)
    )


def _unchanged(stale: StoredResponse, entry: StoredResponse) -> StoredResponse:
    """`entry`, with the body and the validators by which clients know it.

    GitHub Pages gives every file another ETag and Last-Modified at each publish.
    """
    headers = entry.headers.copy()
    for name in ("ETag", "Last-Modified"):
        headers.remove(name)
        value = stale.headers.get(name)
        if value:
            headers.add(name, value)
    validators = _validators(entry.headers)
    kept = () if validators == _validators(headers) else validators
    return replace(entry, headers=headers, body=stale.body, encoded=stale.encoded, validators=kept)


def _is_kept_though_gone(
    stale: StoredResponse, response: Response, rule: CacheRule | None, now_s: float
) -> bool:
    """Whether the rule has a page of an earlier publish ask for its files a little longer."""
    if rule is None or not rule.keep_gone or response.status not in GONE_STATUSES:
        return False
    return 200 <= stale.status < 300 and now_s - (stale.gone_at_s or now_s) < rule.keep_gone


def _is_chosen(entry: StoredResponse, errand: Errand) -> bool:
    """Whether `entry` is the variant that this request gets."""
    if not entry.vary:
        return True
    names = [name for name, _ in entry.vary]
    return entry.vary == selection(errand.request.headers, errand.coding, names)


def _response(
    errand: Errand, entry: StoredResponse, now_s: float, *, is_reused: bool = True
) -> Response:
    """What `entry` says to this client now."""
    age_s = int(current_age_s(entry.age_s, entry.stored_at_s, now_s))
    fields = entry.headers.fields.copy()
    rule = errand.rule
    if rule is not None and rule.browser_ttl is not None and 200 <= entry.status < 300:
        control = browser_cache_control(entry.headers, rule.browser_ttl, age_s)
        if control is not None:
            headers = Headers(fields)
            headers.remove("cache-control", "expires")
            headers.add("Cache-Control", control)
            fields = headers.fields
    if is_reused or age_s:
        fields.append((b"Age", b"%d" % age_s))
    body = entry.body
    if entry.encoded:
        fields = with_vary(fields)
        if (encoded := chosen(entry, errand.wanted)) is not None:
            coding, body = encoded
            fields = encoded_fields(fields, coding, len(body))
    return tailored(
        errand.request, errand.asked, entry.status, fields, body, entry.stored_at_s, now_s
    )


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


def _hit(errand: Errand, found: Found, left_s: float, now_s: float) -> Answer:
    assert found.entry is not None
    return Answer(
        _response(errand, found.entry, now_s),
        "hit",
        f"edgeproxy; hit; ttl={int(left_s)}; detail={found.tier}",
    )


def _stale(
    errand: Errand, entry: StoredResponse, now_s: float, status: str, cause: Cause | None
) -> Answer:
    return Answer(_response(errand, entry, now_s), "stale", f"edgeproxy; {status}", cause)


def _fwd(found: Found) -> str:
    """Why the request went to the origin, in the words of RFC 9211, section 2.2."""
    if found.entry is not None:
        return "stale"
    return "vary-miss" if found.has_variants else "uri-miss"


def _incomplete(errand: Errand, detail: str) -> UpstreamError:
    return UpstreamError(errand.origin, "http_response_incomplete", detail)


def _given_up(errand: Errand) -> UpstreamError:
    return UpstreamError(errand.origin, "connection_terminated", "the fetch was given up")


def _unavailable(errand: Errand, status: int) -> UpstreamError:
    detail = f"it answers {status}"
    return UpstreamError(errand.origin, "destination_unavailable", detail, status=503)


def _own_error(errand: Errand, error: Exception) -> Exception:
    """What another client's fetch failed with, as an error of this one's own."""
    if isinstance(error, UpstreamError):
        return UpstreamError(error.origin, error.error, error.detail, status=error.status)
    return UpstreamError(errand.origin, "proxy_internal_error", f"another fetch failed: {error}")
