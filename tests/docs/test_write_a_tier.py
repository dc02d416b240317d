"""The tier of the page about tiers passes the kit that the page tells of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from edgeproxy import api
from edgeproxy.api import Tier
from edgeproxy.testing_tiers import TierContract
from tests.docs.blocks import DOCS, blocks, table

PAGE = DOCS / "write-a-tier.md"
CODE = next(block.text for block in blocks(PAGE) if block.words == ("python",))


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    found: dict[str, Any] = {"__name__": "edgeproxy_table"}
    exec(compile(CODE, str(PAGE), "exec", dont_inherit=True), found)
    return found


class TestTheTierOfThePage(TierContract):
    @pytest.fixture(autouse=True)
    def of_the_page(self, names: dict[str, Any]) -> None:
        self.names = names

    @asynccontextmanager
    async def make(self, max_bytes: int) -> AsyncIterator[Tier]:
        yield self.names["TableTier"](max_bytes)


def test_the_plugin_of_the_page_registers_it(names: dict[str, Any]) -> None:
    plugin = names["Plugin"](names["Table"]())
    (tier,) = plugin.register_tiers()
    assert tier.stats()["max_bytes"] == 64 * 2**20
    assert names["Plugin"].section == "cache.table"


def test_it_is_short() -> None:
    lines = CODE[CODE.index("class TableTier") : CODE.index("class Plugin")].splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 32


def test_the_protocols_are_there() -> None:
    for row in table("write-a-tier.md", "## What a tier may do besides"):
        assert hasattr(api, row[0].strip("`"))
