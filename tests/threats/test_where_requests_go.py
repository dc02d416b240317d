"""Rows 31 and 32: no request goes in circles, and no name leads into our own network."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
from typing import Any

import pytest

from edgeproxy.engine.resolving import ProhibitedAddress, Resolver, is_public
from edgeproxy.testing import running
from tests.threats.raw import Origin, ask, send

CIRCLE = """\
version: 1
origins:
  site: {url: "http://127.0.0.1:%d/", kind: %s}
cache: {memory: {max_size: 8MiB}}
routes:
  - {name: passed, match: {path: /passed/**}, origin: site, cache: false, websocket: true}
  - {name: all, origin: site}
"""

NAMED = """\
version: 1
origins:
  site: {{url: "http://site.test:{port}/", kind: http, allow_private: {allow}}}
routes:
  - {{name: all, origin: site, cache: false, websocket: true}}
"""

UPGRADE = (
    b"GET /passed/socket HTTP/1.1\r\nHost: site.example\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


# ---------------------------------------------------------------- row 31: loops


@pytest.mark.parametrize("kind", ["pages", "http"])
async def test_origin_that_is_the_proxy_itself_is_noticed_after_one_hop(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "edgeproxy")
    async with running(CIRCLE % (1, kind)) as proxy:
        await proxy.reload(CIRCLE % (proxy.port, kind))
        for target in ("/", "/passed/x"):
            before = len(proxy.log)
            reply = await ask(proxy.port, target)
            assert reply.status == 508
            assert len(proxy.log) - before == 2  # the visitor's request, and the one that came back
    assert "origin 'site' leads back here; name another place in its url" in caplog.text


async def test_what_an_app_is_sent_goes_in_no_circle_either() -> None:
    async with running(CIRCLE % (1, "http")) as proxy:
        await proxy.reload(CIRCLE % (proxy.port, "http"))
        assert (await ask(proxy.port, "/passed/x", method="POST", body=b"once")).status == 508
        assert (await send(proxy.port, UPGRADE)).startswith(b"HTTP/1.1 508 ")
        assert len(proxy.log) == 4


async def test_circle_over_another_proxy_is_noticed() -> None:
    async with running(CIRCLE % (1, "http")) as one, running(CIRCLE % (one.port, "http")) as other:
        await one.reload(CIRCLE % (other.port, "http"))
        for target in ("/", "/passed/x"):
            assert (await ask(one.port, target)).status == 508
        assert len(one.log) == 4
        assert len(other.log) == 2


async def test_forged_sign_of_a_circle_harms_nobody_else() -> None:
    """Who says that a request has been here is refused; the next visitor is not. Nor does a proxy
    behind us that is told so count as down."""
    async with (
        Origin() as origin,
        running(CIRCLE % (1, "http"), origins={"site": origin.url}) as inner,
        running(CIRCLE % (1, "http"), origins={"site": inner.url}) as outer,
    ):
        assert (await ask(outer.port, "/a")).status == 200
        [hops] = [asked.get("cdn-loop") for asked in origin.requests()]
        ids = re.findall("edgeproxy;id=([0-9a-f]{12})", hops or "")
        assert len(ids) == 2
        for id in ids * 3:
            for said in (f"edgeproxy;id={id}", f'other, edgeproxy ; id="{id}"'):
                assert (await ask(outer.port, "/b", f"CDN-Loop: {said}")).status == 508
        assert (await ask(outer.port, "/b")).status == 200
        assert not outer.server.app.health.reports()
        many = ", ".join(f"edgeproxy;id={number:012}" for number in range(16))
        assert (await ask(outer.port, "/b", f"CDN-Loop: {many}")).status == 508
        assert (await ask(outer.port, "/c", "CDN-Loop: other.example")).status == 200
        assert {asked.get("cdn-loop") for asked in origin.requests()} == {hops}


# ------------------------------------------------------------ row 32: addresses


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Let DNS answer each question about `site.test` with the next address, the last for ever."""
    loop = asyncio.get_running_loop()
    system, left, asked = loop.getaddrinfo, list(answers), []

    async def getaddrinfo(host: Any, port: Any, **hints: Any) -> Any:
        if host != "site.test":
            return await system(host, port, **hints)
        asked.append(host)
        address = left.pop(0) if len(left) > 1 else left[0]
        hints["flags"] = socket.AI_NUMERICHOST
        return await system(address, port, **hints | {"family": socket.AF_UNSPEC})

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return asked


async def test_name_that_leads_to_this_machine_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resolving(monkeypatch, "127.0.0.1")
    async with Origin() as origin, running(NAMED.format(port=origin.port, allow="false")) as proxy:
        reply = await ask(proxy.port)
        assert reply.status == 502
        assert "error=destination_ip_prohibited" in (reply.get("proxy-status") or "")
        assert b"127.0.0.1" not in reply.body
        assert (await send(proxy.port, UPGRADE)).startswith(b"HTTP/1.1 502 ")
        assert not origin.links
    assert "say `allow_private: true` of the origin" in caplog.text


async def test_name_that_may_lead_to_this_machine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "127.0.0.1")
    async with Origin() as origin, running(NAMED.format(port=origin.port, allow="true")) as proxy:
        assert (await ask(proxy.port)).status == 200
        await send(proxy.port, UPGRADE)
        assert len(origin.links) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_address_that_the_policy_names_is_asked(host: str) -> None:
    async with Origin() as origin:
        policy = NAMED.format(port=origin.port, allow="false").replace("site.test", host)
        async with running(policy) as proxy:
            assert (await ask(proxy.port)).status == 200


async def test_name_is_judged_whenever_it_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: what passed is what is connected to, and what comes next is judged again."""
    asked = resolving(monkeypatch, "198.41.0.4", "169.254.169.254")
    resolver = Resolver(allow_private=False)
    first = await resolver.resolve("site.test", 80, socket.AF_UNSPEC)
    assert [one["host"] for one in first] == ["198.41.0.4"]
    with pytest.raises(ProhibitedAddress, match=r"169\.254\.169\.254"):
        await resolver.resolve("site.test", 80, socket.AF_UNSPEC)
    assert len(asked) == 2


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1",
        "240.0.0.1", "255.255.255.255", "192.88.99.1", "::", "::1", "::7f00:1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1", "2002:7f00:1::", "2001:0:1::", "2001:db8::1", "fc00::1", "fd00::1",
        "fe80::1", "ff02::1",
    ],
)  # fmt: skip
def test_address_that_is_not_of_the_internet(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["185.199.108.153", "1.1.1.1", "2606:50c0:8000::153", "64:ff9b::b9c7:6c99"]
)
def test_address_of_the_internet(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


async def test_redirect_of_an_origin_is_handed_on_and_not_followed() -> None:
    async with Origin() as other:
        location = f"http://127.0.0.1:{other.port}/secret"
        head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"

        async def act(link: Any) -> None:
            while await link.request() is not None:
                await link.send(head.encode())

        async with (
            Origin(act) as origin,
            running(CIRCLE % (1, "http"), origins={"site": origin.url}) as proxy,
        ):
            reply = await ask(proxy.port, "/passed/x")
            assert (reply.status, reply.get("location")) == (302, location)
        assert not other.links
