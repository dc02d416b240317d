"""From policy files to a policy: merge, learn the vocabulary, check, bind.

Several files and folders make one policy, in the order given; of a folder its `*.yaml` and
`*.yml` by name, without those of folders below and without `*_test.yaml`. How they merge:

- every file says `version: 1`;
- `routes`, `plugins` and `trusted_proxies` are strung together, file after file;
- other blocks merge key by key: `origins`, `limits`, `cache` and the sections of plugins, and
  `cache.rules` below `cache`. Their entries do not: the same key in two files is a fault;
- a key without a value counts as an empty block, or as an empty list for the three above.

First-party plugins need no naming. Those of other distributions are an allow-list under
`plugins`; the code of one that is not on it is never imported. A plugin is made if the policy
lists it, has its section, or uses a match key or a filter of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgeproxy.caching.config import CacheConfig
from edgeproxy.errors import Fault, Place, PolicyError
from edgeproxy.plugin import Filter, Matcher, Plugin, did_you_mean
from edgeproxy.policy.faults import check, missing_module, nearest, plugin_fault, unknown_key
from edgeproxy.policy.installed import Broken, Installed, Registry, installed
from edgeproxy.policy.model import MatchCore, PolicyCore, RouteCore
from edgeproxy.policy.policy import BoundFilter, Clause, LoadedPlugin, Match, Policy, Route
from edgeproxy.policy.source import MAX_BYTES, Entry, Node, near, read, shown

# The order in which first-party plugins run; others of ours follow by name. Facts come first, then
# what chooses a target, then what edits messages, the links last since they read what others wrote.
FIRST_PARTY_ORDER = (
    "geo", "content", "split", "headers", "rewrite", "links", "memory_cache", "disk_cache",
)  # fmt: skip

_LISTS = ("routes", "plugins", "trusted_proxies")
_DEFAULT_TIER = ("memory_cache", ("cache", "memory"))  # on unless the policy says otherwise


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
    files = list(_files(paths))
    return _load([(file, _bytes(file)) for file in files], registry, env, reuse)


def parse(
    text: str,
    name: str = "policy.yaml",
    registry: Registry | None = None,
    *,
    env: Mapping[str, str] = os.environ,
    reuse: Mapping[str, LoadedPlugin] | None = None,
) -> Policy:
    """The policy in `text`, as if it stood in a file called `name`."""
    return _load([(name, text)], registry, env, reuse)


def _load(
    sources: Sequence[tuple[str, bytes | str]],
    registry: Registry | None,
    env: Mapping[str, str],
    reuse: Mapping[str, LoadedPlugin] | None,
) -> Policy:
    names = [name for name, _ in sources]
    faults: list[Fault] = []
    roots = _read(sources, faults)
    if faults:
        raise PolicyError(_in_order(faults, names))
    root = _merged(roots, faults)
    registry = installed() if registry is None else registry
    policy = _Loader(root, registry, env, reuse or {}, faults).policy(tuple(names))
    if faults or policy is None:
        raise PolicyError(_in_order(faults, names))
    return policy


# ------------------------------------------------------------------ files


def _files(paths: Sequence[str | Path]) -> Iterator[str]:
    """The files to read, each once."""
    if not paths:
        raise PolicyError([Fault("unreadable", "no policy file was named")])
    seen: set[Path] = set()
    for path in paths:
        for file in _expanded_folder(Path(path)):
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield str(file)


def _expanded_folder(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        found = sorted(
            file
            for file in path.iterdir()
            if file.suffix in (".yaml", ".yml") and not file.stem.endswith("_test")
        )
    except OSError as error:
        raise _unreadable(str(path), error) from None
    if not found:
        raise PolicyError([Fault("unreadable", f"the folder {path} holds no *.yaml file")])
    return found


def _bytes(file: str) -> bytes:
    """The content, or a little more than may be read of it: enough for the fault."""
    try:
        with open(file, "rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(path: str, error: OSError) -> PolicyError:
    return PolicyError([Fault("unreadable", f"cannot read {path}: {error.strerror or error}")])


def _read(sources: Iterable[tuple[str, bytes | str]], faults: list[Fault]) -> list[Node]:
    roots: list[Node] = []
    for name, raw in sources:
        try:
            roots.append(read(raw, name))
        except PolicyError as error:
            faults.extend(error.faults)
    return roots


def _in_order(faults: Iterable[Fault], files: Sequence[str]) -> list[Fault]:
    """Each fault once, in the order of files, lines and columns; secrets are blotted out."""
    numbers = {file: number for number, file in enumerate(files)}

    def position(fault: Fault) -> tuple[int, int, int]:
        place = fault.place
        return (numbers.get(place.file, 0), place.line, place.column) if place else (-1, 0, 0)

    ordered = sorted(dict.fromkeys(faults), key=position)
    secrets = [fault.place for fault in ordered if fault.code == "secret-as-value" and fault.place]
    return [_blotted(fault, secrets) for fault in ordered] if secrets else ordered


def _blotted(fault: Fault, secrets: Iterable[Place]) -> Fault:
    """`fault` showing stars for each of `secrets` in its line, which may end up in a log."""
    place = fault.place
    if place is None or not place.text:
        return fault
    text = place.text
    for secret in secrets:
        if (secret.file, secret.line) == (place.file, place.line):
            start, end = secret.column - 1, secret.column - 1 + secret.width
            text = text[:start] + "*" * (end - start) + text[end:]
    return Fault(
        fault.code, fault.message, Place(place.file, place.line, place.column, place.width, text)
    )


# ------------------------------------------------------------------ merge


def _merged(roots: Sequence[Node], faults: list[Fault]) -> Node:
    merged = Node(roots[0].place, {})
    for root in roots:
        _check_version(root, faults)
        for key, entry in root.block.items():
            if key == "version":
                merged.block.setdefault(key, entry)
            elif key in _LISTS:
                _string_together(merged, key, entry)
            else:
                _join(merged.block, key, entry, (key,), faults)
    return merged


def _check_version(root: Node, faults: list[Fault]) -> None:
    version = root.get("version")
    if version is None:
        message = "key 'version' is missing; begin the file with 'version: 1'"
        faults.append(Fault("missing-key", message, root.place))
    elif type(version.value) is not int or version.value != 1:
        message = f"version {shown(version.value)} is not one that this edgeproxy reads; write 'version: 1'"
        faults.append(Fault("bad-choice", message, version.place))


def _string_together(merged: Node, key: str, entry: Entry) -> None:
    """Lists of several files as one. What is no list stays, for the models to refuse."""
    if entry.node.value is None:
        entry = Entry(entry.key, Node(entry.key, []))
    present = merged.block.get(key)
    if present is None:
        merged.block[key] = Entry(entry.key, Node(entry.node.place, entry.node.value))
    elif isinstance(present.node.value, list) and isinstance(entry.node.value, list):
        present.node.value = [*present.node.value, *entry.node.value]
    elif isinstance(present.node.value, list):
        merged.block[key] = entry


def _join(
    block: dict[str, Entry], key: str, entry: Entry, path: tuple[str, ...], faults: list[Fault]
) -> None:
    """Put `entry` into `block`: blocks at a joint merge, anything else may be there once."""
    value = entry.node.value
    joint = len(path) == 1 or path == ("cache", "rules")
    if value is None and joint:
        value = {}
    present = block.get(key)
    if present is None:
        if not (joint and isinstance(value, dict)):
            block[key] = entry
            return
        present = block[key] = Entry(entry.key, Node(entry.node.place, {}))
    if joint and isinstance(value, dict) and isinstance(present.node.value, dict):
        for inner, below in value.items():
            _join(present.node.value, inner, below, (*path, inner), faults)
        return
    message = f"key {key!r} is here twice; the first is in {near(present.key, entry.key)}"
    faults.append(Fault("duplicate-key", message, entry.key))


# ------------------------------------------------------------------ vocabulary


@dataclass(slots=True)
class Known:
    """A plugin whose code is at hand: the vocabulary that it adds."""

    entry: Installed
    cls: type[Plugin]
    place: Place | None = None  # under `plugins`, if it is listed there
    used: Place | None = None  # where the policy first needs it

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def section(self) -> tuple[str, ...]:
        return tuple((self.cls.section or self.name).split("."))


@dataclass(slots=True)
class Vocabulary:
    """Which plugin each key belongs to. `known` is in the order in which plugins run."""

    known: list[Known] = field(default_factory=list)
    broken: list[Installed] = field(default_factory=list)
    sections: dict[tuple[str, ...], Known] = field(default_factory=dict)
    matchers: dict[str, tuple[Known, type[Matcher[Any]]]] = field(default_factory=dict)
    filters: dict[str, tuple[Known, type[Filter]]] = field(default_factory=dict)

    def add(self, plugin: Known, top: Place, faults: list[Fault]) -> None:
        self.known.append(plugin)
        cls = plugin.cls
        if cls.Config is not None:
            self._own(self.sections, plugin.section, plugin, plugin, _CORE_SECTIONS, top, faults)
        for key, matcher in cls.matchers.items():
            self._own(self.matchers, key, (plugin, matcher), plugin, _CORE_MATCHES, top, faults)
        for key, made in cls.filters.items():
            self._own(self.filters, key, (plugin, made), plugin, _CORE_ROUTES, top, faults)

    def _own[K: str | tuple[str, ...], V](
        self,
        table: dict[K, V],
        key: K,
        value: V,
        plugin: Known,
        core: frozenset[str | tuple[str, ...]],
        top: Place,
        faults: list[Fault],
    ) -> None:
        holder = table.get(key)
        if holder is None and key not in core:
            table[key] = value
            return
        name = key if isinstance(key, str) else ".".join(key)
        other = holder[0] if isinstance(holder, tuple) else holder
        first = (
            f"plugin {other.name!r} ({other.entry.source})"
            if isinstance(other, Known)
            else "edgeproxy itself"
        )
        message = (
            f"plugin {plugin.name!r} ({plugin.entry.source}) brings the key {name!r}, "
            f"which {first} has already; take one of them away"
        )
        faults.append(Fault("plugin-conflict", message, plugin.place or top))

    def top_level(self) -> list[str]:
        """The keys that may stand at the top of a policy."""
        sections = [section[0] for section in self.sections if len(section) == 1]
        return [*PolicyCore.model_fields, "cache", *sections]

    def below_cache(self) -> list[str]:
        tiers = [section[1] for section in self.sections if section[0] == "cache" and section[1:]]
        return [*CacheConfig.model_fields, *tiers]


_CORE_SECTIONS: frozenset[Any] = frozenset(
    [(key,) for key in (*PolicyCore.model_fields, "cache")]
    + [("cache", key) for key in CacheConfig.model_fields]
)
_CORE_MATCHES: frozenset[Any] = frozenset(MatchCore.model_fields)
_CORE_ROUTES: frozenset[Any] = frozenset([*RouteCore.model_fields, "match", "filters"])


# ------------------------------------------------------------------ check and bind


@dataclass(frozen=True, slots=True)
class _View:
    """What a filter may ask of its policy."""

    origin_names: frozenset[str]


@dataclass(slots=True)
class _FoundMatch:
    core: Node
    keys: dict[str, Entry]


@dataclass(slots=True)
class _FoundRoute:
    """A route in its long form, before its values are checked."""

    node: Node
    label: str
    core: Node
    matches: list[_FoundMatch]
    filters: list[tuple[str, Entry]]


@dataclass(slots=True)
class _Loader:
    """One load. Each step goes on after a fault, so that the operator sees all of them."""

    root: Node
    registry: Registry
    env: Mapping[str, str]
    reuse: Mapping[str, LoadedPlugin]
    faults: list[Fault]
    words: Vocabulary = field(default_factory=Vocabulary)
    plugins: dict[str, LoadedPlugin] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)

    def policy(self, files: tuple[str, ...]) -> Policy | None:
        self._learn()
        self._default_tier()
        self._default_route()
        self._top_level()
        found = [self._route(node, number) for number, node in enumerate(self._routes(), 1)]
        origins = self._origins()
        self.context = {"env": self.env, **({} if origins is None else {"origins": origins})}
        core, cache = self._core(), self._cache()
        self._make_plugins()
        routes = [self._bound(route, cache) for route in found if route is not None]
        self._unique_names(found)
        if self.faults or core is None or cache is None:
            return None
        expanded = self._expanded(found, routes)
        return Policy(
            core=core,
            cache=cache,
            routes=tuple(route for route in routes if route is not None),
            plugins=tuple(self.plugins.values()),
            version=_version(expanded),
            files=files,
            expanded=expanded,
        )

    def fault(self, code: str, message: str, place: Place | None) -> None:
        self.faults.append(Fault(code, message, place))

    # -------------------------------------------------------------- plugins and their keys

    def _learn(self) -> None:
        """Fill the vocabulary: first-party plugins, then those listed, in that order."""
        listed = self._listed()
        order = {name: number for number, name in enumerate(FIRST_PARTY_ORDER)}
        own = [entry for entry in self.registry.entries if entry.is_first_party]
        own.sort(key=lambda entry: (order.get(entry.name, len(order)), entry.name))
        for entry in own:
            self._learn_from(entry, listed.pop(entry.name, None))
        for name, place in listed.items():
            entries = self.registry.named(name)
            if entries:
                self._learn_from(entries[0], place)

    def _listed(self) -> dict[str, Place]:
        """The names under `plugins`, with their places. Faults for what cannot be had."""
        found: dict[str, Place] = {}
        node = self.root.get("plugins")
        for item in node.items if node else []:
            name = item.value
            if not isinstance(name, str):
                continue  # PolicyCore says so
            entries = self.registry.named(name)
            if name in found:
                message = f"plugin {name!r} is here twice; the first is in {near(found[name], item.place)}"
                self.fault("duplicate-name", message, item.place)
            elif not entries:
                hint = did_you_mean(name, self.registry)
                message = f"no plugin called {name!r} is installed{hint}"
                self.fault("unknown-plugin", message, item.place)
            elif len(entries) > 1:
                sources = " and ".join(entry.source for entry in entries)
                message = f"plugin {name!r} is brought by {sources}; uninstall one of them"
                self.fault("plugin-conflict", message, item.place)
            else:
                found[name] = item.place
        return found

    def _learn_from(self, entry: Installed, place: Place | None) -> None:
        cls = entry.load()
        if not isinstance(cls, Broken):
            self.words.add(Known(entry, cls, place, used=place), self.root.place, self.faults)
            return
        self.words.broken.append(entry)
        if place is not None:
            self.faults.append(_unusable(entry, cls, place))

    def _unknown(self, key: str, place: Place, where: str, known: Iterable[str]) -> None:
        named = next((entry for entry in self.words.broken if entry.name == key), None)
        found = named.load() if named else None
        if named and isinstance(found, Broken):
            self.faults.append(_unusable(named, found, place))
        else:
            self.faults.append(unknown_key(key, place, where, known, self.words.broken))

    # -------------------------------------------------------------- the long form

    def _default_tier(self) -> None:
        name, (head, tail) = _DEFAULT_TIER
        plugin = self.words.sections.get((head, tail))
        if plugin is None or plugin.name != name:
            return
        top = self.root.place
        cache = self.root.block.setdefault(head, Entry(top, Node(top, {})))
        if isinstance(cache.node.value, dict):
            cache.node.value.setdefault(tail, Entry(cache.key, Node(cache.key, {})))

    def _default_route(self) -> None:
        """A policy with one origin and no routes sends everything there."""
        origins, routes = self.root.get("origins"), self.root.get("routes")
        if routes is not None and routes.value != []:
            return
        names = list(origins.block) if origins else []
        place = self.root.block["origins"].key if "origins" in self.root.block else self.root.place
        if len(names) == 1:
            route = {
                "name": Entry(place, Node(place, "all")),
                "origin": Entry(place, Node(place, names[0])),
            }
            self.root.block["routes"] = Entry(place, Node(place, [Node(place, route)]))
        elif names:
            message = (
                "key 'routes' is missing; with several origins, routes say which one serves what"
            )
            self.fault("missing-key", message, place)
        elif origins is None or isinstance(origins.value, dict):
            message = (
                "this policy serves nothing; add an origin, as in origins: {pages: {url: ...}}"
            )
            self.fault("missing-key", message, place)

    def _top_level(self) -> None:
        known = self.words.top_level()
        for key, entry in self.root.block.items():
            if key not in known:
                self._unknown(key, entry.key, "", known)
        for section, plugin in self.words.sections.items():
            node = self.root.get(*section)
            if node is not None and plugin.used is None:
                parent = self.root.get(*section[:-1]) or self.root
                plugin.used = parent.block[section[-1]].key

    def _routes(self) -> list[Node]:
        routes = self.root.get("routes")
        return routes.items if routes else []

    def _route(self, node: Node, number: int) -> _FoundRoute | None:
        """The route in its long form; its plugins are marked as used."""
        name = node.get("name")
        label = (
            f"route {name.value!r}" if name and isinstance(name.value, str) else f"route {number}"
        )
        if not isinstance(node.value, dict):
            self.fault(
                "bad-type", f"{shown(node.plain())} is not a route; write - name: ...", node.place
            )
            return None
        known = [*RouteCore.model_fields, "match", "filters", *self.words.filters]
        core: dict[str, Entry] = {}
        short: list[tuple[str, Entry]] = []
        for key, entry in node.block.items():
            if key in self.words.filters:
                short.append((key, entry))
            elif key in RouteCore.model_fields and key != "matches":
                core[key] = entry
            elif key not in known:
                self._unknown(key, entry.key, label, known)
        filters = [*short, *self._filters(node.get("filters"), label)]
        for key, entry in filters:
            self._use(self.words.filters[key][0], entry.key)
        return _FoundRoute(node, label, Node(node.place, core), self._matches(node, label), filters)

    def _use(self, plugin: Known, place: Place) -> None:
        plugin.used = plugin.used or place

    def _matches(self, node: Node, label: str) -> list[_FoundMatch]:
        matches = node.get("matches")
        found = matches.items if matches else []
        if matches is not None and not isinstance(matches.value, list | None):
            message = (
                f"{shown(matches.plain())} is not a list; write matches: [...], or match: {{...}}"
            )
            self.fault("bad-type", message, matches.place)
        single = node.get("match")
        if single is not None and matches is not None:
            message = "write match or matches, not both"
            self.fault("bad-value", message, node.block["match"].key)
        elif single is not None:
            found = [single]
        return [match for one in found if (match := self._match(one, label)) is not None]

    def _match(self, node: Node, label: str) -> _FoundMatch | None:
        if not isinstance(node.value, dict):
            message = f"{shown(node.plain())} is not a match; write for example {{path: /docs/**}}"
            self.fault("bad-type", message, node.place)
            return None
        known = [*MatchCore.model_fields, *self.words.matchers]
        core: dict[str, Entry] = {}
        keys: dict[str, Entry] = {}
        for key, entry in node.value.items():
            if key in MatchCore.model_fields:
                core[key] = entry
            elif key in self.words.matchers:
                keys[key] = entry
                self._use(self.words.matchers[key][0], entry.key)
            else:
                self._unknown(key, entry.key, f"a match of {label}", known)
        return _FoundMatch(Node(node.place, core), keys)

    def _filters(self, node: Node | None, label: str) -> Iterator[tuple[str, Entry]]:
        """The entries of a route's `filters`: blocks of one key each."""
        if node is None or node.value is None:
            return
        if not isinstance(node.value, list):
            message = f"{shown(node.plain())} is not a list; write filters: [{{NAME: ...}}, ...]"
            self.fault("bad-type", message, node.place)
        for item in node.items:
            if len(item.block) != 1:
                message = "an entry of filters is one filter with its settings, as in - NAME: {...}"
                self.fault("bad-type", message, item.place)
            for key, entry in item.block.items():
                if key in self.words.filters:
                    yield key, entry
                else:
                    self._unknown(key, entry.key, f"filters of {label}", self.words.filters)

    # -------------------------------------------------------------- models

    def _origins(self) -> frozenset[str] | None:
        """The names of the origins; None if `origins` cannot be read, so that nobody asks for one."""
        node = self.root.get("origins")
        if node is None:
            return frozenset()
        return frozenset(node.block) if isinstance(node.value, dict) else None

    def _core(self) -> PolicyCore | None:
        fields = PolicyCore.model_fields
        own = {key: entry for key, entry in self.root.block.items() if key in fields}
        # The version has been checked in every file, so that a fault says which.
        own["version"] = Entry(self.root.place, Node(self.root.place, 1))
        return check(PolicyCore, Node(self.root.place, own), "", self.faults, self.context)

    def _cache(self) -> CacheConfig | None:
        entry = self.root.block.get("cache")
        if entry is None:
            return CacheConfig()
        node, known = entry.node, self.words.below_cache()
        if isinstance(node.value, dict):
            for key, below in node.value.items():
                if key not in known:
                    self._unknown(key, below.key, "cache", known)
            fields = CacheConfig.model_fields
            node = Node(
                node.place, {key: below for key, below in node.value.items() if key in fields}
            )
        return check(CacheConfig, node, "cache", self.faults, self.context)

    def _make_plugins(self) -> None:
        """Make each plugin that the policy needs, and gather the facts that they set."""
        facts: set[str] = set()
        complete = True
        for plugin in self.words.known:
            if plugin.used is None:
                continue
            made = self._made(plugin)
            if made is not None:
                self.plugins[plugin.name] = made
            names = None if made is None else self._facts(plugin, made)
            complete = complete and names is not None
            facts.update(names or ())
        if complete:  # or else templates would be blamed for a plugin's fault
            self.context["facts"] = facts

    def _made(self, plugin: Known) -> LoadedPlugin | None:
        place = plugin.used
        config = None
        if plugin.cls.Config is not None:
            node = self.root.get(*plugin.section)
            if node is not None:
                parent = self.root.get(*plugin.section[:-1]) or self.root
                place = parent.block[plugin.section[-1]].key
            config = self._config(plugin, plugin.cls.Config, node)
            if config is None:
                return None
        held = self.reuse.get(plugin.name)
        if held is not None and type(held.instance) is plugin.cls:
            if getattr(held.instance, "config", _NOTHING) == config:
                return held
        try:
            instance = plugin.cls(config)
        except Exception as error:
            self.faults.append(plugin_fault(plugin.entry, "__init__", error, place))
            return None
        return LoadedPlugin(plugin.name, plugin.entry.source, instance)

    def _config(self, plugin: Known, model: type[BaseModel], node: Node | None) -> BaseModel | None:
        """The plugin's section; without one, or with an empty one, what its defaults say."""
        where = ".".join(plugin.section)
        if node is not None and node.value is not None and node.value != {}:
            return check(model, node, where, self.faults, self.context, plugin.entry)
        try:
            return model()
        except ValidationError as error:
            names = [
                str(one["loc"][0])
                for one in error.errors()
                if one["type"] == "missing" and one["loc"]
            ]
            if node is not None:
                place = self.root.block[plugin.section[0]].key if node.value is None else node.place
                empty = Node(place, {})
                check(model, empty, where, self.faults, self.context, plugin.entry)
                return None
            needs = f" with {', '.join(names)}" if names else ""
            message = f"plugin {plugin.name!r} is used here and needs a section {where!r}{needs}"
            self.fault("missing-key", message, plugin.used)
        except Exception as error:
            self.faults.append(plugin_fault(plugin.entry, "its section", error, plugin.used))
        return None

    def _facts(self, plugin: Known, made: LoadedPlugin) -> set[str] | None:
        try:
            return {fact.name for fact in made.instance.facts()}
        except Exception as error:
            failure = RuntimeError(f"{type(error).__name__}: {error}")
            self.faults.append(plugin_fault(plugin.entry, "facts", failure, plugin.used))
            return None

    # -------------------------------------------------------------- routes

    def _bound(self, found: _FoundRoute, cache: CacheConfig | None) -> Route | None:
        core = check(RouteCore, found.core, found.label, self.faults, self.context)
        matches = [self._bound_match(match, found.label) for match in found.matches]
        filters = [self._bound_filter(key, entry, found.label) for key, entry in found.filters]
        if core is None:
            return None
        core = self._referring(core, found, cache)
        name = found.node.get("name") or found.node
        return Route(
            core=core,
            matches=tuple(match for match in matches if match is not None),
            filters=tuple(bound for bound in filters if bound is not None),
            place=name.place,
        )

    def _referring(
        self, core: RouteCore, found: _FoundRoute, cache: CacheConfig | None
    ) -> RouteCore:
        """`core` with its origin and its cache rule looked up."""
        if isinstance(core.cache, str) and cache is not None and core.cache not in cache.rules:
            rules = nearest(core.cache, "rules", cache.rules)
            message = f"no rule in cache.rules is called {core.cache!r}{rules}"
            self.fault("unknown-rule", message, found.core.block["cache"].node.place)
        origins = self.context.get("origins")
        if core.origin or core.backend_refs or origins is None:
            return core
        if len(origins) == 1:
            return core.model_copy(update={"origin": next(iter(origins))})
        if not any(self.words.filters[key][1].answers for key, _ in found.filters):
            known = (
                f"; origins: {', '.join(sorted(origins))}" if origins else "; this policy has none"
            )
            message = f"{found.label} needs an origin{known}"
            self.fault("missing-origin", message, found.node.place)
        return core

    def _bound_match(self, found: _FoundMatch, label: str) -> Match | None:
        core = check(MatchCore, found.core, f"a match of {label}", self.faults, self.context)
        clauses: list[Clause] = []
        for key, entry in found.keys.items():
            known, model = self.words.matchers[key]
            where = f"{key} in a match of {label}"
            matcher = check(model, entry.node, where, self.faults, self.context, known.entry)
            plugin = self.plugins.get(known.name)
            if matcher is not None and plugin is not None:
                clauses.append(Clause(key, matcher, plugin, entry.node.place))
        return None if core is None else Match(core, tuple(clauses))

    def _bound_filter(self, key: str, entry: Entry, label: str) -> BoundFilter | None:
        known, model = self.words.filters[key]
        node = Node(entry.key, {}) if entry.node.value is None else entry.node
        made = check(model, node, f"{key} of {label}", self.faults, self.context, known.entry)
        plugin = self.plugins.get(known.name)
        if made is None or plugin is None:
            return None
        view = _View(self.context.get("origins") or frozenset())
        try:
            hooks = made.bind(plugin.instance, view)
        except Exception as error:
            self.faults.append(plugin_fault(known.entry, f"{key}.bind", error, node.place))
            return None
        return BoundFilter(key, made, hooks, plugin, node.place)

    def _unique_names(self, routes: Iterable[_FoundRoute | None]) -> None:
        first: dict[str, Place] = {}
        for route in routes:
            node = route.node.get("name") if route else None
            if node is None or not isinstance(node.value, str):
                continue
            if node.value in first:
                line = near(first[node.value], node.place)
                message = f"route {node.value!r} is here twice; the first is in {line}"
                self.fault("duplicate-name", message, node.place)
            first.setdefault(node.value, node.place)

    # -------------------------------------------------------------- the result

    def _expanded(
        self, found: Iterable[_FoundRoute | None], routes: Iterable[Route | None]
    ) -> dict[str, Any]:
        """The policy in its long form, as it would have to be written."""
        data: dict[str, Any] = self.root.plain()
        data["routes"] = [
            _expanded_route(one, route)
            for one, route in zip(found, routes, strict=True)
            if one is not None and route is not None
        ]
        return data


_NOTHING = object()


def _unusable(entry: Installed, broken: Broken, place: Place) -> Fault:
    if broken.missing:
        return missing_module(entry, broken.missing, place)
    message = f"plugin {entry.name!r} ({entry.source}) cannot be loaded: {broken.reason}"
    return Fault("plugin-failed", message, place)


def _expanded_route(found: _FoundRoute, route: Route) -> dict[str, Any]:
    plain = found.core.plain()
    long: dict[str, Any] = {"name": plain.pop("name")}
    if found.matches:
        long["matches"] = [
            {
                **bound.core.model_dump(mode="json", exclude_unset=True),
                **{key: entry.node.plain() for key, entry in match.keys.items()},
            }
            for match, bound in zip(found.matches, route.matches, strict=True)
        ]
    long.update(plain)
    if found.filters:
        long["filters"] = [{key: entry.node.plain()} for key, entry in found.filters]
    return long


def _version(expanded: Mapping[str, Any]) -> str:
    """12 hex digits that change with the policy; the order of keys counts, as it may have meaning."""
    text = json.dumps(expanded, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
