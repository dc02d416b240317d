"""A policy compiled for running: routes indexed, each phase a tuple of bound functions.

Per request nothing here asks pluggy, walks a model or parses a pattern. A plan never changes; a
reload builds another and swaps one reference.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import pluggy

from edgeproxy import memory
from edgeproxy.caching.cache import Cache
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.neighbours import Neighbours
from edgeproxy.caching.purges import Purges
from edgeproxy.errors import Fault, Place, PluginError, PolicyError
from edgeproxy.health import Health
from edgeproxy.hooks import Hooks
from edgeproxy.http import Exchange, Fact, Origin, Target
from edgeproxy.policy.certificates import ServerNames
from edgeproxy.policy.faults import compile_fault
from edgeproxy.policy.model import BackendRef, ExplainConfig, Limits, OriginConfig
from edgeproxy.policy.patterns import Network
from edgeproxy.policy.policy import Clause, LoadedPlugin, Policy
from edgeproxy.policy.policy import Route as PolicyRoute
from edgeproxy.routing import Candidate, PatchedIndex, RouteIndex, compile_path, host_names

PHASES = (
    "annotate", "admit", "route", "cache_key", "before_fetch", "after_fetch", "fetch_failed",
    "recover", "before_send", "finish",
)  # fmt: skip


@dataclass(slots=True)
class Hook:
    """One plugin's function for one phase. `closed` tells whether its failure ends the request.

    One whose failure does not is left out for a while once it has failed many times in a row:
    `failures` counts them, `paused_until_s` is a moment of the monotonic clock. A filter's hook
    knows the filter's key and place.
    """

    call: Callable[..., Any]
    plugin: str
    phase: str
    closed: bool = True
    filter: str = ""
    place: Place | None = None
    failures: int = 0
    paused_until_s: float = 0.0


Phase = tuple[Hook, ...]


@dataclass(frozen=True, slots=True)
class Phases:
    """The hooks of each phase: of all plugins, or of one route with its filters."""

    annotate: Phase = ()
    admit: Phase = ()
    route: Phase = ()
    cache_key: Phase = ()
    before_fetch: Phase = ()
    after_fetch: Phase = ()
    fetch_failed: Phase = ()
    recover: Phase = ()
    before_send: Phase = ()
    finish: Phase = ()


@dataclass(frozen=True, slots=True)
class Route:
    """A route ready to run. Its phases hold the plugins' hooks, then its own filters' hooks;
    `admit` only its filters', because the plugins' ran before a route was known."""

    name: str
    backends: tuple[tuple[str, int], ...]  # origin and weight
    phases: Phases
    cached: bool
    rule: CacheRule | None
    websocket: bool
    edits_fetch: bool  # its own filters change what is sent to the origin or what is stored
    is_apart: bool = False  # the plan beside this one would store other answers: share none with it

    def target(self, exchange: Exchange) -> Target:
        """The origin by weight, steady for a client; path and query as asked."""
        request = exchange.request
        origin = self.backends[0][0] if self.backends else ""
        if len(self.backends) > 1:
            origin = _weighted(self.backends, f"{self.name}|{exchange.client}")
        return Target(origin, request.path, request.query)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides about a request. `policy` is what it was compiled from."""

    version: str
    policy: Policy
    phases: Phases
    routes: RouteIndex[Route]
    origins: Mapping[str, Origin]
    cache: Cache
    hosts: frozenset[str]
    trusted_proxies: tuple[Network, ...]
    encoded_slashes: bool
    limits: Limits
    explain: ExplainConfig | None
    tls: ServerNames | None
    plugins: tuple[LoadedPlugin, ...]
    logged_facts: tuple[Fact[Any], ...]
    rule_names: Mapping[str, str]  # of cache rules, by route
    plugin_errors: Counter[tuple[str, str]]  # what has failed so far, by plugin and hook

    def serves(self, host: str) -> bool:
        """Whether `host` is a name that the policy serves; all are, if it names none."""
        return not self.hosts or not self.hosts.isdisjoint(host_names(host))

    def varies_by_client(self, host: str, path: str) -> bool:
        """Whether another client could be given another answer for this URL."""
        return any(candidate.varies_by for candidate in self.routes.candidates(host, path))


