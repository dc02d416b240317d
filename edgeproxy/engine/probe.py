"""Asking each origin once, before visitors do: `edgeproxy check --online`."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from edgeproxy.engine.upstream import Upstream
from edgeproxy.errors import UpstreamError
from edgeproxy.fronting import VIA, loop_reason
from edgeproxy.http import Headers, Origin, Request, Response


async def probe(origins: Iterable[Origin]) -> list[str]:
    """What is wrong with `origins` as they answer now, a line each; empty if nothing is."""
    upstream = Upstream()
    try:
        found = [(origin, await _trouble(upstream, origin)) for origin in origins]
    finally:
        await upstream.close()
    return [f"origin {origin.name!r}: {trouble}" for origin, trouble in found if trouble]


async def _trouble(upstream: Upstream, origin: Origin) -> str:
    headers = Headers.of(("accept", "*/*"), ("via", VIA))
    request = Request("HEAD", origin.authority, origin.base, headers=headers, scheme=origin.scheme)
    try:
        response = await upstream.fetch(origin, request)
    except UpstreamError as error:
        return f"{error.detail} ({error.error})"
    return _judged(response, origin)


def _judged(response: Response, origin: Origin) -> str:
    """What an origin's answer for its own base says is wrong with it; empty if nothing is."""
    location = response.headers.get("location") or ""
    if 300 <= response.status < 400 and urlsplit(location).hostname:
        elsewhere = urlsplit(location).hostname != origin.host
        to_https = origin.scheme == "http" and urlsplit(location).scheme == "https"
        return loop_reason(location, origin) if elsewhere or to_https else ""
    if response.status == 404 and origin.static:
        return f"there is no page at {origin.base}; is the base path of its url right?"
    if response.status >= 500:
        return f"it answers {response.status} for {origin.base}"
    return ""
