"""What is asked for: a site, visitors from many countries and their requests, from a fixed seed."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import maxminddb

OBJECTS = 300
VISITORS = 2000
REQUESTS = 8192
PAGE_BYTES = 10_200

REGIONS = ("world", "eu")  # a visitor from the EU is served the site below /eu/
VARIANTS = ("a", "b")  # variant b is the site below /b/
EU = frozenset(
    (
        "AT", "AX", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GF", "GP",
        "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV", "MF", "MQ", "MT", "NL", "PL", "PT",
        "RE", "RO", "SE", "SI", "SK", "YT",
    )
)  # fmt: skip

ADDRESS, NUMBER = b"\1", b"\2"
"""In a request they stand for an address and a number that no request before had."""


@dataclass(frozen=True, slots=True)
class Page:
    path: str
    size_bytes: int

    def etag(self, published_s: int) -> str:
        """As GitHub Pages writes it; the same for all copies, which have one size and one date."""
        return f'"{published_s:x}-{self.size_bytes:x}"'


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the mix."""

    page: Page
    address: str
    agent: str
    cookie: str = ""
    validator: str = ""  # If-None-Match

    def raw(self) -> bytes:
        lines = [
            f"GET {self.page.path} HTTP/1.1",
            "Host: edge.test",
            f"User-Agent: {self.agent}",
            "Accept: text/html,application/xhtml+xml,*/*;q=0.8",
            "Accept-Language: en-GB,en;q=0.7",
            f"X-Forwarded-For: {self.address}",
        ]
        if self.cookie:
            lines.append(f"Cookie: {self.cookie}")
        if self.validator:
            lines.append(f"If-None-Match: {self.validator}")
        return "\r\n".join([*lines, "", ""]).encode()


@dataclass(frozen=True, slots=True)
class Stream:
    """Requests without end: `requests` in turn, with the marks in them filled in.

    `networks` are the first halves of IPv4 addresses, such as `193.51`.
    """

    requests: Sequence[bytes]
    networks: Sequence[str] = ("127.0",)

    def sent(self, start: int) -> Iterator[bytes]:
        """The requests from number `start` on. mix.lua does the same."""
        for number in itertools.count(start):
            raw = self.requests[number % len(self.requests)]
            if ADDRESS in raw or NUMBER in raw:
                net, host = number % len(self.networks), number // len(self.networks) % 65536
                address = f"{self.networks[net]}.{host >> 8}.{host & 255}".encode()
                raw = raw.replace(ADDRESS, address).replace(NUMBER, b"%d" % number)
            yield raw


# ---------------------------------------------------------------- the site


def pages() -> list[Page]:
    """Of 0.4 to 60 KB: log-normal, with a median of 8 KB. The first is the most popular."""
    chance = random.Random(7)
    found = []
    for number in range(OBJECTS):
        folder = chance.choice(["blog", "docs", "shop", "assets"])
        ending = chance.choice(["css", "js", "svg"]) if folder == "assets" else "html"
        size = int(min(60_000, max(400, chance.lognormvariate(9.0, 0.9))))
        found.append(Page(f"/{folder}/page-{number}.{ending}", size))
    return found


