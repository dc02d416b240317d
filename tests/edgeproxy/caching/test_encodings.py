"""Other codings of what is stored: for whom, of what, and that they decode to the same bytes."""

from __future__ import annotations

import asyncio
import gzip
import random
from importlib import import_module

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeproxy.caching.cache import Cache
from edgeproxy.caching.config import CacheConfig
from edgeproxy.caching.encodings import (
    MAX_BYTES,
    MAX_WAITING,
    Encoder,
    chosen,
    encode,
    encoded_fields,
    gunzipped,
    is_encodable,
    wanted,
    with_vary,
    zstd_compress,
)
from edgeproxy.caching.errand import Answer
from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.http import Body, Headers, Request, Response
from tests.edgeproxy.caching.conftest import Clock, DictTier, FakeOrigin, Site

PAGE = b"".join(
    b"<p>All happy pages are alike; page %d is unhappy in its own way.</p>\n" % (number**3)
    for number in range(100)
)
ALL = ("br", "zstd", "gzip")

needs_zstd = pytest.mark.skipif(zstd_compress() is None, reason="needs backports.zstd")


def stored(body: bytes = PAGE, *fields: tuple[str, str], **changes: object) -> StoredResponse:
    given = Headers.of(*fields)
    if "content-type" not in given:
        given.add("Content-Type", "text/html; charset=utf-8")
    return StoredResponse(
        **{  # type: ignore[arg-type]
            "key": "key",
            "status": 200,
            "headers": given,
            "body": body,
            "stored_at_s": 0.0,
            "requested_at_s": 0.0,
            "fresh_for_s": 600.0,
            **changes,
        }
    )


def decoded(coding: str, data: bytes) -> bytes:
    if coding == "br":
        return bytes(brotli.decompress(data))
    if coding == "gzip":
        return gzip.decompress(data)
    try:
        module = import_module("compression.zstd")
    except ImportError:
        module = import_module("backports.zstd")
    return bytes(module.decompress(data))


# ---------------------------------------------------------------- who takes what


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("gzip, deflate, br, zstd", ("br", "zstd", "gzip")),
        ("gzip, deflate, br", ("br", "gzip")),
        ("br", ("br",)),
        ("BR;q=1.0, gzip;q=0.8", ("br", "gzip")),
        ("gzip;q=1.0, br;q=0.5", ("gzip",)),
        ("zstd;q=0.9, br;q=0.8", ("zstd", "br")),
        ("br;q=0, gzip", ("gzip",)),
        ("br;q=0.000, zstd;q=0", ()),
        ("br;q=nonsense", ()),
        ("br;level=5", ()),
        ("*", ("br", "zstd", "gzip")),
        ("*;q=0", ()),
        ("br, *;q=0", ("br",)),
        ("identity", ()),
        ("", ()),
        ("brotli, xbr, br2", ()),
        ("br,br;q=0", ()),
    ],
)
def test_a_client_gets_only_what_it_accepts(field: str, expected: tuple[str, ...]) -> None:
    assert wanted(field, ALL) == expected


def test_the_policy_decides_among_equals() -> None:
    assert wanted("gzip, br, zstd", ("zstd", "br")) == ("zstd", "br")
    assert wanted("gzip, br, zstd", ()) == ()


@given(st.text(max_size=60))
def test_any_field_is_read(field: str) -> None:
    named = {part.partition(";")[0].strip(" \t") for part in field.lower().split(",")}
    for coding in wanted(field, ALL):
        assert coding in named or "*" in named


# ---------------------------------------------------------------- of what


@pytest.mark.parametrize(
    "kind",
    [
        "text/html",
        "text/css; charset=utf-8",
        "TEXT/JavaScript",
        "application/json",
        "application/feed+json",
        "image/svg+xml",
        "application/wasm",
        "font/ttf",
    ],
)
def test_what_is_like_text_is_encoded(kind: str) -> None:
    assert is_encodable(stored(PAGE, ("Content-Type", kind)))


