"""A new policy without a restart, and an end without a loss."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Any

import aiohttp
import pytest

from edgeproxy.pages import Fault, Pages
from edgeproxy.testing import Proxy, running

POLICY = """\
version: 1
origins: {site: {url: "http://site.example/"}}
cache:
  memory: {max_size: 8MiB}
  rules: {all: {ttl: 1h}}
limits: {shutdown_timeout: 10s}
routes:
  - {name: hello, match: {path: /hello}, respond: {body: WORD}}
  - {name: site, cache: all, response_headers: {set: {x-word: WORD}}}
"""


async def words(proxy: Proxy) -> tuple[str, str]:
    page = await proxy.get("/page")
    return (await proxy.get("/hello")).body.decode(), page.headers["x-word"]


async def test_the_next_request_sees_the_new_policy(make_site: Any) -> None:
    async with (
        Pages(make_site(index="home", page="page")) as site,
        running(POLICY, origins={"site": site.url}) as proxy,
    ):
        before = proxy.server.app.plan.version
        assert await words(proxy) == ("WORD", "WORD")
        await proxy.reload(POLICY.replace("WORD", "other"))
        assert await words(proxy) == ("other", "other")
        assert proxy.server.app.plan.version != before


async def test_a_policy_with_faults_changes_nothing(make_site: Any, caplog: Any) -> None:
    async with (
        Pages(make_site(index="home", page="page")) as site,
        running(POLICY, origins={"site": site.url}) as proxy,
    ):
        for bad in (
            "version: 2",
            "",
            "\0",
            POLICY.replace("respond", "responf"),
            POLICY.replace("cache: all", "cache: none"),
            POLICY + "  - {name: hello}\n",
            POLICY.replace("origins:", "geo: {database: /no/such/file.mmdb}\norigins:"),
        ):
            caplog.clear()
            await proxy.reload(bad)
            assert "the policy was not reloaded" in caplog.text
            assert await words(proxy) == ("WORD", "WORD")
        await proxy.reload(POLICY.replace("WORD", "good again"))
        assert await words(proxy) == ("good again", "good again")


async def test_a_plugin_whose_section_is_unchanged_keeps_what_it_holds(make_site: Any) -> None:
    async with (
        Pages(make_site(index="home", page="page")) as site,
        running(POLICY, origins={"site": site.url}) as proxy,
    ):
        await proxy.get("/page")
        held = {plugin.name: plugin.instance for plugin in proxy.server.app.plugins}
        await proxy.reload(POLICY.replace("WORD", "other"))
        reply = await proxy.get("/page")
        assert "; hit" in reply.cache_status
        assert reply.headers["x-word"] == "other"
        assert site.requests["/page"] == 1
        after = {plugin.name: plugin.instance for plugin in proxy.server.app.plugins}
        assert after["memory_cache"] is held["memory_cache"]
        # A section that changed is a plugin that begins anew.
        await proxy.reload(POLICY.replace("8MiB", "9MiB"))
        assert "; hit" not in (await proxy.get("/page")).cache_status


async def test_a_request_under_way_ends_by_the_policy_it_began_with(make_site: Any) -> None:
    async with Pages(make_site(index="home", page="page")) as site:
        release = asyncio.Event()

        async def wait(seconds: float) -> None:
            await release.wait()

        arrived = asyncio.Event()
        site.sleep = wait
        site.on_answer = lambda request, answer, fault: arrived.set()
        site.set_fault("/page", Fault(delay_s=1))
        async with running(POLICY, origins={"site": site.url}) as proxy:
            before = proxy.server.version
            under_way = asyncio.create_task(proxy.get("/page"))
            await arrived.wait()
            await proxy.reload(POLICY.replace("WORD", "other").replace("name: site", "name: rest"))
            assert (await proxy.get("/hello")).body == b"other"
            release.set()
            reply = await under_way
            assert (reply.status, reply.headers["x-word"]) == (200, "WORD")
            assert (proxy.log[-1]["route"], proxy.log[-1]["policy"]) == ("site", before)
            assert proxy.log[0]["policy"] == proxy.server.version != before


async def test_former_plans_are_let_go(make_site: Any) -> None:
    async with (
        Pages(make_site(index="home", page="page")) as site,
        running(POLICY, origins={"site": site.url}) as proxy,
    ):
        caches = []  # each plan has one
        for number in range(6):
            await proxy.reload(POLICY.replace("WORD", f"word{number}"))
            caches.append(weakref.ref(proxy.server.app.plan.cache))
            for _ in range(3):
                await proxy.get("/page")
            await proxy.reload("version: 1\nroutes: nonsense\n")
        gc.collect()
        assert [cache() is None for cache in caches] == [True] * 5 + [False]


async def test_reloads_under_load_lose_no_request(make_site: Any) -> None:
    async with (
        Pages(make_site(index="home", page="page")) as site,
        running(POLICY, origins={"site": site.url}) as proxy,
    ):
        is_over = False
        seen: set[str] = set()

        async def visitor() -> None:
            while not is_over:
                reply = await proxy.get("/page")
                assert reply.status == 200
                seen.add(reply.headers["x-word"])

        visitors = [asyncio.create_task(visitor()) for _ in range(8)]
        for number in range(10):
            await proxy.reload(POLICY.replace("WORD", f"word{number}"))
            await proxy.get("/page")
            await proxy.reload("version: 1\nroutes: nonsense\n")
        is_over = True
        await asyncio.gather(*visitors)
        assert "word9" in seen


async def test_sighup_reloads_and_bad_policies_are_told_with_their_place(
    make_site: Any, edgeproxy_run: Any, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.replace("WORD", "first"))
    async with Pages(make_site(index="home", page="page")) as site:
        proxy = await edgeproxy_run(file, "--origin", site.url)
        async with aiohttp.ClientSession() as client:

            async def hello() -> str:
                async with client.get(proxy.url + "hello") as answer:
                    return await answer.text()

            assert await hello() == "first"
            file.write_text(POLICY.replace("WORD", "second"))
            proxy.signal(SIGHUP)
            await proxy.said(lambda line: "is in force" in line)
            assert await hello() == "second"
            file.write_text(POLICY.replace("respond", "respnod"))
            proxy.signal(SIGHUP)
            await proxy.said(lambda line: f"{file}:8:" in line)
            assert await hello() == "second"
    assert any("did you mean 'respond'" in line for line in proxy.err)


async def test_a_watched_policy_is_reloaded_when_it_changes(
    make_site: Any, edgeproxy_run: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    save(folder / "site.yaml", POLICY.replace("WORD", "first"))
    async with Pages(make_site(index="home", page="page")) as site:
        proxy = await edgeproxy_run(folder, "--origin", site.url, "--watch")
        async with aiohttp.ClientSession() as client:

            async def hello() -> str:
                async with client.get(proxy.url + "hello") as answer:
                    return await answer.text()

            save(folder / "site.yaml", POLICY.replace("WORD", "second"))
            await proxy.said(lambda line: "is in force" in line)
            assert await hello() == "second"
            save(folder / "other.yaml", "version: 1\nroutes: [{name: bad, respnod: {}}]\n")
            await proxy.said(lambda line: f"{folder}/other.yaml:2:" in line)
            assert await hello() == "second"
            first = len(proxy.err)
            (folder / "other.yaml").unlink()
            save(folder / "site.yaml", POLICY.replace("WORD", "third"))
            await proxy.said(lambda line: "is in force" in line and line not in proxy.err[:first])
            assert await hello() == "third"


def save(file: Path, text: str) -> None:
    """As editors do: a draft takes the file's place."""
    draft = file.with_name(f".{file.name}.draft")
    draft.write_text(text)
    draft.replace(file)