def write_site(folder: Path) -> None:
    """Each page once for each region and variant, so that nobody can serve the wrong one unseen."""
    chance = random.Random(11)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(2000)]
    for region, variant, page in itertools.product(REGIONS, VARIANTS, pages()):
        file = folder / region / ("b" if variant == "b" else "") / page.path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        start = f"<!doctype html><title>{region} {variant} {page.path}</title>\n"
        text = start + " ".join(chance.choices(words, k=page.size_bytes // 7 + 1))
        file.write_text(text[: page.size_bytes].ljust(page.size_bytes, "."))
    (folder / "page.html").write_bytes(b"<p>All happy pages are alike.</p>\n" * (PAGE_BYTES // 34))
    (folder / "file.bin").write_bytes(bytes(range(256)) * 8192)


# ---------------------------------------------------------------- visitors


def countries(database: Path) -> Iterator[tuple[IPv4Network, str]]:
    """Every IPv4 network of a country database in ascending order, and its country."""
    with maxminddb.open_database(database) as reader:
        for network, record in reader:
            if isinstance(network, IPv4Network) and isinstance(record, dict):
                yield network, str(record["country_code"])


def homes(networks: Iterable[tuple[IPv4Network, str]]) -> list[str]:
    """First halves of addresses, such as `193.51`, all of which are in one country each."""
    wide = [network for network, _ in networks if network.prefixlen <= 16]
    chosen = random.Random(13).sample(wide, min(VISITORS, len(wide)))
    return [
        str(network.network_address).rpartition(".")[0].rpartition(".")[0] for network in chosen
    ]


def ranges(networks: Iterable[tuple[IPv4Network, str]]) -> Iterator[tuple[IPv4Address, str]]:
    """The same networks as a table to search: where a country begins; `XX` where none is known."""
    end, country = 0, "XX"
    for network, code in networks:
        first = int(network.network_address)
        if first > end and country != "XX":
            yield IPv4Address(end), "XX"
            country = "XX"
        if code != country:
            yield network.network_address, code
        end, country = first + network.num_addresses, code
    if end < 1 << 32:
        yield IPv4Address(end), "XX"


# ---------------------------------------------------------------- requests


def agents(number: str = "0") -> list[str]:
    system = "Mozilla/5.0 (X11; Linux x86_64; rv:{0})"
    tail = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/12{0}.0.{1}.0 Safari/537.36"
    return [f"{system} {tail}".format(version, number) for version in range(10)]


def zipf(count: int, chance: random.Random) -> Iterator[int]:
    """Ranks below `count`, the n-th with a weight of 1/n."""
    cumulated = list(itertools.accumulate(1 / rank for rank in range(1, count + 1)))
    while True:
        yield bisect.bisect(cumulated, chance.random() * cumulated[-1])


def asked(
    addresses: Sequence[str], agents: Sequence[str], published_s: int, length: int = REQUESTS
) -> list[Asked]:
    """Zipf over the pages; two in three have the cookie of a variant, one in ten a validator."""
    chance, site = random.Random(23), pages()
    found = []
    for rank in itertools.islice(zipf(len(site), chance), length):
        page = site[rank]
        cookie = chance.choice(["", "exp=a", "seen=1; exp=b"])
        validator = page.etag(published_s) if chance.random() < 0.1 else ""
        found.append(
            Asked(page, chance.choice(addresses), chance.choice(agents), cookie, validator)
        )
    return found


def visitors(networks: Sequence[str]) -> list[str]:
    chance = random.Random(17)
    return [f"{net}.{chance.randrange(256)}.{chance.randrange(1, 255)}" for net in networks]


def mixed(networks: Sequence[str], published_s: int) -> Stream:
    """2,000 visitors with ten browsers, who come again and again."""
    return Stream([one.raw() for one in asked(visitors(networks), agents(), published_s)], networks)


def unseen(networks: Sequence[str], published_s: int) -> Stream:
    """The same pages, each request from an address and a browser that were never seen before."""
    made = asked([ADDRESS.decode()], agents(NUMBER.decode()), published_s)
    return Stream([one.raw() for one in made], networks)


def missing(networks: Sequence[str], published_s: int) -> Stream:
    """The mix, each request for an address that was never asked for, so that none is a hit."""
    requests = mixed(networks, published_s).requests
    return Stream([raw.replace(b" HTTP/1.1", b"?n=\2 HTTP/1.1", 1) for raw in requests])


def passing(networks: Sequence[str], published_s: int) -> Stream:
    """The mix, for the site as the origin has it, since nobody rewrites paths."""
    requests = mixed(networks, published_s).requests
    return Stream([raw.replace(b"GET /", b"GET /world/", 1) for raw in requests])


def every_copy(addresses: Sequence[str]) -> list[bytes]:
    """Each page in each variant, for each of `addresses`: fills the caches."""
    agent = agents()[0]
    return [
        Asked(page, address, agent, f"exp={variant}").raw()
        for page, address, variant in itertools.product(pages(), addresses, VARIANTS)
    ]


def get(target: str, fields: str = "") -> bytes:
    """A short request, which is no part of the mix."""
    usual = "Host: edge.test\r\nUser-Agent: bench\r\nAccept: text/html\r\n"
    return f"GET {target} HTTP/1.1\r\n{usual}{fields}\r\n".encode()
