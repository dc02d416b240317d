"""Operations of the admin listener on figures: for Prometheus, and as plain data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edgeproxy.admin import asked
from edgeproxy.admin.messages import Text
from edgeproxy.metrics.counts import Reloads
from edgeproxy.metrics.exposition import scraped
from edgeproxy.metrics.snapshot import Snapshot, with_reloads


class MetricsOperations:
    """`read` is asked for the counts each time."""

    def __init__(self, read: Callable[[], Awaitable[Snapshot]], reloads: Reloads) -> None:
        self._read = read
        self._reloads = reloads

    async def figures(self, _: asked.Nothing) -> Snapshot:
        return with_reloads(await self._read(), self._reloads)

    async def metrics(self, what: asked.Scrape) -> Text:
        # In a thread: the text of a thousand series takes 5 ms.
        found = await self.figures(asked.Nothing())
        return Text(*await asyncio.to_thread(scraped, found, what.accept))
