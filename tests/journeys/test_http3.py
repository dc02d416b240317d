"""HTTP/3 with clients: the same answers as over HTTP/1.1, and a way there that they are told of."""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from signal import SIGTERM

import pytest
from cryptography import x509

from edgeproxy.addresses import BadAddress
from edgeproxy.engine.http3_frames import Code
from edgeproxy.engine.listening import ListenAddress
from edgeproxy.engine.serve import Server
from edgeproxy.testing import Proxy, running
from tests import http2_client
from tests.certificates import Authority
from tests.http2_client import GET, POST, get, tls_port
from tests.http3_client import Client, connected, unconnected
from tests.journeys.conftest import Child
from tests.threats.raw import Act, Link, Origin, answering

POLICY = """\
version: 1
origins: {{site: {{url: http://127.0.0.1:1/, kind: http}}}}
tls:
  certificates: [{{certificate: {folder}/server.pem, key: {folder}/server.key}}]
  protocols: [{protocols}, http/1.1]
  {more}
limits: {{shutdown_timeout: 5s}}
cache: {{rules: {{all: {{ttl: 1h}}}}}}
routes:
  - {{name: stored, match: {{path: /stored/**}}, cache: all}}
  - {{name: hello, match: {{path: /hello}}, respond: {{body: {hello}}}}}
  - {{name: all, cache: false}}
"""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def policy(
    folder: Path, hello: str = "hello", protocols: str = "h3, h2", more: str = "min_version: 1.3"
) -> str:
    return POLICY.format(folder=folder, hello=hello, protocols=protocols, more=more)


@asynccontextmanager
async def served(
    folder: Path, act: Act | None = None, text: str = ""
) -> AsyncIterator[tuple[Proxy, Origin]]:
    Authority.in_folder(folder, "authority").sign(folder, "server", "a.example", "127.0.0.1")
    async with (
        Origin(act) as origin,
        running(text or policy(folder), origins={"site": origin.url}, tls=True) as proxy,
    ):
        yield proxy, origin


async def test_requests_are_answered(tmp_path: Path) -> None:
    async with served(tmp_path) as (proxy, origin), connected(proxy) as client:
        answer = await client.ask(get())
        assert (answer.status, answer.body) == (200, b"ok")
        answer = await client.ask([(b":method", b"HEAD"), *get()[1:]])
        assert (answer.status, answer.body, answer.get(b"content-length")) == (200, b"", b"2")
        assert (await client.ask([*POST], b"abc", b"def")).status == 200
        assert [asked.method for asked in origin.requests()] == ["GET", "HEAD", "POST"]
        assert origin.requests()[2].body == b"abcdef"
        for name in (b"connection", b"transfer-encoding", b"keep-alive"):
            assert answer.get(name) is None


