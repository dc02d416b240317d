"""Operations of the admin listener on what serves: its health, its parts, and what it logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from edgeproxy import __version__, log
from edgeproxy.admin import asked
from edgeproxy.admin.messages import Refusal
from edgeproxy.app import App
from edgeproxy.health import Report
from edgeproxy.hooks import Hooks
from edgeproxy.plan import Plan
from edgeproxy.policy.policy import LoadedPlugin, Policy
from edgeproxy.recent import Recent

HOOKS = tuple(name for name in vars(Hooks) if not name.startswith("_"))


class ServingOperations:
    def __init__(self, app: App) -> None:
        self._app = app

    async def health(self, _: asked.Nothing) -> dict[str, Any]:
        unwell = [asdict(report) for report in self._app.health.reports()]
        return {"status": "ok", "policy": self._app.plan.version, "origins_unwell": unwell}

    async def ready(self, _: asked.Nothing) -> dict[str, Any]:
        if self._app.is_draining:
            raise Refusal(503, "draining", "it finishes what is under way, and ends")
        if not self._app.has_policy:
            raise Refusal(503, "no-policy", "no policy is in force")
        if self._app.has_stalled:
            raise Refusal(503, "stalled", "the event loop stood still; the log says who held it up")
        return {"ready": True, "policy": self._app.plan.version}

    async def version(self, _: asked.Nothing) -> dict[str, Any]:
        return {"edgeproxy": __version__, "policy": self._app.plan.version}

    async def origins(self, _: asked.Nothing) -> dict[str, Any]:
        unwell = {report.origin: report for report in self._app.health.reports()}
        return {
            "origins": [
                {
                    "name": name,
                    "url": f"{origin.scheme}://{origin.authority}{origin.base}",
                    "static": origin.static,
                    **_well(unwell.get(origin.authority) or Report(origin.authority, "healthy")),
                }
                for name, origin in self._app.plan.origins.items()
            ]
        }

    async def experiments(self, _: asked.Nothing) -> dict[str, Any]:
        recent, plan = self._app.recent or Recent(), self._app.plan
        seen, assigned = recent.report()["variants"], recent.assigned(plan.version)
        return {"experiments": list(_experiments(plan.policy, seen, assigned))}

    async def plugins(self, _: asked.Nothing) -> dict[str, Any]:
        plan = self._app.plan
        return {"plugins": [_plugin(plan, plugin) for plugin in plan.plugins]}

    async def log_level(self, _: asked.Nothing) -> dict[str, Any]:
        return {"level": log.level()}

    async def set_log_level(self, what: asked.LogLevel) -> dict[str, Any]:
        log.set_level(what.level)
        return {"level": log.level()}


def _well(report: Report) -> dict[str, Any]:
    """The health of an origin, whose name and authority are told beside it."""
    told = asdict(report)
    del told["origin"]
    return told


def _experiments(
    policy: Policy, seen: Mapping[str, int], assigned: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    """The splits that the policy speaks of, whichever plugin makes them; `seen` are requests by
    `EXPERIMENT=VARIANT`, as the access log has them, and `assigned` those of new visitors."""
    section = policy.expanded.get("experiments", {})
    for name, spec in section.items():
        weights: Mapping[str, float] = spec["weights"]
        total = sum(weights.values())
        yield {
            "name": name,
            "variants": [
                {
                    "name": variant,
                    "share": weight / total,
                    "requests": seen.get(f"{name}={variant}", 0),
                    "assigned": assigned.get(f"{name}={variant}", 0),
                }
                for variant, weight in weights.items()
            ],
            "routes": [
                route.core.name
                for route in policy.routes
                for bound in route.filters
                if bound.key == "experiment" and getattr(bound.filter, "name", None) == name
            ],
        }


def _plugin(plan: Plan, plugin: LoadedPlugin) -> dict[str, Any]:
    """What a plugin is, and when it acts: itself, or by filters of routes."""
    distribution, _, version = plugin.distribution.partition(" ")
    acting = [plugin.instance, *(
        bound.hooks
        for route in plan.policy.routes
        for bound in route.filters
        if bound.plugin is plugin
    )]  # fmt: skip
    return {
        "name": plugin.name,
        "version": version,
        "distribution": distribution,
        "phases": [hook for hook in HOOKS if any(hasattr(type(one), hook) for one in acting)],
        "matches": sorted(plugin.instance.matchers),
        "filters": sorted(plugin.instance.filters),
    }
