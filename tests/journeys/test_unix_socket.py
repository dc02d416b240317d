"""On a Unix socket, behind a proxy on the same machine."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from edgeproxy.addresses import BadAddress
from edgeproxy.engine.listening import ListenAddress, listen_addresses
from edgeproxy.testing import running
from tests.certificates import Authority

POLICY = """\
version: 1
origins: {site: {url: "http://site.example/"}}
routes:
  - {name: france, match: {country: FR}, respond: {body: bonjour}}
  - {name: others, respond: {body: hello}}
"""
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: one.example\r\nX-Forwarded-For: 193.51.208.13\r\n"
    b"Connection: close\r\n\r\n"
)


async def asked(path: Path | str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(REQUEST)
        return (await reader.read()).rpartition(b"\r\n\r\n")[2]
    finally:
        writer.close()


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return file


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_it_has_its_rights_and_goes_at_the_end(
    workers: str, policy: Path, tmp_path: Path, edgeproxy_run: Any
) -> None:
    path = tmp_path / "edge.sock"
    group = str(os.getgid())
    proxy = await edgeproxy_run(
        policy, "--listen", f"unix:{path},mode=600,group={group}", "--workers", workers
    )
    assert (path.stat().st_mode & 0o777, path.stat().st_gid) == (0o600, os.getgid())
    assert any(f"unix:{path}" in line for line in proxy.out)
    for _ in range(4):
        assert await asked(path) == b"hello"  # nobody is trusted to name the client
    refused = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgeproxy", "run", policy, "--listen", f"unix:{path}",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await refused.communicate()
    assert refused.returncode == 2
    assert f"cannot listen on unix:{path}: Address already in use".encode() in said
    assert await asked(path) == b"hello"
    assert await proxy.end(SIGTERM) == 0
    assert not path.exists()


async def test_what_a_dead_process_has_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    listen = [ListenAddress(path=str(path))]
    async with running(POLICY, listen=listen) as proxy:
        assert proxy.server.urls == [f"unix:{path}"]
        assert await asked(path) == b"hello"
        assert os.listdir(tmp_path) == ["edge.sock"]
    path.write_text("a file")
    with pytest.raises(BadAddress, match="a file that is no socket"):
        async with running(POLICY, listen=listen):
            pass
    assert path.read_text() == "a file"


async def test_another_socket_that_took_its_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    async with running(POLICY, listen=[ListenAddress(path=str(path))]):
        path.rename(tmp_path / "old.sock")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.is_socket()


async def test_its_peers_are_this_machine_for_trusted_proxies(tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    listen = [ListenAddress(path=str(path))]
    async with running(POLICY + "trusted_proxies: [127.0.0.1/32]\n", listen=listen):
        assert await asked(path) == b"bonjour"


async def test_tls_through_a_socket(tmp_path: Path) -> None:
    authority = Authority.in_folder(tmp_path, "authority")
    authority.sign(tmp_path, "one", "one.example")
    tls = f"tls: {{certificates: [{{certificate: {tmp_path}/one.pem, key: {tmp_path}/one.key}}]}}\n"
    path = tmp_path / "edge.sock"
    async with running(POLICY + tls, listen=[ListenAddress(path=str(path), tls=True)]):
        trust = ssl.create_default_context(cafile=authority.file)
        reader, writer = await asyncio.open_unix_connection(
            path, ssl=trust, server_hostname="one.example"
        )
        writer.write(REQUEST)
        assert (await reader.read()).endswith(b"hello")
        writer.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("unix:edge.sock", "write the socket's whole path"),
        ("unix:/run/edge.sock,mode=999", "'mode=999' is no option"),
        ("unix:/run/edge.sock,mode", "'mode' is no option"),
        ("unix:/run/edge.sock,colour=red", "'colour=red' is no option"),
        ("127.0.0.1:80,mode=660", "'mode=660' is no option"),
        ("127.0.0.1,proxy", "is not HOST:PORT"),
        ("8080", "is not HOST:PORT"),
        ("systemd:http,proxy", "no such socket was passed"),
    ],
)
def test_addresses_that_cannot_be_meant(text: str, said: str) -> None:
    with pytest.raises(BadAddress, match=said):
        listen_addresses([text], [], {})


def test_options_behind_an_address() -> None:
    found = listen_addresses(
        ["[::1]:80,proxy", "unix:/run/a,mode=0600,owner=www,group=web,proxy", "systemd:http,proxy"],
        ["systemd"],
        {"http": [3], "https": [4]},
    )
    assert found == [
        ListenAddress("::1", 80, is_proxied=True),
        ListenAddress(path="/run/a", mode=0o600, owner="www", group="web", is_proxied=True),
        ListenAddress(descriptor=3, is_proxied=True),
        ListenAddress(descriptor=4, tls=True),
    ]
