"""Several workers behave as one process does. One proxy for all tests here: it takes a while to
start, and nothing that they do to it lasts."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGHUP

import aiohttp
import pytest
import pytest_asyncio

from tests.journeys.conftest import Child
from tests.journeys.crew import (
    POLICY,
    RUN,
    TOKEN,
    Crew,
    Visitor,
    admin,
    by_worker,
    visitors,
    write,
)
from tests.journeys.origins import Origin

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Site:
    """A proxy with two workers, and all that is around it."""

    proxy: Child
    origin: Origin
    folder: Path

    async def settled(self) -> None:
        """Return when the workers, and the supervisor, have heard all that was sent before."""
        async with visitors(self.proxy, 16) as others:
            for visitor in others:
                await visitor.get("/hello")
        await admin(self.folder, "/health")

    async def words(self, found: list[Visitor]) -> set[str]:
        return {(await visitor.get("/hello"))[0] for visitor in found}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Origin.serving() as origin:
            proxy = await Crew(Child.run, origin, folder).serve(disk=True)
            yield Site(proxy, origin, folder)
            await proxy.end()


# ------------------------------------------------------------------------ serving


async def test_both_serve_on_one_port_that_was_chosen(site: Site) -> None:
    assert len(site.proxy.workers()) == 2
    async with visitors(site.proxy, 64) as found:
        groups = await by_worker(site.proxy, found)
    assert len(groups) == 2
    assert min(map(len, groups.values())) > 8  # the kernel spreads connections


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_nobody_else_can_take_the_port(site: Site, workers: str) -> None:
    """Not even another edgeproxy of the same user, which would get a part of the connections."""
    listen = f"127.0.0.1:{site.proxy.port}"
    process = await asyncio.create_subprocess_exec(
        *RUN, str(site.folder / "policy.yaml"), "--workers", workers, "--listen", listen,
        env={**os.environ, "EDGEPROXY_TOKEN": TOKEN}, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    assert process.returncode == 2
    assert f"cannot listen on {listen}: ".encode() in said


@pytest.mark.parametrize("disk", [True, False], ids=["memory and disk", "memory"])
async def test_one_fetch_answers_the_clients_of_all_workers(site: Site, disk: bool) -> None:
    write(site.folder, disk=disk)
    assert (await admin(site.folder, "/policy/reload"))[0] == 200
    async with visitors(site.proxy, 32) as found:
        assert len(await by_worker(site.proxy, found)) == 2
        path = f"/collapse/{disk}"
        before = site.origin.asked.total()
        site.origin.gate.clear()
        asking = [asyncio.ensure_future(visitor.get(path)) for visitor in found]
        await site.origin.has_been_asked(before + 1)
        await site.settled()
        site.origin.gate.set()
        for body, fields in await asyncio.gather(*asking):
            assert body == f"{path} 1"
            assert re.search("; stored|; collapsed|; hit", fields["cache-status"])
    assert site.origin.asked[path] == 1
    write(site.folder, disk=True)
    assert (await admin(site.folder, "/policy/reload"))[0] == 200


async def test_what_one_has_on_disk_all_have(site: Site) -> None:
    async with visitors(site.proxy) as found:
        assert len(await by_worker(site.proxy, found)) == 2
        async with asyncio.timeout(20):
            for number in itertools.count():  # one that is written before the other worker asks
                for visitor in found:
                    await visitor.get(f"/disk/{number}")
                if site.origin.asked[f"/disk/{number}"] == 1:
                    break


# ------------------------------------------------------------------------ purges


@pytest.mark.parametrize("verb", ["purge", "invalidate"])
async def test_a_purge_is_in_force_in_both_when_it_is_acknowledged(site: Site, verb: str) -> None:
    path = f"/{verb}d"
    async with visitors(site.proxy) as found:
        assert len(await by_worker(site.proxy, found)) == 2
        for _ in range(5):
            for _ in range(3):  # warm in both, also where hits are answered at once
                bodies = {(await visitor.get(path))[0] for visitor in found}
            status, answer = await admin(site.folder, f"/{verb}", urls=[path])
            assert (status, answer["not_written_down_by"]) == (200, [])
            before = site.origin.asked[path]
            for body, _ in await asyncio.gather(*(one.get(path) for one in found)):
                assert body not in bodies
                assert int(body.split()[1]) > before


async def test_a_change_through_one_worker_is_heeded_by_both(site: Site) -> None:
    async with visitors(site.proxy) as found:
        groups = await by_worker(site.proxy, found)
        one, other = (group[0] for group in groups.values())
        before = {(await visitor.get("/form"))[0] for visitor in (one, other)}
        changed, _ = await one.get("/form", "POST")
        after = [(await visitor.get("/form"))[0] for visitor in (one, other)]
    assert not before & set(after)
    assert all(int(body.split()[1]) > int(changed.split()[1]) for body in after)


# ------------------------------------------------------------------------ policies


async def test_a_reload_is_in_force_in_all_or_in_none(site: Site) -> None:
    async with visitors(site.proxy) as found:
        assert len(await by_worker(site.proxy, found)) == 2
        for word in ("other", "WORD"):
            said = len(site.proxy.err)
            write(site.folder, word, disk=True)
            site.proxy.signal(SIGHUP)
            await site.proxy.said_since(said, lambda line: "is in force" in line)
            assert await site.words(found) == {word}
        write(site.folder, text=POLICY.replace("respond", "respnod"))
        site.proxy.signal(SIGHUP)
        await site.proxy.said(lambda line: "did you mean 'respond'" in line)
        assert await site.words(found) == {"WORD"}
    write(site.folder, disk=True)


async def test_a_trial_and_a_rollback_are_of_all(site: Site) -> None:
    text = POLICY.format(folder=site.folder).replace("WORD", "tried")
    tried = [{"name": "tried.yaml", "text": text}]
    async with visitors(site.proxy) as found:
        assert len(await by_worker(site.proxy, found)) == 2
        status, answer = await admin(
            site.folder, "/policy/canary", files=tried, percent=100, by="me"
        )
        assert status == 200, answer
        assert await site.words(found) == {"tried"}
        _, answer = await admin(site.folder, "/policy/promote", by="me")
        assert answer["candidate"] is None
        assert await site.words(found) == {"tried"}
        _, answer = await admin(site.folder, "/policy/rollback", by="me")
        assert answer["in_force"]["event"] == "rollback"
        assert await site.words(found) == {"WORD"}
        await admin(site.folder, "/policy/shadow", files=tried, by="me")
        assert await site.words(found) == {"WORD"}
        async with asyncio.timeout(20):
            # Each by the worker that served it; nothing but asking tells how far they are.
            while (await compared(site)) < len(found):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        _, answer = await admin(site.folder, "/policy/abort", by="me")
        assert answer["candidate"] is None


async def compared(site: Site) -> int:
    """How many requests have been compared in shadow, by all workers together."""
    _, answer = await admin(site.folder, "/policy/status")
    return int(answer["candidate"]["shadow"]["compared"])


# ------------------------------------------------------------------------ looking


async def test_the_admin_listener_answers_for_all(site: Site) -> None:
    async with visitors(site.proxy) as found:
        assert len(await by_worker(site.proxy, found)) == 2
        for visitor in found:
            await visitor.get("/looked-at")
    _, answer = await admin(site.folder, "/health")
    assert sorted(one["process"] for one in answer["workers"]) == sorted(site.proxy.workers())
    assert answer["origins_unwell"] == []
    _, answer = await admin(site.folder, "/cache/object?url=/looked-at")
    where = sorted((one["tier"], one.get("worker")) for one in answer["objects"])
    assert where == [("disk", None), ("memory", 1), ("memory", 2)]
    _, answer = await admin(site.folder, "/cache/objects?prefix=/looked-at")
    assert len(answer["objects"]) == 3
    _, answer = await admin(site.folder, "/cache/stats")
    memory, disk = answer["tiers"]
    assert (memory["name"], memory["shared"], disk["name"], disk["shared"]) == (
        "memory", False, "disk", True
    )  # fmt: skip
    assert memory["max_bytes"] == 2 * 8 * 2**20
    assert disk["max_bytes"] == 64 * 2**20
    assert memory["objects"] > disk["objects"] > 0
    assert (await admin(site.folder, "/ready"))[0] == 200
    _, answer = await admin(site.folder, "/origins")
    assert [(one["name"], one["state"]) for one in answer["origins"]] == [("site", "healthy")]
    for target in ("/version", "/plugins", "/experiments", "/policy", "/openapi.json"):
        assert (await admin(site.folder, target))[0] == 200


async def test_the_dashboard_shows_what_all_have_served(site: Site) -> None:
    async with visitors(site.proxy) as found:
        groups = await by_worker(site.proxy, found)
    assert len(groups) == 2
    _, answer = await admin(site.folder, "/traffic")
    assert {entry["request_id"][:8] for entry in answer["tail"]} == set(groups)
    connector = aiohttp.UnixConnector(str(site.folder / "admin.sock"))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as client,
        client.get("http://admin/") as page,
    ):
        assert page.status == 200
        text = await page.text()
    assert all(f"why-{entry['request_id']}" in text for entry in answer["tail"][:5])


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/cache/object?url=/never", 404, "not-stored"),
        ("/cache/object?link=/never", 400, "bad-request"),
        ("/no/such", 404, "no-such-page"),
    ],
)
async def test_what_the_workers_refuse_is_refused(
    site: Site, target: str, status: int, code: str
) -> None:
    found, answer = await admin(site.folder, target)
    assert (found, answer["error"]["code"]) == (status, code)
