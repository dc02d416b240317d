"""Row 50: the wall clock is set, a day ahead or back, under a running process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

POLICY = """\
version: 1
origins: {{site: {{url: "{url}"}}}}
cache:
  memory: {{max_size: 8MiB}}
  disk: {{path: {folder}, max_size: 64MiB}}
limits: {{idle_timeout: 40s}}
"""

SET_CLOCK = """\
import os, pathlib, time
real, offset = time.time, pathlib.Path(os.environ["CLOCK_OFFSET"])
time.time = lambda: real() + float(offset.read_text())
"""
DAY_S = 86400


async def test_a_clock_that_jumps_makes_nothing_fresh_for_ever_and_fails_nobody(
    tmp_path: Path,
    serve_app: Callable[[web.Application], Awaitable[str]],
    edgeproxy_run: Callable[..., Awaitable[Any]],
) -> None:
    count = itertools.count(1)

    async def page(request: web.Request) -> web.Response:
        headers = {"Cache-Control": "max-age=3600"}
        return web.Response(text=f"version {next(count)}", headers=headers)

    app = web.Application()
    app.router.add_get("/", page)
    offset = tmp_path / "offset"
    (tmp_path / "sitecustomize.py").write_text(SET_CLOCK)
    policy = tmp_path / "site.yaml"
    policy.write_text(POLICY.format(url=await serve_app(app), folder=tmp_path / "cache"))

    def set_clock(offset_s: int) -> None:
        """At once: the process reads it all the time."""
        told = tmp_path / "told"
        told.write_text(str(offset_s))
        told.replace(offset)

    set_clock(0)
    child = await edgeproxy_run(policy, CLOCK_OFFSET=str(offset), PYTHONPATH=str(tmp_path))
    reader, writer = await asyncio.open_connection("127.0.0.1", child.port)

    async def get() -> tuple[str, int]:
        """The page and its age, on the one connection that no jump may end."""
        writer.write(b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200 "), head
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        body = await reader.readexactly(int(fields["content-length"]))
        return body.decode(), int(fields.get("age", 0))

    async def stays(after: str) -> str:
        """The version after `after`, served again and again as what is new."""
        async with asyncio.timeout(20):
            while (version := (await get())[0]) == after:
                pass
        for _ in range(20):
            text, age_s = await get()
            assert text == version
            assert 0 <= age_s <= 30
        return version

    first = await stays("")
    set_clock(DAY_S)  # what the origin dates now is a day old: nothing is fresh
    ahead = [(await get())[0] for _ in range(5)]
    assert first not in ahead
    assert len(set(ahead)) == 5
    set_clock(-DAY_S)  # what is stored is from the future
    behind = await stays(ahead[-1])
    set_clock(0)  # what is stored is a day old
    await stays(behind)
    assert next(count) == 9  # each jump cost no more than that
    writer.close()
    await writer.wait_closed()
    assert "Traceback" not in "".join(child.err)