@memory.collector_paused()
def compile_plan(
    policy: Policy,
    purges: Purges | None = None,
    health: Health | None = None,
    *,
    beside: Plan | None = None,
    neighbours: Neighbours | None = None,
    plugin_errors: Counter[tuple[str, str]] | None = None,
) -> Plan:
    """Turn `policy` into a plan whose cache heeds `purges` and notes `health`. Opens nothing.

    The plan may run `beside` another with the same tiers. Raises PolicyError for what only shows
    here.
    """
    phases = _plugin_phases(policy.plugins)
    apart = frozenset[str]() if beside is None else _apart(policy, beside.policy)
    index = RouteIndex[Route]()
    faults: list[Fault] = []
    for number, route in enumerate(policy.routes):
        _add_route(index, number, route, policy, phases, faults, route.core.name in apart)
    if faults:
        raise PolicyError(faults)
    tiers = [
        tier
        for plugin in policy.plugins
        if (register := getattr(plugin.instance, "register_tiers", None)) is not None
        for tier in _registered(plugin, register)
    ]
    return Plan(
        version=policy.version,
        policy=policy,
        phases=phases,
        routes=index,
        origins={name: make_origin(name, spec) for name, spec in policy.core.origins.items()},
        cache=Cache(
            tiers,
            max_object_size=policy.cache.max_object_size,
            body_memory=policy.core.limits.body_memory,
            status_key=policy.cache.status_key,
            pass_tags=policy.cache.pass_tags,
            encodings=policy.cache.encodings,
            purges=purges,
            health=health,
            neighbours=neighbours,
        ),
        hosts=frozenset(policy.core.hosts),
        trusted_proxies=policy.core.trusted_proxies,
        encoded_slashes=policy.core.encoded_slashes,
        limits=policy.core.limits,
        explain=policy.core.explain,
        tls=policy.core.server_names(),
        plugins=policy.plugins,
        logged_facts=_logged_facts(policy),
        rule_names={r.core.name: r.core.cache for r in policy.routes if r.core.cache},
        plugin_errors=Counter() if plugin_errors is None else plugin_errors,
    )


def _logged_facts(policy: Policy) -> tuple[Fact[Any], ...]:
    """Each once: plugins meet at a fact by its name."""
    every = (fact for plugin in policy.plugins for fact in plugin.instance.facts() if fact.log)
    return tuple({fact.name: fact for fact in every}.values())


def patched(plan: Plan, policy: Policy, routes: Mapping[int, PolicyRoute | None]) -> Plan:
    """`plan` with `routes` in the place of those of these numbers, None for no route.

    `policy` is what they are compiled by: that of `plan`, or one with other cache rules. Costs what
    compiling these routes does, however many others there are. PolicyError as for a whole plan.
    """
    index = RouteIndex[Route]()
    faults: list[Fault] = []
    names = dict(plan.rule_names)
    for number, route in routes.items():
        names.pop(plan.policy.routes[number].core.name, None)
        if route is not None:
            _add_route(index, number, route, policy, plan.phases, faults, False)
            names |= {route.core.name: route.core.cache} if route.core.cache else {}
    if faults:
        raise PolicyError(faults)
    patches = PatchedIndex(plan.routes, frozenset(routes), index)
    return replace(plan, routes=patches, rule_names=names)


