"""What the C library keeps of freed memory is given back."""

from __future__ import annotations

import asyncio
import os
import platform
from itertools import islice

import pytest

from edgeproxy import memory

MIB = 2**20


def resident() -> int:
    return memory.resident_bytes(os.getpid())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps nothing")
async def test_the_holes_that_bodies_leave_are_given_back() -> None:
    before = resident()
    trimming = asyncio.ensure_future(memory.stay_trimmed(0.01))
    await asyncio.sleep(0)
    bodies = [bytes(16 * 1024) for _ in range(8192)]
    full = resident()
    assert full - before > 100 * MIB
    staying = list(islice(bodies, 0, None, 8))  # so that no block is free as a whole
    del bodies
    async with asyncio.timeout(20):
        while True:
            await asyncio.sleep(0.01)
            if resident() < full - 80 * MIB:
                break
    assert len(staying) == 1024
    trimming.cancel()
