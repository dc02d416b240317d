"""Objects too large to be kept whole: their ranges come from parts, and never from a wrong one."""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import dataclass, field

import pytest

from edgeproxy.caching.cache import Cache
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.parts import PART_BYTES
from edgeproxy.caching.purges import Selection
from edgeproxy.errors import UpstreamError
from edgeproxy.http import Body, Headers, Request, Response

from .conftest import Chunks, Clock, DictTier, FakeOrigin, Site, content, down, page, turns

FILM = random.Random(1).randbytes(5 * PART_BYTES + 12_345)
MAX_OBJECT_SIZE = 2 * PART_BYTES


@dataclass
class Film:
    """An origin with one large file, which it can cut ranges from."""

    content: bytes = FILM
    etag: str = '"v1"'
    fields: dict[str, str] = field(default_factory=lambda: {"Accept-Ranges": "bytes"})
    control: str = "max-age=60"
    asked: list[str] = field(default_factory=list)  # Range, or what else was asked

    def __call__(self, request: Request) -> Response:
        wanted = request.headers.get("range")
        known = request.headers.get("if-none-match")
        self.asked.append(wanted or (f"news of {known}" if known else request.method))
        fields = [("Cache-Control", self.control), *self.fields.items()]
        headers = Headers.of(*(fields + ([("ETag", self.etag)] if self.etag else [])))
        if known == self.etag:
            return Response(304, headers)
        spec = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
        if spec is None or request.headers.get("if-range", self.etag) != self.etag:
            return self.answer(200, headers, self.content)
        first, last = int(spec[1]), min(int(spec[2] or len(self.content)), len(self.content) - 1)
        headers.set("Content-Range", f"bytes {first}-{last}/{len(self.content)}")
        return self.answer(206, headers, self.content[first : last + 1])

    def answer(self, status: int, headers: Headers, content: bytes) -> Response:
        headers.set("Content-Length", str(len(content)))
        pieces = [content[at : at + 300_000] for at in range(0, len(content), 300_000)]
        return Response(status, headers, Chunks(*pieces).body(len(content)))


@pytest.fixture
def film() -> Film:
    return Film()


@pytest.fixture
def site(clock: Clock, film: Film) -> Site:
    tiers, origin = [DictTier()], FakeOrigin(clock)
    origin.will(film)
    cache = Cache(tiers, max_object_size=MAX_OBJECT_SIZE, now=clock)
    return Site(clock, origin, tiers, cache)


def parts(*numbers: int) -> list[str]:
    """The ranges that fetch these parts."""
    spans = [(n * PART_BYTES, min((n + 1) * PART_BYTES, len(FILM)) - 1) for n in numbers]
    return [f"bytes={first}-{last}" for first, last in spans]


async def test_a_range_is_fetched_in_parts_once(site: Site, film: Film) -> None:
    wanted = f"bytes={PART_BYTES - 10}-{PART_BYTES + 9}"
    first = await site.get(range=wanted)
    assert (first.verdict, first.response.status) == ("miss", 206)
    assert first.status == "edgeproxy; fwd=uri-miss; fwd-status=200; stored; ttl=60"
    assert await content(first) == FILM[PART_BYTES - 10 : PART_BYTES + 10]
    assert film.asked == ["GET", *parts(0, 1)]
    await site.cache.settled()
    again = await site.get(range=wanted)
    assert (again.verdict, again.status) == ("hit", "edgeproxy; hit; ttl=60; detail=memory")
    headers = again.response.headers
    assert headers.get("content-range") == f"bytes {PART_BYTES - 10}-{PART_BYTES + 9}/{len(FILM)}"
    assert headers.get("content-length") == "20"
    assert headers.get("etag") == '"v1"'
    assert await content(again) == FILM[PART_BYTES - 10 : PART_BYTES + 10]
    inside = await site.get(range="bytes=0-99")
    assert (inside.verdict, await content(inside)) == ("hit", FILM[:100])
    assert len(film.asked) == 3


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("bytes=0-", FILM),
        ("bytes=-5", FILM[-5:]),
        (f"bytes={5 * PART_BYTES}-", FILM[5 * PART_BYTES :]),
        (f"bytes=0-{PART_BYTES - 1}", FILM[:PART_BYTES]),
        (f"bytes={PART_BYTES}-{3 * PART_BYTES}", FILM[PART_BYTES : 3 * PART_BYTES + 1]),
    ],
)
async def test_ranges_of_any_form(site: Site, wanted: str, expected: bytes) -> None:
    for verdict in ("miss", "hit"):
        answer = await site.get(range=wanted)
        assert (answer.response.status, answer.verdict) == (206, verdict)
        assert await content(answer) == expected
        await site.cache.settled()


