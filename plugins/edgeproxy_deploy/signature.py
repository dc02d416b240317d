"""What proves that a request comes from who knows the secret, as GitHub signs its webhooks."""

from __future__ import annotations

import hashlib
import hmac
import re

_SIGNATURE = re.compile(r"sha256=([0-9a-f]{64})", re.ASCII)


def is_signed(secret: str, body: bytes, signatures: list[str]) -> bool:
    """Whether the one signature is the HMAC SHA-256 of the raw body, in hex after `sha256=`.

    The time it takes says nothing about the right one.
    """
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    match = _SIGNATURE.fullmatch(signatures[0]) if len(signatures) == 1 else None
    return hmac.compare_digest(match[1] if match else "", expected)
