"""HTTPS on the front: certificates by name, renewed by a reload, and clients that dawdle."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from edgeproxy.errors import PolicyError
from edgeproxy.pages import Fault, Pages
from edgeproxy.testing import Proxy, running
from tests.certificates import Authority

POLICY = """\
version: 1
origins: {{site: {{url: "http://site.example/", kind: http}}}}
limits: {{head_timeout: 300ms, shutdown_timeout: 5s}}
tls:
  certificates:
    - {{certificate: {folder}/one.pem, key: {folder}/one.key}}
    - {{certificate: {folder}/two.pem, key: {folder}/two.key}}
  min_version: "1.2"
routes:
  - {{name: moved, match: {{path: /moved, scheme: http}}, redirect: "https://one.example/"}}
  - {{name: hello, match: {{path: /hello, scheme: https}}, respond: {{body: by TLS}}}}
  - {{name: site, cache: false}}
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority.in_folder(tmp_path, "authority")
    authority.sign(tmp_path, "one", "one.example", "www.one.example", "127.0.0.1")
    authority.sign(tmp_path, "two", "two.example", "*.two.example")
    return authority


@pytest.fixture
def policy(tmp_path: Path, authority: Authority) -> str:
    return POLICY.format(folder=tmp_path)


@pytest.fixture
def trust(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.file)


def tls_port(proxy: Proxy) -> int:
    port = URL(proxy.server.urls[1]).port
    assert port is not None
    return port


async def shown(port: int, trust: ssl.SSLContext, name: str) -> str:
    """The name of the certificate that a client gets who asks for `name`."""
    trust.check_hostname = False
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=name)
    try:
        certificate = writer.get_extra_info("peercert")
        return str(dict(pair[0] for pair in certificate["subject"])["commonName"])
    finally:
        writer.close()
        await writer.wait_closed()


async def test_https_and_http_side_by_side(policy: str, trust: Any, serve_app: Any) -> None:
    async def echo(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text=request.headers["X-Forwarded-Proto"])

    app = aiohttp.web.Application()
    app.router.add_get("/{path:.*}", echo)
    origin = await serve_app(app)
    async with (
        running(policy, origins={"site": origin}, tls=True) as proxy,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as client,
    ):
        plain, secure = proxy.server.urls
        assert secure.startswith("https://127.0.0.1:")
        for url, scheme in ((plain, "http"), (secure, "https")):
            async with client.get(url) as answer:
                assert (answer.status, await answer.text()) == (200, scheme)
        async with client.get(secure + "hello") as answer:
            assert await answer.text() == "by TLS"
        async with client.get(plain + "moved", allow_redirects=False) as answer:
            assert answer.headers["Location"] == "https://one.example/"


async def test_the_certificate_is_the_one_with_the_name(policy: str, trust: Any) -> None:
    async with running(policy, tls=True) as proxy:
        port = tls_port(proxy)
        for name, certificate in {
            "one.example": "one",
            "WWW.one.example": "one",
            "two.example": "two",
            "a.two.example": "two",
            "a.b.two.example": "one",  # a star is one label
            "else.example": "one",
        }.items():
            assert await shown(port, trust, name) == certificate, name


async def test_a_reload_takes_new_files_and_refuses_bad_ones(
    policy: str, trust: Any, tmp_path: Path, authority: Authority, caplog: Any
) -> None:
    async with running(policy, tls=True) as proxy:
        port = tls_port(proxy)
        assert await shown(port, trust, "one.example") == "one"
        renewed = authority.sign(tmp_path, "new", "one.example")
        assert await shown(port, trust, "one.example") == "one"
        renewed.certificate.rename(tmp_path / "one.pem")
        await proxy.reload(policy)
        assert "does not fit" in caplog.text  # the key is still the old one
        assert f"{proxy.policy_file}:6:7" in caplog.text
        assert await shown(port, trust, "one.example") == "one"
        renewed.key.rename(tmp_path / "one.key")
        await proxy.reload(policy)
        assert await shown(port, trust, "one.example") == "new"
        await proxy.reload("version: 1\n" + policy[policy.index("origins:") :].replace("tls:", ""))
        assert await shown(port, trust, "one.example") == "new"
        await proxy.reload(policy[: policy.index("tls:")] + policy[policy.index("routes:") :])
        assert "--listen-tls needs a section 'tls'" in caplog.text
        assert await shown(port, trust, "one.example") == "new"


async def test_a_policy_without_limits_is_renewed_as_well(
    policy: str, trust: ssl.SSLContext, tmp_path: Path, authority: Authority
) -> None:
    text = policy.replace("limits:", "# limits:")
    async with running(text, tls=True) as proxy:
        assert await shown(tls_port(proxy), trust, "one.example") == "one"
        new = authority.sign(tmp_path, "new", "one.example")
        for old, file in zip(("one.pem", "one.key"), new, strict=True):
            file.rename(tmp_path / old)
        await proxy.reload(text)
        assert await shown(tls_port(proxy), trust, "one.example") == "new"


async def test_without_certificates_it_does_not_start() -> None:
    text = "version: 1\norigins: {site: {url: 'http://site.example/'}}\n"
    with pytest.raises(PolicyError, match="--listen-tls needs a section 'tls'"):
        async with running(text, tls=True):
            pass


