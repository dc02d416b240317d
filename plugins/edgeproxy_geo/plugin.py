"""Tell where clients are, and match routes by it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, WithJsonSchema

from edgeproxy.api import (
    Below,
    Config,
    Constraint,
    DataFile,
    Duration,
    Exchange,
    Fact,
    Matcher,
    OneOrMany,
    Resource,
    editor_hint,
    hookimpl,
)
from edgeproxy.api import Plugin as BasePlugin

from . import places
from .database import Databases, Snapshot, builtin_path

COUNTRY = Fact[str]("geo.country", default=places.UNKNOWN, log="country")
CONTINENT = Fact[str]("geo.continent", default=places.UNKNOWN)
REGION = Fact[str]("geo.region", default="")
CITY = Fact[str]("geo.city", default="")
TIMEZONE = Fact[str]("geo.timezone", default="")
ASN = Fact[int]("geo.asn", default=0)
AS_NAME = Fact[str]("geo.as_name", default="")

FACTS: tuple[Fact[Any], ...] = (COUNTRY, CONTINENT, REGION, CITY, TIMEZONE, ASN, AS_NAME)


def _part_of_place(name: str) -> Callable[[Snapshot, Exchange], Any]:
    part = attrgetter(name)
    return lambda snapshot, exchange: part(snapshot.at(exchange.client))


_PARTS = [(fact, _part_of_place(fact.name.removeprefix("geo."))) for fact in FACTS]


class Geo(Config):
    """Where the places of clients come from."""

    database: Annotated[OneOrMany[str], Field(min_length=1)] = ("builtin",)
    """Files in MMDB format, or `builtin`. Of several, the first that knows an address counts."""
    cache_size: int = Field(default=65536, ge=1)
    """How many addresses have their place remembered."""
    reload_interval: Duration = "10s"  # type: ignore[assignment]
    """How often to look for files that were replaced; `0`: never."""


class PlaceMatcher[T](Matcher[Annotated[OneOrMany[T], Field(min_length=1)]]):
    """One value or several; a client matches if what is known of it is among them."""

    varies_by: ClassVar[tuple[str, ...]] = ("*",)  # no request field tells a client's address
    fact: ClassVar[Fact[Any]]

    def test(self) -> Callable[[Any], bool]:
        return frozenset(self.root).__contains__

    def matches(self, exchange: Exchange) -> bool:
        return self.test()(exchange.facts[self.fact])

    def seen(self, exchange: Exchange) -> Any:
        return exchange.facts[self.fact]

    def compile(self, plugin: Plugin) -> Callable[[Exchange], bool]:
        plugin.require(self.fact)
        fact, test = self.fact, self.test()
        return lambda exchange: test(exchange.facts[fact])

    def constraints(self, plugin: Plugin) -> Sequence[Constraint]:
        return [Constraint(self.fact.name, frozenset(self.root))]


def _in_countries(countries: Iterable[str]) -> Constraint:
    return Constraint(COUNTRY.name, frozenset(countries), places.EVERY_COUNTRY)


def _any_of(codes: Iterable[str]) -> str:
    """A pattern: shorter in an editor than 250 choices."""
    return f"^({'|'.join(sorted(codes))})$"


CountryCode = Annotated[
    str,
    AfterValidator(places.country_code),
    editor_hint(_any_of(places.EVERY_COUNTRY), "no country of ISO 3166-1, such as FR"),
]
ContinentCode = Annotated[
    str,
    AfterValidator(places.continent_code),
    WithJsonSchema({"enum": sorted({*places.CONTINENTS, places.UNKNOWN})}),
]
GroupName = Annotated[
    str, AfterValidator(places.group_name), WithJsonSchema({"enum": sorted(places.GROUPS)})
]
RegionCode = Annotated[
    str,
    AfterValidator(places.region_code),
    editor_hint(r"^[A-Z]{2}-([A-Z0-9]{1,3}|\*)$", "a region of ISO 3166-2, such as GB-ENG"),
]


class Country(PlaceMatcher[CountryCode]):
    """Countries by their ISO 3166-1 alpha-2 codes; `XX` is a country not known."""

    fact = COUNTRY

    def constraints(self, plugin: Plugin) -> Sequence[Constraint]:
        return [_in_countries(self.root)]


class CountryGroup(PlaceMatcher[GroupName]):
    """Groups of countries: `eu`, `eea`, `schengen`."""

    fact = COUNTRY

    def test(self) -> Callable[[str], bool]:
        return self.countries().__contains__

    def countries(self) -> frozenset[str]:
        return frozenset[str]().union(*(places.GROUPS[name] for name in self.root))

    def constraints(self, plugin: Plugin) -> Sequence[Constraint]:
        return [_in_countries(self.countries())]


class Continent(PlaceMatcher[ContinentCode]):
    """Continents: AF, AN, AS, EU, NA, OC, SA; `XX` is one not known."""

    fact = CONTINENT

    def constraints(self, plugin: Plugin) -> Sequence[Constraint]:
        if plugin.knows_countries_only:
            wanted = frozenset(self.root)
            return [
                _in_countries(c for c in places.EVERY_COUNTRY if places.continent_of(c) in wanted)
            ]
        # Another database may see a country elsewhere.
        every = places.CONTINENTS | {places.UNKNOWN}
        return [Constraint(CONTINENT.name, frozenset(self.root), every)]


class Region(PlaceMatcher[RegionCode]):
    """Regions by their ISO 3166-2 codes; `GB-*` is any region of GB that is known."""

    fact = REGION

    def test(self) -> Callable[[str], bool]:
        wanted = frozenset(self.root)
        return lambda region: region in wanted or f"{region[:3]}*" in wanted

    def constraints(self, plugin: Plugin) -> Sequence[Constraint]:
        regions = frozenset(code.removesuffix("-*") for code in self.root)
        return [Below(REGION.name, regions), _in_countries(code[:2] for code in self.root)]


class Asn(PlaceMatcher[Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]]):
    """Networks by their AS numbers; 0 is one not known."""

    fact = ASN


class Plugin(BasePlugin):
    repeatable = True
    Config = Geo
    matchers: ClassVar[Mapping[str, type[Matcher[Any]]]] = {
        "country": Country,
        "country_group": CountryGroup,
        "continent": Continent,
        "region": Region,
        "asn": Asn,
    }

    def __init__(self, config: Geo, tick: Callable[[], Awaitable[object]] | None = None) -> None:
        """`tick` comes back when it is time to look for new files, once every interval if None."""
        super().__init__(config)
        names = config.database
        self.knows_countries_only = set(names) == {"builtin"}
        self.databases = Databases(
            [builtin_path() if name == "builtin" else Path(name) for name in names],
            config.cache_size,
        )
        self.tick = tick or partial(asyncio.sleep, config.reload_interval)
        self.watcher: asyncio.Task[None] | None = None

    def facts(self) -> Iterable[Fact[Any]]:
        return FACTS

    @property
    def revision(self) -> Hashable:
        return id(self.databases.current)

    def resources(self) -> Iterable[Resource]:
        found = self.databases.current.databases
        return [DataFile("geo.database", each.path, each.built) for each in found]

    def implied(self, name: str, value: Any) -> Mapping[str, Any]:
        if name == COUNTRY.name:
            return {CONTINENT.name: places.continent_of(value)}
        if name == REGION.name and "-" in value:
            country = value.partition("-")[0]
            return {COUNTRY.name: country, **self.implied(COUNTRY.name, country)}
        return {}

    def require(self, fact: Fact[Any]) -> None:
        """ValueError if no client can ever have `fact`, whatever its address."""
        if self.knows_countries_only and fact not in (COUNTRY, CONTINENT):
            raise ValueError(
                f"the builtin database knows no {fact.name}; name one that does in geo.database"
            )

    @hookimpl
    async def startup(self) -> None:
        if self.config.reload_interval > 0:
            self.watcher = asyncio.create_task(self.databases.watch(self.tick), name="geo watcher")

    @hookimpl
    async def shutdown(self) -> None:
        if self.watcher is not None:
            self.watcher.cancel()
            await asyncio.wait([self.watcher])

    @hookimpl
    def annotate(self, exchange: Exchange) -> None:
        # One snapshot for all facts of an exchange, so that they agree even across a swap.
        snapshot, defer = self.databases.current, exchange.facts.defer
        for fact, part in _PARTS:
            defer(fact, partial(part, snapshot, exchange))