async def test_several_ranges_and_one_beyond_the_end(site: Site) -> None:
    several = await site.get(range=f"bytes=0-1,{3 * PART_BYTES}-{3 * PART_BYTES + 3}")
    assert several.response.status == 206
    body = await content(several)
    assert FILM[:2] in body
    assert FILM[3 * PART_BYTES : 3 * PART_BYTES + 4] in body
    beyond = await site.get(range="bytes=99999999-")
    assert beyond.response.status == 416
    assert beyond.response.headers.get("content-range") == f"bytes */{len(FILM)}"


async def test_what_is_missing_is_told(site: Site, film: Film) -> None:
    await content(await site.get(range="bytes=0-9"))
    await site.cache.settled()
    answer = await site.get(range=f"bytes=0-{PART_BYTES}")
    assert answer.verdict == "miss"
    assert answer.status == "edgeproxy; fwd=partial; fwd-status=206; ttl=60; detail=memory"
    assert await content(answer) == FILM[: PART_BYTES + 1]
    assert film.asked == ["GET", *parts(0, 1)]


async def test_a_part_is_never_taken_for_the_whole(site: Site, film: Film) -> None:
    await content(await site.get(range="bytes=0-9"))
    await site.cache.settled()
    for _ in range(2):
        whole = await site.get()
        assert (whole.response.status, whole.verdict) == (200, "pass")
        assert whole.status == "edgeproxy; fwd=bypass; fwd-status=200; detail=too_large"
        assert await content(whole) == FILM
        await site.cache.settled()
    found = site.cache.levels.get("key", Headers(), "identity", "site.example/")
    assert found.entry is None  # nor by who looks for himself
    assert film.asked == ["GET", *parts(0), "GET", "GET"]


async def test_who_asked_for_the_whole_prepares_for_ranges(site: Site, film: Film) -> None:
    assert await content(await site.get()) == FILM
    await site.cache.settled()
    answer = await site.get(range="bytes=5-9")
    assert await content(answer) == FILM[5:10]
    assert film.asked == ["GET", *parts(0)]


async def test_the_head_answers_head_and_conditions(site: Site, film: Film) -> None:
    await content(await site.get(range="bytes=0-9"))
    await site.cache.settled()
    head = await site.get(method="HEAD")
    assert (head.response.status, head.verdict) == (200, "hit")
    assert head.response.headers.get("content-length") == str(len(FILM))
    known = await site.get(if_none_match='"v1"')
    assert (known.response.status, known.verdict) == (304, "hit")
    assert await content(await site.get(if_none_match='"v0"')) == FILM
    other = await site.get(range="bytes=0-9", if_range='"v0"')
    assert (other.response.status, await content(other)) == (200, FILM)
    same = await site.get(range="bytes=0-9", if_range='"v1"')
    assert (same.response.status, same.verdict) == (206, "hit")


@pytest.mark.parametrize(
    "spoilt",
    [
        Film(etag='W/"v1"'),
        Film(etag=""),
        Film(fields={}),
        Film(fields={"Accept-Ranges": "none"}),
        Film(fields={"Accept-Ranges": "bytes", "Content-Encoding": "gzip"}),
        Film(control="private"),
    ],
    ids=["weak", "no tag", "silent", "none", "gzip", "private"],
)
async def test_what_cannot_be_told_apart_is_not_kept_in_parts(site: Site, spoilt: Film) -> None:
    site.origin.will(spoilt)
    for _ in range(2):
        answer = await site.get(range="bytes=0-9")
        got = await content(answer)
        assert got == (FILM[:10] if answer.response.status == 206 else FILM)
        await site.cache.settled()
    assert not site.tiers[0].entries
    assert "bytes=0-9" in spoilt.asked or spoilt.control == "private"


# ---------------------------------------------------------------- freshness and change


async def test_a_stale_head_is_revalidated_and_its_parts_go_on(site: Site, film: Film) -> None:
    await content(await site.get(range="bytes=0-9"))
    await site.cache.settled()
    site.clock.advance(61)
    answer = await site.get(range="bytes=0-9")
    assert (answer.verdict, await content(answer)) == ("revalidated", FILM[:10])
    await site.cache.settled()
    assert (await site.get(range="bytes=0-9")).verdict == "hit"
    assert film.asked == ["GET", *parts(0), 'news of "v1"']


async def test_a_ttl_of_the_policy_is_that_of_the_whole(site: Site, film: Film) -> None:
    film.control = "max-age=1"
    rule = CacheRule(ttl="1h")  # type: ignore[arg-type]
    await content(await site.get(range="bytes=0-9", rule=rule))
    await site.cache.settled()
    site.clock.advance(100)
    assert (await site.get(range="bytes=0-9", rule=rule)).verdict == "hit"
    shorter = CacheRule(ttl="10s")  # type: ignore[arg-type]
    assert (await site.get(range="bytes=0-9", rule=shorter)).verdict == "revalidated"


