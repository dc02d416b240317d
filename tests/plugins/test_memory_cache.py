"""The memory tier."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import ValidationError

from edgeproxy.api import Tier
from edgeproxy_memory_cache.plugin import Memory, MemoryTier, Plugin
from tests.plugins.tier_contract import TierContract, entry


class TestMemoryTier(TierContract):
    @asynccontextmanager
    async def make(self, max_bytes: int) -> AsyncIterator[Tier]:
        yield MemoryTier(max_bytes)


async def test_an_entry_is_had_without_waiting() -> None:
    tier = MemoryTier(2**20)
    kept = entry()
    await tier.put("id", kept)
    assert tier.get("id") is kept


def test_a_policy_sets_the_size() -> None:
    plugin = Plugin(Memory.model_validate({"max_size": "1MiB"}))
    (tier,) = plugin.register_tiers()
    assert tier.stats()["max_bytes"] == 2**20
    assert Memory().max_size == 256 * 2**20


@pytest.mark.parametrize("size", ["0", "1", "much", 5])
def test_a_size_has_a_unit(size: object) -> None:
    with pytest.raises(ValidationError):
        Memory.model_validate({"max_size": size})
