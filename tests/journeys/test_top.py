"""`edgeproxy top` beside a running edgeproxy: one frame, frames until a key, and nobody there."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgeproxy.pages import Pages

TOKEN = "a-token-of-some-length"
POLICY = """\
version: 1
origins: {{pages: {{url: "{url}"}}}}
admin: {{token: "${{env:EDGEPROXY_TOKEN}}", listen: "unix:{socket}"}}
cache: {{rules: {{html: {{ttl: 1h}}}}}}
routes:
  - {{name: hello, match: {{path: /hello}}, respond: {{body: hello}}}}
  - {{name: site, cache: html}}
"""
ENVIRONMENT = {**os.environ, "EDGEPROXY_TOKEN": TOKEN, "COLUMNS": "200", "NO_COLOR": "1"}


def command(socket: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "edgeproxy", "top", "--admin", f"unix:{socket}", *arguments]


async def top(socket: Path, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command(socket, *arguments), env=ENVIRONMENT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


@pytest.fixture
async def serving(edgeproxy_run: Any, make_site: Any, tmp_path: Path) -> Any:
    """A proxy with visitors that keep coming, and the socket of its admin listener."""
    socket = tmp_path / "admin.sock"
    async with Pages(make_site(index="home")) as site:
        policy = tmp_path / "site.yaml"
        policy.write_text(POLICY.format(url=site.url, socket=socket))
        child = await edgeproxy_run(policy, EDGEPROXY_TOKEN=TOKEN)

        async def visit() -> None:
            async with aiohttp.ClientSession() as session:
                while True:
                    for path in ("", "hello"):
                        async with session.get(child.url + path) as reply:
                            await reply.read()
                    await asyncio.sleep(0.01)

        visitor = asyncio.create_task(visit())
        yield socket
        visitor.cancel()
        await asyncio.wait([visitor])


async def test_one_frame_shows_routes_origins_and_the_cache(serving: Path) -> None:
    status, out, errors = await top(serving, "--once", "--interval", "0.5")
    assert (status, errors) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"edgeproxy unix:{serving}  policy ")
    for start in ("requests ", "ROUTE ", "site ", "hello ", "ORIGIN ", "pages "):
        assert any(line.startswith(start) for line in lines), out
    assert "healthy" in next(line for line in lines if line.startswith("pages "))
    assert "memory" in next(line for line in lines if "answers" in line)


async def test_figures_as_json(serving: Path) -> None:
    status, out, _ = await top(serving, "--json", "--interval", "0.5")
    found = json.loads(out)
    assert status == 0
    assert {route["name"] for route in found["routes"]} == {"site", "hello"}
    assert found["per_s"] > 0
    assert found["by_source"]["memory"] > 0


async def test_frames_follow_until_q_is_pressed(serving: Path) -> None:
    """On a terminal of its own."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *command(serving, "--interval", "0.2"), env={**ENVIRONMENT, "TERM": "xterm"},
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while shown.count(b"ROUTE") < 2:
        shown += await asyncio.to_thread(os.read, ours, 65536)
    os.write(ours, b"q")
    reading = asyncio.create_task(asyncio.to_thread(read_to_the_end, ours))
    assert await process.wait() == 0
    shown += await reading
    os.close(ours)
    assert b"\x1b[?1049l" in shown  # the terminal is as it was before


def read_to_the_end(descriptor: int) -> bytes:
    read = b""
    try:
        while data := os.read(descriptor, 65536):
            read += data
    except OSError:  # the other side is closed
        pass
    return read


async def test_nobody_there_is_told(tmp_path: Path) -> None:
    status, out, errors = await top(tmp_path / "none.sock", "--once")
    assert (status, out) == (1, "")
    assert errors.startswith("edgeproxy: no admin listener answers at unix:")


async def test_wrong_use_is_told(tmp_path: Path) -> None:
    status, _, errors = await top(tmp_path / "none.sock", "--interval", "0")
    assert status == 2
    assert "not from 0.1 to 3600" in errors
