"""What the C library keeps of freed memory is given back."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ALONE = """
import asyncio, os
from edgeproxy import memory

MIB = 2**20

def resident():
    return memory.resident_bytes(os.getpid())

async def main():
    before = resident()
    trimming = asyncio.ensure_future(memory.stay_trimmed(0.01))
    await asyncio.sleep(0)
    bodies = [bytes(16 * 1024) for _ in range(8192)]
    full = resident()
    assert full - before > 100 * MIB
    staying = bodies[::8]  # so that no block is free as a whole
    del bodies
    async with asyncio.timeout(30):
        while resident() > full - 80 * MIB:
            await asyncio.sleep(0.01)
    assert len(staying) == 1024
    trimming.cancel()

memory.settle()
asyncio.run(main())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps nothing")
def test_the_holes_that_bodies_leave_are_given_back() -> None:
    """In a process of its own, whose heap has no holes before."""
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
