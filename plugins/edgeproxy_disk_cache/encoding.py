"""Entries as bytes: a JSON head, a body, and a digest over both and the name they stand under."""

from __future__ import annotations

import json
from hashlib import blake2b

from edgeproxy.api import Headers, Listed, StoredResponse


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
        },
        separators=(",", ":"),
    ).encode()


def digest_of(name: bytes, head: bytes, body: bytes) -> bytes:
    """What proves that these three belong together and are whole."""
    digest = blake2b(name, digest_size=16, person=b"edgeproxy disk 1")
    digest.update(len(head).to_bytes(8, "big"))
    digest.update(head)
    digest.update(body)
    return digest.digest()


def length_of(head: object) -> int:
    """The length of the body that belongs to `head`; Damaged if it does not say."""
    try:
        length = json.loads(_bytes(head))["length"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"head: {error}") from error
    if not isinstance(length, int) or length < 0:
        raise Damaged("head: no length")
    return length


def entry_of(name: bytes, head: object, body: object, digest: object) -> StoredResponse:
    """The entry that was written. Raises Damaged if anything in it differs from that."""
    head, body = _bytes(head), _bytes(body)
    if digest_of(name, head, body) != digest:
        raise Damaged("the digest does not fit")
    return _parsed(head, body)


def listed(head: object) -> Listed:
    """What `head` says, unproven, without the body."""
    return Listed(_parsed(_bytes(head), b""), length_of(head))


def _parsed(head: bytes, body: bytes) -> StoredResponse:
    try:
        data = json.loads(head)
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
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"head: {error}") from error


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise Damaged(f"{type(value).__name__} in the place of bytes")
    return value
