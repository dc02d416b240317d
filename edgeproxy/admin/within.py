"""The routes of the admin listener, asked from within a process, without a listener."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from edgeproxy.admin.messages import MAX_POLICY_BYTES, told_in_json


class Within:
    """Whoever asks here has been let in already: see `AdminListener`."""

    def __init__(self, routes: Iterable[web.RouteDef]) -> None:
        self._routes = routes
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application(middlewares=[told_in_json], client_max_size=MAX_POLICY_BYTES)
        application.add_routes(self._routes)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=2)
        await self._runner.setup()

    async def ask(self, method: str, target: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the answer. The request takes the way of any other, but for the
        network: handlers see no difference."""
        assert self._runner is not None
        assert self._runner.server is not None
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(self._runner.server, theirs)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            writer.write(
                f"{method} {target} HTTP/1.1\r\nHost: within\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            )
            writer.write(body)
            head, _, text = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        return int(head.split(b" ")[1]), json.loads(text)

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
