"""Benchmarks: what a request costs, side by side with plain mitmproxy in one run (`make bench`).

Each contestant runs alone on one core, the load comes from another process. Rounds go A B A B, so
that a machine whose speed drifts does not favour anybody; medians and ratios are what counts. CPU
time is read from the system, so that the load generator's own ceiling hides nothing (Linux only;
elsewhere the column is empty).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent
PAGE = b"<!doctype html><title>bench</title>" + b"<p>All happy pages are alike.</p>\n" * 300
FILE = bytes(range(256)) * 8192  # 2 MiB: on disk it is a file of its own, and stays there

HIT_POLICY = """\
version: 1
trusted_proxies: [127.0.0.1/32]
origins: {{site: {{url: "{origin}"}}}}
experiments: {{hero: {{weights: {{control: 50, bold: 50}}}}}}
cache: {{rules: {{html: {{ttl: 1h}}}}}}
routes:
  - name: site
    match: {{path: /**, method: [GET, HEAD]}}
    experiment: hero
    response_headers: {{set: {{x-country: "${{geo.country}}", x-frame-options: DENY}}}}
    cache: html
"""
CACHE_POLICY = """\
version: 1
origins: {{site: {{url: "{origin}"}}}}
cache:
  memory: {{max_size: {memory}}}
  {disk}
  rules: {{all: {{ttl: {ttl}}}}}
routes: [{{name: site, cache: all}}]
"""
PASS_POLICY = """\
version: 1
origins: {{site: {{url: "{origin}"}}}}
routes: [{{name: site, cache: false}}]
"""
SCRIPT = """\
from mitmproxy import http

PAGE = {page!r}


def request(flow):
    flow.response = http.Response.make(200, PAGE, {{"content-type": "text/html"}})
"""


@dataclass
class Contestant:
    """A proxy under test: its command line, and what was measured of it."""

    name: str
    command: list[str]
    port: int
    target: str = "/page.html"
    fields: str = ""  # of the request, besides the usual ones
    status: int = 200  # of every answer
    pid: int = 0
    rates: list[float] = field(default_factory=list)  # requests a second
    costs_us: list[float] = field(default_factory=list)  # CPU microseconds a request


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_s(pid: int) -> float:
    """CPU seconds that the process has used so far; NaN where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def started(command: list[str], port: int, cpu: int | None) -> Iterator[int]:
    """The process, once it answers on `port`; ended afterwards."""
    pin = ["taskset", "-c", str(cpu)] if cpu is not None and shutil.which("taskset") else []
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*pin, *command], stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        output.seek(0)
                        raise SystemExit(output.read().decode()) from None
                    time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()
            process.wait(10)


async def load(one: Contestant, seconds: float, connections: int) -> int:
    """Keep `connections` busy with GETs for that long; the number of whole answers."""
    port = one.port
    request = (
        f"GET {one.target} HTTP/1.1\r\nHost: edge.test\r\nAccept: text/html\r\n"
        "Accept-Language: en\r\nUser-Agent: bench\r\nX-Forwarded-For: 193.51.208.13\r\n"
        f"Cookie: ep_hero=bold\r\n{one.fields}\r\n"
    ).encode()
    end = time.monotonic() + seconds
    done = 0

    async def client() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 %d" % one.status):
                raise SystemExit(f"unexpected answer:\n{head.decode('latin-1')}")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            done += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return done


def measure(contestant: Contestant, seconds: float, connections: int) -> None:
    """One round."""
    cpu = cpu_s(contestant.pid)
    begin = time.monotonic()
    done = asyncio.run(load(contestant, seconds, connections))
    contestant.rates.append(done / (time.monotonic() - begin))
    contestant.costs_us.append((cpu_s(contestant.pid) - cpu) / done * 1e6)


def contestants(folder: Path, origin: str) -> list[tuple[str, list[Contestant]]]:
    """Groups of contestants that do the same work; the first of each is the yardstick."""
    (folder / "hit.yaml").write_text(HIT_POLICY.format(origin=origin))
    (folder / "pass.yaml").write_text(PASS_POLICY.format(origin=origin))
    (folder / "answer.py").write_text(SCRIPT.format(page=PAGE))

    def mitmdump(*more: str) -> tuple[list[str], int]:
        port = free_port()
        mode = f"reverse:{origin.rstrip('/')}@127.0.0.1:{port}"
        quiet = ["-q", "--set", "flow_detail=0"]
        return [str(BIN / "mitmdump"), *quiet, "--mode", mode, *more], port

    def edgeproxy(policy: str) -> tuple[list[str], int]:
        port = free_port()
        where = ["--listen", f"127.0.0.1:{port}", "--access-log", "off"]
        return [str(BIN / "edgeproxy"), "run", str(folder / policy), *where], port

    def cached(name: str, *, memory: str = "64MiB", disk: bool = False, ttl: str = "1h") -> str:
        below = f'disk: {{path: "{folder}/{name}"}}' if disk else ""
        text = CACHE_POLICY.format(origin=origin, memory=memory, disk=below, ttl=ttl)
        (folder / f"{name}.yaml").write_text(text)
        return f"{name}.yaml"

    return [
        (
            "pass: every request goes to the origin",
            [
                Contestant("mitmdump, reverse", *mitmdump()),
                Contestant("edgeproxy, cache: false", *edgeproxy("pass.yaml")),
            ],
        ),
        (
            "hit: answered without the origin",
            [
                Contestant("mitmdump, script", *mitmdump("-s", str(folder / "answer.py"))),
                Contestant("edgeproxy, geo+split+headers", *edgeproxy("hit.yaml")),
            ],
        ),
        (
            f"the cache: a page of {len(PAGE) // 1000} KB, a file of {len(FILE) // 1000} KB",
            [
                Contestant("hit in memory", *edgeproxy(cached("memory"))),
                Contestant(
                    "hit in memory, 304",
                    *edgeproxy(cached("not-modified")),
                    fields="If-None-Match: *\r\n",
                    status=304,
                ),
                Contestant("hit on disk", *edgeproxy(cached("disk", memory="1B", disk=True))),
                Contestant(
                    "revalidated with the origin", *edgeproxy(cached("revalidated", ttl="0s"))
                ),
                Contestant(
                    "hit in memory, the file",
                    *edgeproxy(cached("memory-file")),
                    target="/file.bin",
                ),
                Contestant(
                    "hit on disk, the file",
                    *edgeproxy(cached("disk-file", memory="1B", disk=True)),
                    target="/file.bin",
                ),
            ],
        ),
    ]


def report(title: str, group: list[Contestant]) -> None:
    base_rate = statistics.median(group[0].rates)
    base_cost = statistics.median(group[0].costs_us)
    print(f"\n{title}")
    print(f"  {'':32} {'req/s':>8} {'ratio':>6} {'CPU us':>8} {'ratio':>6}")
    for one in group:
        rate, cost = statistics.median(one.rates), statistics.median(one.costs_us)
        print(
            f"  {one.name:32} {rate:8.0f} {rate / base_rate:6.2f} {cost:8.0f} "
            f"{cost / base_cost:6.2f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    proxy_core = cores[0] if len(cores) > 1 else None
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[-1]})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeproxy-bench-")))
        (folder / "site").mkdir()
        (folder / "site" / "page.html").write_bytes(PAGE)
        (folder / "site" / "file.bin").write_bytes(FILE)
        port = free_port()
        pages = [str(BIN / "edgeproxy"), "pages", str(folder / "site")]
        stack.enter_context(started([*pages, "--listen", f"127.0.0.1:{port}"], port, cores[-1]))
        for title, group in contestants(folder, f"http://127.0.0.1:{port}/"):
            with ExitStack() as running:
                for one in group:
                    one.pid = running.enter_context(started(one.command, one.port, proxy_core))
                    status, one.status = one.status, 200
                    fields, one.fields = one.fields, ""
                    asyncio.run(load(one, 1.0, options.connections))  # warm up
                    one.status, one.fields = status, fields
                for number in range(options.rounds):
                    for one in group:
                        print(f"\r{title}: round {number + 1}, {one.name:40}", end="", flush=True)
                        measure(one, options.seconds, options.connections)
            print("\r" + " " * 100, end="\r")
            report(title, group)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