@pytest.mark.parametrize(
    "entry",
    [
        stored(PAGE, ("Content-Type", "image/png")),
        stored(PAGE, ("Content-Type", "font/woff2")),
        stored(PAGE, ("Content-Type", "")),
        stored(b"short"),
        stored(b"x" * (MAX_BYTES + 1)),
        stored(PAGE, status=404),
        stored(PAGE, status=206),
        stored(PAGE, ("Cache-Control", "public, no-transform")),
        stored(PAGE, ("Content-Encoding", "br")),
        stored(PAGE, ("Content-Encoding", "gzip, br")),
        stored(PAGE, ("Repr-Digest", "sha-256=:AAAA:")),
        stored(PAGE, ("Content-Digest", "sha-256=:AAAA:")),
        stored(PAGE, ("Content-MD5", "AAAA")),
    ],
)
def test_what_cannot_or_need_not_be_is_not(entry: StoredResponse) -> None:
    assert not is_encodable(entry)


# ---------------------------------------------------------------- the bytes


@needs_zstd
@pytest.mark.parametrize("seconds", [600.0, 10**6])
def test_what_is_made_decodes_to_the_same_bytes(seconds: float) -> None:
    made = encode(stored(fresh_for_s=seconds), ALL)
    assert [coding for coding, _ in made] == list(ALL)
    for coding, data in made:
        assert decoded(coding, data) == PAGE
        assert len(data) < len(PAGE) / 2


def test_what_is_gzip_at_the_origin_becomes_brotli_of_the_content() -> None:
    entry = stored(gzip.compress(PAGE * 3, 1), ("Content-Encoding", "gzip"))
    ((coding, data),) = encode(entry, ("br", "gzip"))
    assert coding == "br"
    assert decoded("br", data) == PAGE * 3


def test_what_saves_nothing_is_not_kept() -> None:
    noise = random.Random(1).randbytes(5000)
    assert encode(stored(noise), ("br", "gzip")) == ()


def test_damaged_or_huge_gzip_is_left_alone() -> None:
    whole = gzip.compress(PAGE)
    assert gunzipped(whole) == PAGE
    assert gunzipped(whole[:-4]) is None
    assert gunzipped(whole + whole) is None
    assert gunzipped(b"no gzip at all") is None
    assert gunzipped(gzip.compress(bytes(MAX_BYTES + 1))) is None
    assert encode(stored(whole[:-4], ("Content-Encoding", "gzip")), ("br",)) == ()


# ---------------------------------------------------------------- the head


def test_the_head_fits_the_coding() -> None:
    fields = [
        (b"Content-Type", b"text/html"),
        (b"content-encoding", b"gzip"),
        (b"Content-Length", b"999"),
        (b"ETag", b'"abc"'),
        (b"Vary", b"Cookie"),
    ]
    assert encoded_fields(with_vary(fields), "br", 12) == [
        (b"Content-Type", b"text/html"),
        (b"ETag", b'W/"abc"'),
        (b"Vary", b"Cookie"),
        (b"Vary", b"Accept-Encoding"),
        (b"Content-Encoding", b"br"),
        (b"Content-Length", b"12"),
    ]
    weak = [(b"ETag", b'W/"abc"'), (b"Vary", b"X, accept-encoding")]
    assert encoded_fields(with_vary(weak), "br", 12)[:2] == weak


def test_the_best_that_there_is_is_chosen() -> None:
    entry = stored(encoded=(("br", b"b"), ("gzip", b"g")))
    assert chosen(entry, ("zstd", "gzip", "br")) == ("gzip", b"g")
    assert chosen(entry, ("zstd",)) is None
    assert chosen(entry, ()) is None
    assert chosen(stored(), ("br",)) is None


# ---------------------------------------------------------------- the work


async def test_under_load_nothing_is_encoded() -> None:
    encoder = Encoder(("br",))
    encoder._waiting = {str(number) for number in range(MAX_WAITING)}
    assert not encoder.is_free("another")
    assert encoder.skipped == 1
    encoder._waiting.clear()
    assert encoder.is_free("another")
    ((coding, data),) = await encoder.encode("another", stored())
    assert (coding, decoded("br", data)) == ("br", PAGE)
    encoder._waiting.add("another")
    assert not encoder.is_free("another")  # it is being done


def test_a_policy_names_each_coding_once() -> None:
    assert CacheConfig().encodings == ()
    assert CacheConfig.model_validate({"encodings": ["br", "gzip"]}).encodings == ("br", "gzip")
    for wrong in (["br", "br"], ["deflate"], "br"):
        with pytest.raises(ValidationError):
            CacheConfig.model_validate({"encodings": wrong})


# ---------------------------------------------------------------- through the cache

BROWSER = "gzip, deflate, br, zstd"


