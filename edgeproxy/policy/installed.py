"""The plugins that are installed, found through entry points; nothing is imported until asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions
from types import MappingProxyType

from pydantic import BaseModel

from edgeproxy.plugin import Filter, Matcher, Plugin

GROUP = "edgeproxy"
OWN = "edgeproxy"  # the distribution whose plugins are first-party


@dataclass(frozen=True, slots=True)
class Broken:
    """Why a plugin cannot be had. `missing` is the module that is not installed, if that is why."""

    reason: str
    missing: str = ""


@dataclass(slots=True)
class Installed:
    """An entry point: `find` imports its class from `module`; `extras` its distribution offers."""

    name: str
    find: Callable[[], object]
    distribution: str = OWN
    version: str = ""
    extras: frozenset[str] = frozenset()
    module: str = ""
    _found: type[Plugin] | Broken | None = field(default=None, init=False, repr=False)

    @property
    def is_first_party(self) -> bool:
        return self.distribution == OWN

    @property
    def source(self) -> str:
        """The distribution and its version."""
        return f"{self.distribution} {self.version}".rstrip()

    def load(self) -> type[Plugin] | Broken:
        """The plugin's class, or why there is none. Imports once."""
        if self._found is None:
            self._found = self._load()
        return self._found

    def _load(self) -> type[Plugin] | Broken:
        try:
            found = self.find()
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing and missing == self.module.partition(".")[0]:
                return Broken(f"its package {missing} is not there; install {self.distribution}")
            return Broken(str(error), missing)
        except (Exception, SystemExit) as error:
            return Broken(f"{type(error).__name__}: {error}")
        if not (isinstance(found, type) and issubclass(found, Plugin)):
            return Broken(f"{found!r} is not a subclass of edgeproxy.api.Plugin")
        try:
            reason = _misdeclared(found)
        except Exception as error:
            reason = f"its class declares nonsense: {type(error).__name__}: {error}"
        return Broken(reason) if reason else found


class Registry(Mapping[str, Installed]):
    """What is installed, by name. Of several with one name, the first-party one is seen here.

    `named` gives all of that name. Tests build a registry by hand: `Registry([Installed(...)])`.
    """

    def __init__(self, entries: Iterable[Installed] = ()) -> None:
        self.entries = tuple(entries)
        first = sorted(self.entries, key=lambda entry: not entry.is_first_party)
        self._names = MappingProxyType({entry.name: entry for entry in reversed(first)})

    def named(self, name: str) -> list[Installed]:
        return [entry for entry in self.entries if entry.name == name]

    def __getitem__(self, name: str) -> Installed:
        return self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def installed() -> Registry:
    """Every plugin of this Python environment."""
    entries: dict[tuple[str, str], Installed] = {}
    for distribution in distributions():
        for point in distribution.entry_points:
            if point.group == GROUP:
                entry = _entry(point, distribution)
                entries.setdefault((entry.name, entry.distribution), entry)
    return Registry(sorted(entries.values(), key=lambda entry: (entry.name, entry.distribution)))


def _entry(point: EntryPoint, distribution: Distribution) -> Installed:
    return Installed(
        name=point.name,
        find=point.load,
        distribution=distribution.metadata["Name"].lower().replace("_", "-"),
        version=distribution.version,
        extras=frozenset(distribution.metadata.get_all("Provides-Extra") or ()),
        module=point.module,
    )


def _misdeclared(plugin: type[Plugin]) -> str:
    """What is wrong with what the class declares; empty if nothing is."""
    model: object = plugin.Config
    if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
        return "its Config is not a pydantic model"
    for kind, models, base in (
        ("match key", plugin.matchers, Matcher), ("filter", plugin.filters, Filter)
    ):  # fmt: skip
        declared: Mapping[str, object] = models
        for key, value in declared.items():
            if not (isinstance(value, type) and issubclass(value, base)):
                return f"its {kind} {key!r} is not a subclass of edgeproxy.api.{base.__name__}"
    head, _, rest = plugin.section.rpartition(".")
    if head not in ("", "cache") or (head and not rest):
        return f"its section {plugin.section!r} is neither a key of the policy nor one of 'cache'"
    return ""
