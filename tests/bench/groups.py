"""What is compared with what. Each group is a function from a bench to a report."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from tests.bench import mix
from tests.bench.agreement import Judge
from tests.bench.contest import compete, show, warm_up
from tests.bench.contestants import (
    DATABASE,
    EDGEPROXY,
    EDGEPROXY_CACHE,
    EDGEPROXY_PASS,
    MITMPROXY_PASS,
    NGINX_PASS,
    PEERS,
    Contestant,
    Peer,
    configured,
    fault_of,
)
from tests.bench.ground import Bench
from tests.bench.load import answered, opened, send_all
from tests.bench.processes import NotStarted, free_port, held, memory_bytes, started, tree
from tests.bench.report import Report, row_of

IN_FRANCE, IN_AMERICA = "193.51.208.13", "8.8.8.8"
PROVEN_REQUESTS = 300
CONNECTIONS = 1000
OBJECTS, OBJECT_BYTES = 100_000, 10_000
HELD_TO = 0.4  # of a core, each worker


Group = Callable[[Bench], Report]


# ---------------------------------------------------------------- beside the peers


def mixed(bench: Bench) -> Report:
    title = "hits of visitors who come again, with country, split and header rules"
    return _hits(bench, Report("mixed", title), mix.mixed(bench.networks, bench.published_s))


def unseen(bench: Bench) -> Report:
    title = "the same, each request from an address and a browser not seen before"
    return _hits(bench, Report("unseen", title), mix.unseen(bench.networks, bench.published_s))


def _hits(bench: Bench, report: Report, stream: mix.Stream) -> Report:
    contestants = _of_the_policy(bench, report, stream)
    visitors = mix.visitors(bench.networks)
    requests = mix.asked(visitors, mix.agents(), bench.published_s, PROVEN_REQUESTS)
    judge = Judge(bench.site, DATABASE, requests)
    return _measured(bench, report, contestants, judge.prove)


def missing(bench: Bench) -> Report:
    title = "misses: each asks the origin, and what it answers is stored"
    report = Report("miss", title)
    contestants = _of_the_policy(bench, report, mix.missing(bench.networks, bench.published_s))
    return _measured(bench, report, contestants)


def passing(bench: Bench) -> Report:
    report = Report("pass", "each request goes through to the origin, and nothing is stored")
    stream = mix.passing(bench.networks, bench.published_s)
    peers = _installed(report, (NGINX_PASS, MITMPROXY_PASS))
    contestants = [configured(peer, bench.folder, stream, origin=bench.origin) for peer in peers]
    contestants += _edgeproxies(bench, report, EDGEPROXY_PASS, stream)
    return _measured(bench, report, contestants)


def _of_the_policy(bench: Bench, report: Report, stream: mix.Stream) -> list[Contestant]:
    """Every installed peer, and edgeproxy, with the policy of the mix."""
    contestants = [
        configured(peer, bench.folder, stream, origin=bench.origin)
        for peer in _installed(report, PEERS)
    ]
    contestants += _edgeproxies(bench, report, EDGEPROXY, stream)
    for one in contestants:
        one.warm_up = mix.every_copy([IN_FRANCE, IN_AMERICA])
        if one.lacks:
            report.notes.append(f"{one.name} does less: {one.lacks}")
    return contestants


def _installed(report: Report, peers: Sequence[Peer]) -> list[Peer]:
    for peer in peers:
        if peer.path is None:
            report.notes.append(f"not installed: {peer.name} ({peer.program})")
    return [peer for peer in peers if peer.path is not None]


def _edgeproxies(bench: Bench, report: Report, peer: Peer, stream: mix.Stream) -> list[Contestant]:
    """edgeproxy as it is, and without its accelerator if there is one."""
    one = configured(peer, bench.folder, stream, origin=bench.origin)
    off = _changed(bench, report, peer, stream, "accelerator: off")
    return [one, off] if off is not None else [one]


def _changed(
    bench: Bench, report: Report, peer: Peer, stream: mix.Stream, key: str
) -> Contestant | None:
    """edgeproxy with one more key in its policy; None, with the reason noted, if it knows none."""
    name = f"edgeproxy, {key}"
    one = configured(peer, bench.folder, stream, name=name, origin=bench.origin)
    policy = one.folder / peer.files[0]
    policy.write_text(f"{policy.read_text()}{key}\n")
    fault = fault_of(policy)
    if fault:
        report.notes.append(f"left out: {name}: {fault}")
        return None
    return one


def _measured(
    bench: Bench,
    report: Report,
    contestants: Sequence[Contestant],
    prove: Callable[[Contestant], None] = lambda one: None,
    *,
    settling: int = 1,
) -> Report:
    for name, reason in compete(bench, contestants, prove, settling=settling).items():
        report.notes.append(f"did not start: {name}: {reason.splitlines()[-1]}")
    report.rows = {one.name: row_of(one) for one in contestants if one.pid}
    return report


# ---------------------------------------------------------------- edgeproxy by itself


def cached(bench: Bench) -> Report:
    """256 URLs of one page, so that no two connections wait for the same revalidation."""
    page, file = "/page.html?n={}", "/file.bin"
    disk = 'disk: {path: "@FOLDER@/disk", max_size: 1GiB}'
    contestants = [
        _cache(bench, "memory", page),
        _cache(bench, "memory, 304", page, fields="If-None-Match: *\r\n", proof="304 Not Modified"),
        _cache(bench, "disk", page, MEMORY="1B", DISK=disk, proof="detail=disk"),
        _cache(bench, "revalidated", page, TTL="0s", proof="fwd=stale; fwd-status=304"),
        _cache(bench, "memory, file", file),
        _cache(bench, "disk, file", file, MEMORY="1B", DISK=disk, proof="detail=disk"),
    ]
    title = f"where answers come from: a page of {mix.PAGE_BYTES // 1000} KB, a file of 2 MB"
    return _measured(bench, Report("cache", title), contestants)


def _cache(
    bench: Bench,
    name: str,
    target: str,
    *,
    fields: str = "",
    proof: str = "detail=memory",
    **words: str,
) -> Contestant:
    requests = [mix.get(target.format(number), fields) for number in range(256)]
    words = {"MEMORY": "64MiB", "DISK": "", "TTL": "1h", **words}
    stream = mix.Stream(requests)
    one = configured(EDGEPROXY_CACHE, bench.folder, stream, name=name, origin=bench.origin, **words)
    one.warm_up, one.proof = [mix.get(target.format(number)) for number in range(256)], proof
    one.warm_up += requests[-1:]
    return one


def workers(bench: Bench, counts: Sequence[int] = (1, 2)) -> Report:
    """Where the load has no core to itself, each process is held to a share of one, so that all of
    them together leave the load what it needs. Each worker learns by itself what visitors are told,
    so that more rounds go by before it counts."""
    report = Report("workers", "the mixed load, by the number of workers")
    contestants = []
    for number in counts:
        stream = mix.mixed(bench.networks, bench.published_s)
        one = _changed(bench, report, EDGEPROXY, stream, f"workers: {number}")
        if one is not None:
            one.cores, one.warm_up = number, mix.every_copy([IN_FRANCE, IN_AMERICA])
            contestants.append(one)
    with ExitStack() as holds:

        def hold(one: Contestant) -> None:
            if len(bench.cores) <= max(counts):
                is_held = holds.enter_context(held(tree(one.pid), HELD_TO))
                what = f"held to {HELD_TO} of a core each" if is_held else "in the load's way"
                report.notes.append(f"{one.name}: its processes are {what}")

        return _measured(bench, report, contestants, hold, settling=4)


# ---------------------------------------------------------------- memory


def connections(bench: Bench, number: int = CONNECTIONS) -> Report:
    title = f"memory of {number:,} connections that were used once and stay open"
    report = Report("connections", title, with_ratio=("KB each",))
    for one in _of_the_policy(bench, report, mix.mixed(bench.networks, bench.published_s)):
        show(f"connections, {one.name}")
        try:
            with started(one.command, one.port, bench.proxy_cores()) as pid:
                warm_up(one)
                report.rows[one.name] = _held(one, pid, number)
        except NotStarted as error:
            report.notes.append(f"did not start: {one.name}: {str(error).splitlines()[-1]}")
    show("")
    return report


def _held(one: Contestant, pid: int, number: int) -> dict[str, float]:
    """Each connection asks once, and all at the same time once more when all are open."""
    before, requests, errors = memory_bytes(pid), one.stream.requests, 0
    held = opened(one.port, requests, number)
    grown = memory_bytes(pid) - before
    for connection in held:
        connection.sendall(requests[0])
    for connection in held:
        with connection:
            errors += not is_answered(connection)
    return {"KB each": grown / number / 1000, "MB": (before + grown) / 1e6, "errors": errors}


def is_answered(connection: socket.socket) -> bool:
    try:
        return answered(connection) < 400
    except (OSError, http.client.HTTPException):
        return False


def memory(bench: Bench, number: int = OBJECTS, size_bytes: int = OBJECT_BYTES) -> Report:
    """How much a running edgeproxy grows by objects that it fetches and keeps in memory."""
    title = f"memory of {number:,} stored objects of {size_bytes:,} bytes"
    report = Report("memory", title, with_ratio=())
    port = free_port()
    origin = numbered(port, size_bytes)
    words = {"MEMORY": f"{2 * number * size_bytes + 1_000_000}B", "DISK": "", "TTL": "1h"}
    where = f"127.0.0.1:{port}"
    stream = mix.Stream([b""])
    one = configured(EDGEPROXY_CACHE, bench.folder, stream, origin=where, **words)
    with ExitStack() as running:
        running.enter_context(started(origin, port, bench.cores[-1:]))
        pid = running.enter_context(started(one.command, one.port, bench.proxy_cores()))
        send_all(one.port, [mix.get(f"/{number + index}") for index in range(500)])
        before, held = memory_bytes(pid), _tier(one)
        for start in range(0, number, 1000):
            show(f"memory: {start:,} of {number:,} objects")
            chunk = range(start, min(number, start + 1000))
            send_all(one.port, [mix.get(f"/{index}") for index in chunk], bench.connections)
        grown, kept = memory_bytes(pid) - before, _tier(one)
    show("")
    bodies, tier = number * size_bytes, kept["bytes"] - held["bytes"]
    report.rows[one.name] = {
        "objects": kept["objects"] - held["objects"],
        "bodies MB": bodies / 1e6,
        "tier MB": tier / 1e6,
        "grown MB": grown / 1e6,
        "to bodies": grown / bodies,
        "to tier": grown / tier,
    }
    return report


def numbered(port: int, size_bytes: int) -> list[str]:
    """The command for an origin whose page /N is N, filled up to a size."""
    return [sys.executable, "-m", "tests.bench.origin", str(port), str(size_bytes)]


def _tier(one: Contestant) -> dict[str, int]:
    """What the memory tier says of itself."""
    access = ["--admin", f"unix:{one.folder}/admin.socket", "--token-file", f"{one.folder}/token"]
    command = [one.command[0], "cache", "stats", "--json", *access]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    told = json.loads(done.stdout)
    tier: dict[str, int] = next(tier for tier in told["tiers"] if tier["name"] == "memory")
    return tier
