"""Operations of the admin listener on the cache: purge it, look into it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgeproxy.admin import asked
from edgeproxy.admin.messages import Refusal
from edgeproxy.app import App
from edgeproxy.caching import contents
from edgeproxy.traffic.redaction import Redaction
from edgeproxy.why import why

_REDACTION = Redaction()  # who lists what is stored need not learn tokens that stand in URLs


class CacheOperations:
    def __init__(self, app: App) -> None:
        self._app = app

    async def purge(self, what: asked.Selection) -> dict[str, Any]:
        return _marked(await self._app.purge(what.selection()))

    async def invalidate(self, what: asked.Selection) -> dict[str, Any]:
        return _marked(await self._app.invalidate(what.selection()))

    async def cache_objects(self, what: asked.Listing) -> dict[str, Any]:
        found = await contents.objects(self._app.plan.cache, what.prefix, what.limit)
        return {"objects": [{**one, "url": _REDACTION.url(one["url"])} for one in found]}

    async def cache_object(self, what: asked.Stored) -> dict[str, Any]:
        try:
            found = await contents.entries_of(self._app.plan.cache, what.url)
        except ValueError as error:
            raise Refusal(400, "bad-request", str(error)) from None
        if not found:
            raise Refusal(404, "not-stored", "nothing is stored for this URL")
        return {"objects": found}

    async def cache_stats(self, _: asked.Nothing) -> dict[str, Any]:
        return contents.stats(self._app.plan.cache)

    async def cache_verify(self, _: asked.Nothing) -> dict[str, Any]:
        checked = await contents.verify(self._app.plan.cache)
        return {"tiers": [asdict(one) for one in checked]}

    async def cache_why(self, what: asked.Wondered) -> dict[str, Any]:
        pairs = [text.partition(":") for text in what.header]
        try:
            return await why(
                self._app.plan,
                self._app.fetch,
                what.url,
                [(name.strip(), value.strip()) for name, _, value in pairs],
            )
        except ValueError as error:
            raise Refusal(400, "bad-request", str(error)) from None


def _marked(not_kept: list[str]) -> dict[str, Any]:
    """A purge is in force; whether it would also be after a crash is said."""
    return {"done": True, "not_written_down_by": not_kept}
