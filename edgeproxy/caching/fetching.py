"""Asking an origin, and taking in what it answers, as far as that may be kept."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from edgeproxy.caching.bodies import Growing, Held
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.errand import Errand, Forward
from edgeproxy.caching.fields import (
    format_date,
    seconds,
    storable_fields,
    updated_fields,
    validators,
)
from edgeproxy.caching.flights import Coming, Flight, Kept, Outcome, Single, Stale
from edgeproxy.caching.freshness import initial_age_s, retry_after_s
from edgeproxy.caching.keeping import Keeper
from edgeproxy.caching.levels import Found, vary_names
from edgeproxy.caching.parts import head_of
from edgeproxy.caching.purges import TAG_FIELDS, Purges, response_tags
from edgeproxy.caching.renewal import (
    gone,
    is_kept_though_gone,
    is_news_of,
    is_same_kind,
    is_worth_keeping,
    says_the_same,
    unchanged,
)
from edgeproxy.caching.reuse import left_s, ruled_stale_use
from edgeproxy.caching.rules import jittered_s, ruled_lifetime_s, unstorable
from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.caching.variants import selection
from edgeproxy.errors import UpstreamError
from edgeproxy.health import Health
from edgeproxy.http import Headers, Request, Response

TROUBLE_STATUSES = frozenset((429, 500, 502, 503, 504))
"""Answers that a stale copy is better than."""

INCOMPLETE = "http_response_incomplete"
STREAM_ABOVE_BYTES = 256 * 1024
"""Up to this size a body is at hand before the client sees the head, so that an origin that fails
half way can still be answered for. Beyond it, waiting would cost the client more than that."""


class Fetcher:
    """The origins, as the cache sees them."""

    def __init__(
        self,
        keeper: Keeper,
        purges: Purges,
        health: Health,
        *,
        max_object_size: int,
        pass_tags: bool,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._keeper = keeper
        self._purges = purges
        self._health = health
        self._max_object_size = max_object_size
        self._pass_tags = pass_tags
        self._now = now
        self._chance = chance

    async def fetch(
        self,
        errand: Errand,
        found: Found,
        flight: Flight,
        held: Held,
        *,
        as_asked: bool,
    ) -> Outcome:
        """Ask the origin, and take its answer in as far as it may be kept."""
        stale = None if as_asked else found.entry
        request = errand.own_request() if as_asked else errand.upstream_request(stale)
        requested_at_s = self._purges.stamp()
        try:
            response = await self.ask(errand, request)
            if response.status == 304 and stale is not None:
                if is_news_of(stale, response.headers):
                    return await self._refreshed(errand, stale, response, requested_at_s)
                await response.body.close()
                response = await self.ask(errand, errand.upstream_request(None))
            if (
                stale is not None
                and response.status in TROUBLE_STATUSES
                and self.may_stand_in(stale, errand.rule, is_disconnected=False)
            ):
                await response.body.close()
                return Stale(stale, response.status)
            if stale is not None and is_kept_though_gone(stale, response, errand.rule, self._now()):
                await response.body.close()
                entry = gone(stale, requested_at_s, self._now())
                return Kept(entry, shared=True, fwd_status=response.status, detail="gone")
            return await self._taken(errand, found, response, requested_at_s, flight, stale, held)
        except UpstreamError:
            if stale is not None and self.may_stand_in(stale, errand.rule, is_disconnected=True):
                return Stale(stale, None)
            raise

    async def ask(self, errand: Errand, request: Request) -> Response:
        """The origin's answer to `request`. Raises UpstreamError."""
        return await self.watched(errand.forward, request, errand.origin)

    async def watched(self, forward: Forward, request: Request, origin: str) -> Response:
        """`forward`, with its outcome noted for the origin as a whole."""
        try:
            response = await forward(request)
        except UpstreamError as error:
            self._health.failed(origin, error=error.error)
            raise
        status = response.status
        if status in TROUBLE_STATUSES and status != 500:
            asked_s = retry_after_s(response.headers, self._now())
            self._health.failed(origin, status=status, retry_after_s=asked_s)
        elif status < 500:  # a 500 is one page's fault, and says nothing of the others
            self._health.answered(origin)
        return response

    def hide_tags(self, headers: Headers) -> None:
        """Keep from clients what is meant for caches, unless the policy says otherwise."""
        if not self._pass_tags:
            headers.remove(*TAG_FIELDS)

    def may_stand_in(
        self, entry: StoredResponse, rule: CacheRule | None, *, is_disconnected: bool
    ) -> bool:
        """Whether a stale `entry` is better than an error now."""
        if self._purges.seen(entry) is None:
            return False  # purged while the origin was asked
        stale_for_s = -left_s(entry, rule, self._now())
        use = ruled_stale_use(entry.headers, rule)
        return stale_for_s < (use.if_disconnected_s if is_disconnected else use.if_status_error_s)

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
        theirs = stale.validators
        if theirs:  # the origin's are news of the origin's; clients know the body by others
            theirs = validators(newer) or theirs
            newer.remove("etag", "last-modified")
        headers = updated_fields(stale.headers, newer)
        age_s = initial_age_s(newer, requested_at_s, received_at_s)
        entry = replace(
            stale,
            headers=headers,
            tags=tags,
            url=errand.url,
            validators=theirs,
            gone_at_s=0.0,
            stored_at_s=received_at_s,
            requested_at_s=requested_at_s,
            age_s=age_s,
            fresh_for_s=self._lifetime_s(errand, stale.whole_status, headers, received_at_s, age_s),
        )
        why = unstorable(errand.rule, errand.asked.has_credentials, stale.whole_status, headers)
        return Kept(entry, shared=why is None, fwd_status=304)

    async def _taken(
        self,
        errand: Errand,
        found: Found,
        response: Response,
        requested_at_s: float,
        flight: Flight,
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
            await self._keeper.refuse(errand, found, status)
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
        if fresh_for_s <= age_s and not is_worth_keeping(headers, errand.rule):
            await self._keeper.refuse(errand, found, status)
            return Single(response, "detail=no_freshness")
        declared = _declared_length(response)
        if declared is not None and declared > self._max_object_size:
            head = head_of(entry, declared)
            if head is None:
                await self._keeper.refuse(errand, found, status)
            return Single(response, "detail=too_large", too_large=True, head=head)
        body = await self._read(errand, entry, response, flight, held)
        if body is None and held.was_refused:
            return Single(response, "detail=no_memory", too_large=True)
        if body is None:
            await self._keeper.refuse(errand, found, status)
            return Single(response, "detail=too_large", too_large=True)
        if status not in (204, 205):
            headers.set("Content-Length", str(len(body)))
        if stale is not None and says_the_same(stale, entry, body):
            return Kept(unchanged(stale, entry), shared=True, fwd_status=status, detail="unchanged")
        return Kept(replace(entry, body=body), shared=True, fwd_status=status)

    def _lifetime_s(
        self, errand: Errand, status: int, headers: Headers, received_at_s: float, age_s: float
    ) -> float:
        lifetime_s = ruled_lifetime_s(errand.rule, status, headers, received_at_s, age_s)
        return jittered_s(errand.rule, lifetime_s, age_s, self._chance())

    async def _read(
        self, errand: Errand, entry: StoredResponse, response: Response, flight: Flight, held: Held
    ) -> bytes | None:
        """The whole body; None if it is too large or memory is short, and still to be read then.

        Raises UpstreamError if it ends early.
        """
        body = response.body
        declared = _declared_length(response)
        expected = declared if body.data is None else None
        at_first = min(STREAM_ABOVE_BYTES, self._max_object_size)
        if not held.grow_to(at_first if declared is None else declared):
            return None
        growing = Growing(body, expected, held)
        try:
            data = await body.peek(at_first)
            if data is None and at_first < self._max_object_size:
                flight.tell(Coming(entry, growing, response.status))
                data = await growing.take(self._max_object_size)
            if data is not None and expected is not None and len(data) != expected:
                raise errand.failure(INCOMPLETE, f"{len(data)} of {expected} bytes came")
        except BaseException as error:
            growing.end(failure := failure_of(errand, error))
            await body.close()
            if failure is error or not isinstance(error, Exception):
                raise
            raise failure from error
        growing.end()
        if data is not None:
            await body.close()
        return data

    async def again(
        self, errand: Errand, entry: StoredResponse, start: bytes
    ) -> AsyncGenerator[bytes]:
        """What follows `start` in the body of `entry`, by another fetch.

        For a client that has got `start` from a fetch that it can share no longer. The origin has
        to send those very bytes again, or it is not known to go on with the same body.
        """
        response = await self.ask(errand, errand.upstream_request(None))
        try:
            has_changed = errand.failure(INCOMPLETE, "it has changed while it was sent")
            if response.status != entry.status or not is_same_kind(entry.headers, response.headers):
                raise has_changed
            at = 0
            async for piece in response.body:
                known = piece[: len(start) - at]
                if not start.startswith(known, at):
                    raise has_changed
                at += len(known)
                if len(known) < len(piece):
                    yield piece[len(known) :]
            if at < len(start):
                raise has_changed
        finally:
            await response.body.close()


def _declared_length(response: Response) -> int | None:
    length = response.body.length
    return seconds(response.headers.get("content-length")) if length is None else length


def failure_of(errand: Errand, error: BaseException) -> UpstreamError:
    """What those are told who read along."""
    if isinstance(error, UpstreamError):
        return error
    if isinstance(error, Exception):  # a body that a plugin made
        return errand.failure(INCOMPLETE, str(error) or type(error).__name__)
    return errand.given_up()
