"""Entries as bytes: a JSON head, the content, and a digest over both and the name they stand under.

The content is the body and what the cache made of it in other codings, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from edgeproxy.api import Headers, Listed, StoredBody, StoredResponse


class Damaged(Exception):
    """What was read is not what was written."""


def name_of(id: str) -> bytes:
    """A name of fixed length for `id`, fit for a database key and, in hex, for a file."""
    return blake2b(id.encode("utf-8", "surrogatepass"), digest_size=20).digest()


def head_of(entry: StoredResponse) -> bytes:
    """Everything of `entry` but its body."""
    return json.dumps(
        {
            "key": entry.key,
            "status": entry.status,
            "headers": [
                [n.decode("latin-1"), v.decode("latin-1")] for n, v in entry.headers.fields
            ],
            "times": [entry.stored_at_s, entry.requested_at_s, entry.fresh_for_s, entry.age_s],
            "vary": entry.vary,
            "tags": entry.tags,
            "url": entry.url,
            "validators": entry.validators,
            "gone": entry.gone_at_s,
            "length": len(entry.body),
            "encoded": None
            if entry.encoded is None
            else [[coding, len(body)] for coding, body in entry.encoded],
        },
        separators=(",", ":"),
    ).encode()


def digest_of(name: bytes, head: bytes, content: bytes, *, is_file: bool = False) -> bytes:
    """What proves that these three belong together and are whole.

    Of a file, `content` is the digests of its blocks.
    """
    person = b"edgeproxy disk 3" if is_file else b"edgeproxy disk 2"
    digest = blake2b(name, digest_size=16, person=person)
    digest.update(len(head).to_bytes(8, "big"))
    digest.update(head)
    digest.update(content)
    return digest.digest()


Part = Callable[[int, int], StoredBody]
"""What stands at a place of the content, for so many bytes."""


def length_of(head: object) -> int:
    """The length of the content that belongs to `head`; Damaged if it does not say."""
    return sum(length for _, length in _parts(_loaded(head)))


def prove(name: bytes, head: object, content: object, digest: object, *, is_file: bool) -> None:
    """Raises Damaged unless these are what was written."""
    if digest_of(name, bytes_in(head), bytes_in(content), is_file=is_file) != digest:
        raise Damaged("the digest does not fit")


def entry_of(head: object, part: Part) -> StoredResponse:
    """The entry with this head and the content that `part` gives."""
    data = _loaded(head)
    (_, length), *others = _parts(data)
    encoded: list[tuple[str, StoredBody]] = []
    at = length
    for coding, size in others:
        encoded.append((coding, part(at, size)))
        at += size
    return _parsed(data, part(0, length), None if data["encoded"] is None else tuple(encoded))


def listed(head: object) -> Listed:
    """What `head` says, unproven, without the body."""
    data = _loaded(head)
    return Listed(_parsed(data, b"", None), length_of(head))


def _loaded(head: object) -> dict[str, Any]:
    try:
        data = json.loads(bytes_in(head))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"head: {error}") from error
    if not isinstance(data, dict):
        raise Damaged("head: no object")
    return data


def _parts(data: dict[str, Any]) -> list[tuple[str, int]]:
    """Coding and length of the parts of the content, the body first."""
    try:
        parts = [("", data["length"]), *((coding, size) for coding, size in data["encoded"] or ())]
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"head: {error}") from error
    if not all(isinstance(c, str) and isinstance(size, int) and size >= 0 for c, size in parts):
        raise Damaged("head: no lengths")
    return parts


def _parsed(
    data: dict[str, Any], body: StoredBody, encoded: tuple[tuple[str, StoredBody], ...] | None
) -> StoredResponse:
    try:
        stored_at_s, requested_at_s, fresh_for_s, age_s = data["times"]
        return StoredResponse(
            key=data["key"],
            status=data["status"],
            headers=Headers((n.encode("latin-1"), v.encode("latin-1")) for n, v in data["headers"]),
            body=body,
            stored_at_s=stored_at_s,
            requested_at_s=requested_at_s,
            fresh_for_s=fresh_for_s,
            age_s=age_s,
            vary=tuple((n, v) for n, v in data["vary"]),
            tags=tuple(data["tags"]),
            url=data.get("url", ""),
            validators=tuple((n, v) for n, v in data.get("validators", ())),
            gone_at_s=data.get("gone", 0.0),
            encoded=encoded,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"head: {error}") from error


def bytes_in(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise Damaged(f"{type(value).__name__} in the place of bytes")
    return value
