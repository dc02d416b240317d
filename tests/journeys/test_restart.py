"""What is on disk is there after a restart, and after being killed at any moment it is whole."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import multiprocessing
import random
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import aiohttp
import pytest

from edgeproxy.pages import Pages

POLICY = """\
version: 1
origins: {{site: {{url: "http://site.example/"}}}}
cache:
  memory: {{max_size: {memory}}}
  disk: {{path: {folder}, max_size: {disk}}}
  rules: {{all: {{ttl: 1h, stale_if_error: 0s}}}}
routes:
  - {{name: site, cache: all}}
"""

KILLS = 20

type Output = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    # Memory too small for any page, so that every hit is one of the disk.
    file.write_text(POLICY.format(folder=tmp_path / "cache", memory="1B", disk="64MiB"))
    return file


@pytest.mark.parametrize("number", [SIGTERM, SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_a_page_is_served_from_disk_after_a_restart_without_the_origin(
    make_site: Any, edgeproxy_run: Any, policy: Path, number: Any
) -> None:
    root = make_site(index="home", **{"guide/index": "guide " * 30_000})
    targets = {"": "index.html", "guide/": "guide/index.html"}
    async with Pages(root) as site, aiohttp.ClientSession() as client:
        proxy = await edgeproxy_run(policy, "--origin", site.url)
        for target in targets:
            verdict = ""
            while "detail=disk" not in verdict:  # it is written after it was answered
                async with client.get(proxy.url + target) as answer:
                    await answer.read()
                    verdict = answer.headers["Cache-Status"]
        await proxy.end(number)
        await site.stop()
        proxy = await edgeproxy_run(policy, "--origin", site.url)
        for target, file in targets.items():
            async with client.get(proxy.url + target) as answer:
                assert answer.status == 200
                assert "; hit" in answer.headers["Cache-Status"]
                assert "disk" in answer.headers["Cache-Status"]
                assert await answer.read() == (root / file).read_bytes()
        async with client.get(proxy.url + "never-seen") as answer:
            assert answer.status == 502


@pytest.fixture
def small_policy(policy: Path) -> Path:
    """Room for a part of the site, so that entries are also removed all the time."""
    policy.write_text(POLICY.format(folder=policy.parent / "cache", memory="256KiB", disk="2MiB"))
    return policy


@pytest.fixture
def keepachangelog(shared_sites: Path) -> Path:
    return shared_sites / "keepachangelog" / "site"


def digests(root: Path) -> dict[str, bytes]:
    """What every file of a site hashes to, by its path."""
    files = [path for path in root.rglob("[!.]*") if path.is_file()]
    return {
        "/" + path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).digest()
        for path in files
    }


class Mortals:
    """`edgeproxy run`, again and again, in processes that have the imports behind them.

    Each prints to a connection, which says where it serves, and ends when the process does.
    """

    def __init__(self, policy: Path, origin: str) -> None:
        self._arguments = ["run", str(policy), "--origin", origin, "--listen", "127.0.0.1:0"]
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["edgeproxy.engine.serve", "edgeproxy.cli"])
        self._process: BaseProcess | None = None
        self._outputs: asyncio.Queue[Output] = asyncio.Queue()
        self._output: Output | None = None

    async def __aenter__(self) -> Mortals:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._outputs.put((reader, writer))

        self._server = await asyncio.start_server(connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            await self.killed()
        self._server.close()
        await self._server.wait_closed()

    async def born(self) -> str:
        """Start the next one, and give its URL once it serves."""
        port = self._server.sockets[0].getsockname()[1]
        code = (
            "import socket, sys\n"
            "from edgeproxy.cli import main\n"
            f"sys.stdout = socket.create_connection(('127.0.0.1', {port})).makefile('w')\n"
            f"sys.exit(main({[*self._arguments, '--access-log', 'off']!r}))\n"
        )
        self._process = self._context.Process(target=exec, args=(code, {}))
        self._process.start()
        self._output = await self._outputs.get()
        line = (await self._output[0].readline()).decode()
        assert line.startswith("edgeproxy serves ")
        return line.split()[2]

    async def killed(self) -> None:
        assert self._process is not None
        assert self._output is not None
        self._process.kill()
        reader, writer = self._output
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self._process.join(10)
        assert self._process.exitcode == -SIGKILL
        self._process.close()
        self._process = None


async def test_killed_under_load_it_never_serves_a_damaged_entry(
    keepachangelog: Path, small_policy: Path
) -> None:
    """Twenty times: visitors ask, the process dies in the middle, the next one serves its cache.

    Every whole answer is compared with the file it stands for.
    """
    expected = digests(keepachangelog)
    chance = random.Random(20)
    whole, from_disk = 0, 0
    async with Pages(keepachangelog) as site, Mortals(small_policy, site.url) as mortals:
        for _ in range(KILLS):
            url = await mortals.born()
            left = chance.randrange(20, 400)
            enough = asyncio.Event()

            async def visitor(seed: int, url: str, enough: asyncio.Event) -> None:
                nonlocal left, whole, from_disk
                targets = random.Random(seed)
                async with aiohttp.ClientSession() as client:
                    with contextlib.suppress(aiohttp.ClientError, OSError):
                        while True:
                            target = targets.choice(list(expected))
                            async with client.get(url.rstrip("/") + target) as answer:
                                body = await answer.read()
                            assert answer.status == 200
                            assert hashlib.sha256(body).digest() == expected[target], target
                            whole += 1
                            from_disk += "detail=disk" in answer.headers["Cache-Status"]
                            left -= 1
                            if left <= 0:
                                enough.set()

            visitors = [
                asyncio.create_task(visitor(chance.randrange(10**9), url, enough)) for _ in range(8)
            ]
            await enough.wait()
            await mortals.killed()
            await asyncio.gather(*visitors)
    assert whole > 1000
    assert from_disk > 50