@pytest.mark.parametrize("number", [SIGTERM, SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_signal_to_end_lets_requests_finish_and_exits_with_0(
    make_site: Any, edgeproxy_run: Any, tmp_path: Path, number: Any
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    release, arrived = asyncio.Event(), asyncio.Event()

    async def wait(seconds: float) -> None:
        await release.wait()

    async with Pages(make_site(index="home", page="page")) as site:
        site.sleep = wait
        site.on_answer = lambda request, answer, fault: arrived.set()
        site.set_fault("/page", Fault(delay_s=1))
        proxy = await edgeproxy_run(file, "--origin", site.url)
        async with aiohttp.ClientSession() as client:
            # A connection that waits for nothing, and a request under way.
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            under_way = asyncio.create_task(client.get(proxy.url + "page"))
            await arrived.wait()
            proxy.signal(number)
            assert await reader.read() == b""  # the idle one is closed at once
            with pytest.raises(OSError, match="Connect"):
                await asyncio.open_connection("127.0.0.1", proxy.port)
            release.set()
            answer = await under_way
            assert answer.status == 200
            assert b"page" in await answer.read()
            answer.release()
            writer.close()
        async with asyncio.timeout(10):
            assert await proxy.process.wait() == 0
    assert not [line for line in proxy.err if "Traceback" in line or "ERROR" in line]


async def test_what_does_not_finish_is_cut_when_time_is_up(
    make_site: Any, edgeproxy_run: Any, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.replace("shutdown_timeout: 10s", "shutdown_timeout: 200ms"))
    arrived = asyncio.Event()
    async with Pages(make_site(index="home", page="page")) as site:
        site.on_answer = lambda request, answer, fault: arrived.set()
        site.set_fault("/page", Fault(stall=True))
        proxy = await edgeproxy_run(file, "--origin", site.url)
        async with aiohttp.ClientSession() as client:
            under_way = asyncio.create_task(client.get(proxy.url + "page"))
            await arrived.wait()
            proxy.signal(SIGTERM)
            async with asyncio.timeout(10):
                assert await proxy.process.wait() == 0
            with pytest.raises(aiohttp.ClientError):
                await under_way
