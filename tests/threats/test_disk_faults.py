"""Row 48: a disk that is gone, full or slow costs the cache on it, and no visitor an answer.

What the disk tier does by itself is in tests/plugins/test_disk_cache.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

import pytest

from edgeproxy.api import Plugin, StoredResponse, Tier, hookimpl
from edgeproxy.policy.installed import Installed, Registry
from edgeproxy.policy.installed import installed as all_installed
from edgeproxy.testing import Proxy, running
from edgeproxy_memory_cache.plugin import MemoryTier
from tests.threats.raw import Origin, answering, ask

FRESH = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok"

ON_DISK = """\
version: 1
origins: {{site: {{url: http://127.0.0.1:1/}}}}
cache: {{memory: {{max_size: 1KiB}}, disk: {{path: {folder}, max_size: 64MiB}}}}
"""

SLOW = """\
version: 1
plugins: [slow]
origins: {site: {url: http://127.0.0.1:1/}}
cache: {memory: {max_size: 1MiB}}
"""


async def verdict(proxy: Proxy, target: str) -> str:
    """What the cache says of a request that has to be answered well."""
    reply = await ask(proxy.port, target)
    assert (reply.status, reply.body) == (200, b"ok")
    await proxy.server.app.plan.cache.settled()
    return (reply.get("cache-status") or "").removeprefix("edgeproxy; ")


async def test_disk_that_is_gone_is_gone_without_and_taken_up_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    folder = tmp_path / "cache"
    async with (
        Origin(answering(FRESH)) as origin,
        running(ON_DISK.format(folder=folder), origins={"site": origin.url}) as proxy,
    ):
        await verdict(proxy, "/a")
        assert "detail=disk" in await verdict(proxy, "/a")
        folder.rename(tmp_path / "away")
        folder.write_text("in its place")
        for number in range(20):
            assert "fwd=uri-miss" in await verdict(proxy, f"/gone/{number}")
        assert len([r for r in caplog.records if "disk cache" in r.getMessage()]) <= 2
        folder.unlink()
        (tmp_path / "away").rename(folder)
        async with asyncio.timeout(20):
            while "detail=disk" not in await verdict(proxy, "/back"):
                pass


async def test_disk_that_hangs_holds_one_visitor_up_for_a_moment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class HangingTier(MemoryTier):
        name = "disk"

        def get(self, id: str) -> StoredResponse | None:
            return None

        async def load(self, id: str) -> StoredResponse | None:
            await asyncio.Event().wait()
            return None

        async def put(self, id: str, entry: StoredResponse) -> None:
            await asyncio.Event().wait()

    class Slow(Plugin):
        @hookimpl
        def register_tiers(self) -> Iterable[Tier]:
            return [HangingTier(1 << 20)]

    registry = Registry(
        [*all_installed().values(), Installed("slow", lambda: Slow, distribution="slow-plugin")]
    )
    async with (
        Origin(answering(FRESH)) as origin,
        running(SLOW, origins={"site": origin.url}, registry=registry) as proxy,
    ):
        for number in range(5):  # 10 s, if each of them had to wait
            assert (await ask(proxy.port, f"/{number}", within_s=5)).status == 200
        assert (await ask(proxy.port, "/0")).status == 200
        assert "hit" in ((await ask(proxy.port, "/0")).get("cache-status") or "")
    said = [r for r in caplog.records if "is too slow" in r.getMessage()]
    assert len(said) == 1
