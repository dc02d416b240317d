"""Ranges cut from what is stored: one, several, from the end, beyond it, and under If-Range."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.caching.answers import MAX_RANGES, UNSATISFIABLE, byte_range, byte_ranges
from edgeproxy.caching.errand import Answer

from .conftest import Chunks, Site, page

FRESH = "max-age=60"
BODY = bytes(range(256)) * 8
DATE = "Tue, 14 Nov 2023 00:00:00 GMT"


async def stored(site: Site, **fields: str) -> None:
    head = page(cache_control=FRESH, content_type="image/png", **fields)
    head.body = Chunks(BODY).body(len(BODY))
    site.origin.will(head)
    await site.get()
    await site.cache.settled()


async def body_of(answer: Answer) -> bytes:
    return b"".join([chunk async for chunk in answer.response.body])


def parts_of(answer: Answer, body: bytes) -> list[tuple[str, bytes]]:
    """Content-Range and content of each part."""
    kind = answer.response.headers.get("content-type") or ""
    match = re.fullmatch(r"multipart/byteranges; boundary=([0-9a-f]+)", kind)
    assert match
    pieces = body.split(f"\r\n--{match[1]}".encode())
    assert (pieces[0], pieces[-1]) == (b"", b"--\r\n")
    found = []
    for piece in pieces[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        assert b"content-type: image/png" in head.lower()
        where = re.search(rb"(?i)content-range: (.*?)(\r|$)", head)
        assert where
        found.append((where[1].decode(), content))
    return found


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [("0-0", 0, 0), ("5-9", 5, 9), ("2000-", 2000, 2047), ("-3", 2045, 2047), ("9-9999", 9, 2047)],
)
async def test_one_range(site: Site, wanted: str, first: int, last: int) -> None:
    await stored(site)
    answer = await site.get(range=f"bytes={wanted}")
    assert answer.response.status == 206
    assert answer.response.headers.get("content-range") == f"bytes {first}-{last}/2048"
    assert await body_of(answer) == BODY[first : last + 1]
    assert site.fetches == 1


async def test_several_ranges_in_the_order_asked_for(site: Site) -> None:
    await stored(site)
    answer = await site.get(range="bytes=100-109, 0-4 ,, -2, 5000-")
    body = await body_of(answer)
    assert answer.response.status == 206
    assert answer.response.headers.get("content-length") == str(len(body))
    assert "content-range" not in answer.response.headers
    assert parts_of(answer, body) == [
        ("bytes 100-109/2048", BODY[100:110]),
        ("bytes 0-4/2048", BODY[:5]),
        ("bytes 2046-2047/2048", BODY[-2:]),
    ]


async def test_several_of_which_one_is_there_are_one(site: Site) -> None:
    await stored(site)
    answer = await site.get(range="bytes=0-4,5000-")
    assert answer.response.headers.get("content-range") == "bytes 0-4/2048"


@pytest.mark.parametrize("wanted", ["5000-", "-0", "9-5", "5000-,6000-"])
async def test_beyond_the_end(site: Site, wanted: str) -> None:
    await stored(site)
    answer = await site.get(range=f"bytes={wanted}")
    assert answer.response.status == 416
    assert answer.response.headers.get("content-range") == "bytes */2048"
    assert await body_of(answer) == b""


@pytest.mark.parametrize(
    "wanted",
    [
        "items=0-1", "bytes=", "bytes=a-b", "bytes=1", "bytes=0-1,x", "bytes=0-9,5-20",
        "bytes=0-1999,2000-2040", "bytes=" + ",".join(f"{n * 9}-{n * 9}" for n in range(50)),
    ],
)  # fmt: skip
async def test_what_is_not_worth_cutting_is_sent_whole(site: Site, wanted: str) -> None:
    await stored(site)
    answer = await site.get(range=wanted)
    assert (answer.response.status, await body_of(answer)) == (200, BODY)


@pytest.mark.parametrize(
    ("fields", "condition", "status"),
    [
        ({"etag": '"a"'}, '"a"', 206),
        ({"etag": '"a"'}, '"b"', 200),
        ({"etag": 'W/"a"'}, 'W/"a"', 200),
        ({"last_modified": "Mon, 13 Nov 2023 00:00:00 GMT", "date": DATE},
         "Mon, 13 Nov 2023 00:00:00 GMT", 206),
        ({"last_modified": DATE, "date": DATE}, DATE, 200),
        ({}, '"a"', 200),
    ],
)  # fmt: skip
async def test_if_range(site: Site, fields: dict[str, str], condition: str, status: int) -> None:
    await stored(site, **fields)
    for wanted in ("bytes=0-4", "bytes=0-4,8-9"):
        answer = await site.get(range=wanted, if_range=condition)
        assert answer.response.status == status


async def test_a_lazy_body_is_read_only_where_it_is_asked_for(site: Site) -> None:
    await stored(site)
    read: list[tuple[int, int]] = []

    class Lazy:
        def __len__(self) -> int:
            return len(BODY)

        async def stream(self, first: int, length: int) -> AsyncIterator[bytes]:
            read.append((first, length))
            yield BODY[first : first + length]

        async def read(self) -> bytes:
            raise AssertionError

        def is_same(self, data: bytes) -> bool:
            raise AssertionError

    entries = site.tiers[0].entries
    entries["key"] = replace(entries["key"], body=Lazy())
    answer = await site.get(range="bytes=3-5,-4")
    body = await body_of(answer)
    assert [content for _, content in parts_of(answer, body)] == [BODY[3:6], BODY[-4:]]
    assert read == [(3, 3), (2044, 4)]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=20), st.integers(0, 40))
def test_several_ranges_never_cost_more_than_the_whole(
    pairs: list[tuple[int, int]], size: int
) -> None:
    size *= 100
    found = byte_ranges("bytes=" + ",".join(f"{a}-{b}" for a, b in pairs), size)
    if found is None:
        return
    assert len(found) <= MAX_RANGES
    assert sum(last - first + 1 for first, last in found) <= size
    for (first, last), pair in zip(found, [p for p in pairs if p[0] <= p[1]], strict=False):
        assert 0 <= first <= last < size
        assert pair[0] <= last


def test_one_range_is_no_case_of_several() -> None:
    assert byte_ranges("bytes=0-1", 10) is None
    assert byte_range("bytes=20-", 10) == UNSATISFIABLE
