"""A worker whose plugin leaks is replaced in time, and no visitor notices."""

from __future__ import annotations

import asyncio
from pathlib import Path
from signal import SIGHUP
from typing import Any

import pytest

from tests.journeys.crew import POLICY, Crew, Visitor, admin, by_worker, visitors, write
from tests.journeys.crowd import Crowd

LEAK = """\
import os
from edgeproxy.api import Config, Plugin as Base, hookimpl

KEPT = []

class Leak(Config):
    once: str = ""

class Plugin(Base):
    '''Keeps 256 MiB for each request with the query `leak`. With `once`, the path of a file that is
    not there, it starts in one process only.'''
    Config = Leak

    @hookimpl
    def startup(self):
        if self.config.once:
            os.close(os.open(self.config.once, os.O_CREAT | os.O_EXCL))

    @hookimpl
    def annotate(self, exchange):
        if exchange.request.query == "leak":
            KEPT.append(b"x" * 2**28)
"""
UNLIMITED = POLICY + "plugins: [acme_leak]\nacme_leak: {{}}\n"
LIMITED = UNLIMITED.replace("limits: {{", "limits: {{process_memory: 320MiB, ")


@pytest.fixture
def leak(install: Any) -> dict[str, str]:
    """An environment with a plugin `acme_leak`."""
    return {"PYTHONPATH": str(install("acme_leak", LEAK))}


async def serving(folder: Path) -> list[int]:
    """The processes that serve, by id."""
    _, answer = await admin(folder, "/health")
    return [one["process"] for one in answer["workers"]]


async def has_gone(folder: Path, process: int) -> None:
    """Return when it serves no more: nothing but asking tells."""
    async with asyncio.timeout(40):
        while process in await serving(folder):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_worker_that_leaks_is_replaced_and_no_request_fails(
    crew: Crew, leak: dict[str, str], workers: str
) -> None:
    proxy = await crew.serve("--workers", workers, text=LIMITED, env=leak)
    before = proxy.workers()
    assert len(before) == int(workers)
    crowd = Crowd(proxy.port, lambda _number, _count: "/hello")
    async with visitors(proxy) as found:
        leaking, waiting, *_ = (await by_worker(proxy, found)).popitem()[1]
        crew.origin.gate.clear()
        asking = asyncio.ensure_future(waiting.get("/slow"))
        await crew.origin.has_been_asked(1)
        await leaking.get("/hello?leak")
        said = await proxy.said(lambda line: "another takes its place" in line)
        assert "MiB, and limits.process_memory is 320MiB" in said
        (leaker,) = (process for process in before if f"(process {process})" in said)
        await has_gone(crew.folder, leaker)
        assert leaker in proxy.workers()  # it finishes what is under way
        await crowd.have_asked(50)
        crew.origin.gate.set()
        assert (await asking)[0] == "/slow 1"
    async with asyncio.timeout(40):
        while leaker in proxy.workers():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await crowd.have_asked(50)
    await crowd.stop()
    assert crowd.failed == []
    assert set(crowd.words) == {"WORD"}
    after = proxy.workers()
    assert len(after) == int(workers)
    assert set(before) - set(after) == {leaker}
    assert not [line for line in proxy.err if "ERROR" in line or "Traceback" in line]


async def test_what_grows_again_at_once_is_not_replaced_at_once(
    crew: Crew, leak: dict[str, str]
) -> None:
    proxy = await crew.serve("--workers", "1", text=LIMITED, env=leak)
    (first,) = proxy.workers()
    for _ in range(2):
        visitor = await Visitor.come(proxy)
        await visitor.get("/hello?leak")
        visitor.leave()
        if first in await serving(crew.folder):
            await has_gone(crew.folder, first)
    (second,) = await serving(crew.folder)
    said = await proxy.said(lambda line: "as did the one before it" in line)
    assert f"(process {second})" in said
    assert "it stays for" in said
    visitor = await Visitor.come(proxy)
    assert (await visitor.get("/hello"))[0] == "WORD"
    visitor.leave()
    assert second in proxy.workers()


async def test_one_whose_successor_cannot_begin_stays(
    crew: Crew, leak: dict[str, str], tmp_path: Path
) -> None:
    text = LIMITED.replace("acme_leak: {{}}", f"acme_leak: {{{{once: {tmp_path}/taken}}}}")
    proxy = await crew.serve("--workers", "1", text=text, env=leak)
    (first,) = proxy.workers()
    async with visitors(proxy, 1) as (visitor,):
        await visitor.get("/hello?leak")
        said = await proxy.said(lambda line: "none could take its place" in line)
        assert "plugin 'acme_leak' failed in startup: FileExists" in said
        assert (await visitor.get("/hello"))[0] == "WORD"
    assert await serving(crew.folder) == [first]


async def test_a_limit_that_comes_without_a_supervisor_counts_from_the_next_start(
    crew: Crew, leak: dict[str, str]
) -> None:
    proxy = await crew.serve("--workers", "1", text=UNLIMITED, env=leak)
    assert proxy.workers() == []
    write(crew.folder, text=LIMITED)
    proxy.signal(SIGHUP)
    await proxy.said(lambda line: "limits.process_memory counts from the next start" in line)
