"""edgeproxy for a long time under mixed load, before an origin that fails now and then.

`make soak MINUTES=30`. A child process serves a site from memory and disk. Visitors ask for pages
by Zipf: whole, by HEAD, by range and by condition. Somebody publishes, purges, invalidates and
reloads. The origin is slow, resets, stalls, cuts off, answers 5xx and 429, and goes away.

- wrong: bytes that no publish ever had, that were purged, or that were replaced too long ago;
- unexpected: a status that nothing explains, such as a 502 while all is well;
- unanswered: an error though a copy must have been stored.

None may happen, and the child's memory and descriptors must not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from edgeproxy.pages import Fault, Pages  # noqa: E402
from tests.soak.progress import Progress  # noqa: E402

PAGES = 600
VISITORS = 8
TTL_S, REVALIDATE_S = 5.0, 5.0
SLACK_S = 3.0
"""For a machine that is busy: how late an answer may get to the visitor."""
RECOVERY_S = 12.0
"""After a fault, edgeproxy may leave the origin alone for a while."""
QUIET_S, FAULT_S = 40.0, 10.0
TOKEN = "a token for this test alone"
POLICY = """\
version: 1
admin: {{listen: "unix:{folder}/admin.sock", token: "${{file:{folder}/token}}"}}
origins:
  site:
    url: http://site.example/
    first_byte_timeout: 2s
    idle_timeout: 2s
    total_timeout: 10s
cache:
  memory: {{max_size: 6MiB}}
  disk: {{path: "{folder}/cache", max_size: 256MiB}}
  max_object_size: 1MiB
  encodings: [br]
  rules:
    all:
      ttl: {ttl:g}s
      status_ttl: {{404: 2s}}
      stale_while_revalidate: {revalidate:g}s
      stale_if_error: 1d
      tags: [site]
