"""What workers have in common, as the supervisor keeps it: purges, and whose turn a fetch is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from edgeproxy.caching.purges import Mark, Purges
from edgeproxy.engine.workers.carrying import read_marks
from edgeproxy.engine.workers.channel import NOTHING, Channel, Handler, Lost, Message, Refused

LOST = Message({"is_yours": False, "is_stored": False})
"""What a fetch brings that is not to be waited for."""


class Turn:
    """One worker fetches, others wait for what it brings."""

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.waiting = 0
        self.brought: asyncio.Future[Message] = asyncio.get_running_loop().create_future()


class Hub:
    """`channels` are those of the workers that serve, by number."""

    def __init__(self, channels: Callable[[], Mapping[int, Channel]]) -> None:
        self._channels = channels
        self._purges = Purges()
        self._turns: dict[str, Turn] = {}

    def handlers(self, worker: int) -> dict[str, Handler]:
        """What this worker may ask for."""

        async def marks(question: Message) -> Message:
            return await self._tell(worker, question)

        async def take_turn(question: Message) -> Message:
            return await self._take_turn(worker, str(question["name"]))

        async def end_turn(question: Message) -> Message:
            return self._end_turn(worker, str(question["name"]), question)

        return {"marks": marks, "take_turn": take_turn, "end_turn": end_turn}

    def marks(self) -> list[Mark]:
        """Every mark that a worker has told of: a new one cannot know them from others."""
        return self._purges.marks()

    def gone(self, worker: int) -> None:
        """Let nobody wait for what this worker was to fetch."""
        for name, turn in tuple(self._turns.items()):
            if turn.worker == worker:
                self._land(name, LOST)

    async def _tell(self, worker: int, question: Message) -> Message:
        """Have all others heed marks. One that cannot be told is no more, or will not be."""
        self._purges.merge(read_marks(question["marks"]))

        async def tell(channel: Channel) -> None:
            with contextlib.suppress(Lost, Refused):
                await channel.ask("marks", marks=question["marks"])

        others = [channel for number, channel in self._channels().items() if number != worker]
        await asyncio.gather(*map(tell, others))
        return NOTHING

    async def _take_turn(self, worker: int, name: str) -> Message:
        turn = self._turns.setdefault(name, Turn(worker))
        if turn.worker == worker:
            return Message({"is_yours": True})
        turn.waiting += 1
        return await asyncio.shield(turn.brought)

    def _end_turn(self, worker: int, name: str, question: Message) -> Message:
        """The worker has fetched. It is asked for the answer itself only if somebody waits."""
        turn = self._turns.get(name)
        if turn is None or turn.worker != worker:
            return Message({"is_wanted": False})
        if turn.waiting and question["has_more"]:
            return Message({"is_wanted": True})
        self._land(name, Message({**question.words, "is_yours": False}, question.data))
        return Message({"is_wanted": False})

    def _land(self, name: str, brought: Message) -> None:
        turn = self._turns.pop(name)
        if not turn.brought.done():
            turn.brought.set_result(brought)
