"""What lies in the tiers, for people: lists, single entries, figures, and a check of every byte."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from edgeproxy.caching.cache import Cache
from edgeproxy.caching.freshness import current_age_s
from edgeproxy.caching.purges import public_url
from edgeproxy.caching.tiers import KeepsMarks, Listed, Listing, StoredResponse, Tier
from edgeproxy.caching.variants import id_of

HIDDEN = frozenset(("set-cookie", "authorization", "proxy-authenticate"))
"""Fields whose values are not shown."""

MAX_FOUND = 100


@dataclass(slots=True)
class Checked:
    """What a check of one tier found. Damaged entries are gone from it afterwards."""

    tier: str
    objects: int = 0
    bytes: int = 0
    damaged: list[str] = field(default_factory=list)  # their URLs


async def objects(cache: Cache, prefix: str = "", limit: int = 100) -> list[dict[str, Any]]:
    """Up to `limit` entries whose URL begins with `prefix`, tier by tier.

    `prefix` is text, such as `example.org/guide`; one that begins with a slash counts for every
    host.
    """
    prefix = prefix.partition("://")[2] or prefix
    found: list[dict[str, Any]] = []
    for tier in cache.levels.tiers:
        async for listed in _entries(tier):
            if len(found) >= limit:
                return found
            url = listed.entry.url
            if _target(url, prefix).startswith(prefix):
                seen = cache.purges.seen(listed.entry)
                if seen is not None:
                    found.append(_summary(cache, tier, listed, seen))
    return found


async def entries_of(cache: Cache, url: str) -> list[dict[str, Any]]:
    """Every stored answer for `url`, with its fields: one for each variant in each tier.

    Raises ValueError if that is no URL.
    """
    wanted = public_url(url)
    found: list[dict[str, Any]] = []
    for tier in cache.levels.tiers:
        async for listed in _entries(tier):
            seen = cache.purges.seen(listed.entry)
            if seen is None or _target(seen.url, wanted) != wanted or len(found) >= MAX_FOUND:
                continue
            found.append(
                {
                    **_summary(cache, tier, listed, seen),
                    "key": seen.key.split("\n"),
                    "vary": dict(seen.vary),
                    "headers": [
                        [name, "(not shown)" if name.lower() in HIDDEN else value]
                        for name, value in seen.headers.items()
                    ],
                }
            )
    return found


def stats(cache: Cache) -> dict[str, Any]:
    """Figures of each tier, and the purges that are still heeded."""
    marks: dict[str, int] = {}
    for mark in cache.purges.marks():
        marks[mark.kind] = marks.get(mark.kind, 0) + 1
    figures = cache.levels.stats()
    return {
        "tiers": [
            {"name": tier.name, "shared": is_shared(tier), **figures[tier.name]}
            for tier in cache.levels.tiers
        ],
        "marks": marks,
    }


def is_shared(tier: Tier) -> bool:
    """Whether other processes have the same entries. Such a tier keeps marks, for their sake."""
    return isinstance(tier, KeepsMarks)


async def verify(cache: Cache) -> list[Checked]:
    """Read every entry of every tier, as if it were to be served."""
    results = []
    for tier in cache.levels.tiers:
        checked = Checked(tier.name)
        async for listed in _entries(tier):
            found = await tier.load(id_of(listed.entry))
            try:
                found = await found.read() if found is not None else None
            except OSError:
                found = None
            if found is None or found.key != listed.entry.key:
                checked.damaged.append(listed.entry.url or listed.entry.key)
            elif found.status:
                checked.objects += 1
                checked.bytes += listed.body_bytes
        results.append(checked)
    return results


async def _entries(tier: Tier) -> AsyncIterator[Listed]:
    if isinstance(tier, Listing):
        async for batch in tier.entries():
            for listed in batch:
                if listed.entry.status:  # else a record of variants, which is no answer
                    yield listed


def _target(url: str, like: str) -> str:
    """`url`, without its host if `like` has none."""
    return url[url.find("/") :] if like.startswith("/") else url


def _summary(cache: Cache, tier: Tier, listed: Listed, entry: StoredResponse) -> dict[str, Any]:
    age_s = current_age_s(entry.age_s, entry.stored_at_s, cache.now())
    return {
        "url": entry.url,
        "tier": tier.name,
        "shared": is_shared(tier),
        "status": entry.status,
        "bytes": listed.body_bytes,
        "type": entry.headers.get("content-type", ""),
        "age_s": round(age_s, 1),
        "fresh_for_s": round(entry.fresh_for_s - age_s, 1),
        "tags": list(entry.tags),
        "gone_since_s": round(cache.now() - entry.gone_at_s, 1) if entry.gone_at_s else None,
    }
