"""How the admin listener takes connections: a bounded number, so that a flood of them takes neither
the descriptors nor the time that visitors need."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

MAX_CONNECTIONS = 32


class Runner(web.AppRunner):
    """Above MAX_CONNECTIONS the oldest one is closed: so who opens many, and says nothing, keeps
    no operator out."""

    __slots__ = ()

    @property
    def server(self) -> Any:
        """What makes a protocol for each connection, once it is set up."""
        return self._connection if super().server is not None else None

    def _connection(self) -> asyncio.Protocol:
        server = super().server
        assert server is not None
        there = server.connections
        for oldest in there[: max(0, len(there) - MAX_CONNECTIONS + 1)]:
            oldest.force_close()
        return server()