def make_origin(name: str, spec: OriginConfig) -> Origin:
    """An origin as the policy writes it, in canonical parts."""
    parts = urlsplit(spec.url)
    assert parts.hostname is not None  # the model has checked it
    return Origin(
        name=name,
        scheme=parts.scheme,
        host=parts.hostname,
        port=parts.port or (443 if parts.scheme == "https" else 80),
        base="/" + parts.path.strip("/") + ("/" if parts.path.strip("/") else ""),
        static=spec.kind == "pages",
        connect_timeout_s=spec.connect_timeout,
        first_byte_timeout_s=spec.first_byte_timeout,
        idle_timeout_s=spec.idle_timeout,
        total_timeout_s=spec.total_timeout,
        max_connections=spec.max_connections,
        ca_file=spec.ca_file,
        allow_private=spec.allow_private,
    )


def _add_route(
    index: RouteIndex[Route],
    number: int,
    spec: PolicyRoute,
    policy: Policy,
    plugins: Phases,
    faults: list[Fault],
    is_apart: bool,
) -> None:
    core = spec.core
    route = Route(
        name=core.name,
        backends=_backends(core.origin, core.backend_refs, policy),
        phases=_route_phases(spec, plugins),
        cached=core.cache is not False,
        rule=policy.cache.rules[core.cache] if core.cache else None,
        websocket=core.websocket,
        edits_fetch=any(_edits_fetch(bound.hooks) for bound in spec.filters),
        is_apart=is_apart,
    )
    if not spec.matches:
        index.add(None, None, Candidate((number, 0), route, compile_path(None), (), frozenset()))
    turn = itertools.count()
    for match in spec.matches:
        clauses = _compile(match.clauses, faults)
        for path in match.core.path or (None,):
            candidate = Candidate(
                order=(number, next(turn)),
                route=route,
                path=compile_path(path),
                clauses=clauses,
                varies_by=frozenset(
                    name.lower() for clause in match.clauses for name in clause.matcher.varies_by
                ),
                max_body_bytes=max((c.matcher.max_body_bytes for c in match.clauses), default=0),
                seen=tuple(clause.matcher.seen for clause in match.clauses),
            )
            index.add(match.core.host, path, candidate)


def _edits_fetch(hooks: object) -> bool:
    return any(_function(hooks, phase) for phase in ("before_fetch", "after_fetch"))


def _apart(policy: Policy, other: Policy) -> frozenset[str]:
    """The routes of `policy` whose stored answers `other` would have stored otherwise."""
    known = _shapes(other)
    return frozenset(name for name, shape in _shapes(policy).items() if known.get(name) != shape)


def _shapes(policy: Policy) -> dict[str, Any]:
    """By route: all that forms an answer on its way into the tiers, but for what the key says."""

    def of(plugin: LoadedPlugin) -> Any:
        section: Any = policy.expanded
        for key in (plugin.instance.section or plugin.name).split("."):
            section = section.get(key) if isinstance(section, Mapping) else None
        return plugin.name, section

    everywhere = [of(plugin) for plugin in policy.plugins if _edits_fetch(plugin.instance)]
    return {
        route.core.name: (
            policy.cache.rules.get(route.core.cache) if route.core.cache else None,
            [
                (bound.key, bound.filter, of(bound.plugin))
                for bound in route.filters
                if _edits_fetch(bound.hooks)
            ],
            everywhere,
        )
        for route in policy.routes
    }


def _compile(
    clauses: Iterable[Clause], faults: list[Fault]
) -> tuple[Callable[[Exchange], bool], ...]:
    compiled = []
    for clause in clauses:
        try:
            compiled.append(clause.matcher.compile(clause.plugin.instance))
        except Exception as error:
            faults.append(compile_fault(clause, error))
    return tuple(compiled)


def _backends(
    origin: str | None, refs: Sequence[BackendRef], policy: Policy
) -> tuple[tuple[str, int], ...]:
    if refs:
        return tuple((ref.name, ref.weight) for ref in refs if ref.weight)
    if origin:
        return ((origin, 1),)
    only = tuple(policy.core.origins)
    return ((only[0], 1),) if len(only) == 1 else ()


