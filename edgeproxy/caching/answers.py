"""From a whole response to what one client asked for: conditions, ranges, HEAD.

Pure functions after RFC 9110, sections 13 and 14.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import pairwise

from edgeproxy.caching.fields import (
    date_field,
    entity_tags,
    parse_date,
    strongly_equal,
    weakly_equal,
)
from edgeproxy.caching.tiers import Readable
from edgeproxy.http import Body, Headers, Request, Response

_ASKED = frozenset(
    (
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
        b"range",
        b"authorization",
        b"accept-encoding",
    )
)


@dataclass(slots=True)
class Asked:
    """What a request asks of the response: read in one pass, as it is read for every hit."""

    is_head: bool
    has_conditions: bool = False
    has_credentials: bool = False
    range: str | None = None
    accept_encoding: str | None = None

    @property
    def is_whole(self) -> bool:
        """It can only be answered with all of the content."""
        return not (self.is_head or self.has_conditions or self.range is not None)

    @classmethod
    def by(cls, request: Request) -> Asked:
        asked = cls(request.method == "HEAD")
        for name, value in request.headers.pick(_ASKED):
            if name == b"accept-encoding":
                text = value.decode("latin-1")
                first = asked.accept_encoding
                asked.accept_encoding = text if first is None else f"{first}, {text}"
            elif name == b"range":
                # Two Range lines have no meaning together.
                asked.range = value.decode("latin-1") if asked.range is None else ""
            elif name == b"authorization":
                asked.has_credentials = True
            elif name != b"if-range":
                asked.has_conditions = True
        if asked.is_head:
            asked.range = None  # Range is defined for GET only (RFC 9110, section 14.2)
        return asked


def precondition(
    request: Headers, status: int, headers: Headers, received_at_s: float, now_s: float
) -> int | None:
    """304 or 412 if the conditions of a GET or HEAD say so, else None.

    Order: RFC 9110, section 13.2.2. If-Match and If-Unmodified-Since are evaluated too, although
    a cache need not: the request that goes to the origin is without them, so nobody else would.
    """
    if not 200 <= status < 300:  # section 13.2.1
        return None
    etag = headers.get("etag")
    if_match = request.joined("if-match")
    if if_match is not None:
        if not _matches(if_match, etag, strongly_equal):
            return 412
    elif "if-unmodified-since" in request:
        limit_s = date_field(request, "if-unmodified-since", now_s)
        modified_s = date_field(headers, "last-modified", now_s)
        if limit_s is not None and modified_s is not None and modified_s > limit_s:
            return 412
    if_none_match = request.joined("if-none-match")
    if if_none_match is not None:
        return 304 if _matches(if_none_match, etag, weakly_equal) else None
    since_s = date_field(request, "if-modified-since", now_s)
    if since_s is None:
        return None
    # RFC 9111, section 4.3.2: without Last-Modified, Date; without both, the time of receipt.
    for name in ("last-modified", "date"):
        changed_s = date_field(headers, name, now_s)
        if changed_s is not None:
            return 304 if changed_s <= since_s else None
    return 304 if received_at_s <= since_s else None


def _matches(value: str, etag: str | None, equal: Callable[[str, str], bool]) -> bool:
    if value.strip(" \t") == "*":
        return True
    return etag is not None and any(equal(tag, etag) for tag in entity_tags(value))


UNSATISFIABLE = (-1, -1)
_BYTES = re.compile(r"bytes=[ \t,]*(.*?)[ \t,]*", re.ASCII | re.IGNORECASE)
_SPEC = re.compile(r"([0-9]*)-([0-9]*)", re.ASCII)


def byte_range(value: str, size: int) -> tuple[int, int] | None:
    """First and last position of a single range over `size` bytes (RFC 9110, section 14.1.2).

    None: answer with the whole, for another unit or a syntax error.
    UNSATISFIABLE: answer 416. That includes a last position before the first: the RFC leaves the
    choice, and GitHub Pages answers 416.
    """
    ranges = _BYTES.fullmatch(value)
    return _span(ranges[1], size) if ranges else None


MAX_RANGES = 16


def byte_ranges(value: str, size: int) -> list[tuple[int, int]] | None:
    """The ranges of a field with several, those beyond the end left out; empty: answer 416.

    None: answer with the whole. That goes also for many ranges, for ranges that overlap, and where
    they would take more bytes than the whole: only an attack asks so (RFC 9110, section 14.2).
    """
    ranges = _BYTES.fullmatch(value)
    specs = [spec for part in ranges[1].split(",") if (spec := part.strip(" \t"))] if ranges else []
    if not 1 < len(specs) <= MAX_RANGES:
        return None
    spans = [_span(spec, size) for spec in specs]
    found = [span for span in spans if span is not None and span != UNSATISFIABLE]
    ordered = sorted(found)
    overlap = any(one[1] >= two[0] for one, two in pairwise(ordered))
    if None in spans or overlap:
        return None
    if sum(last - first + 1 + PART_HEAD_BYTES for first, last in found) > size and len(found) > 1:
        return None
    return found


PART_HEAD_BYTES = 100
"""About what a part of a multipart answer needs besides its bytes."""


def _span(text: str, size: int) -> tuple[int, int] | None:
    spec = _SPEC.fullmatch(text)
    if spec is None or not (spec[1] or spec[2]):
        return None
    first = _position(spec[1]) if spec[1] else None
    last = _position(spec[2]) if spec[2] else None
    if first is None:
        assert last is not None
        if last == 0:
            return UNSATISFIABLE
        return (max(0, size - last), size - 1) if size else None
    if first >= size or (last is not None and last < first):
        return UNSATISFIABLE
    return first, size - 1 if last is None else min(last, size - 1)


def _position(digits: str) -> int:
    return int(digits) if len(digits) < 19 else 10**18


def if_range_holds(request: Headers, headers: Headers, now_s: float) -> bool:
    """Whether the range may be cut: no If-Range, or it names these very bytes.

    Only strong validators count (RFC 9110, section 13.1.5); a Last-Modified is one if the response
    was made at least a second later (section 8.8.2.2).
    """
    lines = request.get_all("if-range")
    if not lines:
        return True
    if len(lines) > 1:
        return False
    value = lines[0].strip(" \t")
    if value.startswith(('"', "W/")):
        return strongly_equal(value, headers.get("etag") or "")
    since_s = parse_date(value, now_s)
    modified_s = date_field(headers, "last-modified", now_s)
    date_s = date_field(headers, "date", now_s)
    if since_s is None or modified_s is None or date_s is None:
        return False
    return since_s == modified_s and date_s >= modified_s + 1


_OF_THE_BODY = frozenset(
    (
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"content-language",
        b"content-range",
    )
)


def _without_body(status: int, fields: list[tuple[bytes, bytes]]) -> Response:
    kept = [field for field in fields if field[0].lower() not in _OF_THE_BODY]
    if status != 304:
        kept.append((b"Content-Length", b"0"))
    return Response(status, Headers(kept))


def tailored(
    request: Request,
    asked: Asked,
    status: int,
    fields: list[tuple[bytes, bytes]],
    body: bytes | Readable,
    received_at_s: float,
    now_s: float,
) -> Response:
    """The answer to `request` out of a whole response: 200, 206, 304, 412 or 416.

    `fields` become the answer's own. A range is cut only from a plain 200: never from compressed
    bytes, where positions would mean something else than the client thinks.
    """
    headers = Headers()
    headers.fields = fields
    if asked.has_conditions:
        decided = precondition(request.headers, status, headers, received_at_s, now_s)
        if decided is not None:
            return _without_body(decided, fields)
    if asked.range is not None and status == 200:
        return _ranged(request, asked.range, headers, body, now_s)
    return Response(status, headers, Body() if asked.is_head else content(body))


def content(body: bytes | Readable, first: int = 0, length: int | None = None) -> Body:
    """`length` bytes of `body` from `first` on, or all of it."""
    if length is None:
        length = len(body)
    if isinstance(body, bytes):
        return Body(body if length == len(body) else body[first : first + length])
    return Body(None, stream=body.stream(first, length), length=length)


def _ranged(
    request: Request, wanted: str, headers: Headers, body: bytes | Readable, now_s: float
) -> Response:
    encoded = (headers.get("content-encoding") or "identity").lower() != "identity"
    span = None if encoded else byte_range(wanted, len(body))
    spans = [span] if span else None
    if span is None and not encoded and "," in wanted:
        spans = byte_ranges(wanted, len(body))
    if spans is None or not if_range_holds(request.headers, headers, now_s):
        return Response(200, headers, content(body))
    if not spans or spans == [UNSATISFIABLE]:
        refused = _without_body(416, headers.fields)
        refused.headers.add("Content-Range", f"bytes */{len(body)}")
        return refused
    if len(spans) > 1:
        return _parts(spans, headers, body)
    first, last = spans[0]
    headers.set("Content-Length", str(last - first + 1))
    headers.set("Content-Range", f"bytes {first}-{last}/{len(body)}")
    return Response(206, headers, content(body, first, last - first + 1))


def _parts(spans: list[tuple[int, int]], headers: Headers, body: bytes | Readable) -> Response:
    """Several ranges in the order in which they were asked for (RFC 9110, section 14.6)."""
    boundary = secrets.token_hex(12)  # nobody can have put it into the body
    of_each = "".join(
        f"{name}: {value}\r\n" for name, value in headers.items() if name.lower() == "content-type"
    )
    heads = [
        f"\r\n--{boundary}\r\n{of_each}Content-Range: bytes {first}-{last}/{len(body)}\r\n\r\n"
        .encode("latin-1")
        for first, last in spans
    ]  # fmt: skip
    end = f"\r\n--{boundary}--\r\n".encode()
    length = sum(last - first + 1 for first, last in spans) + sum(map(len, heads)) + len(end)

    async def stream() -> AsyncIterator[bytes]:
        for head, (first, last) in zip(heads, spans, strict=True):
            yield head
            async for piece in content(body, first, last - first + 1):
                yield piece
        yield end

    headers.set("Content-Type", f"multipart/byteranges; boundary={boundary}")
    headers.set("Content-Length", str(length))
    return Response(206, headers, Body(None, stream=stream(), length=length))


def without_conditions(headers: Headers) -> Headers:
    """`headers` of a request as they go to the origin for a whole response."""
    gone = _ASKED - {b"authorization", b"accept-encoding"}
    return Headers(field for field in headers.fields if field[0].lower() not in gone)
