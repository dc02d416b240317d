"""Row 36: what is confidential in a request, an answer or the policy is in no log, on no error
page, in no explanation or recording, and in nothing that the admin listener says."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgeproxy.admin.routes import ROUTES
from edgeproxy.api import Config, Exchange, Secret, hookimpl
from edgeproxy.api import Plugin as BasePlugin
from edgeproxy.log import AccessLog
from edgeproxy.policy.installed import Installed, Registry
from edgeproxy.policy.installed import installed as all_installed
from edgeproxy.testing import running
from tests.threats.raw import Act, Link, Origin, answering, once, send

NAMES = (
    "authorization", "proxy", "cookie", "set-cookie", "query", "form", "json", "key", "policy",
    "location", "referer", "upload",
)  # fmt: skip
CANARIES = {name: f"canary-{name}-5f3a9c" for name in NAMES}


class Settings(Config):
    token: Secret


class Keyed(BasePlugin):
    """Holds a secret of the policy, and fails on demand."""

    Config = Settings

    @hookimpl
    def admit(self, exchange: Exchange) -> None:
        if exchange.request.path == "/broken":
            raise RuntimeError(f"broken with {self.config!r}")


POLICY = """\
version: 1
plugins: [keyed]
keyed: {token: "${env:EDGEPROXY_TEST_TOKEN}"}
explain: {key: "${env:EDGEPROXY_TEST_TOKEN}", sample: 1, keep: 1000}
admin: {listen: "127.0.0.1:0", token: "${env:EDGEPROXY_TEST_TOKEN}"}
record: {path: RECORDING}
origins:
  site:
    url: http://127.0.0.1:1/
    kind: http
    connect_timeout: 150ms
    first_byte_timeout: 150ms
    idle_timeout: 150ms
    total_timeout: 500ms
cache:
  memory: {max_size: 1MiB}
  rules: {kept: {ttl: 0s, stale_while_revalidate: 1d, stale_if_error: 0s}}
limits: {body_size: 4KiB, head_timeout: 300ms}
routes:
  - {name: kept, match: {path: /kept}, origin: site, cache: kept}
  - {name: form, match: {path: /form, body: {form: {password: {present: true}}}}, origin: site}
  - {name: none, match: {host: nowhere.example}, filters: [{respond: {status: 503}}]}
  - {name: all, origin: site}
