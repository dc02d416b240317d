"""Routes of the admin listener about the cache: purge it, look into it."""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import web

from edgeproxy.admin.messages import Refusal, answer, named_url, read_body, read_query
from edgeproxy.app import App
from edgeproxy.caching import contents
from edgeproxy.caching.purges import Selection
from edgeproxy.why import why

MAX_LISTED = 10_000


class CacheRoutes:
    """`routes` is what the listener serves of them."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/purge", self._purge),
            web.post("/invalidate", self._invalidate),
            web.get("/cache/objects", self._objects),
            web.get("/cache/object", self._object),
            web.get("/cache/stats", self._stats),
            web.post("/cache/verify", self._verify),
            web.get("/cache/why", self._why),
        ]

    async def _purge(self, request: web.Request) -> web.Response:
        return _marked(await self._app.purge(await _selection(request)))

    async def _invalidate(self, request: web.Request) -> web.Response:
        return _marked(await self._app.invalidate(await _selection(request)))

    async def _objects(self, request: web.Request) -> web.Response:
        query = read_query(request, "prefix", "limit")
        limit = query.get("limit", "100")
        if not (limit.isascii() and limit.isdigit() and 0 < int(limit[:9]) <= MAX_LISTED):
            raise Refusal(400, "bad-request", f"limit is a number from 1 to {MAX_LISTED}")
        cache = self._app.plan.cache
        found = await contents.objects(cache, query.get("prefix", ""), int(limit))
        return answer({"objects": found})

    async def _object(self, request: web.Request) -> web.Response:
        try:
            found = await contents.entries_of(self._app.plan.cache, named_url(request))
        except ValueError as error:
            raise Refusal(400, "bad-request", str(error)) from None
        if not found:
            raise Refusal(404, "not-stored", "nothing is stored for this URL")
        return answer({"objects": found})

    async def _stats(self, request: web.Request) -> web.Response:
        return answer(contents.stats(self._app.plan.cache))

    async def _verify(self, request: web.Request) -> web.Response:
        await read_body(request)
        checked = await contents.verify(self._app.plan.cache)
        return answer({"tiers": [asdict(one) for one in checked]})

    async def _why(self, request: web.Request) -> web.Response:
        url = named_url(request, "header")
        pairs = [text.partition(":") for text in request.query.getall("header", [])]
        try:
            report = await why(
                self._app.plan,
                self._app.fetch,
                url,
                [(name.strip(), value.strip()) for name, _, value in pairs],
            )
        except ValueError as error:
            raise Refusal(400, "bad-request", str(error)) from None
        return answer(report)


def _marked(not_kept: list[str]) -> web.Response:
    """A purge is in force; whether it would also be after a crash is said."""
    return answer({"done": True, "not_written_down_by": not_kept})


_LISTS = ("urls", "prefixes", "hosts", "tags")


async def _selection(request: web.Request) -> Selection:
    data = await read_body(request, known=(*_LISTS, "everything"))
    lists: dict[str, tuple[str, ...]] = {}
    for name in _LISTS:
        value = data.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise Refusal(400, "bad-request", f"{name} is a list of texts")
        lists[name] = tuple(value)
    everything = data.get("everything", False)
    if not isinstance(everything, bool):
        raise Refusal(400, "bad-request", "everything is true or false")
    if everything and any(lists.values()):
        raise Refusal(400, "bad-request", "everything stands alone")
    try:
        return Selection(**lists, everything=everything)
    except ValueError as error:
        raise Refusal(400, "bad-request", str(error)) from None
