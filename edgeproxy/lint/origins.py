"""Rules about origins: those that nothing comes from, and requests that they will not take."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from edgeproxy.lint.finding import Found, rule
from edgeproxy.lint.view import View
from edgeproxy.policy.policy import Route

_STATIC_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))


@rule("unused-origin", "warning")
def unused_origin(view: View) -> Found:
    """No route and no filter names the origin."""
    named = {name for route in view.policy.routes for name in origins_of(route)}
    named |= view.words_of_plugins
    for name, entry in view.entries("origins"):
        if name not in named:
            yield entry.key, f"no route sends anything to origin {name!r}", "remove it, or use it"


def origins_of(route: Route) -> set[str]:
    """The origins that a route names itself, and those that its filters may choose."""
    core = route.core
    named = {core.origin} if core.origin else {ref.name for ref in core.backend_refs}
    outcomes = (each for bound in route.filters for each in bound.filter.outcomes())
    return named | {outcome.origin for outcome in outcomes if outcome.origin}


@rule("plain-http-origin", "warning", certain=False)
def plain_http_origin(view: View) -> Found:
    """An origin out on the internet is fetched from without encryption."""
    for name, entry in view.entries("origins"):
        parts = urlsplit(view.policy.core.origins[name].url)
        if parts.scheme == "http" and not _is_near(parts.hostname or ""):
            reason = f"whoever is between here and {parts.hostname} can read and change its answers"
            place = (entry.node.get("url") or entry.node).place
            yield place, reason, "write https://"


def _is_near(host: str) -> bool:
    """Whether a host is on this machine or in a network of one's own, as far as its name tells."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        last = host.rpartition(".")[2]
        return "." not in host or last in ("localhost", "local", "internal", "lan", "test", "svc")


@rule("backend-without-weight", "warning")
def backend_without_weight(view: View) -> Found:
    """A backend of weight 0 is never chosen."""
    for route in view.policy.routes:
        refs = route.node.get("backend_refs")
        for ref, node in zip(route.core.backend_refs, refs.items if refs else (), strict=False):
            if not ref.weight:
                place = (node.get("weight") or node).place
                reason = f"origin {ref.name!r} has the weight 0 here and is never chosen"
                yield place, reason, "give it a weight, or remove it"


@rule("idle-websocket", "warning")
def idle_websocket(view: View) -> Found:
    """WebSockets go to `http` origins only, and the route has none."""
    for route in view.policy.routes:
        node = route.node.get("websocket")
        if node is not None and route.core.websocket and only_static(view, route):
            reason = "a pages origin takes no WebSockets, and this route has no other"
            yield node.place, reason, "write kind: http at the origin, or take websocket out"


@rule("refused-method", "warning")
def refused_method(view: View) -> Found:
    """A method is let in that the route's origins do not take: the answer is 405."""
    for route in view.policy.routes:
        if not only_static(view, route) or view.answers(route):
            continue
        for match in route.matches:
            for clause in match.clauses:
                asked = clause.matcher.constraints(clause.plugin.instance)
                values = [each.values for each in asked if each.subject == "method"]
                refused = sorted(values[0] - _STATIC_METHODS) if values else []
                if refused and clause.place:
                    reason = f"{', '.join(refused)} will be answered 405: a pages origin takes GET"
                    fix = "write kind: http at the origin, or take the method out"
                    yield clause.place, f"{reason} and HEAD", fix


def only_static(view: View, route: Route) -> bool:
    """Whether all that a route may ask are `pages` origins, as far as filters tell."""
    if any(hasattr(plugin.instance, "route") for plugin in view.policy.plugins):
        return False
    for bound in route.filters:
        if hasattr(bound.hooks, "route") and not any(bound.filter.outcomes()):
            return False
    return {view.policy.core.origins[name].kind for name in origins_of(route)} == {"pages"}
