"""Visitors by country: the known addresses, whose word counts, and answers kept apart."""

from __future__ import annotations

import asyncio
import csv
import random
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.pages import Pages
from edgeproxy.testing import running


def policy_for(countries: list[str], trusted: str = "[127.0.0.0/8]") -> str:
    routes = "\n".join(
        f"  - {{name: to-{country.lower()}, match: {{country: {country!r}}}, "
        f'respond: {{body: {country!r}, headers: {{x-fact: "${{geo.country}}"}}}}}}'
        for country in countries
    )
    return (
        f"version: 1\ntrusted_proxies: {trusted}\nroutes:\n{routes}\n"
        "  - {name: default, respond: {body: default}}\n"
    )


def known_addresses(shared_geoip: Path) -> list[dict[str, str]]:
    with (shared_geoip / "known-ips.csv").open() as file:
        return list(csv.DictReader(file))


async def test_known_addresses_go_by_country_and_unknown_ones_the_default_way(
    shared_geoip: Path,
) -> None:
    rows = known_addresses(shared_geoip)
    known = [row for row in rows if row["kind"] == "known"]
    unknown = [row for row in rows if row["kind"] == "unknown"]
    assert len(known) == 103
    assert unknown
    countries = sorted({row["country"] for row in known})
    async with running(policy_for(countries)) as proxy:
        for row in known:
            reply = await proxy.get("/", headers={"x-forwarded-for": row["ip"]})
            assert reply.body.decode() == row["country"], row
            assert reply.headers["x-fact"] == row["country"]
            assert proxy.log[-1]["country"] == row["country"]
        for row in unknown:
            reply = await proxy.get("/", headers={"x-forwarded-for": row["ip"]})
            assert reply.body == b"default", row


async def test_forwarded_and_mapped_addresses_count_alike(shared_geoip: Path) -> None:
    async with running(policy_for(["FR"])) as proxy:
        for name, value in (
            ("x-forwarded-for", "193.51.208.13"),
            ("x-forwarded-for", "8.8.8.8, 193.51.208.13"),
            ("x-forwarded-for", "8.8.8.8, 193.51.208.13, 127.0.0.9"),
            ("x-forwarded-for", "::ffff:193.51.208.13"),
            ("forwarded", "for=193.51.208.13;proto=https"),
            ("forwarded", 'for=8.8.8.8, for="[2001:910:800::12]:4711"'),
        ):
            reply = await proxy.get("/", headers={name: value})
            assert reply.body == b"FR", (name, value)


@pytest.mark.parametrize("trusted", ["[]", "[192.0.2.0/24, '2001:db8::/32']"])
async def test_the_word_of_a_peer_that_is_not_trusted_changes_nothing(
    shared_geoip: Path, trusted: str
) -> None:
    async with running(policy_for(["FR"], trusted)) as proxy:
        for name in ("x-forwarded-for", "forwarded", "x-real-ip", "client-ip", "true-client-ip"):
            value = "for=193.51.208.13" if name == "forwarded" else "193.51.208.13"
            reply = await proxy.get("/", headers={name: value})
            assert reply.body == b"default", name


CACHED = """\
version: 1
trusted_proxies: [127.0.0.0/8]
origins:
  world: {url: "https://world.example/"}
  europe: {url: "https://europe.example/"}
cache:
  memory: {max_size: 8MiB}
  rules: {all: {ttl: 1h}}
routes:
  - {name: greeting, match: {path: /hello}, origin: world, cache: all,
     request_headers: {set: {x-country: "${geo.country}"}}}
  - {name: europe, match: {country_group: eu}, origin: europe, cache: all}
  - {name: world, origin: world, cache: all}
"""

ADDRESSES = {"FR": "193.51.208.13", "DE": "194.25.0.60", "US": "8.8.8.8", "XX": "10.0.0.1"}


async def test_countries_never_share_an_answer(make_site: Any) -> None:
    names = [f"page{number}" for number in range(5)]
    world = make_site("world", **{name: f"world {name}" for name in names})
    europe = make_site("europe", **{name: f"europe {name}" for name in names})
    async with Pages(world) as one, Pages(europe) as other:
        origins = {"world": one.url, "europe": other.url}
        async with running(CACHED, origins=origins) as proxy:

            async def visit(country: str, name: str) -> None:
                headers = {"x-forwarded-for": ADDRESSES[country]}
                reply = await proxy.get(f"/{name}", headers=headers)
                side = "europe" if country in ("FR", "DE") else "world"
                assert f"{side} {name}" in reply.body.decode(), country
                # Nobody behind us may mix them either.
                assert "private" in reply.headers["cache-control"]

            visits = [(country, name) for country in ADDRESSES for name in names] * 10
            random.Random(4).shuffle(visits)
            await asyncio.gather(*(visit(*each) for each in visits))
        assert set(one.requests.values()) == {1}
        assert set(other.requests.values()) == {1}


async def test_an_answer_made_from_the_country_is_stored_by_country(raw_origin: Any) -> None:
    async with raw_origin() as origin:

        class Greeting(list):  # the answer to a request says for which country it was made
            def __getitem__(self, index: Any) -> bytes:
                country = origin.fields()["x-country"].encode()
                head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=99\r\n\r\n"
                return head + country

        origin.answers = Greeting([b""])
        async with running(CACHED, origins={"world": origin.url}) as proxy:
            for _ in range(3):
                for country, address in ADDRESSES.items():
                    reply = await proxy.get("/hello", headers={"x-forwarded-for": address})
                    assert reply.body.decode() == country
            assert len(origin.heads) == len(ADDRESSES)
