"""Row 53: who asks too often is told so, however it asks; nobody else is."""

from __future__ import annotations

import asyncio

import pytest

from edgeproxy.testing import running
from tests.threats.raw import Answer, Origin, answering, answers, ask, send

POLICY = """\
version: 1
accelerator: {accelerator}
{trusted}
origins: {{site: {{url: http://127.0.0.1:1/, kind: http}}}}
cache: {{memory: {{max_size: 8MiB}}}}
limits: {{request_rate: 0.01, request_burst: 20}}
routes:
  - {{name: moved, match: {{path: /moved}}, redirect: {{path: /}}}}
  - {{name: passed, match: {{path: /passed}}, origin: site, cache: false}}
  - {{name: all, origin: site}}
"""
FRESH = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET %b HTTP/1.1\r\nHost: site.example\r\n%b\r\n"


def policy(accelerator: str = "on", trusted: str = "") -> str:
    return POLICY.format(
        accelerator=accelerator, trusted=trusted and f"trusted_proxies: [{trusted}]"
    )


async def statuses(port: int, target: bytes, count: int, *fields: bytes) -> list[int]:
    """Of so many requests on one connection; `fields` are of one request each, in turn."""
    lines = [fields[number % len(fields)] if fields else b"" for number in range(count)]
    raw = b"".join(GET % (target, line) for line in lines)
    return [reply.status for reply in answers(await send(port, raw))]


@pytest.mark.parametrize("accelerator", ["on", "off"])
@pytest.mark.parametrize("target", [b"/", b"/moved", b"/passed"])
async def test_more_than_the_burst_is_refused_on_both_ways(accelerator: str, target: bytes) -> None:
    async with (
        Origin(answering(FRESH)) as origin,
        running(policy(accelerator), origins={"site": origin.url}) as proxy,
    ):
        got = await statuses(proxy.port, target, 30)
        assert got[:20].count(429) == 0
        assert got[20:] == [429] * 10
        again: Answer = await ask(proxy.port, "/other")  # another connection, another page
        assert again.status == 429
        assert again.get("cache-control") == "no-store"
        assert 1 <= int(again.get("retry-after") or 0) <= 100
        assert len(origin.requests()) <= 20
        assert [entry["status"] for entry in proxy.log[-11:]] == [429] * 11


async def test_hits_that_are_remembered_count() -> None:
    async with (
        Origin(answering(FRESH)) as origin,
        running(policy(), origins={"site": origin.url}) as proxy,
    ):
        for _ in range(3):
            assert (await ask(proxy.port)).status == 200
            await proxy.server.app.plan.cache.settled()
        got = await statuses(proxy.port, b"/", 40)
        assert proxy.server.edge.accelerator.remembered >= 10
    assert got == [200] * 17 + [429] * 23


async def test_invented_addresses_give_no_allowance_but_those_of_trusted_proxies_do() -> None:
    said = [b"X-Forwarded-For: 81.2.69.%d\r\n" % number for number in range(5)]
    async with Origin(answering(FRESH)) as origin:
        async with running(policy(), origins={"site": origin.url}) as proxy:
            got = await statuses(proxy.port, b"/", 50, *said)
        assert got.count(429) == 30
        async with running(policy(trusted="127.0.0.1/32"), origins={"site": origin.url}) as proxy:
            got = await statuses(proxy.port, b"/", 150, *said)
            assert got.count(429) == 50
            networks = [b"X-Forwarded-For: 2001:db8::%d\r\n" % number for number in range(1, 9)]
            got = await statuses(proxy.port, b"/", 50, *networks)
            assert got.count(429) == 30  # one /64 is one client


async def test_a_reload_gives_no_new_allowance_and_no_rate_is_no_limit() -> None:
    async with Origin(answering(FRESH)) as origin:
        text = policy().replace("http://127.0.0.1:1/", origin.url)
        async with running(text) as proxy:
            assert (await statuses(proxy.port, b"/", 25)).count(429) == 5
            await proxy.reload(text.replace("name: all", "name: every"))
            assert (await statuses(proxy.port, b"/", 5)).count(429) == 5
            await proxy.reload(text.replace("request_rate: 0.01, ", ""))
            got = await asyncio.gather(*(statuses(proxy.port, b"/", 50) for _ in range(3)))
            assert [status for each in got for status in each] == [200] * 150
