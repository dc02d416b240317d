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
from edgeproxy.caching.tiers import StoredResponse, Tier
from edgeproxy.caching.variants import selection, variant_id
from edgeproxy.http import Headers

MAX_VARIANTS = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """What the tiers have for a request.

    `id` is where an answer to it stands or would stand; while the key has no record of variants
    it is a guess, good enough to tell which misses may share a fetch.
    """

    id: str
    entry: StoredResponse | None = None
    tier: str = ""  # where the entry was
    has_variants: bool = False


class Levels:
    """Tiers, fastest first. What `purges` covers is not found, or found stale."""

    def __init__(self, tiers: Sequence[Tier], purges: Purges | None = None) -> None:
        self.tiers = tuple(tiers)
        self.purges = purges or Purges()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def get(self, key: str, headers: Headers, coding: str, url: str = "") -> Found:
        """What can be had without waiting, to answer for the public `url`."""
        entry, tier = self._get(key, url)
        if entry is None or entry.key != key:
            return Found(_guessed_id(key, coding))
        if entry.status:
            return Found(key, entry, tier)
        chosen = selection(headers, coding, [name for name, _ in entry.vary])
        id = variant_id(key, chosen)
        entry, tier = self._get(id, url)
        if entry is None or entry.key != key or entry.vary != chosen:
            return Found(id, has_variants=True)
        return Found(id, entry, tier, has_variants=True)

    async def load(self, key: str, headers: Headers, coding: str, url: str = "") -> Found:
        """What there is in any tier. What lies deep moves up."""
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

    async def put(self, entry: StoredResponse, headers: Headers, coding: str) -> None:
        """Keep `entry` as the answer to requests that choose as `headers` and `coding` do."""
        key = entry.key
        names = vary_names(entry.headers)
        async with self._lock(key):
            record = await self._record(key)
            if not names:
                await self._put(key, entry)
                await self._remove_all(_ids(record))
                return
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
        for level, tier in enumerate(self.tiers):
            try:
                entry = await tier.load(id)
            except Exception:
                log.exception("cache tier %s failed in load", tier.name)
                continue
            if entry is None:
                continue
            left = self.purges.seen(entry, url)
            if left is None:
                await self._remove_from(tier, id)
                continue
            for upper in self.tiers[:level]:
                await self._put_in(upper, id, entry)
            return left, tier.name
        return None, ""

    async def _put(self, id: str, entry: StoredResponse) -> None:
        for tier in self.tiers:
            await self._put_in(tier, id, entry)

    async def _put_in(self, tier: Tier, id: str, entry: StoredResponse) -> None:
        try:
            await tier.put(id, entry)
        except Exception:
            log.exception("cache tier %s failed in put", tier.name)

    async def _remove_all(self, ids: Iterable[str]) -> None:
        for id in ids:
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
    return [str(id) for id in json.loads(record.body)] if record else []


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
