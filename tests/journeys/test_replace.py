"""One process takes the place of another, while visitors ask: none of them is refused."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from signal import SIGTERM
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.journeys.conftest import Child
from tests.journeys.crowd import VISITORS, Crowd

Run = Callable[..., Awaitable[Child]]

POLICY = """\
version: 1
admin: {{listen: "unix:{folder}/admin.sock", token: "${{env:EDGEPROXY_TOKEN}}"}}
origins: {{site: {{url: "{url}", kind: http}}}}
cache: {{disk: {{path: {folder}/cache, max_size: 64MiB}}}}
routes:
  - {{name: word, match: {{path: /word}}, respond: {{body: WORD}}}}
  - {{name: site}}
"""
TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture
async def origin(serve_app: Any) -> str:
    async def take(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=request.path, headers={"Cache-Control": "max-age=60"})

    app = web.Application()
    app.router.add_post("/upload", take)
    app.router.add_get("/{path:.*}", page)
    url: str = await serve_app(app)
    return url


def path(number: int, count: int) -> str:
    """What a visitor asks for that time."""
    return "/word" if count % 3 else f"/page/{number}/{count % 9}"


def write(folder: Path, url: str, word: str) -> Path:
    file = folder / "policy.yaml"
    file.write_text(POLICY.format(folder=folder, url=url).replace("WORD", word))
    return file


async def version_of(folder: Path) -> str:
    connector = aiohttp.UnixConnector(str(folder / "admin.sock"))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as client,
        client.get("http://admin/version") as answer,
    ):
        return str((await answer.json())["policy"])


async def refusal_of(*arguments: str | Path) -> str:
    """What `edgeproxy run` says that does not begin to serve."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgeproxy", "run", *map(str, arguments), "--listen", "127.0.0.1:0",
        env={**os.environ, "EDGEPROXY_TOKEN": TOKEN},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 2
    return err.decode()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_thousand_requests_while_it_is_replaced_and_none_fails(
    tmp_path: Path, origin: str, edgeproxy_run: Run, workers: str
) -> None:
    how = ("--replace", tmp_path / "place", "--workers", workers, "--access-log", "off")
    child = await edgeproxy_run(write(tmp_path, origin, "first"), *how, EDGEPROXY_TOKEN=TOKEN)
    assert (tmp_path / "place").stat().st_mode & 0o777 == 0o600
    visitors = Crowd(child.port, path)
    await visitors.have_asked(100)
    for word in ("second", "third") if workers == "1" else ("second",):
        policy = write(tmp_path, origin, word)
        following = await edgeproxy_run(policy, *how, EDGEPROXY_TOKEN=TOKEN)
        assert following.url == child.url
        async with asyncio.timeout(30):
            assert await child.process.wait() == 0
        assert await version_of(tmp_path) in following.out[0]
        before = len(visitors.words)
        await visitors.have_asked(100)
        assert set(visitors.words[before + VISITORS :]) & {"first", "second", "third"} == {word}
        child = following
    await visitors.have_asked(max(0, 1000 - len(visitors.words)))
    await visitors.stop()
    assert visitors.failed == []
    assert await child.end(SIGTERM) == 0
    assert not (tmp_path / "place").exists()


async def test_what_cannot_serve_takes_nobodys_place(
    tmp_path: Path, origin: str, edgeproxy_run: Run
) -> None:
    how = ("--replace", tmp_path / "place", "--access-log", "off")
    child = await edgeproxy_run(write(tmp_path, origin, "good"), *how, EDGEPROXY_TOKEN=TOKEN)
    visitors = Crowd(child.port, path)
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 2\n")
    assert "bad.yaml:1:10" in await refusal_of(bad, *how)
    await visitors.have_asked(50)
    await visitors.stop()
    assert visitors.failed == []
    assert {word for word in visitors.words if not word.startswith("/")} == {"good"}
    following = await edgeproxy_run(tmp_path / "policy.yaml", *how, EDGEPROXY_TOKEN=TOKEN)
    assert following.url == child.url
    async with asyncio.timeout(30):
        assert await child.process.wait() == 0


async def test_an_upload_under_way_ends_where_it_began(
    tmp_path: Path, origin: str, edgeproxy_run: Run
) -> None:
    how = (write(tmp_path, origin, "word"), "--replace", tmp_path / "place")
    child = await edgeproxy_run(*how, EDGEPROXY_TOKEN=TOKEN)
    reader, writer = await asyncio.open_connection("127.0.0.1", child.port)
    writer.write(b"POST /upload HTTP/1.1\r\nHost: a.example\r\nContent-Length: 60000\r\n\r\n")
    writer.write(b"x" * 30000)
    await writer.drain()
    following = await edgeproxy_run(*how, EDGEPROXY_TOKEN=TOKEN)
    await child.said(lambda line: "takes this one's place" in line)
    writer.write(b"x" * 30000)
    answer = await reader.read()
    assert re.search(rb"\r\n\r\n60000$", answer)
    writer.close()
    async with asyncio.timeout(30):
        assert await child.process.wait() == 0
    assert following.process.returncode is None


async def test_a_stranger_is_given_nothing(tmp_path: Path, origin: str, edgeproxy_run: Run) -> None:
    """Who says something else, or leaves, changes nothing; nor does a file in the way go."""
    how = (write(tmp_path, origin, "word"), "--replace", tmp_path / "place")
    child = await edgeproxy_run(*how, EDGEPROXY_TOKEN=TOKEN)
    for said in (b"", b"give\n", b"take\n", b"\0" * 100, b"take\nstay\n"):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "place"))
        writer.write(said)
        with suppress(ConnectionError):
            writer.write_eof()
            await reader.read()
        writer.close()
    visitors = Crowd(child.port, path)
    await visitors.have_asked(20)
    await visitors.stop()
    assert visitors.failed == []
    (tmp_path / "file").write_text("mine")
    assert "cannot take the place at" in await refusal_of(how[0], "--replace", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "place").is_socket()