async def test_hits_are_remembered_and_the_log_tells_the_version(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 6\r\n\r\nstored"
    text = f"{policy(tmp_path)}accelerator: on\n"
    async with served(tmp_path, answering(answer), text) as (proxy, origin):
        app = proxy.server.app
        app.names_clients = True
        async with connected(proxy) as client:
            while app.counts.remembered < 2:
                told = await client.ask(get(b"/stored/x"))
                assert (told.status, told.body) == (200, b"stored")
                await app.plan.cache.settled()
                assert len(proxy.log) < 10
        assert len(origin.requests()) == 1
        assert {line["protocol"] for line in proxy.log} == {"HTTP/3.0"}


async def test_a_name_that_is_not_served_is_misdirected(tmp_path: Path) -> None:
    text = policy(tmp_path) + "hosts: [a.example]\n"
    async with served(tmp_path, text=text) as (proxy, _), connected(proxy) as client:
        other = [*GET[:2], (b":authority", b"b.example"), (b":path", b"/hello")]
        for fields, status in ((get(b"/hello"), 200), (other, 421), (get(b"/hello"), 200)):
            assert (await client.ask(fields)).status == status


async def test_what_comes_before_an_answer_is_passed_on(tmp_path: Path) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x.css>; rel=preload\r\n\r\n"
    async with served(tmp_path, answering(hints + OK)) as (proxy, _), connected(proxy) as client:
        answer = await client.ask(get())
        assert (answer.interim, answer.status, answer.body) == ([b"103"], 200, b"ok")
        answer = await client.ask([*POST, (b"expect", b"100-continue")], b"abc")
        assert (answer.interim, answer.status) == ([b"100", b"103"], 200)


SIZE = 4 * 1024 * 1024


async def _long(link: Link) -> None:
    """In chunks, so that nobody knows where it ends; or short."""
    while (raw := await link.request()) is not None:
        if b"/long" not in raw:
            await link.send(OK)
            continue
        await link.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(SIZE // 0x8000):
            await link.send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
        await link.send(b"0\r\n\r\n")


@pytest.mark.parametrize("window", [5000, 1 << 20])
async def test_long_answers_come_whole_and_hold_up_no_other(window: int, tmp_path: Path) -> None:
    async with (
        served(tmp_path, _long) as (proxy, _),
        connected(proxy, window=window) as client,
    ):
        numbers = [client.begin(get(b"/long" if number == 1 else b"/")) for number in range(4)]
        await client.flush()
        for number in reversed(numbers):
            answer = await client.answer(number)
            assert (answer.status, answer.ended) == (200, True)
        assert client.answers[numbers[1]].body == b"x" * SIZE


async def test_a_long_body_reaches_the_origin_whole(tmp_path: Path) -> None:
    async with served(tmp_path) as (proxy, origin), connected(proxy) as client:
        parts = [os.urandom(SIZE // 8) for _ in range(8)]
        assert (await client.ask([*POST], *parts)).status == 200
        [asked] = origin.requests()
        assert asked.body == b"".join(parts)


async def test_many_requests_at_a_time(tmp_path: Path) -> None:
    async with served(tmp_path) as (proxy, _), connected(proxy) as client:
        for path in (b"/hello", b"/stored/x", b"/x"):
            numbers = [client.begin(get(path)) for _ in range(150)]  # some wait with the client
            await client.flush()
            for number in numbers:
                assert (await client.answer(number)).status == 200


async def test_what_is_lost_on_the_way_is_sent_again(tmp_path: Path) -> None:
    size = 300_000
    long = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    async with (
        served(tmp_path, answering(long)) as (proxy, origin),
        connected(proxy) as client,
    ):
        numbers = random.Random(1)
        client.loses = lambda: numbers.random() < 0.05
        told = [await client.ask(get()), await client.ask([*POST], b"y" * size)]
        assert [(answer.status, answer.body) for answer in told] == [(200, b"x" * size)] * 2
        assert origin.requests()[1].body == b"y" * size


async def test_a_truncated_answer_is_told_from_a_whole_one(tmp_path: Path) -> None:
    async def act(link: Link) -> None:
        await link.request()
        await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)

    async with served(tmp_path, act) as (proxy, _), connected(proxy) as client:
        answer = await client.ask(get())
        assert (answer.status, answer.ended, answer.reset) == (200, False, Code.INTERNAL_ERROR)
        assert (await client.ask(get(b"/hello"))).status == 200


# ------------------------------------------------------------ the way there


async def _told(proxy: Proxy, path: bytes = b"/hello") -> bytes | None:
    """What a client of HTTP/2 is told of other ways."""
    async with http2_client.connected(proxy) as client:
        return (await client.ask(get(path))).get(b"alt-svc")


async def test_who_comes_over_tls_is_told_of_it(tmp_path: Path) -> None:
    own = b"HTTP/1.1 200 OK\r\nAlt-Svc: clear\r\nContent-Length: 2\r\n\r\nok"
    async with served(tmp_path, answering(own)) as (proxy, _):
        ours = b'h3=":%d"; ma=86400' % tls_port(proxy)
        for _ in range(5):  # from the cache, and as it is remembered
            assert await _told(proxy, b"/hello") == ours
        assert await _told(proxy, b"/x") == b"clear"
        for _ in range(5):
            reply = await proxy.get("/hello", headers={"host": "a.example"})
            assert "alt-svc" not in reply.headers
        async with connected(proxy) as client:
            assert (await client.ask(get(b"/hello"))).get(b"alt-svc") == ours


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("alt_svc: 'h3=\":443\"; ma=60'", b'h3=":443"; ma=60'),
        ("alt_svc: false", None),
    ],
)
async def test_the_policy_may_say_what_is_told(
    more: str, told: bytes | None, tmp_path: Path
) -> None:
    async with served(tmp_path, text=policy(tmp_path, more=more)) as (proxy, _):
        assert await _told(proxy) == told


async def test_a_reload_begins_and_ends_it(tmp_path: Path) -> None:
    async with served(tmp_path, text=policy(tmp_path, protocols="h2")) as (proxy, _):
        assert await _told(proxy) is None
        await proxy.reload(policy(tmp_path))
        assert await _told(proxy)
        async with connected(proxy) as client:
            assert (await client.ask(get(b"/hello"))).body == b"hello"
            await proxy.reload(policy(tmp_path, "changed", protocols="h2"))
            assert (await client.ask(get(b"/hello"))).body == b"changed"  # while it lasts
        assert await _told(proxy) is None
        async with unconnected(proxy) as client:
            client.quic.connect(("127.0.0.1", 0), asyncio.get_running_loop().time())
            client.transmit()
            await _told(proxy)
            assert not client.datagrams


def _names(client: Client) -> list[str]:
    certificate = client.quic.tls._peer_certificate
    assert certificate is not None
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.DNSName)