routes: [{{name: site, cache: all}}]
"""
FAULTS: dict[str, Fault | None] = {
    "stopped": None,
    "slow": Fault(delay_s=0.7),
    "too slow": Fault(delay_s=5),
    "reset": Fault(reset=True),
    "reset in the body": Fault(reset_after_bytes=700),
    "503": Fault(status=503, retry_after=3),
    "500": Fault(status=500),
    "429": Fault(status=429, retry_after=5),
    "stall": Fault(stall=True),
    "cut off": Fault(cut_after_bytes=300),
    "drip": Fault(drip_bytes_per_s=20_000),
    "length": Fault(content_length_delta=10),
}


@lru_cache(maxsize=256)
def body_of(page: int, generation: int) -> bytes:
    """What a page said at a time: it names itself. Some are too large to be held back until they
    are whole, and a few are too large to be kept in one piece."""
    chance = random.Random(page * 1_000_003 + generation)
    sizes = {7: (270_000, 500_000), 27: (1_200_000, 2_500_000)}
    size = chance.randrange(*sizes.get(page % 40, (200, 40_000)))
    return b"%d %d\n" % (page, generation) + chance.randbytes(size // 2).hex().encode()


@dataclass
class State:
    """A page between two publishes: its generation and digest, None while it is gone."""

    page: int
    generation: int | None
    digest: bytes = b""
    replaced_at_s: float = float("inf")

    @property
    def body(self) -> bytes:
        return b"" if self.generation is None else body_of(self.page, self.generation)


@dataclass
class Sample:
    at_s: float
    rss_kib: int
    descriptors: int


@dataclass
class Report:
    """What was seen. The lists hold a line for each thing that must not be."""

    answers: Counter[str] = field(default_factory=Counter)  # by kind and status
    verdicts: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    broken_off: int = 0  # large bodies whose rest the origin never sent, or has changed
    errors: int = 0  # 502, 503, 504 while something was wrong
    wrong: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def growth(self) -> list[str]:
        """Why memory or descriptors are not bounded; the first quarter is the warm-up."""
        quarter = len(self.samples) // 4
        if quarter < 5:
            return []
        second, last = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        faults = []
        before, after = (statistics.median(s.rss_kib for s in part) for part in (second, last))
        if after > 1.15 * before + 10 * 1024:
            faults.append(f"memory grows: from {before / 1024:.0f} to {after / 1024:.0f} MiB")
        before, after = (statistics.median(s.descriptors for s in part) for part in (second, last))
        if after > before + 20:
            faults.append(f"descriptors grow: from {before:.0f} to {after:.0f}")
        return faults

    @property
    def is_good(self) -> bool:
        return not (self.wrong or self.unexpected or self.unanswered or self.growth())

    def __str__(self) -> str:
        last = self.samples[-1] if self.samples else Sample(0, 0, 0)
        return (
            f"{self.answers.total()} answers, {self.errors} errors, {self.broken_off} broken off; "
            f"wrong {len(self.wrong)}, unexpected {len(self.unexpected)}, unanswered "
            f"{len(self.unanswered)}; {last.rss_kib / 1024:.0f} MiB, {last.descriptors} descriptors"
        )

    def summary(self) -> str:
        lines = [str(self)]
        for title, counts in (
            ("answers", self.answers), ("Cache-Status", self.verdicts), ("events", self.events)
        ):  # fmt: skip
            lines.append(f"{title}: " + ", ".join(f"{k} {n}" for k, n in counts.most_common()))
        if self.samples:
            rss = [sample.rss_kib / 1024 for sample in self.samples]
            quarter = max(1, len(rss) // 4)
            medians = ", ".join(
                f"{statistics.median(rss[at : at + quarter]):.1f}"
                for at in range(0, 4 * quarter, quarter)
                if rss[at : at + quarter]
            )
            most = max(sample.descriptors for sample in self.samples)
            lines.append(
                f"memory: {medians} MiB (medians of quarters), at most {max(rss):.1f} MiB; "
                f"descriptors: at most {most}"
            )
        return "\n".join(lines)


class Site:
    """The truth: what each page has said and since when."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self._chance = chance
        folder.mkdir()
        self.states = [[self._write(page, 0)] for page in range(PAGES)]
        self.floors = [0] * PAGES  # what is older was purged, confirmed

    def _write(self, page: int, generation: int | None) -> State:
        path = self.folder / f"p{page}.txt"
        if generation is None:
            path.unlink(missing_ok=True)
            return State(page, None)
        body = body_of(page, generation)
        path.write_bytes(body)
        return State(page, generation, hashlib.sha256(body).digest())

    def publish(self) -> list[int]:
        """Change some pages, take some away, bring back what was; which."""
        changed = self._chance.sample(range(PAGES), PAGES // 12)
        now_s = time.monotonic()
        for page in changed:
            states = self.states[page]
            gone = states[-1].generation is not None and self._chance.random() < 0.1
            states[-1].replaced_at_s = now_s
            states.append(self._write(page, None if gone else len(states)))
        return changed

    def allowed(self, page: int, since_s: float, floor: int) -> list[State]:
        """What may be answered still: what is not purged, nor replaced before `since_s`."""
        states = self.states[page][floor:]
        return [state for state in states if state.replaced_at_s >= since_s]


class Soak:
    """The child, its origin, its visitors, and all who interfere."""

    def __init__(self, folder: Path, *, rate: float, seed: int) -> None:
        self.report = Report()
        self._folder = folder
        self._rate = rate
        self._chance = random.Random(seed)
        self._site = Site(folder / "site", self._chance)
        self._pages = Pages(folder / "site")
        self._fault = ""
        self._fault_until_s = 0.0  # when the last one ended
        self._etags: dict[tuple[int, str], deque[tuple[str, State]]] = {}
        self._kept: set[tuple[int, str]] = set()  # what must be stored, by page and coding
        self._purges = 0
        self._url = ""
        self._child: asyncio.subprocess.Process | None = None
        weights = [1 / (rank + 1) for rank in range(PAGES)]
        self._weights = list(itertools.accumulate(weights))

    async def run(self, minutes: float, progress: Progress) -> Report:
        (self._folder / "token").write_text(TOKEN)
        (self._folder / "token").chmod(0o600)
        self._write_policy(TTL_S)
        until_s = time.monotonic() + minutes * 60
        async with self._pages:
            await self._start()
            work = [
                *(self._visit(number) for number in range(VISITORS)),
                self._publish(), self._mark(), self._reload(), self._fail(),
                self._watch(until_s, progress),
            ]  # fmt: skip
            tasks = [asyncio.ensure_future(one) for one in work]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._stop()
            for task in done:
                task.result()
        return self.report

    # ------------------------------------------------------------ the child

    def _write_policy(self, ttl_s: float) -> None:
        text = POLICY.format(folder=self._folder, ttl=ttl_s, revalidate=REVALIDATE_S)
        (self._folder / "policy.yaml").write_text(text)

    async def _start(self) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
        with (self._folder / "edgeproxy.log").open("wb") as log:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "edgeproxy", "run", str(self._folder / "policy.yaml"),
                "--origin", f"site={self._pages.url}", "--listen", "127.0.0.1:0",
                "--access-log", "off", "--log-level", "WARNING",
                stdout=asyncio.subprocess.PIPE, stderr=log,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        assert self._child.stdout is not None
        said = (await asyncio.wait_for(self._child.stdout.readline(), 60)).decode()
        found = re.search(r"serves (\S+)", said)
        if found is None:
            raise RuntimeError((self._folder / "edgeproxy.log").read_text() or said)
        self._url = found[1]

    async def _stop(self) -> None:
        child = self._child
        assert child is not None
        if child.returncode is None:
            child.terminate()
        try:
            status = await asyncio.wait_for(child.wait(), 30)
        except TimeoutError:
            child.kill()
            status = await child.wait()
        if status != 0:
            self.report.unexpected.append(f"edgeproxy ended with {status}")
        log = (self._folder / "edgeproxy.log").read_text()
        for line in log.splitlines():
            if "Traceback" in line:
                self.report.unexpected.append(f"its log has a traceback:\n{log[-3000:]}")
                break

    # ------------------------------------------------------------ visitors

    async def _visit(self, number: int) -> None:
        chance = random.Random(self._chance.randrange(10**9) + number)
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            while True:
                await asyncio.sleep(chance.expovariate(self._rate / VISITORS))
                if chance.random() < 0.03:
                    page = PAGES + chance.randrange(50)  # what never was
                else:
                    page = chance.choices(range(PAGES), cum_weights=self._weights)[0]
                await self._ask(client, chance, page)

    async def _ask(self, client: aiohttp.ClientSession, chance: random.Random, page: int) -> None:
        kind = chance.choices(["get", "head", "if", "range"], [70, 8, 12, 10])[0]
        coding = "identity" if kind == "range" else chance.choice(["identity", "gzip", "br, gzip"])
        headers = {"Accept-Encoding": coding}
        known: dict[str, State] = {}
        if kind == "if":
            known = dict(self._etags.get((page, coding), ()))
            if known:
                headers["If-None-Match"] = chance.choice(list(known))
        elif kind == "range":
            first = int(chance.paretovariate(0.3)) % 60_000
            headers["Range"] = chance.choice(
                [f"bytes={first}-", f"bytes={first}-{first + 500}", f"bytes=-{first + 1}"]
            )
        started_s, purges, fault = time.monotonic(), self._purges, self._fault
        publishes = self.report.events["publishes"]
        floor = self._site.floors[page] if page < PAGES else 0
        must_be_stored = (page, coding) in self._kept
        method = "HEAD" if kind == "head" else "GET"
        url = f"{self._url}p{page}.txt"
        try:
            async with client.request(method, url, headers=headers) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            is_cut = isinstance(error, aiohttp.ClientPayloadError)
            is_new = kind == "range" and self.report.events["publishes"] > publishes
            if is_cut and (is_new or self._may_fail(started_s)):
                self.report.broken_off += 1
            else:
                self.report.unexpected.append(f"{kind} p{page}: {error!r}{self._now()}")
            return
        report = self.report
        report.answers[f"{kind} {answer.status}"] += 1
        verdict = answer.headers.get("Cache-Status", "")
        report.verdicts[re.sub(r"[=; ]*(ttl=[-\d]+|key=\S+)", "", verdict)] += 1
        said = f"{kind} p{page} ({coding}): {answer.status}, {verdict}{self._now()}"
        # What the origin says, 429 or 500, is passed on; a 500 of edgeproxy's own never is right.
        is_passed_on = f"fwd-status={answer.status}" in verdict and answer.status in (429, 500)
        if answer.status in (502, 503, 504) or is_passed_on:
            if not self._may_fail(started_s):
                report.unexpected.append(said)
            elif must_be_stored and purges == self._purges:
                report.unanswered.append(said)
            else:
                report.errors += 1
            return
        if "length" in (fault, self._fault) and (kind == "head" or answer.status == 206):
            return  # the length that the origin states, before its body can prove it wrong
        window_s = TTL_S + REVALIDATE_S + SLACK_S
        since_s = float("-inf") if self._may_fail(started_s - window_s) else started_s - window_s
        allowed = self._site.allowed(page, since_s, floor) if page < PAGES else [State(page, None)]
        state = self._explained(kind, answer, body, headers, allowed, known)
        if isinstance(state, str):
            (report.wrong if answer.status in (200, 206, 304) else report.unexpected).append(
                f"{said}: {state}"
            )
        elif answer.status == 200 and kind in ("get", "if") and purges == self._purges:
            if "too_large" not in verdict:
                self._kept.add((page, coding))
            if etag := answer.headers.get("ETag"):
                self._etags.setdefault((page, coding), deque(maxlen=4)).append((etag, state))

    def _explained(
        self,
        kind: str,
        answer: aiohttp.ClientResponse,
        body: bytes,
        headers: dict[str, str],
        allowed: list[State],
        known: dict[str, State],
    ) -> State | str:
        """The state of the page that this answer shows, or what is wrong with it."""
        bodies = [state for state in allowed if state.generation is not None]
        match answer.status:
            case 404:
                gone = [state for state in allowed if state.generation is None]
                return gone[0] if gone else "it was not gone"
            case 304:
                state = known.get(headers.get("If-None-Match", ""))
                is_good = state is not None and any(state is one for one in allowed)
                return state if is_good and state is not None else "it has changed since"
            case 200 if kind == "head":
                length = answer.headers.get("Content-Length")
                if answer.headers.get("Content-Encoding") or length is None:
                    return bodies[0] if bodies else "it is gone"
                fits = [s for s in bodies if len(s.body) == int(length)]
                return fits[0] if fits else f"its length is not {length}"
            case 200:
                digest = hashlib.sha256(body).digest()
                fits = [state for state in bodies if state.digest == digest]
                return fits[0] if fits else f"not these bytes: {body[:20]!r}, {len(body)} of them"
            case 206:
                return self._slice_of(answer, body, bodies)
            case 416:
                total = answer.headers.get("Content-Range", "").rpartition("/")[2]
                fits = [s for s in bodies if total == str(len(s.body))]
                return fits[0] if fits else f"no state has {total!r} bytes"
        return "no such answer was to be expected"

    def _slice_of(
        self, answer: aiohttp.ClientResponse, body: bytes, bodies: list[State]
    ) -> State | str:
        stated = answer.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", stated)
        if found is None:
            return f"Content-Range is {stated!r}"
        first, last, total = map(int, found.groups())
        for state in bodies:
            whole = state.body
            if len(whole) == total and whole[first : last + 1] == body:
                return state
        return f"not these bytes: {stated}, {len(body)} of them"

    def _may_fail(self, since_s: float) -> bool:
        """Whether something has been wrong since then, or edgeproxy may not know yet it is over."""
        return bool(self._fault) or since_s < self._fault_until_s + RECOVERY_S

    def _now(self) -> str:
        return f" ({self._fault or 'all is well'})"

    # ------------------------------------------------------------ who interferes

    async def _publish(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(5, 15))
            changed = self._site.publish()
            self._pages.publish()
            self._kept -= {one for one in self._kept if one[0] in set(changed)}
            self.report.events["publishes"] += 1

    async def _mark(self) -> None:
        connector = aiohttp.UnixConnector(str(self._folder / "admin.sock"))
        headers = {"Authorization": f"Bearer {TOKEN}", "Host": "edgeproxy"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as client:
            while True:
                await asyncio.sleep(self._chance.uniform(2, 6))
                verb = self._chance.choice(["purge", "purge", "invalidate"])
                page = self._chance.choices(range(PAGES), cum_weights=self._weights)[0]
                what, covered = self._chance.choices(
                    [
                        ({"urls": [f"/p{page}.txt"]}, [page]),
                        ({"prefixes": [f"/p{page}.txt"]}, [page]),
                        ({"tags": ["site"]}, list(range(PAGES))),
                        ({"everything": True}, list(range(PAGES))),
                    ],
                    [20, 10, 2, 1],
                )[0]
                if verb == "purge":
                    self._purges += 1
                    self._kept -= {one for one in self._kept if one[0] in set(covered)}
                floors = {page: len(self._site.states[page]) - 1 for page in covered}
                async with client.post(f"http://edgeproxy/{verb}", json=what) as answer:
                    said = await answer.json()
                if answer.status != 200 or said["not_written_down_by"]:
                    self.report.unexpected.append(f"{verb} {what}: {answer.status} {said}")
                elif verb == "purge":
                    self._purges += 1
                    # What was answered before it was in force does not count as kept either.
                    self._kept -= {one for one in self._kept if one[0] in set(covered)}
                    for page, floor in floors.items():
                        self._site.floors[page] = max(self._site.floors[page], floor)
                self.report.events[f"{verb}s of {next(iter(what))}"] += 1

    async def _reload(self) -> None:
        for ttl_s in itertools.cycle([TTL_S - 1, TTL_S]):
            await asyncio.sleep(self._chance.uniform(10, 30))
            self._write_policy(ttl_s)
            assert self._child is not None
            self._child.send_signal(signal.SIGHUP)
            self.report.events["reloads"] += 1

    async def _fail(self) -> None:
        while True:
            names = list(FAULTS)
            self._chance.shuffle(names)
            for name in names:
                await asyncio.sleep(self._chance.uniform(0.5, 1.5) * QUIET_S)
                self._fault = name
                self.report.events[name] += 1
                fault = FAULTS[name]
                if fault is None:
                    await self._pages.stop()
                else:
                    self._pages.set_fault(self._chance.choice(["/**", "/p1*", "/p*7.txt"]), fault)
                await asyncio.sleep(FAULT_S)
                if fault is None:
                    await self._pages.start()
                self._pages.clear_faults()
                self._fault_until_s, self._fault = time.monotonic(), ""

    async def _watch(self, until_s: float, progress: Progress) -> None:
        assert self._child is not None
        started_s = time.monotonic()
        while True:
            await asyncio.sleep(1)
            if self._child.returncode is not None:
                return
            self.report.samples.append(sample_of(self._child.pid, time.monotonic() - started_s))
            took_s = time.monotonic() - started_s
            progress.tell(f"{took_s:.0f} s{self._now()}: {self.report}")
            if time.monotonic() >= until_s:
                return


def sample_of(pid: int, at_s: float) -> Sample:
    """Resident memory and open descriptors of a process (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    with contextlib.suppress(OSError):
        return Sample(at_s, int(found[1]) if found else 0, len(os.listdir(f"/proc/{pid}/fd")))
    return Sample(at_s, 0, 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeproxy-soak-") as folder:
        soak = Soak(Path(folder), rate=options.rate, seed=options.seed)
        progress = Progress()
        report = asyncio.run(soak.run(options.minutes, progress))
    progress.end()
    print(report.summary())
    for name in ("wrong", "unexpected", "unanswered"):
        for line in getattr(report, name)[:10]:
            print(f"{name}: {line}")
    for line in report.growth():
        print(line)
    print("good" if report.is_good else "not good")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
