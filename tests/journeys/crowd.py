"""Visitors who come again and again, and what of it failed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

VISITORS = 6


class Crowd:
    """Ask on a connection of their own each time, until they are to stop.

    `path` says what for, by the number of the visitor and how often it has asked before.
    """

    def __init__(self, port: int, path: Callable[[int, int], str]) -> None:
        self.port = port
        self._path = path
        self.words: list[str] = []
        self.failed: list[str] = []
        self._wanted = 0
        self._have_asked = asyncio.Event()  # so many, or one in vain
        self._is_over = False
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(VISITORS)]

    async def _ask(self, number: int) -> None:
        for count in itertools.count():
            if self._is_over:
                return
            path = self._path(number, count)
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n".encode()
                )
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                writer.close()
                if not head.startswith(b"HTTP/1.1 200 "):
                    raise ValueError(head[:60])
                self.words.append(body.decode())
            except (OSError, ValueError) as error:
                self.failed.append(f"{path}: {error!r}")
            if len(self.words) >= self._wanted or self.failed:
                self._have_asked.set()

    async def have_asked(self, more: int) -> None:
        self._wanted = len(self.words) + more
        self._have_asked.clear()
        async with asyncio.timeout(40):
            await self._have_asked.wait()

    async def stop(self) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)
