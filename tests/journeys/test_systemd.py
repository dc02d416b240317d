"""As a service of systemd: sockets that it opened, and what it is told."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from signal import SIGHUP, SIGTERM
from typing import Any

import aiohttp
import pytest

from edgeproxy.engine.systemd import Notify, passed_sockets
from tests.certificates import Authority
from tests.journeys.conftest import Child

POLICY = """\
version: 1
origins: {{site: {{url: "http://site.example/"}}}}
tls: {{certificates: [{{certificate: {folder}/one.pem, key: {folder}/one.key}}]}}
routes:
  - {{name: hello, match: {{path: /hello}}, respond: {{body: WORD}}}}
"""

# What systemd does between fork and exec: descriptors from 3 on, and the process they are for.
AS_SYSTEMD = """\
import os, sys
for place, descriptor in enumerate(sys.argv[1].split(), 3):
    os.dup2(int(descriptor), place)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "edgeproxy", "run", *sys.argv[2:]])
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    Authority.in_folder(tmp_path, "authority").sign(tmp_path, "one", "127.0.0.1")
    return write(tmp_path / "policy.yaml", "WORD")


def write(file: Path, word: str) -> Path:
    file.write_text(POLICY.format(folder=file.parent).replace("WORD", word))
    return file


class Manager:
    """What listens to a service: each datagram, as the set of its lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    async def told(self) -> dict[str, str]:
        async with asyncio.timeout(20):
            data = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
        return dict(line.split("=", 1) for line in data.decode().splitlines())  # type: ignore[misc]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


@pytest.fixture
async def service() -> AsyncIterator[Callable[..., Awaitable[Child]]]:
    """Starts `edgeproxy run` as systemd would, with these sockets and variables."""
    children: list[Child] = []

    async def start(*arguments: Any, sockets: Any = (), **env: str) -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", AS_SYSTEMD, " ".join(str(sock.fileno()) for sock in sockets),
            *map(str, arguments),
            env={**os.environ, **env},
            pass_fds=[sock.fileno() for sock in sockets],
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        child = Child(process)
        children.append(child)
        await child.read_on()
        return child

    yield start
    for child in children:
        await child.end()


def opened() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    assert sock.fileno() > 4  # none of those that it is moved to
    return sock


async def hello(sock: socket.socket, scheme: str = "http") -> str:
    port = sock.getsockname()[1]
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"{scheme}://127.0.0.1:{port}/hello", ssl=False) as answer,
    ):
        return await answer.text()


async def test_it_serves_on_sockets_that_are_passed_and_a_restart_loses_no_connection(
    policy: Path, service: Any
) -> None:
    with opened() as web, opened() as secure:
        arguments = (policy, "--listen", "systemd:web", "--listen-tls", "systemd:secure")
        passed = {"sockets": (web, secure), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:secure"}
        child = await service(*arguments, **passed)
        port, tls_port = web.getsockname()[1], secure.getsockname()[1]
        assert child.url == f"http://127.0.0.1:{port}/"
        assert f"and https://127.0.0.1:{tls_port}/ " in child.out[0]
        assert await hello(web) == await hello(secure, "https") == "WORD"
        assert await child.end(SIGTERM) == 0
        between = asyncio.ensure_future(hello(web))  # waits in the queue of the kernel
        child = await service(*arguments, **passed)
        assert await between == "WORD"
        assert await child.end(SIGTERM) == 0


async def test_it_tells_when_it_is_ready_reloads_lives_and_stops(
    policy: Path, service: Any, manager: Manager
) -> None:
    with opened() as web:
        child = await service(
            policy, "--listen", "systemd",
            sockets=[web], LISTEN_FDS="1", NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC="200000",
        )  # fmt: skip
        told = await manager.told()
        assert told["READY"] == "1"
        assert told["STATUS"] == f"serves {child.url}"
        for _ in range(3):
            assert await manager.told() == {"WATCHDOG": "1"}
        write(policy, "OTHER")
        child.signal(SIGHUP)
        while "RELOADING" not in (told := await manager.told()):
            pass
        assert int(told["MONOTONIC_USEC"]) > 0
        while "READY" not in await manager.told():
            pass
        assert await hello(web) == "OTHER"
        ending = asyncio.ensure_future(child.end(SIGTERM))
        while "STOPPING" not in await manager.told():
            pass
        assert await ending == 0


async def test_a_socket_that_is_not_passed_is_wrong_use(policy: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgeproxy", "run", str(policy), "--listen", "systemd:web",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"systemd:web: no such socket was passed" in said


def test_what_is_for_another_process_is_left_alone() -> None:
    env = {"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c"}
    assert passed_sockets(env) == {}
    assert env == {}  # and for no child either
    assert Notify({"WATCHDOG_PID": "1", "WATCHDOG_USEC": "1000"}).watchdog_s == 0
    assert Notify({"WATCHDOG_USEC": "1000000"}).watchdog_s == 1


def test_a_manager_that_does_not_listen_is_no_failure(tmp_path: Path, caplog: Any) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "nobody")}
    Notify(env).stopping()
    assert "the service manager cannot be told" in caplog.text
    Notify({}).stopping()
