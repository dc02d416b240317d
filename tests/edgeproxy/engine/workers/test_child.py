"""A worker as its supervisor sees it: how it ends, and what is not waited for."""

from __future__ import annotations

import os
import sys
from signal import SIGKILL, SIGSTOP
from typing import Any

import pytest

from edgeproxy.engine.workers.channel import NOTHING, Lost
from edgeproxy.engine.workers.child import Child


def program(code: str) -> tuple[str, ...]:
    """A worker that does this with the channel whose descriptor is `channel`."""
    return (sys.executable, "-c", f"import os, sys, time\nchannel = int(sys.argv[1])\n{code}")


async def test_a_worker_is_born_answers_and_ends_when_it_is_told() -> None:
    child = await Child.born(3, {})
    assert await child.channel.ask("ping") == NOTHING
    assert str(child) == f"worker 3 (process {child.process.pid})"
    await child.channel.ask("stop")
    assert await child.ended() == "ended with exit status 0"


async def test_it_ends_when_it_has_no_supervisor_any_more() -> None:
    child = await Child.born(1, {})
    await child.channel.ask("ping")
    child.channel.close()
    assert await child.ended() == "ended with exit status 0"


async def test_how_it_was_killed_is_told() -> None:
    child = await Child.born(1, {})
    os.kill(child.process.pid, SIGKILL)
    assert await child.ended() == "was killed by SIGKILL"
    with pytest.raises(Lost):
        await child.channel.ask("ping")


async def test_one_that_hangs_is_killed(caplog: Any) -> None:
    child = await Child.born(1, {}, ping_every_s=0.05, hung_s=0.2, farewell_s=0.1)
    await child.channel.ask("ping")
    child.is_ready = True
    os.kill(child.process.pid, SIGSTOP)
    assert await child.ended() == "was killed by SIGKILL"
    assert "is killed: it has not answered for 0.2 s" in caplog.text


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("os.write(channel, b'HTTP/1.1 200 OK' * 99); time.sleep(60)", "cannot be understood"),
        ("os.write(channel, bytes([0, 0, 0, 2, 0, 0, 0, 0]) + b'{}'); time.sleep(60)", "KeyError"),
        ("os.write(channel, bytes([0, 0, 0, 9])); os.close(channel); time.sleep(60)", "it is gone"),
    ],
    ids=["garbage", "no message", "half a message"],
)
async def test_one_that_talks_nonsense_is_killed(caplog: Any, code: str, why: str) -> None:
    child = await Child.born(1, {}, program=program(code), farewell_s=0.1)
    assert await child.ended() == "was killed by SIGKILL"
    assert why in caplog.text


async def test_one_that_dies_in_the_middle_of_a_message_is_just_gone() -> None:
    child = await Child.born(
        1, {}, program=program("os.write(channel, bytes([0] * 5)); sys.exit(3)")
    )
    assert await child.ended() == "ended with exit status 3"
