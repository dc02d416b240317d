"""A worker that dies, refuses or is told to end takes no other's requests along."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import pytest

from tests.journeys.conftest import Child
from tests.journeys.crew import (
    POLICY,
    RUN,
    TOKEN,
    Crew,
    Visitor,
    admin,
    by_worker,
    visitors,
    write,
)

ONCE = """\
import os
from edgeproxy.api import Config, Plugin as Base, hookimpl

class Once(Config):
    file: str = ""

class Plugin(Base):
    '''Starts in one process only.'''
    Config = Once

    @hookimpl
    def startup(self):
        if self.config.file:
            os.close(os.open(self.config.file, os.O_CREAT | os.O_EXCL))
"""


@pytest.fixture
def once(install: Any) -> dict[str, str]:
    """An environment with a plugin `acme_once`."""
    return {"PYTHONPATH": str(install("acme_once", ONCE))}


async def test_one_worker_that_refuses_keeps_a_policy_from_all(
    crew: Crew, tmp_path: Path, once: dict[str, str]
) -> None:
    text = "plugins: [acme_once]\n" + POLICY
    proxy = await crew.serve(text=text, env=once)
    async with visitors(proxy) as found:
        assert len(await by_worker(proxy, found)) == 2
        write(tmp_path, "other", text=f"acme_once: {{{{file: {tmp_path}/taken}}}}\n" + text)
        status, answer = await admin(tmp_path, "/policy/reload")
        assert (status, answer["error"]["code"]) == (409, "policy-faults")
        assert "File exists" in answer["error"]["message"]
        assert {(await visitor.get("/hello"))[0] for visitor in found} == {"WORD"}
        # And that was no end of it.
        write(tmp_path, "other", text=text)
        status, answer = await admin(tmp_path, "/policy/reload")
        assert status == 200
        assert {(await visitor.get("/hello"))[0] for visitor in found} == {"other"}


async def test_faults_at_the_start_are_told_once(
    edgeproxy_run: Any, tmp_path: Path, once: dict[str, str]
) -> None:
    text = f"plugins: [acme_once]\nacme_once: {{{{file: {tmp_path}/taken}}}}\n" + POLICY
    process = await asyncio.create_subprocess_exec(
        *RUN, str(write(tmp_path, text=text)), "--listen", "127.0.0.1:0",
        env={**os.environ, "EDGEPROXY_TOKEN": TOKEN, **once},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, said = await process.communicate()
    assert process.returncode == 2
    assert out == b""
    assert said.splitlines()[-1].startswith(b"plugin 'acme_once' failed in startup: FileExists")
    assert b"Traceback" not in said


# ------------------------------------------------------------------------ one of them dies


async def test_a_worker_that_is_killed_takes_only_its_own_requests_along(crew: Crew) -> None:
    proxy = await crew.serve(disk=True)
    victim, survivor = proxy.workers()
    async with visitors(proxy) as found, visitors(proxy, 4) as others:
        groups = await by_worker(proxy, found)
        assert len(groups) == 2
        await others[0].get("/stored")
        crew.origin.gate.clear()
        asked = crew.origin.asked.total()
        asking = {
            visitor: asyncio.ensure_future(visitor.get(f"/page{number}"))
            for number, visitor in enumerate(found)
        }
        await crew.origin.has_been_asked(asked + len(found))
        os.kill(victim, SIGKILL)
        await proxy.said(lambda line: "was killed by SIGKILL; another begins in 0.1 s" in line)
        crew.origin.gate.set()
        await asyncio.wait(asking.values())
        lost = {visitor for visitor, answer in asking.items() if answer.exception() is not None}
        assert lost in [set(group) for group in groups.values()]
    await replaced(proxy, survivor)
    async with visitors(proxy, 32) as found:
        assert len(await by_worker(proxy, found)) == 2
        for visitor in found:
            assert "; hit" in (await visitor.get("/stored"))[1]["cache-status"]
    assert crew.origin.asked["/stored"] == 1


async def replaced(proxy: Child, survivor: int) -> None:
    """Return when there are two workers that serve again."""
    async with asyncio.timeout(40):
        while True:
            status, answer = await admin(proxy_folder(proxy), "/health")
            workers = answer["workers"]
            if status == 200 and len(workers) == 2:
                assert survivor in [worker["process"] for worker in workers]
                return
            await asyncio.sleep(0.05)


def proxy_folder(proxy: Child) -> Path:
    arguments = Path(f"/proc/{proxy.process.pid}/cmdline").read_text().split("\0")
    return Path(next(one for one in arguments if one.endswith("policy.yaml"))).parent


async def test_one_that_fetches_for_all_and_dies_is_stood_in_for(crew: Crew) -> None:
    proxy = await crew.serve()
    async with visitors(proxy) as found:
        groups = list((await by_worker(proxy, found)).values())
        assert len(groups) == 2
        crew.origin.gate.clear()
        leading = asyncio.ensure_future(groups[0][0].get("/page"))
        await crew.origin.has_been_asked(1)
        following = [asyncio.ensure_future(visitor.get("/page")) for visitor in groups[1]]
        for victim in proxy.workers():
            if leading.done():
                break
            os.kill(victim, SIGKILL)
            await asyncio.wait([leading, *following], return_when=asyncio.FIRST_COMPLETED)
            break
        crew.origin.gate.set()
        await asyncio.wait([leading, *following])
        answers = [leading, *following]
        whole = [one.result()[0] for one in answers if one.exception() is None]
        assert set(whole) <= {"/page 1", "/page 2"}
        # Whichever of the two it was: those of the other have their answer.
        assert (leading.exception() is None) != (following[0].exception() is None)
        assert len({one.exception() is None for one in following}) == 1


async def test_one_that_is_told_to_end_finishes_and_is_replaced(crew: Crew) -> None:
    proxy = await crew.serve()
    told, survivor = proxy.workers()
    async with visitors(proxy) as found:
        await by_worker(proxy, found)
        crew.origin.gate.clear()
        asking = [asyncio.ensure_future(one.get(f"/{n}")) for n, one in enumerate(found)]
        await crew.origin.has_been_asked(len(found))
        os.kill(told, SIGTERM)
        crew.origin.gate.set()
        assert [body for body, _ in await asyncio.gather(*asking)] == [
            f"/{n} 1" for n in range(len(found))
        ]
    await proxy.said(lambda line: "ended with exit status 0; another begins" in line)
    await replaced(proxy, survivor)


async def test_a_log_level_that_was_set_is_that_of_all_and_of_who_comes_later(
    crew: Crew, tmp_path: Path
) -> None:
    proxy = await crew.serve()
    assert await admin(tmp_path, "/log-level", level="ERROR") == (200, {"level": "ERROR"})
    for process in proxy.workers():  # so that the other answers, and then its successor
        os.kill(process, SIGKILL)
        await proxy.said(lambda line, process=process: f"(process {process}) was killed" in line)
        while (answer := await admin(tmp_path, "/health"))[1].get("workers", [1])[1:] == []:
            assert await admin(tmp_path, "/log-level") == (200, {"level": "ERROR"})
        assert await admin(tmp_path, "/log-level") == (200, {"level": "ERROR"})
    assert answer[0] == 200


async def test_while_all_end_none_is_ready(crew: Crew, tmp_path: Path) -> None:
    proxy = await crew.serve()
    assert (await admin(tmp_path, "/ready"))[0] == 200
    async with visitors(proxy, 1) as (visitor,):
        crew.origin.gate.clear()
        asking = asyncio.ensure_future(visitor.get("/slow"))
        await crew.origin.has_been_asked(1)
        proxy.signal(SIGTERM)
        found = await admin(tmp_path, "/ready")
        while found[0] == 200:
            found = await admin(tmp_path, "/ready")
        assert (found[0], found[1]["error"]["code"]) == (503, "draining")
        crew.origin.gate.set()
        assert (await asking)[0].startswith("/slow")
    assert await proxy.end(SIGTERM) == 0


async def test_no_worker_outlives_its_supervisor(crew: Crew) -> None:
    proxy = await crew.serve()
    workers = proxy.workers()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await proxy.end(SIGKILL)  # waits until nobody holds its output any more
    assert await reader.read() == b""
    writer.close()
    async with asyncio.timeout(20):
        # They are nobody's children now: nothing but looking tells.
        while any(map(is_alive, workers)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def is_alive(process: int) -> bool:
    """Whether the process runs; one that has ended may still be listed."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


