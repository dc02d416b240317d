"""What a policy may say about caching; tiers add their own keys beside these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from edgeproxy.caching.encodings import Coding, zstd_compress
from edgeproxy.plugin import Config
from edgeproxy.values import Duration, FieldName, Name, Size, Token


class KeyParts(Config):
    """What of a request stands in the cache key, besides the target."""

    headers: tuple[FieldName, ...] = ()
    """Fields by which answers differ though the origin does not say so in `Vary`."""
    cookies: tuple[Token, ...] = ()
    """Cookies by which answers differ; of a `Cookie` field only these count."""

    @property
    def is_empty(self) -> bool:
        return not (self.headers or self.cookies)


class CacheRule(Config):
    """How long answers may be kept and served. What is absent is as the origin says."""

    ttl: Duration | None = None
    """How long a 200 is fresh, in place of what the origin says."""
    status_ttl: Annotated[
        dict[Annotated[int, Field(ge=200, le=599)], Duration],
        Field(json_schema_extra={"propertyNames": {"pattern": "^[2-5][0-9][0-9]$"}}),
    ] = Field(default={})
    """The same by status, such as `{301: 5m, 404: 30s}`."""
    browser_ttl: Duration | None = None
    """`Cache-Control: max-age` towards the client."""
    stale_while_revalidate: Duration = 0
    """How long a stale copy may be served while a new one is fetched."""
    stale_if_error: Duration = "1d"  # type: ignore[assignment]
    """How long a stale copy may be served while the origin fails."""
    query: Literal["keep", "sort", "drop"] | tuple[str, ...] = "keep"
    """`keep`, `sort` or `drop` the query, or a list of the names that count."""
    ignore_query: tuple[str, ...] = ()
    """Names that do not count and are not sent on, such as `utm_*`."""
    key: KeyParts = KeyParts()
    """More of the request that answers depend on: `headers` and `cookies` by name."""
    heuristics: bool = True
    """Without stated freshness: a tenth of the time since `Last-Modified`."""
    heuristic_errors: bool = False
    """That also for 405, 414, 501 and errors marked `public`."""
    share_cookies: bool = False
    """Store answers that set a cookie, if they state their freshness."""
    jitter: float = Field(default=0, ge=0, le=0.5)
    """The share of a lifetime left to chance, so that pages do not expire together."""
    tags: tuple[str, ...] = ()
    """Names for purging, besides those that the origin gives."""
    keep_gone: Duration = 0
    """How long to go on serving what the origin answers 404 or 410 for."""


class CacheConfig(Config):
    """The part of `cache` that no tier owns; tiers add their own keys (`memory`, `disk`)."""

    rules: dict[Name, CacheRule] = Field(default={})
    """Rules by name; a route chooses one with `cache: NAME`."""
    max_object_size: Size = "16MiB"  # type: ignore[assignment]
    """Longer answers pass through and are not kept."""
    status_key: bool = False
    """Show the key of an answer in `Cache-Status`."""
    encodings: tuple[Coding, ...] = ()
    """Codings to make of stored answers in the background, the best first."""
    pass_tags: bool = False
    """Let clients see `Cache-Tag` and `Surrogate-Key`."""

    @field_validator("encodings")
    @classmethod
    def _can_be_made(cls, encodings: tuple[Coding, ...]) -> tuple[Coding, ...]:
        if "zstd" in encodings and zstd_compress() is None:
            raise ValueError("zstd needs Python 3.14, or: pip install backports.zstd")
        if len(set(encodings)) < len(encodings):
            raise ValueError("a coding is named twice")
        return encodings
