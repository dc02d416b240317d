"""Plugins that exist for tests alone, and registries made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from pydantic import Field, model_validator

from edgeproxy.api import (
    Config,
    Duration,
    Exchange,
    Fact,
    FieldName,
    Filter,
    Matcher,
    OneOrMany,
    OriginName,
    Plugin,
    PolicyView,
    Secret,
    Size,
    Template,
)
from edgeproxy.policy.installed import Installed, Registry

WEATHER = Fact[str]("weather")


class Weather(Matcher[OneOrMany[str]]):
    """A match key: `weather: rain`, or a list."""

    def matches(self, exchange: Exchange) -> bool:
        return exchange.facts[WEATHER] in self.root


class Greet(Filter):
    """A filter with a template: `greet: {text: "${weather}"}`."""

    text: Template
    field: FieldName = "x-greeting"


class Reply(Filter):
    """A filter that answers, so that its route needs no origin."""

    answers: ClassVar[bool] = True
    status: int = Field(default=204, ge=200, le=599)


class Shares(Config):
    """What `split_weather` says of one part."""

    share: float = Field(ge=0, le=1)
    origin: OriginName | None = None


class Sunny(Filter):
    """A filter that looks something up when it is bound."""

    parts: dict[str, Shares] = Field(default={})

    @model_validator(mode="after")
    def _add_to_one(self) -> Sunny:
        total = sum(part.share for part in self.parts.values())
        if self.parts and abs(total - 1) > 1e-9:
            raise ValueError(f"shares add to {total:g}; make them add to 1")
        return self

    def bind(self, plugin: Any, policy: PolicyView) -> object:
        if "sun" in self.parts and "sun" not in policy.origin_names:
            raise ValueError("the part 'sun' needs an origin of that name")
        return self


class WeatherConfig(Config):
    """The section `weather`."""

    station: str = "roof"
    every: Duration = "10m"  # type: ignore[assignment]
    token: Secret | None = None


class WeatherPlugin(Plugin):
    Config = WeatherConfig
    matchers: ClassVar = {"weather": Weather}
    filters: ClassVar = {"greet": Greet, "reply": Reply, "sunny": Sunny}

    def __init__(self, config: WeatherConfig) -> None:
        super().__init__(config)
        if config.station == "moon":
            raise ValueError("there is no weather on the moon; name another station")
        if config.station == "storm":
            raise KeyError("lightning")

    def facts(self) -> Iterable[Fact[Any]]:
        return [WEATHER]


class MemoryConfig(Config):
    max_size: Size = "256MiB"  # type: ignore[assignment]


class MemoryPlugin(Plugin):
    """Stands where the memory tier stands."""

    Config = MemoryConfig
    section = "cache.memory"


class AuthConfig(Config):
    realm: str
    key: Secret


class Signed(Matcher[bool]):
    def matches(self, exchange: Exchange) -> bool:
        return self.root


class Late(Filter):
    """A filter whose library is missing when it is bound."""

    def bind(self, plugin: Any, policy: PolicyView) -> object:
        raise ImportError("No module named 'jwt'", name="jwt")


class Careless(Filter):
    """A filter with a fault of its own."""

    def bind(self, plugin: Any, policy: PolicyView) -> object:
        raise AttributeError("no attribute 'keys'")


class AuthPlugin(Plugin):
    """Of another distribution: its section has keys without a default."""

    Config = AuthConfig
    section = "auth"
    extra = "jwt"
    matchers: ClassVar = {"signed": Signed}
    filters: ClassVar = {"late": Late, "careless": Careless}


class Umbrella(Plugin):
    """Of another distribution, and in the way of `weather`."""

    matchers: ClassVar = {"weather": Weather}
    filters: ClassVar = {"cache": Greet}


class Moody(Plugin):
    """Its facts cannot be had."""

    def facts(self) -> Iterable[Fact[Any]]:
        raise RuntimeError("not today")


def missing(module: str) -> Callable[[], object]:
    """A `find` that fails as an import of `module` does."""

    def find() -> object:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    return find


def crash() -> object:
    raise RuntimeError("half of the file is gone")


def registry() -> Registry:
    """First-party: weather, memory_cache and two that cannot be loaded. Acme's: the others."""
    own = {"version": "0.1.0", "extras": frozenset({"tides"})}
    acme = {"distribution": "acme-edge", "version": "2.0"}
    return Registry(
        [
            Installed("memory_cache", lambda: MemoryPlugin, **own),  # type: ignore[arg-type]
            Installed("weather", lambda: WeatherPlugin, **own),  # type: ignore[arg-type]
            Installed("tides", missing("tidelib"), **own),  # type: ignore[arg-type]
            Installed("acme_auth", lambda: AuthPlugin, **acme),  # type: ignore[arg-type]
            Installed("acme_umbrella", lambda: Umbrella, **acme),  # type: ignore[arg-type]
            Installed("acme_moody", lambda: Moody, **acme),  # type: ignore[arg-type]
            Installed("acme_text", lambda: "no class", **acme),  # type: ignore[arg-type]
            Installed("acme_crash", crash, **acme),  # type: ignore[arg-type]
            Installed("acme_graph", missing("graphlib2"), **acme),  # type: ignore[arg-type]
            Installed("acme_twice", lambda: Moody, "acme-edge", "2.0"),
            Installed("acme_twice", lambda: Moody, "other-edge", "3.1"),
        ]
    )
