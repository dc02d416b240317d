"""Large bodies: who joins a fetch under way reads along, from the first byte on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from edgeproxy.caching.cache import Cache
from edgeproxy.caching.purges import Selection
from edgeproxy.errors import UpstreamError
from edgeproxy.http import Response

from .conftest import Chunks, Clock, DictTier, FakeOrigin, Site, content, page, text, turns

FRESH = "max-age=60"
BLOCKS = [bytes([65 + number]) * 100_000 for number in range(8)]
WHOLE = b"".join(BLOCKS)
LENGTHS = [None, len(WHOLE)]


def large(chunks: Chunks, length: int | None = None, **fields: str) -> Response:
    head = page(cache_control=FRESH, etag='"v1"', **fields)
    if length is not None:
        head.headers.set("Content-Length", str(length))
    else:
        head.headers.remove("Content-Length")
    return Response(head.status, head.headers, chunks.body(length))


async def take(pieces: AsyncIterator[bytes], size: int) -> bytes:
    """At least `size` bytes."""
    got = b""
    while len(got) < size:
        got += await anext(pieces)
    return got


@pytest.mark.parametrize("length", LENGTHS)
async def test_who_joins_late_reads_along_from_the_first_byte(
    site: Site, length: int | None
) -> None:
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(large(chunks, length))
    chunks.let(4)
    first = await site.get()
    ahead = aiter(first.response.body)
    assert await take(ahead, 400_000) == WHOLE[:400_000]
    second = await site.get()
    assert (first.verdict, second.verdict) == ("miss", "collapsed")
    assert second.status == "edgeproxy; fwd=uri-miss; collapsed; ttl=60"
    assert second.response.body.length == length
    behind = aiter(second.response.body)
    assert await take(behind, 400_000) == WHOLE[:400_000]
    chunks.let(5)
    for pieces in (ahead, behind):
        assert b"".join([piece async for piece in pieces]) == WHOLE[400_000:]
    await site.cache.settled()
    assert site.fetches == 1
    assert (await site.get()).verdict == "hit"
    assert site.cache.body_memory.used == 0


async def test_who_reads_slowly_holds_nobody_back(site: Site) -> None:
    site.origin.will(large(Chunks(*BLOCKS), len(WHOLE)))
    slow, *others = [await task for task in [asyncio.ensure_future(site.get()) for _ in range(5)]]
    pieces = aiter(slow.response.body)
    got = await anext(pieces)
    assert [await content(other) for other in others] == [WHOLE] * 4
    await site.cache.settled()
    assert (await site.get()).verdict == "hit"
    assert site.cache.body_memory.used == 0  # what the slow one still reads is the stored body
    assert got + await take(pieces, len(WHOLE) - len(got)) == WHOLE


async def test_one_who_joins_a_revalidation_reads_along(site: Site) -> None:
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(
        page("old", cache_control="max-age=1, stale-while-revalidate=10", etag='"v0"'),
        large(chunks, len(WHOLE)),
    )
    await site.get()
    site.clock.advance(5)
    assert (await site.get()).verdict == "stale"
    await turns()
    site.clock.advance(10)
    chunks.let(4)
    late = await site.get()
    assert late.verdict == "collapsed"
    chunks.let(5)
    assert await content(late) == WHOLE
    assert site.fetches == 2


# ---------------------------------------------------------------- what a client asks of it


async def test_the_head_is_enough_for_head_and_conditions(site: Site) -> None:
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(large(chunks, len(WHOLE)))
    chunks.let(4)
    leader = await site.get(if_none_match='"v1"')
    assert (leader.response.status, leader.response.body.data) == (304, b"")
    head = await site.get(method="HEAD")
    assert (head.response.status, head.response.body.data) == (200, b"")
    assert head.response.headers.get("content-length") == str(len(WHOLE))
    known = await site.get(if_none_match='"v1"')
    other = await site.get(if_match='"v2"')
    assert (known.response.status, other.response.status) == (304, 412)
    chunks.let(5)
    await site.cache.settled()  # the fetch goes on though nobody reads
    assert site.fetches == 1
    assert (await site.get()).verdict == "hit"


@pytest.mark.parametrize(
    ("range", "expected"),
    [
        ("bytes=10-99", WHOLE[10:100]),
        ("bytes=350000-449999", WHOLE[350_000:450_000]),
        ("bytes=-100001", WHOLE[-100_001:]),
        ("bytes=0-", WHOLE),
        ("bytes=700000-,0-1", None),
        ("bytes=800000-", b""),
    ],
)
@pytest.mark.parametrize("leads", [True, False])
async def test_ranges_come_as_soon_as_their_bytes_are_there(
    site: Site, range: str, expected: bytes | None, leads: bool
) -> None:
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(large(chunks, len(WHOLE)))
    chunks.let(4)
    leader = None if leads else await site.get()
    part = await site.get(range=range, if_range='"v1"')
    if range == "bytes=10-99":
        assert await content(part) == expected  # before the rest has come
    assert part.response.status == (206 if expected != b"" else 416)
    chunks.let(5)
    if range != "bytes=10-99" and expected is not None:
        assert await content(part) == expected
    elif expected is None:
        parts = (await content(part)).split(b"\r\n\r\n")
        assert parts[1].startswith(WHOLE[700_000:] + b"\r\n--")
        assert parts[2].startswith(b"AA\r\n--")
    if leader is not None:
        assert await content(leader) == WHOLE
    await site.cache.settled()
    assert site.fetches == 1
    assert (await site.get()).verdict == "hit"


async def test_a_range_of_unknown_length_waits_for_the_end(site: Site) -> None:
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(large(chunks))
    chunks.let(4)
    tasks = [asyncio.ensure_future(site.get(range="bytes=-10")) for _ in range(2)]
    await turns()
    assert not any(task.done() for task in tasks)
    chunks.let(5)
    for task in tasks:
        answer = await task
        assert (answer.response.status, await content(answer)) == (206, WHOLE[-10:])
    assert site.fetches == 1


async def test_a_range_of_a_stale_copy_is_better_than_a_body_that_breaks_off(site: Site) -> None:
    old = large(Chunks(*BLOCKS), len(WHOLE))
    site.origin.will(old, large(Chunks(*BLOCKS[:6], breaks=True), len(WHOLE)))
    assert await content(await site.get()) == WHOLE
    await site.cache.settled()
    site.clock.advance(61)
    answers = await asyncio.gather(*[site.get(range="bytes=-10") for _ in range(2)])
    for answer in answers:
        assert (answer.response.status, answer.verdict) == (206, "stale")
        assert await content(answer) == WHOLE[-10:]
    assert site.fetches == 2


async def test_a_client_with_another_range_condition_gets_the_whole(site: Site) -> None:
    site.origin.will(large(Chunks(*BLOCKS), len(WHOLE)))
    first = asyncio.ensure_future(site.get())
    other = await site.get(range="bytes=0-9", if_range='"v0"')
    assert (other.response.status, await content(other)) == (200, WHOLE)
    assert await content(await first) == WHOLE


async def test_another_variant_is_not_read_along(site: Site) -> None:
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(
        large(chunks, len(WHOLE), vary="Accept-Language"),
        page("deutsch", cache_control=FRESH, vary="Accept-Language"),
    )
    chunks.let(4)
    english = await site.get(accept_language="en")
    german = asyncio.ensure_future(site.get(accept_language="de"))
    await turns()
    chunks.let(5)
    assert await content(english) == WHOLE
    assert await text(await german) == "deutsch"


async def test_nobody_joins_a_fetch_that_a_purge_has_overtaken(site: Site) -> None:
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(large(chunks, len(WHOLE)), page("new", cache_control=FRESH))
    chunks.let(4)
    before = await site.get()
    await site.cache.purge(Selection(urls=("site.example/",)))
    after = await site.get()
    assert await text(after) == "new"
    chunks.let(5)
    assert await content(before) == WHOLE
    await site.cache.settled()
    assert await text(await site.get()) == "new"


# ---------------------------------------------------------------- breaks, and clients that leave


@pytest.mark.parametrize("length", [None, len(WHOLE)])
async def test_a_break_is_seen_by_all_who_read(site: Site, length: int | None) -> None:
    chunks = Chunks(*BLOCKS[:6], breaks=True, gated=True)
    site.origin.will(large(chunks, length), page("fine", cache_control=FRESH))
    chunks.let(4)
    answers = [await site.get() for _ in range(3)]
    chunks.let(5)
    errors = []
    for answer in answers:
        with pytest.raises(UpstreamError, match="it broke off") as caught:
            await content(answer)
        errors.append(caught.value)
    assert len(set(map(id, errors))) == 3
    await site.cache.settled()
    assert not site.tiers[0].entries
    assert site.cache.body_memory.used == 0
    assert await text(await site.get()) == "fine"


async def test_a_body_that_is_too_short_is_a_break(site: Site) -> None:
    site.origin.will(large(Chunks(*BLOCKS[:6]), len(WHOLE)))
    answers = await asyncio.gather(site.get(), site.get(range="bytes=700000-"))
    for answer in answers:
        with pytest.raises(UpstreamError) as caught:
            await content(answer)
        assert caught.value.error == "http_response_incomplete"
    await site.cache.settled()
    assert not site.tiers[0].entries


async def test_a_fetch_ends_when_the_last_reader_leaves(site: Site) -> None:
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(large(chunks, len(WHOLE)))
    chunks.let(4)
    leader, second = await site.get(), await site.get()
    await leader.response.body.close()
    chunks.let(1)
    await turns()
    assert chunks.closed == 0
    await take(aiter(second.response.body), 500_000)
    await second.response.body.close()
    await site.cache.settled()
    assert chunks.closed == 1
    assert site.cache.body_memory.used == 0
    assert not site.tiers[0].entries


async def test_a_range_that_was_served_lets_the_fetch_go_on(site: Site) -> None:
    """Else a player that asks for one range after the other would never have it stored."""
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(large(chunks, len(WHOLE)))
    chunks.let(4)
    assert await content(await site.get(range="bytes=0-99")) == WHOLE[:100]
    chunks.let(5)
    await site.cache.settled()
    assert (await site.get()).verdict == "hit"


async def test_those_who_read_are_told_when_the_cache_closes(site: Site) -> None:
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(large(chunks, len(WHOLE)))
    chunks.let(4)
    answers = [await site.get(), await site.get()]
    await site.cache.close()
    for answer in answers:
        with pytest.raises(UpstreamError, match="given up"):
            await content(answer)


# ---------------------------------------------------------------- more than can be stored


@pytest.fixture
def narrow_site(clock: Clock) -> Site:
    """Keeps objects of up to 500,000 bytes."""
    tiers, origin = [DictTier()], FakeOrigin(clock)
    return Site(clock, origin, tiers, Cache(tiers, max_object_size=500_000, now=clock))


@pytest.fixture
def poor_site(clock: Clock) -> Site:
    """With memory for 500,000 bytes under way."""
    tiers, origin = [DictTier()], FakeOrigin(clock)
    cache = Cache(tiers, max_object_size=1_000_000, body_memory=500_000, now=clock)
    return Site(clock, origin, tiers, cache)


@pytest.mark.parametrize("kind", ["narrow_site", "poor_site"])
async def test_the_first_goes_on_with_the_rest_and_others_fetch_it(
    kind: str, request: pytest.FixtureRequest
) -> None:
    site: Site = request.getfixturevalue(kind)
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(large(chunks), lambda _: large(Chunks(WHOLE[:650_000], WHOLE[650_000:])))
    chunks.let(4)
    answers = [await site.get() for _ in range(3)]
    chunks.let(5)
    assert [await content(answer) for answer in answers] == [WHOLE] * 3
    assert site.fetches == 3
    await site.cache.settled()
    assert not site.tiers[0].entries
    assert site.cache.body_memory.used == 0
    assert chunks.closed == 1


async def test_the_rest_comes_at_the_pace_of_who_reads_it(narrow_site: Site) -> None:
    site = narrow_site
    chunks = Chunks(*BLOCKS)
    site.origin.will(large(chunks))
    answer = await site.get()
    pieces = aiter(answer.response.body)
    await take(pieces, 600_000)
    await turns()
    assert chunks.sent == 6
    await anext(pieces)
    assert site.cache.body_memory.used == 0  # nobody needs the start any more
    await answer.response.body.close()
    assert chunks.closed == 1


@pytest.mark.parametrize(
    "other",
    [
        [*BLOCKS[:5], b"x" * 100_000, *BLOCKS[6:]],
        BLOCKS[:5],
        [b"x", *BLOCKS],
    ],
)
async def test_another_body_is_not_glued_to_the_start_of_this_one(
    narrow_site: Site, other: list[bytes]
) -> None:
    site = narrow_site
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(large(chunks), large(Chunks(*other)))
    chunks.let(4)
    first, second = await site.get(), await site.get()
    chunks.let(5)
    assert await content(first) == WHOLE
    with pytest.raises(UpstreamError, match="it has changed"):
        await content(second)
    assert site.cache.body_memory.used == 0


async def test_another_kind_of_answer_is_not_glued_on_either(narrow_site: Site) -> None:
    site = narrow_site
    chunks = Chunks(*BLOCKS, gated=True)
    again = Chunks(*BLOCKS)
    site.origin.will(large(chunks), large(again, content_encoding="br"))
    chunks.let(4)
    first, second = await site.get(), await site.get()
    chunks.let(5)
    assert await content(first) == WHOLE
    with pytest.raises(UpstreamError, match="it has changed"):
        await content(second)
    assert again.closed == 1


@pytest.mark.parametrize("leaves", [0, 1])
async def test_one_who_leaves_at_that_moment_leaves_nothing_behind(
    narrow_site: Site, leaves: int
) -> None:
    site = narrow_site
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(large(chunks), large(Chunks(*BLOCKS)))
    chunks.let(4)
    answers = [await site.get(), await site.get()]
    chunks.let(5)
    await turns()
    await answers.pop(leaves).response.body.close()
    assert await content(answers[0]) == WHOLE
    await site.cache.settled()
    assert (site.cache.body_memory.used, chunks.closed) == (0, 1)


async def test_if_all_leave_at_that_moment_the_origin_is_let_go(narrow_site: Site) -> None:
    site = narrow_site
    chunks = Chunks(*BLOCKS, gated=True)
    site.origin.will(large(chunks))
    chunks.let(4)
    answers = [await site.get(), await site.get()]
    chunks.let(5)
    await turns()
    for answer in answers:
        await answer.response.body.close()
    await site.cache.settled()
    assert (site.cache.body_memory.used, chunks.closed) == (0, 1)


async def test_a_range_of_what_turns_out_too_large_comes_from_the_origin(narrow_site: Site) -> None:
    site = narrow_site
    chunks = Chunks(*BLOCKS, gated=True)
    part = page("part", status=206, content_range="bytes 0-3/800000")
    site.origin.will(large(chunks), part)
    chunks.let(4)
    whole = await site.get()
    ranges = [asyncio.ensure_future(site.get(range="bytes=0-3")) for _ in range(2)]
    await turns()
    chunks.let(5)
    assert await content(whole) == WHOLE
    for task in ranges:
        answer = await task
        assert (answer.response.status, await text(answer)) == (206, "part")
    assert [r.headers.get("range") for r in site.origin.requests[1:]] == ["bytes=0-3"] * 2
    assert (site.cache.body_memory.used, chunks.closed) == (0, 1)


# ---------------------------------------------------------------- any mixture of all this


@pytest.mark.parametrize("seed", range(60))
async def test_nobody_ever_gets_a_wrong_byte(clock: Clock, seed: int) -> None:
    """Many clients with ranges and without, at any moment, at any pace, some of whom leave."""
    chance = random.Random(seed)
    whole = chance.randbytes(chance.randrange(270_000, 700_000))
    cuts = sorted(chance.sample(range(1, len(whole)), 12))
    pieces = [
        whole[first:last] for first, last in zip([0, *cuts], [*cuts, len(whole)], strict=True)
    ]
    breaks, is_known = chance.random() < 0.2, chance.random() < 0.6
    size = chance.choice([300_000, 1_000_000])

    def answer(request: object) -> Response:
        chunks = Chunks(*(pieces[:9] if breaks else pieces), breaks=breaks)
        return large(chunks, len(whole) if is_known else None)

    origin = FakeOrigin(clock)
    origin.will(answer)
    cache = Cache([DictTier()], max_object_size=size, body_memory=2_000_000, now=clock)
    site = Site(clock, origin, [], cache)

    async def client(number: int) -> None:
        mine = random.Random(seed * 100 + number)
        for _ in range(mine.randrange(30)):
            await asyncio.sleep(0)
        first = mine.randrange(len(whole) - 20)
        wants = mine.choice(["whole", "range", "leave", "head"])
        expected = whole[first : first + 20] if wants == "range" else whole
        fields = {"range": f"bytes={first}-{first + 19}"} if wants == "range" else {}
        try:
            got = await site.get(method="HEAD" if wants == "head" else "GET", **fields)
            if got.response.status == 200:
                expected = whole  # the origin knows nothing of ranges
            seen = b""
            async for piece in got.response.body:
                seen += piece
                assert expected.startswith(seen)
                for _ in range(mine.randrange(4)):
                    await asyncio.sleep(0)
                if wants == "leave" and mine.random() < 0.3:
                    break
            await got.response.body.close()
            assert seen == expected or wants in ("leave", "head")
        except UpstreamError:
            assert breaks

    await asyncio.gather(*(client(number) for number in range(10)))
    await cache.settled()
    assert cache.body_memory.used == 0
    assert not cache.sharing._flights


async def test_a_large_body_is_read_along_where_tasks_start_at_once(clock: Clock) -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    tiers = [DictTier()]
    cache = Cache(tiers, max_object_size=500_000, now=clock)
    site = Site(clock, FakeOrigin(clock), tiers, cache)

    async def at_once(request: object) -> Response:
        return Response(200, page(cache_control=FRESH).headers, Chunks(*BLOCKS).body())

    answer = await cache.read_through(site.request(), "key", None, at_once)
    assert await content(answer) == WHOLE
    assert cache.body_memory.used == 0
