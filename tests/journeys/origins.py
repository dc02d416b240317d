"""Origins in this process: any application, and one that counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web


@contextlib.asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """An aiohttp application on a free port: its URL."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/"
    finally:
        await runner.cleanup()


@dataclass
class Origin:
    """Answers each path with its number of requests; `gate` holds answers back."""

    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.gate.set()

    @classmethod
    @contextlib.asynccontextmanager
    async def serving(cls) -> AsyncIterator[Origin]:
        origin, app = cls(), web.Application()
        app.router.add_route("*", "/{path:.*}", origin.answer)
        async with served(app) as origin.url:
            yield origin

    async def answer(self, request: web.Request) -> web.Response:
        async with self.came:
            self.asked[request.path] += 1
            self.came.notify_all()
        number = self.asked[request.path]
        await self.gate.wait()
        return web.Response(text=f"{request.path} {number}")

    async def has_been_asked(self, count: int) -> None:
        async with asyncio.timeout(20), self.came:
            await self.came.wait_for(lambda: self.asked.total() >= count)
