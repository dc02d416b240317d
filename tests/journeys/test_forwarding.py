"""What an origin is told, and what a visitor is told: nothing of other hops, nothing personal."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.pages import Pages
from edgeproxy.testing import running

POLICY = """\
version: 1
trusted_proxies: TRUSTED
origins:
  origin: {url: "http://origin.example/base/", kind: KIND}
routes:
  - {name: all}
"""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

CLAIMS = {
    "forwarded": "for=6.6.6.6",
    "x-forwarded-for": "6.6.6.6",
    "x-forwarded-host": "evil.example",
    "x-forwarded-port": "666",
    "x-forwarded-proto": "gopher",
    "x-forwarded-server": "evil",
    "x-real-ip": "6.6.6.6",
    "via": "1.0 evil",
}


def policy(kind: str, trusted: str = "[]") -> str:
    return POLICY.replace("KIND", kind).replace("TRUSTED", trusted)


@pytest.mark.parametrize("kind", ["pages", "http"])
async def test_the_origin_gets_its_own_name_and_base_path(raw_origin: Any, kind: str) -> None:
    async with raw_origin(OK) as origin:
        async with running(policy(kind), origins={"origin": origin.url + "base/"}) as proxy:
            await proxy.get("/a//b/../%7Eme?q=%2f#", headers={"host": "www.example.org"})
        assert origin.heads[-1].startswith(b"GET /base/a/~me?q=%2f HTTP/1.1\r\n")
        assert origin.fields()["host"] == origin.url.removeprefix("http://").rstrip("/")


async def test_an_app_learns_who_asked_from_us_alone(raw_origin: Any) -> None:
    async with raw_origin(OK) as origin:
        async with running(policy("http"), origins={"origin": origin.url}) as proxy:
            await proxy.get("/", headers={**CLAIMS, "host": "www.example.org:8080"})
        fields = origin.fields()
        assert fields["x-forwarded-for"] == "127.0.0.1"
        assert fields["x-forwarded-host"] == "www.example.org:8080"
        assert fields["x-forwarded-proto"] == "http"
        assert fields["via"] == "1.1 edgeproxy"
        for name in ("forwarded", "x-forwarded-port", "x-forwarded-server", "x-real-ip"):
            assert name not in fields


async def test_behind_a_trusted_proxy_the_app_learns_the_client_and_the_scheme(
    raw_origin: Any,
) -> None:
    async with raw_origin(OK) as origin:
        trusting = policy("http", "[127.0.0.0/8]")
        async with running(trusting, origins={"origin": origin.url}) as proxy:
            await proxy.get("/", headers={"x-forwarded-for": "6.6.6.6, 9.9.9.9",
                                          "x-forwarded-proto": "https"})  # fmt: skip
        fields = origin.fields()
        assert fields["x-forwarded-for"] == "9.9.9.9"
        assert fields["x-forwarded-proto"] == "https"


async def test_a_site_learns_nothing_about_who_asked(make_site: Any) -> None:
    async with Pages(make_site(index="home"), base="/base/") as site:
        async with running(policy("pages"), origins={"origin": site.url}) as proxy:
            personal = {"cookie": "session=1", "authorization": "Basic eDp5",
                        "proxy-authorization": "Basic eDp5"}  # fmt: skip
            reply = await proxy.get("/", headers={**CLAIMS, **personal})
            assert reply.status == 200
        sent = site.log[-1].headers
        assert {name.lower() for name, _ in sent.pairs} <= {
            "host", "accept-encoding", "via", "cdn-loop", "accept", "user-agent", "connection",
        }  # fmt: skip
        assert sent["Via"] == "1.1 edgeproxy"


async def test_an_app_gets_cookies_and_credentials(raw_origin: Any) -> None:
    async with raw_origin(OK) as origin:
        async with running(policy("http"), origins={"origin": origin.url}) as proxy:
            headers = {"cookie": "session=1; b=2", "authorization": "Bearer token"}
            await proxy.get("/", headers=headers)
        assert origin.fields()["cookie"] == "session=1; b=2"
        assert origin.fields()["authorization"] == "Bearer token"


@pytest.mark.parametrize("kind", ["pages", "http"])
async def test_fields_of_one_hop_do_not_reach_the_origin(
    raw_origin: Any, ask: Any, kind: str
) -> None:
    async with raw_origin(OK) as origin:
        async with running(policy(kind), origins={"origin": origin.url}) as proxy:
            await ask(
                proxy.port,
                b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close, X-Named, X-Also\r\n"
                b"X-Named: 1\r\nX-Also: 2\r\nX-Kept: 3\r\nKeep-Alive: timeout=5\r\n"
                b"Proxy-Connection: keep-alive\r\nTE: trailers\r\nTrailer: X-T\r\n"
                b"Proxy-Authorization: Basic eDp5\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n",
            )
        fields = origin.fields()
        for name in (
            "x-named", "x-also", "keep-alive", "proxy-connection", "te", "trailer",
            "proxy-authorization", "upgrade", "http2-settings", "transfer-encoding",
        ):  # fmt: skip
            assert name not in fields, name
        assert fields["x-kept"] == "3"


@pytest.mark.parametrize("kind", ["pages", "http"])
async def test_fields_of_one_hop_do_not_reach_the_client(
    raw_origin: Any, ask: Any, kind: str
) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close, X-Named\r\nX-Named: 1\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nTrailer: X-T\r\nUpgrade: h2c\r\n"
        b"Proxy-Connection: close\r\nX-Kept: 3\r\n\r\nok"
    )
    async with raw_origin(answer) as origin:
        async with running(policy(kind), origins={"origin": origin.url}) as proxy:
            reply = await proxy.get("/")
        for name in (
            "x-named", "keep-alive", "proxy-authenticate", "trailer", "upgrade",
            "proxy-connection", "connection",
        ):  # fmt: skip
            assert name not in reply.headers, name
        assert reply.headers["x-kept"] == "3"
        assert reply.body == b"ok"


@pytest.mark.parametrize("trailer", [b"", b"X-T: 1\r\n", b"Set-Cookie: a=evil\r\nHost: evil\r\n"])
async def test_trailers_of_the_origin_are_dropped(
    raw_origin: Any, ask: Any, trailer: bytes
) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
        b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n" + trailer + b"\r\n"
    )
    async with raw_origin(answer) as origin:
        async with running(policy("http"), origins={"origin": origin.url}) as proxy:
            raw = await ask(proxy.port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = raw.partition(b"\r\n\r\n")
        assert b"abcde" in body.replace(b"\r\n", b"").replace(b"3", b"").replace(b"2", b"")
        assert b"x-t" not in raw.lower()
        assert b"evil" not in raw
        assert head.lower().count(b"content-length") <= 1


async def test_trailers_of_the_client_are_dropped(raw_origin: Any, ask: Any) -> None:
    async with raw_origin(OK) as origin:
        async with running(policy("http"), origins={"origin": origin.url}) as proxy:
            raw = await ask(
                proxy.port,
                b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTrailer: X-T\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: secret\r\n\r\n",
            )
        assert raw.startswith(b"HTTP/1.1 200")
        assert b"secret" not in origin.heads[-1] + b"".join(origin.bodies)
        assert b"abc" in origin.bodies[-1]


async def test_early_hints_of_the_origin_do_not_end_the_exchange(raw_origin: Any, ask: Any) -> None:
    async with raw_origin(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK) as origin:
        async with running(policy("http"), origins={"origin": origin.url}) as proxy:
            raw = await ask(proxy.port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert raw.endswith(b"\r\n\r\nok")
        assert b"HTTP/1.1 200" in raw
