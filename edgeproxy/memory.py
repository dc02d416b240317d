"""How much memory a process takes, and how Python and the C library look after it, set for a
program that serves for weeks."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BASE_BYTES = 110 * 2**20
"""What a worker takes with nothing stored and nobody served: docs/performance.md."""

MMAP_THRESHOLD_BYTES = 256 * 1024
TRIM_THRESHOLD_BYTES = 1024 * 1024
MAX_ARENAS = 2
_PAGE_BYTES = resource.getpagesize()
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc


def resident_bytes(process: int) -> int:
    """What a process holds in memory, as `process_resident_memory_bytes` says it: with all that it
    shares with others (proc(5)). 0 if it is no more, or if the system does not tell."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * _PAGE_BYTES


async def stay_trimmed(every_s: float = 60.0) -> None:
    """Give back what the C library keeps of freed memory, whenever the process is a tenth larger
    than after the last time.

    Bodies that go leave holes between those that stay, which glibc gives back only if asked: 29 of
    193 MiB after 45 minutes. Who allocates meanwhile waits for it: 30 ms where 340 MiB were free.
    """
    trim = _from_c("malloc_trim")
    least = resident_bytes(os.getpid())
    while trim is not None:
        await asyncio.sleep(every_s)
        if resident_bytes(os.getpid()) > 1.1 * least:
            await asyncio.to_thread(trim, 0)
            least = resident_bytes(os.getpid())


@contextmanager
def collector_paused() -> Iterator[None]:
    """Build something large without the collector of cycles. Of 10,000 routes it takes half of the
    time, for nothing: all of them stay. What has no cycles is freed as always."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def settle() -> None:
    """Leave alone what is there for good, look less often, and give back what was freed: for a
    program that begins to serve.

    What a request leaves behind goes by its reference counts; a look at all that is cached holds up
    every client for tens of milliseconds.
    """
    _give_back_what_is_free()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _give_back_what_is_free() -> None:
    """Keep glibc's heap from growing by its holes.

    Left to itself it takes blocks of up to 32 MiB from the heap once it has seen one freed, where
    bodies that stay and bodies that go lie mixed; and gives each thread an arena of its own.
    Another C library (macOS, musl) has neither the habit nor the call.
    """
    mallopt = _from_c("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, MAX_ARENAS)
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


def _from_c(name: str) -> Callable[..., Any] | None:
    """A function that glibc has, and other C libraries may not have."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
