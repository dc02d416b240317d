"""From policy files to a policy: read, merge, learn the vocabulary, check, bind.

How files merge is said in `edgeproxy.policy.files`, who may add words to a policy in
`edgeproxy.policy.vocabulary`, which short forms there are in `edgeproxy.policy.longform`. A plugin
is made if the policy lists it, has its section, or uses a match key or a filter of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgeproxy import memory
from edgeproxy.caching.config import CacheConfig
from edgeproxy.errors import Fault, Place, PluginError, PolicyError
from edgeproxy.policy.faults import check, nearest, plugin_fault
from edgeproxy.policy.files import Source, merged, read_all, sources
from edgeproxy.policy.installed import Registry, installed
from edgeproxy.policy.longform import LongMatch, LongRoute, expand, shared_filters
from edgeproxy.policy.model import MatchCore, PolicyCore, RouteCore
from edgeproxy.policy.policy import BoundFilter, Clause, LoadedPlugin, Match, Policy, Route
from edgeproxy.policy.source import Entry, Node
from edgeproxy.policy.vocabulary import Known, Vocabulary, follow, learn


def load(
    paths: Sequence[str | Path],
    registry: Registry | None = None,
    *,
    env: Mapping[str, str] = os.environ,
    reuse: Mapping[str, LoadedPlugin] | None = None,
) -> Policy:
    """The policy that files and folders make. Raises PolicyError with every fault in it.

    A plugin in `reuse` goes on with what it holds, if its class and its section are the same.
    """
    return compose(sources(paths), registry, env=env, reuse=reuse)


def parse(
    text: str,
    name: str = "policy.yaml",
    registry: Registry | None = None,
    *,
    env: Mapping[str, str] = os.environ,
    reuse: Mapping[str, LoadedPlugin] | None = None,
) -> Policy:
    """The policy in `text`, as if it stood in a file called `name`."""
    return compose([(name, text)], registry, env=env, reuse=reuse)


@memory.collector_paused()
def compose(
    files: Sequence[Source],
    registry: Registry | None = None,
    *,
    env: Mapping[str, str] = os.environ,
    reuse: Mapping[str, LoadedPlugin] | None = None,
) -> Policy:
    """The policy that texts make, as if they stood in files of these names. No such file is read,
    but what the texts refer to is: secrets, databases."""
    names = tuple(name for name, _ in files)
    faults: list[Fault] = []
    try:
        root = merged(read_all(files), faults)
    except PolicyError as error:
        raise PolicyError(in_order(error.faults, names)) from None
    words = learn(installed() if registry is None else registry, root, faults)
    routes = expand(root, words, faults)
    shared = shared_filters(root, words, faults)
    follow(words, root)
    policy = _Binder(root, words, env, reuse or {}, faults).policy(routes, shared, tuple(files))
    if faults or policy is None:
        raise PolicyError(in_order(faults, names))
    return policy


def in_order(faults: Iterable[Fault], files: Sequence[str]) -> list[Fault]:
    """Each fault once, in the order of files, lines and columns; secrets are blotted out."""
    numbers = {file: number for number, file in enumerate(files)}

    def position(fault: Fault) -> tuple[int, int, int]:
        place = fault.place
        return (numbers.get(place.file, 0), place.line, place.column) if place else (-1, 0, 0)

    ordered = sorted(dict.fromkeys(faults), key=position)
    secrets = [fault.place for fault in ordered if fault.code == "secret-as-value" and fault.place]
    return [
        replace(fault, place=fault.place.without(secrets)) if fault.place else fault
        for fault in ordered
    ]


@dataclass(frozen=True, slots=True)
class _View:
    """What a filter may ask of its policy."""

    origin_names: frozenset[str]


@dataclass(slots=True)
class _Binder:
    """Checks every value and makes the plugins. Goes on after a fault, so that all are seen."""

    root: Node
    words: Vocabulary
    env: Mapping[str, str]
    reuse: Mapping[str, LoadedPlugin]
    faults: list[Fault]
    plugins: dict[str, LoadedPlugin] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)

    def policy(
        self,
        routes: Sequence[LongRoute],
        shared: Sequence[tuple[str, Entry]],
        files: tuple[Source, ...],
    ) -> Policy | None:
        self.context["env"] = self.env
        self._know_origins()
        core, cache = self._core(), self._cache()
        self._make_plugins()
        filters = self._filters(shared, "every route")
        bound = [self._route(route, cache, filters) for route in routes]
        if self.faults or core is None or cache is None:
            return None
        expanded = {**self.root.plain(), "routes": [route.plain() for route in routes]}
        return Policy(
            core=core,
            cache=cache,
            routes=tuple(route for route in bound if route is not None),
            filters=filters,
            plugins=tuple(self.plugins.values()),
            version=_version(expanded),
            sources=files,
            root=self.root,
            expanded=expanded,
        )

    # -------------------------------------------------------------- the core's models

    def _know_origins(self) -> None:
        """Let models look up origins, unless `origins` is itself at fault."""
        node = self.root.get("origins")
        if node is None or isinstance(node.value, dict):
            self.context["origins"] = frozenset(node.block if node else ())

    def _core(self) -> PolicyCore | None:
        node = self._part(self.root, PolicyCore)
        # The version was checked in each file; what is wrong with one of them has been said.
        node.block["version"] = Entry(node.place, Node(node.place, 1))
        return check(PolicyCore, node, "", self.faults, self.context)

    def _cache(self) -> CacheConfig | None:
        node = self.root.get("cache") or Node(self.root.place, {})
        node = self._part(node, CacheConfig) if isinstance(node.value, dict) else node
        return check(CacheConfig, node, "cache", self.faults, self.context)

    @staticmethod
    def _part(node: Node, model: type[BaseModel]) -> Node:
        """The entries of `node` that are the model's; the rest belongs to plugins."""
        own = {key: entry for key, entry in node.block.items() if key in model.model_fields}
        return Node(node.place, own)

    # -------------------------------------------------------------- plugins

    def _make_plugins(self) -> None:
        """Make each plugin that the policy needs, and gather the facts that they set."""
        facts: set[str] = set()
        complete = True
        for plugin in self.words.known:
            if plugin.used is None:
                continue
            made = self._made(plugin, plugin.used)
            names = self._facts(made, plugin.used) if made else None
            complete = complete and names is not None
            facts.update(names or ())
        if complete:  # or else templates would be blamed for what a plugin did
            self.context["facts"] = facts

    def _made(self, plugin: Known, place: Place) -> LoadedPlugin | None:
        made = self._instance(plugin, place)
        if made is not None:
            self.plugins[plugin.name] = made
        return made

    def _instance(self, plugin: Known, place: Place) -> LoadedPlugin | None:
        config: BaseModel | None = None
        if plugin.cls.Config is not None:
            config = self._config(plugin, plugin.cls.Config, place)
            if config is None:
                return None
        held = self.reuse.get(plugin.name)
        if held is not None and _is_same(held, plugin, config):
            return held
        try:
            instance = plugin.cls(config)
        except Exception as error:
            self.faults.append(plugin_fault(plugin.entry, "__init__", error, self._place(plugin)))
            return None
        return LoadedPlugin(plugin.name, plugin.entry.source, instance)

    def _config(self, plugin: Known, model: type[BaseModel], place: Place) -> BaseModel | None:
        """The plugin's section; if there is none, what its defaults say."""
        node = self.root.get(*plugin.section)
        where = ".".join(plugin.section)
        if node is not None:
            if node.value is None:
                node = Node(self._place(plugin), {})
            return check(model, node, where, self.faults, self.context, plugin.entry)
        try:
            return model()
        except ValidationError as error:
            missing = [one["loc"] for one in error.errors() if one["type"] == "missing"]
            keys = ", ".join(str(loc[0]) for loc in missing if loc)
            needs = f"plugin {plugin.name!r} is used here and needs a section {where!r}"
            message = f"{needs} with {keys}" if keys else needs
            self.faults.append(Fault("missing-key", message, place))
        except Exception as error:
            self.faults.append(plugin_fault(plugin.entry, "its section", error, place))
        return None

    def _place(self, plugin: Known) -> Place:
        """The key of the plugin's section, or else where the policy first needs the plugin."""
        parent = self.root.get(*plugin.section[:-1])
        entry = parent.block.get(plugin.section[-1]) if parent else None
        return entry.key if entry else plugin.used or self.root.place

    def _facts(self, made: LoadedPlugin, place: Place) -> set[str] | None:
        try:
            return {fact.name for fact in made.instance.facts()}
        except Exception as error:
            failure = PluginError(made.name, "facts", f"{type(error).__name__}: {error}")
            self.faults.append(Fault("plugin-failed", str(failure), place))
            return None

    # -------------------------------------------------------------- routes

    def _route(
        self, route: LongRoute, cache: CacheConfig | None, shared: tuple[BoundFilter, ...]
    ) -> Route | None:
        core = check(RouteCore, route.core, route.label, self.faults, self.context)
        matches = [self._match(match, route.label) for match in route.matches]
        filters = self._filters(route.filters, route.label)
        if core is None:
            return None
        self._check_rule(core, route, cache)
        return Route(
            core=self._with_origin(core, route),
            matches=tuple(match for match in matches if match is not None),
            filters=shared + filters,
            place=(route.node.get("name") or route.node).place,
            node=route.node,
        )

    def _check_rule(self, core: RouteCore, route: LongRoute, cache: CacheConfig | None) -> None:
        if isinstance(core.cache, str) and cache is not None and core.cache not in cache.rules:
            rules = nearest(core.cache, "rules", cache.rules)
            message = f"no rule in cache.rules is called {core.cache!r}{rules}"
            self.faults.append(Fault("unknown-rule", message, route.core.block["cache"].node.place))

    def _with_origin(self, core: RouteCore, route: LongRoute) -> RouteCore:
        """`core` with the only origin, if it names none and there is but one."""
        origins = self.context.get("origins")
        if core.origin or core.backend_refs or origins is None:
            return core
        if len(origins) == 1:
            return core.model_copy(update={"origin": next(iter(origins))})
        if not any(self.words.filters[key][1].answers for key, _ in route.filters):
            known = f"origins: {', '.join(sorted(origins))}" if origins else "the policy has none"
            message = f"{route.label} needs an origin; {known}"
            self.faults.append(Fault("missing-origin", message, route.node.place))
        return core

    def _match(self, match: LongMatch, label: str) -> Match | None:
        core = check(MatchCore, match.core, f"a match of {label}", self.faults, self.context)
        clauses: list[Clause] = []
        for key, entry in match.keys.items():
            known, model = self.words.matchers[key]
            where = f"{key} in a match of {label}"
            matcher = check(model, entry.node, where, self.faults, self.context, known.entry)
            plugin = self.plugins.get(known.name)
            if matcher is not None and plugin is not None:
                clauses.append(Clause(key, matcher, plugin, entry.node.place))
        return None if core is None else Match(core, tuple(clauses), match.core)

    def _filters(self, entries: Iterable[tuple[str, Entry]], label: str) -> tuple[BoundFilter, ...]:
        bound = [self._filter(key, entry, label) for key, entry in entries]
        return tuple(one for one in bound if one is not None)

    def _filter(self, key: str, entry: Entry, label: str) -> BoundFilter | None:
        known, model = self.words.filters[key]
        where = f"{key} of {label}"
        made = check(model, entry.node, where, self.faults, self.context, known.entry)
        plugin = self.plugins.get(known.name)
        if made is None or plugin is None:
            return None
        try:
            hooks = made.bind(plugin.instance, _View(self.context.get("origins", frozenset())))
        except Exception as error:
            self.faults.append(plugin_fault(known.entry, f"{key}.bind", error, entry.node.place))
            return None
        return BoundFilter(key, made, hooks, plugin, entry.node)


_NOTHING = object()


def _is_same(held: LoadedPlugin, plugin: Known, config: BaseModel | None) -> bool:
    """Whether making `plugin` again would give what `held` is."""
    same_class = type(held.instance) is plugin.cls
    return same_class and getattr(held.instance, "config", _NOTHING) == config


def _version(expanded: Mapping[str, Any]) -> str:
    """12 hex digits of a hash. The order of keys counts, as it may have a meaning."""
    text = json.dumps(expanded, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
