"""What must not get into a recording, and what stands there instead.

That a credential was sent stays known, as the cache goes by it; what it was does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from edgeproxy.http import Headers

REDACTED = "redacted"

_FIELDS = frozenset(
    (
        "authorization", "proxy-authorization", "authentication-info", "x-api-key", "x-auth-token",
        "x-csrf-token", "x-xsrf-token", "x-amz-security-token",
    )
)  # fmt: skip
_SECRET_NAME = re.compile(
    r"(?i)token|secret|passw|pwd|auth|session|signature|credential|otp|jwt|api-?_?key"
    r"|^(?:sid|sig|code|key|state|nonce|email)$"
)
_SECRET_VALUE = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9_\-.~+/=%]{24,}")
"""Long, and of letters and digits: a token, or a hash that somebody could look up."""


class Redaction:
    """`fields` are redacted besides those that always are; `keep_cookies` are globs of cookies
    whose values stay."""

    def __init__(self, fields: Iterable[str] = (), keep_cookies: Iterable[str] = ()) -> None:
        self._fields = _FIELDS | {name.lower() for name in fields}
        self._kept = tuple(keep_cookies)

    def query(self, query: str | None) -> str | None:
        """`query` with the values redacted that look like secrets, or whose names do."""
        if not query:
            return query
        return "&".join(map(self._pair, query.split("&")))

    def _pair(self, pair: str) -> str:
        name, equals, value = pair.partition("=")
        if not equals:
            return REDACTED if _SECRET_VALUE.fullmatch(pair) else pair
        is_secret = (
            name.lower() in self._fields
            or _SECRET_NAME.search(name) is not None
            or _SECRET_VALUE.fullmatch(value) is not None
        )
        return f"{name}={REDACTED}" if value and is_secret else pair

    def headers(self, headers: Headers) -> Headers:
        """A copy of `headers` without credentials."""
        return Headers([(key, self._value(key, value)) for key, value in headers.fields])

    def _value(self, key: bytes, value: bytes) -> bytes:
        name, text = key.decode("latin-1").lower(), value.decode("latin-1")
        if name == "cookie":
            text = "; ".join(self._cookie(pair.strip()) for pair in text.split(";"))
        elif name == "set-cookie":
            pair, semicolon, attributes = text.partition(";")
            text = self._cookie(pair.strip()) + semicolon + attributes
        elif name in self._fields:
            scheme, space, _ = text.partition(" ")
            text = f"{scheme} {REDACTED}" if space and "author" in name else REDACTED
        elif "?" in text:
            text = self.url(text)
        return text.encode("latin-1")

    def _cookie(self, pair: str) -> str:
        name, equals, _ = pair.partition("=")
        if any(fnmatchcase(name, pattern) for pattern in self._kept):
            return pair
        return f"{name}={REDACTED}" if equals else REDACTED

    def url(self, text: str) -> str:
        """`text`, a URL or a list of lines that end in one, with their queries redacted."""
        lines = []
        for line in text.split("\n"):
            before, mark, query = line.partition("?")
            lines.append(before + mark + (self.query(query) or ""))
        return "\n".join(lines)
