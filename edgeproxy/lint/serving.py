"""Rules about what a route does with a request: filters and settings that have no say in it."""

from __future__ import annotations

from collections.abc import Iterator

from edgeproxy.lint.finding import Found, rule
from edgeproxy.lint.view import View
from edgeproxy.policy.policy import BoundFilter, Route
from edgeproxy.routing import literal_segments

_FETCHING = ("route", "cache_key", "before_fetch", "after_fetch", "fetch_failed", "recover")
_LATER = ("annotate", "before_send", "finish")
MANY_BYTES = 4 * 2**20


@rule("idle-filter", "warning")
def idle_filter(view: View) -> Found:
    """An earlier filter leaves nothing to do: it answers, or has an answer for every failure."""
    for route in view.policy.routes:
        for bound, reason in _idle(view, route):
            yield bound.place, f"{bound.key} has nothing to do here: {reason}", "remove it"


def _idle(view: View, route: Route) -> Iterator[tuple[BoundFilter, str]]:
    answering = view.answers(route)
    recovering: BoundFilter | None = None
    is_before = answering is not None
    for number, bound in enumerate(route.filters):
        is_own = number >= len(view.policy.filters)
        if bound is answering:
            is_before = False
        elif answering is not None and is_own and not _acts(bound, is_before):
            yield bound, f"{answering.key} answers every request of this route"
        elif recovering is not None and _only_recovers(bound):
            where = f"{recovering.place.file}:{recovering.place.line}"
            yield bound, f"{recovering.key} ({where}) comes first and answers every failure"
        if bound.filter.recovers:
            recovering = recovering or bound


def _acts(bound: BoundFilter, is_before: bool) -> bool:
    """Whether a filter does anything on a route that another one answers."""
    phases = (*_LATER, "admit") if is_before else _LATER
    return any(hasattr(bound.hooks, phase) for phase in phases) or not any(
        hasattr(bound.hooks, phase) for phase in (*_FETCHING, "admit")
    )


def _only_recovers(bound: BoundFilter) -> bool:
    others = (*_LATER, *_FETCHING[:-1], "admit")
    return hasattr(bound.hooks, "recover") and not any(hasattr(bound.hooks, o) for o in others)


@rule("idle-setting", "warning")
def idle_setting(view: View) -> Found:
    """A route that a filter answers says where it is fetched from, or how it is cached."""
    for route in view.policy.routes:
        answering = view.answers(route)
        for key in ("origin", "backend_refs", "cache", "websocket") if answering else ():
            entry = route.node.block.get(key)
            if entry is not None and answering is not None:
                reason = (
                    f"{key} has no say here: {answering.key} answers every request of this route"
                )
                yield entry.key, reason, "remove it"


@rule("body-buffering", "warning")
def body_buffering(view: View) -> Found:
    """Bodies are read into memory where that can be had cheaper."""
    for each in view.extents:
        for clause in each.match.clauses if each.match else ():
            size = clause.matcher.max_body_bytes
            if size and not literal_segments(each.path.pattern) and clause.place:
                reason = f"every body, whatever its path, is read up to {spelled(size)} for this"
                yield clause.place, reason, "put a path beside it that few requests have"
    for route in view.policy.routes:
        for bound in route.filters:
            size = bound.filter.max_body_bytes
            often = " for every request, as nothing is stored" if route.core.cache is False else ""
            if size > MANY_BYTES or (size and often):
                reason = f"{bound.key} holds up to {spelled(size)} of an answer in memory{often}"
                fix = "let the cache keep what it makes" if often else "make its max_size smaller"
                yield bound.place, reason, fix


def spelled(size: int) -> str:
    """`64KiB`, as a policy would say it."""
    unit = next((unit for unit in _UNITS if not size % _UNITS[unit]), "B")
    return f"{size // _UNITS[unit]}{unit}"


_UNITS = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}