async def test_certificates_are_chosen_by_name_and_renewed_while_it_runs(tmp_path: Path) -> None:
    authority = Authority.in_folder(tmp_path, "authority")
    authority.sign(tmp_path, "server", "a.example")
    authority.sign(tmp_path, "other", "*.b.example")
    text = policy(tmp_path).replace(
        "certificates: [", f"certificates: [{{certificate: {tmp_path}/server.pem, key: "
        f"{tmp_path}/server.key}}, {{certificate: {tmp_path}/other.pem, key: {tmp_path}/other.key}}"
        ", ", 1,
    )  # fmt: skip
    async with running(text, tls=True) as proxy:
        for name, found in (
            ("a.example", ["a.example"]),
            ("x.b.example", ["*.b.example"]),
            ("else.example", ["a.example"]),
        ):
            async with connected(proxy, server_name=name) as client:
                assert _names(client) == [*found]
        async with connected(proxy) as before:
            authority.sign(tmp_path, "server", "a.example", "new.example")
            await proxy.server.edge._renewals.look()
            async with connected(proxy) as client:
                assert _names(client) == ["a.example", "new.example"]
            assert (await before.ask(get(b"/hello"))).status == 200


# ------------------------------------------------------------ clients that move, processes that go


async def test_a_client_whose_port_changes_goes_on(tmp_path: Path) -> None:
    """As the router of a home makes it."""
    async with served(tmp_path) as (proxy, _), connected(proxy) as client:
        assert (await client.ask(get(b"/hello"))).status == 200
        client.transport.close()
        await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: client, remote_addr=("127.0.0.1", tls_port(proxy))
        )
        assert (await client.ask(get(b"/hello"))).status == 200
        assert (await client.ask(get())).status == 200
        client.transport.close()


async def test_another_host_gets_nothing_of_a_connection(tmp_path: Path) -> None:
    async with served(tmp_path) as (proxy, _), connected(proxy) as client:
        assert (await client.ask(get(b"/hello"))).status == 200
        home = client.transport
        stranger, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol,
            local_addr=("127.0.0.9", 0),
            remote_addr=("127.0.0.1", tls_port(proxy)),
        )
        client.transport = stranger
        asked = client.begin(get())
        await client.flush()
        client.transport = home  # to which it is sent once more
        assert (await client.answer(asked)).status == 200
        stranger.close()


async def _waits(link: Link, asked: asyncio.Semaphore, released: asyncio.Event) -> None:
    if await link.request():
        asked.release()
        await released.wait()
        await link.send(OK)


async def test_the_proxy_says_goodbye_and_ends_what_is_under_way(tmp_path: Path) -> None:
    asked, released = asyncio.Semaphore(0), asyncio.Event()
    async with (
        served(tmp_path, lambda link: _waits(link, asked, released)) as (proxy, _),
        connected(proxy) as busy,
        connected(proxy) as idle,
    ):
        assert (await idle.ask(get(b"/hello"))).status == 200
        number = busy.begin(get())
        await busy.flush()
        await asked.acquire()
        stopping = asyncio.ensure_future(proxy.server.stop())
        assert await idle.end() == [Code.NO_ERROR]
        assert idle.goaways == [4]
        while not busy.goaways:
            await busy.hear()
        assert busy.goaways == [4]
        late = busy.begin(get())
        await busy.flush()
        assert (await busy.answer(late)).reset == Code.REQUEST_REJECTED  # it may ask elsewhere
        released.set()
        answer = await busy.answer(number)
        assert (answer.status, answer.body, answer.ended) == (200, b"ok", True)
        assert await busy.end() == [Code.NO_ERROR]
        await stopping


