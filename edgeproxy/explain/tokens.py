"""Tokens that ask for explanations of live requests: signed, for one host, and soon over.

`HOST.EXPIRY.SIGNATURE`, with HMAC-SHA256 over all before the last dot; the expiry is in seconds
since 1970. Nothing about a token is kept: who has the key can check it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

MAX_TOKEN_LENGTH = 512
_DIGITS = 12


def make_token(key: str, host: str, until_s: float) -> str:
    """A token for requests to `host`, good until `until_s`."""
    claim = f"{host.lower()}.{int(until_s)}"
    return f"{claim}.{_signature(key, claim)}"


def is_good(token: str, key: str, host: str, now_s: float) -> bool:
    """Whether `token` was made with `key` for `host`, and is not over."""
    claim, dot, signature = token.rpartition(".")
    named, _, until = claim.rpartition(".")
    if not dot or len(token) > MAX_TOKEN_LENGTH or not token.isascii():
        return False
    if not until.isdigit() or len(until) > _DIGITS:
        return False
    is_signed = hmac.compare_digest(signature, _signature(key, claim))
    return is_signed and named == host.lower() and now_s < int(until)


def _signature(key: str, claim: str) -> str:
    digest = hmac.digest(key.encode(), f"edge-explain {claim}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
