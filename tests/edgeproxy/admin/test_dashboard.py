"""The dashboard without a browser: figures over time, curves, words, and who is shown what."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.admin.dashboard import words, world
from edgeproxy.admin.dashboard.charts import MAX_TICKS, Curve, chart, levels, nice_top, ticks_s
from edgeproxy.admin.dashboard.history import History, Sample, Span
from edgeproxy.admin.dashboard.notices import notices
from edgeproxy.admin.dashboard.ratios import checked, chi_squared_tail
from edgeproxy.admin.dashboard.web import _templates
from edgeproxy.engine.listening import ListenAddress
from edgeproxy.engine.serve import Server
from edgeproxy.metrics.counts import BUCKETS_S
from edgeproxy.pages import Pages
from edgeproxy.testing import Proxy, running

TOKEN = "a-token-that-nobody-guesses"
POLICY = """\
version: 1
admin: {listen: "127.0.0.1:0", token: "${env:EDGEPROXY_TOKEN}"}
origins: {site: {url: "http://127.0.0.1:9/"}}
experiments: {hero: {weights: {plain: 1, bold: 3}}}
cache: {memory: {}, rules: {all: {ttl: 10m}}}
routes: [{name: site, experiment: hero, cache: all}]
"""

# ---------------------------------------------------------------- figures over time


def sample(at_s: float, requests: int, hits: int, buckets: tuple[int, ...] = ()) -> Sample:
    filled = (*buckets, *[0] * (len(BUCKETS_S) + 1 - len(buckets)))
    results = Counter({"hit": hits - 1, "stale": 1, "miss": requests - hits, "pass": 7})
    return Sample(at_s, requests, 10 * requests, 0, results, filled)


def test_rates_are_differences() -> None:
    span = Span(sample(100, 1000, 500), sample(110, 1100, 590))
    assert (span.requests_per_s, span.bytes_per_s, span.hits_per_s) == (10, 100, 9)
    assert span.hit_share == 0.9
    assert span.failed_share == 0


def test_without_requests_there_are_no_shares() -> None:
    span = Span(sample(100, 5, 5), sample(110, 5, 5))
    assert (span.requests_per_s, span.hit_share, span.failed_share) == (0, None, None)
    assert span.quantile_s(0.99) is None


def test_lately_is_the_last_minute() -> None:
    history = History()
    for at_s in range(0, 301, 5):
        history._samples.append(sample(at_s, at_s, 0))
    lately = history.lately(sample(302, 302, 0))
    assert lately.first.at_s == 240
    assert lately.requests_per_s == 1
    assert len([*history.spans(sample(302, 302, 0))]) == 61


def test_in_the_beginning_there_is_nothing_to_compare() -> None:
    now = sample(5, 5, 0)
    assert History().lately(now) == Span(now, now)
    assert [*History().spans(now)] == []


# ---------------------------------------------------------------- curves and words


@given(st.floats(0.001, 1e9))
def test_a_scale_has_room_and_not_too_much(value: float) -> None:
    assert value * 0.999 <= nice_top(value) <= value * 2.51


def test_a_curve_is_svg_with_words_and_gaps() -> None:
    curve = Curve("hits", [0.0, 5.0, None, 10.0, 10.0], is_filled=True)
    drawn = ET.fromstring(chart([curve], 'said <"&', 60.0))
    assert drawn.attrib["aria-label"] == 'said <"&'
    assert "style" not in drawn.attrib
    assert len([*drawn.iter("polyline")]) == 2


def test_a_chart_has_axes_with_units() -> None:
    curves = [Curve("most", [0.1, 0.24])]
    assert levels(curves, words.duration) == ["400 ms", "200 ms", "0 ms"]
    drawn = ET.fromstring(chart(curves, "latency", 900.0))
    told = [one.text for one in drawn.iter("text")]
    assert told == ["now", "3 min ago", "6 min ago", "9 min ago", "12 min ago"]


@given(st.floats(1, 900))
def test_marks_below_a_chart_are_few_and_within_it(span_s: float) -> None:
    marks = ticks_s(span_s)
    assert len(marks) <= MAX_TICKS
    assert all(0 < mark < span_s for mark in marks)


@pytest.mark.parametrize(
    ("told", "words_"),
    [
        (words.number(0), "0"), (words.number(0.416), "0.42"), (words.number(12.34), "12.3"),
        (words.number(1234.5), "1,234"), (words.number(0.003), "< 0.01"),
        (words.rate(12.34), "12.3/s"), (words.rate(None), words.NOTHING),
        (words.size(999), "999 B"), (words.size(1234), "1.2 KB"),
        (words.stored(1000), "1000 B"), (words.stored(8 * 1024 * 1024), "8.0 MiB"),
        (words.size(250_000_000), "250 MB"), (words.size(2.5e15), "2500.0 TB"),
        (words.duration(0.0004), "0.4 ms"), (words.duration(0.25), "250 ms"),
        (words.duration(1.25), "1.2 s"), (words.duration(None), words.NOTHING),
        (words.percent(0.9731), "97.3 %"), (words.percent(1), "100 %"), (words.percent(0), "0 %"),
        (words.percent(0.0002), "< 0.1 %"), (words.percent(0.9998), "> 99.9 %"),
        (words.percent(None), words.NOTHING), (words.span_of(40.2), "40 s"),
        (words.span_of(60), "1 min"), (words.span_of(720), "12 min"),
    ],
)  # fmt: skip
def test_figures_are_for_people(told: str, words_: str) -> None:
    assert told == words_


# ---------------------------------------------------------------- the map


def test_every_country_has_one_square_and_no_two_the_same() -> None:
    codes = [code for code in world.PLACES.split() if code != "."]
    assert len(codes) == len(set(codes)) > 200
    assert len({len(row.split()) for row in world.PLACES.splitlines()}) == 1


def test_countries_are_shaded_by_share_and_say_what_they_are() -> None:
    counts = {"DE": 1500, "US": 480, "FR": 19, "AI": 1, "ZZ": 3}
    drawn = ET.fromstring(world.drawn(counts))
    countries = [one for one in drawn.iter("g") if "tabindex" in one.attrib]
    shades = {one.attrib["id"]: one.attrib["class"] for one in countries}
    assert shades == {
        "country-DE": "shade-4", "country-US": "shade-4", "country-FR": "shade-1"
    }  # fmt: skip
    assert [one.attrib["tabindex"] for one in countries].count("0") == 1
    told = {"".join(one.itertext()) for one in drawn.iter("text") if one.get("class") == "told"}
    assert "FR 19 requests, 0.9 %" in told
    assert world.elsewhere(counts) == 4  # an island without a square, and nobody knows


# ---------------------------------------------------------------- experiments


@pytest.mark.parametrize(
    ("squared", "freedom"),
    [(3.8415, 1), (5.9915, 2), (7.8147, 3), (9.4877, 4), (18.307, 10), (124.342, 100)],
)
def test_chi_squared_is_that_of_printed_tables(squared: float, freedom: int) -> None:
    """Their column for a tail of 0.05."""
    assert chi_squared_tail(squared, freedom) == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize(
    ("counts", "shares", "verdict"),
    [
        ([500, 500], [0.5, 0.5], "fits"), ([480, 520], [0.5, 0.5], "fits"),
        ([440, 560], [0.5, 0.5], "off"), ([900, 100], [0.9, 0.1], "fits"),
        ([860, 140], [0.9, 0.1], "off"), ([30, 30], [0.5, 0.5], "few"),
        ([198, 2], [0.99, 0.01], "few"), ([1000, 7], [1.0, 0.0], "few"),
        ([500, 510, 7], [0.5, 0.5, 0.0], "fits"), ([0, 0], [0.5, 0.5], "few"),
    ],
)  # fmt: skip
def test_shares_are_as_weighted_unless_chance_hardly_makes_them(
    counts: list[int], shares: list[float], verdict: str
) -> None:
    assert checked(counts, shares).verdict == verdict


# ---------------------------------------------------------------- what to look at first


def test_what_is_out_of_the_ordinary_is_said_the_worst_first() -> None:
    origins = [
        {"name": "pages", "state": "failing", "cause": ""},
        {"name": "next", "state": "down", "cause": "connection_refused"},
    ]
    policy = {
        "is_last_reload_good": False, "files_are_other": True,
        "candidate": {"version": "abc", "percent": 5.0},
    }  # fmt: skip
    figures: Any = {"plugin_errors": [{"plugin": "geo", "hook": "annotate", "count": 2}]}
    before, after = sample(100, 1000, 900), sample(110, 1100, 990)
    span = Span(before, replace(after, failed=50))
    assert [one.words for one in notices(span, figures, origins, policy)] == [
        "Origin next is down: connection_refused",
        "50.0 % of the requests of the last minute failed",
        "Origin pages is failing",
        "Plugin geo raised in annotate, 2 times since the start",
        "The last change of the policy was refused",
        "The policy files say something else than what is in force",
        "Policy abc is on trial for 5 % of the visitors",
    ]


def test_without_anything_out_of_the_ordinary_nothing_is_said() -> None:
    policy = {"is_last_reload_good": True, "files_are_other": False, "candidate": None}
    figures: Any = {"plugin_errors": []}
    origins = [{"name": "pages", "state": "healthy", "cause": ""}]
    assert notices(Span(sample(1, 5, 5), sample(2, 9, 9)), figures, origins, policy) == []


# ---------------------------------------------------------------- who is shown what


@pytest.fixture
async def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    monkeypatch.setenv("EDGEPROXY_TOKEN", TOKEN)
    (tmp_path / "index.html").write_text("<h1>A page</h1>")
    async with (
        Pages(tmp_path) as pages,
        running(POLICY, origins={"site": pages.url}) as proxy,
    ):
        yield proxy


@pytest.fixture
async def visitor(proxy: Proxy) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser at the admin listener, which keeps cookies."""
    jar = aiohttp.CookieJar(unsafe=True)  # hosts without a name
    base = f"http://{proxy.server.admin.address}"
    async with aiohttp.ClientSession(base, cookie_jar=jar) as session:
        yield session