@pytest.fixture
def encoding_site(clock: Clock) -> Site:
    tiers = [DictTier(), DictTier("disk", slow=True)]
    cache = Cache(tiers, max_object_size=1_000_000, now=clock, encodings=("br",))
    return Site(clock, FakeOrigin(clock), tiers, cache)


def compressing(request: Request) -> Response:
    """As GitHub Pages does it."""
    fields = [("Content-Type", "text/html"), ("Cache-Control", "max-age=600")]
    if request.headers.get("if-none-match") in ('"abc"', 'W/"abc"'):
        return Response(304, Headers.of(*fields))
    fields.append(("Vary", "Accept-Encoding"))
    if request.headers.get("accept-encoding") == "gzip":
        fields += [("Content-Encoding", "gzip"), ("ETag", 'W/"abc"')]
        return Response(200, Headers.of(*fields), Body(gzip.compress(PAGE)))
    return Response(200, Headers.of(*fields, ("ETag", '"abc"')), Body(PAGE))


async def content(answer: Answer) -> bytes:
    body = b"".join([chunk async for chunk in answer.response.body])
    coding = answer.response.headers.get("content-encoding")
    return decoded(coding, body) if coding and body else body


async def test_after_the_first_answer_clients_get_brotli(encoding_site: Site) -> None:
    site = encoding_site
    site.origin.will(compressing)
    first = await site.get(accept_encoding=BROWSER)
    assert first.response.headers.get("content-encoding") == "gzip"
    await site.cache.settled()
    second = site.at_once(accept_encoding=BROWSER)
    headers = second.response.headers
    assert headers.get("content-encoding") == "br"
    assert headers.get("etag") == 'W/"abc"'
    assert headers.get_all("vary") == ["Accept-Encoding"]
    assert second.response.body.length == int(headers.get("content-length") or 0)
    assert await content(second) == PAGE
    assert site.fetches == 1
    assert all(tier.entries for tier in site.tiers)
    for tier in site.tiers:
        assert [e.encoded is not None for e in tier.entries.values() if e.status] == [True]


async def test_nobody_gets_what_he_did_not_ask_for(encoding_site: Site) -> None:
    site = encoding_site
    site.origin.will(compressing)
    accepted = [BROWSER, "gzip", "br", "identity", "", "br;q=0, gzip", "gzip;q=1, br;q=0.1", "*"]
    for _ in range(3):
        for field in accepted:
            answer = await site.get(accept_encoding=field)
            await site.cache.settled()
            coding = answer.response.headers.get("content-encoding")
            assert coding in (None, "gzip", "br")
            if coding:
                assert coding in field or "*" in field
                assert f"{coding};q=0," not in field
            assert await content(answer) == PAGE
    plain = await site.get()
    assert "content-encoding" not in plain.response.headers
    assert site.fetches == 2


async def test_an_origin_without_compression_is_helped_out(clock: Clock) -> None:
    tiers = [DictTier()]
    cache = Cache(tiers, max_object_size=1_000_000, now=clock, encodings=("br", "gzip"))
    site = Site(clock, FakeOrigin(clock), tiers, cache)
    fields = Headers.of(
        ("Content-Type", "text/css"), ("Cache-Control", "max-age=60"), ("ETag", '"strong"')
    )
    site.origin.will(Response(200, fields, Body(PAGE)))
    assert "vary" not in (await site.get(accept_encoding=BROWSER)).response.headers
    await site.cache.settled()
    for field, coding, etag in (
        (BROWSER, "br", 'W/"strong"'),
        ("gzip", "gzip", 'W/"strong"'),
        ("identity", None, '"strong"'),
    ):
        answer = site.at_once(accept_encoding=field)
        assert answer.response.headers.get("content-encoding") == coding
        assert answer.response.headers.get("etag") == etag
        assert answer.response.headers.get("vary") == "Accept-Encoding"
        assert await content(answer) == PAGE
        again = site.at_once(accept_encoding=field, if_none_match=etag)
        assert again.response.status == 304
        assert again.response.headers.get("etag") == etag
    assert site.fetches == 1


async def test_a_range_is_cut_from_what_the_origin_sent(encoding_site: Site) -> None:
    site = encoding_site
    site.origin.will(compressing)
    for _ in range(2):
        for field in (BROWSER, "br"):
            await site.get(accept_encoding=field)
            await site.cache.settled()
    answer = await site.get(accept_encoding=BROWSER, range="bytes=10-19")
    assert answer.response.status == 206
    assert "content-encoding" not in answer.response.headers
    assert await content(answer) == PAGE[10:20]
    weak = await site.get(accept_encoding=BROWSER, range="bytes=10-19", if_range='W/"abc"')
    assert weak.response.status == 200
    assert await content(weak) == PAGE


