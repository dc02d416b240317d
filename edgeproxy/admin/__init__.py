"""The admin listener: what operators and their tools may see and do, on an address of its own.

`routes` is the table of all operations: what each takes (`asked`) and answers (`answers`).
`serving`, `metrics`, `cache`, `policy` and `requests` carry them out, `openapi` describes them,
`listener` says who may ask, by a token or one of the `sessions`, in `messages` of HTTP. `dashboard`
shows the answers in a browser.
"""

from edgeproxy.admin import asked
from edgeproxy.admin.admin import Admin
from edgeproxy.admin.cache import CacheOperations
from edgeproxy.admin.messages import Answer, Refusal
from edgeproxy.admin.metrics import MetricsOperations
from edgeproxy.admin.openapi import OpenApiOperations
from edgeproxy.admin.policy import PolicyOperations
from edgeproxy.admin.requests import RequestOperations
from edgeproxy.admin.routes import BY_OPERATION, Ask, Route, answered_by
from edgeproxy.admin.serving import ServingOperations
from edgeproxy.app import App
from edgeproxy.metrics.counts import Reloads
from edgeproxy.metrics.snapshot import Snapshot, snapshot


def app_operations(app: App, reloads: Reloads | None = None) -> tuple[object, ...]:
    """What may be asked about an app alone; `reloads` are those of its policy, if it knows."""

    async def counts() -> Snapshot:
        return snapshot(app.counts, app.plan, app.health)

    figures = MetricsOperations(counts, reloads or Reloads())
    return ServingOperations(app), figures, CacheOperations(app), RequestOperations(app)


__all__ = [
    "BY_OPERATION",
    "Admin",
    "Answer",
    "Ask",
    "MetricsOperations",
    "OpenApiOperations",
    "PolicyOperations",
    "Refusal",
    "Route",
    "answered_by",
    "app_operations",
    "asked",
]