async def test_the_policy_says_what_is_spoken_and_old_versions_are_turned_away(
    policy: str, trust: ssl.SSLContext
) -> None:
    trust.set_alpn_protocols(["h2", "http/1.1"])
    narrow = policy.replace('"1.2"', '"1.3"\n  protocols: [http/1.1]')
    async with running(narrow, tls=True) as proxy:
        port = tls_port(proxy)
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        connection = writer.get_extra_info("ssl_object")
        assert connection.selected_alpn_protocol() == "http/1.1"
        assert connection.version() == "TLSv1.3"
        writer.close()
        await writer.wait_closed()
        trust.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        await proxy.reload(policy)
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        connection = writer.get_extra_info("ssl_object")
        assert (connection.version(), connection.selected_alpn_protocol()) == ("TLSv1.2", "h2")
        writer.close()
        await writer.wait_closed()


async def test_a_handshake_that_does_not_come_counts_and_ends(policy: str) -> None:
    text = policy.replace("head_timeout: 300ms", "head_timeout: 300ms, connections: 1")
    async with running(text, tls=True) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", tls_port(proxy))
        writer.write(b"\x16\x03\x01\x02\x00")  # the beginning of a record
        assert (await proxy.get("/hello")).status == 503  # the other one is a connection
        assert await reader.read() == b""
        assert (await proxy.get("/moved")).status == 302
        writer.close()


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (b"GET / HTTP/1.1\r\nHost: one.example\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n"),
        (b"\x16\x03\x01\x00\x05hello", b"\x15\x03"),  # an alert
        (b"\x80\x00" * 300, b""),
    ],
    ids=["plain HTTP", "a bad hello", "noise"],
)
async def test_what_is_not_tls_is_told_so(policy: str, sent: bytes, got: bytes) -> None:
    async with running(policy, tls=True) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", tls_port(proxy))
        writer.write(sent)
        assert (await reader.read()).startswith(got)
        writer.close()


async def test_a_large_file_reaches_a_client_that_reads_late(
    policy: str, trust: Any, make_site: Any
) -> None:
    """More than both kernels hold, so that writing pauses and goes on."""
    text = "0123456789abcdef" * 2**20
    async with (
        Pages(make_site(index="home", large=text)) as site,
        running(policy, origins={"site": site.url}, tls=True) as proxy,
    ):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", tls_port(proxy), ssl=trust, limit=2**16
        )
        for connection in (b"keep-alive", b"close"):
            writer.write(
                b"GET /large HTTP/1.1\r\nHost: one.example\r\nConnection: %b\r\n\r\n" % connection
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            body = await reader.readexactly(length)
            assert body.endswith(text.encode())
        assert await reader.read() == b""
        writer.close()


async def test_a_client_that_has_said_all_still_gets_its_answer(
    policy: str, authority: Authority
) -> None:
    """It closes its side in TLS right after the request, as `openssl s_client` does."""
    context = ssl.create_default_context(cafile=authority.file)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="one.example")
    async with running(policy, tls=True) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", tls_port(proxy))
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(2**16))
        tls.write(b"GET /hello HTTP/1.1\r\nHost: one.example\r\n\r\n")
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()
        writer.write(outgoing.read())
        incoming.write(await reader.read())
        incoming.write_eof()
        answer = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):  # the end is said; a cut raises another
            while True:
                answer += tls.read(2**16)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"by TLS")
        writer.close()


async def test_stopping_lets_a_request_finish_and_closes_the_rest(
    policy: str, trust: Any, make_site: Any
) -> None:
    async with (
        Pages(make_site(index="home")) as site,
        running(policy, origins={"site": site.url}, tls=True) as proxy,
    ):
        release, arrived = asyncio.Event(), asyncio.Event()

        async def wait(seconds: float) -> None:
            arrived.set()
            await release.wait()

        site.sleep = wait
        site.set_fault("/", Fault(delay_s=1))
        port = tls_port(proxy)
        idle, busy = [await asyncio.open_connection("127.0.0.1", port, ssl=trust) for _ in range(2)]
        busy[1].write(b"GET / HTTP/1.1\r\nHost: one.example\r\n\r\n")
        await arrived.wait()
        stopping = asyncio.create_task(proxy.server.stop())
        assert await idle[0].read() == b""
        release.set()
        assert (await busy[0].read()).startswith(b"HTTP/1.1 200 OK\r\n")
        for _, writer in (idle, busy):
            writer.close()
        await stopping


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_renewed_files_are_taken_up_without_a_command_and_without_a_failure(
    workers: str, policy: str, trust: Any, tmp_path: Path, authority: Authority, edgeproxy_run: Any
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(policy)
    proxy = await edgeproxy_run(file, "--listen-tls", "127.0.0.1:0", "--workers", workers)
    ready = await proxy.said(lambda line: line.startswith("edgeproxy serves "))
    url = next(word for word in ready.split() if word.startswith("https:"))
    port = URL(url).port
    assert port is not None
    renewed = authority.sign(tmp_path, "new", "one.example")
    asked, ended = 0, asyncio.Event()

    async def keep_asking() -> None:
        nonlocal asked
        while not ended.is_set():
            assert await shown(port, trust, "one.example") in ("one", "new")
            asked += 1

    asking = asyncio.create_task(keep_asking())
    renewed.key.rename(tmp_path / "one.key")
    renewed.certificate.rename(tmp_path / "one.pem")

    def says_so(line: str) -> bool:
        return "the certificate for one.example was renewed" in line

    before = 0
    for _ in range(int(workers)):
        line = await proxy.said_since(before, says_so)
        before = proxy.err.index(line) + 1
    ended.set()
    await asking
    assert asked > 0
    for _ in range(8):  # whichever worker takes it
        assert await shown(port, trust, "one.example") == "new"
