"""What QUIC lets a server know again without having kept it: whom it asked to come back, and which
connections it once had (RFC 9000, sections 8.1 and 10.3). Pure.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from typing import Any

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

RETRY_LIFETIME_S = 10

_TAG_BYTES = 16
_TIME_BYTES = 8


class QuicTokens:
    """Made of a `secret` that every process has which serves the same addresses: the private key of
    a certificate, of which nothing can be told from them. Without one they are good for this
    process alone."""

    def __init__(self, secret: PrivateKeyTypes | None) -> None:
        text = os.urandom(32) if secret is None else _text(secret)
        self._key = hmac.digest(b"edgeproxy: tokens of QUIC", text, hashlib.sha256)

    def reset_token(self, connection_id: bytes) -> bytes:
        """By which a client knows that the connection with this id is gone."""
        return self._tag(b"reset", connection_id)

    def retry_token(self, address: Any, first_id: bytes, retried_id: bytes, now_s: float) -> bytes:
        """For a client at `address` that first asked for the connection `first_id`, to be sent to
        `retried_id` in its place."""
        told = int(now_s).to_bytes(_TIME_BYTES) + first_id
        return told + self._tag(b"retry", _packed(address), retried_id, told)

    def first_id(self, token: bytes, address: Any, retried_id: bytes, now_s: float) -> bytes | None:
        """The id in a `token` that has come back in time from where it was sent, else None."""
        told, tag = token[:-_TAG_BYTES], token[-_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(b"retry", _packed(address), retried_id, told)):
            return None
        age_s = now_s - int.from_bytes(told[:_TIME_BYTES])
        return told[_TIME_BYTES:] if -1 <= age_s <= RETRY_LIFETIME_S else None

    def _tag(self, *parts: bytes) -> bytes:
        text = b"".join([len(part).to_bytes(2) + part for part in parts])
        return hmac.digest(self._key, text, hashlib.sha256)[:_TAG_BYTES]


def _packed(address: Any) -> bytes:
    host = ipaddress.ip_address(str(address[0]).partition("%")[0])
    return host.packed + int(address[1]).to_bytes(2)


def _text(secret: PrivateKeyTypes) -> bytes:
    return secret.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
