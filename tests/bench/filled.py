"""edgeproxy with so many pages in memory, fetched from nowhere.

`python -m tests.bench.filled POLICY PORT PAGES`. A million fetches over sockets would take an hour:
here one page goes through the pipeline, and the others are copies of it under their own keys.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from dataclasses import replace
from pathlib import Path

from edgeproxy.api import Body, Exchange, Headers, Origin, Request, Response
from edgeproxy.engine.listening import ListenAddress
from edgeproxy.engine.serve import Server
from edgeproxy_memory_cache.plugin import MemoryTier

PAGE_BYTES = 500


async def numbered(origin: Origin, request: Request) -> Response:
    """The answer of an origin that has every page."""
    text = request.path.encode().ljust(PAGE_BYTES, b".")
    headers = Headers.of(
        ("content-type", "text/html"), ("etag", f'"{request.path}"'), ("content-length", "500")
    )
    return Response(200, headers, Body(text))


async def fill(server: Server, pages: int) -> None:
    """Have every page in memory, as if it had been asked for. Nobody is answered meanwhile."""
    await server.app.handle(Exchange(Request("GET", "edge.test", "/0")))
    cache = server.app.plan.cache
    await cache.settled()
    (tier,) = cache.levels.tiers
    assert isinstance(tier, MemoryTier)
    async for batch in tier.entries():
        first = next(listed.entry for listed in batch if listed.entry.key.endswith("/0"))
    for number in range(pages):
        key, body = first.key.removesuffix("0") + str(number), b"%d" % number
        one = replace(
            first,
            key=key,
            url=first.url.removesuffix("0") + str(number),
            headers=first.headers.copy(),
            body=body.ljust(PAGE_BYTES, b"."),
        )
        await tier.put(key, one)
    gc.collect()


async def serve(policy: str, port: int, pages: int) -> None:
    listen = [ListenAddress("127.0.0.1", port)]
    server = Server([Path(policy)], listen=listen, access_log="off")
    server.app.fetch = numbered
    await server.start()
    await fill(server, pages)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await server.stop()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
