"""The long form of a policy: its short forms written out, its keys given to their plugins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgeproxy.errors import Fault
from edgeproxy.policy.model import MatchCore, RouteCore
from edgeproxy.policy.source import Entry, Node, near, shown
from edgeproxy.policy.vocabulary import Vocabulary
from edgeproxy.values import did_you_mean

_TIER = ("memory_cache", "cache", "memory")  # the plugin and section that are on unless set


@dataclass(slots=True)
class LongMatch:
    """One of a route's matches: the keys of the core, and those of plugins."""

    core: Node
    keys: dict[str, Entry]


@dataclass(slots=True)
class LongRoute:
    """A route whose short forms are written out. `label` is how messages call it."""

    node: Node
    label: str
    core: Node
    matches: list[LongMatch]
    filters: list[tuple[str, Entry]]

    def plain(self) -> dict[str, Any]:
        """The route as it would have to be written."""
        core = self.core.plain()
        long: dict[str, Any] = {"name": core.pop("name", None)}
        if self.matches:
            long["matches"] = [_plain_match(match) for match in self.matches]
        long.update(core)
        if self.filters:
            long["filters"] = [{key: entry.node.plain()} for key, entry in self.filters]
        return long


def _plain_match(match: LongMatch) -> dict[str, Any]:
    core = MatchCore.model_validate(match.core.plain())
    plugins = {key: entry.node.plain() for key, entry in match.keys.items()}
    return {**core.model_dump(mode="json", exclude_unset=True), **plugins}


def expand(root: Node, words: Vocabulary, faults: list[Fault]) -> list[LongRoute]:
    """The routes in their long form. `root` gets what it leaves to defaults, plugins their use."""
    _default_tier(root, words)
    _default_route(root, faults)
    _sections(root, words, faults)
    routes = root.get("routes")
    reader = _Routes(words, faults)
    found = [reader.route(node, n) for n, node in enumerate(routes.items if routes else [], 1)]
    _unique_names(found, faults)
    return [route for route in found if route is not None]


def shared_filters(root: Node, words: Vocabulary, faults: list[Fault]) -> list[tuple[str, Entry]]:
    """The filters at the top of the policy, which every route has before its own."""
    return list(_Routes(words, faults).filters(root.get("filters"), "the policy"))


def _default_tier(root: Node, words: Vocabulary) -> None:
    name, head, tail = _TIER
    plugin = words.sections.get((head, tail))
    if plugin is None or plugin.name != name:
        return
    cache = root.block.setdefault(head, Entry(root.place, Node(root.place, {})))
    if isinstance(cache.node.value, dict):
        cache.node.value.setdefault(tail, Entry(cache.key, Node(cache.key, {})))


def _default_route(root: Node, faults: list[Fault]) -> None:
    """A policy with one origin and no routes sends everything there."""
    origins, routes = root.block.get("origins"), root.get("routes")
    if routes is not None and routes.value != []:
        return
    place = origins.key if origins else root.place
    found = origins.node.block if origins else {}
    if len(found) == 1:
        ((only, entry),) = found.items()
        name, origin = Node(place, "all"), Node(entry.key, only)
        route = Node(place, {"name": Entry(place, name), "origin": Entry(place, origin)})
        root.block["routes"] = Entry(place, Node(place, [route]))
    elif found:
        message = "key 'routes' is missing; with several origins it says which serves what"
        faults.append(Fault("missing-key", message, place))
    elif not any(did_you_mean(key, ["origins"]) for key in root.block):
        message = "the policy names no origin; write origins: {pages: {url: ...}}"
        faults.append(Fault("missing-key", message, place))


def _sections(root: Node, words: Vocabulary, faults: list[Fault]) -> None:
    """Each key at the top and below `cache` goes to the core or to its plugin."""
    for key, entry in root.block.items():
        if key not in words.top_keys:
            faults.append(words.unknown(key, entry.key, "", words.top_keys))
    cache = root.get("cache")
    for key, entry in (cache.block if cache else {}).items():
        if key not in words.cache_keys:
            faults.append(words.unknown(key, entry.key, "cache", words.cache_keys))
    for section, plugin in words.sections.items():
        parent = root.get(*section[:-1])
        if parent is not None and section[-1] in parent.block:
            plugin.use(parent.block[section[-1]].key)


