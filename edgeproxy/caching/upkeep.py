"""What keeps marks true beyond a lookup: written down by tiers that last, and swept up after."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Sequence

from edgeproxy.caching.levels import Levels
from edgeproxy.caching.neighbours import Neighbours
from edgeproxy.caching.purges import Changes, Mark
from edgeproxy.caching.tiers import KeepsMarks, Listing, StoredResponse, Tier
from edgeproxy.caching.variants import id_of

READ_EVERY_S = 0.25
"""How soon another process on the same folder heeds a purge for what it holds in memory."""

SWEEP_AFTER_S = 1.0
SWEEP_EVERY_S = 900.0
REST_PER_SWEEP = 9  # a tenth of the time at most, however often there is a purge
SLOWEST_FETCH_S = 3600.0
"""What was asked for longer ago is not stored, so that no mark has to be kept for ever."""

log = logging.getLogger(__name__)


class Upkeep:
    """The marks of purges in tiers. `open` before the first lookup, `close` at the end."""

    def __init__(self, levels: Levels, neighbours: Neighbours) -> None:
        self._levels = levels
        self._neighbours = neighbours
        self._tiers = tiers = levels.tiers
        self._purges = levels.purges
        self._keepers = [tier for tier in tiers if isinstance(tier, KeepsMarks)]
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._is_behind = False  # something could not be written down

    async def open(self) -> None:
        """Know what was purged before the start, and begin to watch and to sweep."""
        self.follow()
        for tier in self._keepers:
            await self._safely(tier, tier.read_marks())
        await self._save_all()
        self._tasks = [asyncio.ensure_future(self._sweep_on())]
        if self._keepers:
            self._tasks.append(asyncio.ensure_future(self._read_on()))

    def follow(self) -> None:
        """Be who tiers tell of marks: one at a time is, where several caches have the same tier."""
        for tier in self._keepers:
            tier.follow_marks(self._heard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def announce(self, changes: Changes) -> list[str]:
        """Have marks that were made here heeded everywhere, and written down. As `save`."""
        marks = list(changes.new.values())
        _, failed = await asyncio.gather(self._neighbours.tell(marks), self.save(changes))
        return failed

    def sweep_soon(self) -> None:
        """There are new marks."""
        self._news.set()

    async def save(self, changes: Changes) -> list[str]:
        """Have changes written down. The names of tiers that could not."""
        self._news.set()
        if not (changes.new or changes.gone):
            return []
        new = list(changes.new.values())
        failed = [
            tier.name for tier in self._keepers
            if not await self._safely(tier, tier.save_marks(new, changes.gone))
        ]  # fmt: skip
        self._is_behind = self._is_behind or bool(failed)
        return failed

    async def _save_all(self) -> None:
        self._is_behind = False
        await self.save(Changes({(m.kind, m.value): m for m in self._purges.marks()}))

    async def sweep(self) -> int:
        """Remove what hard marks cover, then forget marks under which nothing lies any more.

        A mark stays for as long as a fetch from before it may still be under way.
        """
        settled_s = self._purges.stamp() - SLOWEST_FETCH_S
        before, needed, removed = self._purges.marks(), set[tuple[str, str]](), 0
        for tier in self._tiers:
            if not isinstance(tier, Listing):
                return removed  # nobody knows what lies there
            async for batch in tier.entries():
                for listed in batch:
                    removed += await self._swept_entry(tier, listed.entry, needed)
                await asyncio.sleep(0)
        done = [
            mark for mark in before
            if max(mark.hard_s, mark.soft_s) < settled_s and (mark.kind, mark.value) not in needed
        ]  # fmt: skip
        await self.save(Changes(gone=self._purges.drop(done)))
        return removed

    async def _swept_entry(
        self, tier: Tier, entry: StoredResponse, needed: set[tuple[str, str]]
    ) -> bool:
        if not entry.status:
            return False
        if self._purges.seen(entry) is None:
            return await self._levels.drop_purged(tier, id_of(entry), entry.key)
        needed.update((mark.kind, mark.value) for mark in self._purges.covering(entry))
        return False

    async def _sweep_on(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_EVERY_S):
                    await self._news.wait()
            await asyncio.sleep(SWEEP_AFTER_S)
            self._news.clear()
            if self._purges.is_empty:
                continue
            began_s = time.monotonic()
            try:
                await self.sweep()
            except Exception:
                log.exception("sweeping up after purges failed")
            await asyncio.sleep(REST_PER_SWEEP * (time.monotonic() - began_s))

    async def _read_on(self) -> None:
        while True:
            await asyncio.sleep(READ_EVERY_S)
            for tier in self._keepers:
                await self._safely(tier, tier.read_marks())
            if self._is_behind:
                await self._save_all()

    def _heard(self, marks: Sequence[Mark]) -> None:
        if self._purges.merge(marks).new:
            self._news.set()

    async def _safely[T](self, tier: Tier, work: Awaitable[T]) -> T | None:
        try:
            return await work
        except Exception:
            log.exception("cache tier %s failed with marks", tier.name)
            return None
