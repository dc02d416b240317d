"""Record what visitors ask, and replay it: nothing changes until the policy does."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

from edgeproxy import cli
from edgeproxy.engine.flows import flows
from edgeproxy.pages import Pages
from edgeproxy.plan import compile_plan
from edgeproxy.policy.load import parse
from edgeproxy.replay import Report, replay
from edgeproxy.testing import Proxy, running
from edgeproxy.traffic import Seen, Visit, read

POLICY = """\
version: 1
trusted_proxies: [127.0.0.0/8]
record: {{path: {file}}}
origins:
  site: {{url: "{url}"}}
  next: {{url: "{url}"}}
experiments: {{hero: {{weights: {{plain: 1, bold: 1}}}}}}
cache:
  rules: {{all: {{ttl: 1h}}}}
routes:
  - {{name: gone, match: {{path: /gone}}, redirect: /}}
  - {{name: europe, match: {{path: /page, country: FR}}, origin: next, cache: all}}
  - {{name: home, match: {{path: /}}, experiment: hero, origin: site, cache: all,
     response_headers: {{add: {{x-country: "${{geo.country}}"}}}}}}
  - {{name: site, origin: site, cache: all}}
"""
SECRET = "s3cr3tcanary"


async def visit_all(proxy: Proxy) -> None:
    french = {"x-forwarded-for": "193.51.208.13", "host": "www.example.org"}
    for _ in range(3):
        await proxy.get("/", headers={**french, "cookie": f"ep_hero=bold; sid={SECRET}"})
        await proxy.get("/page", headers=french)
        await proxy.get("/page")
        await proxy.get(f"/gone?token={SECRET}", headers={"authorization": f"Bearer {SECRET}"})
        await proxy.get("/missing", method="HEAD")
        await proxy.get("/page", method="POST", data=SECRET.encode())
    etag = (await proxy.get("/page")).headers["etag"]
    assert (await proxy.get("/page", headers={"if-none-match": etag})).status == 304
    assert (await proxy.get("/page", headers={"range": "bytes=0-1"})).status == 206
    assert (await proxy.get("/page", headers={"accept-encoding": "gzip"})).status == 200


async def replayed(file: Path, after: str, before: str | None = None) -> Report:
    return await asyncio.to_thread(
        replay, [file], flows, compile_plan(parse(after)),
        compile_plan(parse(before)) if before else None,
    )  # fmt: skip


async def test_a_recording_replays_without_change_until_the_policy_changes(
    make_site: Any, tmp_path: Path
) -> None:
    file = tmp_path / "traffic.mitm"
    async with Pages(make_site(index="home", page="page")) as site:
        policy = POLICY.format(file=file, url=site.url)
        async with running(policy) as proxy:
            await visit_all(proxy)
            assert proxy.server.edge.accelerator.remembered == 0
            expected = len(proxy.log)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert SECRET.encode() not in file.read_bytes()

    visits = list(read([file], flows, Seen()))
    assert len(visits) == expected
    assert {str(one.client) for one in visits} == {"193.51.208.13", "127.0.0.1"}
    for one in visits[:6]:
        assert_is_whole(one)

    same = await replayed(file, policy)
    assert same.comparison.requests == expected
    assert dict(same.comparison.counts) == {}, "\n".join(same.lines())

    other = policy.replace("country: FR", "country: DE").replace("path: /gone}", "path: /went}")
    found = (await replayed(file, other)).comparison
    assert found.counts["route"] == 6
    assert found.counts["status"] == 3
    assert "route site" in found.examples["route"].why_after
    against = (await replayed(file, other, policy)).comparison
    assert against.counts["route"] == 6
    assert against.counts["origin"] == 6
    assert "route europe" in against.examples["origin"].why_before


async def test_what_was_recorded_with_origins_elsewhere_is_replayed_so(
    make_site: Any, tmp_path: Path, capsys: Any
) -> None:
    file, policy = tmp_path / "traffic.mitm", tmp_path / "site.yaml"
    policy.write_text(POLICY.format(file=file, url="http://site.example/"))
    async with Pages(make_site(index="home", page="page")) as site:
        where = {"site": site.url, "next": site.url}
        async with running(policy.read_text(), origins=where) as proxy:
            await visit_all(proxy)
    arguments = ["replay", str(file), "--policy", str(policy), "--fail-on", "any"]
    there = [word for name, url in where.items() for word in ("--origin", f"{name}={url}")]
    assert await asyncio.to_thread(cli.main, arguments) == 1
    assert "cache_key changes" in capsys.readouterr().out
    assert await asyncio.to_thread(cli.main, [*arguments, *there]) == 0
    fewer = tmp_path / "fewer.yaml"
    fewer.write_text(policy.read_text().replace("  next:", "  # next:").replace("next", "site"))
    against = ["--against", str(fewer)]
    assert await asyncio.to_thread(cli.main, [*arguments, *there, *against]) == 1
    capsys.readouterr()
    assert await asyncio.to_thread(cli.main, [*arguments, "--origin", "other=http://x/"]) == 2
    assert "origins: site, next" in capsys.readouterr().err


def assert_is_whole(one: Visit) -> None:
    assert one.answer is not None
    assert one.recalled.policy
    assert one.recalled.verdict


async def test_only_clients_of_the_sample_are_recorded(make_site: Any, tmp_path: Path) -> None:
    file = tmp_path / "traffic.mitm"
    async with Pages(make_site(index="home", page="page")) as site:
        policy = POLICY.format(file=f"{file}, sample: 0.5", url=site.url)
        async with running(policy) as proxy:
            for number in range(60):
                for _ in range(2):
                    client = {"x-forwarded-for": f"192.0.2.{number}"}
                    await proxy.get("/page", headers=client)
    seen = [str(one.client) for one in read([file], flows, Seen())]
    assert 15 <= len(set(seen)) <= 45
    assert all(seen.count(client) == 2 for client in seen)


def test_a_har_is_replayed_and_a_change_fails_the_build(tmp_path: Path, capsys: Any) -> None:
    policy = tmp_path / "site.yaml"
    policy.write_text(
        'version: 1\norigins: {site: {url: "http://site.example/"}}\n'
        "routes: [{name: gone, match: {path: /gone}, redirect: /}, {name: site}]\n"
    )
    entry = {
        "startedDateTime": "2026-10-10T13:55:36.000Z",
        "request": {"method": "GET", "url": "https://example.org/gone?a=1", "headers": []},
        "response": {"status": 200, "headers": [], "bodySize": 12},
    }
    har = tmp_path / "visit.har"
    har.write_text(json.dumps({"log": {"entries": [entry, {}]}}))
    assert cli.main(["replay", str(har), "--policy", str(policy), "--fail-on", "route"]) == 0
    assert "not replayed: 1 unreadable" in capsys.readouterr().out
    arguments = ["replay", str(har), "--policy", str(policy), "--fail-on", "status", "--json"]
    assert cli.main(arguments) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["requests"], report["unreadable"]) == (1, 1)
    assert [one["kind"] for one in report["kinds"]] == ["status"]
    assert report["kinds"][0]["example"]["url"] == "https://example.org/gone"
