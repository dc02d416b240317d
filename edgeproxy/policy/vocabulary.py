"""The words of a policy: which plugin each section, match key and filter belongs to.

First-party plugins need no naming. Those of other distributions are an allow-list under
`plugins`; the code of one that is not on it is never imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edgeproxy.caching.config import CacheConfig
from edgeproxy.errors import Fault, Place
from edgeproxy.plugin import Filter, Matcher, Plugin
from edgeproxy.policy.faults import missing_module, nearest
from edgeproxy.policy.installed import Broken, Installed, Registry
from edgeproxy.policy.model import MatchCore, PolicyCore, RouteCore
from edgeproxy.policy.source import Node, near, shown
from edgeproxy.values import did_you_mean

# The order in which first-party plugins run; others of ours follow by name. First what answers for
# itself, then facts, then what chooses a target, then what edits messages; links read what the
# others wrote.
FIRST_PARTY_ORDER = (
    "deploy",
    "geo",
    "content",
    "split",
    "trace",
    "otel",
    "headers",
    "rewrite",
    "links",
    "memory_cache",
    "disk_cache",
)

_SECTIONS: frozenset[Any] = frozenset(
    [(key,) for key in (*PolicyCore.model_fields, "cache")]
    + [("cache", key) for key in CacheConfig.model_fields]
)
_MATCHES: frozenset[Any] = frozenset(MatchCore.model_fields)
_ROUTES: frozenset[Any] = frozenset([*RouteCore.model_fields, "match", "filters"])


@dataclass(slots=True)
class Known:
    """A plugin whose code is at hand. `used` is where the policy first needs it, if it does."""

    entry: Installed
    cls: type[Plugin]
    listed: Place | None = None
    used: Place | None = None

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def section(self) -> tuple[str, ...]:
        """The path of its section: one key, or `cache` and one key."""
        return tuple((self.cls.section or self.name).split("."))

    def use(self, place: Place) -> None:
        self.used = self.used or place

    def __str__(self) -> str:
        return f"plugin {self.name!r} ({self.entry.source})"


@dataclass(slots=True)
class Vocabulary:
    """Which plugin each key belongs to. `known` is in the order in which plugins run."""

    registry: Registry
    known: list[Known] = field(default_factory=list)
    broken: dict[str, Installed] = field(default_factory=dict)
    sections: dict[tuple[str, ...], Known] = field(default_factory=dict)
    matchers: dict[str, tuple[Known, type[Matcher[Any]]]] = field(default_factory=dict)
    filters: dict[str, tuple[Known, type[Filter]]] = field(default_factory=dict)

    @property
    def top_keys(self) -> list[str]:
        """What may stand at the top of a policy."""
        sections = [section[0] for section in self.sections if len(section) == 1]
        return [*PolicyCore.model_fields, "cache", *sections]

    @property
    def cache_keys(self) -> list[str]:
        tiers = [section[1] for section in self.sections if len(section) == 2]
        return [*CacheConfig.model_fields, *tiers]

    @property
    def route_keys(self) -> list[str]:
        return [*RouteCore.model_fields, "match", "filters", *self.filters]

    @property
    def match_keys(self) -> list[str]:
        return [*MatchCore.model_fields, *self.matchers]

    def unknown(self, key: str, place: Place, where: str, known: Iterable[str]) -> Fault:
        """The fault of a key that nobody knows, or whose plugin could not be asked."""
        if key in self.broken:
            return unusable(self.broken[key], place)
        entry = self.registry.get(key)
        if entry is not None and not entry.is_first_party:
            message = f"key {key!r} needs plugin {key!r} of {entry.source}; list it under plugins"
            return Fault("unknown-key", message, place)
        names = list(known)
        inside = f" in {where}" if where else ""
        message = f"unknown key {shown(key)}{inside}"
        suspects = [] if did_you_mean(key, names) else list(self.broken.values())
        for suspect in suspects:
            fault = unusable(suspect, place)
            if suspect.is_first_party and fault.code == "missing-extra":
                why = "it may belong to a plugin that cannot be loaded"
                return Fault(fault.code, f"{message}; {why}: {fault.message}", place)
        return Fault("unknown-key", f"{message}{nearest(key, 'keys', names)}", place)


def learn(registry: Registry, root: Node, faults: list[Fault]) -> Vocabulary:
    """The words that the policy `root` may use: ours first, then those of listed plugins."""
    words = Vocabulary(registry)
    listed = _listed(registry, root, faults)
    own = sorted((entry for entry in registry.entries if entry.is_first_party), key=_turn)
    others = [registry[name] for name in listed if not registry[name].is_first_party]
    for entry in (*own, *others):
        place = listed.get(entry.name)
        cls = entry.load()
        if not isinstance(cls, Broken):
            _add(words, Known(entry, cls, place, used=place), root.place, faults)
            continue
        words.broken[entry.name] = entry
        if place is not None:
            faults.append(unusable(entry, place))
    return words


def everything(registry: Registry) -> Vocabulary:
    """The words of every plugin that is installed, whether a policy lists it or not.

    Of two plugins that bring the same word, the first one is heard; what cannot be loaded is in
    `broken`.
    """
    words, nowhere = Vocabulary(registry), Place("", 1, 1)
    for entry in sorted(registry.entries, key=_turn):
        cls = entry.load()
        if isinstance(cls, Broken):
            words.broken[entry.name] = entry
        else:
            _add(words, Known(entry, cls), nowhere, [])
    return words


def _turn(entry: Installed) -> tuple[bool, int, str]:
    """When the words of a plugin are learnt, and its hooks run: ours first, in a fixed order."""
    place = FIRST_PARTY_ORDER.index(entry.name) if entry.name in FIRST_PARTY_ORDER else 99
    return not entry.is_first_party, place, entry.name


_FACT = re.compile(r"""(?:\$\{|facts\[\s*["'])([a-z0-9_]+)\.""")


def follow(words: Vocabulary, root: Node) -> None:
    """Use the plugins that others lead to: by a fact that `root` reads, or because they need it."""
    by_name = {plugin.name: plugin for plugin in words.known}
    for node in root.scalars():
        for name in _FACT.findall(node.value) if isinstance(node.value, str) else ():
            if name in by_name:
                by_name[name].use(node.place)
    waiting = [plugin for plugin in words.known if plugin.used is not None]
    while waiting:
        plugin = waiting.pop()
        for name in plugin.cls.needs:
            needed = by_name.get(name)
            if needed is not None and needed.used is None:
                assert plugin.used is not None
                needed.use(plugin.used)
                waiting.append(needed)


def _listed(registry: Registry, root: Node, faults: list[Fault]) -> dict[str, Place]:
    """The names under `plugins` that one distribution has, with their places."""
    found: dict[str, Place] = {}
    node = root.get("plugins")
    for item in node.items if node else []:
        name, place = item.value, item.place
        if not isinstance(name, str):
            continue  # the model says so
        entries = registry.named(name)
        if name in found:
            message = f"plugin {name!r} is here twice; the first is in {near(found[name], place)}"
            faults.append(Fault("duplicate-name", message, place))
        elif not entries:
            message = f"no plugin called {shown(name)} is installed{did_you_mean(name, registry)}"
            faults.append(Fault("unknown-plugin", message, place))
        elif len(entries) > 1:
            homes = " and ".join(entry.source for entry in entries)
            message = f"plugin {name!r} is brought by {homes}; uninstall one of them"
            faults.append(Fault("plugin-conflict", message, place))
        else:
            found[name] = place
    return found


def _add(words: Vocabulary, plugin: Known, top: Place, faults: list[Fault]) -> None:
    """Enter the plugin's words; a fault for each that is taken."""

    def own[K, V](table: dict[K, V], core: frozenset[Any], key: K, value: V) -> None:
        holder: Any = table.get(key)
        if holder is None and key not in core:
            table[key] = value
            return
        first = holder[0] if isinstance(holder, tuple) else holder or "edgeproxy itself"
        word = ".".join(key) if isinstance(key, tuple) else key
        message = f"{plugin} brings the key {word!r}, which {first} has; leave one of them out"
        faults.append(Fault("plugin-conflict", message, plugin.listed or top))

    words.known.append(plugin)
    if plugin.cls.Config is not None:
        own(words.sections, _SECTIONS, plugin.section, plugin)
    for key, matcher in plugin.cls.matchers.items():
        own(words.matchers, _MATCHES, key, (plugin, matcher))
    for key, made in plugin.cls.filters.items():
        own(words.filters, _ROUTES, key, (plugin, made))


def unusable(entry: Installed, place: Place) -> Fault:
    """The fault of needing a plugin that cannot be imported."""
    found = entry.load()
    assert isinstance(found, Broken)
    if found.missing:
        return missing_module(entry, found.missing, place)
    message = f"plugin {entry.name!r} ({entry.source}) cannot be loaded: {found.reason}"
    return Fault("plugin-failed", message, place)
