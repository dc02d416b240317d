"""The geo plugin on real exchanges, with the database that edgeproxy brings."""

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgeproxy.api import Exchange, Request, Template
from edgeproxy_geo.database import builtin_path
from edgeproxy_geo.plugin import CONTINENT, COUNTRY, FACTS, Geo, Plugin


@pytest.fixture(scope="module")
def geo() -> Plugin:
    return Plugin(Geo())


def visit(plugin: Plugin, address: str) -> Exchange:
    exchange = Exchange(Request("GET", "site.test", "/"), client=ip_address(address))
    plugin.annotate(exchange)
    return exchange


def matches(plugin: Plugin, key: str, value: Any, address: str) -> bool:
    """What a route's `key: value` says of a client; compiled or not, the answer is the same."""
    matcher = plugin.matchers[key].model_validate(value)
    compiled = matcher.compile(plugin)(visit(plugin, address))
    assert matcher.matches(visit(plugin, address)) is compiled
    return compiled


@pytest.mark.parametrize(
    ("address", "country", "continent"),
    [
        ("80.67.169.12", "FR", "EU"),
        ("2001:910:800::12", "FR", "EU"),
        ("193.0.14.129", "NL", "EU"),
        ("::ffff:80.67.169.12", "FR", "EU"),
        ("2002:5043:a90c::1", "FR", "EU"),  # 6to4
        ("64:ff9b::5043:a90c", "FR", "EU"),  # NAT64
        ("127.0.0.1", "XX", "XX"),
        ("10.1.2.3", "XX", "XX"),
        ("::1", "XX", "XX"),
        ("::", "XX", "XX"),
        ("2001:db8::1", "XX", "XX"),
        ("fe80::1%eth0", "XX", "XX"),
        ("255.255.255.255", "XX", "XX"),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "XX", "XX"),
    ],
)
def test_clients_are_placed(geo: Plugin, address: str, country: str, continent: str) -> None:
    exchange = visit(geo, address)
    assert exchange.facts[COUNTRY] == country
    assert exchange.facts[CONTINENT] == continent


def test_known_addresses_have_their_country(geo: Plugin, shared_geoip: Path) -> None:
    expected, found = {}, {}
    for line in (shared_geoip / "known-ips.csv").read_text().splitlines()[1:]:
        address, country, kind, *_ = line.split(",")
        if kind != "disputed":
            expected[address] = country or "XX"
            found[address] = visit(geo, address).facts[COUNTRY]
    assert len(expected) == 103 + 20 + 3
    assert found == expected


def test_nothing_is_looked_up_until_somebody_asks(geo: Plugin) -> None:
    exchange = visit(geo, "80.67.169.12")
    assert exchange.facts.known() == {}
    assert Template("${geo.country}-${geo.asn}-${geo.region}").render(exchange) == "FR-0-"
    assert exchange.facts.known() == {"geo.country": "FR", "geo.asn": 0, "geo.region": ""}


def test_facts_are_announced_and_the_country_is_logged(geo: Plugin) -> None:
    assert {fact.name for fact in geo.facts()} == {
        "geo.country", "geo.continent", "geo.region", "geo.city", "geo.timezone", "geo.asn",
        "geo.as_name",
    }  # fmt: skip
    assert [fact.name for fact in FACTS if fact.log] == ["geo.country"]
    assert COUNTRY.log == "country"


@pytest.mark.parametrize(
    ("key", "value", "verdict"),
    [
        ("country", "FR", True),
        ("country", ["DE", "FR"], True),
        ("country", ["DE", "NO"], False),
        ("country", "XX", False),
        ("continent", "EU", True),
        ("continent", ["NA", "SA"], False),
        ("country_group", "eu", True),
        ("country_group", ["eea", "schengen"], True),
    ],
)
def test_a_french_client_matches(geo: Plugin, key: str, value: Any, verdict: bool) -> None:
    assert matches(geo, key, value, "80.67.169.12") is verdict


def test_an_unknown_client_matches_only_unknown(geo: Plugin) -> None:
    assert matches(geo, "country", "XX", "192.0.2.1")
    assert matches(geo, "continent", "XX", "192.0.2.1")
    assert not matches(geo, "country", "FR", "192.0.2.1")
    assert not matches(geo, "continent", list(geo_continents()), "192.0.2.1")
    assert not matches(geo, "country_group", ["eu", "eea", "schengen"], "192.0.2.1")