# ------------------------------------------------------------------------ the end


@pytest.mark.parametrize("whole_group", [False, True], ids=["the supervisor", "all processes"])
async def test_stopping_under_load_fails_no_request(crew: Crew, whole_group: bool) -> None:
    """Also where a service manager sends the signal to every process of the service."""
    proxy = await crew.serve()
    is_over = False
    answered = Counter[str]()

    async def visit(number: int) -> None:
        while not is_over:
            try:
                visitor = await Visitor.come(proxy)
            except (ConnectionRefusedError, ConnectionResetError):
                return  # nobody listens any more, or stopped to while we knocked
            try:
                answered[(await visitor.get("/hello"))[0]] += 1
            finally:
                visitor.leave()

    visiting = [asyncio.ensure_future(visit(number)) for number in range(8)]
    async with visitors(proxy, 8) as found:
        crew.origin.gate.clear()
        asking = [asyncio.ensure_future(one.get(f"/{n}")) for n, one in enumerate(found)]
        await crew.origin.has_been_asked(len(found))
        ending = [proxy.process.pid, *(proxy.workers() if whole_group else [])]
        for process in ending:
            os.kill(process, SIGTERM)
        await asyncio.gather(*visiting)
        crew.origin.gate.set()
        for body, fields in await asyncio.gather(*asking):
            assert body.endswith(" 1")
            assert fields["connection"] == "close"
    is_over = True
    async with asyncio.timeout(20):
        assert await proxy.process.wait() == 0
    assert answered["WORD"] > 0
    assert not [line for line in proxy.err if "ERROR" in line or "Traceback" in line]


async def test_what_does_not_finish_is_cut_when_time_is_up(crew: Crew) -> None:
    text = POLICY.replace("shutdown_timeout: 10s", "shutdown_timeout: 200ms")
    proxy = await crew.serve(text=text)
    async with visitors(proxy, 4) as found:
        crew.origin.gate.clear()
        asking = [asyncio.ensure_future(one.get(f"/{n}")) for n, one in enumerate(found)]
        await crew.origin.has_been_asked(len(found))
        assert await proxy.end(SIGTERM) == 0
        for error in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(error, ConnectionError)
        crew.origin.gate.set()


async def test_one_worker_needs_no_supervisor(crew: Crew) -> None:
    proxy = await crew.serve("--workers", "1")
    assert proxy.workers() == []


@pytest.mark.parametrize("count", ["0", "-1", "many", "1000000"])
async def test_a_number_that_cannot_be_is_wrong_use(tmp_path: Path, count: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *RUN,
        "policy.yaml",
        "--workers",
        count,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"is not auto or a number from 1 to" in said
