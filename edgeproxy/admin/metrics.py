"""Routes of the admin listener about figures: for Prometheus, and as plain data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web

from edgeproxy.admin.messages import answer, read_query
from edgeproxy.metrics.counts import Reloads
from edgeproxy.metrics.exposition import scraped
from edgeproxy.metrics.snapshot import Snapshot, with_reloads


class MetricsRoutes:
    """`routes` is what the listener serves of them. `read` is asked for the counts each time."""

    def __init__(self, read: Callable[[], Awaitable[Snapshot]], reloads: Reloads) -> None:
        self._read = read
        self._reloads = reloads

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/metrics", self._scraped), web.get("/metrics.json", self._plain)]

    async def snapshot(self) -> Snapshot:
        return with_reloads(await self._read(), self._reloads)

    async def _scraped(self, request: web.Request) -> web.Response:
        read_query(request)
        accept = request.headers.get("Accept", "")
        # In a thread: the text of a thousand series takes 5 ms.
        text, content_type = await asyncio.to_thread(scraped, await self.snapshot(), accept)
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def _plain(self, request: web.Request) -> web.Response:
        read_query(request)
        return answer(cast(dict[str, Any], await self.snapshot()))
