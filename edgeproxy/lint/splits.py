"""Rules about splits: visitors of a variant who get a part of the site from another one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from edgeproxy.claims import Outcome
from edgeproxy.lint.extents import Extent
from edgeproxy.lint.finding import Found, rule
from edgeproxy.lint.redirects import first_visit, place_of, taker
from edgeproxy.lint.view import View
from edgeproxy.policy.policy import Route

_ASSET = re.compile(
    r"/(assets?|static|_static|_next|_nuxt|_app|_astro|css|styles?|js|scripts?|img|images?|_images"
    r"|fonts?|media|dist|build|bundles?)(/|$)"
    r"|\.(css|m?js|png|jpe?g|gif|svg|webp|avif|ico|woff2?|ttf|map|wasm)$"
)
_ASSETS_OF_A_PAGE = ("/assets/app.js", "/style.css")


@dataclass(frozen=True)
class Side:
    """Where the visitors in one case of a split are served from."""

    origins: frozenset[str]
    prefix: str | None


def side(route: Route, split: str, case: str) -> Side:
    """The origin and prefix of a route for the visitors in `case`."""
    core = route.core
    origins = (
        {core.origin} if core.origin else {ref.name for ref in core.backend_refs if ref.weight}
    )
    prefix: str | None = None
    for bound in route.filters:
        for outcome in bound.filter.outcomes():
            if not outcome.split or (outcome.split, outcome.case) == (split, case):
                origins = {outcome.origin} if outcome.origin else origins
                prefix = outcome.prefix or prefix
    return Side(frozenset(origin for origin in origins if origin), prefix)


@rule("split-assets", "warning", certain=False)
def split_assets(view: View) -> Found:
    """A variant's pages come from one place, and what they load from another."""
    for route in view.policy.routes:
        for bound in route.filters:
            for outcome in bound.filter.outcomes():
                if outcome.split and (outcome.origin or outcome.prefix):
                    escape = next(_escapes(view, route, outcome), None)
                    if escape is not None:
                        path, other = escape
                        reason = (
                            f"{outcome.case!r} of {outcome.split} changes where pages come from, "
                            f"but {path}, say, is taken by {other} and comes from where it did"
                        )
                        fix = f"write the same {outcome.split} there, or let this route take both"
                        yield place_of(bound, outcome), reason, fix


def _escapes(view: View, route: Route, outcome: Outcome) -> Iterator[tuple[str, Extent]]:
    """Paths of assets that another route takes and serves from elsewhere."""
    here = side(route, outcome.split, outcome.case)
    for extent, path in _assets(view, route):
        other = taker(view, first_visit(extent, outcome, path))
        if other is None or other.route is route or view.answers(other.route):
            continue
        if side(other.route, outcome.split, outcome.case) != here:
            yield path, other


def _assets(view: View, route: Route) -> Iterator[tuple[Extent, str]]:
    """Paths that visitors of a route will ask for: assets, by the look of them.

    Those that the route itself would take but for another one, and, of a route that has single
    pages only, what pages usually load.
    """
    extents = view.of(route)
    if all(extent.path.literal is not None for extent in extents):
        yield from ((extents[0], path) for path in _ASSETS_OF_A_PAGE)
    for other in view.extents:
        path = other.path.filled("x", "/x")
        if not _ASSET.search(path) or not other.path.holds(path):
            continue
        for extent in extents:
            if extent.path.holds(path):
                yield extent, path
