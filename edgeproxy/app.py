"""Assembly: a policy, its plugins and the way to the origins, made into a running app."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable
from typing import Any

from edgeproxy import log as access_log
from edgeproxy.caching.purges import Purges, Selection
from edgeproxy.errors import Fault, PluginError, PolicyError
from edgeproxy.health import Health
from edgeproxy.http import Exchange, Fetch, Response
from edgeproxy.pipeline import each, handle, is_cancelled
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.policy import LoadedPlugin, Policy

log = logging.getLogger("edgeproxy")

SHUTDOWN_S = 10.0  # for one plugin


class App:
    """What the engines drive: `handle` an exchange, then `finish` it. `plan` is swapped whole.

    `purges` and `health` outlive every plan: no reload brings back what was purged, or forgets
    which origins are down.
    """

    plan: Plan

    def __init__(self, fetch: Fetch, write: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.fetch = fetch
        self._write = write
        self._started: list[LoadedPlugin] = []
        self._telling: set[asyncio.Future[None]] = set()
        self.purges = Purges()
        self.health = Health(time.time)

    async def load(self, policy: Policy) -> None:
        """Put `policy` in force. If anything in it fails, what was in force stays in force.

        Plugins whose section did not change come with `policy` as they are and go on running;
        new ones are started before the swap, those no longer wanted are shut down after it.
        """
        plan = compile_plan(policy, self.purges, self.health)
        fresh = [plugin for plugin in policy.plugins if plugin not in self._started]
        started: list[LoadedPlugin] = []
        for plugin in fresh:
            try:
                await _call(plugin, "startup", policy.core.limits.hook_timeout, cache=self)
            except BaseException as error:
                await _shut_down(started)
                if not isinstance(error, PluginError):
                    raise
                raise PolicyError([Fault("plugin-failed", str(error))]) from error
            started.append(plugin)
        await plan.cache.upkeep.open()
        before, former = self._started, getattr(self, "plan", None)
        self.plan = plan
        self._started = list(policy.plugins)
        if former is not None:
            await former.cache.upkeep.close()
        await _shut_down([plugin for plugin in before if plugin not in policy.plugins])

    async def purge(self, selection: Selection) -> list[str]:
        """See `Cache.purge`; of the plan in force, whichever that is by then."""
        return await self.plan.cache.purge(selection)

    async def invalidate(self, selection: Selection) -> list[str]:
        """See `Cache.invalidate`."""
        return await self.plan.cache.invalidate(selection)

    @property
    def plugins(self) -> tuple[LoadedPlugin, ...]:
        """The plugins that run now."""
        return tuple(self._started)

    async def handle(self, exchange: Exchange) -> Response:
        """The answer to `exchange`, decided by the plan in force now."""
        return await handle(exchange, self.plan, self.fetch)

    def finish(self, exchange: Exchange) -> None:
        """Tell observers, once the engine has what it needs. No client waits for them."""
        task = asyncio.ensure_future(self._tell(exchange))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, exchange: Exchange) -> None:
        plan = self.plan
        await each(plan, plan.phases.finish, exchange)
        if self._write is not None:
            self._write(access_log.entry(exchange, plan.logged_facts))

    async def close(self) -> None:
        await asyncio.gather(*self._telling, return_exceptions=True)
        if self._started:
            await self.plan.cache.close()
        await _shut_down(self._started)
        self._started = []


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
