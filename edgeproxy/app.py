"""Assembly: a policy, its plugins and the way to the origins, made into a running app."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from edgeproxy import log as access_log
from edgeproxy.caching.cache import Cache
from edgeproxy.caching.neighbours import Neighbours
from edgeproxy.caching.purges import Mark, Purges, Selection
from edgeproxy.candidate import Candidate
from edgeproxy.explain.live import Explained, announce
from edgeproxy.health import Health
from edgeproxy.http import Exchange, Fetch, Response
from edgeproxy.live import Live, LivePlans
from edgeproxy.metrics.counts import Counts
from edgeproxy.pipeline import each, handle, too_many_requests
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.policy import LoadedPlugin, Policy
from edgeproxy.rates import RequestRates, client_number
from edgeproxy.recent import Recent

RECOVERY_S = 10.0  # after which a stall of the event loop is history


class Recorder(Protocol):
    """Whoever writes down each exchange, and what origins said to it."""

    def tapped(self, exchange: Exchange, fetch: Fetch) -> Fetch:
        """`fetch`, overheard."""

    def finish(self, exchange: Exchange) -> None: ...


class App:
    """What the engines drive: `handle` an exchange, then `finish` it.

    `plan` is the one in force, and is swapped whole. While a policy is tried there is a `candidate`
    besides: then `plan_for` says which of the two decides. `purges`, `health`, `rates`, `explained`
    and `counts` outlive every plan: no reload brings back what was purged, forgets which origins
    are down, or lets a client begin anew.
    """

    plan: Plan

    def __init__(
        self,
        fetch: Fetch,
        write: Callable[[dict[str, Any]], None] | None = None,
        neighbours: Neighbours | None = None,
        counts: Counts | None = None,
        *,
        names_clients: bool = False,
    ) -> None:
        """`write` takes entries of the access log; with `names_clients` they say who has asked."""
        self.fetch = fetch
        self.candidate: Candidate | None = None
        self.recorder: Recorder | None = None
        self.purges = Purges()
        self.health = Health(time.time)
        self.rates = RequestRates()
        self.explained = Explained()
        self.counts = counts or Counts()
        self.is_draining = False  # no request begins any more
        self.stalled_at_s = -math.inf  # when the event loop was last seen to stand still, monotonic
        self.names_clients = names_clients
        self.recent: Recent | None = None  # if there may be somebody who looks at it
        self._write = write
        self._neighbours = neighbours
        self._plans = LivePlans()
        self._in_force: Live | None = None
        self._telling: set[asyncio.Future[None]] = set()

    # ------------------------------------------------------------ policies

    def compile(self, policy: Policy, *, beside: bool = False) -> Plan:
        """The plan of `policy`, to be loaded, or to be tried out `beside` the one in force.

        It changes nothing, and may be called in a thread of its own.
        """
        other = self.plan if beside else None
        return compile_plan(
            policy,
            self.purges,
            self.health,
            beside=other,
            neighbours=self._neighbours,
            plugin_errors=self.counts.plugin_errors,
        )

    async def load(self, plan: Plan) -> None:
        """Put `plan` in force. If a plugin of it fails, what was in force stays in force.

        Plugins whose section did not change come with their policy as they are and go on running;
        new ones are started before the swap. What began on the former plan ends on it, and only
        then are plugins shut down that nothing needs any more.
        """
        self.put_in_force(await self.opened(plan))

    async def try_out(self, plan: Plan, share: float) -> Candidate:
        """Run `plan` beside the one in force: for a share of the visitors, 0 for in shadow.

        It takes the place of a candidate that there may be. Raises what `load` raises, with nothing
        changed.
        """
        return self.put_beside(await self.opened(plan), share)

    # In two steps, of which only the first can fail, for who has to know beforehand.

    async def opened(self, plan: Plan) -> Live:
        """`plan`, ready for requests. One of the next three has to follow."""
        live = await self._plans.open(plan, self)
        if self._in_force is not None:
            self.plan.cache.upkeep.follow()
        return live

    def put_in_force(self, live: Live) -> None:
        former, self._in_force = self._in_force, live
        self.plan = live.plan
        self.recent = (self.recent or Recent()) if live.plan.policy.core.admin else None
        live.plan.cache.upkeep.follow()
        if former is not None:
            self._plans.retire(former)

    def put_beside(self, live: Live, share: float) -> Candidate:
        self.drop_candidate()
        self.candidate = Candidate(live, share)
        return self.candidate

    def give_up(self, live: Live) -> None:
        """Close what has been opened, with nothing changed."""
        self._plans.retire(live)

    # What a rollout asks for may have to be asked of several processes.

    async def set_share(self, share: float) -> None:
        """Let the candidate decide for this share of the visitors."""
        assert self.candidate is not None
        self.candidate.share = share

    async def trial_report(self) -> dict[str, Any]:
        """What the candidate has done since its trial began."""
        assert self.candidate is not None
        return self.candidate.report(self.plan.version)

    async def end_trial(self) -> None:
        """Have no candidate any more."""
        self.drop_candidate()

    def drop_candidate(self) -> None:
        """Have no candidate any more. What it has begun, it ends."""
        former, self.candidate = self.candidate, None
        if former is not None:
            former.close()
            self._plans.retire(former.live)

    @property
    def has_policy(self) -> bool:
        """Whether a policy is in force."""
        return self._in_force is not None

    @property
    def has_stalled(self) -> bool:
        """Whether the event loop stood still a moment ago, and may do so again."""
        return time.monotonic() - self.stalled_at_s < RECOVERY_S

    @property
    def plugins(self) -> tuple[LoadedPlugin, ...]:
        """The plugins of the plan in force."""
        return self.plan.plugins if self._in_force is not None else ()

    # ------------------------------------------------------------ the cache

    def heed(self, marks: Sequence[Mark]) -> None:
        """Heed purges that a neighbour makes at this moment."""
        self.purges.heed(marks)
        if self._in_force is not None:
            self.plan.cache.upkeep.sweep_soon()

    async def purge(self, selection: Selection) -> list[str]:
        """See `Cache.purge`; of the plan in force, whichever that is by then, and its candidate."""
        return await self._mark(selection, Cache.purge)

    async def invalidate(self, selection: Selection) -> list[str]:
        """See `Cache.invalidate`."""
        return await self._mark(selection, Cache.invalidate)

    async def _mark(
        self, selection: Selection, mark: Callable[[Cache, Selection], Awaitable[list[str]]]
    ) -> list[str]:
        plans = [self.plan, self.candidate.plan] if self.candidate is not None else [self.plan]
        failed = [name for plan in plans for name in await mark(plan.cache, selection)]
        return list(dict.fromkeys(failed))

    # ------------------------------------------------------------ requests

    def plan_for(self, exchange: Exchange) -> Plan:
        """The plan that decides about `exchange`, the same from its beginning to its end.

        Its client has to be known by the first call. Before `handle` only an engine that needs the
        plan already then has to ask.
        """
        live = self._plans.of(exchange)
        if live is None:
            live = self._live_for(exchange)
            self._plans.begin(exchange, live)
        return live.plan

    def _live_for(self, exchange: Exchange) -> Live:
        live, candidate = self._in_force, self.candidate
        assert live is not None
        if candidate is not None and candidate.share:
            exchange.varies_by.add("*")  # no cache behind us may hand one side's answers to another
            if candidate.takes(exchange.client):
                live = candidate.live
        exchange.policy = live.plan.version
        return live

    async def handle(self, exchange: Exchange, fetch: Fetch | None = None) -> Response:
        """The answer to `exchange`. `finish` has to follow, unless this raises.

        `fetch` stands in for the app's own, for an engine that wants to have a part in it.
        """
        plan = self.plan_for(exchange)
        fetch = fetch or self.fetch
        if self.recorder is not None:
            fetch = self.recorder.tapped(exchange, fetch)
        try:
            wait_s = self.wait_s(plan, _client_of(exchange)) if plan.limits.request_rate else 0.0
            if wait_s:
                response = too_many_requests(exchange, wait_s)
            else:
                response = await handle(exchange, plan, fetch)
        except BaseException:
            self._plans.end(exchange)
            raise
        if exchange.trace is not None:
            announce(plan, exchange, response)
        if response.tunnel is not None:  # both ends may talk for days, and need no policy for it
            self._plans.end(exchange)
        return response

    def wait_s(self, plan: Plan, client: int) -> float:
        """How long `client` has to wait, if it asks too often; else a request of it is counted."""
        limits = plan.limits
        if not limits.request_rate:
            return 0.0
        return self.rates.wait_s(client, limits.request_rate, limits.request_burst)

    def finish(self, exchange: Exchange) -> None:
        """Tell observers, once the engine has what it needs. No client waits for them."""
        live = self._plans.of(exchange) or self._in_force
        assert live is not None
        exchange.policy = exchange.policy or live.plan.version
        self.counts.finished(exchange)
        if self.recorder is not None:
            self.recorder.finish(exchange)
        if exchange.trace is not None:
            self.explained.keep(live.plan, exchange)
        if self._write is None and not live.plan.phases.finish and self.candidate is None:
            self._end(exchange)
            return
        self.background(asyncio.ensure_future(self._tell(exchange, live)))

    def background(self, task: asyncio.Future[None]) -> None:
        """Hold on to a task that nobody waits for; `close` does."""
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, exchange: Exchange, live: Live) -> None:
        try:
            await each(live.plan, live.plan.phases.finish, exchange)
            if self._write is not None:
                facts, named = live.plan.logged_facts, self.names_clients
                entry = access_log.entry(exchange, facts, names_client=named)
                self._write(entry)
                if self.recent is not None:
                    self.recent.add(entry)
            if self.candidate is not None:
                self.candidate.saw(exchange, self.plan)
        finally:
            self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        exchange.facts.close()
        self._plans.end(exchange)

    @property
    def is_logging(self) -> bool:
        """Whether somebody wants an entry of the access log for each request."""
        return self._write is not None

    def log(self, entry: dict[str, Any]) -> None:
        """Write an entry of the access log that an engine has made by itself."""
        if self._write is not None:
            self._write(entry)
            if self.recent is not None:
                self.recent.repeat(entry)

    async def close(self) -> None:
        await asyncio.gather(*self._telling, return_exceptions=True)
        self.drop_candidate()
        await self._plans.close()
        self._in_force = None


def _client_of(exchange: Exchange) -> int:
    """Who asks, as it is counted: past whoever watches what is read, since no answer depends on how
    often somebody may ask."""
    return client_number(vars(Exchange)["client"].__get__(exchange))
