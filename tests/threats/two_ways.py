"""Sends generated requests to two proxies that should not differ, and compares what comes back."""

from __future__ import annotations

import asyncio
import random
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from aiohttp import web

from edgeproxy.api import Exchange, Fact, Plugin, hookimpl
from edgeproxy.policy.installed import Installed, Registry, installed
from edgeproxy.testing import Proxy, running
from tests.hostile_classes import whole_corpus

POLICY = """\
version: 1
accelerator: ACCELERATOR
plugins: [late]
limits: {head_timeout: 500ms, body_timeout: 500ms, body_rate: 1MiB, idle_timeout: 500ms}
trusted_proxies: [127.0.0.1/32]
origins: {site: {url: "ORIGIN"}, app: {url: "ORIGIN", kind: http}}
content: {languages: [en, de, fr]}
experiments:
  hero: {weights: {plain: 1, bold: 1}}
  tone: {weights: {a: 3, b: 1}, by: "header:x-visitor"}
cache:
  memory: {max_size: 8MiB}
  encodings: [br]
  rules:
    html: {ttl: 1h, browser_ttl: 5m, query: sort, tags: [page]}
    all: {ttl: 1h, status_ttl: {404: 1m, 301: 1m}}
routes:
  - {name: moved, match: {path: /old/**}, redirect: /new/**}
  - {name: closed, match: {path: /closed}, respond: {status: 503, body: closed, retry_after: 1m}}
  - {name: german, match: {path: /, language: de}, redirect: {path: /de/, status: 307}}
  - name: europe
    match: {path: /eu/**, continent: EU}
    origin: site
    response_headers: {set: {x-from: "${geo.country}", x-percent: "100%d"}}
    cache: all
  - name: told
    match: {path: /told/**, country: [DE, FR, GB]}
    origin: site
    filters:
      - response_headers:
          set:
            x-said: "${late.tier} in ${geo.country}"
            x-kept: "${content.language}"
            x-lost: "${geo.country}"
      - response_headers:
          set: {x-lost: "nothing", etag: '"${geo.continent}"'}
          append: {x-kept: "${content.device}", vary: "${geo.country}"}
    cache: all
  - {name: elsewhere, match: {path: /told/**}, origin: site, cache: all,
     response_headers: {set: {x-said: "${geo.country}", x-percent%: "%(age)d ${content.language}"}}}
  - {name: late, match: {path: /late/**, header: {x-tier: gold}}, origin: site, cache: all}
  - {name: phones, match: {path: /m/**, device: [mobile, tablet]}, origin: site, cache: all,
     rewrite: {prefix: /phone}}
  - {name: members, match: {path: /a/**, cookie: {member: "yes"}}, origin: site, cache: all,
     response_headers: {remove: etag, append: {cache-control: immutable}}}
  - {name: asked, match: {path: /a/**, header: {x-asked: {prefix: q}}}, origin: site, cache: all}
  - {name: app, match: {path: /app/**}, origin: app}
  - {name: nothing, match: {path: /nothing/**}, origin: site, cache: false}
  - name: pages
    match: {path: /p/**}
    origin: site
    experiment: {name: hero, variants: {bold: {prefix: /bold, response_headers: {x-variant: bold}}}}
    cache: html
  - {name: toned, match: {path: /t/**}, origin: site, cache: all,
     experiment: {name: tone, variants: {b: {redirect: /p/1}}}}
  - {name: rest, origin: site, cache: all}
"""


TIER = Fact[str]("late.tier", default="none")


