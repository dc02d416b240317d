"""Databases of every shape, damaged ones, and files that are replaced while in use."""

import asyncio
import json
import logging
import os
import struct
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from edgeproxy_geo.database import Complaints, Databases, builtin_path, unwrapped
from edgeproxy_geo.records import NOWHERE, Place, merged, place_in

# ---------------------------------------------------------------- a writer of small databases


def encoded(value: Any) -> bytes:
    """`value` in MMDB's data format (version 2.0), without pointers."""
    if isinstance(value, str):
        return header(2, len(value.encode())) + value.encode()
    if isinstance(value, int):
        return unsigned(6 if value < 2**32 else 9, value)
    if isinstance(value, bytes):
        return value  # encoded before
    if isinstance(value, float):
        return header(3, 8) + struct.pack(">d", value)
    if isinstance(value, list):
        return header(11, len(value)) + b"".join(map(encoded, value))
    pairs = (encoded(key) + encoded(each) for key, each in value.items())
    return header(7, len(value)) + b"".join(pairs)


def unsigned(kind: int, value: int) -> bytes:
    raw = value.to_bytes((value.bit_length() + 7) // 8)
    return header(kind, len(raw)) + raw


def header(kind: int, size: int) -> bytes:
    assert size < 285
    low, more = (size, b"") if size < 29 else (29, bytes([size - 29]))
    first = kind << 5 | low if kind < 8 else low
    return bytes([first]) + (bytes([kind - 7]) if kind >= 8 else b"") + more


def mmdb(records: dict[str, Any], ip_version: int = 6, build_epoch: int = 1) -> bytes:
    """A database that holds `records`: network -> record. Networks must not overlap."""
    nodes: list[list[int | None]] = [[None, None]]
    data, leaves = b"", []
    for name, record in records.items():
        network = ip_network(name)
        bits = network.max_prefixlen
        path = f"{int(network.network_address):0{bits}b}"[: network.prefixlen]
        path = "0" * 96 + path if ip_version == 6 and bits == 32 else path
        at = 0
        for bit in path[:-1]:
            below = nodes[at][int(bit)]
            if below is None:
                below = len(nodes)
                nodes[at][int(bit)] = below
                nodes.append([None, None])
            at = below
        leaves.append((at, int(path[-1]), len(data)))
        data += encoded(record)
    for at, side, offset in leaves:
        nodes[at][side] = len(nodes) + 16 + offset
    tree = b"".join((len(nodes) if c is None else c).to_bytes(3) for node in nodes for c in node)
    about = {
        "binary_format_major_version": unsigned(5, 2),
        "binary_format_minor_version": unsigned(5, 0),
        "build_epoch": unsigned(9, build_epoch), "database_type": "Test", "description": {},
        "ip_version": unsigned(5, ip_version), "languages": [], "node_count": len(nodes),
        "record_size": unsigned(5, 24),
    }  # fmt: skip
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + encoded(about)


Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a database, in one step as careful updaters do, and gives its path."""

    def make(records: dict[str, Any], name: str = "geo.mmdb", **options: Any) -> Path:
        (tmp_path / "making").write_bytes(mmdb(records, **options))
        return (tmp_path / "making").replace(tmp_path / name)

    return make


def at(databases: Databases, address: str) -> Place:
    return databases.current.at(ip_address(address))


# ---------------------------------------------------------------- shapes of records


GB = Place("GB", "EU", "GB-ENG", "London", "Europe/London")
MAXMIND_GB = {
    "continent": {"code": "EU"},
    "country": {"iso_code": "GB"},
    "registered_country": {"iso_code": "US"},
    "subdivisions": [{"iso_code": "ENG"}, {"iso_code": "WBK"}],
    "city": {"names": {"de": "Londres", "en": "London"}},
    "location": {"time_zone": "Europe/London", "latitude": 51.5},
}

SHAPES: dict[str, tuple[Any, Place]] = {
    "MaxMind city": (MAXMIND_GB, GB),
    "MaxMind, only the network's country": (
        {"registered_country": {"iso_code": "FR"}}, Place("FR", "EU"),
    ),
    "MaxMind, continent only": ({"continent": {"code": "EU"}}, Place("XX", "EU")),
    "MaxMind ASN": (
        {"autonomous_system_number": 1221, "autonomous_system_organization": "Telstra Pty Ltd"},
        Place(asn=1221, as_name="Telstra Pty Ltd"),
    ),
    "DB-IP city, subdivision without a code": (
        {"country": {"iso_code": "DE"}, "subdivisions": [{"names": {"en": "Hesse"}}]},
        Place("DE", "EU"),
    ),
    "ip-location-db country": ({"country_code": "NO"}, Place("NO", "EU")),
    "ip-location-db city": (
        {"country_code": "JP", "state1": "Tokyo", "city": "Chiyoda", "timezone": "Asia/Tokyo"},
        Place("JP", "AS", "", "Chiyoda", "Asia/Tokyo"),
    ),
    "IPinfo": (
        {"country": "United States", "country_code": "US", "continent": "North America",
         "continent_code": "NA", "asn": "AS15169", "as_name": "Google LLC"},
        Place("US", "NA", asn=15169, as_name="Google LLC"),
    ),
    "IPinfo, older": ({"country": "BR", "continent": "SA"}, Place("BR", "SA")),
    "IPinfo, regions": (
        {"country_code": "US", "region": "California", "region_code": "CA", "city": "Fresno"},
        Place("US", "NA", "US-CA", "Fresno"),
    ),
    "a region with its country": ({"country": "FR", "region_code": "FR-IDF"},
                                  Place("FR", "EU", "FR-IDF")),
    "Geoacumen": ({"country": {"iso_code": "KE"}}, Place("KE", "AF")),
    "Geoacumen, unknown": ({"country": {"iso_code": "None"}}, NOWHERE),
    "bare code": ("NZ", Place("NZ", "OC")),
    "bare text": ("1.1.1.1/32", NOWHERE),
    "lower case": ({"country_code": "se"}, Place("SE", "EU")),
    "codes that are no countries": ({"country_code": "ZZ", "continent_code": "??"}, NOWHERE),
    "the European Union": ({"country_code": "EU"}, NOWHERE),
    "wrong types everywhere": (
        {"country": 7, "registered_country": ["FR"], "continent": {"code": 1.5}, "city": [1],
         "subdivisions": {"iso_code": "ENG"}, "location": "here", "asn": -1, "as_name": 5,
         "autonomous_system_number": {}},
        NOWHERE,
    ),
    "absurd AS number": ({"asn": "AS9999999999"}, NOWHERE),
    "empty": ({}, NOWHERE),
    "a list": (["FR"], NOWHERE),
    "a number": (7, NOWHERE),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_record_of_any_shape_is_read(shape: str, make: Make) -> None:
    record, place = SHAPES[shape]
    if not (isinstance(record, dict) and record.get("asn") == -1):  # MMDB has it as another type
        databases = Databases([make({"192.0.2.0/24": record, "2001:db8::/32": record})])
        assert at(databases, "192.0.2.7") == place
        assert at(databases, "2001:db8::7") == place
    assert place_in(record) == place


def test_no_record_is_nowhere() -> None:
    assert place_in(None) == NOWHERE


def test_several_databases_complete_each_other(make: Make) -> None:
    country = make({"192.0.2.0/24": "GB", "198.51.100.0/24": "FR"}, "country.mmdb")
    city = make({"192.0.2.0/24": MAXMIND_GB, "198.51.100.0/24": MAXMIND_GB}, "city.mmdb")
    example = {"asn": 64500, "as_name": "Example"}
    asn = make({"0.0.0.0/1": example, "128.0.0.0/1": example}, "asn.mmdb", ip_version=4)
    databases = Databases([country, city, asn])
    assert at(databases, "192.0.2.1") == GB._replace(asn=64500, as_name="Example")
    assert at(databases, "198.51.100.1") == Place("FR", "EU", asn=64500, as_name="Example")
    assert at(databases, "203.0.113.1") == Place(asn=64500, as_name="Example")
    assert at(databases, "2001:db8::1") == NOWHERE


def test_a_country_beats_a_continent() -> None:
    assert merged(Place(continent="EU"), Place("FR", "EU")) == Place("FR", "EU")
    assert merged(Place(continent="EU"), NOWHERE) == Place(continent="EU")
    assert merged(Place(continent="EU"), Place(asn=5)) == Place(continent="EU", asn=5)


@pytest.mark.parametrize(
    ("address", "inner"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2002:c000:201::5", "192.0.2.1"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("64:ff9b:1::192.0.2.1", "64:ff9b:1::c000:201"),  # local use (RFC 8215): not the same
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_ipv4_addresses_inside_ipv6_are_found(address: str, inner: str) -> None:
    assert unwrapped(ip_address(address)) == ip_address(inner)


def test_ipv6_in_a_database_of_ipv4_is_nowhere(make: Make) -> None:
    databases = Databases([make({"192.0.2.0/24": "FR"}, ip_version=4)])
    assert at(databases, "2001:db8::1") == NOWHERE
    assert at(databases, "::ffff:192.0.2.1") == Place("FR", "EU")


def test_an_absurd_build_time_does_not_matter(make: Make) -> None:
    databases = Databases([make({"192.0.2.0/24": "FR"}, build_epoch=2**64 - 1)])
    assert at(databases, "192.0.2.1").country == "FR"


def test_a_database_without_places_is_reported(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    databases = Databases([make({"192.0.2.0/24": {"is_anonymous": 1}})])
    assert at(databases, "192.0.2.1") == NOWHERE
    assert "seems to hold no countries and no AS numbers" in caplog.text


def test_answers_are_remembered_up_to_the_limit(make: Make) -> None:
    databases = Databases([make({"192.0.2.0/24": "FR"})], cache_size=2)
    first = at(databases, "192.0.2.1")
    assert at(databases, "192.0.2.1") is first
    for last in range(1, 100):
        assert at(databases, f"192.0.2.{last}").country == "FR"
    assert len(databases.current.answers) == 2


def test_without_room_for_a_copy_the_database_is_read_into_memory(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make({"192.0.2.0/24": "FR"})
    monkeypatch.setattr("tempfile.tempdir", str(path.parent / "missing"))
    assert at(Databases([path]), "192.0.2.1").country == "FR"


# ---------------------------------------------------------------- the makers' own test databases


def expected_places(source: Path) -> dict[str, Place]:
    """The first address of each network in a source file, with the place of the nearest network."""
    networks: dict[IPv4Network | IPv6Network, Any] = {}
    for entry in json.loads(source.read_text()):
        for name, record in entry.items():
            network = ip_network(name)
            number = int(network.network_address)
            if network.version == 6 and number < 2**32 and network.prefixlen >= 96:
                network = IPv4Network((number, network.prefixlen - 96))
            networks[network] = record
    places = {}
    for network in networks:
        address = network.network_address
        around = [each for each in networks if address in each]
        nearest = max(around, key=lambda each: each.prefixlen)
        places[str(address)] = place_in(networks[nearest])
    return places


@pytest.mark.parametrize(
    ("database", "source", "count"),
    [
        ("GeoLite2-Country-Test", "GeoLite2-Country-Test", 200),
        ("GeoLite2-ASN-Test", "GeoLite2-ASN-Test", 300),
        ("GeoIP2-City-Test", "GeoIP2-City-Test", 200),
    ],
)
def test_every_network_of_the_source_has_its_place(
    shared_geoip: Path, database: str, source: str, count: int
) -> None:
    databases = Databases([shared_geoip / f"test-data/{database}.mmdb"])
    expected = expected_places(shared_geoip / f"test-data/source-data/{source}.json")
    assert {address: at(databases, address) for address in expected} == expected
    assert sum(place != NOWHERE for place in expected.values()) > count


@pytest.mark.parametrize(
    ("address", "country", "city", "asn"),
    [
        ("81.2.69.160", "GB EU", "London GB-ENG Europe/London", 0),
        ("2.125.160.216", "GB EU", "Boxford GB-ENG Europe/London", 0),
        ("89.160.20.112", "SE EU", "Linköping SE-E Europe/Stockholm", 29518),
        ("216.160.83.56", "US NA", "Milton US-WA America/Los_Angeles", 209),
        ("67.43.156.1", "BT AS", " Asia/Thimphu", 35908),
        ("175.16.199.1", "CN AS", "Changchun CN-22 Asia/Harbin", 0),
        ("202.196.224.1", "PH AS", "  Asia/Manila", 0),
        ("2001:218::1", "JP AS", "  Asia/Tokyo", 0),
        ("::ffff:81.2.69.142", "GB EU", "London GB-ENG Europe/London", 0),
        ("2002:5102:458e::1", "GB EU", "London GB-ENG Europe/London", 0),
        ("1.128.0.1", None, "", 1221),
        ("1.1.1.1", None, "", 0),
        ("127.0.0.1", None, "", 0),
    ],
)
def test_countries_cities_and_networks_agree(
    shared_geoip: Path, address: str, country: str | None, city: str, asn: int
) -> None:
    data = shared_geoip / "test-data"
    names = ("GeoIP2-Country-Test", "GeoIP2-City-Test", "GeoLite2-ASN-Test")
    countries, cities, networks = (at(Databases([data / f"{n}.mmdb"]), address) for n in names)
    assert f"{countries.country} {countries.continent}" == (country or "XX XX")
    assert f"{cities.city} {cities.region} {cities.timezone}".split() == city.split()
    assert networks.asn == asn


# These open, and what they hold can be read; that it means little is another matter.
SOUND_BUT_ODD = {
    "libmaxminddb-corrupt-search-tree",
    "libmaxminddb-empty-array-last-in-metadata",
    "libmaxminddb-empty-map-last-in-metadata",
    "libmaxminddb-uint64-max-epoch",
}


def test_every_good_file_answers_and_every_damaged_one_is_refused(shared_geoip: Path) -> None:
    refused, answered = set(), set()
    for path in sorted((shared_geoip / "test-data").rglob("*.mmdb")):
        try:
            databases = Databases([path])
        except ValueError as error:
            assert str(error).startswith(f"cannot use the database {str(path)!r}: ")  # noqa: PT017
            refused.add(path.stem)
            continue
        for address in ("81.2.69.160", "1.1.1.1", "2001:218::1", "::1", "255.255.255.255"):
            assert isinstance(at(databases, address), Place)
        answered.add(path.stem)
    damaged = {path.stem for path in (shared_geoip / "test-data/bad-data").rglob("*.mmdb")}
    broken = {stem for stem in refused | answered if "roken" in stem or "Invalid" in stem}
    assert refused == (damaged | broken) - SOUND_BUT_ODD
    assert len(refused) == 21
    assert len(answered) == 10 + len(SOUND_BUT_ODD)


def test_damage_that_shows_late_is_unknown_and_logged_once_a_minute(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = 1000.0
    good = mmdb({"192.0.2.0/24": "FR", "198.51.100.0/24": "SE"})
    path = make({})
    path.write_bytes(good.replace(b"\x42SE", b"\x5e\xff\xff"))
    with pytest.raises(ValueError, match="cannot use the database"):
        Databases([path])

    path.write_bytes(good)
    databases = Databases([path], clock=lambda: now_s)

    class Breaking:
        def get(self, address: object) -> None:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    database = databases.current.databases[0]
    object.__setattr__(database, "reader", Breaking())
    for last in range(100):
        assert at(databases, f"192.0.2.{last}") == NOWHERE
    assert len(caplog.records) == 1
    assert "a lookup in" in caplog.text
    now_s += 61
    at(databases, "192.0.2.200")
    assert len(caplog.records) == 2


def test_complaints_are_one_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]
    complaints = Complaints(lambda: now_s[0])
    for second in range(180):
        now_s[0] = float(second)
        complaints.say("at %d", second)
    assert [record.getMessage() for record in caplog.records] == ["at 0", "at 60", "at 120"]


# ---------------------------------------------------------------- replaced while in use


def version(number: int) -> dict[str, Any]:
    """Records that name their own version twice: by country and by AS number."""
    country = ("FR", "DE", "SE", "JP")[number % 4]
    filler = {f"10.{second}.0.0/16": {"asn": number} for second in range(number % 7)}
    return {"192.0.2.0/24": {"country_code": country, "asn": 1 + number % 4}} | filler


def is_whole(place: Place) -> bool:
    return place.country == ("FR", "DE", "SE", "JP")[place.asn - 1]


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads take turns 50 times as often as usual: more ways to interleave, in less time."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    yield
    sys.setswitchinterval(usual_s)


@pytest.mark.usefixtures("eager_threads")
async def test_a_hundred_swaps_under_load_give_no_wrong_answer(make: Make) -> None:
    databases = Databases([make(version(0))], cache_size=64)
    asked, stop = 0, False

    async def load() -> None:
        nonlocal asked
        while not stop:
            for last in range(100):
                assert is_whole(at(databases, f"192.0.2.{last}"))
            asked += 100
            await asyncio.sleep(0)

    clients = asyncio.create_task(load())
    for number in range(1, 101):
        make(version(number))
        assert await databases.look()
        assert at(databases, "192.0.2.1").asn == 1 + number % 4
        assert not await databases.look()
    stop = True
    await clients
    assert asked > 1000


async def test_an_exchange_keeps_the_databases_it_began_with(make: Make) -> None:
    databases = Databases([make(version(0))])
    snapshot = databases.current
    make(version(1))
    assert await databases.look()
    assert snapshot.at(ip_address("192.0.2.1")).country == "FR"
    assert at(databases, "192.0.2.1").country == "DE"


@pytest.mark.parametrize("keep", [0, 1, 100, 1000, -1, -100], ids=lambda keep: f"cut at {keep}")
async def test_a_truncated_file_changes_nothing(
    make: Make, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = make(version(6))
    databases = Databases([path])
    whole = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(keep if keep >= 0 else len(whole) + keep)
    for _ in range(5):
        assert not await databases.look()
        for last in range(256):
            assert at(databases, f"192.0.2.{last}").country == "SE"
    assert len(caplog.records) == 1
    assert "what was read before stays in force" in caplog.text

    path.write_bytes(mmdb(version(7)))  # in place, by somebody careless
    assert not await databases.look()  # it may still be growing
    assert await databases.look()
    assert at(databases, "192.0.2.1").country == "JP"


async def test_each_damaged_version_is_reported_once(
    make: Make, shared_geoip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = make(version(0))
    databases = Databases([path])
    damaged = [
        each
        for each in sorted((shared_geoip / "test-data/bad-data").rglob("*.mmdb"))
        if each.stem not in SOUND_BUT_ODD
    ]
    for count, bad in enumerate(damaged, 1):
        (path.parent / "new").write_bytes(bad.read_bytes())
        os.replace(path.parent / "new", path)
        assert not await databases.look()
        assert not await databases.look()
        assert len(caplog.records) == count
        assert at(databases, "192.0.2.1").country == "FR"
    assert len(damaged) == 17
    make(version(1))
    assert await databases.look()
    assert at(databases, "192.0.2.1").country == "DE"


async def test_a_file_that_lost_its_places_is_refused(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    databases = Databases([make(version(0))])
    make({"192.0.2.0/24": {"is_anonymous": 1}})
    assert not await databases.look()
    assert "holds no countries and no AS numbers any more" in caplog.text
    assert at(databases, "192.0.2.1").country == "FR"


async def test_a_file_that_is_gone_changes_nothing_until_it_is_back(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    path = make(version(0))
    databases = Databases([path])
    path.unlink()
    for _ in range(3):
        assert not await databases.look()
    assert at(databases, "192.0.2.1").country == "FR"
    assert len(caplog.records) == 1
    assert "No such file or directory" in caplog.text
    make(version(1))
    assert await databases.look()
    assert at(databases, "192.0.2.1").country == "DE"


async def test_only_the_file_that_changed_is_read_again(make: Make) -> None:
    stays, changes = make(version(0), "stays.mmdb"), make(version(0), "changes.mmdb")
    databases = Databases([stays, changes])
    before = databases.current.databases
    make(version(1), "changes.mmdb")
    assert await databases.look()
    after = databases.current.databases
    assert after[0] is before[0]
    assert after[1] is not before[1]


async def test_the_watcher_outlives_what_goes_wrong(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    databases = Databases([make(version(0))])
    make(version(1))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks > 2:
            raise asyncio.CancelledError

    async def failing_look() -> bool:
        monkeypatch.undo()
        raise RuntimeError("no thread to be had")

    monkeypatch.setattr(databases, "look", failing_look)
    with pytest.raises(asyncio.CancelledError):
        await databases.watch(tick)
    assert "looking for new databases failed" in caplog.text
    assert "took over a new" in caplog.text
    assert at(databases, "192.0.2.1").country == "DE"


def test_the_real_file_is_not_held_open() -> None:
    """A file that is held or mapped could be cut short under the reader."""
    databases = Databases([builtin_path()])
    assert at(databases, "80.67.169.12").country == "FR"
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(builtin_path()) not in maps.read_text()
