"""Row 9: with the accelerator and without it, whatever a client sends gets the same bytes.

Two proxies with one policy, before origins that answer by the request alone, are sent the same
requests, one after the other: valid ones, odd ones and the corpus of hostile ones. All that comes
back is compared, but dates, ages and ids. `make differential` runs a hundred thousand.
"""

from __future__ import annotations

import os

import pytest

from tests.threats.two_ways import compare

REQUESTS = int(os.environ.get("EDGEPROXY_DIFFERENTIAL", "1500"))


@pytest.mark.timeout(0 if REQUESTS > 10_000 else 60)
async def test_both_ways_give_the_same_bytes() -> None:
    found = await compare(REQUESTS, seed=int(os.environ.get("EDGEPROXY_SEED", "1")))
    assert not found.differences, found.differences[0]
    assert found.remembered > REQUESTS // 10, "too few answers came from memory to prove anything"
