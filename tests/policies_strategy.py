"""Random policies, and random visits that their routes care about, for property tests.

    @given(policies(), visits())
    def test_something(policy: Plain, visit: Visit) -> None:
        plan = compile_plan(parse(write(policy)))
        exchange = visit.exchange(plan)

The vocabulary is small on purpose, so that routes overlap and visits meet them. Every policy that
is drawn loads. Clients have addresses whose country the builtin database knows, so a visit can be
made over a real socket as well, behind a trusted proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from edgeproxy.http import Exchange, Headers, Request, normalise_path
from edgeproxy.plan import Plan

type Plain = dict[str, Any]
"""A policy as plain data; `edgeproxy.policy.source.write` makes it a file."""

CLIENTS = {
    "194.25.0.60": "DE", "193.51.208.13": "FR", "129.132.0.1": "CH", "8.8.8.8": "US",
    "2001:4860:4860::8888": "US", "200.160.0.8": "BR", "130.54.0.1": "JP", "192.168.0.1": "XX",
}  # fmt: skip
"""Addresses, and the country that the builtin database gives each."""

AGENTS = {
    "desktop": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "mobile": "Mozilla/5.0 (Linux; Android 15; Pixel 9) Chrome/140.0 Mobile Safari/537.36",
    "tablet": "Mozilla/5.0 (Linux; Android 15; Pixel Tablet) Chrome/140.0 Safari/537.36",
    "bot": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
}
SEGMENTS = ("a", "b", "ab", "c.html", "%C3%BC", "x.css")
HOSTS = ("example.org", "www.example.org", "a.b.example.org", "other.example")
HOST_PATTERNS = (*HOSTS[:3], "*.example.org", "*.b.example.org")
WORDS = ("", "pro", "pr", "PRO", "o", "free")
NAMES = ("x-plan", "x-team")  # of header fields, cookies and query parameters alike
VARIANTS = {"hero": ("control", "bold"), "nav": ("old", "new")}


@dataclass(frozen=True)
class Visit:
    """One request of one client."""

    method: str = "GET"
    scheme: str = "http"
    host: str = "example.org"
    path: str = "/"
    query: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    client: str = "192.168.0.1"

    def arriving(self) -> Exchange:
        """The visit as an engine hands it on."""
        headers = Headers.of(("host", self.host), *self.fields)
        request = Request(
            self.method, self.host, self.path, self.query, headers, scheme=self.scheme
        )
        return Exchange(request, ipaddress.ip_address(self.client))

    def exchange(self, plan: Plan) -> Exchange:
        """The visit as it stands when the plugins of `plan` have added their facts."""
        exchange = self.arriving()
        for hook in plan.phases.annotate:
            hook.call(exchange)
        return exchange


# ------------------------------------------------------------------- visits


def _joined(pairs: list[tuple[str, str]], between: str) -> str | None:
    return between.join(f"{name}={value}" for name, value in pairs) if pairs else None


def paths() -> st.SearchStrategy[str]:
    """Canonical paths."""
    return st.lists(st.sampled_from(("", *SEGMENTS)), max_size=4).map(
        lambda parts: normalise_path("/" + "/".join(parts))
    )


def _pairs(*more: tuple[str, str]) -> st.SearchStrategy[list[tuple[str, str]]]:
    plain = st.tuples(st.sampled_from(NAMES), st.sampled_from(WORDS))
    return st.lists(st.one_of(plain, st.sampled_from(more)), max_size=3)


def fields() -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    """The header fields of a visit."""
    cookies = _pairs(("ep_hero", "bold"), ("ep_nav", "new")).map(lambda pairs: _joined(pairs, "; "))
    return st.fixed_dictionaries(
        {},
        optional={
            "user-agent": st.sampled_from(tuple(AGENTS.values())),
            "accept-language": st.sampled_from(("de", "de-AT, en;q=0.5", "fr, de", "en", "ja")),
            "accept": st.sampled_from(("text/html", "application/json", "*/*")),
            "cookie": cookies,
            "authorization": st.just("Basic Og=="),
            "if-none-match": st.sampled_from(('"1"', "*")),
            "range": st.sampled_from(("bytes=0-3", "bytes=900-")),
            **{name: st.sampled_from(WORDS) for name in NAMES},
        },
    ).map(lambda found: tuple((name, value) for name, value in found.items() if value is not None))


def visits() -> st.SearchStrategy[Visit]:
    return st.builds(
        Visit,
        method=st.sampled_from(("GET", "GET", "HEAD", "POST", "PUT")),
        scheme=st.sampled_from(("http", "https")),
        host=st.sampled_from(HOSTS),
        path=paths(),
        query=_pairs(("hero", "bold"), ("nav", "new")).map(lambda pairs: _joined(pairs, "&")),
        fields=fields(),
        client=st.sampled_from(tuple(CLIENTS)),
    )


# ------------------------------------------------------------------- matches


def _some(values: tuple[Any, ...], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True)


def path_patterns() -> st.SearchStrategy[Any]:
    """Patterns of every kind, as a policy writes them."""
    wild = st.sampled_from((*SEGMENTS, "*", "**", "a*", "*b", "*.html", ""))
    globs = st.lists(wild, max_size=4).map(lambda parts: normalise_path("/" + "/".join(parts)))
    regexes = st.sampled_from(("/a.*", "/(a|b)/.*", ".*html", "/ab?/?", "/[^/]*"))
    return st.one_of(
        globs,
        globs,
        paths().map(lambda path: {"exact": path}),
        paths().map(lambda path: {"prefix": path}),
        regexes.map(lambda text: {"regex": text}),
    )


def conditions() -> st.SearchStrategy[Any]:
    """Conditions on a text, of every kind."""
    texts = _some(WORDS, 2)
    parts = _some(WORDS[1:], 2)
    kinds = [parts.map(lambda found, kind=kind: {kind: found}) for kind in _PARTS]
    cased = st.one_of(texts.map(lambda found: {"exact": found}), *kinds)
    return st.one_of(
        texts,
        cased,
        cased.map(lambda found: {**found, "ignore_case": True}),
        st.booleans().map(lambda flag: {"present": flag}),
        st.sampled_from(("pr.?", "(?i)free", ".*")).map(lambda text: {"regex": text}),
    )


_PARTS = ("prefix", "suffix", "contains")


def clauses() -> st.SearchStrategy[Plain]:
    """Match keys of plugins, at most three."""
    named = st.dictionaries(st.sampled_from(NAMES), conditions(), min_size=1)
    countries = (*dict.fromkeys(CLIENTS.values()), "GB", "MX")
    keys: dict[str, st.SearchStrategy[Any]] = {
        "country": _some(countries),
        "country_group": _some(("eu", "eea", "schengen"), 2),
        "continent": _some(("EU", "NA", "AS", "XX")),
        "method": _some(("GET", "HEAD", "POST")),
        "scheme": st.sampled_from(("http", "https")),
        "device": _some(tuple(AGENTS)),
        "language": _some(("de", "fr", "en"), 2),
        "media_type": _some(("text/html", "application/json"), 2),
        "header": named,
        "query": named,
        "cookie": named,
    }
    chosen = st.lists(st.sampled_from(tuple(keys)), max_size=3, unique=True)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({name: keys[name] for name in names}))


def matches() -> st.SearchStrategy[Plain]:
    """Entries of `matches`."""
    core = st.fixed_dictionaries(
        {},
        optional={
            "host": _some(HOST_PATTERNS, 2),
            "path": st.lists(path_patterns(), min_size=1, max_size=2),
        },
    )
    return st.tuples(core, clauses()).map(lambda both: {**both[0], **both[1]})


# ------------------------------------------------------------------- routes


def targets() -> st.SearchStrategy[str]:
    """Where a redirect or a rewrite leads: a path, perhaps with wildcards."""
    return st.sampled_from(("/", "/a", "/b/**", "/a/*", "/**", "/ab/c.html"))


def filters() -> st.SearchStrategy[Plain]:
    """One filter of any kind but those that answer."""
    facts = st.sampled_from(("${geo.country}", "${content.device}", "${split.hero}", "fixed"))
    edits = facts.map(lambda value: {"set": {"x-edge": value}})
    kinds: list[st.SearchStrategy[Plain]] = [
        targets().map(lambda path: {"rewrite": {"path": path}}),
        st.just({"rewrite": {"prefix": "/m"}}),
        st.just({"spa_fallback": "/a/index.html"}),
        st.just({"rewrite_links": True}),
        st.just({"error_page": {"body": "sorry"}}),
        edits.map(lambda found: {"request_headers": found}),
        edits.map(lambda found: {"response_headers": found}),
        experiments(),
        experiments(),
    ]
    return st.sampled_from(kinds).flatmap(lambda kind: kind)


def experiments() -> st.SearchStrategy[Plain]:
    """The filter `experiment`, with or without changes."""
    change = st.one_of(
        st.just({"origin": "next"}),
        st.just({"prefix": "/beta"}),
        targets().map(lambda path: {"path": path}),
        targets().map(lambda path: {"redirect": path}),
        st.just({"response_headers": {"x-variant": "second"}}),
    )

    def of(name: str) -> st.SearchStrategy[Plain]:
        changes = st.dictionaries(st.sampled_from(VARIANTS[name]), change, max_size=2)
        return changes.map(lambda found: {"experiment": {"name": name, "variants": found}})

    return st.sampled_from(tuple(VARIANTS)).flatmap(of)


def answers() -> st.SearchStrategy[Plain]:
    """A filter that answers every request."""
    status = st.sampled_from((301, 302, 308))
    return st.one_of(
        st.tuples(targets(), status).map(
            lambda both: {"redirect": {"path": both[0], "status": both[1]}}
        ),
        st.sampled_from(("https://www.example.org/**", "http://other.example/a")).map(
            lambda url: {"redirect": url}
        ),
        st.just({"respond": {"status": 410, "body": "gone"}}),
    )


def _routes() -> st.SearchStrategy[Plain]:
    """A route without its name."""
    served = st.fixed_dictionaries(
        {
            "origin": st.sampled_from(("pages", "next", "api")),
            "filters": st.lists(filters(), max_size=3),
            "cache": st.sampled_from(("html", "assets", None, False)),
        }
    )
    kinds = {
        "served": served.map(_said),
        "weighed": st.just({"backend_refs": [{"name": "pages", "weight": 3}, {"name": "next"}]}),
        "answered": answers().map(lambda found: {"filters": [found]}),
    }
    weights = ("served", "served", "served", "served", "weighed", "answered")
    chosen = st.sampled_from(weights).flatmap(kinds.__getitem__)
    found = st.sampled_from((0, 1, 1, 1, 1, 2)).flatmap(
        lambda count: st.lists(matches(), min_size=count, max_size=count)
    )
    return st.tuples(found, chosen).map(lambda both: {**_said({"matches": both[0]}), **both[1]})


def _said(route: Plain) -> Plain:
    """`route` without what it leaves open."""
    return {key: value for key, value in route.items() if value not in (None, [])}


def policies(most_routes: int = 8) -> st.SearchStrategy[Plain]:
    """Whole policies: the same origins, experiments and rules, and random routes."""
    return st.lists(_routes(), min_size=1, max_size=most_routes).map(_policy)


def _policy(routes: list[Plain]) -> Plain:
    named = [{"name": f"r{number}", **route} for number, route in enumerate(routes)]
    return {**PREAMBLE, "routes": named}


PREAMBLE: Mapping[str, Any] = {
    "version": 1,
    "origins": {
        "pages": {"url": "https://you.github.io/docs/"},
        "next": {"url": "https://you.github.io/next/"},
        "api": {"url": "http://localhost:8000/", "kind": "http"},
    },
    "content": {"languages": ["en", "de", "fr"]},
    "experiments": {
        name: {"weights": dict.fromkeys(variants, 1)} for name, variants in VARIANTS.items()
    },
    "cache": {"rules": {"html": {"ttl": "10m"}, "assets": {"ttl": "30d", "query": "drop"}}},
}
