"""What a policy may say about caching; tiers add their own keys beside these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from edgeproxy.caching.encodings import Coding, zstd_compress
from edgeproxy.plugin import Config, Duration, Name, Size


class CacheRule(Config):
    """One entry of `cache.rules`: how long an answer may be kept and served.

    Absent means: as the origin says.
    """

    ttl: Duration | None = None  # in place of the origin's freshness, for 200
    status_ttl: dict[Annotated[int, Field(ge=200, le=599)], Duration] = Field(default={})
    browser_ttl: Duration | None = None  # `Cache-Control: max-age` towards the client
    stale_while_revalidate: Duration = 0
    stale_if_error: Duration = "1d"  # type: ignore[assignment]
    query: Literal["keep", "sort", "drop"] | tuple[str, ...] = "keep"  # a list: only these names
    heuristics: bool = True  # without stated freshness: a tenth of the time since Last-Modified
    heuristic_errors: bool = False  # that also for 405, 414, 501 and errors marked `public`
    share_cookies: bool = False  # store answers that set a cookie, if they state their freshness
    jitter: float = Field(default=0, ge=0, le=0.5)  # the share of a lifetime that is left to chance
    tags: tuple[str, ...] = ()  # names for purging, besides those that the origin gives
    keep_gone: Duration = 0  # go on serving what the origin answers 404 or 410 for, so long


class CacheConfig(Config):
    """The part of `cache` that no tier owns; tiers add their own keys (`memory`, `disk`)."""

    rules: dict[Name, CacheRule] = Field(default={})
    max_object_size: Size = "16MiB"  # type: ignore[assignment]
    status_key: bool = False  # show the cache key in Cache-Status
    encodings: tuple[Coding, ...] = ()  # made of stored answers in the background, the best first
    pass_tags: bool = False  # let clients see Cache-Tag and Surrogate-Key

    @field_validator("encodings")
    @classmethod
    def _can_be_made(cls, encodings: tuple[Coding, ...]) -> tuple[Coding, ...]:
        if "zstd" in encodings and zstd_compress() is None:
            raise ValueError("zstd needs Python 3.14, or: pip install backports.zstd")
        if len(set(encodings)) < len(encodings):
            raise ValueError("a coding is named twice")
        return encodings
