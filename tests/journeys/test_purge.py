"""Purges against real tiers: memory above disk, restarts, kill -9, two processes on one folder."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import aiohttp
import pytest

from edgeproxy.pages import Pages

from .conftest import Child, small_site

TOKEN = "a-token-that-nobody-guesses"

POLICY = """\
version: 1
admin: {{listen: "unix:{folder}/{name}.sock", token: "${{env:EDGEPROXY_TOKEN}}"}}
origins: {{site: {{url: "{origin}"}}}}
cache:
  memory: {{}}
  disk: {{path: "{folder}/cache"}}
  rules: {{all: {{ttl: 30d}}}}
routes: [{{name: site, cache: all}}]
"""

Run = Callable[..., Awaitable[Child]]


class Client:
    """Somebody who asks, and an operator."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.folder, self.session = folder, session

    async def get(self, child: Child, path: str) -> tuple[str, str]:
        """Whether it was a hit, and the page."""
        async with self.session.get(child.url.rstrip("/") + path) as answer:
            status = answer.headers["Cache-Status"]
            return ("hit" if "; hit" in status else "miss"), (await answer.text()).rpartition(">")[
                2
            ]

    async def get_hit(self, child: Child, path: str) -> str:
        """The page, once it is stored: the first client is not kept waiting for that."""
        async with asyncio.timeout(5):
            while True:
                verdict, page = await self.get(child, path)
                if verdict == "hit":
                    return page

    async def mark(self, name: str, verb: str = "purge", **selection: Any) -> None:
        connector = aiohttp.UnixConnector(str(self.folder / f"{name}.sock"))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            aiohttp.ClientSession(connector=connector, headers=headers) as session,
            session.post(f"http://localhost/{verb}", json=selection) as answer,
        ):
            assert await answer.json() == {"done": True, "not_written_down_by": []}


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("EDGEPROXY_TOKEN", TOKEN)
    async with aiohttp.ClientSession() as session:
        yield Client(tmp_path, session)


@pytest.fixture
async def pages(tmp_path: Path) -> Any:
    async with Pages(small_site(tmp_path / "one", index="home 1", a="a 1", b="b 1")) as pages:
        yield pages


def policy(folder: Path, pages: Pages, name: str = "admin") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(POLICY.format(folder=folder, name=name, origin=pages.url))
    return path


@pytest.mark.parametrize("end", [SIGTERM, SIGKILL])
async def test_what_was_purged_stays_so_after_the_process_ends(
    client: Client, pages: Pages, tmp_path: Path, edgeproxy_run: Run, end: Any
) -> None:
    file = policy(tmp_path, pages)
    child = await edgeproxy_run(file)
    for path in ("/", "/a", "/b"):
        await client.get_hit(child, path)
    pages.publish(small_site(tmp_path / "two", index="home 2", a="a 2", b="b 2"))
    await client.mark("admin", urls=["/a"])
    await client.mark("admin", "invalidate", urls=["/b"])
    await child.end(end)  # the moment it was acknowledged
    child = await edgeproxy_run(file)
    assert await client.get(child, "/") == ("hit", "home 1")
    assert await client.get(child, "/a") == ("miss", "a 2")
    assert await client.get(child, "/b") == ("miss", "b 2")
    assert await client.get_hit(child, "/a") == "a 2"


@pytest.mark.timeout(120)  # it starts five processes
async def test_killed_again_and_again_and_never_resurrected(
    client: Client, pages: Pages, tmp_path: Path, edgeproxy_run: Run
) -> None:
    file = policy(tmp_path, pages)
    for turn in range(5):
        child = await edgeproxy_run(file)
        for path in ("/", "/a"):
            assert await client.get(child, path) == ("miss", f"{_name(path)} {turn + 1}")
            await client.get_hit(child, path)
        texts = {"index": f"home {turn + 2}", "a": f"a {turn + 2}"}
        pages.publish(small_site(tmp_path / f"turn-{turn}", **texts))
        await client.mark("admin", everything=True)
        await child.end(SIGKILL)


def _name(path: str) -> str:
    return re.sub(r"\W", "", path) or "home"


async def test_two_processes_on_one_folder_hear_of_each_other(
    client: Client, pages: Pages, tmp_path: Path, edgeproxy_run: Run
) -> None:
    one = await edgeproxy_run(policy(tmp_path, pages, "one"))
    two = await edgeproxy_run(policy(tmp_path, pages, "two"))
    assert await client.get_hit(one, "/") == "home 1"
    assert await client.get_hit(two, "/") == "home 1"  # from the disk, once it is there
    assert await client.get(two, "/") == ("hit", "home 1")
    pages.publish(small_site(tmp_path / "two", index="home 2"))
    await client.mark("one", hosts=["127.0.0.1"])
    assert await client.get(one, "/") == ("miss", "home 2")
    async with asyncio.timeout(5):
        while (await client.get(two, "/"))[1] != "home 2":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await client.mark("two", prefixes=["/"])
    async with asyncio.timeout(5):
        while (await client.get(one, "/"))[0] == "hit":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