async def test_a_port_that_somebody_has_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(tmp_path, text=policy(tmp_path, protocols="h2")) as (proxy, _):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", tls_port(proxy)))
            await proxy.reload(policy(tmp_path))
            told = f"cannot listen for HTTP/3 on UDP port {tls_port(proxy)} of 127.0.0.1"
            assert told in caplog.text
            assert await _told(proxy) is None
            file = tmp_path / "policy.yaml"
            file.write_text(policy(tmp_path))
            [listener] = proxy.server.edge._front._secure  # type: ignore[union-attr]
            shared = ListenAddress(tls=True, descriptor=os.dup(listener.fileno()))
            with pytest.raises(BadAddress, match="take h3 out of"):
                await Server([file], listen=[shared], write=lambda _: None).start()


async def test_another_process_takes_the_place_and_no_request_is_lost(tmp_path: Path) -> None:
    """Both have the same port for a while, and what comes would be dealt to either."""
    asked, released = asyncio.Semaphore(0), asyncio.Event()
    async with (
        served(tmp_path, lambda link: _waits(link, asked, released)) as (proxy, origin),
        AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(connected(proxy)) for _ in range(8)]
        numbers = [client.begin(get()) for client in clients]
        for client in clients:
            await client.flush()
            await asked.acquire()
        [listener] = proxy.server.edge._front._secure  # type: ignore[union-attr]
        assert proxy.policy_file is not None
        next_one = Server(
            [proxy.policy_file],
            [f"site={origin.url}"],
            listen=[ListenAddress(tls=True, descriptor=os.dup(listener.fileno()))],
            write=lambda _: None,
        )
        await next_one.start()
        stopping = asyncio.ensure_future(proxy.server.stop())
        for client in clients:
            while not client.goaways:
                await client.hear()
        async with connected(tls_port(proxy)) as newcomer:
            assert (await newcomer.ask(get(b"/hello"))).status == 200
        released.set()
        for client, number in zip(clients, numbers, strict=True):
            assert (await client.answer(number)).status == 200
            assert await client.end() == [Code.NO_ERROR]
        await stopping
        await next_one.stop()


async def _visit(port: int, told: list[str], wanted: int) -> None:
    """Ask, on one connection for as long as it lasts."""
    while len(told) < wanted:
        async with connected(port) as client:
            while not client.is_leaving and len(told) < wanted:
                numbers = [client.begin(get(b"/hello")) for _ in range(3)]
                await client.flush()
                for number in numbers:
                    answer = await client.answer(number)
                    if (answer.status, answer.ended) == (200, True):
                        told.append("")
                    elif not client.may_ask_again(number):
                        told.append(f"{answer} of {number}, {client.goaways} {client.closed}")


@pytest.mark.timeout(150)
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_processes_serve_it_and_take_each_others_place(
    workers: str, tmp_path: Path, edgeproxy_run: Callable[..., Awaitable[Child]]
) -> None:
    Authority.in_folder(tmp_path, "authority").sign(tmp_path, "server", "a.example")
    file = tmp_path / "policy.yaml"
    file.write_text(policy(tmp_path))
    how = (file, "--listen-tls", "127.0.0.1:0", "--workers", workers, "--replace", tmp_path / "at")
    child = await edgeproxy_run(*how)
    [found] = re.findall("https://127.0.0.1:([0-9]+)/", child.out[0])
    told = list[str]()
    visitors = [asyncio.ensure_future(_visit(int(found), told, 600)) for _ in range(4)]
    await _visit(int(found), told, 200)
    following = await edgeproxy_run(*how)
    async with asyncio.timeout(30):
        assert await child.process.wait() == 0
    await asyncio.gather(*visitors)
    assert not [one for one in told if one]
    assert await following.end(SIGTERM) == 0