"""


def _requests() -> list[bytes]:
    """One of each kind that can be answered, refused, or fail on the way."""
    fields = (
        f"Host: site.example\r\nAuthorization: Bearer {CANARIES['authorization']}\r\n"
        f"Proxy-Authorization: Basic {CANARIES['proxy']}\r\nX-Api-Key: {CANARIES['key']}\r\n"
        f"Cookie: session={CANARIES['cookie']}\r\n"
        f"Referer: https://a.example/?token={CANARIES['referer']}\r\n"
    )
    query = f"?token={CANARIES['query']}&x=1"
    form = f"password={CANARIES['form']}"
    document = f'{{"password": "{CANARIES["json"]}"}}'
    upload = CANARIES["upload"] * 400
    anonymous = "Host: site.example\r\n"
    heads = [
        f"GET /a{query} HTTP/1.1\r\n{fields}\r\n",
        f"GET /kept{query} HTTP/1.1\r\n{anonymous}\r\n",
        f"GET /kept{query} HTTP/1.1\r\n{fields}\r\n",
        f"GET /broken{query} HTTP/1.1\r\n{fields}\r\n",
        f"GET /a{query}\x00 HTTP/1.1\r\n{fields}\r\n",
        f"GET /a{query} HTTP/1.1\r\n{fields}Host: {CANARIES['key']}\r\n\r\n",
        f"GET /a{query} HTTP/1.1\r\n{fields}X-Bad: a\x00b\r\n\r\n",
        f"GET /%zz{query} HTTP/1.1\r\n{fields}\r\n",
        f"GET /a{query}{'x' * 9000} HTTP/1.1\r\n{fields}\r\n",
        f"GET /a{query} HTTP/1.1\r\n{fields}X-Long: {'x' * 40000}\r\n\r\n",
        f"GET /a{query} HTTP/1.1\r\n{fields}",
        f"GET http://user:{CANARIES['key']}@site.example/{query} HTTP/1.1\r\n{fields}\r\n",
        f"CONNECT a.example:443 HTTP/1.1\r\n{fields}\r\n",
        f"TRACE /{query} HTTP/1.1\r\n{fields}\r\n",
        f"POST /form{query} HTTP/1.1\r\n{fields}Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(form)}\r\n\r\n{form}",
        f"POST /a{query} HTTP/1.1\r\n{fields}Content-Type: application/json\r\n"
        f"Content-Length: {len(document)}\r\n\r\n{document}",
        f"POST /a{query} HTTP/1.1\r\n{fields}Content-Length: {len(upload)}\r\n\r\n{upload}",
        f"POST /a{query} HTTP/1.1\r\n{fields}Content-Length: 99\r\n\r\n{form}",
        f"POST /a{query} HTTP/1.1\r\n{fields}Transfer-Encoding: chunked\r\n\r\n{form}\r\n",
        f"DELETE /a{query} HTTP/1.1\r\n{fields}\r\n",
    ]
    return [head.encode("latin-1") for head in heads]


COOKIE = f"Set-Cookie: session={CANARIES['set-cookie']}\r\n".encode()
LOCATION = f"Location: https://a.example/?token={CANARIES['location']}\r\n".encode()


async def _silent(link: Link) -> None:
    await link.gone()


ORIGINS: dict[str, Act] = {
    "well": answering(b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\nok" % COOKIE),
    "cacheable": answering(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 2\r\n\r\nok"),
    "redirecting": answering(b"HTTP/1.1 302 Found\r\n%bContent-Length: 0\r\n\r\n" % LOCATION),
    "failing": answering(b"HTTP/1.1 500 No\r\n%bContent-Length: 0\r\n\r\n" % COOKIE),
    "closing": once(b""),
    "silent": _silent,
    "garbage": once(b"garbage " + COOKIE + LOCATION),
    "a bad field": once(b"HTTP/1.1 200 OK\r\n%bX: a\0b\r\nContent-Length: 2\r\n\r\nok" % COOKIE),
    "a bad line": once(b"HTTP/1.1 200 OK\r\n%b" % COOKIE.replace(b":", b"")),
    "too many fields": once(b"HTTP/1.1 200 OK\r\n" + COOKIE * 120 + b"\r\n"),
    "two lengths": once(
        b"HTTP/1.1 200 OK\r\n%bContent-Length: 1\r\nContent-Length: 2\r\n\r\nok" % COOKIE
    ),
    "cut short": once(b"HTTP/1.1 200 OK\r\n%bContent-Length: 9\r\n\r\nok" % COOKIE),
    "bad chunks": once(b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\nzz\r\n" % COOKIE),
    "bad gzip": answering(
        b"HTTP/1.1 200 OK\r\n%bContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n%b"
        % (COOKIE, gzip.compress(b"x")[:9])
    ),
}  # fmt: skip


async def _said_by_admin(address: str, ids: list[str]) -> dict[str, str]:
    """All that can be looked at, by path."""
    said: dict[str, str] = {}
    headers = {"Authorization": f"Bearer {CANARIES['policy']}"}
    async with aiohttp.ClientSession(f"http://{address}", headers=headers) as session:
        for route in ROUTES:
            if route.method != "GET":
                continue
            is_of_url = route.path in ("/cache/object", "/cache/why", "/explain")
            query = {"url": "http://site.example/kept"} if is_of_url else {}
            for path in {route.path.replace("{id}", id) for id in ids}:
                async with session.get(path, params=query) as answer:
                    assert is_of_url or answer.status == 200, path
                    said[f"admin {path}"] = await answer.text()
    assert len(said) >= len(ids) + 10
    return said


@pytest.mark.parametrize("how", ORIGINS)
async def test_no_canary_is_logged_or_shown_on_an_error_page(
    how: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("EDGEPROXY_TEST_TOKEN", CANARIES["policy"])
    caplog.set_level(logging.DEBUG, "edgeproxy")
    registry = Registry(
        [*all_installed().values(), Installed("keyed", lambda: Keyed, "keyed-plugin")]
    )
    written = [io.StringIO() for _ in range(2)]
    shown = b""
    async with (
        Origin(ORIGINS["cacheable"]) as origin,
        running(
            POLICY.replace("RECORDING", str(tmp_path / "recording")),
            origins={"site": origin.url},
            registry=registry,
        ) as proxy,
    ):
        for raw in _requests()[1:2]:
            await send(proxy.port, raw)
        await proxy.server.app.plan.cache.settled()
        origin.act = ORIGINS[how]
        await origin.hang_up()
        for got in await asyncio.gather(*(send(proxy.port, raw) for raw in _requests())):
            head, _, body = got.partition(b"\r\n\r\n")
            ours = b"edgeproxy" in body or b"request id" in body or head[9:10] in b"45"
            shown += got if ours and how != "failing" else body
        await proxy.server.app.plan.cache.settled()
        for style, stream in zip(("text", "json"), written, strict=True):
            for entry in proxy.log:
                AccessLog(stream, style).write(entry)
        assert len(proxy.log) >= 8
        explained = proxy.server.app.explained
        ids = [one["id"] for one in explained.summaries()]
        assert len(ids) >= 8
        admin = await _said_by_admin(proxy.server.admin.address, ids)
    out, err = capfd.readouterr()
    places = {
        "the access log": "".join(stream.getvalue() for stream in written),
        "the log": "\n".join(
            logging.Formatter("%(message)s").format(record) for record in caplog.records
        ),
        "standard output": out,
        "standard error": err,
        "an answer": shown.decode("latin-1"),
        "the list of requests": json.dumps(explained.summaries()),
        "an explanation": json.dumps([explained.find(id) for id in ids]),
        "the recording": (tmp_path / "recording").read_bytes().decode("latin-1"),
        **admin,
    }
    found = [
        f"{name} in {place}"
        for place, text in places.items()
        for name, canary in CANARIES.items()
        if canary in text
    ]
    assert not found, found
