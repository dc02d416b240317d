"""What workers have in common: purges in force in all at once, and one fetch for all.

Two caches, each with a memory of its own, talk through real channels to one hub.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from edgeproxy.caching.cache import Cache
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.errand import Answer
from edgeproxy.caching.neighbours import turn_of
from edgeproxy.caching.purges import EVERYTHING, Selection
from edgeproxy.engine.workers.carrying import read_marks
from edgeproxy.engine.workers.channel import NOTHING, Channel, Message
from edgeproxy.engine.workers.fellows import Fellows
from edgeproxy.engine.workers.hub import Hub
from edgeproxy.errors import UpstreamError
from tests.edgeproxy.caching.conftest import Clock, DictTier, FakeOrigin, Site, down, page, text

RULE = CacheRule(ttl="1h", stale_if_error="0s")


@dataclass
class Worker:
    site: Site
    at_hub: Channel
    at_worker: Channel

    async def get(self, key: str = "key", **fields: str) -> Answer:
        return await self.site.get(key, rule=RULE, **fields)


class Crew:
    """A hub and workers that share an origin; with `disk`, a slow tier as well."""

    def __init__(self, clock: Clock, count: int, disk: DictTier | None = None) -> None:
        self.clock = clock
        self.origin = FakeOrigin(clock)
        self.workers: list[Worker] = []
        self.hub = Hub(
            lambda: {number: worker.at_hub for number, worker in enumerate(self.workers)}
        )
        self._count = count
        self._disk = disk

    async def __aenter__(self) -> Crew:
        for number in range(self._count):
            await self._join(number)
        return self

    async def _join(self, number: int) -> None:
        cache: Cache

        async def marks(question: Message) -> Message:
            cache.purges.heed(read_marks(question["marks"]))
            return NOTHING

        at_hub, at_worker = Channel(self.hub.handlers(number)), Channel({"marks": marks})
        for end, sock in zip((at_hub, at_worker), socket.socketpair(), strict=True):
            await end.open(sock)
        tiers = [DictTier(), self._disk] if self._disk else [DictTier()]
        cache = Cache(
            tiers, max_object_size=16 * 2**20, now=self.clock, neighbours=Fellows(at_worker)
        )
        site = Site(self.clock, self.origin, tiers, cache)
        self.workers.append(Worker(site, at_hub, at_worker))

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            await worker.site.cache.close()
            worker.at_hub.close()
            worker.at_worker.close()

    def died(self, number: int) -> None:
        self.workers[number].at_hub.close()
        self.hub.gone(number)


@pytest.fixture
async def crew(clock: Clock) -> AsyncIterator[Crew]:
    async with Crew(clock, 3) as crew:
        yield crew


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def waits(crew: Crew, count: int = 2) -> None:
    """Return when so many workers wait for what another brings."""
    nothing = {"name": "", "is_stored": False, "has_more": False}
    async with asyncio.timeout(10):
        while sum(turn.waiting for turn in crew.hub._turns.values()) < count:
            await crew.workers[-1].at_worker.ask("end_turn", **nothing)  # lets the hub go on


async def test_one_fetch_answers_the_clients_of_all_workers(crew: Crew) -> None:
    crew.origin.will(page("once", etag='"1"'))
    crew.origin.hold()
    asking = [asyncio.ensure_future(worker.get()) for worker in crew.workers for _ in range(4)]
    await waits(crew)
    crew.origin.release()
    answers = await asyncio.gather(*asking)
    assert [await text(answer) for answer in answers] == ["once"] * 12
    assert len(crew.origin.requests) == 1
    assert sorted(answer.verdict for answer in answers) == ["collapsed"] * 11 + ["miss"]
    assert all("collapsed" in a.status for a in answers if a.verdict == "collapsed")
    # Each has it in its own memory now.
    for worker in crew.workers:
        assert worker.site.at_once().verdict == "hit"


async def test_revalidations_are_one_as_well(crew: Crew) -> None:
    crew.origin.will(page("old", etag='"1"'))
    for worker in crew.workers:
        await worker.get()
    crew.clock.advance(3601)
    crew.origin.will(page(status=304, etag='"1"'))
    crew.origin.requests.clear()
    crew.origin.hold()
    asking = [asyncio.ensure_future(worker.get()) for worker in crew.workers]
    await waits(crew)
    crew.origin.release()
    assert [await text(answer) for answer in await asyncio.gather(*asking)] == ["old"] * 3
    assert len(crew.origin.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [page("own", set_cookie="a=1"), page("own", cache_control="no-store"), down()],
    ids=["its own cookie", "no-store", "no answer"],
)
async def test_what_others_cannot_use_each_fetches_for_itself(crew: Crew, reply: Any) -> None:
    crew.origin.will(reply)
    crew.origin.hold()
    asking = [asyncio.ensure_future(worker.get()) for worker in crew.workers]
    await waits(crew)
    crew.origin.release()
    for answer in await asyncio.gather(*asking, return_exceptions=True):
        if isinstance(answer, BaseException):
            assert isinstance(answer, UpstreamError)
        else:
            assert await text(answer) == "own"
    assert len(crew.origin.requests) == 3
    assert not crew.hub._turns


async def test_another_variant_is_fetched(crew: Crew) -> None:
    """Before the first answer nobody knows that the origin looks at the language."""
    crew.origin.will(
        lambda request: page(request.headers.get("accept-language") or "", vary="Accept-Language")
    )
    crew.origin.hold()
    one, two, _ = crew.workers
    asking = [
        asyncio.ensure_future(worker.get(accept_language=language))
        for worker, language in ((one, "de"), (two, "fr"))
    ]
    await waits(crew, 1)
    crew.origin.release()
    assert [await text(answer) for answer in await asyncio.gather(*asking)] == ["de", "fr"]


async def test_a_worker_that_dies_lets_the_others_go_on(crew: Crew) -> None:
    crew.origin.will(page("late"))
    crew.origin.hold()
    one, two, three = crew.workers
    lost = asyncio.ensure_future(one.get())
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(worker.get()) for worker in (two, three)]
    await waits(crew)
    crew.died(0)
    crew.origin.release()
    assert [await text(answer) for answer in await asyncio.gather(*others)] == ["late"] * 2
    assert await text(await lost) == "late"  # without a supervisor each goes on alone
    assert not crew.hub._turns


async def test_a_client_that_gives_up_takes_no_turn_along(crew: Crew) -> None:
    """The turn of who led, and the wait of who followed, both end with their clients."""
    crew.origin.will(page("for others"))
    crew.origin.hold()
    one, two, three = crew.workers
    leading = asyncio.ensure_future(one.get())
    await asyncio.sleep(0)
    following = asyncio.ensure_future(two.get())
    await waits(crew, 1)
    leading.cancel()
    following.cancel()
    await asyncio.gather(leading, following, return_exceptions=True)
    asked = asyncio.ensure_future(three.get())
    crew.origin.release()
    assert await text(await asked) == "for others"


async def test_a_large_answer_is_found_on_disk(clock: Clock) -> None:
    body = "x" * (2 * 2**20)
    async with Crew(clock, 2, DictTier("disk", slow=True)) as crew:
        crew.origin.will(page(body))
        crew.origin.hold()
        asking = [asyncio.ensure_future(worker.get()) for worker in crew.workers]
        await waits(crew, 1)
        crew.origin.release()
        assert [await text(answer) for answer in await asyncio.gather(*asking)] == [body] * 2
        assert len(crew.origin.requests) == 1


# ------------------------------------------------------------------------ purges


@pytest.mark.parametrize("soft", [False, True], ids=["purge", "invalidate"])
async def test_a_purge_is_in_force_everywhere_when_it_returns(crew: Crew, soft: bool) -> None:
    crew.origin.will(page("first", etag='"1"'))
    for worker in crew.workers:
        await worker.get()
        assert worker.site.at_once().verdict == "hit"
    crew.clock.advance(1)
    cache = crew.workers[1].site.cache
    await (cache.invalidate if soft else cache.purge)(EVERYTHING)
    crew.origin.will(page("second", etag='"2"'))
    for worker in crew.workers:
        assert await text(await worker.get()) == "second"
    assert [mark.kind for mark in crew.hub.marks()] == ["everything"]


async def test_a_change_by_one_worker_is_heeded_by_all(crew: Crew) -> None:
    crew.origin.will(page("first"))
    for worker in crew.workers:
        await worker.get()
    crew.clock.advance(1)
    await crew.workers[0].site.cache.heed_change(["site.example/"])
    crew.origin.will(page("second"))
    for worker in crew.workers:
        assert await text(await worker.get()) == "second"


async def test_who_asks_after_a_purge_never_gets_what_a_neighbour_asked_for_before(
    crew: Crew,
) -> None:
    crew.origin.will(page("before"), page("after"))
    crew.origin.hold()
    one, two, three = crew.workers
    before = asyncio.ensure_future(one.get())
    await asyncio.sleep(0)
    crew.clock.advance(1)
    await three.site.cache.purge(Selection(urls=("site.example/",)))
    crew.clock.advance(1)
    after = asyncio.ensure_future(two.get())
    await waits(crew, 1)
    crew.origin.release()
    assert await text(await before) == "before"
    assert await text(await after) == "after"


async def test_a_clock_that_is_set_back_keeps_nothing_from_a_purge(clock: Clock) -> None:
    async with Crew(clock, 2) as crew:
        one, two = crew.workers
        crew.origin.will(page("first"))
        await two.get()
        clock.advance(-1000)
        await one.site.cache.purge(EVERYTHING)
        crew.origin.will(page("second"))
        assert await text(await two.get()) == "second"


async def test_a_worker_that_is_gone_does_not_hold_up_a_purge(crew: Crew) -> None:
    crew.workers[2].at_worker.close()
    await crew.workers[0].site.cache.purge(EVERYTHING)


def test_turns_are_told_apart_by_key_and_variant() -> None:
    assert turn_of("a", "b") != turn_of("a", "c") != turn_of("b", "c")
    assert len(turn_of("a" * 10_000, "b")) == 32
