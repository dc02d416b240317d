"""Routes of the admin listener about policies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from edgeproxy.admin.messages import Refusal, answer, read_body
from edgeproxy.app import App


class PolicyRoutes:
    """`routes` is what the listener serves of them."""

    def __init__(self, app: App, reload: Callable[[], Awaitable[str]]) -> None:
        self._app = app
        self._reload = reload

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/policy/reload", self._reloaded)]

    async def _reloaded(self, request: web.Request) -> web.Response:
        await read_body(request)
        faults = await self._reload()
        if faults:
            raise Refusal(409, "policy-faults", faults)
        return answer({"policy": self._app.plan.version})
