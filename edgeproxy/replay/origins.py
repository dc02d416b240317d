"""In the place of the origins: what they said when it was recorded, to whichever policy asks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import lru_cache

from edgeproxy.errors import UpstreamError
from edgeproxy.http import Body, Headers, Origin, Request, Response
from edgeproxy.traffic import Fetched, Visit
from edgeproxy.traffic.visit import asked_of

MAX_KNOWN = 100_000  # answers that are remembered, for those who were answered from the cache
MAX_BODY_BYTES = 8 * 1024 * 1024  # of the zeros that stand for a body

_PARTIAL = (206, 304)  # they are about an answer that is known otherwise
_OURS = ("age", "cache-status", "date", "proxy-status", "set-cookie", "via", "content-length")


class Origins:
    """`meet` a visit, then `fetch` as often as its decisions need."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Fetched] = OrderedDict()
        self._visit: Visit | None = None

    def meet(self, visit: Visit) -> None:
        """Let `visit` be the one that is decided, and learn from it."""
        self._visit, fetched = visit, visit.fetched
        if fetched is None or not fetched.asked or fetched.error or fetched.status in _PARTIAL:
            return
        self._known[fetched.asked] = fetched
        self._known.move_to_end(fetched.asked)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    async def fetch(self, origin: Origin, request: Request) -> Response:
        visit = self._visit
        assert visit is not None
        fetched = visit.fetched
        if fetched is not None and fetched.error and visit.status == fetched.status:
            raise UpstreamError(origin.name, fetched.error, "as recorded", status=fetched.status)
        found = self._known.get(asked_of(origin, request))
        if fetched is not None and not fetched.asked:  # the copy that was stored when it was a hit
            found = found if _same(found, fetched) else fetched
        return _response(found, visit)


def _same(found: Fetched | None, stored: Fetched) -> bool:
    return found is not None and all(
        found.headers.get(name) == stored.headers.get(name) for name in ("etag", "last-modified")
    )


def _response(found: Fetched | None, visit: Visit) -> Response:
    if found is not None:
        headers = found.headers.copy()
        headers.remove("date")  # it was given at another moment, and is as fresh now as then
        return Response(found.status, headers, _body(headers))
    if visit.recalled.by_itself:  # nothing is known of what an origin would have said
        return Response(200, Headers.of(("content-type", "text/html; charset=utf-8")))
    headers = visit.answer.copy() if visit.answer is not None else Headers()
    headers.remove(*_OURS)
    if "content-type" not in headers:
        headers.add("content-type", "text/html; charset=utf-8")
    status = visit.status if visit.status >= 200 and visit.status not in _PARTIAL else 200
    return Response(status, headers, Body(_zeros(min(visit.bytes, MAX_BODY_BYTES))))


def _body(headers: Headers) -> Body:
    """As long as it says, of zeros; what is larger than `MAX_BODY_BYTES` is told, and not there."""
    text = headers.get("content-length") or ""
    length = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
    if length > MAX_BODY_BYTES:
        return Body(None, stream=_nothing(), length=length)
    return Body(_zeros(length))


@lru_cache(maxsize=8)
def _zeros(length: int) -> bytes:
    return bytes(length)


async def _nothing() -> AsyncIterator[bytes]:
    for piece in tuple[bytes, ...]():
        yield piece
