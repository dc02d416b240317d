"""Keep answers in memory, the least recently used going first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import batched

from cachetools import Cache, LRUCache

from edgeproxy.api import Config, Listed, Size, StoredResponse, Tier, hookimpl
from edgeproxy.api import Plugin as BasePlugin

LARGEST_SHARE = 8  # an entry above 1/8 of the tier would push out too many others


class Memory(Config):
    """The `cache.memory` block of a policy."""

    max_size: Size = "256MiB"  # type: ignore[assignment]


class MemoryTier:
    """Entries in an LRU table that counts bytes."""

    name = "memory"

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: LRUCache[str, StoredResponse] = LRUCache(
            max_bytes, getsizeof=lambda entry: entry.size
        )

    def get(self, id: str) -> StoredResponse | None:
        return self._entries.get(id)

    async def load(self, id: str) -> StoredResponse | None:
        return self._entries.get(id)

    async def put(self, id: str, entry: StoredResponse) -> None:
        if entry.size > self._max_bytes // LARGEST_SHARE:
            self._entries.pop(id, None)  # what it replaces is not true any more
        else:
            self._entries[id] = entry

    async def remove(self, id: str) -> None:
        self._entries.pop(id, None)

    async def entries(self) -> AsyncIterator[Sequence[Listed]]:
        for ids in batched(list(self._entries), 500):
            # Past the LRU table's own access: to be listed is not to be used.
            found = [Cache.__getitem__(self._entries, id) for id in ids if id in self._entries]
            yield [Listed(entry, len(entry.body)) for entry in found]

    def stats(self) -> dict[str, int]:
        return {
            "objects": len(self._entries),
            "bytes": int(self._entries.currsize),
            "max_bytes": self._max_bytes,
        }


class Plugin(BasePlugin):
    """A tier of the cache in memory."""

    Config = Memory
    section = "cache.memory"

    def __init__(self, config: Memory) -> None:
        self.config = config
        self.tier = MemoryTier(config.max_size)

    @hookimpl
    def register_tiers(self) -> Iterable[Tier]:
        return [self.tier]
