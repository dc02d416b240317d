"""Certificates by ACME, from Pebble, the authority that Let's Encrypt has for tests of clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.certificates import Authority
from tests.journeys.conftest import Child

PEBBLE, DNS = shutil.which("pebble"), shutil.which("pebble-challtestsrv")
POLICY = """\
version: 1
origins: {{site: {{url: "http://site.example/"}}}}
hosts: [one.example, two.example]
state: {{path: {folder}/state}}
tls:
  acme:
    names: [one.example, two.example]
    agree_terms: true
    email: ada@one.example
    directory: "https://127.0.0.1:{port}/dir"
    challenge: {challenge}
    ca_file: {folder}/authority.pem
routes: [{{name: hello, respond: {{body: hello}}}}]
"""

pytestmark = pytest.mark.skipif(
    PEBBLE is None or DNS is None, reason="needs pebble and pebble-challtestsrv"
)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [sock.getsockname()[1] for sock in sockets]


@dataclass
class Pebble:
    """An authority that finds every name on this machine, and comes to these two ports."""

    folder: Path
    port: int
    management: int
    http: int
    https: int

    async def root(self) -> ssl.SSLContext:
        """What trusts the certificates that it gives."""
        url = URL(f"https://127.0.0.1:{self.management}/roots/0")
        trust = ssl.create_default_context(cafile=self.folder / "authority.pem")
        async with aiohttp.ClientSession() as session, session.get(url, ssl=trust) as answer:
            root = await answer.text()
        return ssl.create_default_context(cadata=root)

    def policy(self, challenge: str) -> Path:
        file = self.folder / "policy.yaml"
        file.write_text(
            POLICY.format(folder=self.folder, port=self.port, challenge=challenge),
        )
        return file

    def run(self) -> tuple[str, ...]:
        """The arguments of `edgeproxy run`."""
        plain, secure = f"127.0.0.1:{self.http}", f"127.0.0.1:{self.https}"
        return "--listen", plain, "--listen-tls", secure


@pytest.fixture
async def pebble(tmp_path: Path) -> AsyncIterator[Pebble]:
    assert PEBBLE is not None
    assert DNS is not None
    Authority.in_folder(tmp_path, "authority").sign(tmp_path, "pebble", "127.0.0.1", "localhost")
    port, management, dns, control, http, https = free_ports(6)
    config = {
        "pebble": {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(tmp_path / "pebble.pem"),
            "privateKey": str(tmp_path / "pebble.key"),
            "httpPort": http,
            "tlsPort": https,
            "ocspResponderURL": "",
        }
    }
    (tmp_path / "pebble.json").write_text(json.dumps(config))
    async with contextlib.AsyncExitStack() as stack:
        resolver = [DNS, "-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{control}",
                    "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "",
                    "-http01", "", "-https01", "", "-tlsalpn01", ""]  # fmt: skip
        await stack.enter_async_context(program(resolver, "Starting management server"))
        directory = [PEBBLE, "-strict", "-config", str(tmp_path / "pebble.json"),
                     "-dnsserver", f"127.0.0.1:{dns}"]  # fmt: skip
        await stack.enter_async_context(program(directory, "ACME directory available"))
        for each in (port, management):  # it says so before it is so
            await listens(each)
        yield Pebble(tmp_path, port, management, http, https)


async def listens(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def program(words: list[str], ready: str) -> AsyncIterator[None]:
    """A program that runs, from when it says that it is ready."""
    env = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20"}
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=env
    )
    assert process.stdout is not None
    said: list[str] = []

    async def read() -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            said.append(line.decode())

    try:
        async with asyncio.timeout(20):
            while not said or ready not in said[-1]:
                line = await process.stdout.readline()
                assert line, "".join(said)
                said.append(line.decode())
        reading = asyncio.create_task(read())
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
    await reading


async def shown(port: int, trust: ssl.SSLContext, name: str) -> dict[str, Any]:
    """The certificate that a client gets, who checks it, for `name`."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=name)
    try:
        certificate: dict[str, Any] = writer.get_extra_info("peercert")
        return certificate
    finally:
        writer.close()
        await writer.wait_closed()


async def had(proxy: Child, name: str, processes: int) -> None:
    """Return once the certificate for `name` is in use in so many processes."""
    after = 0
    for _ in range(processes):
        line = await proxy.said_since(after, lambda line: f"for {name} was had" in line)
        after = proxy.err.index(line, after) + 1


@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_certificates_are_had_and_served(
    challenge: str, workers: str, pebble: Pebble, edgeproxy_run: Any
) -> None:
    trust = await pebble.root()
    policy = pebble.policy(challenge)
    proxy = await edgeproxy_run(policy, *pebble.run(), "--workers", workers)
    with pytest.raises((ssl.SSLError, ConnectionError)):  # none is there yet
        await shown(pebble.https, trust, "nobody.example")
    for name in ("one.example", "two.example"):
        await had(proxy, name, int(workers))
    for name in ("one.example", "two.example"):
        certificate = await shown(pebble.https, trust, name)
        assert certificate["subjectAltName"] == (("DNS", name),)
    acme = pebble.folder / "state" / "acme"
    kept = {str(file.relative_to(acme)): file.stat().st_mode & 0o777
            for file in acme.rglob("*") if file.is_file()}  # fmt: skip
    label = f"127.0.0.1_{pebble.port}_dir"
    assert kept == {
        "lock": kept["lock"],
        f"{label}/account.json": 0o600,
        f"{label}/certificates/one.example.pem": 0o600,
        f"{label}/certificates/two.example.pem": 0o600,
    }
    asked = [line for line in proxy.err if "is asked for" in line]
    assert len(asked) == 2  # one process asks, however many there are
