"""All that the admin listener of one process answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict

from aiohttp import web

from edgeproxy import __version__
from edgeproxy.admin.cache import CacheRoutes
from edgeproxy.admin.messages import answer
from edgeproxy.admin.policy import PolicyRoutes
from edgeproxy.app import App


def routes(app: App, reload: Callable[[], Awaitable[str]]) -> list[web.RouteDef]:
    """What may be asked about `app`. `reload` gives the faults of the policies, if any."""

    async def health(request: web.Request) -> web.Response:
        unwell = [asdict(report) for report in app.health.reports()]
        return answer({"status": "ok", "policy": app.plan.version, "origins_unwell": unwell})

    async def version(request: web.Request) -> web.Response:
        return answer({"edgeproxy": __version__, "policy": app.plan.version})

    return [
        web.get("/health", health),
        web.get("/version", version),
        *CacheRoutes(app).routes(),
        *PolicyRoutes(app, reload).routes(),
    ]
