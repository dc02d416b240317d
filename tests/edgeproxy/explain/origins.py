"""Origins of many moods: what they answer is by chance, but always the same for the same path."""

from __future__ import annotations

import zlib

from edgeproxy.http import Body, Headers, Response

STATUSES = (200, 200, 200, 200, 200, 204, 301, 404, 404, 500, 503)
FRESHNESS: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("cache-control", "max-age=600"),),
    (("cache-control", "max-age=600, public"), ("etag", '"1"')),
    (("cache-control", "s-maxage=60, max-age=0"), ("age", "20")),
    (("cache-control", "no-store"),),
    (("cache-control", "private, max-age=60"),),
    (("cache-control", "no-cache"), ("etag", '"1"')),
    (("cache-control", "max-age=60"), ("vary", "accept-language, x-plan")),
    (("cache-control", "max-age=60"), ("vary", "*")),
    (("cdn-cache-control", "max-age=60"), ("cache-control", "no-store")),
    (("expires", "Thu, 01 Jan 2099 00:00:00 GMT"),),
    (("last-modified", "Wed, 01 Jan 2020 00:00:00 GMT"),),
    (("cache-control", "max-age=60"), ("set-cookie", "a=b")),
    (("cache-control", "max-age=60"), ("cache-tag", "page")),
)


def answer(origin: str, path: str, saw: str) -> Response:
    """What the origin has at `path`: by chance, but always the same."""
    chance = zlib.crc32(f"{origin} {path}".encode())
    status = STATUSES[chance % len(STATUSES)]
    headers = Headers.of(("content-type", "text/html"), *FRESHNESS[chance // 64 % len(FRESHNESS)])
    if saw:
        headers.add("x-saw", saw)
    if status == 301:
        headers.add("location", "/docs/a")
    text = b"" if status == 204 else b'<a href="https://you.github.io/docs/a">%d</a>' % chance
    headers.add("content-length", str(len(text)))
    return Response(status, headers, Body(text))


def is_gone(path: str) -> bool:
    """Whether the origin breaks off instead of answering."""
    return zlib.crc32(path.encode()) % 13 == 0
