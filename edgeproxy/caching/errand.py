"""What one client wants, and what it gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from edgeproxy.caching.answers import Asked, without_conditions
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.fields import validators
from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.errors import UpstreamError
from edgeproxy.health import Cause
from edgeproxy.http import Request, Response

Forward = Callable[[Request], Awaitable[Response]]
"""Sends a request to the origin, with the hooks around it. Raises UpstreamError."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client is sent. The head is its own to edit; the body may be shared."""

    response: Response
    verdict: str  # hit, miss, stale, revalidated, collapsed, pass
    status: str  # our member of Cache-Status (RFC 9211)
    cause: Cause | None = None  # the origin's failure for which a stored copy stands in
    hit: Hit | None = None  # the fresh copy that it was made of
    tier: str = ""  # that had what it was made of, if it was stored


@dataclass(slots=True)
class Hit:
    """A fresh stored response that answered, under `id` in `tier`, at the moment `at_s`."""

    id: str
    tier: str
    entry: StoredResponse
    url: str  # the public one
    at_s: float
    fresh_for_s: float  # from then on
    purges_seen: int = -1  # the version of the purges that it was held against


@dataclass(slots=True)
class Errand:
    """One client's request, and all that is needed to answer it."""

    request: Request
    key: str
    rule: CacheRule | None
    forward: Forward
    asked: Asked
    coding: str
    origin: str
    url: str  # the public one
    wanted: tuple[str, ...] = ()  # codings made here that the client takes, the best first

    def upstream_request(self, stale: StoredResponse | None) -> Request:
        """For the whole response, or for news of `stale` if that can be asked."""
        headers = without_conditions(self.request.headers)
        headers.set("Accept-Encoding", self.coding)
        if stale is not None:
            for name, value in stale.validators or validators(stale.headers):
                headers.set(name, value)
        return replace(self.request, method="GET", headers=headers)

    def own_request(self) -> Request:
        """With the client's conditions and range, for an answer that is its own."""
        headers = self.request.headers.copy()
        headers.set("Accept-Encoding", self.coding)
        return replace(self.request, headers=headers)

    def part_request(self, etag: str, first: int, last: int) -> Request:
        """For the bytes from `first` to `last`, if the version that `etag` names is still there."""
        request = self.upstream_request(None)
        request.headers.set("Accept-Encoding", "identity")
        request.headers.set("Range", f"bytes={first}-{last}")
        request.headers.set("If-Range", etag)
        return request

    def failure(self, error: str, detail: str, *, status: int = 502) -> UpstreamError:
        """What went wrong at this errand's origin, with an `error` of RFC 9209."""
        return UpstreamError(self.origin, error, detail, status=status)

    def given_up(self) -> UpstreamError:
        """The fetch was ended before the origin had answered."""
        return self.failure("connection_terminated", "the fetch was given up")
