"""The tiers as one store: look from the top, promote what lies deep, tell variants apart.

A response without Vary stands under its key. Of one with Vary, a record of the fields that choose
stands there (`status` 0), and each variant under `variant_id`. The record lies in the tiers like
any entry, so it survives whatever they survive.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from edgeproxy.caching.fields import members
from edgeproxy.caching.freshness import MAX_VARY_FIELDS
from edgeproxy.caching.purges import Purges
from edgeproxy.caching.tiers import Spills, StoredResponse, TakesSpills, Tier, is_same
from edgeproxy.caching.variants import selection, variant_id
from edgeproxy.http import Headers

MAX_VARIANTS = 64
PROMOTED_BYTES = 1024 * 1024
"""A larger body that a tier keeps on disk stays there, and is sent from there."""

_PROMOTED = "_promoted"

LOAD_WITHIN_S = 2.0
"""A tier that takes longer is no quicker than the origin: what is asked of it is a miss."""

REST_S = 10.0  # for which it is then not asked, so that not every miss pays for it

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """What the tiers have for a request.

    `id` is where an answer to it stands or would stand; while the key has no record of variants
    it is a guess, good enough to tell which misses may share a fetch.
    """

    id: str
    entry: StoredResponse | None = None
    tier: str = ""  # where the entry was, with `_promoted` if it has moved up
    has_variants: bool = False

    @property
    def home(self) -> str:
        """The tier that had the entry, whether it has moved up or not."""
        return self.tier.removesuffix(_PROMOTED)


class Levels:
    """Tiers, fastest first. What `purges` covers is not found, or found stale."""

    def __init__(
        self,
        tiers: Sequence[Tier],
        purges: Purges | None = None,
        *,
        load_within_s: float = LOAD_WITHIN_S,
    ) -> None:
        self.tiers = tuple(tiers)
        self._load_within_s = load_within_s
        self._rests_until_s: dict[str, float] = {}  # by name of a tier, in the loop's time
        self.purges = purges or Purges()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._changes = [0] * 1024  # by hash of the id
        self._promoted = [0] * len(self.tiers)
        self._takers = [tier for tier in self.tiers if isinstance(tier, TakesSpills)]
        for tier in self.tiers[:-1]:
            if isinstance(tier, Spills) and self._takers:
                tier.follow_evictions(self._demote)

    def get(self, key: str, headers: Headers, coding: str, url: str = "") -> Found:
        """What can be had without waiting, to answer for the public `url`: whole responses."""
        entry, tier = self._get(key, url)
        if entry is None or entry.key != key or entry.is_partial:
            return Found(_guessed_id(key, coding))
        if entry.status:
            return Found(key, entry, tier)
        chosen = selection(headers, coding, [name for name, _ in entry.vary])
        id = variant_id(key, chosen)
        entry, tier = self._get(id, url)
        if entry is None or entry.key != key or entry.vary != chosen or entry.is_partial:
            return Found(id, has_variants=True)
        return Found(id, entry, tier, has_variants=True)

    async def load(self, key: str, headers: Headers, coding: str, url: str = "") -> Found:
        """What there is in any tier, also heads of what is kept in parts. What lies deep moves
        up."""
        entry, tier = await self._load(key, url)
        if entry is None or entry.key != key:
            return Found(_guessed_id(key, coding))
        if entry.status:
            return Found(key, entry, tier)
        chosen = selection(headers, coding, [name for name, _ in entry.vary])
        id = variant_id(key, chosen)
        entry, tier = await self._load(id, url)
        if entry is None or entry.key != key or entry.vary != chosen:
            return Found(id, has_variants=True)
        return Found(id, entry, tier, has_variants=True)

    async def put(self, entry: StoredResponse, headers: Headers, coding: str) -> str:
        """Keep `entry` as the answer to requests that choose as `headers` and `coding` do.

        The id under which it stands.
        """
        key = entry.key
        names = vary_names(entry.headers)
        async with self._lock(key):
            record = await self._record(key)
            if not names:
                await self._put(key, entry)
                await self._remove_all(_ids(record))
                return key
            known = [name for name, _ in record.vary] if record else []
            union = known + [name for name in names if name not in known]
            if len(union) > MAX_VARY_FIELDS:
                union = names
            chosen = selection(headers, coding, union)
            id = variant_id(key, chosen)
            await self._put(id, replace(entry, vary=chosen))
            before = _ids(record)
            after = [*(before if union == known else ()), id] if id not in before else before
            if record is None or after != before or union != known:
                await self._put(key, _record(key, union, after[-MAX_VARIANTS:], entry))
                await self._remove_all(set(before) - set(after[-MAX_VARIANTS:]))
            return id

    async def forget(self, id: str) -> None:
        """No entry under `id` any more, nor any variant of it if it is a key."""
        record = await self._record(id)
        await self._remove_all([id, *_ids(record)])

    def _get(self, id: str, url: str) -> tuple[StoredResponse | None, str]:
        for tier in self.tiers:
            try:
                entry = tier.get(id)
            except Exception:
                log.exception("cache tier %s failed in get", tier.name)
                continue
            if entry is not None and not self.purges.is_empty:
                entry = self.purges.seen(entry, url)
            if entry is not None:
                return entry, tier.name
        return None, ""

    async def _load(self, id: str, url: str = "") -> tuple[StoredResponse | None, str]:
        before = self._state(id)
        for level, tier in enumerate(self.tiers):
            entry = await self._loaded(tier, id)
            if entry is None:
                continue
            left = self.purges.seen(entry, url)
            if left is None:
                # Unless something else may have taken its place meanwhile.
                if self._state(id) == before and not self._lock(entry.key).locked():
                    await self._remove_from(tier, id)
                continue
            if level and await self._promote(level, id, entry, before):
                return left, tier.name + _PROMOTED
            return left, tier.name
        return None, ""

    async def _loaded(self, tier: Tier, id: str) -> StoredResponse | None:
        """What `tier` has under `id`; None if it fails, or cannot say so in time."""
        now_s = asyncio.get_running_loop().time
        if self._rests_until_s and now_s() < self._rests_until_s.get(tier.name, 0.0):
            return None
        try:
            async with asyncio.timeout(self._load_within_s):
                return await tier.load(id)
        except TimeoutError:
            self._rests_until_s[tier.name] = now_s() + REST_S
            log.warning("cache tier %s is too slow; it is left alone for %d s", tier.name, REST_S)
        except Exception:
            log.exception("cache tier %s failed in load", tier.name)
        return None

    async def _promote(self, level: int, id: str, entry: StoredResponse, before: int) -> bool:
        """Put into the tiers above what was found in this one, unless it has changed since the
        state `before`; whether it is there now."""
        if entry.is_lazy:
            room = max(upper.stats().get("max_bytes", 0) for upper in self.tiers[:level]) // 8
            if entry.body_bytes > min(PROMOTED_BYTES, room):
                return False
            try:
                entry = await entry.read()
            except OSError as error:
                log.warning("cache tier %s: %s", self.tiers[level].name, error)
                return False
        if self._state(id) != before:
            return False
        is_above = False
        for upper in self.tiers[:level]:
            await self._put_in(upper, id, entry)
            is_above = is_above or await self._has(upper, id)  # it may have refused
        self._promoted[level] += is_above
        return is_above

    def _demote(self, id: str, entry: StoredResponse) -> None:
        """Offer what a tier lets go to those that did not keep it at once. Without waiting, so
        that it cannot come after a later removal."""
        if self.purges.seen(entry) is None:
            return
        for taker in self._takers:
            taker.offer(id, entry)

    def _state(self, id: str) -> int:
        """Another number after each change of what stands under `id`."""
        return self._changes[hash(id) % len(self._changes)]

    def _changed(self, id: str) -> None:
        self._changes[hash(id) % len(self._changes)] += 1

    def stats(self) -> dict[str, dict[str, int]]:
        """What each tier tells of itself, and how often an entry moved up from it."""
        return {
            tier.name: {**tier.stats(), "promoted": promoted}
            for tier, promoted in zip(self.tiers, self._promoted, strict=True)
        }

    async def add_encoded(
        self, id: str, made_of: StoredResponse, encoded: tuple[tuple[str, bytes], ...]
    ) -> None:
        """Note with the entry under `id` its other codings, if it is still what they were made
        of, in each tier that has it."""
        async with self._lock(made_of.key):
            for tier in self.tiers:
                before = self._state(id)
                try:
                    entry = await tier.load(id)
                    if entry is None or self._state(id) != before:
                        continue
                    if entry.encoded is None and is_same(entry.body, made_of.body):
                        self._changed(id)
                        await tier.put(id, replace(await entry.read(), encoded=encoded))
                except Exception:
                    log.exception("cache tier %s failed", tier.name)

    async def drop_purged(self, tier: Tier, id: str, key: str) -> bool:
        """Remove what lies under `id` in `tier`, if it is purged: what has taken its place since
        somebody saw it there stays."""
        async with self._lock(key):
            entry = await tier.load(id)
            if entry is None or self.purges.seen(entry) is not None:
                return False
            await tier.remove(id)
            return True

    async def _put(self, id: str, entry: StoredResponse) -> None:
        self._changed(id)
        for tier in self.tiers:
            await self._put_in(tier, id, entry)

    async def _has(self, tier: Tier, id: str) -> bool:
        try:
            return await tier.load(id) is not None
        except Exception:
            log.exception("cache tier %s failed in load", tier.name)
            return False

    async def _put_in(self, tier: Tier, id: str, entry: StoredResponse) -> None:
        try:
            await tier.put(id, entry)
        except Exception:
            log.exception("cache tier %s failed in put", tier.name)

    async def _remove_all(self, ids: Iterable[str]) -> None:
        for id in ids:
            self._changed(id)
            for tier in self.tiers:
                await self._remove_from(tier, id)

    async def _remove_from(self, tier: Tier, id: str) -> None:
        try:
            await tier.remove(id)
        except Exception:
            log.exception("cache tier %s failed in remove", tier.name)

    async def _record(self, key: str) -> StoredResponse | None:
        entry, _ = await self._load(key)
        return entry if entry is not None and entry.key == key and not entry.status else None

    def _lock(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())


def vary_names(headers: Headers) -> list[str]:
    """The request fields that Vary names, in lower case, each once."""
    return list(dict.fromkeys(members(headers, "vary")))


def _guessed_id(key: str, coding: str) -> str:
    return variant_id(key, (("accept-encoding", coding),))


def _ids(record: StoredResponse | None) -> list[str]:
    """The variants that a record lists, oldest first."""
    if record is None or not isinstance(record.body, bytes):
        return []
    return [str(id) for id in json.loads(record.body)]


def _record(
    key: str, names: Sequence[str], ids: Sequence[str], entry: StoredResponse
) -> StoredResponse:
    return StoredResponse(
        key=key,
        status=0,
        headers=Headers(),
        body=json.dumps(ids).encode(),
        stored_at_s=entry.stored_at_s,
        requested_at_s=entry.requested_at_s,
        fresh_for_s=0.0,
        vary=tuple((name, None) for name in names),
    )