async def test_a_new_version_never_meets_parts_of_the_old_one(site: Site, film: Film) -> None:
    await content(await site.get(range="bytes=0-9"))
    await site.cache.settled()
    film.content, film.etag = FILM[::-1], '"v2"'
    site.clock.advance(61)
    answer = await site.get(range=f"bytes=0-{PART_BYTES}")
    assert answer.response.headers.get("etag") == '"v2"'
    assert await content(answer) == FILM[::-1][: PART_BYTES + 1]


async def test_a_version_that_is_gone_before_it_is_stale_gives_way(site: Site, film: Film) -> None:
    await content(await site.get(range="bytes=0-9"))
    await site.cache.settled()
    film.content, film.etag = FILM[::-1], '"v2"'
    wanted = f"bytes={3 * PART_BYTES}-{3 * PART_BYTES + 9}"
    answer = await site.get(range=wanted)
    assert answer.response.headers.get("etag") == '"v2"'
    assert await content(answer) == FILM[::-1][3 * PART_BYTES :][:10]
    await site.cache.settled()
    again = await site.get(range="bytes=0-9")
    assert await content(again) == FILM[::-1][:10]


async def test_a_change_in_the_middle_breaks_the_answer(site: Site, film: Film) -> None:
    answer = await site.get(range="bytes=0-")
    film.content, film.etag = FILM[::-1], '"v2"'
    with pytest.raises(UpstreamError, match="another version"):
        await content(answer)
    await site.cache.settled()
    again = await site.get(range=f"bytes=0-{2 * PART_BYTES}")
    assert again.response.headers.get("etag") in ('"v1"', '"v2"')


async def test_a_file_that_has_become_small_is_kept_whole(site: Site, film: Film) -> None:
    await content(await site.get(range="bytes=0-9"))
    await site.cache.settled()
    film.content, film.etag = b"short", '"v2"'
    site.clock.advance(61)
    answer = await site.get(range="bytes=0-1")
    assert (answer.response.status, await content(answer)) == (206, b"sh")
    await site.cache.settled()
    assert await content(await site.get()) == b"short"
    assert (await site.get()).verdict == "hit"


async def test_the_kept_parts_are_there_while_the_origin_is_down(site: Site) -> None:
    await content(await site.get(range="bytes=0-9"))
    await site.cache.settled()
    site.clock.advance(61)
    site.origin.will(down())
    answer = await site.get(range="bytes=0-9")
    assert (answer.verdict, await content(answer)) == ("stale", FILM[:10])
    with pytest.raises(UpstreamError):
        await site.get(range=f"bytes={3 * PART_BYTES}-")


@pytest.mark.parametrize("how", ["purge", "invalidate"])
async def test_a_purge_takes_the_parts_along(site: Site, film: Film, how: str) -> None:
    await content(await site.get(range="bytes=0-9"))
    await site.cache.settled()
    site.clock.advance(1)
    await getattr(site.cache, how)(Selection(urls=("site.example/",)))
    site.clock.advance(1)
    film.content = FILM[::-1]  # though the tag is the same
    answer = await site.get(range="bytes=0-9")
    if how == "purge":
        assert (answer.verdict, await content(answer)) == ("miss", FILM[::-1][:10])
    else:
        assert (answer.verdict, await content(answer)) == ("revalidated", FILM[:10])


async def test_tags_reach_the_parts(clock: Clock, site: Site, film: Film) -> None:
    film.fields["Cache-Tag"] = "films"
    await content(await site.get(range="bytes=0-9"))
    await site.cache.settled()
    assert {entry.tags for entry in site.tiers[0].entries.values()} == {("films",)}


# ---------------------------------------------------------------- sharing, memory and failures


async def test_a_part_is_fetched_once_for_all_who_wait(site: Site, film: Film) -> None:
    answers = await asyncio.gather(*[site.get(range=f"bytes={n}-{n + 9}") for n in range(20)])
    assert [await content(answer) for answer in answers] == [FILM[n : n + 10] for n in range(20)]
    assert film.asked == ["GET", *parts(0)]
    assert {answer.verdict for answer in answers} == {"miss", "collapsed"}


async def test_variants_have_parts_of_their_own(site: Site, film: Film) -> None:
    film.fields["Vary"] = "Accept-Language"
    await content(await site.get(range="bytes=0-9", accept_language="en"))
    await site.cache.settled()
    film.content, film.etag = FILM[::-1], '"de"'
    german = await site.get(range="bytes=0-9", accept_language="de")
    assert await content(german) == FILM[::-1][:10]
    await site.cache.settled()
    english = await site.get(range="bytes=0-9", accept_language="en")
    assert (english.verdict, await content(english)) == ("hit", FILM[:10])


