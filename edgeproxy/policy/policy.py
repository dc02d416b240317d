"""A policy that has been read, checked and given its plugins: what a plan is compiled from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeproxy.caching.config import CacheConfig
from edgeproxy.claims import MemoryUse
from edgeproxy.errors import Place
from edgeproxy.memory import BASE_BYTES
from edgeproxy.plugin import Filter, Matcher, Plugin
from edgeproxy.policy.files import Source
from edgeproxy.policy.model import MatchCore, PolicyCore, RouteCore
from edgeproxy.policy.source import Node


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin that the policy needs. `distribution` is where it comes from: name and version."""

    name: str
    distribution: str
    instance: Plugin


@dataclass(frozen=True, slots=True)
class Clause:
    """One key of a match that a plugin contributed."""

    key: str
    matcher: Matcher[Any]
    plugin: LoadedPlugin
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """One of a route's matches: all of it must hold. `node` is where it stands."""

    core: MatchCore
    clauses: tuple[Clause, ...]
    node: Node


@dataclass(frozen=True, slots=True)
class BoundFilter:
    """A filter of a route, with the object whose hooks run (`Filter.bind`), and where it stands."""

    key: str
    filter: Filter
    hooks: object
    plugin: LoadedPlugin
    node: Node

    @property
    def place(self) -> Place:
        return self.node.place


@dataclass(frozen=True, slots=True)
class Route:
    """A route, and the block that it stands in. `filters` begin with those of every route, and
    `place` is its name."""

    core: RouteCore
    matches: tuple[Match, ...]
    filters: tuple[BoundFilter, ...]
    place: Place
    node: Node


@dataclass(frozen=True, slots=True)
class Policy:
    """`version` is 12 hex digits of the hash of what was read; `expanded` the long form as data.

    `filters` are those of every route. `sources` are the files, or what stands for them: reading
    them again gives the same policy; `root` is what they say as one block, with places.
    """

    core: PolicyCore
    cache: CacheConfig
    routes: tuple[Route, ...]
    filters: tuple[BoundFilter, ...]
    plugins: tuple[LoadedPlugin, ...]
    version: str
    sources: tuple[Source, ...]
    root: Node
    expanded: Mapping[str, Any]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files."""
        return tuple(name for name, _ in self.sources)

    @property
    def memory_uses(self) -> tuple[MemoryUse, ...]:
        """What each process that serves it may come to hold in memory."""
        return (
            MemoryUse("edgeproxy", BASE_BYTES),
            MemoryUse("limits.body_memory", self.core.limits.body_memory),
            *(
                one
                for plugin in self.plugins
                for one in plugin.instance.resources()
                if isinstance(one, MemoryUse)
            ),
        )

    @property
    def origin_names(self) -> frozenset[str]:
        return frozenset(self.core.origins)