def _weighted(backends: Iterable[tuple[str, int]], seed: str) -> str:
    pairs = tuple(backends)
    digest = hashlib.blake2b(seed.encode(), digest_size=8).digest()
    point = int.from_bytes(digest) * sum(weight for _, weight in pairs) >> 64
    for name, weight in pairs:
        point -= weight
        if point < 0:
            return name
    return pairs[-1][0]


def _plugin_phases(plugins: Sequence[LoadedPlugin]) -> Phases:
    """Let pluggy check every hook against its specification, then keep the bound functions."""
    manager = pluggy.PluginManager("edgeproxy")
    manager.add_hookspecs(Hooks)
    faults: list[Fault] = []
    for plugin in plugins:
        try:
            manager.register(plugin.instance, name=plugin.name)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            faults.append(
                Fault("plugin-failed", f"plugin {plugin.name!r}: {str(error).splitlines()[-1]}")
            )
    if faults:
        raise PolicyError(faults)
    phases: dict[str, Phase] = {}
    for phase in PHASES:
        caller = getattr(manager.hook, phase)
        calls = {call.plugin_name: call for call in caller.get_hookimpls()}
        phases[phase] = tuple(
            _hook(calls[plugin.name].function, calls[plugin.name].argnames, plugin, phase)
            for plugin in plugins
            if plugin.name in calls
        )
    return Phases(**phases)


def _route_phases(spec: PolicyRoute, plugins: Phases) -> Phases:
    own: dict[str, Phase] = {}
    for phase in PHASES:
        hooks = tuple(
            replace(
                _hook(function, _arguments(function), bound.plugin, phase),
                filter=bound.key,
                place=bound.place,
            )
            for bound in spec.filters
            if (function := _function(bound.hooks, phase)) is not None
        )
        own[phase] = hooks if phase == "admit" else getattr(plugins, phase) + hooks
    return Phases(**own)


_ARGUMENTS = {
    "before_fetch": ("exchange", "request"),
    "after_fetch": ("exchange", "response"),
    "before_send": ("exchange", "response"),
    "fetch_failed": ("exchange", "error"),
    "recover": ("exchange", "error"),
}


def _hook(
    function: Callable[..., Any], names: Sequence[str], plugin: LoadedPlugin, phase: str
) -> Hook:
    """A hook that takes all arguments of its phase by position, whatever it declares."""
    wanted = _ARGUMENTS.get(phase, ("exchange",))
    names = tuple(name for name in names if name != "self")
    call = function
    if names != wanted:
        call = _adapted(function, tuple(wanted.index(name) for name in names))
    closed = phase not in ("annotate", "fetch_failed", "finish") or (
        phase == "annotate" and plugin.instance.on_error == "closed"
    )
    return Hook(call, plugin.name, phase, closed)


def _adapted(function: Callable[..., Any], picks: tuple[int, ...]) -> Callable[..., Any]:
    return lambda *arguments: function(*(arguments[pick] for pick in picks))


def _function(hooks: object, phase: str) -> Callable[..., Any] | None:
    """What `hooks` does in `phase`. The class is asked first, as a model takes 20 times as long to
    say that it lacks an attribute."""
    if hasattr(type(hooks), phase) or phase in getattr(hooks, "__dict__", ()):
        function: Callable[..., Any] | None = getattr(hooks, phase)
        return function
    return None


def _arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    """What `function` declares; of a method that many filters have it is found out once."""
    return _declared(getattr(function, "__func__", function))


@functools.lru_cache(maxsize=1024)
def _declared(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _registered(plugin: LoadedPlugin, register: Callable[[], Iterable[Any]]) -> Iterable[Any]:
    try:
        return tuple(register())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(plugin.name, "register_tiers", repr(error)) from error


__all__ = [
    "PHASES",
    "Hook",
    "Phase",
    "Phases",
    "Plan",
    "Route",
    "compile_plan",
    "make_origin",
    "patched",
]