async def sign_in(visitor: aiohttp.ClientSession, token: str = TOKEN) -> aiohttp.ClientResponse:
    return await visitor.post("/session", json={"token": token})


async def test_a_stranger_is_told_nothing(visitor: aiohttp.ClientSession, proxy: Proxy) -> None:
    answer = await visitor.get("/")
    text = await answer.text()
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "Sign in" in text
    assert proxy.server.app.plan.version not in text
    for path in ("/panels", "/panels/request?id=1&url=http://a.org/", "/static/other"):
        assert (await visitor.get(path)).status == 401
    assert (await visitor.post("/session/end", json={})).status == 401


async def test_the_token_opens_it_and_signing_out_closes_it(
    visitor: aiohttp.ClientSession, proxy: Proxy
) -> None:
    await proxy.get("/")
    answer = await sign_in(visitor)
    assert answer.status == 200
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=28800"} <= set(cookie.split("; "))
    page = await (await visitor.get("/")).text()
    assert proxy.server.app.plan.version in page
    assert TOKEN not in page + cookie
    assert (await visitor.get("/policy")).status == 200
    assert (await visitor.post("/session/end", json={})).status == 200
    assert (await visitor.get("/")).status == 401


async def test_a_session_changes_what_the_token_does_by_the_same_rules(
    visitor: aiohttp.ClientSession,
) -> None:
    await sign_in(visitor)
    assert (await visitor.post("/purge", json={"urls": ["/"]})).status == 200
    form = await visitor.post("/purge", data={"everything": "true"})
    assert (form.status, (await form.json())["error"]["code"]) == (415, "not-json")
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "same-site"}):
        refused = await visitor.post("/purge", json={"everything": True}, headers=headers)
        assert (refused.status, (await refused.json())["error"]["code"]) == (403, "cross-origin")


