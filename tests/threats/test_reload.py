"""Rows 41 and 49: neither a bad policy nor a bad database takes a running proxy down."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from edgeproxy.testing import Proxy, running
from tests.threats.raw import Origin, ask

CASES = Path(__file__).parent.parent / "cases" / "policies"

GOOD = """\
version: 1
origins: {site: {url: http://127.0.0.1:1/, kind: http}}
routes:
  - name: all
    origin: site
    filters: [{response_headers: {set: {x-policy: "TURN"}}}]
"""

BAD = {
    "nothing": "",
    "no mapping": "- a\n",
    "text": "nonsense",
    "broken": "version: [1\n",
    "a tab": "version:\t1\n\torigins: {}\n",
    "bytes": "version: 1\n\x00",
    "another version": GOOD.replace("version: 1", "version: 2"),
    "no version": GOOD.replace("version: 1\n", ""),
    "an unknown key": GOOD + "orgins: {}\n",
    "a repeated key": GOOD + "version: 1\n",
    "a tag": GOOD + "plugins: !!python/object/apply:os.system ['false']\n",
    "an alias": GOOD.replace("routes:", "routes: &a").replace("TURN", "x") + "x: *a\n",
    "a bomb": "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{b}: &{b} [{f'*{a},' * 9}]\n" for a, b in itertools.pairwise("abcdefghi")),
    "great depth": "version: " + "[" * 5000 + "]" * 5000,
    "great size": GOOD + "#" * 2_000_000,
    "no origin": GOOD.replace("origin: site", "origin: other"),
    "no url": GOOD.replace("url: http://127.0.0.1:1/, ", ""),
    "another scheme": GOOD.replace("http://", "ftp://"),
    "an unknown filter": GOOD.replace("response_headers", "response_haeders"),
    "an unknown match": GOOD.replace("origin: site", "match: {paht: /a}"),
    "a bad pattern": GOOD.replace("origin: site", 'match: {path: {regex: "("}}\n    origin: site'),
    "a header with a line break": GOOD.replace("TURN", r"a\r\nb: c"),
    "a framing header": GOOD.replace("x-policy", "content-length"),
    "an unknown fact": GOOD.replace("TURN", "${no.fact}"),
    "a bad limit": GOOD + "limits: {head_timeout: soon}\n",
    "an unknown plugin": GOOD + "plugins: [nowhere]\n",
    "two routes of a name": GOOD + "  - {name: all, origin: site}\n",
    "a bad network": GOOD + "trusted_proxies: [10.0.0.1/8]\n",
    "an absent database": GOOD + "geo: {database: /nowhere/x.mmdb}\n",
    "a damaged database": GOOD + f"geo: {{database: {__file__}}}\n",
    "a secret that is absent": GOOD + "admin: {token: '${env:EDGEPROXY_TEST_ABSENT}'}\n",
    "an experiment without weights": GOOD + "experiments: {hero: {weights: {}}}\n",
    "a rule that is absent": GOOD.replace("origin: site", "origin: site\n    cache: none"),
}  # fmt: skip


@asynccontextmanager
async def load_on(proxy: Proxy, clients: int = 6) -> AsyncIterator[list[str]]:
    """Clients that ask all the time; what went wrong for them."""
    failed: list[str] = []
    over = asyncio.Event()
    answered = asyncio.Event()

    async def client() -> None:
        while not over.is_set():
            try:
                reply = await ask(proxy.port, "/")
            except (OSError, TimeoutError, AssertionError) as error:
                failed.append(repr(error))
                continue
            if reply.status != 200:
                failed.append(str(reply))
            answered.set()

    tasks = [asyncio.ensure_future(client()) for _ in range(clients)]
    await answered.wait()
    try:
        yield failed
    finally:
        over.set()
        await asyncio.gather(*tasks)


async def test_bad_policies_under_load_fail_no_request_and_change_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert len(BAD) >= 30
    async with (
        Origin() as origin,
        running(GOOD.replace("TURN", "first"), origins={"site": origin.url}) as proxy,
        load_on(proxy) as failed,
    ):
        version = proxy.server.app.plan.version
        for name, text in BAD.items():
            caplog.clear()
            async with asyncio.timeout(10):
                await proxy.reload(text)
            assert proxy.server.app.plan.version == version, name
            assert f"{version} stays" in caplog.text, name
            assert (await ask(proxy.port)).get("x-policy") == "first"
            assert not failed, (name, failed)
        await proxy.reload(GOOD.replace("TURN", "second"))
        assert (await ask(proxy.port)).get("x-policy") == "second"
    assert not failed


async def test_every_bad_policy_of_the_golden_folder_leaves_the_old_one_in_force() -> None:
    async with (
        Origin() as origin,
        running(GOOD.replace("TURN", "first"), origins={"site": origin.url}) as proxy,
    ):
        version = proxy.server.app.plan.version
        assert proxy.policy_file is not None
        cases = [case for case in CASES.glob("*.yaml") if case.with_suffix(".err").exists()]
        assert len(cases) >= 40
        for case in sorted(cases):
            proxy.policy_file.write_bytes(case.read_bytes())
            await proxy.server.reload()
            assert proxy.server.app.plan.version == version, case.name
        assert (await ask(proxy.port)).get("x-policy") == "first"


async def test_a_hundred_good_reloads_under_load_fail_no_request() -> None:
    async with (
        Origin() as origin,
        running(GOOD, origins={"site": origin.url}) as proxy,
        load_on(proxy) as failed,
    ):
        for turn in range(100):
            await proxy.reload(GOOD.replace("TURN", str(turn)))
            assert (await ask(proxy.port)).get("x-policy") == str(turn)
    assert not failed


async def test_missing_file_leaves_the_old_policy_in_force() -> None:
    async with Origin() as origin, running(GOOD, origins={"site": origin.url}) as proxy:
        assert proxy.policy_file is not None
        proxy.policy_file.unlink()
        await proxy.server.reload()
        assert (await ask(proxy.port)).status == 200
        proxy.policy_file.mkdir()
        await proxy.server.reload()
        assert (await ask(proxy.port)).status == 200
        proxy.policy_file.rmdir()


async def test_signal_reloads_a_process_and_never_ends_it(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    async with Origin() as origin:
        file.write_text(GOOD.replace("TURN", "first"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edgeproxy", "run", str(file), "--listen", "127.0.0.1:0",
            "--origin", f"site={origin.url}", "--access-log", "off",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with asyncio.timeout(30):
                line = (await process.stdout.readline()).decode()
                port = int(line.split("http://127.0.0.1:")[1].split("/")[0])
                for text, sign in (
                    ("version: [", "was not reloaded"),
                    (GOOD.replace("TURN", "second"), "is in force"),
                    ("nonsense", "was not reloaded"),
                ):
                    file.write_text(text)
                    process.send_signal(signal.SIGHUP)
                    while sign not in (await process.stderr.readline()).decode():
                        pass
                assert (await ask(port)).get("x-policy") == "second"
                process.terminate()
                assert await process.wait() == 0
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


# ------------------------------------------------------------ row 49


GEO = """\
version: 1
origins: {site: {url: http://127.0.0.1:1/, kind: http}}
geo: {database: DATABASE, reload_interval: 5ms}
trusted_proxies: [127.0.0.0/8]
routes:
  - name: all
    origin: site
    cache: false
    filters: [{response_headers: {set: {x-country: "${geo.country}"}}}]
"""


async def test_database_replaced_by_damaged_ones_under_load_never_stops_the_proxy(
    tmp_path: Path, shared_geoip: Path
) -> None:
    good = shared_geoip / "iptoasn-country.mmdb"
    database = tmp_path / "country.mmdb"
    shutil.copy(good, database)
    whole = good.read_bytes()
    known = "X-Forwarded-For: 8.8.8.8"
    files = [path for path in sorted((shared_geoip / "test-data").rglob("*")) if path.is_file()]
    damaged = [
        *((path.name, path.read_bytes()) for path in files),
        ("empty", b""),
        ("cut in half", whole[: len(whole) // 2]),
        ("without its end", whole[:-100]),
        ("only its end", whole[-200_000:]),
        ("zeros", bytes(len(whole))),
        ("its end and zeros", bytes(len(whole) - 500) + whole[-500:]),
        ("text", b"not a database\n" * 100),
        *((f"a flipped byte {n}", _flipped(whole, n)) for n in range(10)),
    ]
    assert len(damaged) >= 20
    policy = GEO.replace("DATABASE", str(database))
    async with (
        Origin() as origin,
        running(policy, origins={"site": origin.url}) as proxy,
    ):
        country = (await ask(proxy.port, "/", known)).get("x-country")
        assert country == "US"
        async with load_on(proxy, clients=3) as failed:
            for name, content in damaged:
                replacement = tmp_path / "new"
                replacement.write_bytes(content)
                replacement.replace(database)
                for _ in range(4):  # which takes the watcher past several looks
                    reply = await ask(proxy.port, "/", known)
                assert reply.status == 200, name
                assert len(reply.get("x-country") or "") == 2, (name, reply)
                assert not failed, (name, failed)
            database.write_bytes(whole[:1000])  # in place, as careless updaters do
            assert (await ask(proxy.port, "/", known)).status == 200
            database.unlink()
            await ask(proxy.port, "/", known)
            assert (await ask(proxy.port, "/", known)).status == 200
            shutil.copy(good, tmp_path / "new")
            (tmp_path / "new").replace(database)
            async with asyncio.timeout(10):
                while (await ask(proxy.port, "/", known)).get("x-country") != country:
                    pass
        assert not failed


def _flipped(data: bytes, seed: int) -> bytes:
    changed = bytearray(data)
    changed[(seed * 7919 * 104_729) % len(data)] ^= 0xFF
    return bytes(changed)


async def test_a_hundred_swaps_of_good_databases_under_load_fail_no_request(
    tmp_path: Path, shared_geoip: Path
) -> None:
    database = tmp_path / "country.mmdb"
    choices = [
        shared_geoip / "iptoasn-country.mmdb",
        shared_geoip / "test-data" / "GeoLite2-Country-Test.mmdb",
    ]
    shutil.copy(choices[0], database)
    async with (
        Origin() as origin,
        running(GEO.replace("DATABASE", str(database)), origins={"site": origin.url}) as proxy,
        load_on(proxy, clients=3) as failed,
    ):
        for turn in range(100):
            shutil.copy(choices[turn % 2], tmp_path / "new")
            (tmp_path / "new").replace(database)
            assert (await ask(proxy.port, "/", "X-Forwarded-For: 8.8.8.8")).status == 200
    assert not failed
