"""Reading through the cache: from a request to an answer, asking the origin only if need be."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from edgeproxy.caching.answers import Asked
from edgeproxy.caching.assembling import Assembler
from edgeproxy.caching.background import Background
from edgeproxy.caching.bodies import Budget
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.encodings import wanted
from edgeproxy.caching.errand import Answer, Errand, Forward
from edgeproxy.caching.fetching import Fetcher
from edgeproxy.caching.keeping import Keeper
from edgeproxy.caching.levels import Found, Levels
from edgeproxy.caching.neighbours import Alone, Neighbours
from edgeproxy.caching.purges import Purges, Selection
from edgeproxy.caching.reuse import Reuse, hit, left_s, may_reuse, ruled_stale_use, told
from edgeproxy.caching.sharing import Sharing
from edgeproxy.caching.tiers import StoredResponse, Tier
from edgeproxy.caching.upkeep import Upkeep
from edgeproxy.caching.variants import accepted_coding, id_of
from edgeproxy.health import Health
from edgeproxy.http import Headers, Request, Response

BODY_MEMORY_BYTES = 256 * 1024 * 1024
MAX_KEY_SHOWN = 512
CLOSE_WITHIN_S = 5.0

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
        neighbours: Neighbours | None = None,
    ) -> None:
        self.purges = purges or Purges(now)
        self.health = health or Health(now)
        neighbours = neighbours or Alone()
        self.levels = Levels(tiers, self.purges)
        self.upkeep = Upkeep(self.levels, neighbours)
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
        self.assembler = Assembler(
            self.levels, self.fetcher, self.keeper, self.background, self.body_memory, now
        )
        self.sharing = Sharing(
            self.levels,
            self.fetcher,
            self.keeper,
            self.health,
            self.background,
            self.body_memory,
            neighbours,
            now,
        )

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
                return self.shown(hit(errand, found, fresh_for_s, now_s), key)
        return self.shown(await self._slowly(errand, found), key)

    def shown(self, answer: Answer, key: str) -> Answer:
        """`answer`, with the key in its status if the policy says so."""
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
                await self.upkeep.announce(self.purges.add(mark, soft=False))

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
        return await self.upkeep.announce(changes)

    async def forget(self, key: str) -> None:
        """Drop everything under `key`, also what is being fetched at this moment."""
        self.sharing.forget(key)
        await self.levels.forget(key)

    def now(self) -> float:
        """The moment, in seconds since 1970."""
        return self._now()

    async def settled(self) -> None:
        """Return when no fetch, revalidation or store is under way in the background."""
        await self.background.settled()

    async def close(self) -> None:
        """End what goes on in the background. What has been fetched is still stored, in time."""
        await self.upkeep.close()
        self.sharing.close()
        self.assembler.close()
        self.keeper.close()
        await self.background.end(CLOSE_WITHIN_S)

    # ------------------------------------------------------------ with a store, without an origin

    async def _slowly(self, errand: Errand, found: Found) -> Answer:
        answer = await self._not_at_hand(errand, found)
        if isinstance(answer, Reuse) and answer.entry.is_partial:
            entry = answer.entry
            answer = await self.assembler.answer(errand, answer) or await self._pass(errand, entry)
        return answer if isinstance(answer, Answer) else told(errand, answer, self._now())

    async def _pass(self, errand: Errand, head: StoredResponse) -> Answer | Reuse:
        """What is too large to be kept, from the origin."""
        found = Found(id_of(head), head)
        return await self.sharing.alone(errand, found, "bypass")

    async def _not_at_hand(self, errand: Errand, found: Found) -> Answer | Reuse:
        if found.entry is None:
            found = await self._load(errand)
        if found.entry is None and self.health.trouble(errand.origin) is not None:
            errand, found = await self._without_coding(errand, found)
        entry = found.entry
        if entry is not None and entry.is_partial and errand.asked.is_whole:
            return await self._pass(errand, entry)
        if entry is not None and may_reuse(entry, errand.asked):
            fresh_for_s = left_s(entry, errand.rule, self._now())
            if fresh_for_s > 0:
                if errand.wanted and entry.encoded is None:
                    self.keeper.encode_later(found.id, entry)
                status = f"hit; ttl={int(fresh_for_s)}; detail={found.tier}"
                return Reuse(entry, "hit", status, tier=found.home)
            if self._may_wait_for_news(errand, found, -fresh_for_s):
                cause = self.health.trouble(errand.origin)
                detail = found.tier if cause is None else "origin_down"
                status = f"hit; ttl={int(fresh_for_s)}; detail={detail}"
                return Reuse(entry, "stale", status, cause, tier=found.home)
        return await self.sharing.answer(errand, found)

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
            if not self.sharing.is_under_way(errand, found):
                self._probe(errand, found)
            return True
        if stale_for_s >= use.while_revalidating_s:
            return False
        if not self.sharing.is_under_way(errand, found):
            self.sharing.begin(errand, found)
        return True

    def _probe(self, errand: Errand, found: Found) -> None:
        """Ask for news of a page that is at hand, to see whether its origin is back."""
        if self.health.begin_probe(errand.origin):
            task = self.sharing.begin(errand, found)
            task.add_done_callback(lambda _: self.health.end_probe(errand.origin))

    async def _load(self, errand: Errand) -> Found:
        headers = errand.request.headers
        return await self.levels.load(errand.key, headers, errand.coding, errand.url)


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
