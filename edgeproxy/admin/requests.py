"""Routes of the admin listener about requests that were explained while they were served."""

from __future__ import annotations

from aiohttp import web

from edgeproxy.admin.messages import Refusal, answer, read_query
from edgeproxy.app import App


class RequestRoutes:
    """`routes` is what the listener serves of them."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/requests", self._listed),
            web.get("/requests/{id}", self._explained),
        ]

    async def _listed(self, request: web.Request) -> web.Response:
        read_query(request)
        return answer({"requests": self._app.explained.summaries()})

    async def _explained(self, request: web.Request) -> web.Response:
        read_query(request)
        found = self._app.explained.find(request.match_info["id"])
        if found is None:
            raise Refusal(404, "no-such-request", "no explanation is kept under this id")
        return answer(found)