def geo_continents() -> set[str]:
    return {"AF", "AN", "AS", "EU", "NA", "OC", "SA"}


def test_answers_matched_by_place_are_kept_apart_by_caches() -> None:
    assert Plugin.matchers.keys() == {"country", "country_group", "continent", "region", "asn"}
    assert all(matcher.varies_by == ("*",) for matcher in Plugin.matchers.values())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("country", "UK", "did you mean GB?"),
        ("country", [], "at least 1 item"),
        ("country", False, "valid string"),  # NO in YAML 1.1
        ("country_group", "g7", "known: eea, eu, schengen"),
        ("continent", "Europe", "known: AF, AN, AS, EU, NA, OC, SA"),
        ("region", "England", "write for example GB-ENG"),
        ("asn", "AS3215", "valid integer"),
        ("asn", True, "valid integer"),
        ("asn", -1, "greater than or equal to 0"),
        ("asn", 2**32, "less than or equal to 4294967295"),
    ],
)
def test_a_wrong_match_is_a_fault(key: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace("?", r"\?")):
        Plugin.matchers[key].model_validate(value)


@pytest.mark.parametrize(("key", "value"), [("region", "GB-ENG"), ("asn", 3215)])
def test_a_match_that_could_never_hold_is_a_fault(geo: Plugin, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"the builtin database knows no geo.{key}"):
        Plugin.matchers[key].model_validate(value).compile(geo)


def test_a_missing_database_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing\.mmdb': No such file or directory"):
        Plugin(Geo(database=(str(tmp_path / "missing.mmdb"),)))


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Is a directory"):
        Plugin(Geo(database=(str(tmp_path),)))


def test_a_file_that_is_no_database_is_a_fault(tmp_path: Path) -> None:
    for name, content in {"empty": b"", "text": b"country,FR\n" * 1000}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}': .*valid MaxMind DB file") as caught:
            Plugin(Geo(database=(str(tmp_path / name),)))
        assert "edgeproxy-geo-" not in str(caught.value)


@pytest.mark.parametrize(
    "section", [{"database": []}, {"cache_size": 0}, {"reload_interval": 10}, {"databse": "x"}]
)
def test_a_wrong_section_is_a_fault(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Geo.model_validate(section)


def test_one_database_or_several_may_be_named(tmp_path: Path) -> None:
    assert Geo.model_validate({"database": "builtin"}).database == ("builtin",)
    both = Plugin(Geo.model_validate({"database": ["builtin", str(builtin_path())]}))
    assert visit(both, "80.67.169.12").facts[COUNTRY] == "FR"


async def test_a_replaced_file_is_in_force_after_the_next_tick(tmp_path: Path) -> None:
    database = tmp_path / "geo.mmdb"
    database.write_bytes(builtin_path().read_bytes())
    ticks: asyncio.Queue[None] = asyncio.Queue()
    looked = asyncio.Event()

    async def tick() -> None:
        looked.set()
        await ticks.get()

    plugin = Plugin(Geo(database=(str(database),)), tick)
    await plugin.startup()
    before = plugin.databases.current
    under_way = visit(plugin, "80.67.169.12")

    (tmp_path / "new").write_bytes(database.read_bytes())
    (tmp_path / "new").replace(database)
    await looked.wait()
    looked.clear()
    ticks.put_nowait(None)
    await looked.wait()

    assert plugin.databases.current is not before
    assert visit(plugin, "80.67.169.12").facts[COUNTRY] == "FR"
    assert len(before.answers) == 0
    assert under_way.facts[COUNTRY] == "FR"
    assert len(before.answers) == 1  # what began on the old databases ends on them
    await plugin.shutdown()
    assert plugin.watcher is not None
    assert plugin.watcher.cancelled()


async def test_an_interval_of_0_watches_nothing() -> None:
    plugin = Plugin(Geo.model_validate({"reload_interval": 0}))
    await plugin.startup()
    assert plugin.watcher is None
    await plugin.shutdown()
