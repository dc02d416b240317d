"""Whoever is compared does the same work, and the load is what it says it is."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.bench import groups, mix
from tests.bench.agreement import Judge
from tests.bench.contest import warm_up
from tests.bench.contestants import DATABASE, EDGEPROXY, EDGEPROXY_CACHE, PEERS, Peer, configured
from tests.bench.curves import objects
from tests.bench.ground import Bench, prepared
from tests.bench.load import Asyncio, Load, Wrk, answered, answers, generator, opened
from tests.bench.processes import started

OPTIONS = argparse.Namespace(seconds=0.1, rounds=1, connections=2)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with prepared(OPTIONS) as bench:
        yield bench


@pytest.mark.parametrize("peer", [EDGEPROXY, *PEERS], ids=lambda peer: peer.name)
def test_contestants_do_what_the_policy_says(bench: Bench, peer: Peer) -> None:
    if peer.path is None:
        pytest.skip(f"{peer.program} is not installed")
    stream = mix.mixed(bench.networks, bench.published_s)
    one = configured(peer, bench.folder, stream, origin=bench.origin)
    one.warm_up = mix.every_copy([groups.IN_FRANCE, groups.IN_AMERICA])
    visitors = mix.visitors(bench.networks)
    requests = mix.asked(visitors, mix.agents(), bench.published_s, 200)
    with started(one.command, one.port, []):
        warm_up(one)
        Judge(bench.site, DATABASE, requests).prove(one)


def test_a_contestant_that_does_less_is_found_out(bench: Bench) -> None:
    stream = mix.mixed(bench.networks, bench.published_s)
    words = {"MEMORY": "1MiB", "DISK": "", "TTL": "1h"}
    one = configured(EDGEPROXY_CACHE, bench.folder, stream, origin=bench.origin, **words)
    requests = mix.asked(mix.visitors(bench.networks), mix.agents(), bench.published_s, 3)
    with started(one.command, one.port, []), pytest.raises(SystemExit, match="is '', not"):
        Judge(bench.site, DATABASE, requests).prove(one)


def test_pages_that_were_put_into_memory_are_hits(bench: Bench) -> None:
    one = objects(bench, bench.origin, 50)
    requests = [mix.get(f"/{number}") for number in range(50)]
    with started(one.command, one.port, []):
        found = asyncio.run(answers(one.port, requests))
    assert {answer.field("cache-status").rpartition("; ")[2] for answer in found} == {
        "detail=memory"
    }
    assert [answer.body.rstrip(b".") for answer in found] == [b"%d" % n for n in range(50)]


def test_connections_stay_open_after_their_answer(bench: Bench) -> None:
    port = int(bench.origin.rpartition(":")[2])
    held = opened(port, [mix.get("/page.html")], 3)
    for connection in held:
        connection.sendall(mix.get("/nothing.html"))
    assert [answered(connection) for connection in held] == [404, 404, 404]
    for connection in held:
        connection.close()


class Recorder:
    """Answers 304 to everything, on one connection after the other, and keeps what it was sent."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                connection, _ = self.listener.accept()
                with connection, suppress(OSError):  # the generator has left
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        head = b""
        with connection.makefile("rb") as lines:
            for line in lines:
                head += line
                if line == b"\r\n":
                    self.requests.append(head)
                    connection.sendall(b"HTTP/1.1 304 Not Modified\r\n\r\n")
                    head = b""


@pytest.mark.parametrize("load", [Wrk(), Asyncio()], ids=["wrk", "asyncio"])
def test_both_generators_send_the_same_requests(load: Load) -> None:
    if isinstance(load, Wrk) and not isinstance(generator(), Wrk):
        pytest.skip("wrk is not installed")
    stream = mix.Stream(
        [mix.get("/\2", "X-Forwarded-For: \1\r\n"), mix.get("/same")], ["192.0", "198.51"]
    )
    recorder, start = Recorder(), 3 << 32
    with recorder.listener:
        done = load.run(recorder.port, stream, start=start, seconds=1, connections=1)
    sent = recorder.requests
    assert done.requests > 100
    assert done.errors == 0
    assert 0 < done.p50_ms <= done.p99_ms
    at = next(index for index, raw in enumerate(sent) if raw.startswith(b"GET /1"))
    first = int(sent[at].split()[1][1:])
    assert first - start in (0, 2)  # wrk looks at the first request or two without sending them
    assert sent[at : at + 100] == list(itertools.islice(stream.sent(first), 100))