async def test_without_memory_a_range_comes_at_the_client_s_pace(clock: Clock, film: Film) -> None:
    tiers, origin = [DictTier()], FakeOrigin(clock)
    origin.will(film)
    cache = Cache(tiers, max_object_size=MAX_OBJECT_SIZE, body_memory=PART_BYTES - 1, now=clock)
    site = Site(clock, origin, tiers, cache)
    wanted = f"bytes=5-{2 * PART_BYTES}"
    answer = await site.get(range=wanted)
    assert await content(answer) == FILM[5 : 2 * PART_BYTES + 1]
    assert film.asked == ["GET", wanted]
    assert cache.body_memory.used == 0


@pytest.mark.parametrize("fault", ["503", "short", "down", "other range"])
async def test_an_origin_that_fails_in_a_part(site: Site, film: Film, fault: str) -> None:
    await content(await site.get(range="bytes=0-9"))
    await site.cache.settled()

    def failing(request: Request) -> Response:
        answer = film(request)
        if fault == "down":
            raise down()
        if fault == "503":
            return page("unwell", status=503)
        if fault == "short":
            return Response(206, answer.headers, Body(b"x"))
        answer.headers.set("Content-Range", "bytes 1-2/3")
        return answer

    site.origin.will(failing)
    wanted = f"bytes={2 * PART_BYTES}-{2 * PART_BYTES + 5}"
    if fault == "other range":  # it is taken for another version, and its word for what it is
        answer = await site.get(range=wanted)
        assert answer.response.headers.get("content-range") == "bytes 1-2/3"
    else:
        with pytest.raises(UpstreamError):
            await site.get(range=wanted)
    await site.cache.settled()
    site.origin.will(film)
    assert await content(await site.get(range=wanted)) == FILM[2 * PART_BYTES :][:6]
    assert site.cache.body_memory.used == 0


async def test_a_client_that_leaves_does_not_stop_the_part(site: Site, film: Film) -> None:
    client = asyncio.ensure_future(site.get(range="bytes=0-9"))
    await turns()
    assert film.asked == ["GET", *parts(0)]
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)
    await site.cache.settled()
    answer = await site.get(range="bytes=0-9")
    assert (answer.verdict, await content(answer)) == ("hit", FILM[:10])


async def test_closing_ends_the_fetch_of_a_part(site: Site) -> None:
    await content(await site.get(range="bytes=0-9"))
    await site.cache.settled()
    site.origin.hold()
    client = asyncio.ensure_future(site.get(range=f"bytes={PART_BYTES}-"))
    await turns()
    await site.cache.close()
    with pytest.raises(UpstreamError, match="given up"):
        await client


async def test_parts_are_found_again_in_a_slow_tier(clock: Clock, film: Film) -> None:
    disk = DictTier("disk", slow=True)
    origin = FakeOrigin(clock)
    origin.will(film)
    for verdict in ("miss", "hit"):
        cache = Cache([DictTier(), disk], max_object_size=MAX_OBJECT_SIZE, now=clock)
        site = Site(clock, origin, [], cache)
        answer = await site.get(range="bytes=7-9")
        assert (answer.verdict, await content(answer)) == (verdict, FILM[7:10])
        await cache.settled()
    assert film.asked == ["GET", *parts(0)]


@pytest.mark.parametrize("seed", range(20))
async def test_no_range_ever_mixes_versions(clock: Clock, seed: int) -> None:
    """Ranges at random while the file changes under them, with bytes that tell its version."""
    chance = random.Random(seed)
    film = Film(control="max-age=2")
    versions: dict[str, bytes] = {}

    def publish() -> None:
        film.etag = f'"{len(versions)}"'
        size = 2 * PART_BYTES + chance.randrange(1, 2 * PART_BYTES)
        film.content = versions[film.etag] = chance.randbytes(size)

    publish()
    origin = FakeOrigin(clock)
    origin.will(film)
    cache = Cache([DictTier()], max_object_size=MAX_OBJECT_SIZE, now=clock)
    site = Site(clock, origin, [], cache)
    for _ in range(40):
        if chance.random() < 0.15:
            publish()
        first = chance.randrange(2 * PART_BYTES)
        last = first + chance.choice([10, PART_BYTES])
        try:
            answer = await site.get(range=f"bytes={first}-{last}")
            got = await content(answer)
        except UpstreamError:
            continue
        etag = answer.response.headers.get("etag") or ""
        assert got == versions[etag][first : last + 1]
        clock.advance(chance.choice([0, 0, 1]))
    await cache.settled()
    assert cache.body_memory.used == 0
