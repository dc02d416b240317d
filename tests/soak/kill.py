"""edgeproxy killed with SIGKILL under load, again and again, on one cache folder.

`make soak-kill ROUNDS=100`. In every round a process serves from the cache that the last one left,
visitors ask for pages, somebody publishes new versions and purges the old ones, and then it dies.
Every whole answer says which page and version it is and holds a digest of its own bytes:

- damaged: the bytes are not what the digest says, or belong to another page;
- resurrected: the version is older than one whose purge had been confirmed before the request.

Neither may ever happen. At the end the index itself is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import multiprocessing
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import SIGKILL

import aiohttp
from aiohttp import web

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from tests.soak.progress import Progress  # noqa: E402

PAGES = 300
VISITORS = 12
TOKEN = "a token for this test alone"
POLICY = """\
version: 1
admin: {{listen: "unix:{folder}/admin.sock", token: "${{file:{folder}/token}}"}}
origins: {{site: {{url: "http://site.example/"}}}}
cache:
  memory: {{max_size: 1MiB}}
  disk: {{path: "{folder}/cache", max_size: {disk}}}
  encodings: [br]
  rules: {{all: {{ttl: 1h, stale_if_error: 0s, tags: [site]}}}}
routes: [{{name: site, cache: all}}]
"""


def body_of(page: int, version: int) -> bytes:
    """What the origin answers: it names itself and its digest. Every tenth is a large one."""
    chance = random.Random(page * 1_000_003 + version)
    size = chance.randrange(270_000, 400_000) if page % 10 == 0 else chance.randrange(100, 30_000)
    rest = chance.randbytes(size // 2).hex().encode()
    digest = hashlib.sha256(rest).hexdigest()
    return b"%d %d %s\n" % (page, version, digest.encode()) + rest


@dataclass
class Report:
    rounds: int = 0
    answers: int = 0
    from_cache: int = 0
    from_disk: int = 0
    broken_off: int = 0  # by the kill
    purges: int = 0
    damaged: list[str] = field(default_factory=list)
    resurrected: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # answers that are no 200

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.answers} answers ({self.from_cache} from the cache, "
            f"{self.from_disk} of them from disk), {self.broken_off} broken off by the kill, "
            f"{self.purges} purges; damaged: {len(self.damaged)}, resurrected: "
            f"{len(self.resurrected)}, not answered: {len(self.refused)}"
        )

    @property
    def is_good(self) -> bool:
        return not (self.damaged or self.resurrected or self.refused)


class Soak:
    """The origin, the visitors and who publishes. `versions` are what the origin has; `confirmed`
    those below which every answer was purged, confirmed."""

    def __init__(self, folder: Path, *, seed: int = 1, disk: str = "12MiB") -> None:
        self.report = Report()
        self._folder = folder
        self._chance = random.Random(seed)
        self._versions = [0] * PAGES
        self._confirmed = [0] * PAGES
        self._policy = folder / "policy.yaml"
        self._policy.write_text(POLICY.format(folder=folder, disk=disk))
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["edgeproxy.engine.serve"])
        (folder / "token").write_text(TOKEN)
        self._process: BaseProcess | None = None

    async def run(self, rounds: int, *, progress: Progress | None = None) -> Report:
        app = web.Application()
        app.router.add_get("/{page}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            origin = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            started_s = time.monotonic()
            for number in range(rounds):
                await self._round(origin)
                self.report.rounds += 1
                if progress is not None:
                    took_s = time.monotonic() - started_s
                    progress.tell(f"{number + 1}/{rounds}, {took_s:.0f} s: {self.report}")
        finally:
            await runner.cleanup()
            if progress is not None:
                progress.end()
        return self.report

    async def _answer(self, request: web.Request) -> web.Response:
        page = int(request.match_info["page"])
        body = body_of(page, self._versions[page])
        await asyncio.sleep(self._chance.random() * 0.01)
        return web.Response(body=body, content_type="text/plain")

    async def _round(self, origin: str) -> None:
        url = await asyncio.to_thread(self._born, origin)
        left = self._chance.randrange(30, 500)
        enough = asyncio.Event()

        def answered() -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                enough.set()

        people = [
            self._visit(url, self._chance.randrange(10**9), answered) for _ in range(VISITORS)
        ]
        tasks = [asyncio.ensure_future(one) for one in (*people, self._publish())]
        waiting = asyncio.ensure_future(enough.wait())
        await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED, timeout=60)
        waiting.cancel()
        await asyncio.sleep(self._chance.random() * 0.02)
        await asyncio.to_thread(self._killed)
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _born(self, origin: str) -> str:
        here, there = multiprocessing.Pipe()
        self._process = self._context.Process(
            target=serve, args=(str(self._policy), origin, there), daemon=True
        )
        self._process.start()
        there.close()
        url: str = here.recv()
        return url

    def _killed(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.join(10)
        assert self._process.exitcode == -SIGKILL, self._process.exitcode
        self._process.close()

    async def _visit(self, url: str, seed: int, answered: object) -> None:
        chance = random.Random(seed)
        async with aiohttp.ClientSession() as client:
            try:
                while True:
                    page = int(chance.paretovariate(0.4)) % PAGES
                    coding = chance.choice(["br", "gzip", "identity"])
                    floor = self._confirmed[page]
                    async with client.get(
                        f"{url}{page}", headers={"Accept-Encoding": coding}
                    ) as answer:
                        body = await answer.read()
                    self._check(page, floor, answer, body)
                    answered()  # type: ignore[operator]
            except (aiohttp.ClientError, OSError):
                self.report.broken_off += 1

    def _check(self, page: int, floor: int, answer: aiohttp.ClientResponse, body: bytes) -> None:
        report = self.report
        report.answers += 1
        verdict = answer.headers.get("Cache-Status", "")
        report.from_cache += "; hit" in verdict
        report.from_disk += "detail=disk" in verdict
        if answer.status != 200:
            report.refused.append(f"{page}: {answer.status}")
            return
        head, _, rest = body.partition(b"\n")
        words = head.split(b" ")
        if (
            len(words) != 3
            or words[0] != str(page).encode()
            or words[2] != hashlib.sha256(rest).hexdigest().encode()
        ):
            report.damaged.append(f"{page}: {verdict}")
        elif int(words[1]) < floor:
            report.resurrected.append(f"{page}: {int(words[1])} for {floor}, {verdict}")

    async def _publish(self) -> None:
        """New versions all the time, each followed by a purge of the page, now and then by one of
        the tag that all pages have."""
        connector = aiohttp.UnixConnector(str(self._folder / "admin.sock"))
        headers = {"Authorization": f"Bearer {TOKEN}", "Host": "edgeproxy"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as client:
            try:
                while True:
                    await asyncio.sleep(self._chance.random() * 0.02)
                    if self._chance.random() < 0.03:
                        pages = list(range(PAGES))
                        what: dict[str, object] = {"tags": ["site"]}
                    else:
                        pages = [int(self._chance.paretovariate(0.4)) % PAGES]
                        what = {"urls": [f"/{pages[0]}"]}
                    for page in pages:
                        self._versions[page] += 1
                    new = {page: self._versions[page] for page in pages}
                    async with client.post("http://edgeproxy/purge", json=what) as answer:
                        said = await answer.json()
                    assert answer.status == 200, said
                    assert not said["not_written_down_by"], said
                    self.report.purges += 1
                    for page, version in new.items():
                        self._confirmed[page] = max(self._confirmed[page], version)
            except (aiohttp.ClientError, OSError):
                pass


def serve(policy: str, origin: str, told: Connection) -> None:
    """One edgeproxy, until it is killed."""
    from edgeproxy.engine.listening import ListenAddress
    from edgeproxy.engine.serve import Server

    async def main() -> None:
        server = Server(
            [Path(policy)],
            [f"site={origin}"],
            listen=[ListenAddress("127.0.0.1")],
            access_log="off",
        )
        await server.start()
        told.send(server.urls[0])
        await asyncio.Event().wait()

    asyncio.run(main())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeproxy-soak-") as folder:
        soak = Soak(Path(folder), seed=options.seed)
        report = asyncio.run(soak.run(options.rounds, progress=Progress()))
    for line in (*report.damaged[:10], *report.resurrected[:10], *report.refused[:10]):
        print(line)
    return 0 if report.is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
