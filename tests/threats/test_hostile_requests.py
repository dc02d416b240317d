"""Rows 1, 2 and 4 to 8: whatever a client sends, origins get whole, canonical requests only."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from edgeproxy.pages import Pages
from edgeproxy.testing import Proxy, running
from tests.hostile import Case
from tests.hostile_classes import whole_corpus
from tests.threats.raw import Answer, Link, Origin, answers, ask, read_canonical, send

CORPUS = whole_corpus()

PASSING = """\
version: 1
accelerator: "on"
origins: {api: {url: http://127.0.0.1:1/, kind: http}}
routes:
  - {name: all, origin: api, cache: false}
"""

SITE = """\
version: 1
origins: {site: {url: http://127.0.0.1:1/}}
cache: {memory: {max_size: 8MiB}}
routes:
  - {name: all, origin: site}
"""

BEHIND = b"GET /behind HTTP/1.1\r\nHost: behind.example\r\n\r\n"


def test_corpus_is_large_and_no_case_is_there_twice() -> None:
    assert len({case.raw for case in CORPUS}) == len(CORPUS) >= 1200
    refused = sum(case.expect[-1].kind == "refused" for case in CORPUS)
    assert len(CORPUS) - refused >= 100  # a parser that refuses everything would do well without


def _methods(case: Case) -> list[str]:
    """Of the requests that get an answer, in order; what the front answers itself is no HEAD."""
    found = []
    for outcome in case.expect:
        if outcome.kind == "passed":
            found.append(outcome.canonical.split(b" ", 1)[0].decode())
        else:
            found.append("HEAD" if case.raw.startswith(b"HEAD") else "GET")
    return found


async def _outcome(proxy: Proxy, case: Case) -> list[Answer]:
    got = await send(proxy.port, case.raw)
    replies = answers(got, _methods(case))
    for reply in replies:
        assert reply.whole, reply
    for reply in replies[:-1]:
        assert reply.get("connection") != "close", "an answer after the last one"
    if case.expect and case.expect[-1].kind == "refused":
        assert replies[-1].get("connection") == "close", replies[-1]
    return replies


async def _echo(link: Link) -> None:
    """Says to each request what it was, as an origin that records has read it."""
    while (raw := await link.request()) is not None:
        [asked] = read_canonical(raw, _host_of(raw))
        said = f"{asked.method} {asked.target} {zlib.crc32(asked.body)}"
        body = b"" if asked.method == "HEAD" else b"ok"
        head = f"HTTP/1.1 200 OK\r\nX-Asked: {said}\r\nContent-Length: 2\r\n\r\n"
        await link.send(head.encode() + body)


@pytest.mark.parametrize("accelerator", ["on", "off"])
async def test_proxy_and_origin_see_the_same_requests(accelerator: str) -> None:
    """By itself each case comes to what is written beside it. With a request behind it, on the same
    connection, that one is answered where the connection goes on, and never sent where it does not.
    And what the client is told by each answer is what the origin was asked, in the same order.
    """
    wrong: list[str] = []
    policy = PASSING.replace('"on"', f'"{accelerator}"')
    async with Origin(_echo) as origin, running(policy, origins={"api": origin.url}) as proxy:
        for case in CORPUS:
            try:
                origin.forget()
                replies = await _outcome(proxy, case)
                statuses = [reply.status for reply in replies]
                assert statuses == list(case.statuses), f"{statuses}, not {case.statuses}"
                passed = [read for one in case.passed for read in _canonical(one)]
                assert _seen(origin) == passed
                is_cut = b"the request ends early" in replies[-1].body
                origin.forget()
                got = await send(proxy.port, case.raw + BEHIND)
                replies = answers(got, [*_methods(case), "GET"])
                told = [reply.get("x-asked") for reply in replies if reply.get("x-asked")]
                seen = _seen(origin)
                assert told == [f"{m} {target} {zlib.crc32(body)}" for m, target, body in seen]
                if is_cut:
                    continue  # what is behind it belongs to it
                ends = replies[len(statuses) - 1].get("connection") == "close"
                behind = [] if ends else [("GET", "/behind", b"")]
                assert seen == passed + behind, "the framing was lost"
                if case.expect[-1].kind == "refused":
                    assert ends
                elif b"close" not in case.raw.lower() and b"HTTP/1.0" not in case.raw:
                    assert not ends
            except (AssertionError, TimeoutError) as error:
                wrong.append(f"{case.name}: {type(error).__name__} {error}")
        assert (await ask(proxy.port, "/after")).status == 200
    assert not wrong, "\n".join(wrong)


def _seen(origin: Origin) -> list[tuple[str, str, bytes]]:
    return [(asked.method, asked.target, asked.body) for asked in origin.requests()]


def _host_of(raw: bytes) -> str:
    head, _, _ = raw.partition(b"\r\n\r\n")
    return next(line[6:] for line in head.split(b"\r\n") if line.startswith(b"Host: ")).decode()


def _canonical(raw: bytes) -> list[tuple[str, str, bytes]]:
    unconnected = raw.replace(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"")
    asked = read_canonical(unconnected, _host_of(raw))
    return [(a.method, a.target.removesuffix("?"), a.body) for a in asked]  # an empty query is none


async def test_nothing_ambiguous_reaches_a_site_behind_the_cache(tmp_path: Path) -> None:
    """The same in front of Pages: no body, no field of one connection, GET and HEAD only."""
    (tmp_path / "index.html").write_text("<!doctype html><title>Home</title>")
    wrong: list[str] = []
    async with (
        Pages(tmp_path) as pages,
        Origin() as origin,
        running(SITE, origins={"site": origin.url}) as recorded,
        running(SITE, origins={"site": pages.url}) as served,
    ):
        for case in CORPUS:
            origin.forget()
            try:
                await _outcome(recorded, case)
                for asked in origin.requests():
                    assert asked.method in ("GET", "HEAD")
                    assert asked.body == b""
                    assert asked.get("cookie") is asked.get("authorization") is None
                statuses = [reply.status for reply in await _outcome(served, case)]
                refused = [s for s, o in zip(case.statuses, case.expect, strict=True)
                           if o.kind == "refused"]  # fmt: skip
                assert statuses[len(statuses) - len(refused) :] == refused
                after = await ask(served.port)
                assert b"Home" in after.body, after
            except (AssertionError, TimeoutError) as error:
                wrong.append(f"{case.name}: {type(error).__name__} {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: site.example\r\nX-Forwarded-Host: other.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: site.example\r\nForwarded: host=other.example\r\n\r\n",
    ],
)
async def test_no_request_chooses_the_place_it_goes_to(raw: bytes) -> None:
    async with Origin() as origin, running(PASSING, origins={"api": origin.url}) as proxy:
        assert [reply.status for reply in answers(await send(proxy.port, raw))] == [200]
        [asked] = origin.requests()  # whose own name is in Host
        assert asked.target == "/"
        assert "other.example" not in f"{asked.get('forwarded')}"
        named = raw.partition(b"Host: ")[2].partition(b"\r\n")[0].decode()
        assert asked.get("x-forwarded-host") == named


async def test_no_upgrade_is_relayed_that_the_route_does_not_allow() -> None:
    """Row 5. An origin that switches protocols unasked has failed, and is no tunnel."""
    switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: %b\r\nConnection: Upgrade\r\n\r\nraw"
    for protocol in (b"h2c", b"websocket", b"tcp"):

        async def act(link, protocol=protocol):  # type: ignore[no-untyped-def]
            await link.request()
            await link.send(switched % protocol)
            await link.gone()

        raw = (
            b"GET / HTTP/1.1\r\nHost: site.example\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: %b\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % protocol
        )
        async with Origin(act) as origin, running(PASSING, origins={"api": origin.url}) as proxy:
            [reply] = answers(await send(proxy.port, raw))
            [asked] = origin.requests()  # which checks that no Upgrade went there
        assert reply.status == 502
        assert asked.get("connection") in (None, "keep-alive")
