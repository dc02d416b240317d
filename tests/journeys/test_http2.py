"""HTTP/2 with clients: the same answers as over HTTP/1.1, many at a time on one connection."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from hyperframe.frame import GoAwayFrame, HeadersFrame

from edgeproxy.engine.frames import Code
from edgeproxy.testing import Proxy, running
from tests.certificates import Authority
from tests.http2_client import GET, POST, connected, get, tls_port
from tests.threats.raw import Act, Link, Origin, answering

CURL, H2LOAD = shutil.which("curl"), shutil.which("h2load")
POLICY = """\
version: 1
origins: {{site: {{url: http://127.0.0.1:1/, kind: http}}}}
tls: {{certificates: [{{certificate: {folder}/server.pem, key: {folder}/server.key}}]}}
limits: {{shutdown_timeout: 5s}}
cache: {{rules: {{all: {{ttl: 1h}}}}}}
routes:
  - {{name: stored, match: {{path: /stored/**}}, cache: all}}
  - {{name: hello, match: {{path: /hello}}, respond: {{body: {hello}}}}}
  - {{name: all, cache: false}}
"""


def policy(folder: Path, hello: str = "hello") -> str:
    return POLICY.format(folder=folder, hello=hello)


@asynccontextmanager
async def served(
    folder: Path, act: Act | None = None, more: str = ""
) -> AsyncIterator[tuple[Proxy, Origin]]:
    Authority.in_folder(folder, "authority").sign(folder, "server", "a.example", "127.0.0.1")
    async with (
        Origin(act) as origin,
        running(policy(folder) + more, origins={"site": origin.url}, tls=True) as proxy,
    ):
        yield proxy, origin


async def output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    text, _ = await process.communicate()
    return text.decode()


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "ok2 200"),
        (("--head",), "2 200"),
        (("-d", "abc"), "ok2 200"),
        (("-d", "abc", "-H", "Expect: 100-continue"), "ok2 200"),
        (("-d", "abc", "-H", "Content-Length:"), "ok2 200"),
        (("--http1.1",), "ok1.1 200"),
    ],
)
async def test_curl(options: tuple[str, ...], told: str, tmp_path: Path) -> None:
    async with served(tmp_path) as (proxy, origin):
        url = f"https://127.0.0.1:{tls_port(proxy)}/"
        form = ("-w", "%{http_version} %{http_code}")
        got = await output("curl", "-sk", "--http2", *form, *options, url)
        assert got.endswith(told)
        [asked] = origin.requests()
        assert asked.body == (b"abc" if "-d" in options else b"")


@pytest.mark.skipif(H2LOAD is None, reason="h2load is not installed")
@pytest.mark.parametrize("path", ["hello", "stored/x", "x"])
async def test_many_requests_at_a_time(path: str, tmp_path: Path) -> None:
    async with served(tmp_path) as (proxy, _):
        url = f"https://127.0.0.1:{tls_port(proxy)}/{path}"
        told = await output("h2load", "-n", "200", "-c", "2", "-m", "50", url)
        assert "200 succeeded, 0 failed" in told
        assert len(proxy.log) + proxy.server.edge.accelerator.remembered >= 200
        assert not [entry for entry in proxy.log if "error" in entry]


async def test_hits_are_answered_in_the_front_and_remembered(tmp_path: Path) -> None:
    async with (
        served(tmp_path, more="accelerator: on\n") as (proxy, origin),
        connected(proxy) as client,
    ):
        first = await client.ask(get(b"/stored/x"))
        await proxy.server.app.plan.cache.settled()
        again = [await client.ask(get(b"/stored/x")) for _ in range(4)]
        assert {(one.status, one.body) for one in (first, *again)} == {(200, b"ok")}
        assert "hit" in (again[-1].get(b"cache-status") or b"").decode()
        assert len(origin.requests()) == 1
        assert proxy.server.edge.accelerator.remembered > 0
        for name in (b"connection", b"transfer-encoding", b"keep-alive"):
            assert first.get(name) is None


async def test_a_name_that_is_not_served_is_misdirected(tmp_path: Path) -> None:
    """A client may use a connection for every name of its certificate (RFC 9113, section 9.1.1)."""
    Authority.in_folder(tmp_path, "authority").sign(tmp_path, "server", "a.example", "b.example")
    text = policy(tmp_path) + "hosts: [a.example]\n"
    async with running(text, tls=True) as proxy, connected(proxy) as client:
        other = [*GET[:2], (b":authority", b"b.example"), (b":path", b"/hello")]
        for fields, status in ((get(b"/hello"), 200), (other, 421), (get(b"/hello"), 200)):
            assert (await client.ask(fields)).status == status


async def test_what_comes_before_an_answer_is_passed_on(tmp_path: Path) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x.css>; rel=preload\r\n\r\n"
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with served(tmp_path, answering(hints + ok)) as (proxy, _), connected(proxy) as client:
        answer = await client.ask(get())
        assert (answer.interim, answer.status, answer.body) == ([b"103"], 200, b"ok")
        answer = await client.ask([*POST, (b"expect", b"100-continue")], b"abc")
        assert (answer.interim, answer.status) == ([b"100", b"103"], 200)


async def _endless(link: Link) -> None:
    """In chunks, so that nobody knows where it ends; or short."""
    while (raw := await link.request()) is not None:
        if b"/long" not in raw:
            await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            continue
        await link.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(64):
            await link.send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
        await link.send(b"0\r\n\r\n")


@pytest.mark.parametrize("window", [100, 65535, 1 << 24])
async def test_long_answers_come_whole_through_any_window(window: int, tmp_path: Path) -> None:
    async with (
        served(tmp_path, _endless) as (proxy, _),
        connected(proxy, window=window) as client,
    ):
        numbers = [
            client.begin(get(b"/long%d" % number)) for number in range(1 if window < 200 else 4)
        ]
        await client.flush()
        for number in numbers:
            answer = await client.answer(number)
            assert (answer.status, len(answer.body), answer.reset) == (200, 64 * 0x8000, None)


async def test_an_answer_that_is_not_taken_holds_up_no_other(tmp_path: Path) -> None:
    async with (
        served(tmp_path, _endless) as (proxy, _),
        connected(proxy, window=1000) as client,
    ):
        client.takes_data = False
        stalled = client.begin(get(b"/long"))
        assert (await client.ask(get(b"/hello"))).body == b"hello"
        assert (await client.ask(get(b"/x"))).body == b"ok"
        assert (len(client.answers[stalled].body), client.answers[stalled].ended) == (1000, False)
        client.h2.reset_stream(stalled, Code.CANCEL)
        assert (await client.ask(get(b"/x"))).body == b"ok"


async def test_a_long_body_reaches_the_origin_whole(tmp_path: Path) -> None:
    async with served(tmp_path) as (proxy, origin), connected(proxy) as client:
        number = client.begin([*POST], ended=False)
        left = 3_000_000
        while left:
            size = min(left, 16384, client.h2.local_flow_control_window(number))
            if size:
                left -= size
                client.h2.send_data(number, b"y" * size, end_stream=not left)
                await client.flush()
            else:
                await client.hear()
        answer = await client.answer(number)
        assert (answer.status, answer.body) == (200, b"ok")
        assert origin.requests()[0].body == b"y" * 3_000_000


async def test_a_truncated_answer_is_told_from_a_whole_one(tmp_path: Path) -> None:
    async def act(link: Link) -> None:
        await link.request()
        await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)

    async with served(tmp_path, act) as (proxy, _), connected(proxy) as client:
        answer = await client.ask(get())
        assert (answer.status, answer.ended, answer.reset) == (200, False, Code.INTERNAL_ERROR)
        assert (await client.ask(get(b"/hello"))).status == 200


async def test_a_reload_is_in_force_for_the_next_request(tmp_path: Path) -> None:
    async with served(tmp_path) as (proxy, _), connected(proxy) as client:
        assert (await client.ask(get(b"/hello"))).body == b"hello"
        await proxy.reload(policy(tmp_path, "changed"))
        assert (await client.ask(get(b"/hello"))).body == b"changed"


async def test_the_proxy_says_goodbye_and_ends_what_is_under_way(tmp_path: Path) -> None:
    asked, released = asyncio.Event(), asyncio.Event()

    async def act(link: Link) -> None:
        if await link.request():
            asked.set()
            await released.wait()
            await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with (
        served(tmp_path, act) as (proxy, _),
        connected(proxy) as busy,
        connected(proxy) as idle,
    ):
        assert (await idle.ask(get(b"/hello"))).status == 200
        number = busy.begin(get())
        await busy.flush()
        await asked.wait()
        stopping = asyncio.ensure_future(proxy.server.stop())
        assert await idle.end() == [Code.NO_ERROR]
        while not busy.goaways:
            await busy.hear()
        head = HeadersFrame(3, busy.h2.encoder.encode(get()), flags=["END_HEADERS", "END_STREAM"])
        await busy.raw(head)  # too late, but it does no harm
        released.set()
        answer = await busy.answer(number)
        assert (answer.status, answer.body, answer.ended) == (200, b"ok", True)
        assert set(await busy.end()) == {Code.NO_ERROR}
        await stopping


async def test_a_client_that_says_goodbye_gets_what_it_has_asked_for(tmp_path: Path) -> None:
    released = asyncio.Event()

    async def act(link: Link) -> None:
        if await link.request():
            await released.wait()
            await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with served(tmp_path, act) as (proxy, _), connected(proxy) as client:
        number = client.begin(get())
        await client.flush()
        await client.raw(GoAwayFrame(0))
        released.set()
        answer = await client.answer(number)
        assert (answer.status, answer.body) == (200, b"ok")
        assert await client.end() == [Code.NO_ERROR]


async def test_what_a_client_is_told_of_the_connection(tmp_path: Path) -> None:
    async with served(tmp_path) as (proxy, _), connected(proxy) as client:
        await client.ask(get(b"/hello"))
        assert client.settings == {1: 4096, 2: 0, 3: 100, 4: 65535, 5: 16384, 6: 32768, 8: 0}


async def test_the_log_tells_the_versions_apart_also_of_what_is_given_again(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 6\r\n\r\nstored"
    async with served(tmp_path, answering(answer), "accelerator: on\n") as (proxy, _):
        app = proxy.server.app
        app.names_clients = True
        async with connected(proxy) as client:
            while app.counts.remembered < 2:
                assert (await client.ask(get(b"/stored/x"))).status == 200
                await app.plan.cache.settled()
                assert len(proxy.log) < 10
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"GET /stored/x HTTP/1.1\r\nHost: a.example\r\n\r\n")
            await reader.readuntil(b"stored")
            writer.close()
            await writer.wait_closed()
        found = [line["protocol"] for line in proxy.log]
    assert found == ["HTTP/2.0"] * (len(found) - 1) + ["HTTP/1.1"]


async def _visit(proxies: list[Proxy], told: list[str], wanted: int) -> None:
    """Ask the first of `proxies` that listens, on one connection for as long as it lasts."""
    while len(told) < wanted:
        with suppress(ConnectionError):
            async with connected(proxies[0]) as client:
                while not client.goaways and len(told) < wanted:
                    numbers = [client.begin(get(b"/%d" % (len(told) % 40))) for _ in range(3)]
                    await client.flush()
                    for number in numbers:
                        answer = await client.answer(number)
                        if answer.status == 200 and answer.ended:
                            told.append("")
                        elif not client.may_ask_again(number):
                            told.append(f"{answer} of {number}, up to {client.last_stream}")


async def test_a_thousand_requests_while_all_is_changed_and_none_fails(tmp_path: Path) -> None:
    """Policy and certificate four times, then the proxy itself."""
    authority = Authority.in_folder(tmp_path, "authority")
    authority.sign(tmp_path, "server", "a.example")
    async with (
        Origin() as origin,
        running(policy(tmp_path), origins={"site": origin.url}, tls=True) as first,
        running(policy(tmp_path), origins={"site": origin.url}, tls=True) as second,
    ):
        proxies, told = [first, second], list[str]()
        visitors = [asyncio.ensure_future(_visit(proxies, told, 1000)) for _ in range(4)]
        for number in range(4):
            while len(told) < 150 * (number + 1):
                await first.get("/hello")
            authority.sign(tmp_path, "server", "a.example", f"b{number}.example")
            await first.reload(policy(tmp_path, f"hello{number}"))
        del proxies[0]
        await first.server.stop()
        await asyncio.gather(*visitors)
        assert not [one for one in told if one]
        assert first.log
        assert second.log