def _unique_names(routes: list[LongRoute | None], faults: list[Fault]) -> None:
    first: dict[str, Node] = {}
    for route in routes:
        node = route.node.get("name") if route else None
        if node is None or not isinstance(node.value, str):
            continue
        if node.value in first:
            line = near(first[node.value].place, node.place)
            message = f"route {shown(node.value)} is here twice; the first is in {line}"
            faults.append(Fault("duplicate-name", message, node.place))
        first.setdefault(node.value, node)


@dataclass(slots=True)
class _Routes:
    """Reads routes one by one, and goes on after a fault."""

    words: Vocabulary
    faults: list[Fault]

    def fault(self, code: str, message: str, node: Node) -> None:
        self.faults.append(Fault(code, message, node.place))

    def route(self, node: Node, number: int) -> LongRoute | None:
        name = node.get("name")
        named = name is not None and isinstance(name.value, str)
        label = f"route {shown(name.value)}" if name and named else f"route {number}"
        if not isinstance(node.value, dict):
            self.fault("bad-type", f"{shown(node.plain())} is not a route (- name: ...)", node)
            return None
        core: dict[str, Entry] = {}
        short: list[tuple[str, Entry]] = []
        for key, entry in node.value.items():
            if key in self.words.filters:
                short.append((key, self._filter(key, entry)))
            elif key in RouteCore.model_fields and key != "matches":
                core[key] = entry
            elif key not in self.words.route_keys:
                self.faults.append(self.words.unknown(key, entry.key, label, self.words.route_keys))
        filters = [*short, *self.filters(node.get("filters"), label)]
        return LongRoute(node, label, Node(node.place, core), self._matches(node, label), filters)

    def _matches(self, route: Node, label: str) -> list[LongMatch]:
        single, several = route.get("match"), route.get("matches")
        if single is not None and several is not None:
            self.fault("bad-value", f"{label} has match and matches; write one of them", single)
        found = several.items if several else []
        if several is not None and not isinstance(several.value, list | None):
            wrong = shown(several.plain())
            self.fault("bad-type", f"{wrong} is not a list; for one match write match", several)
        if single is not None:
            found = [single, *found]
        matches = [self._match(one, label) for one in found]
        return [match for match in matches if match is not None]

    def _match(self, node: Node, label: str) -> LongMatch | None:
        if not isinstance(node.value, dict):
            self.fault("bad-type", f"{shown(node.plain())} is not a match (path: /docs/**)", node)
            return None
        core: dict[str, Entry] = {}
        keys: dict[str, Entry] = {}
        for key, entry in node.value.items():
            empty = entry.node.value is None or entry.node.value == []
            if empty and key in self.words.match_keys:
                # An empty value would quietly match everything, or nothing.
                self.fault("bad-value", f"match key {key!r} has no value", entry.node)
            elif key in MatchCore.model_fields:
                core[key] = entry
            elif key in self.words.matchers:
                keys[key] = entry
                self.words.matchers[key][0].use(entry.key)
            else:
                where = f"a match of {label}"
                self.faults.append(self.words.unknown(key, entry.key, where, self.words.match_keys))
        return LongMatch(Node(node.place, core), keys)

    def filters(self, node: Node | None, label: str) -> Iterator[tuple[str, Entry]]:
        """The entries of a list of filters: blocks of one key each."""
        if node is None or node.value is None:
            return
        if not isinstance(node.value, list):
            self.fault("bad-type", f"{shown(node.plain())} is not a list (- NAME: ...)", node)
        for item in node.items:
            if len(item.block) != 1:
                message = "an entry of filters is one filter and its settings (- NAME: {...})"
                self.fault("bad-type", message, item)
            for key, entry in item.block.items():
                if key in self.words.filters:
                    yield key, self._filter(key, entry)
                    continue
                where = f"filters of {label}"
                self.faults.append(self.words.unknown(key, entry.key, where, self.words.filters))

    def _filter(self, key: str, entry: Entry) -> Entry:
        """A filter without settings has an empty block."""
        self.words.filters[key][0].use(entry.key)
        return Entry(entry.key, Node(entry.key, {})) if entry.node.value is None else entry