async def test_head_tells_what_get_would_send(encoding_site: Site) -> None:
    site = encoding_site
    site.origin.will(compressing)
    await site.get(accept_encoding=BROWSER)
    await site.cache.settled()
    got = await site.get(accept_encoding=BROWSER)
    head = await site.get(accept_encoding=BROWSER, method="HEAD")
    assert head.response.headers == got.response.headers
    assert await content(head) == b""


async def test_a_revalidated_entry_keeps_its_codings(encoding_site: Site, clock: Clock) -> None:
    site = encoding_site
    site.origin.will(compressing)
    await site.get(accept_encoding=BROWSER)
    await site.cache.settled()
    clock.advance(700)
    answer = await site.get(accept_encoding=BROWSER)
    assert answer.verdict == "revalidated"
    assert answer.response.headers.get("content-encoding") == "br"
    assert await content(answer) == PAGE


async def test_codings_go_with_their_entry(encoding_site: Site) -> None:
    site = encoding_site
    site.origin.will(compressing)
    await site.get(accept_encoding=BROWSER)
    await site.cache.settled()
    await site.cache.forget("key")
    new = PAGE.replace(b"happy", b"merry")
    fields = Headers.of(("Content-Type", "text/html"), ("Cache-Control", "max-age=60"))
    site.origin.will(Response(200, fields, Body(new)))
    for _ in range(2):
        assert await content(await site.get(accept_encoding=BROWSER)) == new
        await site.cache.settled()


async def test_codings_of_what_was_replaced_meanwhile_are_dropped(encoding_site: Site) -> None:
    site = encoding_site
    levels = site.cache.levels
    old, new = stored(), stored(PAGE[::-1])
    await levels.put(new, Headers(), "identity")
    await levels.add_encoded("key", old, encode(old, ("br",)))
    assert [tier.entries["key"].encoded for tier in site.tiers] == [None, None]
    await levels.forget("key")
    await levels.add_encoded("key", new, encode(new, ("br",)))
    assert not any(tier.entries for tier in site.tiers)


async def test_what_needs_no_coding_is_asked_about_once(encoding_site: Site) -> None:
    site = encoding_site
    fields = Headers.of(("Content-Type", "image/png"), ("Cache-Control", "max-age=60"))
    site.origin.will(Response(200, fields, Body(PAGE)))
    await site.get(accept_encoding=BROWSER)
    await site.cache.settled()
    assert site.tiers[0].entries["key"].encoded == ()


async def test_what_was_stored_before_the_policy_changed_is_encoded_when_asked_for(
    encoding_site: Site,
) -> None:
    site = encoding_site
    before = Cache(site.tiers, max_object_size=1_000_000, now=site.clock)
    site.origin.will(compressing)
    await before.read_through(site.request(accept_encoding="gzip"), "key", None, site.origin)
    await before.settled()
    for coding in ("gzip", "br"):
        answer = await site.get(accept_encoding=BROWSER)
        assert answer.response.headers.get("content-encoding") == coding
        await site.cache.settled()
    assert site.fetches == 1


# ---------------------------------------------------------------- moving between tiers


async def test_a_promotion_does_not_bring_back_what_was_removed(clock: Clock) -> None:
    class Gated(DictTier):
        def __init__(self) -> None:
            super().__init__("disk", slow=True)
            self.gate = asyncio.Event()

        async def load(self, id: str) -> StoredResponse | None:
            found = self.entries.get(id)
            await self.gate.wait()
            return found

    memory, disk = DictTier(), Gated()
    disk.entries["key"] = stored(b"old")
    levels = Cache([memory, disk], max_object_size=1000, now=clock).levels
    for change in (
        levels._remove_all(["key"]),
        levels._put("key", stored(b"new")),
    ):
        disk.gate.clear()
        disk.entries["key"] = stored(b"old")
        memory.entries.clear()
        loading = asyncio.ensure_future(levels.load("key", Headers(), "identity"))
        await asyncio.sleep(0)
        await change
        disk.gate.set()
        found = await loading
        assert found.tier == "disk"
        assert memory.entries.get("key") != stored(b"old")
