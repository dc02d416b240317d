"""The load: the same every time, from several countries, and never the same visitor if so asked."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import maxminddb
import pytest

from tests.bench import mix
from tests.bench.contestants import DATABASE

PUBLISHED_S = 1_800_000_000


@pytest.fixture(scope="module")
def networks() -> list[str]:
    return mix.homes(mix.countries(DATABASE))


def test_pages_have_the_sizes_of_a_real_site() -> None:
    pages = mix.pages()
    sizes = sorted(page.size_bytes for page in pages)
    assert len({page.path for page in pages}) == 300
    assert sizes[0] >= 400
    assert sizes[-1] <= 60_000
    assert 6_000 < sizes[150] < 10_000
    assert {page.path.rpartition(".")[2] for page in pages} == {"html", "css", "js", "svg"}


def test_the_site_has_every_page_for_each_region_and_variant(tmp_path: Path) -> None:
    mix.write_site(tmp_path)
    page = mix.pages()[0]
    copies = [tmp_path / where / page.path[1:] for where in ("world", "world/b", "eu", "eu/b")]
    assert {copy.stat().st_size for copy in copies} == {page.size_bytes}
    assert len({copy.read_bytes() for copy in copies}) == 4


def test_visitors_are_from_many_countries_and_each_has_one(networks: list[str]) -> None:
    with maxminddb.open_database(DATABASE) as reader:
        found = [reader.get(address) for address in mix.visitors(networks)]
    countries = Counter(record["country_code"] for record in found if isinstance(record, dict))
    assert len(networks) == mix.VISITORS
    assert countries.total() == mix.VISITORS
    assert len(countries) > 20
    assert any(country in mix.EU for country in countries)


def test_the_mix_is_the_same_every_time_and_has_its_shares(networks: list[str]) -> None:
    visitors = mix.visitors(networks)
    asked = mix.asked(visitors, mix.agents(), PUBLISHED_S)
    assert asked == mix.asked(visitors, mix.agents(), PUBLISHED_S)
    share = {
        "cookie": sum("exp=" in one.cookie for one in asked) / len(asked),
        "validator": sum(bool(one.validator) for one in asked) / len(asked),
    }
    assert share["cookie"] == pytest.approx(2 / 3, abs=0.03)
    assert share["validator"] == pytest.approx(0.1, abs=0.02)
    assert len({one.agent for one in asked}) == 10
    popular = Counter(one.page for one in asked).most_common(2)
    assert popular[0][0] == mix.pages()[0]
    assert popular[0][1] == pytest.approx(2 * popular[1][1], rel=0.2)  # Zipf


def test_a_request_is_whole() -> None:
    page = mix.Page("/a.html", 0x200)
    asked = mix.Asked(page, "192.0.2.7", "browser", "exp=a", page.etag(0x10))
    lines = asked.raw().decode().split("\r\n")
    assert lines[0] == "GET /a.html HTTP/1.1"
    assert lines[-2:] == ["", ""]
    assert {"X-Forwarded-For: 192.0.2.7", "Cookie: exp=a", 'If-None-Match: "10-200"'} <= set(lines)


def test_no_visitor_is_seen_twice_even_in_another_round(networks: list[str]) -> None:
    stream = mix.unseen(networks, PUBLISHED_S)
    rounds = [itertools.islice(stream.sent(start), 20_000) for start in (0, 1 << 32)]
    sent = [raw for one in rounds for raw in one]
    visitors = {
        (re.search(rb"User-Agent: (.*)\r", raw), re.search(rb"Forwarded-For: (.*)\r", raw))
        for raw in sent
    }
    assert not any(mix.ADDRESS in raw or mix.NUMBER in raw for raw in sent)
    assert len({(agent[1], address[1]) for agent, address in visitors if agent and address}) == (
        len(sent)
    )


def test_every_address_of_a_network_has_its_turn() -> None:
    stream = mix.Stream([mix.ADDRESS], ["192.0", "198.51"])
    sent = list(itertools.islice(stream.sent(0), 2 * 65536))
    assert len(set(sent)) == len(sent)
    assert sent[:3] == [b"192.0.0.0", b"198.51.0.0", b"192.0.0.1"]


def test_a_miss_is_for_an_address_of_its_own(networks: list[str]) -> None:
    stream = mix.missing(networks, PUBLISHED_S)
    lines = [raw.partition(b"\r")[0] for raw in itertools.islice(stream.sent(7), 10_000)]
    assert len(set(lines)) == len(lines)
    assert all(re.fullmatch(rb"GET /\S+\?n=\d+ HTTP/1\.1", line) for line in lines)


def test_countries_become_a_table_to_search() -> None:
    networks = [
        (IPv4Network("1.0.0.0/24"), "AU"),
        (IPv4Network("1.0.1.0/24"), "CN"),
        (IPv4Network("1.0.2.0/23"), "CN"),
        (IPv4Network("1.0.8.0/22"), "FR"),
    ]
    assert list(mix.ranges(networks)) == [
        (IPv4Address("1.0.0.0"), "AU"),
        (IPv4Address("1.0.1.0"), "CN"),
        (IPv4Address("1.0.4.0"), "XX"),
        (IPv4Address("1.0.8.0"), "FR"),
        (IPv4Address("1.0.12.0"), "XX"),
    ]
