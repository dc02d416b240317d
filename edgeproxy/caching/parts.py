"""Objects that are too large to be kept whole: kept in parts, for those who ask for ranges.

What stands under the key of such an object is its head alone, with status 206 and no bytes: it says
how long the whole is, how fresh it is, and by which strong entity tag its bytes are known. The
parts, all of one size, lie under keys of their own that name that tag, so that no two versions can
ever be mixed (RFC 9111, sections 3.3 and 3.4). Pure functions.
"""

from __future__ import annotations

from dataclasses import replace

from edgeproxy.caching.fields import members, seconds, strongly_equal
from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.http import Headers, Response

PART_BYTES = 1024 * 1024
"""nginx (`slice`) and Fastly (segmented caching) advise the same: a seek fetches little, and a
whole film is not many requests."""


def head_of(entry: StoredResponse, length: int) -> StoredResponse | None:
    """What is kept of a response of `length` bytes that is too large; None if ranges of it could
    not be told from those of another version, or the origin does not cut any."""
    if not can_be_cut(entry.status, entry.headers):
        return None
    headers = entry.headers.copy()
    headers.set("Content-Length", str(length))
    return replace(entry, status=206, headers=headers, body=b"")


def can_be_cut(status: int, headers: Headers) -> bool:
    """Whether its origin cuts ranges from this response, by which one can tell its version."""
    etags = headers.get_all("etag")
    return (
        status == 200
        and "bytes" in members(headers, "accept-ranges")
        and (headers.joined("content-encoding") or "identity").lower() == "identity"
        and len(etags) == 1
        and strongly_equal(etags[0], etags[0])
    )


def as_whole(head: StoredResponse) -> StoredResponse:
    """The response that `head` is of, but for its bytes."""
    return replace(head, status=200)


def length_of(head: StoredResponse) -> int:
    """How many bytes the whole has."""
    return seconds(head.headers.get("content-length")) or 0


def etag_of(head: StoredResponse) -> str:
    return head.headers.get("etag") or ""


def span_of(head: StoredResponse, number: int) -> tuple[int, int]:
    """First and last position of a part."""
    first = number * PART_BYTES
    return first, min(first + PART_BYTES, length_of(head)) - 1


def key_of(head: StoredResponse, number: int) -> str:
    """The key of a part. No other has such a line: what follows a NUL elsewhere is the name of a
    field, without a space (`variants.variant_id`)."""
    return f"{head.key}\0part {number} of {etag_of(head)}"


def part_of(
    head: StoredResponse, number: int, body: bytes, requested_at_s: float, now_s: float
) -> StoredResponse:
    """A part as it is kept. It is found, and purged, with the whole."""
    first, last = span_of(head, number)
    fields = Headers.of(
        ("ETag", etag_of(head)), ("Content-Range", f"bytes {first}-{last}/{length_of(head)}")
    )
    return StoredResponse(
        key=key_of(head, number),
        status=206,
        headers=fields,
        body=body,
        stored_at_s=now_s,
        requested_at_s=requested_at_s,
        fresh_for_s=0.0,  # the bytes of a strong tag never change; the head says how fresh it is
        tags=head.tags,
        url=head.url,
    )


def is_part(head: StoredResponse, number: int, entry: StoredResponse) -> bool:
    """Whether what was found in a tier is that part."""
    first, last = span_of(head, number)
    return entry.key == key_of(head, number) and len(entry.body) == last - first + 1


def is_cut_from(head: StoredResponse, first: int, last: int, response: Response) -> bool:
    """Whether `response` has these bytes of the same version (RFC 9110, section 15.3.7)."""
    headers = response.headers
    return (
        response.status == 206
        and strongly_equal(headers.get("etag") or "", etag_of(head))
        and headers.get_all("content-range") == [f"bytes {first}-{last}/{length_of(head)}"]
        and (headers.joined("content-encoding") or "identity").lower() == "identity"
    )