async def test_a_wrong_token_beside_a_session_is_refused(visitor: aiohttp.ClientSession) -> None:
    await sign_in(visitor)
    answer = await visitor.get("/health", headers={"Authorization": "Bearer wrong"})
    assert answer.status == 401


async def test_who_guesses_is_made_to_wait(visitor: aiohttp.ClientSession) -> None:
    statuses = [(await sign_in(visitor, f"guess-{number}")).status for number in range(11)]
    assert statuses == [401] * 10 + [429]
    answer = await sign_in(visitor)
    assert answer.status == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 61
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert (await visitor.get("/health", headers=bearer)).status == 200  # tools do not suffer


async def test_another_token_ends_sessions(
    visitor: aiohttp.ClientSession, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sign_in(visitor)
    assert (await visitor.get("/health")).status == 200
    monkeypatch.setenv("EDGEPROXY_TOKEN", "another-token-altogether")
    await proxy.reload(POLICY)
    assert (await visitor.get("/health")).status == 401


@pytest.mark.parametrize("path", ["/", "/panels"])
async def test_pages_may_run_nothing_but_their_own_script(
    visitor: aiohttp.ClientSession, path: str
) -> None:
    await sign_in(visitor)
    answer = await visitor.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store"
    text = await answer.text()
    assert "<style" not in text
    assert "style=" not in text
    assert "onclick" not in text
    loaded = re.findall(r'(?:src|href|action)="([^"]*)"', text)
    assert not [url for url in loaded if not url.startswith(("/static/", "#"))]


async def test_without_an_access_log_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROXY_TOKEN", TOKEN)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    server = Server([policy], listen=[ListenAddress("127.0.0.1")], access_log="off")
    await server.start()
    try:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(headers=bearer) as tool:
            async with tool.get(server.urls[0]) as answer:
                assert answer.status == 502  # counted, and in no log
            async with tool.get(f"http://{server.admin.address}/") as answer:
                page = await answer.text()
    finally:
        await server.stop()
    assert "come from the access log, which is off" in page
    assert ">site<" in page.partition('id="p-routes"')[2].partition("</section>")[0]


async def test_a_client_without_cookies_makes_the_shares_other_than_weighted(
    visitor: aiohttp.ClientSession, proxy: Proxy
) -> None:
    """A monitor, for example: it is assigned to the same variant with each request."""
    await sign_in(visitor)
    for seen, verdict in ((1, "Too few assignments"), (150, "Not as weighted")):
        for _ in range(seen):
            await proxy.get("/")
        panels = await (await visitor.get("/panels")).text()
        told = panels.partition('id="p-experiments"')[2].partition("</section>")[0]
        assert verdict in told


HOSTILE = '"><script>alert(1)</script>{{7*7}}'


def test_what_clients_choose_is_text() -> None:
    page: dict[str, Any] = {"host": HOSTILE, "path": HOSTILE, "requests": 1.0, "mean_ms": 1.0,
                            "status": 500}  # fmt: skip
    module = _templates().get_template("tables.html").module
    shown = module.pages_table([page], "Mean")  # type: ignore[attr-defined]
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    told = _templates().get_template("request.html").render(text=HOSTILE, id="1", is_kept=True)
    assert "<script" not in told
