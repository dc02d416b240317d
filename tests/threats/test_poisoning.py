"""Rows 8, 10, 11 and 14 to 18: what one client sends never shows up in what another one gets."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest

from edgeproxy.testing import running
from tests.threats.raw import Link, Origin, answers, ask, send

POLICY = """\
version: 1
{trusted}
origins:
  site: {{url: http://127.0.0.1:1/, kind: {kind}}}
cache: {{memory: {{max_size: 32MiB}}}}
routes:
  - {{name: all, origin: site}}
"""


def policy(kind: str = "http", trusted: str = "") -> str:
    return POLICY.format(kind=kind, trusted=trusted and f"trusted_proxies: [{trusted}]")


def echoing(*fields: str, status: str = "200 OK") -> Origin:
    """An origin that says back everything it was told, and lets it be kept."""
    given = "".join(f"{line}\r\n" for line in fields or ("Cache-Control: max-age=60",))

    async def act(link: Link) -> None:
        while (raw := await link.request()) is not None:
            body = b"%d\n%b" % (next(count), raw)
            head = f"HTTP/1.1 {status}\r\n{given}Content-Length: {len(body)}\r\n\r\n"
            await link.send(head.encode() + (b"" if raw.startswith(b"HEAD ") else body))

    count = itertools.count()
    return Origin(act)


UNKEYED = """
X-Forwarded-Host: evil.example|X-Forwarded-Server: evil.example|X-Forwarded-Scheme: evil
X-Forwarded-Proto: evil|X-Forwarded-Port: 666|X-Forwarded-Prefix: /evil|X-Forwarded-Path: /evil
X-Forwarded-For: 6.6.6.6|X-Forwarded-By: 6.6.6.6|X-Forwarded-Ssl: evil|X-Forwarded-Protocol: evil
X-Forwarded: host=evil.example|Forwarded: host=evil.example|X-Host: evil.example
X-Original-Host: evil.example|X-HTTP-Host-Override: evil.example|X-Original-URL: /evil
X-Rewrite-URL: /evil|X-HTTP-Method-Override: EVIL|X-HTTP-Method: EVIL|X-Method-Override: EVIL
X-Original-Method: EVIL|X-Original-URI: /evil|X-Url-Scheme: evil|Front-End-Https: evil
X-Real-IP: 6.6.6.6|X-Client-IP: 6.6.6.6|True-Client-IP: 6.6.6.6|Cluster-Client-IP: 6.6.6.6
CF-Connecting-IP: 6.6.6.6|Fastly-Client-IP: 6.6.6.6|X-Cluster-Client-IP: 6.6.6.6
X-Accel-Redirect: /evil|X-Envoy-Original-Path: /evil|Via: 1.1 evil.example|Proxy: evil.example
CDN-Loop: evil.example|CDN-Loop: evil, edgeproxy;id=evil
"""
UNKEYED_FIELDS = [field for line in UNKEYED.split("\n") for field in line.split("|") if field]


@pytest.mark.parametrize("kind", ["http", "pages"])
async def test_field_that_no_key_holds_never_changes_a_stored_answer(kind: str) -> None:
    wrong = []
    async with echoing() as origin, running(policy(kind), origins={"site": origin.url}) as proxy:
        for number, field in enumerate(UNKEYED_FIELDS):
            await ask(proxy.port, f"/{number}", field)
            await proxy.server.app.plan.cache.settled()
            victim = await ask(proxy.port, f"/{number}")
            assert "hit" in (victim.get("cache-status") or ""), victim
            for word in (b"evil", b"EVIL", b"6.6.6.6", b"666"):
                if word in victim.body:
                    wrong.append(field)
    assert not wrong, wrong


async def test_name_that_one_client_uses_is_not_told_to_another() -> None:
    """An origin that is told the public name may write it into its pages."""
    async with echoing() as origin, running(policy(), origins={"site": origin.url}) as proxy:
        await ask(proxy.port, "/", host="evil.example")
        await proxy.server.app.plan.cache.settled()
        assert b"evil.example" not in (await ask(proxy.port, "/")).body


HOPS = [
    "X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 6.6.6.6, 7.7.7.7",
    "X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: 6.6.6.6, 127.0.0.1",
    "X-Forwarded-For: unknown", "X-Forwarded-For: ", "X-Forwarded-For: 6.6.6.6:80",
    "X-Forwarded-For: [2001:db8::6]:80", "X-Forwarded-For: ::ffff:6.6.6.6",
    "X-Forwarded-For: 006.6.6.6", "Forwarded: for=6.6.6.6", 'Forwarded: for="[2001:db8::6]:80"',
    "X-Real-IP: 6.6.6.6", "True-Client-IP: 6.6.6.6",
]  # fmt: skip


@pytest.mark.parametrize("is_trusted", [False, True])
async def test_address_is_taken_from_trusted_hops_only(is_trusted: bool) -> None:
    """Row 11: from the right; nobody is trusted unless the policy says so."""
    expected = {
        "X-Forwarded-For: 6.6.6.6": "6.6.6.6",
        "X-Forwarded-For: 6.6.6.6, 7.7.7.7": "7.7.7.7",
        "X-Forwarded-For: 6.6.6.6, 127.0.0.1": "6.6.6.6",
        "X-Forwarded-For: 6.6.6.6:80": "6.6.6.6",
        "X-Forwarded-For: [2001:db8::6]:80": "2001:db8::6",
        "X-Forwarded-For: ::ffff:6.6.6.6": "6.6.6.6",
        "Forwarded: for=6.6.6.6": "6.6.6.6",
        'Forwarded: for="[2001:db8::6]:80"': "2001:db8::6",
    }
    text = policy(trusted="127.0.0.0/8" if is_trusted else "")
    async with Origin() as origin, running(text, origins={"site": origin.url}) as proxy:
        for field in HOPS:
            origin.forget()
            await ask(proxy.port, "/?" + field.replace(" ", "").replace('"', ""), field)
            [asked] = origin.requests()
            wanted = expected.get(field, "127.0.0.1") if is_trusted else "127.0.0.1"
            assert asked.get("x-forwarded-for") == wanted, field


# ------------------------------------------------------------ row 14: what is stored at all


SHAPES = [
    f"/account{tail}"
    for tail in (
        "/x.css", "/x.js", "/x.png", "/x.woff2", "/x.ico", "/index.html", "/.css", ".css", ".js",
        ".json", ";x.css", ";.js", ";a=b/x.css", "%3bx.css", "%3b.js", "%3fx.css", "%3f.css",
        "%23x.css", "%23.js", "%20x.css", "%c0x.css", "%2ex.css", "%2e%2ecss",
        "//x.css", "/./x.css", "/x/../y.css", "/%2e/x.css", "/a%2e%2e/x.css", "?x.css", "?/x.css",
        "?.css", "?cb=1&x=/a.js", "/!x.css", "/@x.css", "/~x.css", "/$x.css", "/*x.css",
        "/(x).css", "/x.CSS", "/robots.txt", "/favicon.ico", "/static/x.css", "/_next/x.js",
    )
]  # fmt: skip


@pytest.mark.parametrize(
    "control",
    [
        ("Cache-Control: private",),
        ("Cache-Control: no-store",),
        ("Cache-Control: private, max-age=600", "Set-Cookie: session=secret"),
        ("X-Nothing: said",),
    ],
)
async def test_extension_of_a_path_never_makes_an_answer_shared(control: tuple[str, ...]) -> None:
    assert len(SHAPES) >= 40
    async with (
        echoing(*control) as origin,
        running(policy(), origins={"site": origin.url}) as proxy,
    ):
        for shape in SHAPES:
            owner = await ask(proxy.port, shape, "Cookie: session=victim")
            stranger = await ask(proxy.port, shape)
            assert b"victim" not in stranger.body, shape
            assert "; hit" not in (stranger.get("cache-status") or ""), shape
            assert owner.status == 400 or b"victim" in owner.body, shape


# ------------------------------------------------------------ row 15: keys


TARGETS = [
    "/", "/a", "/A", "/a/", "/a/b", "/a%2Fb", "/a%2fb", "/a;b", "/a%3Bb", "/a?b", "/a%3Fb", "/a?B",
    "/a?b=", "/a?b=&", "/a?b&b", "/a?b=1", "/a?b=2", "/a?b=1&c=2", "/a?c=2&b=1", "/a?b=1;c=2",
    "/a%20b", "/a+b", "/a%2Bb", "/a%26b", "/a&b", "/a?x=%26", "/a?x=&amp", "/a%00b", "/a%25b",
    "/a%2525b", "/a:b", "/a%3Ab", "/a%0Ab", "/a%E9", "/a%C3%A9", "/a.b", "/a..b", "/a...b",
    "/a%5Cb", "/a%7Cb", "/a=b", "/a'b'", "/a/b?c=/d", "/a/b/c?d", "/a?b/c?d", "/a/None", "/a?None",
    "/a/%27", "/a,b", "/a%2Cb", "/" + "l" * 3000 + "1", "/" + "l" * 3000 + "2",
    "/?" + "q" * 3000 + "1", "/?" + "q" * 3000 + "2", "/http:a.example/", "/127.0.0.1:80/",
]  # fmt: skip
SAME = [
    ("/a", "/./a"), ("/a", "//a"), ("/a", "/b/../a"), ("/a", "/%61"), ("/a%3Bb", "/a%3bb"),
    ("/a/b", "/a//b"), ("/a/b", "/a/c/%2e%2e/b"), ("/a.b", "/a%2eb"),
]  # fmt: skip


@pytest.mark.parametrize("encoded_slashes", [False, True])
async def test_different_targets_never_share_an_entry(encoded_slashes: bool) -> None:
    text = policy() + ("encoded_slashes: true\n" if encoded_slashes else "")
    seen: dict[bytes, str] = {}
    async with echoing() as origin, running(text, origins={"site": origin.url}) as proxy:
        for target in TARGETS:
            reply = await ask(proxy.port, target)
            if reply.status == 400:
                continue
            line = reply.body.split(b"\n")[1].split(b" ")[1].decode()
            if target == "/a%2fb":  # the same escape, spelled in another case
                assert "; hit" in (reply.get("cache-status") or "")
                continue
            assert reply.body not in seen, f"{target} got the answer to {seen.get(reply.body)}"
            seen[reply.body] = target
            assert line.lower() == target.lower(), (line, target)
        for one, other in SAME:
            assert (await ask(proxy.port, one)).body == (await ask(proxy.port, other)).body


# ------------------------------------------------------------ row 16: whose answer it is


PRIVATE = [
    ("Cache-Control: private, max-age=60",),
    ("Cache-Control: no-store, max-age=60",),
    ("Cache-Control: NO-STORE",),
    ("Cache-Control: max-age=60", "Cache-Control: private"),
    ('Cache-Control: private="x", max-age=60', "Set-Cookie: a=b"),
    ("Cache-Control: max-age=60", "Set-Cookie: session=1"),
    ("Cache-Control: public, max-age=60", "Set-Cookie: session=1"),
    ("Cache-Control: max-age=60", "Vary: *"),
    ("Cache-Control: max-age=60", "Vary: accept, *"),
    ("Cache-Control: max-age=0",),
    ("Cache-Control: s-maxage=0, max-age=60",),
    ("Cache-Control: no-cache, max-age=60",),
    ("Cache-Control: max-age=-1",),
    ("Cache-Control: max-age=x",),
    ("Expires: 0",),
    ("Pragma: no-cache",),
]


@pytest.mark.parametrize("fields", PRIVATE)
async def test_answer_for_one_client_is_given_to_nobody_else(fields: tuple[str, ...]) -> None:
    async with (
        echoing(*fields) as origin,
        running(policy(), origins={"site": origin.url}) as proxy,
    ):
        mine = await ask(proxy.port, "/", "Cookie: who=me")
        assert b"who=me" in mine.body
        for reply in await asyncio.gather(*(ask(proxy.port, "/") for _ in range(5))):
            assert b"who=me" not in reply.body
            assert (reply.get("cache-status") or "").find("; hit") < 0


async def test_answer_to_credentials_is_shared_only_if_the_origin_says_so() -> None:
    """RFC 9111, section 3.5."""
    for fields, is_shared in (
        (("Cache-Control: max-age=60",), False),
        (("Cache-Control: public, max-age=60",), True),
        (("Cache-Control: s-maxage=60",), True),
        (("Cache-Control: must-revalidate, max-age=60",), True),
    ):
        async with (
            echoing(*fields) as origin,
            running(policy(), origins={"site": origin.url}) as proxy,
        ):
            await ask(proxy.port, "/", "Authorization: Basic secret")
            await proxy.server.app.plan.cache.settled()
            assert (b"secret" in (await ask(proxy.port, "/")).body) is is_shared, fields


@pytest.mark.parametrize("fields", [f for f in PRIVATE if "max-age=60" in " ".join(f)])
async def test_requests_that_came_together_get_their_own_unless_it_may_be_shared(
    fields: tuple[str, ...],
) -> None:
    """Row 18."""
    async with (
        echoing(*fields) as origin,
        running(policy(), origins={"site": origin.url}) as proxy,
    ):
        replies = await asyncio.gather(
            *(ask(proxy.port, "/", f"Cookie: who=client-{n}-") for n in range(12))
        )
        if any("no-cache" in field or "s-maxage" in field for field in fields):
            return  # these may be shared among those who asked at the same moment
        for number, reply in enumerate(replies):
            assert f"who=client-{number}-".encode() in reply.body


# ------------------------------------------------------------ row 17: errors on request


PROVOKED = {
    "an oversized field": ("GET", ["X-Big: " + "x" * 9000]),
    "many fields": ("GET", [f"X-{n}: y" for n in range(80)]),
    "a control character": ("GET", ["X-Meta: \x07"]),
    "an unknown method": ("EVIL", []),
    "a method override": ("GET", ["X-HTTP-Method-Override: DELETE"]),
    "a HEAD": ("HEAD", []),
    "a range": ("GET", ["Range: bytes=0-0"]),
    "a range beyond": ("GET", ["Range: bytes=9999999-"]),
    "many ranges": ("GET", ["Range: bytes=" + ",".join("0-0" for _ in range(200))]),
    "a range in other units": ("GET", ["Range: evil=0-1"]),
    "a condition": ("GET", ['If-None-Match: "1"']),
    "any condition": ("GET", ["If-None-Match: *"]),
    "a failing condition": ("GET", ['If-Match: "evil"']),
    "a date": ("GET", ["If-Modified-Since: Fri, 31 Dec 2038 23:59:59 GMT"]),
    "a date before": ("GET", ["If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT"]),
    "a range and a condition": ("GET", ["Range: bytes=0-0", 'If-Range: "1"']),
    "a coding": ("GET", ["Accept-Encoding: evil, identity;q=0"]),
    "an expectation": ("GET", ["Expect: 100-continue"]),
    "an only-if-cached": ("GET", ["Cache-Control: only-if-cached"]),
    "a no-store": ("GET", ["Cache-Control: no-store"]),
    "an upgrade": ("GET", ["Connection: upgrade", "Upgrade: evil"]),
}


def _fragile() -> Origin:
    """Fails on much of what a client may send, and lets no failure be kept, nor forbids it."""

    async def act(link: Link) -> None:
        while (raw := await link.request()) is not None:
            text = raw.decode("latin-1").lower()
            method = raw.split(b" ", 1)[0]
            status, body = "200 OK", b"the whole page"
            extra = 'Cache-Control: max-age=60\r\nETag: "1"\r\n'
            if len(raw) > 8000 or raw.count(b"\r\n") > 60 or b"evil" in raw.lower():
                status, body, extra = "400 Bad Request", b"broken", ""
            elif method not in (b"GET", b"HEAD"):
                status, body, extra = "405 Method Not Allowed", b"broken", ""
            elif "if-match" in text or "if-unmodified" in text:
                status, body, extra = "412 Precondition Failed", b"broken", ""
            elif "if-none-match" in text or "if-modified-since" in text:
                status, body = "304 Not Modified", b""
            elif "range: bytes=9999999" in text:
                status, body, extra = "416 Range Not Satisfiable", b"broken", ""
            elif "\r\nrange:" in text:
                status, body = "206 Partial Content", b"t"
                extra += "Content-Range: bytes 0-0/14\r\n"
            length = "" if status.startswith("304") else f"Content-Length: {len(body)}\r\n"
            head = f"HTTP/1.1 {status}\r\n{extra}{length}\r\n".encode()
            await link.send(head if method == b"HEAD" else head + body)

    return Origin(act)


@pytest.mark.parametrize("what", PROVOKED)
@pytest.mark.parametrize("kind", ["http", "pages"])
async def test_error_that_one_client_provokes_is_never_anothers_answer(
    kind: str, what: str
) -> None:
    method, fields = PROVOKED[what]
    async with _fragile() as origin, running(policy(kind), origins={"site": origin.url}) as proxy:
        for _ in range(2):
            await ask(proxy.port, "/", *fields, method=method)
            await proxy.server.app.plan.cache.settled()
        for _ in range(2):
            victim = await ask(proxy.port, "/")
            assert (victim.status, victim.body) == (200, b"the whole page")
        again = await ask(proxy.port, "/", *fields, method=method)
        assert again.status < 500
        assert (await ask(proxy.port, "/")).body == b"the whole page"


async def test_error_without_a_lifetime_is_not_kept() -> None:
    for status in ("400 Bad", "403 No", "404 No", "405 No", "413 No", "429 No", "431 No", "500 No",
                   "501 No", "502 No", "503 No", "504 No"):  # fmt: skip
        async with (
            echoing("X-Nothing: said", status=status) as origin,
            running(policy(), origins={"site": origin.url}) as proxy,
        ):
            first, second = await ask(proxy.port, "/"), await ask(proxy.port, "/")
            assert first.body != second.body, status


# ------------------------------------------------------------ row 8: pairs


async def test_pipelined_requests_are_stored_under_their_own_keys() -> None:
    async with echoing() as origin, running(policy(), origins={"site": origin.url}) as proxy:
        lines = [f"GET /{n} HTTP/1.1\r\nHost: site.example\r\n\r\n" for n in range(20)]
        smuggled = (
            "POST /p HTTP/1.1\r\nHost: site.example\r\nContent-Length: 32\r\n\r\n"
            "GET /evil HTTP/1.1\r\nHost: a.b\r\n\r"
        )
        lines.insert(10, smuggled)
        replies = answers(await send(proxy.port, "".join(lines).encode()))
        assert len(replies) == 21
        await proxy.server.app.plan.cache.settled()
        for number in range(20):
            reply = await ask(proxy.port, f"/{number}")
            assert f"\nGET /{number} ".encode() in reply.body
        assert not any(asked.target == "/evil" for asked in origin.requests())


async def test_access_log_counts_what_was_asked_and_no_more() -> None:
    async with Origin() as origin, running(policy(), origins={"site": origin.url}) as proxy:
        raw = b"GET /a HTTP/1.1\r\nHost: site.example\r\nContent-Length: 5\r\n\r\nGET /evil"
        await send(proxy.port, raw)
        assert [entry["path"] for entry in proxy.log] == ["/a"]
        assert "evil" not in json.dumps(proxy.log)
