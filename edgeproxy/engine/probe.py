"""Asking each origin once, before visitors do: `edgeproxy check --online` and `doctor`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from edgeproxy.engine.upstream import Upstream
from edgeproxy.errors import UpstreamError
from edgeproxy.fronting import VIA, loop_reason
from edgeproxy.http import Headers, Origin, Request, Response


@dataclass(frozen=True, slots=True)
class Probe:
    """What an origin answered for its own base; `trouble` is what is wrong, empty if nothing is."""

    origin: Origin
    response: Response | None
    trouble: str
    took_s: float


async def probe(origins: Iterable[Origin]) -> list[Probe]:
    """Ask each of `origins`, one after the other."""
    upstream = Upstream()
    try:
        return [await _asked(upstream, origin) for origin in origins]
    finally:
        await upstream.close()


async def _asked(upstream: Upstream, origin: Origin) -> Probe:
    headers = Headers.of(("accept", "*/*"), ("via", VIA))
    request = Request("HEAD", origin.authority, origin.base, headers=headers, scheme=origin.scheme)
    began_s = time.monotonic()
    try:
        response = await upstream.fetch(origin, request)
    except UpstreamError as error:
        trouble = f"{error.detail} ({error.error})"
        return Probe(origin, None, trouble, time.monotonic() - began_s)
    return Probe(origin, response, _judged(response, origin), time.monotonic() - began_s)


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
