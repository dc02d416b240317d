"""The access log: a line for every request, with all that is asked of it and no secrets."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
from pathlib import Path
from typing import Any

import aiohttp

from edgeproxy.pages import Fault, Pages
from edgeproxy.testing import running
from tests.journeys.crew import RUN

POLICY = """\
version: 1
trusted_proxies: [127.0.0.0/8]
origins:
  site: {url: "http://site.example/"}
  app: {url: "http://app.example/", kind: http}
experiments: {hero: {weights: {plain: 1, bold: 1}}}
cache:
  memory: {max_size: 8MiB}
  rules: {all: {ttl: 1h}}
geo: {}
routes:
  - {name: home, match: {path: /}, experiment: hero, origin: site, cache: all,
     response_headers: {set: {x-country: "${geo.country}"}}}
  - {name: gone, match: {path: /gone}, redirect: /}
  - {name: app, match: {path: /app/**}, origin: app}
  - {name: site, origin: site, cache: all}
"""

FIELDS = {
    "time", "method", "host", "path", "status", "bytes", "duration_ms", "route", "variant",
    "country", "cache", "origin", "policy", "request_id",
}  # fmt: skip

CANARIES = [f"canary{number:02}" for number in range(12)]


async def test_a_line_says_all_about_a_request(make_site: Any) -> None:
    async with Pages(make_site(index="home")) as site:
        async with running(POLICY, origins={"site": site.url}) as proxy:
            headers = {"host": "www.example.org", "x-forwarded-for": "193.51.208.13"}
            first = await proxy.get("/?utm=1", headers={**headers, "cookie": "ep_hero=bold"})
            await proxy.get("/", headers={**headers, "cookie": "ep_hero=bold"})
            await proxy.get("/gone")
            await proxy.get("/missing", method="HEAD")
        one, two, moved, missing = proxy.log
        assert set(one) >= FIELDS
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one["time"])
        assert (one["method"], one["host"], one["path"]) == ("GET", "www.example.org", "/")
        assert (one["status"], one["bytes"]) == (200, len(first.body))
        assert (one["route"], one["variant"], one["origin"]) == ("home", "hero=bold", "site")
        assert one["country"] == "FR"
        assert one["policy"] == proxy.server.app.plan.version
        assert (one["cache"], two["cache"]) == ("miss", "miss")  # another query, another page
        assert isinstance(one["duration_ms"], float)
        assert one["request_id"] != two["request_id"]
        assert (moved["status"], moved["route"], moved["origin"]) == (302, "gone", None)
        assert (missing["method"], missing["status"], missing["bytes"]) == ("HEAD", 404, 0)
        assert "error" not in one


async def test_verdicts_of_the_cache_are_told_apart(make_site: Any) -> None:
    async with Pages(make_site(index="home", page="page")) as site:
        async with running(POLICY, origins={"site": site.url}) as proxy:
            await proxy.get("/page")
            await proxy.get("/page")
            await proxy.get("/page", method="POST")
            await proxy.get("/gone")
        assert [line["cache"] for line in proxy.log] == ["miss", "hit", "pass", "pass"]


async def test_a_failure_is_named_in_the_log_and_not_to_the_visitor(make_site: Any) -> None:
    async with Pages(make_site(index="home")) as site:
        site.set_fault("/**", Fault(reset=True))
        async with running(POLICY, origins={"site": site.url}) as proxy:
            reply = await proxy.get("/")
        assert reply.status == 502
        line = proxy.log[-1]
        assert "connection_terminated" in line["error"]
        assert line["request_id"] in reply.body.decode()
        assert "connection" not in reply.body.decode()


async def test_no_secret_of_a_visitor_gets_into_any_output(
    raw_origin: Any, edgeproxy_run: Any, tmp_path: Path
) -> None:
    answer = (
        f"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nSet-Cookie: session={CANARIES[0]}\r\n"
        f"X-Token: {CANARIES[1]}\r\n\r\n{CANARIES[2]}"
    ).encode()
    bad = f"HTTP/1.1 200 OK\r\nContent-Length: x\r\nSet-Cookie: s={CANARIES[11]}\r\n\r\n".encode()
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    async with raw_origin(answer) as origin:
        proxy = await edgeproxy_run(
            file, "--origin", f"app={origin.url}", "--access-log", "json", "--log-level", "DEBUG"
        )
        secrets = {
            "Cookie": f"session={CANARIES[3]}; ep_hero={CANARIES[4]}",
            "Authorization": f"Bearer {CANARIES[5]}",
            "Proxy-Authorization": f"Basic {CANARIES[6]}",
            "X-Api-Key": CANARIES[7],
            "Referer": f"http://x/?{CANARIES[8]}",
        }
        async with aiohttp.ClientSession() as client:
            for target, data in (
                (f"app/login?token={CANARIES[9]}", None),
                (f"app/login?token={CANARIES[9]}", CANARIES[10].encode()),
                (f"?hero={CANARIES[9]}", None),
            ):
                async with client.post(proxy.url + target, data=data, headers=secrets) as reply:
                    await reply.read()
            origin.answers = [bad]
            async with client.get(proxy.url + "app/bad", headers=secrets) as reply:
                assert reply.status == 502
        await proxy.said(lambda line: '"/app/bad"' in line)
    status = await proxy.end()
    assert status == -9
    output = "".join(proxy.out + proxy.err)
    assert not [canary for canary in CANARIES if canary in output]
    lines = [json.loads(line) for line in proxy.out if line.startswith("{")]
    assert [line["path"] for line in lines] == ["/app/login", "/app/login", "/", "/app/bad"]


async def test_what_a_client_writes_cannot_forge_a_line(make_site: Any, ask: Any) -> None:
    async with Pages(make_site(index="home")) as site:
        async with running(POLICY, origins={"site": site.url}) as proxy:
            await ask(
                proxy.port,
                b"GET /a%1B%5B31m/%22%7D HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                b"GET /%E2%80%AE HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            )
            await proxy.get("/%E2%80%AE%22")
        for line in proxy.log:
            assert all(" " <= char <= "~" for char in line["path"])


# ------------------------------------------------------------------------ as other servers write

CLIENT = "193.51.208.13"


async def test_combined_names_the_client_whichever_way_an_answer_took(
    make_site: Any, edgeproxy_run: Any, ask: Any, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    async with Pages(make_site(index="home")) as site:
        proxy = await edgeproxy_run(
            file, "--origin", f"site={site.url}", "--origin", f"app={site.url}",
            "--access-log", "combined", "--workers", "1",
        )  # fmt: skip
        head = (
            f'Host: www.example.org\r\nX-Forwarded-For: {CLIENT}\r\nUser-Agent: a "b"\r\n'
            f"Referer: https://x.example/from?token={CANARIES[0]}#{CANARIES[1]}\r\n"
            f"Cookie: session={CANARIES[2]}\r\n"
        )
        for _ in range(6):  # the last of them is given again as it was
            await ask(
                proxy.port,
                f"GET / HTTP/1.1\r\n{head}\r\nGET / HTTP/1.0\r\nHost: b\r\n\r\n".encode(),
            )
        upload = f"POST /app/x?token={CANARIES[3]} HTTP/1.0\r\n{head}Content-Length: 1\r\n\r\nx"
        await ask(proxy.port, upload.encode())
        last = await proxy.said(lambda line: "POST /app/x" in line)
    agent = r'"https://x.example/from" "a \"b\""'
    assert re.fullmatch(
        rf'{CLIENT} - - \[[^]]+\] "POST /app/x HTTP/1\.0" \d{{3}} \d+ {re.escape(agent)}\n', last
    )
    lines = [line for line in proxy.out if '"GET / HTTP/1.1"' in line]
    assert len(lines) == 6
    for line in lines:
        assert line.startswith(f"{CLIENT} - - [")
        assert line.endswith(f"{agent}\n")
    assert len({re.sub(r"\[.*?\]", "", line) for line in lines}) == 1, "miss or hit, they say so"
    assert sum('"GET / HTTP/1.0"' in line for line in proxy.out) == 6
    assert not [canary for canary in CANARIES if canary in "".join(proxy.out)]


async def test_long_lines_of_several_workers_stay_whole(make_site: Any, tmp_path: Path) -> None:
    """A pipe keeps together what has up to 4 KiB; these lines have 8, and the pipe is small."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    reading, writing = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):  # on Linux
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    process = await asyncio.create_subprocess_exec(
        *RUN, file, "--workers", "2", "--access-log", "json", "--listen", "127.0.0.1:0",
        stdout=writing, stderr=writing,
    )  # fmt: skip
    os.close(writing)
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
    )
    paths = {f"/gone{number}/{'x' * 7500}" for number in range(200)}
    lines: list[bytes] = []

    async def printed(beginning: bytes) -> bytes:
        while not (line := await reader.readline()).startswith(beginning):
            assert line
            lines.append(line)
        return line

    url = (await printed(b"edgeproxy serves")).split()[2].decode()
    asking = asyncio.gather(*(_ask_from(url, list(paths)[at::16]) for at in range(16)))
    found = {json.loads(await printed(b"{"))["path"] for _ in paths}
    await asking
    process.terminate()
    async for line in reader:
        lines.append(line)
    assert await process.wait() == 0
    transport.close()
    assert found == paths
    assert all(re.match(rb"\d\d:\d\d:\d\d [A-Z]+ ", line) for line in lines), "and messages"


async def _ask_from(url: str, paths: list[str]) -> None:
    """One connection: the kernel says which worker has it."""
    async with aiohttp.ClientSession() as client:
        for path in paths:
            async with client.get(f"{url.rstrip('/')}{path}") as reply:
                await reply.read()
