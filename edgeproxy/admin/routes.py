"""All that the admin listener of one process answers."""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import web

from edgeproxy import __version__
from edgeproxy.admin.cache import CacheRoutes
from edgeproxy.admin.messages import answer
from edgeproxy.admin.metrics import MetricsRoutes
from edgeproxy.admin.policy import PolicyRoutes
from edgeproxy.admin.requests import RequestRoutes
from edgeproxy.app import App
from edgeproxy.metrics.counts import Reloads
from edgeproxy.metrics.snapshot import Snapshot, snapshot
from edgeproxy.rollout import Rollout


def routes(app: App, rollout: Rollout) -> list[web.RouteDef]:
    """What may be asked about an app and its policies."""
    return [*app_routes(app, rollout.reloads), *PolicyRoutes(rollout).routes()]


def app_routes(app: App, reloads: Reloads | None = None) -> list[web.RouteDef]:
    """What may be asked about an app alone; `reloads` are those of its policy, if it knows."""

    async def health(request: web.Request) -> web.Response:
        unwell = [asdict(report) for report in app.health.reports()]
        return answer({"status": "ok", "policy": app.plan.version, "origins_unwell": unwell})

    async def version(request: web.Request) -> web.Response:
        return answer({"edgeproxy": __version__, "policy": app.plan.version})

    async def counts() -> Snapshot:
        return snapshot(app.counts, app.plan, app.health)

    return [
        web.get("/health", health),
        web.get("/version", version),
        *CacheRoutes(app).routes(),
        *RequestRoutes(app).routes(),
        *MetricsRoutes(counts, reloads or Reloads()).routes(),
    ]
