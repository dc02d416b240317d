"""Keeping connections busy, with wrk where it is installed, else from here; and how it went."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.bench.mix import Stream

SCRIPT = Path(__file__).with_name("mix.lua")


@dataclass(frozen=True, slots=True)
class Round:
    """One round of load. Errors are statuses above 399 and connections that failed."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int = 0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


class Load(Protocol):
    name: str

    def run(
        self, port: int, stream: Stream, *, start: int, seconds: float, connections: int
    ) -> Round:
        """Send `stream` from request number `start` on, each connection one at a time."""
        ...


class Wrk:
    """A fast load generator in C: what it takes of the machine hides nothing."""

    name = "wrk"

    def run(
        self, port: int, stream: Stream, *, start: int, seconds: float, connections: int
    ) -> Round:
        with tempfile.TemporaryDirectory(prefix="edgeproxy-load-") as folder:
            requests, networks = Path(folder, "requests"), Path(folder, "networks")
            requests.write_bytes(b"\0".join(stream.requests))
            networks.write_text("\n".join(stream.networks))
            command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
            command += ["--timeout", "30s"]
            command += ["-s", str(SCRIPT), f"http://127.0.0.1:{port}/"]
            command += ["--", str(requests), str(networks), str(start)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"wrk failed:\n{done.stdout}{done.stderr}")
        return Round(**json.loads(done.stdout.strip().splitlines()[-1]))


class Asyncio:
    """The generator in Python, for machines without wrk. Its own ceiling is low; CPU time a
    request is measured as well with it as with any other."""

    name = "asyncio (wrk is not installed: rates are bounded by the generator)"

    def run(
        self, port: int, stream: Stream, *, start: int, seconds: float, connections: int
    ) -> Round:
        begin = time.monotonic()
        end = begin + seconds
        requests = itertools.takewhile(lambda _: time.monotonic() < end, stream.sent(start))
        answers = asyncio.run(_sent(port, requests, connections))
        latencies = sorted(latency_s * 1000 for latency_s, _ in answers)
        cuts = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else latencies * 99
        errors = sum(status > 399 for _, status in answers)
        return Round(len(answers), time.monotonic() - begin, cuts[49], cuts[98], errors)


def generator() -> Load:
    return Wrk() if shutil.which("wrk") else Asyncio()


def send_all(port: int, requests: Sequence[bytes], connections: int = 16) -> None:
    """Each of `requests` once. SystemExit if one of them is not answered well."""
    answers = asyncio.run(_sent(port, iter(requests), connections))
    bad = [status for _, status in answers if status > 399]
    if bad:
        raise SystemExit(f"port {port}: {len(bad)} of {len(answers)} answered {bad[0]}")


async def _sent(port: int, requests: Iterator[bytes], connections: int) -> list[tuple[float, int]]:
    """Latency in seconds and status of every answer."""
    answers: list[tuple[float, int]] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for raw in requests:
            begin = time.perf_counter()
            writer.write(raw)
            answer = await answer_from(reader)
            answers.append((time.perf_counter() - begin, answer.status))
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return answers


async def answers(port: int, requests: Sequence[bytes]) -> list[Answer]:
    """The answers to `requests`, sent one after the other on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = []
    for raw in requests:
        writer.write(raw)
        found.append(await answer_from(reader))
    writer.close()
    return found


def opened(port: int, requests: Sequence[bytes], number: int) -> list[socket.socket]:
    """So many connections, on each of which one of `requests` has been answered."""
    found = []
    for index in range(number):
        found.append(socket.create_connection(("127.0.0.1", port), timeout=60))
        found[-1].sendall(requests[index % len(requests)])
        answered(found[-1])
    return found


def answered(connection: socket.socket) -> int:
    """The status of the next answer on a connection. OSError or HTTPException if there is none."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        response.read()
        return response.status


@dataclass(frozen=True, slots=True)
class Answer:
    head: str
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head[9:12])

    def field(self, name: str) -> str:
        """The value of the first header field of that name; empty if there is none."""
        start = f"{name}: "
        lines = (line for line in self.head.split("\r\n") if line.lower().startswith(start))
        return next(lines, "")[len(start) :]


async def answer_from(reader: asyncio.StreamReader) -> Answer:
    """The next answer to a GET, whose body must have a stated length or be chunked."""
    answer = Answer((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"), b"")
    if answer.status in (204, 304):
        return answer
    if answer.field("transfer-encoding") == "chunked":
        return Answer(answer.head, b"".join([chunk async for chunk in _chunks(reader)]))
    return Answer(answer.head, await reader.readexactly(int(answer.field("content-length"))))


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
