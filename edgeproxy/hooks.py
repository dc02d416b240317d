"""Every moment at which a plugin may act, in the order a request meets them.

A hook may be `def` or `async def`. Hooks see heads; a body is read with a stated limit.
How results combine, what a hook may change and what its failure does is in each docstring;
`docs/hooks.md` is checked against this file.
"""

from collections.abc import Iterable

import pluggy

from edgeproxy.caching.purges import CacheControl
from edgeproxy.caching.tiers import Tier
from edgeproxy.errors import UpstreamError
from edgeproxy.http import Exchange, Request, Response, Target

hookspec = pluggy.HookspecMarker("edgeproxy")
hookimpl = pluggy.HookimplMarker("edgeproxy")


class Hooks:
    """The hook specifications."""

    @hookspec
    def register_tiers(self) -> Iterable[Tier]:  # type: ignore[empty-body]
        """Cache levels to add, fastest first. Runs once, when a plan is built.

        Results: collected, in plugin order. A failure stops the start.
        """

    @hookspec
    async def startup(self, cache: CacheControl) -> None:
        """Open what the plugin holds. Runs before the first request; `cache` can be purged later.

        Results: none. A failure stops the start, or the reload, which then changes nothing.
        """

    @hookspec
    async def shutdown(self) -> None:
        """Close what `startup` opened. Runs in reverse order, only where `startup` finished.

        Results: none. A failure is logged.
        """

    @hookspec
    def annotate(self, exchange: Exchange) -> None:
        """Add facts, decide nothing. Runs for every request, before anything is decided.

        Results: none. A failure is logged and the journey goes on, unless the plugin says
        `on_error = "closed"`: then the client gets 500.
        """

    @hookspec
    def admit(self, exchange: Exchange) -> Response | None:
        """Answer now: deny, redirect, respond. A filter's runs once its route has matched.

        Results: the first response ends the journey. A failure is a 500: never let through.
        """

    @hookspec
    def route(self, exchange: Exchange) -> Target | None:
        """Choose where the exchange goes; `exchange.target` holds the choice so far.

        Results: each plugin in turn, so that later ones see what earlier ones chose; None leaves
        it. A failure is a 500.
        """

    @hookspec
    def cache_key(self, exchange: Exchange) -> Iterable[tuple[str, str]]:  # type: ignore[empty-body]
        """Name what the answer depends on beyond the target: pairs of name and value.

        Results: collected. A failure is a 500: a wrong key would show one client's answer to
        another.
        """

    @hookspec
    def before_fetch(self, exchange: Exchange, request: Request) -> None:
        """Edit the request to the origin. What is set from a fact must be named in `cache_key`.

        Results: none. A failure is a 500 and nothing is sent.
        """

    @hookspec
    def after_fetch(self, exchange: Exchange, response: Response) -> None:
        """Edit the origin's response, before it is stored and shared by all clients.

        Results: none. A failure is a 502 and nothing is stored.
        """

    @hookspec
    def fetch_failed(self, exchange: Exchange, error: UpstreamError) -> None:
        """Observe that the origin gave no usable answer, also to a fetch that no client waits for.

        Whether a stored copy stands in is not known yet. Results: none. A failure is logged.
        """

    @hookspec
    def recover(self, exchange: Exchange, error: UpstreamError) -> Response | None:
        """Turn an origin's failure into an answer, when the cache has nothing to offer.

        Results: the first response wins. A failure is a 502.
        """

    @hookspec
    def before_send(self, exchange: Exchange, response: Response) -> None:
        """Edit this client's copy, cached or not; the stored one stays as it is.

        Results: none. A failure is a 500.
        """

    @hookspec
    def finish(self, exchange: Exchange) -> None:
        """Observe, once the engine has the response: count, log, publish.

        Results: none. A failure is logged.
        """
