"""The plans that requests run on: opened before the first of them, closed after the last.

Usually that is one. After a reload there is a former one besides, until what began on it is over;
and while a policy is tried, its candidate. Plugins whose section did not change belong to several.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from dataclasses import dataclass

from edgeproxy.caching.purges import CacheControl
from edgeproxy.errors import Fault, PluginError, PolicyError
from edgeproxy.http import Exchange
from edgeproxy.pipeline import is_cancelled
from edgeproxy.plan import Plan
from edgeproxy.policy.policy import LoadedPlugin

log = logging.getLogger("edgeproxy")

SHUTDOWN_S = 10.0  # for one plugin


@dataclass(slots=True, eq=False)
class Live:
    """One plan, and how many requests are under way on it."""

    plan: Plan
    under_way: int = 0
    is_retired: bool = False


class LivePlans:
    """Opens and closes plans, and knows on which of them each request runs."""

    def __init__(self) -> None:
        self._all: list[Live] = []
        # By the identity of the exchange, which lives for as long as it is here.
        self._under_way: dict[int, tuple[Exchange, Live]] = {}
        self._closing: set[asyncio.Future[None]] = set()

    # ------------------------------------------------------------ requests

    def of(self, exchange: Exchange) -> Live | None:
        found = self._under_way.get(id(exchange))
        return None if found is None else found[1]

    def begin(self, exchange: Exchange, live: Live) -> None:
        self._under_way[id(exchange)] = exchange, live
        live.under_way += 1

    def end(self, exchange: Exchange) -> None:
        """It needs its plan no more. May be told twice."""
        _, live = self._under_way.pop(id(exchange), (None, None))
        if live is not None:
            live.under_way -= 1
            self._close_if_over(live)

    # ------------------------------------------------------------ plans

    async def open(self, plan: Plan, cache: CacheControl) -> Live:
        """Start those plugins of `plan` that do not run yet. Raises PolicyError, with none of them
        left running, if one cannot be started."""
        running = self._plugins()
        started: list[LoadedPlugin] = []
        for plugin in plan.plugins:
            if id(plugin.instance) in running:
                continue
            try:
                await _call(plugin, "startup", plan.limits.hook_timeout, cache=cache)
            except BaseException as error:
                await _shut_down(started)
                if not isinstance(error, PluginError):
                    raise
                raise PolicyError([Fault("plugin-failed", str(error))]) from error
            started.append(plugin)
        await plan.cache.upkeep.open()
        live = Live(plan)
        self._all.append(live)
        return live

    def retire(self, live: Live) -> None:
        """Begin no request on `live` any more; close it once those under way are over."""
        live.is_retired = True
        self._close_if_over(live)

    def _close_if_over(self, live: Live) -> None:
        if live.is_retired and not live.under_way:
            closing = asyncio.ensure_future(self._close(live))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _close(self, live: Live) -> None:
        """Shut down the plugins that only `live` has, when nothing of its cache needs them."""
        await live.plan.cache.upkeep.close()
        await live.plan.cache.settled()
        self._all.remove(live)
        needed = self._plugins()
        await _shut_down([one for one in live.plan.plugins if id(one.instance) not in needed])

    async def close(self) -> None:
        """Close all, whatever is under way."""
        for live in tuple(self._all):
            await live.plan.cache.close()
        await asyncio.gather(*self._closing, return_exceptions=True)
        plugins = self._plugins()
        self._all.clear()
        await _shut_down(list(plugins.values()))

    def _plugins(self) -> dict[int, LoadedPlugin]:
        """Every plugin that runs, by its instance, in the order in which they were started."""
        return {id(one.instance): one for live in self._all for one in live.plan.plugins}


async def _call(plugin: LoadedPlugin, hook: str, within_s: float, **arguments: object) -> None:
    """Run a hook of the plugin's life, if it has it, with those of `arguments` that it names.

    Whatever it raises becomes a PluginError.
    """
    function = getattr(plugin.instance, hook, None)
    if function is None:
        return
    try:
        async with asyncio.timeout(within_s):
            named = inspect.signature(function).parameters
            result = function(**{name: arguments[name] for name in named if name in arguments})
            if inspect.isawaitable(result):
                await result
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: it would end the program for all others
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            raise
        reason = f"it took more than {within_s:g} s" if isinstance(error, TimeoutError) else error
        raise PluginError(plugin.name, hook, f"{type(error).__name__}: {reason}") from error


async def _shut_down(plugins: list[LoadedPlugin]) -> None:
    for plugin in reversed(plugins):
        try:
            await _call(plugin, "shutdown", SHUTDOWN_S)
        except PluginError as error:
            log.exception("%s", error)
