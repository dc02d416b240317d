"""`Pages` on real sockets: counting, keep-alive, faults, stop and start."""

import asyncio
import ssl
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.pages import Fault, Pages, Request
from edgeproxy.pages.server import LOG_LIMIT

Connect = Callable[..., Awaitable[Any]]

PAGE = b"<!doctype html><title>Page</title>"


# ---------------------------------------------------------------- what it keeps


async def test_requests_and_bytes_are_counted_by_path(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        wire = await connect(pages)
        await wire.ask("/page?x=1")
        wire.send("HEAD /page HTTP/1.1", "Host: x")
        await wire.head()
        await wire.ask("/letters.txt", "Range: bytes=0-3")
        assert pages.requests == Counter({"/page": 2, "/letters.txt": 1})
        assert pages.requests["/never"] == 0
        assert pages.bytes_sent == Counter({"/page": len(PAGE), "/letters.txt": 4})


async def test_log_has_the_whole_request_head(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        wire = await connect(pages)
        await wire.ask("/page?x=%20", "X-Twice: a", "X-Twice: b")
        (seen,) = pages.log
        assert (seen.method, seen.target) == ("GET", "/page?x=%20")
        assert seen.headers["x-twice"] == "a, b"
        assert seen.headers.pairs == (
            ("Host", "127.0.0.1"), ("X-Twice", "a"), ("X-Twice", "b"),
        )  # fmt: skip


async def test_publish_makes_etags_new(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        wire = await connect(pages)
        before = await wire.ask("/page")
        pages.publish()
        after = await wire.ask("/page", f"If-None-Match: {before.headers['etag']}")
        assert after.status == 200
        assert after.headers["etag"] != before.headers["etag"]


# ---------------------------------------------------------------- connections


async def test_connection_is_kept_for_many_requests(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        wire = await connect(pages)
        for target, status in [("/page", 200), ("/nope", 404), ("/dir", 301), ("/", 200)]:
            answer = await wire.ask(target)
            assert answer.status == status
            assert answer.headers["connection"] == "keep-alive"


async def test_head_and_304_are_followed_by_the_next_answer(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        wire = await connect(pages)
        wire.send("HEAD /page HTTP/1.1", "Host: x")
        head = await wire.head()
        assert head.headers["content-length"] == str(len(PAGE))
        answer = await wire.ask("/page", f"If-None-Match: {head.headers['etag']}")
        assert answer.status == 304
        assert (await wire.ask("/page")).body == PAGE


async def test_pipelined_requests_are_answered_in_order(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        wire = await connect(pages)
        targets = ["/letters.txt", "/map.pmtiles", "/tiny.txt"] * 20
        for target in targets:
            wire.send(f"GET {target} HTTP/1.1", "Host: x")
        sizes = [len((await wire.answer()).body) for _ in targets]
        assert sizes == [26, 100_000, 10] * 20


async def test_client_that_reads_nothing_is_not_answered_without_end(
    folder: Path, connect: Connect
) -> None:
    async with Pages(folder) as pages:
        wire = await connect(pages)
        wire.reader._transport.pause_reading()
        for _ in range(1000):
            wire.send("GET /map.pmtiles HTTP/1.1", "Host: x", "X-Padding: " + "x" * 3000)
        other = await connect(pages)
        while pages.requests["/map.pmtiles"] == 0:
            await other.ask("/")
        for _ in range(100):
            await other.ask("/")
        assert 0 < pages.requests["/map.pmtiles"] < 1000
        wire.reader._transport.resume_reading()
        for _ in range(1000):
            assert len((await wire.answer()).body) == 100_000


async def test_pipelined_requests_wait_behind_a_fault(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        go_on = asyncio.Event()
        pages.sleep = lambda _: go_on.wait()
        pages.set_fault("/page", Fault(delay_s=9))
        wire = await connect(pages)
        wire.send("GET /page HTTP/1.1", "Host: x")
        wire.send("GET /tiny.txt HTTP/1.1", "Host: x")
        other = await connect(pages)
        assert (await other.ask("/")).status == 200
        assert pages.requests["/tiny.txt"] == 0
        go_on.set()
        assert (await wire.answer()).body == PAGE
        assert (await wire.answer()).body == b"0123456789"


async def test_body_of_a_request_is_skipped(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        wire = await connect(pages)
        wire.send("POST /page HTTP/1.1", "Host: x", "Content-Length: 300000", body=b"G" * 300_000)
        wire.send("GET /page HTTP/1.1", "Host: x")
        assert (await wire.answer()).status == 405
        assert (await wire.answer()).body == PAGE


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["GET /page HTTP/1.1", "Host: x", "Connection: close"], 200),
        (["GET /page HTTP/1.0"], 200),
        (["POST /page HTTP/1.1", "Host: x", "Transfer-Encoding: chunked"], 405),
        (["GET /page HTTP/1.1"], 400),
        (["\0\0\0"], 400),
        (["GET /page HTTP/1.1", "Host: x", "X: " + "a" * 70_000], 400),
        (["GET /" + "a" * 200_000], 400),
    ],
)
async def test_connection_ends_after_the_answer(
    folder: Path, connect: Connect, lines: list[str], status: int
) -> None:
    async with Pages(folder) as pages:
        wire = await connect(pages)
        wire.send(*lines, body=b"ffff\r\nmore")
        answer = await wire.answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert await wire.reader.read() == b""


async def test_oversized_head_is_refused_before_it_ends(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        wire = await connect(pages)
        wire.writer.write(b"GET /" + b"a" * 70_000)
        assert (await wire.answer()).status == 400


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("retry_after", [None, 30])
async def test_status_fault(
    folder: Path, connect: Connect, status: int, retry_after: int | None
) -> None:
    async with Pages(folder, cdn=True) as pages:
        pages.set_fault("/**", Fault(status=status, retry_after=retry_after, times=1))
        wire = await connect(pages)
        answer = await wire.ask("/page")
        assert answer.status == status
        assert answer.headers["server"] == ("GitHub.com" if status == 429 else "Varnish")
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers.get("retry-after") == (None if retry_after is None else "30")
        assert not {"cache-control", "etag", "last-modified"} & set(answer.headers)
        assert (await wire.ask("/page")).status == 200


def record_waits(pages: Pages) -> list[float]:
    """Let faults wait no time; the list fills with the seconds they would have waited."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    pages.sleep = sleep
    return waited


async def test_delay_waits_before_the_head(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        waited = record_waits(pages)
        pages.set_fault("/page", Fault(delay_s=2.5, times=1))
        wire = await connect(pages)
        assert (await wire.ask("/page")).body == PAGE
        assert waited == [2.5]
        assert (await wire.ask("/page")).body == PAGE
        assert waited == [2.5]


async def test_body_delay_sends_half_first(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        go_on = asyncio.Event()
        pages.sleep = lambda _: go_on.wait()
        pages.set_fault("/page", Fault(body_delay_s=9))
        wire = await connect(pages)
        wire.send("GET /page HTTP/1.1", "Host: x")
        await wire.head()
        half = len(PAGE) // 2
        assert await wire.reader.readexactly(half) == PAGE[:half]
        assert pages.bytes_sent["/page"] == half
        go_on.set()
        assert await wire.reader.readexactly(len(PAGE) - half) == PAGE[half:]


async def test_drip_sends_all_in_small_pieces(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        waited = record_waits(pages)
        pages.set_fault("/letters.txt", Fault(drip_bytes_per_s=50))
        wire = await connect(pages)
        assert len((await wire.ask("/letters.txt")).body) == 26
        assert waited == [0.1] * 6


async def test_reset_is_a_reset_and_not_an_end(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        pages.set_fault("/page", Fault(reset=True))
        wire = await connect(pages)
        wire.send("GET /page HTTP/1.1", "Host: x")
        with pytest.raises(ConnectionResetError):
            await wire.reader.read()
        assert pages.requests["/page"] == 1


async def test_reset_within_the_body(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        pages.set_fault("/page", Fault(reset_after_bytes=10))
        wire = await connect(pages)
        wire.send("GET /page HTTP/1.1", "Host: x")
        with pytest.raises(ConnectionResetError):
            await wire.reader.readexactly(100_000)
        assert pages.bytes_sent["/page"] == 10


async def test_cut_ends_the_body_too_soon(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        pages.set_fault("/page", Fault(cut_after_bytes=10))
        wire = await connect(pages)
        wire.send("GET /page HTTP/1.1", "Host: x")
        assert (await wire.head()).headers["content-length"] == str(len(PAGE))
        assert await wire.reader.read() == PAGE[:10]


@pytest.mark.parametrize(("delta", "stated"), [(10, 44), (-10, 24), (-1000, 0)])
async def test_wrong_content_length(
    folder: Path, connect: Connect, delta: int, stated: int
) -> None:
    async with Pages(folder) as pages:
        pages.set_fault("/page", Fault(content_length_delta=delta))
        wire = await connect(pages)
        wire.send("GET /page HTTP/1.1", "Host: x")
        assert (await wire.head()).headers["content-length"] == str(stated)
        assert await wire.reader.read() == PAGE


async def test_stall_sends_nothing_until_the_stop(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        pages.set_fault("/page", Fault(stall=True))
        wire = await connect(pages)
        wire.send("GET /page HTTP/1.1", "Host: x")
        wire.send("GET /tiny.txt HTTP/1.1", "Host: x")
        other = await connect(pages)
        assert (await other.ask("/")).status == 200
        assert pages.requests["/tiny.txt"] == 0
        await pages.stop()
        assert await wire.reader.read() == b""


async def test_client_that_leaves_during_a_fault_ends_it(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        started, cancelled = asyncio.Event(), asyncio.Event()

        async def sleep(_: float) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        pages.sleep = sleep
        pages.set_fault("/page", Fault(delay_s=9))
        wire = await connect(pages)
        wire.send("GET /page HTTP/1.1", "Host: x")
        await started.wait()
        wire.writer.transport.abort()
        await cancelled.wait()


async def test_connection_that_asks_to_end_ends_after_a_fault(
    folder: Path, connect: Connect
) -> None:
    async with Pages(folder) as pages:
        record_waits(pages)
        pages.set_fault("/page", Fault(delay_s=1))
        wire = await connect(pages)
        assert (await wire.ask("/page", "Connection: close")).body == PAGE
        assert await wire.reader.read() == b""


async def test_log_keeps_the_newest_requests(folder: Path) -> None:
    pages = Pages(folder)
    for number in range(LOG_LIMIT + 5):
        pages.respond(Request("GET", f"/tiny.txt?{number}"))
    assert pages.log[-1].target == f"/tiny.txt?{LOG_LIMIT + 4}"
    assert len(pages.log) < LOG_LIMIT
    assert pages.requests["/tiny.txt"] == LOG_LIMIT + 5


async def test_cleared_faults_are_gone(folder: Path, connect: Connect) -> None:
    async with Pages(folder) as pages:
        pages.set_fault("/**", Fault(reset=True))
        pages.clear_faults()
        wire = await connect(pages)
        assert (await wire.ask("/page")).status == 200


# ---------------------------------------------------------------- stop and start


async def test_stop_closes_port_and_connections_and_start_takes_the_same_port(
    folder: Path, connect: Connect
) -> None:
    async with Pages(folder) as pages:
        port = pages.port
        wire = await connect(pages)
        await wire.ask("/page")
        await pages.stop()
        assert await wire.reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await connect(pages)
        await pages.start()
        assert pages.port == port
        again = await connect(pages)
        assert (await again.ask("/page")).status == 200
        assert pages.requests["/page"] == 2


async def test_stop_and_start_may_be_repeated(folder: Path) -> None:
    async with Pages(folder) as pages:
        await pages.start()
        await pages.stop()
        await pages.stop()
    pages = Pages(folder)
    await pages.start()
    await pages.stop()


async def test_port_in_use_is_an_os_error(folder: Path) -> None:
    async with Pages(folder) as first:
        second = Pages(folder, listen=f"127.0.0.1:{first.port}")
        with pytest.raises(OSError, match="in use"):
            await second.start()


async def test_warning_for_an_address_that_others_reach(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Pages(folder):
        pass
    assert capsys.readouterr().err == ""
    async with Pages(folder, listen="0.0.0.0:0"):
        pass
    assert "preview only, not a public server" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("base", "path"),
    [("/", "/"), ("", "/"), ("project", "/project/"), ("/a//b", "/a/b/"), ("/a b/", "/a%20b/")],
)
async def test_base_path_is_normalised(folder: Path, base: str, path: str) -> None:
    async with Pages(folder, base=base) as pages:
        assert pages.url == f"http://127.0.0.1:{pages.port}{path}"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"base": "/../x/"}, "is no path"),
        ({"base": "/a?b/"}, "is no path"),
        ({"listen": "8081"}, "write ADDRESS:PORT"),
        ({"listen": "127.0.0.1:http"}, "write ADDRESS:PORT"),
        ({"listen": "127.0.0.1:70000"}, "write ADDRESS:PORT"),
        ({"replicas": 3}, "it must be 1 or 2"),
    ],
)
def test_bad_option_is_refused(folder: Path, options: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Pages(folder, **options)


# ---------------------------------------------------------------- TLS


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for user.github.io, and a client's that trusts it."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
             "-subj", "/CN=user.github.io", "-addext", "subjectAltName=DNS:user.github.io"],
            check=True, capture_output=True,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("needs the openssl command to make a certificate")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))


async def test_https_knows_its_scheme_and_server_name(
    folder: Path, connect: Connect, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server, client = contexts
    async with Pages(folder, tls=server, host="user.github.io", enforce_https=True) as pages:
        assert pages.url.startswith("https://")
        wire = await connect(pages, ssl=client, server_hostname="user.github.io")
        wire.send("GET /dir HTTP/1.1", "Host: user.github.io")
        assert (await wire.answer()).headers["location"] == "https://user.github.io/dir/"
        wire.send("GET /page HTTP/1.1", "Host: user.github.io")
        answer = await wire.answer()
        assert (answer.status, answer.body) == (200, PAGE)
        assert answer.headers["strict-transport-security"] == "max-age=31556952"
        wire.send("GET /page HTTP/1.1", "Host: www.example.org", "Connection: close")
        assert (await wire.answer()).status == 421
        assert await wire.reader.read() == b""
