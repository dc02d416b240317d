"""Row 3: odd pieces everywhere in requests of HTTP/2 and HTTP/3; an origin sees them, or none."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from tests.http2_client import Answer, Fields
from tests.threats.conftest import Version
from tests.threats.raw import Asked, Origin
from tests.threats.test_streams import served

Request = tuple[list[tuple[bytes, bytes]], list[bytes], Fields]

EVIL = b"GET /evil HTTP/1.1\r\nHost: evil\r\n\r\n"
ODD = (
    b"\r", b"\n", b"\r\n", b"\0", b"\t", b" ", b"\x0b", b"\x7f", b"\x80", b":", b";", b"#", b"?",
    b"@", b"\\", b"%0d%0a", b"%00", b"\r\n\r\n" + EVIL, b" HTTP/1.1\r\nx: y", b"\r\nevil: 1",
    b"\r\n evil",
)  # fmt: skip
LENGTHS = (
    b"", b"0", b"3", b"03", b"+3", b"-3", b"3 ", b" 3", b"3,3", b"3;", b"0x3", b"3.0", b"1_0",
    b"\xb3", b"4", b"99", b"9" * 30, b"3\r\ntransfer-encoding: chunked",
)  # fmt: skip
ABOUT_CONNECTIONS = (
    (b"connection", b"close"), (b"connection", b"content-length"), (b"keep-alive", b"timeout=5"),
    (b"proxy-connection", b"close"), (b"transfer-encoding", b"chunked"),
    (b"transfer-encoding", b"identity"), (b"transfer-encoding", b"gzip, chunked"),
    (b"upgrade", b"h2c"), (b"upgrade", b"websocket"), (b"te", b"gzip"), (b"te", b"trailers"),
    (b"http2-settings", b"AAMAAABk"), (b"trailer", b"x"), (b"expect", b"100-continue"),
    (b"expect", b"200-ok"), (b"content_length", b"3"), (b"transfer_encoding", b"chunked"),
    (b"Content-Length", b"3"), (b"host", b"evil"), (b"host", b"a.example"), (b"host", b""),
    (b":authority", b"evil"), (b":path", b"/evil"), (b":evil", b"1"), (b":status", b"200"),
    (b"via", b"1.1 x"), (b"x-http-method-override", b"DELETE"), (b"content-encoding", b"gzip"),
)  # fmt: skip
REFUSALS = (400, 405, 413, 417, 501)
BODIES: tuple[list[bytes], ...] = (
    [],
    [b""],
    [b"abc"],
    [b"a", b"bc"],
    [EVIL],
    [b"0\r\n\r\n" + EVIL],
)


def request(**pseudo: bytes) -> list[tuple[bytes, bytes]]:
    known = {
        "method": b"POST",
        "scheme": b"https",
        "authority": b"a.example",
        "path": b"/",
    } | pseudo
    return [(b":" + name.encode(), value) for name, value in known.items()]


def corpus() -> Iterator[Request]:
    for odd in ODD:
        for place in ("method", "authority", "path", "scheme"):
            usual = dict(request())[b":" + place.encode()]
            yield request(**{place: usual + odd}), [], ()
            yield request(**{place: odd + usual}), [b"abc"], ()
        yield [*request(), (b"x" + odd, b"y")], [b"abc"], ()
        yield [*request(), (b"x", b"y" + odd + b"z")], [b"abc"], ()
        yield [*request(), (b"cookie", b"a=1"), (b"cookie", odd + b"b=2")], [], ()
        yield request(), [b"abc"], [(b"x", b"y" + odd)]
    for length, body in product(LENGTHS, BODIES):
        yield [*request(), (b"content-length", length)], body, ()
    for field, body in product(ABOUT_CONNECTIONS, ([], [b"abc"], [EVIL])):
        yield [*request(), field], body, ()
        yield [field, *request()], body, ()
    for body in BODIES:
        yield request(), body, [(b"content-length", b"99"), (b"host", b"evil")]


async def _ask(client: Any, asked: Request) -> Answer:
    fields, parts, trailers = asked
    answer: Answer = await client.ask(fields, *parts, trailers=trailers)
    return answer


def _is_what_was_sent(seen: Asked, asked: Request) -> bool:
    fields, parts, _ = asked
    told = dict(fields)
    method, path = told[b":method"].decode("latin-1"), told[b":path"].decode("latin-1")
    names = {name for name, _ in seen.fields}
    return (
        (seen.method, seen.body) == (method, b"".join(parts))
        and seen.target.rstrip("?") == path.rstrip("?")
        and not names & {"evil", "content_length", "transfer_encoding"}
        and (seen.get("x-forwarded-host") or "").startswith("a.example")
    )


async def test_an_origin_sees_what_was_sent_or_nothing(tmp_path: Path, version: Version) -> None:
    requests = list(corpus())
    assert len(requests) > 400
    passed = 0
    async with Origin() as origin, served(tmp_path, origin) as proxy:
        while requests:
            async with version.connected(proxy) as client:
                while requests and not client.is_leaving:
                    asked = requests.pop()
                    origin.forget()
                    answer = await _ask(client, asked)
                    seen = [] if answer.status != 200 else origin.requests()
                    if answer.status == 200:
                        passed += 1
                        assert len(seen) == 1, (asked, seen)
                        assert _is_what_was_sent(seen[0], asked), (asked, seen)
                    else:
                        assert answer.reset or client.is_leaving or answer.status in REFUSALS, asked
                        assert b"\r\n\r\n" not in origin.received, (asked, origin.received)
    assert 50 < passed < 200
