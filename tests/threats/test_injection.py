"""Rows 37 to 39: no value ends a line, no redirect leads astray, no pattern stalls the proxy."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote

import pytest

from edgeproxy.api import Exchange, Fact, hookimpl
from edgeproxy.api import Plugin as BasePlugin
from edgeproxy.errors import PolicyError
from edgeproxy.policy.installed import Installed, Registry
from edgeproxy.policy.installed import installed as all_installed
from edgeproxy.testing import running
from tests.threats.raw import Origin, answering, answers, ask, send

SAID = Fact[str]("said.value", default="")

VALUES = [
    "\r\nX-Evil: 1", "\nX-Evil: 1", "\rX-Evil: 1", "a\r\n\r\n<script>evil</script>", "\0", "a\0b",
    "\x7f", "\x08", "\x0bX-Evil: 1", "\x0cX-Evil: 1", "\r\n X-Evil: folded", "\u2028X-Evil: 1",
    "\u0085X-Evil: 1", "\u560d\u560aX-Evil: 1", "\u010d\u010aX-Evil: 1", "😀",
    "%0d%0aX-Evil: 1", "%250d%250aX-Evil: 1", "\x1b[31m", "é\r\nX-Evil: é", "a, b; c=\"d\"",
]  # fmt: skip


class Says(BasePlugin):
    """A fact that holds what a client wrote, decoded, as careless plugins may."""

    def facts(self) -> Iterable[Fact[Any]]:
        return (SAID,)

    @hookimpl
    def annotate(self, exchange: Exchange) -> None:
        query = exchange.request.query or ""
        cookie = exchange.request.cookies().get("said", "")
        exchange.facts[SAID] = unquote(query.partition("said=")[2] or cookie)


REGISTRY = Registry([*all_installed().values(), Installed("says", lambda: Says, "says-plugin")])

TEMPLATES = """\
version: 1
plugins: [says]
origins: {site: {url: http://127.0.0.1:1/, kind: http}}
experiments: {hero: {weights: {bold: 1}}}
routes:
  - name: answered
    match: {path: /answered/**}
    filters: [{respond: {body: hello, headers: {x-said: "${said.value}"}}}]
  - name: moved
    match: {path: /moved/**}
    filters: [{redirect: "/new/**"}]
  - name: moved-away
    match: {path: /away/**}
    filters: [{redirect: "https://other.example/**"}]
  - name: split
    match: {path: /split/**}
    origin: site
    filters:
      - experiment:
          name: hero
          variants:
            bold:
              request_headers: {x-said: "${said.value}"}
              response_headers: {x-said: "${said.value}"}
  - name: all
    origin: site
    filters:
      - request_headers: {set: {x-said: "${said.value}"}, append: {x-more: "${said.value}"}}
      - response_headers:
          set: {x-said: "a ${said.value} b"}
          add: {x-added: ["${said.value}", "${said.value}"]}
          append: {x-more: "${said.value}"}
"""


async def test_nothing_that_a_client_says_ends_a_line() -> None:
    assert len(VALUES) >= 20
    async with (
        Origin() as origin,
        running(TEMPLATES, origins={"site": origin.url}, registry=REGISTRY) as proxy,
    ):
        for value in VALUES:
            said = quote(value, safe="")
            for place in ("answered", "moved", "away", "split", "all"):
                for target, fields in (
                    (f"/{place}/x?said={said}", []),
                    (f"/{place}/{said}", []),
                    (f"/{place}/x", [f"Cookie: said={said}; ep_hero={said}"]),
                ):
                    reply = await ask(proxy.port, target, *fields)  # which reads strictly
                    assert reply.status in (200, 302, 400), (place, value, reply)
                    assert reply.get("x-evil") is None, (place, value)
                    assert b"evil" not in reply.body.replace(said.encode(), b""), (place, value)
        for asked in origin.requests():  # which reads strictly too
            assert asked.get("x-evil") is None


@pytest.mark.parametrize(
    "filters",
    [
        r'response_headers: {set: {x-a: "b\r\nX-Evil: 1"}}',
        r'response_headers: {set: {x-a: "b\nX-Evil: 1"}}',
        r'response_headers: {add: {x-a: ["b\0"]}}',
        r'response_headers: {append: {x-a: "b\x0bc"}}',
        r'response_headers: {set: {"x-a: b\r\nx-evil": c}}',
        r'request_headers: {set: {x-a: "b\r\nX-Evil: 1"}}',
        r'respond: {body: a, headers: {x-a: "b\r\nX-Evil: 1"}}',
        r'respond: {body: a, content_type: "text/html\r\nX-Evil: 1"}',
        r'redirect: "/new\r\nX-Evil: 1"',
        r'redirect: "https://a.example/new\r\nX-Evil: 1"',
        r'redirect: {path: "/new\0"}',
        r'rewrite: {path: "/new\r\nX-Evil: 1"}',
        r'rewrite: {prefix: "/new\r\nX-Evil: 1"}',
        r'error_page: {body: a, content_type: "text/html\r\nX-Evil: 1"}',
    ],
)
async def test_policy_with_a_line_break_in_a_value_is_refused_or_harmless(filters: str) -> None:
    text = (
        "version: 1\norigins: {site: {url: http://127.0.0.1:1/, kind: http}}\n"
        f"routes: [{{name: all, origin: site, filters: [{{{filters}}}]}}]\n"
    )
    try:
        async with Origin() as origin, running(text, origins={"site": origin.url}) as proxy:
            for reply in (await ask(proxy.port, "/a"), await ask(proxy.port, "/a", method="POST")):
                assert reply.get("x-evil") is None
            origin.requests()
    except PolicyError:
        return  # refused, which is as good


# ------------------------------------------------------------ row 38


REDIRECTS = """\
version: 1
encoded_slashes: {encoded}
origins: {{site: {{url: http://127.0.0.1:1/project/, kind: http}}}}
routes:
  - {{name: below, match: {{path: /go/**}}, filters: [{{redirect: "/new/**"}}]}}
  - {{name: root, match: {{path: /root/**}}, filters: [{{redirect: "/**"}}]}}
  - {{name: one, match: {{path: "/one/*/end"}}, filters: [{{redirect: "/*"}}]}}
  - {{name: bare, match: {{path: {{regex: "/bare(.*)"}}}}, filters: [{{redirect: "/*"}}]}}
  - {{name: away, match: {{path: /away/**}}, filters: [{{redirect: "https://other.example/**"}}]}}
  - {{name: all, origin: site, cache: false}}
"""

ASTRAY = [
    "//evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "%2f%2fevil.example",
    "%2fevil.example",
    "%5cevil.example",
    "%5c%5cevil.example",
    "/%2fevil.example",
    "/%5cevil.example",
    "///evil.example",
    "/.//evil.example",
    "/..//evil.example",
    "/x/..//evil.example",
    "%2e%2e//evil.example",
    "https://evil.example",
    "https:evil.example",
    "http:%2f%2fevil.example",
    "javascript:evil",
    "@evil.example",
    ".evil.example",
    ":@evil.example",
    "/%09/evil.example",
    "/%0d/evil.example",
    "%09//evil.example",
    "%20//evil.example",
    ";//evil.example",
    "?//evil.example",
    "/?x=//evil.example",
    "%E3%80%82evil.example",
    "/%00//evil.example",
    "%252f%252fevil.example",
    "/http://evil.example/",
]


def _host_of(location: str) -> str:
    """Where a browser goes: it takes a backslash for a slash, and drops tabs and line breaks."""
    text = "".join(char for char in location.strip() if char not in "\t\r\n").replace("\\", "/")
    scheme, colon, rest = text.partition(":")
    if colon and scheme.isalnum() and not scheme.startswith("/"):
        if scheme.lower() not in ("http", "https"):
            return f"{scheme}:"
        text = "//" + rest.lstrip("/")
    if not text.startswith("//"):
        return ""
    host = text.lstrip("/").partition("/")[0].partition("?")[0].partition("#")[0]
    return host.rpartition("@")[2].partition(":")[0]


@pytest.mark.parametrize("encoded", ["false", "true"])
async def test_redirect_leads_only_to_this_site_or_to_the_one_the_policy_names(
    encoded: str,
) -> None:
    wrong = []
    text = REDIRECTS.format(encoded=encoded)
    async with Origin() as origin, running(text, origins={"site": origin.url}) as proxy:
        for place, allowed in (
            ("/go", {""}), ("/go/", {""}), ("/root", {""}), ("/root/", {""}), ("/bare", {""}),
            ("/away", {"other.example"}), ("/away/", {"other.example"}),
        ):  # fmt: skip
            for astray in ASTRAY:
                raw = f"GET {place}{astray} HTTP/1.1\r\nHost: site.example\r\n\r\n"
                [reply] = answers(await send(proxy.port, raw.encode()))
                location = reply.get("location")
                if location is not None and _host_of(location) not in allowed:
                    wrong.append(f"{place}{astray}: {location}")
        for astray in ASTRAY:
            raw = f"GET /one/{astray.strip('/')}/end HTTP/1.1\r\nHost: site.example\r\n\r\n"
            [reply] = answers(await send(proxy.port, raw.encode()))
            if _host_of(reply.get("location") or ""):
                wrong.append(f"{astray}: {reply.get('location')}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "location",
    ["/project//evil.example/", "/project/\\evil.example/", "/project///evil.example",
     "/project/\\/evil.example", "/project/x", "http://{origin}/project//evil.example/"],
)  # fmt: skip
async def test_repair_of_an_origins_redirect_makes_no_other_host_of_it(location: str) -> None:
    text = REDIRECTS.format(encoded="false")
    async with (
        Origin() as origin,
        running(text, origins={"site": f"{origin.url}project/"}) as proxy,
    ):
        given = location.replace("{origin}", origin.authority)
        origin.act = answering(
            f"HTTP/1.1 302 Found\r\nLocation: {given}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        reply = await ask(proxy.port, "/a")
        assert reply.status == 302
        assert _host_of(reply.get("location") or "") in ("", "site.example")


# ------------------------------------------------------------ row 39


EVIL_PATTERNS = [
    "(a+)+$", "([a-zA-Z]+)*$", "(a|aa)+$", "(a|a?)+$", "(.*a){25}$", "^(([a-z])+.)+[A-Z]([a-z])+$",
    "(a*)*b", "((a*)*)*c", "(x+x+)+y", "a{0,900}$", "(a?){40}a{40}", "(?:a|b|ab)*c",
]  # fmt: skip
KEYS = {
    "path": '{{path: {{regex: "/{pattern}"}}}}',
    "header": '{{header: {{x-text: {{regex: "{pattern}"}}}}}}',
    "query": '{{query: {{text: {{regex: "{pattern}"}}}}}}',
    "cookie": '{{cookie: {{text: {{regex: "{pattern}"}}}}}}',
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("pattern", EVIL_PATTERNS)
async def test_pattern_takes_linear_time_or_is_refused(key: str, pattern: str) -> None:
    text = (
        "version: 1\norigins: {site: {url: http://127.0.0.1:1/, kind: http}}\n"
        "routes:\n"
        f"  - {{name: evil, match: {KEYS[key].format(pattern=pattern)}, origin: site}}\n"
        "  - {name: all, origin: site}\n"
    )
    victim = "a" * 3000 + "!"
    try:
        async with Origin() as origin, running(text, origins={"site": origin.url}) as proxy:
            took_s = []
            for _ in range(3):
                began_s = time.perf_counter()
                reply = await ask(
                    proxy.port,
                    f"/{victim}?text={victim}",
                    f"X-Text: {victim}",
                    f"Cookie: text={victim}",
                )
                took_s.append(time.perf_counter() - began_s)
                assert reply.status == 200
            assert min(took_s) < 0.15
    except PolicyError:
        return  # refused, which is as good


@pytest.mark.parametrize(
    "pattern", ["(?=a)b", "(a)\\\\1", "(?<=a)b", "(?>a)", "a++", "(?P=x)", "("]
)
@pytest.mark.parametrize("key", KEYS)
async def test_pattern_that_needs_backtracking_is_refused(key: str, pattern: str) -> None:
    text = (
        "version: 1\norigins: {site: {url: http://127.0.0.1:1/, kind: http}}\n"
        f"routes: [{{name: evil, match: {KEYS[key].format(pattern=pattern)}, origin: site}}]\n"
    )
    with pytest.raises(PolicyError):
        async with running(text):
            pass
