"""All workers: begun, begun anew when they die, replaced, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeproxy.addresses import BadAddress
from edgeproxy.engine.process import NotStarted
from edgeproxy.engine.workers.carrying import read_faults, words_of_marks
from edgeproxy.engine.workers.channel import Channel, Lost, Message, Refused
from edgeproxy.engine.workers.child import Child
from edgeproxy.engine.workers.hub import Hub
from edgeproxy.errors import PolicyError

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 30.0
STEADY_S = 60.0
"""A worker that has served for so long and then dies has not died of how it began."""

START_S = 300.0  # for a worker to be ready
STOP_GRACE_S = 15.0  # beyond the policy's time for requests under way: for plugins to shut down

log = logging.getLogger("edgeproxy.workers")


@dataclass(slots=True)
class Keeper:
    """Has a worker of one number, one after the other, until it is `told` to have none."""

    begun: asyncio.Future[None]  # once the first one serves
    told: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Future[None] = field(init=False)


class Crew:
    """`order` is what a worker is told when it begins. While `changing` is held, none does."""

    def __init__(
        self, count: int, order: Callable[[], Mapping[str, Any]], descriptors: Sequence[int] = ()
    ) -> None:
        self.changing = asyncio.Lock()
        self.hub = Hub(self._channels)
        self._count = count
        self._order = order
        self._descriptors = descriptors
        self._children: dict[int, Child] = {}
        self._keepers: dict[int, Keeper] = {}
        self.is_stopping = False

    @property
    def is_begun(self) -> bool:
        return bool(self._keepers)

    def ready(self) -> list[Child]:
        """The workers that serve, by number."""
        return [self._children[n] for n in sorted(self._children) if self._children[n].is_ready]

    def _channels(self) -> Mapping[int, Channel]:
        return {number: child.channel for number, child in self._children.items()}

    async def start(self) -> None:
        """Have all of them serve. Raises what keeps one from it."""
        for _ in range(self._count):
            self._employ()
        await asyncio.gather(*(keeper.begun for keeper in self._keepers.values()))

    def _employ(self) -> int:
        """Have a worker more: its number, the lowest that is free, so that numbers stay few."""
        number = next(n for n in itertools.count(1) if n not in self._keepers)
        keeper = self._keepers[number] = Keeper(asyncio.get_running_loop().create_future())
        keeper.task = asyncio.ensure_future(self._keep(number, keeper))
        return number

    async def ask_all(self, name: str, **words: Any) -> dict[Child, Message | Exception]:
        """What each worker that serves answers, or why it does not."""
        children = self.ready()
        asking = [child.channel.ask(name, **words) for child in children]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        found: dict[Child, Message | Exception] = {}
        for child, answer in zip(children, answers, strict=True):
            if not isinstance(answer, Message | Lost | Refused):
                raise answer
            found[child] = answer
        return found

    async def replace(self, child: Child, within_s: float) -> int:
        """Have another worker serve, then `child` finish what is under way, and end: the number of
        the other one. Raises what keeps that from serving; then `child` stays."""
        number = self._employ()
        begun = self._keepers[number].begun
        await asyncio.wait([begun])
        if error := begun.exception():
            await self._end([number], within_s)
            raise error
        child.is_ready = False
        await self._end([child.number], within_s)
        return number

    async def stop(self, within_s: float) -> None:
        """Let all finish what is under way, and end. Who does not in time is killed."""
        self.is_stopping = True
        await self._end(list(self._keepers), within_s)

    async def _end(self, numbers: Sequence[int], within_s: float) -> None:
        """The same for some of them. Their numbers are free then."""
        if not numbers:
            return
        tasks = [self._keepers[number].task for number in numbers]
        for number in numbers:
            self._keepers[number].told.set()
        for child in self._of(numbers):
            with contextlib.suppress(Lost, Refused):
                await child.channel.ask("stop")
        _, late = await asyncio.wait(tasks, timeout=within_s)
        for child in self._of(numbers) if late else ():
            log.error("%s has not ended within %.0f s: it is killed", child, within_s)
            child.kill()
        await asyncio.gather(*tasks)
        for number in numbers:
            del self._keepers[number]

    def _of(self, numbers: Sequence[int]) -> list[Child]:
        return [self._children[number] for number in numbers if number in self._children]

    # ------------------------------------------------------------ one of them

    async def _keep(self, number: int, keeper: Keeper) -> None:
        """Have a worker of this number, one after the other, until there is to be none."""
        delay_s = FIRST_DELAY_S
        while True:
            born_s = time.monotonic()
            try:
                how = await self._live(number, keeper.begun)
            except Exception as error:
                how = f"worker {number} cannot be started: {error}"
                _fail(keeper.begun, NotStarted(how))
                if not isinstance(error, OSError):
                    log.exception("worker %d", number)
            if keeper.told.is_set() or keeper.begun.exception() is not None:
                return
            if time.monotonic() - born_s > STEADY_S:
                delay_s = FIRST_DELAY_S
            log.error("%s; another begins in %.1f s", how, delay_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await keeper.told.wait()
                    return
            delay_s = min(2 * delay_s, MAX_DELAY_S)

    async def _live(self, number: int, begun: asyncio.Future[None]) -> str:
        """One worker, from its beginning to its end: how that came."""
        child = await Child.born(number, self.hub.handlers(number), self._descriptors)
        self._children[number] = child  # it hears of purges from now on
        ending = asyncio.ensure_future(child.ended())
        try:
            await self._begin(child)
            if not begun.done():
                begun.set_result(None)
        except (PolicyError, BadAddress) as error:
            _fail(begun, error)
            child.kill()
            log.error("%s refuses to begin: %s", child, error)
        except (Lost, Refused, TimeoutError) as error:
            _fail(begun, NotStarted(f"{child} did not begin: {str(error) or type(error).__name__}"))
            child.kill()
        try:
            return f"{child} {await ending}"
        finally:
            del self._children[number]
            self.hub.gone(number)

    async def _begin(self, child: Child) -> None:
        """Have it serve. Raises what keeps it from that."""
        async with self.changing, asyncio.timeout(START_S):
            order = {**self._order(), "number": child.number}
            marks = words_of_marks(self.hub.marks())
            answer = await child.channel.ask("serve", **order, marks=marks)
        if "faults" in answer.words:
            raise read_faults(answer["faults"])
        if "bad_address" in answer.words:
            raise BadAddress(answer["bad_address"])
        child.is_ready = True


def _fail(begun: asyncio.Future[None], error: Exception) -> None:
    if not begun.done():
        begun.set_exception(error)
