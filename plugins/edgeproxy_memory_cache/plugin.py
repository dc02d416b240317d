"""Keep answers in memory, those that are asked for again longest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import batched

from edgeproxy.api import (
    Config,
    Listed,
    MemoryUse,
    Resource,
    Size,
    StoredResponse,
    Tier,
    hookimpl,
)
from edgeproxy.api import Plugin as BasePlugin

from .queues import Queues

LARGEST_SHARE = 8  # an entry above 1/8 of the tier would push out too many others


class Memory(Config):
    """Keep answers in memory, those that are asked for again longest."""

    max_size: Size = "256MiB"  # type: ignore[assignment]
    """How much memory the stored answers may take."""


class MemoryTier:
    """Entries by id, chosen by how often they are used: see `queues`."""

    name = "memory"

    def __init__(self, max_bytes: int) -> None:
        self._entries: Queues[StoredResponse] = Queues(max_bytes, self._evicted)
        self._heard: Callable[[str, StoredResponse], None] | None = None
        self._hits = self._misses = self._admitted = self._rejected = 0

    def get(self, id: str) -> StoredResponse | None:
        entry = self._entries.get(id)
        if entry is None:
            self._misses += 1
        else:
            self._hits += 1
        return entry

    async def load(self, id: str) -> StoredResponse | None:
        return self._entries.get(id)  # counted as a hit or a miss by `get`, which comes first

    async def put(self, id: str, entry: StoredResponse) -> None:
        size = entry.size
        if entry.is_lazy or size > self._entries.max_bytes // LARGEST_SHARE:
            self._entries.pop(id)  # what it replaces is not true any more
            self._rejected += 1
        else:
            self._entries.put(id, entry, size)
            self._admitted += 1

    async def remove(self, id: str) -> None:
        self._entries.pop(id)

    async def entries(self) -> AsyncIterator[Sequence[Listed]]:
        for ids in batched(self._entries.names(), 500):
            found = [entry for id in ids if (entry := self._entries.peek(id)) is not None]
            yield [Listed(entry, len(entry.body)) for entry in found]

    def follow_evictions(self, heard: Callable[[str, StoredResponse], None]) -> None:
        self._heard = heard

    def _evicted(self, id: str, entry: StoredResponse, was_used: bool) -> None:
        if was_used and self._heard is not None:
            self._heard(id, entry)

    def stats(self) -> dict[str, int]:
        return {
            "objects": len(self._entries),
            "bytes": self._entries.bytes,
            "max_bytes": self._entries.max_bytes,
            "hits": self._hits,
            "misses": self._misses,
            "admitted": self._admitted,
            "rejected": self._rejected,
            "evicted": self._entries.evictions,
        }


class Plugin(BasePlugin):
    """A tier of the cache in memory."""

    repeatable = True
    Config = Memory
    section = "cache.memory"

    def __init__(self, config: Memory) -> None:
        self.config = config
        self.tier = MemoryTier(config.max_size)

    def resources(self) -> Iterable[Resource]:
        return [MemoryUse("cache.memory", self.config.max_size)]

    @hookimpl
    def register_tiers(self) -> Iterable[Tier]:
        return [self.tier]
