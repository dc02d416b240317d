"""The counts of all workers as one, which only grow: also when a worker dies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edgeproxy.engine.workers.child import Child
from edgeproxy.metrics.snapshot import Snapshot, merged, of_the_past, process


class CrewCounts:
    """`ask` is told to ask all workers that serve; who does not answer is left out.

    What a worker had counted when it was last asked goes on counting when it is gone. Prometheus
    would take a smaller sum for a restart, and all that is left of it for new.
    """

    def __init__(self, ask: Callable[[], Awaitable[dict[Child, Snapshot]]]) -> None:
        self._ask = ask
        self._asking = asyncio.Lock()
        self._last: dict[Child, Snapshot] = {}
        self._gone: list[Snapshot] = []  # one at the most

    async def snapshot(self) -> Snapshot:
        async with self._asking:
            found = await self._ask()
            gone = [of_the_past(one) for child, one in self._last.items() if child not in found]
            if self._gone or gone:
                self._gone = [merged([*self._gone, *gone])]
            self._last = found
        total = merged([_named(one, str(child.number)) for child, one in found.items()])
        total = merged([total, *self._gone])
        return {**total, "processes": [process("supervisor"), *total["processes"]]}


def _named(one: Snapshot, worker: str) -> Snapshot:
    return {**one, "processes": [{**each, "worker": worker} for each in one["processes"]]}