class Late(Plugin):
    """Decides when a visitor is known already: changes what was asked, and what is known."""

    repeatable = True

    def facts(self) -> Iterable[Fact[str]]:
        return [TIER]

    @hookimpl
    def annotate(self, exchange: Exchange) -> None:
        exchange.facts.defer(TIER, lambda: exchange.request.headers.get("x-asked") or "none")

    @hookimpl
    def admit(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.path == "/late/edit" and request.headers.get("x-kind"):
            request.headers.set("x-tier", "gold")
        elif request.path == "/told/2" and request.headers.get("x-visitor") == "v1":
            exchange.facts[TIER] = "first"


@dataclass(slots=True)
class Found:
    """What came of a comparison."""

    requests: int = 0
    remembered: int = 0
    differences: list[str] = field(default_factory=list)


# ---------------------------------------------------------------- the origin


async def _answer(request: web.Request) -> web.Response:
    """By path and fields alone, so that both proxies hear the same."""
    path = request.rel_url.raw_path
    number = zlib.crc32(path.encode())
    headers = {"ETag": f'"{number:x}"', "Date": "Thu, 01 Jan 2026 00:00:00 GMT"}
    kind = number % 12
    if kind < 7:
        headers["Cache-Control"] = "max-age=600"
    if kind == 1:
        headers["Vary"] = "Accept-Language"
    elif kind == 2:
        headers["Vary"] = "X-Kind, Accept-Encoding"
    elif kind == 3:
        headers["Last-Modified"] = "Wed, 31 Dec 2025 00:00:00 GMT"
        del headers["ETag"]
    elif kind == 7:
        headers["Cache-Control"] = "private"
    elif kind == 8:
        headers["Set-Cookie"] = "seen=1"
    elif kind == 9:
        return web.Response(status=404, text="gone", headers=headers)
    elif kind == 10:
        return web.Response(status=301, headers={**headers, "Location": "/p/2"})
    if request.headers.get("If-None-Match") == headers.get("ETag", ""):
        return web.Response(status=304, headers=headers)
    told = [request.headers.get(name, "-") for name in ("Accept-Language", "X-Kind")]
    text = f"<!doctype html>{path} {told}" + "x" * (number % 3000)
    return web.Response(text=text, content_type="text/html", headers=headers)


# ---------------------------------------------------------------- the requests

_PATHS = [
    "/", "/old/a", "/old/%C3%BC", "/closed", "/eu/1", "/eu/2", "/m/1", "/a/1", "/a/2", "/app/1",
    "/told/1", "/told/2", "/told/3", "/late/1", "/late/edit", "/nothing/1",
    "/p/1", "/p/2", "/p/3", "/t/1", "/t/2", "/x/1", "/x/2", "/x/3", "/x/4", "/x/5",
    "/x/6", "/x/%41", "/x/a//b", "/x/./c", "/x/d?", "/x/e?a=1&b=2", "/p/1?b=2&a=1",
    "/p/1?hero=bold", "/p/4?hero=nobody", "/%2e%2e/x", "/x/%2f", "/x/\\", "/x/y%", "//x", "/x#y",
]  # fmt: skip
_CHOICES: dict[str, list[str]] = {
    "X-Forwarded-For": ["81.2.69.160", "193.51.208.13", "8.8.8.8", "8.8.8.8, 10.0.0.1", "x", ""],
    "X-Forwarded-Proto": ["https", "http", "gopher"],
    "Forwarded": ["for=81.2.69.160", 'for="[2001:db8::1]:80"'],
    "Cookie": ["ep_hero=bold", "ep_hero=plain; member=yes", "member=yes", "ep_hero=x", "a=b; ;c"],
    "User-Agent": ["Mozilla/5.0 (iPhone) Mobile", "Googlebot/2.1", "curl/8"],
    "Accept-Language": ["de", "en-GB,en;q=0.7", "fr;q=0.5, de;q=0.9", "*"],
    "Accept-Encoding": ["gzip", "br", "gzip, br;q=0.5", "identity;q=0", "*"],
    "If-None-Match": ["*", '"x"', 'W/"x", "y"', "ETAG", "ETAG"],
    "If-Modified-Since": ["Thu, 01 Jan 2026 00:00:00 GMT", "Mon, 01 Jan 2001 00:00:00 GMT", "now"],
    "If-Match": ['"x"', "*"],
    "If-Range": ['"x"', "ETAG"],
    "Range": ["bytes=0-9", "bytes=-5", "bytes=9-", "bytes=0-1,5-9", "bytes=99999-", "lines=1-2"],
    "Authorization": ["Basic eDp5"],
    "Cache-Control": ["no-cache", "max-age=0", "only-if-cached"],
    "X-Asked": ["q1", "p1"],
    "X-Kind": ["1", "2"],
    "X-Visitor": ["v1", "v2", "v3", "v4"],
    "X-Tier": ["gold", "lead"],
    "Connection": ["keep-alive", "close", "x-kind", "Upgrade", "te, close"],
    "Upgrade": ["h2c", "websocket"],
    "Expect": ["100-continue", "200-ok"],
    "Content-Length": ["0", "1", "x"],
    "TE": ["trailers"],
    "Via": ["1.1 somebody"],
    "Edge-Explain": ["x.y.z"],
}  # fmt: skip
_COMMON = ("X-Forwarded-For", "Cookie", "User-Agent", "Accept-Language", "Accept-Encoding")


class Requests:
    """An endless supply of requests, each as the bytes that one connection is sent."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._corpus = [case.raw for case in whole_corpus() if b"HTTP/" in case.raw]
        self._usual = [self._one(0) for _ in range(60)]

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield self._next()

    def _next(self) -> bytes:
        draw = self._random.random()
        if draw < 0.02:
            return self._random.choice(self._corpus)
        if draw < 0.6:  # again and again, so that answers are remembered
            return b"".join(
                self._random.choices(self._usual, k=self._random.choice((1, 1, 1, 2, 4)))
            )
        return b"".join(self._one(self._random.choice((0, 1, 1, 2, 3))) for _ in range(
            self._random.choice((1, 1, 2))
        ))  # fmt: skip

    def _one(self, oddness: int) -> bytes:
        """A request with so many unusual fields."""
        pick, chance = self._random.choice, self._random.random
        method = pick(("GET",) * 8 + ("HEAD", "HEAD", "OPTIONS", "get", "POST"))
        path = pick(_PATHS)
        version = "HTTP/1.1" if chance() < 0.95 else pick(("HTTP/1.0", "HTTP/1.2"))
        if chance() < 0.02:
            path = f"http://{pick(('edge.test', 'other.test'))}{path}"
        names = [name for name in _COMMON if chance() < 0.5]
        names += self._random.choices([*_CHOICES], k=oddness)
        self._random.shuffle(names)
        lines = [
            f"{method} {path} {version}",
            f"Host: {pick(('edge.test',) * 9 + ('EDGE.test:80',))}",
        ]
        lines += [f"{name}: {self._value(name, path)}" for name in names]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1")

    def _value(self, name: str, path: str) -> str:
        value = self._random.choice(_CHOICES[name])
        return value.replace("ETAG", f'"{zlib.crc32(path.partition("?")[0].encode()):x}"')


# ---------------------------------------------------------------- what comes back

LAST = b"GET /closed HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n"

_VOLATILE = re.compile(
    rb"(?im)^(date: |age: ).*$|(request id )[0-9a-f]+|(ttl=)-?[0-9]+|(max-age=)[0-9]+"
    rb"|(boundary=)[0-9a-f]+|(--)[0-9a-f]{24}"
)


def comparable(data: bytes) -> bytes:
    """`data` without dates, ages and ids."""
    return _VOLATILE.sub(lambda m: b"".join(part or b"" for part in m.groups()), data)


_CODINGS = re.compile(rb"(?i)^vary: Accept-Encoding, ", re.MULTILINE)


def agree(first: bytes, second: bytes) -> bool:
    """Whether two proxies said the same.

    What is stored gets its codings in the background. A hit on the very connection that had it
    stored comes before that or after it, whichever way it takes, and names Accept-Encoding or not.
    """
    first, second = comparable(first), comparable(second)
    if b"; stored" in first and b"; hit" in first:
        first, second = (_CODINGS.sub(b"vary: ", one) for one in (first, second))
    return first == second


async def exchange(port: int, raw: bytes) -> bytes:
    """All that comes back for `raw` and one more request, the last."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw + LAST)
        return await asyncio.wait_for(reader.read(), 20)
    except TimeoutError:
        raise AssertionError(f"no end of the answer to {raw!r} on {port}") from None
    except ConnectionError as error:
        return repr(type(error)).encode()
    finally:
        writer.close()


async def compare(count: int, seed: int) -> Found:
    """Send `count` connections' worth of requests to both proxies."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    policy = POLICY.replace("ORIGIN", f"http://127.0.0.1:{runner.addresses[0][1]}/")
    registry = Registry([*installed().entries, Installed("late", lambda: Late, "late")])
    found = Found()
    try:
        async with (
            running(policy.replace("ACCELERATOR", "on"), registry=registry) as one,
            running(policy.replace("ACCELERATOR", "off"), registry=registry) as other,
        ):
            await _compare(one, other, count, seed, found)
    finally:
        await runner.cleanup()
    return found


async def _compare(one: Proxy, other: Proxy, count: int, seed: int, found: Found) -> None:
    for raw in Requests(seed):
        if found.requests >= count or found.differences:
            break
        first, second = await asyncio.gather(exchange(one.port, raw), exchange(other.port, raw))
        found.requests += 1
        for proxy in (one, other):
            await proxy.server.app.plan.cache.settled()
        if not agree(first, second):
            told = f"request {found.requests}:\n{raw!r}"
            found.differences.append(f"{told}\naccelerated:\n{first!r}\nby the core:\n{second!r}")
    found.remembered = one.server.edge.accelerator.remembered
