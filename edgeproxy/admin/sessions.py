"""Who has signed in with a browser: signed cookies, of which nothing is kept.

`EXPIRY.SIGNATURE`, with HMAC-SHA256 by a key of this listener and the token: a new token, a new
start and signing out end all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable

COOKIE = "edgeproxy_session"
LASTS_S = 8 * 3600
MAX_FAILURES = 10
FAILURES_S = 60.0
"""After so many wrong tokens in so long none is looked at, whoever sends it."""

_DIGITS = 12
_MAX_LENGTH = 128


class Sessions:
    """Those of one listener. `now` is the wall clock, in seconds since 1970."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._key = secrets.token_bytes(32)
        self._failures: deque[float] = deque(maxlen=MAX_FAILURES)

    @property
    def wait_s(self) -> float:
        """How long nobody can sign in, because too many wrong tokens came."""
        if len(self._failures) < MAX_FAILURES:
            return 0.0
        return max(0.0, self._failures[0] + FAILURES_S - self._now())

    def begin(self, given: str, token: str) -> str | None:
        """A cookie for who has `given` the token; None for who has not."""
        if self.wait_s:
            return None
        if not hmac.compare_digest(_bytes(given), _bytes(token)):
            self._failures.append(self._now())
            return None
        expiry = str(int(self._now()) + LASTS_S)
        return f"{expiry}.{self._signature(expiry, token)}"

    def is_good(self, cookie: str, token: str) -> bool:
        """Whether this listener has made `cookie` for `token`, and it is not over."""
        expiry, dot, signature = cookie.partition(".")
        if not dot or len(cookie) > _MAX_LENGTH or not cookie.isascii():
            return False
        if not expiry.isdigit() or len(expiry) > _DIGITS:
            return False
        is_signed = hmac.compare_digest(signature, self._signature(expiry, token))
        return is_signed and self._now() < int(expiry)

    def end(self) -> None:
        """End all."""
        self._key = secrets.token_bytes(32)

    def _signature(self, expiry: str, token: str) -> str:
        key = hashlib.sha256(self._key + _bytes(token)).digest()
        return hmac.digest(key, f"edgeproxy-session {expiry}".encode(), hashlib.sha256).hex()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
