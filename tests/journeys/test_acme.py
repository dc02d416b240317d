"""Certificates by ACME, from an authority that checks all it is sent, and fails at times."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from yarl import URL

from edgeproxy.acme import Challenges
from edgeproxy.testing import Proxy, running
from tests.acme_directory import Directory

POLICY = """\
version: 1
origins: {{site: {{url: "http://site.example/"}}}}
hosts: [one.example, two.example]
state: {{path: {folder}/state}}
tls:
  acme: {{names: [NAMES], agree_terms: true, directory: "{url}", ca_file: {ca}}}
routes:
  - {{name: to-https, match: {{path: /**, scheme: http}}, redirect: "https://one.example/**"}}
  - {{name: hello, respond: {{body: hello}}}}
"""


class Told(logging.Handler):
    """Waits for messages of the program."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._news = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self._news.set()

    async def of(self, text: str) -> str:
        """The first message that has `text`; it is taken out, with those before it."""
        async with asyncio.timeout(40):
            while True:
                for number, message in enumerate(self.messages):
                    if text in message:
                        del self.messages[: number + 1]
                        return message
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def told() -> Iterator[Told]:
    logger, handler = logging.getLogger("edgeproxy"), Told()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[Directory]:
    async with Directory(tmp_path) as directory:
        yield directory


@asynccontextmanager
async def served(folder: Path, directory: Directory, *names: str) -> AsyncIterator[Proxy]:
    """A proxy that asks for certificates, and that the authority finds."""
    text = policy(folder, directory, *names)
    async with running(text, tls=True) as proxy:
        if directory.port.done():
            directory.port = asyncio.get_running_loop().create_future()
        directory.port.set_result(proxy.port)
        yield proxy


def policy(folder: Path, directory: Directory, *names: str) -> str:
    text = POLICY.format(folder=folder, url=directory.url, ca=directory.authority.file)
    return text.replace("NAMES", ", ".join(names or ("one.example",)))


async def shown(proxy: Proxy, trust: ssl.SSLContext, name: str) -> str:
    """The serial number of the certificate that a client gets, who checks it, for `name`."""
    port = URL(proxy.server.urls[1]).port
    assert port is not None
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=name)
    try:
        return str(writer.get_extra_info("peercert")["serialNumber"])
    finally:
        writer.close()
        await writer.wait_closed()


async def test_one_is_had_for_each_name(tmp_path: Path, directory: Directory, told: Told) -> None:
    async with served(tmp_path, directory, "one.example", "two.example") as proxy:
        for name in ("one.example", "two.example"):
            await told.of(f"the certificate for {name} was had")
        assert {await shown(proxy, directory.trust, name) for name in ("one.example",)} != {
            await shown(proxy, directory.trust, name) for name in ("two.example",)
        }
    assert [(order.name, order.status) for order in directory.orders] == [
        ("one.example", "valid"),
        ("two.example", "valid"),
    ]
    assert len(directory.accounts) == 1


async def test_a_proof_comes_before_any_policy_and_nothing_else_does(
    tmp_path: Path, directory: Directory, told: Told
) -> None:
    """The policy redirects all that comes by HTTP, and serves other names alone."""
    directory.gate.clear()
    async with served(tmp_path, directory) as proxy:
        await directory.has("challenge")
        token = directory.orders[0].token
        path = "/.well-known/acme-challenge/"
        for host in ("one.example", "else.example"):  # a token is known to nobody by chance
            reply = await proxy.get(path + token, headers={"Host": host})
            assert (reply.status, reply.body.partition(b".")[0]) == (200, token.encode())
        others = (
            "", token[:-1], f"{token}/", f"{token}?a=b", f"../{token}", "..", "%2e%2e/account.json",
        )  # fmt: skip
        for target in map(path.__add__, others):
            reply = await proxy.get(target, headers={"Host": "one.example"})
            assert reply.status in (302, 400), target
        by_post = await proxy.get(path + token, method="POST", headers={"Host": "one.example"})
        assert by_post.status == 302
        directory.gate.set()
        await told.of("the certificate for one.example was had")
        after = await proxy.get(path + token, headers={"Host": "one.example"})
        assert after.status == 302  # nobody waits for it any more


async def test_nonces_that_are_not_good_any_more_are_no_trouble(
    tmp_path: Path, directory: Directory, told: Told
) -> None:
    directory.bad_nonces = 7
    async with served(tmp_path, directory):
        await told.of("the certificate for one.example was had")
    assert directory.bad_nonces == 0


@pytest.mark.parametrize(
    ("retry_after", "minutes"),
    [("7200", 120), ("9" * 400, 7 * 24 * 60), ("Fri, 01 Jan 2100 00:00:00 GMT", 7 * 24 * 60)],
)
async def test_a_limit_is_kept_to(
    retry_after: str, minutes: int, tmp_path: Path, directory: Directory, told: Told
) -> None:
    directory.limited, directory.retry_after = 1, retry_after
    async with served(tmp_path, directory) as proxy:
        said = await told.of("no certificate for one.example")
        assert said.endswith(f"too many certificates [rateLimited]; again in {minutes} min")
        assert directory.orders == []
        await proxy.reload(policy(tmp_path, directory))  # the operator says: now
        await told.of("the certificate for one.example was had")


async def test_a_proof_that_is_not_found_is_told_and_tried_again_later(
    tmp_path: Path, directory: Directory, told: Told
) -> None:
    async with served(tmp_path, directory) as proxy:
        directory.port = asyncio.get_running_loop().create_future()
        directory.port.set_result(1)  # nobody listens there
        said = await told.of("no certificate for one.example")
        assert "one.example shows Cannot connect to host" in said
        assert "[unauthorized]; again in " in said
        assert 5 <= int(said.split()[-2]) <= 6
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shown(proxy, directory.trust, "one.example")
        assert (await proxy.get("/", headers={"Host": "one.example"})).status == 302
        challenges = tmp_path / "state" / "acme" / "challenges"
        assert not any(path.is_file() for path in challenges.rglob("*"))


async def test_an_authority_that_is_away_is_told(
    tmp_path: Path, directory: Directory, told: Told
) -> None:
    await directory.__aexit__()
    async with served(tmp_path, directory):
        assert "Connection refused" in await told.of("no certificate for one.example")


@pytest.mark.parametrize("signs_for", ["two.example", "*.example"])
async def test_what_is_for_another_name_is_not_taken(
    signs_for: str, tmp_path: Path, directory: Directory, told: Told
) -> None:
    directory.signs_for = signs_for
    async with served(tmp_path, directory):
        said = await told.of("no certificate for one.example")
        assert f"the authority sent the certificate for {signs_for}" in said
    assert not list((tmp_path / "state").rglob("*.pem"))
    assert not list((tmp_path / "state").rglob("*.new"))


async def test_a_restart_in_the_middle_loses_nothing(
    tmp_path: Path, directory: Directory, told: Told
) -> None:
    directory.gate.clear()
    async with served(tmp_path, directory):
        await directory.has("challenge")
    directory.gate.set()
    async with served(tmp_path, directory) as proxy:
        await told.of("the certificate for one.example was had")
        serial = await shown(proxy, directory.trust, "one.example")
    orders = len(directory.orders)
    assert len(directory.accounts) == 1  # the same as before
    async with served(tmp_path, directory) as proxy:  # and now there is one from the beginning
        assert await shown(proxy, directory.trust, "one.example") == serial
    assert len(directory.orders) == orders


async def test_it_is_renewed_before_it_ends_and_once(
    tmp_path: Path, directory: Directory, told: Told
) -> None:
    directory.days = [(-61, 29), (-1, 89)]  # of ninety days: less than a third is left
    async with served(tmp_path, directory) as proxy:
        await told.of("the certificate for one.example was had")
        old = await shown(proxy, directory.trust, "one.example")
        assert len(directory.orders) == 1  # not again at once, whatever the certificate says
        await proxy.reload(policy(tmp_path, directory))  # all is looked at again
        await told.of("the certificate for one.example was renewed")
        assert await shown(proxy, directory.trust, "one.example") != old
        await proxy.reload(policy(tmp_path, directory))
        await told.of("is in force")
    assert len(directory.orders) == 2


async def test_the_old_one_stays_while_no_new_one_can_be_had(
    tmp_path: Path, directory: Directory, told: Told
) -> None:
    directory.days = [(-61, 29)]
    async with served(tmp_path, directory) as proxy:
        await told.of("the certificate for one.example was had")
        directory.limited = 1
        await proxy.reload(policy(tmp_path, directory))
        await told.of("no certificate for one.example")
        assert await shown(proxy, directory.trust, "one.example")


async def test_certificates_of_files_come_first(
    tmp_path: Path, directory: Directory, told: Told
) -> None:
    files = directory.authority.sign(tmp_path, "own", "two.example")
    own = f"  certificates: [{{certificate: {files.certificate}, key: {files.key}}}]\n"
    text = policy(tmp_path, directory).replace("tls:\n", "tls:\n" + own)
    async with running(text, tls=True) as proxy:
        directory.port.set_result(proxy.port)
        await shown(proxy, directory.trust, "two.example")
        await told.of("the certificate for one.example was had")
        await shown(proxy, directory.trust, "one.example")
        await shown(proxy, directory.trust, "two.example")


async def test_visitors_are_served_while_a_handshake_of_the_authority_is_awaited(
    tmp_path: Path, directory: Directory, told: Told
) -> None:
    """tls-alpn-01: who does not ask for a proof, gets the site as ever."""
    files = directory.authority.sign(tmp_path, "own", "one.example")
    own = f"  certificates: [{{certificate: {files.certificate}, key: {files.key}}}]\n"
    text = policy(tmp_path, directory).replace("tls:\n", "tls:\n" + own)
    text = text.replace("agree_terms", "challenge: tls-alpn-01, agree_terms")
    async with running(text, tls=True) as proxy:
        said = await told.of("no certificate for one.example")
        assert "does not offer tls-alpn-01" in said  # so nothing else happens from now on
        serial = await shown(proxy, directory.trust, "one.example")
        challenges = Challenges(tmp_path / "state" / "acme" / "challenges")
        with challenges.tls_proof("one.example", "authorization"):
            assert await shown(proxy, directory.trust, "one.example") == serial
            port = URL(proxy.server.urls[1]).port
            for sent, got in PIECES.items():
                assert (await piecewise(port, sent)).startswith(got)
            authority = ssl.create_default_context()
            authority.check_hostname, authority.verify_mode = False, ssl.CERT_NONE
            authority.set_alpn_protocols(["acme-tls/1"])
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=authority, server_hostname="one.example"
            )
            connection = writer.get_extra_info("ssl_object")
            assert connection.selected_alpn_protocol() == "acme-tls/1"
            leaf = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))
            assert "CN=ACME challenge" in leaf.subject.rfc4514_string()
            assert await reader.read() == b""  # the proof is all that it gets
            writer.close()
        assert await shown(proxy, directory.trust, "one.example") == serial


PIECES = {
    b"GET / HTTP/1.1\r\n\r\n": b"HTTP/1.1 400 ",
    b"\x16\x03\x01\x00\x05hello": b"\x15\x03",  # an alert
}


async def piecewise(port: int | None, data: bytes) -> bytes:
    """What comes back for `data`, sent byte by byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for at in range(len(data)):
        writer.write(data[at : at + 1])
        await writer.drain()
    try:
        return await reader.read()
    finally:
        writer.close()
