"""Something that has to happen within a time, on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from edgeproxy.engine.deadline import Deadline


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_one_that_is_due_at_once_can_be_moved(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """uvloop's timer for such a moment is none."""

    async def act() -> None:
        passed = asyncio.Event()
        deadline = Deadline(passed.set)
        for within_s in (0.0001, 60.0, 0.0, 0.00005):
            deadline.set(within_s)
        assert deadline.is_set
        async with asyncio.timeout(20):
            await passed.wait()
        assert not deadline.is_set

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(act())


async def test_one_that_is_cleared_does_not_pass() -> None:
    passed, other = asyncio.Event(), asyncio.Event()
    deadline = Deadline(passed.set)
    deadline.set(0.0)
    deadline.clear()
    Deadline(other.set).set(0.01)
    await other.wait()
    assert not passed.is_set()
