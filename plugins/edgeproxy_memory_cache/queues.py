"""What stays in memory: S3-FIFO, three queues in which nothing moves when it is used.

What is new enters a small queue. If it is used again before it gets to the front, it moves into the
main queue; if not, it goes, and its name stays for a while in a queue of ghosts: should it come
back, it enters the main queue at once. So a scan, or pages asked for once, pass through a tenth of
the memory and leave the rest alone. A use costs a look-up and a counter.

Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import FIFOCache

SMALL_SHARE = 0.1  # of the bytes; what the paper found best, and our traces as well
MOST_USES = 3
BYTES_PER_GHOST = 8192
"""One ghost for so many bytes: as many names as the tier holds pages of that size, and some 3 %
of its memory."""


@dataclass(slots=True, eq=False)
class Kept[T]:
    value: T
    size: int
    uses: int = 0
    is_main: bool = False


class Queues[T]:
    """Values by name, at most `max_bytes` of them by their stated sizes.

    `evicted` is told what goes to make room, and whether it was ever used; it must not change the
    queues.
    """

    def __init__(
        self, max_bytes: int, evicted: Callable[[str, T, bool], None] | None = None
    ) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.evictions = 0
        self._small_bytes = 0
        self._small_limit = int(max_bytes * SMALL_SHARE)
        self._evicted = evicted
        self._table: dict[str, Kept[T]] = {}
        self._small: OrderedDict[str, Kept[T]] = OrderedDict()
        self._main: OrderedDict[str, Kept[T]] = OrderedDict()
        self._ghosts: FIFOCache[int, None] = FIFOCache(max(64, max_bytes // BYTES_PER_GHOST))

    def __len__(self) -> int:
        return len(self._table)

    def get(self, name: str) -> T | None:
        """The value of `name`, which thereby counts as used."""
        kept = self._table.get(name)
        if kept is None:
            return None
        if kept.uses < MOST_USES:
            kept.uses += 1
        return kept.value

    def peek(self, name: str) -> T | None:
        """The value of `name`, which does not count as used."""
        kept = self._table.get(name)
        return None if kept is None else kept.value

    def names(self) -> list[str]:
        return list(self._table)

    def put(self, name: str, value: T, size: int) -> None:
        """Keep `value`, and let go what must make room for it. Replacing is not using."""
        kept = self._table.get(name)
        if kept is not None:
            self._count(kept, -kept.size)
            kept.value, kept.size = value, size
            (self._main if kept.is_main else self._small).move_to_end(name)
        else:
            kept = self._table[name] = Kept(value, size)
            ghost = hash(name)
            if ghost in self._ghosts:
                del self._ghosts[ghost]
                kept.is_main = True
                self._main[name] = kept
            else:
                self._small[name] = kept
        self._count(kept, size)
        while self.bytes > self.max_bytes:
            self._make_room(name)

    def pop(self, name: str) -> T | None:
        """Forget `name`; what it was."""
        kept = self._table.pop(name, None)
        if kept is None:
            return None
        del (self._main if kept.is_main else self._small)[name]
        self._count(kept, -kept.size)
        return kept.value

    def _count(self, kept: Kept[T], size: int) -> None:
        self.bytes += size
        if not kept.is_main:
            self._small_bytes += size

    def _make_room(self, new: str) -> None:
        """One step: the front of a queue goes, or gets another turn. `new` stays."""
        is_full = self._small_bytes > self._small_limit
        if self._small and (is_full or not self._main) and next(iter(self._small)) != new:
            name, kept = self._small.popitem(last=False)
            if kept.uses > 1:
                self._small_bytes -= kept.size
                kept.uses, kept.is_main = 0, True
                self._main[name] = kept
                return
            self._ghosts[hash(name)] = None
        else:
            name, kept = self._main.popitem(last=False)
            if kept.uses or name == new:
                kept.uses = max(0, kept.uses - 1)
                self._main[name] = kept
                return
        del self._table[name]
        self._count(kept, -kept.size)
        self.evictions += 1
        if self._evicted is not None:
            self._evicted(name, kept.value, kept.is_main or kept.uses > 0)
