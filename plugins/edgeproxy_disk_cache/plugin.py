"""Keep answers on disk, in a folder of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from edgeproxy.api import (
    Config,
    Folder,
    Listed,
    Mark,
    Resource,
    Size,
    StoredResponse,
    Tier,
    hookimpl,
)
from edgeproxy.api import Plugin as BasePlugin

from .blocks import FileBody
from .store import Store

READERS = 4
MAX_WAITING_BYTES = 64 * 2**20
"""Entries that wait to be written; beyond that, new ones are not kept, so that a slow disk does
not fill the memory."""


def _plain(path: Path) -> Path:
    return path.expanduser().absolute()


class Disk(Config):
    """Keep answers on disk, where they outlive a restart."""

    path: Annotated[Path, AfterValidator(_plain)]
    """A folder for this alone, relative to where edgeproxy is started; it is created."""
    max_size: Size = "10GiB"  # type: ignore[assignment]
    """How much of the disk the stored answers may take."""
    admit: Literal["always", "second_hit"] = "second_hit"
    """What gets a place once four fifths are taken: everything, or what is asked for again."""


class DiskTier:
    """A store whose waiting is done in threads: one that writes, a few that read."""

    name = "disk"

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writer = ThreadPoolExecutor(1, "disk-cache-write")
        self._readers = ThreadPoolExecutor(READERS, "disk-cache-read")
        self._waiting_bytes = 0
        self._heard: Callable[[Sequence[Mark]], None] = lambda marks: None
        self._is_closed = False
        self._hits = self._misses = 0

    def get(self, id: str) -> StoredResponse | None:
        return None

    async def load(self, id: str) -> StoredResponse | None:
        entry = await self._read(self._store.load, id)
        if entry is None:
            self._misses += 1
        else:
            self._hits += 1
        return entry

    async def put(self, id: str, entry: StoredResponse) -> None:
        if entry.is_lazy and not isinstance(entry.body, FileBody):
            await self.remove(id)  # another tier's; to read it now would let others overtake it
            return
        if self._waiting_bytes + entry.size > MAX_WAITING_BYTES:
            await self.remove(id)  # what is there is not true any more
            return
        self._waiting_bytes += entry.size
        try:
            await self._write(self._store.put, id, entry)
        finally:
            self._waiting_bytes -= entry.size

    def offer(self, id: str, entry: StoredResponse) -> None:
        size = entry.size
        if self._is_closed or self._waiting_bytes + size > MAX_WAITING_BYTES:
            return
        self._waiting_bytes += size

        def written(_: asyncio.Future[None]) -> None:
            self._waiting_bytes -= size

        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._writer, self._store.offer, id, entry).add_done_callback(written)

    async def remove(self, id: str) -> None:
        await self._write(self._store.remove, id)

    async def entries(self) -> AsyncIterator[Sequence[Listed]]:
        after = 0
        while after >= 0 and not self._is_closed:
            page = await self._read(self._store.listed, after)
            if page is None:
                raise OSError(f"{self._store.path} cannot be read now")
            after, batch = page
            yield batch

    def follow_marks(self, heard: Callable[[Sequence[Mark]], None]) -> None:
        self._heard = heard
        self._store.tell_again()

    async def read_marks(self) -> None:
        await self._read(self._store.read_marks)

    async def save_marks(self, new: Sequence[Mark], gone: Sequence[Mark] = ()) -> bool:
        if self._is_closed:
            return False
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, self._store.save_marks, new, gone)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()

        def tell(marks: Sequence[Mark]) -> None:
            """Before the result of the read that found them gets to the loop."""
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(lambda: self._heard(marks))

        self._store.heard = tell
        await self._write(self._store.open)

    async def close(self) -> None:
        """Finish what waits to be written, and close."""
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.get_running_loop().run_in_executor(self._writer, self._store.close)
        self._writer.shutdown()
        self._readers.shutdown()

    def stats(self) -> dict[str, int]:
        used = {"hits": self._hits, "misses": self._misses}
        return {**self._store.stats, **used, **self._store.counts}

    async def _read[*A, T](self, work: Callable[[*A], T | None], *args: *A) -> T | None:
        if self._is_closed:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._readers, work, *args)

    async def _write(self, work: Callable[..., None], *args: object) -> None:
        if not self._is_closed:
            await asyncio.get_running_loop().run_in_executor(self._writer, work, *args)


class Plugin(BasePlugin):
    """A tier of the cache on disk."""

    repeatable = True
    Config = Disk
    section = "cache.disk"

    def __init__(self, config: Disk) -> None:
        self.config = config
        picky = config.admit == "second_hit"
        self.tier = DiskTier(Store(config.path, config.max_size, picky=picky))

    def resources(self) -> Iterable[Resource]:
        return [Folder("disk cache", self.config.path, self.config.max_size)]

    @hookimpl
    def register_tiers(self) -> Iterable[Tier]:
        return [self.tier]

    @hookimpl
    async def startup(self) -> None:
        await self.tier.open()

    @hookimpl
    async def shutdown(self) -> None:
        await self.tier.close()
