"""A tier that cannot answer in time is passed by, and left alone for a while."""

from __future__ import annotations

import asyncio

import pytest

from edgeproxy.caching.levels import Levels
from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.http import Headers
from tests.edgeproxy.caching.conftest import DictTier


class HangingTier(DictTier):
    """Answers once `goes_on` is set."""

    def __init__(self) -> None:
        super().__init__("disk", slow=True)
        self.goes_on = asyncio.Event()
        self.asked = 0

    async def load(self, id: str) -> StoredResponse | None:
        self.asked += 1
        await self.goes_on.wait()
        return await super().load(id)


async def test_what_is_not_found_in_time_is_a_miss(caplog: pytest.LogCaptureFixture) -> None:
    memory, disk = DictTier(), HangingTier()
    levels = Levels([memory, disk], load_within_s=0.01)
    for key in ("a", "b", "c"):
        assert (await levels.load(key, Headers(), "identity")).entry is None
    assert disk.asked == 1  # then it was left alone
    [record] = caplog.records
    assert record.getMessage() == "cache tier disk is too slow; it is left alone for 10 s"


async def test_a_tier_that_answers_in_time_is_asked_again() -> None:
    disk = HangingTier()
    disk.goes_on.set()
    levels = Levels([DictTier(), disk], load_within_s=10)
    for key in ("a", "b", "c"):
        await levels.load(key, Headers(), "identity")
    assert disk.asked == 3
