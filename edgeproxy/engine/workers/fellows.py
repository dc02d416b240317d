"""The other workers, as the cache of one sees them: its neighbours, asked by way of the hub."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from edgeproxy.caching.neighbours import NOTHING, Brought
from edgeproxy.caching.purges import Mark
from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.engine.workers.carrying import (
    is_carried,
    read_brought,
    words_of_entry,
    words_of_marks,
)
from edgeproxy.engine.workers.channel import Channel, Lost, Refused


class Fellows:
    """Without a supervisor, a worker goes on alone until its end, which is near."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._ending: set[asyncio.Future[None]] = set()

    async def tell(self, marks: Sequence[Mark]) -> None:
        with contextlib.suppress(Lost, Refused):
            await self._channel.ask("marks", marks=words_of_marks(marks))

    async def take_turn(self, name: str) -> Brought | None:
        try:
            answer = await self._channel.ask("take_turn", name=name)
        except (Lost, Refused):
            return None
        except asyncio.CancelledError:
            self.end_turn(name, NOTHING)  # it may have become ours just now
            raise
        return None if answer["is_yours"] else read_brought(answer)

    def end_turn(self, name: str, brought: Brought) -> None:
        ending = asyncio.ensure_future(self._end_turn(name, brought))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end_turn(self, name: str, brought: Brought) -> None:
        entry = brought.entry if brought.entry and is_carried(brought.entry) else None
        words = {"name": name, "is_stored": brought.is_stored}
        with contextlib.suppress(Lost, Refused):
            answer = await self._channel.ask("end_turn", **words, has_more=entry is not None)
            if entry is not None and answer["is_wanted"]:
                await self._hand_over(words, entry)

    async def _hand_over(self, words: dict[str, object], entry: StoredResponse) -> None:
        """The answer itself, which is only sent if somebody waits for it."""
        body = entry.body
        assert isinstance(body, bytes)
        more = words_of_entry(entry)
        await self._channel.ask("end_turn", body, **words, has_more=False, entry=more)
