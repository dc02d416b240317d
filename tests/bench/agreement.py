"""What the policy of the mix makes of a request: that all contestants do the same work."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import maxminddb

from tests.bench.contestants import Contestant
from tests.bench.load import Answer, answers
from tests.bench.mix import EU, VARIANTS, Asked

FIXED = {"strict-transport-security": "max-age=63072000", "x-frame-options": "DENY"}


class Judge:
    """Knows the site and the countries, and so every right answer."""

    def __init__(self, site: Path, database: Path, requests: Sequence[Asked]) -> None:
        self.site = site
        self.requests = requests
        with maxminddb.open_database(database) as reader:
            records = {one.address: reader.get(one.address) for one in requests}
        self.countries = {
            address: str(record["country_code"]) if isinstance(record, dict) else "XX"
            for address, record in records.items()
        }

    def prove(self, one: Contestant) -> None:
        """SystemExit unless the contestant answers as the policy says."""
        sent = [asked.raw() for asked in self.requests]
        for asked, answer in zip(self.requests, asyncio.run(answers(one.port, sent)), strict=True):
            for fault in self.faults(asked, answer, knows_countries=not one.lacks):
                raise SystemExit(f"{one.name}: {fault}\n\n{asked.raw().decode()}{answer.head}")

    def faults(self, asked: Asked, answer: Answer, *, knows_countries: bool) -> Iterator[str]:
        country = self.countries[asked.address] if knows_countries else "XX"
        variant = answer.field("x-variant")
        kept = re.search(r"exp=([ab])", asked.cookie)
        expected = {**FIXED, "x-country": country, "x-variant": kept[1] if kept else variant}
        for name, value in expected.items():
            if answer.field(name) != value:
                yield f"{name} is {answer.field(name)!r}, not {value!r}"
        if variant not in VARIANTS:
            yield f"there is no variant {variant!r}"
        if answer.field("set-cookie").startswith(f"exp={variant};") == bool(kept):
            yield "a new visitor gets the cookie of the variant, and nobody else"
        if answer.field("x-github-request-id"):
            yield "a field of the origin is shown"
        if answer.status != (304 if asked.validator else 200):
            yield f"the status is {answer.status}"
        elif answer.status == 304 and answer.field("content-length") not in ("", "0"):
            yield "the 304 has a Content-Length, and wrk would wait for a body"
        elif answer.status == 200 and answer.body != self.page(asked, country, variant):
            yield "it is another page"

    def page(self, asked: Asked, country: str, variant: str) -> bytes:
        region = "eu" if country in EU else "world"
        folder = self.site / region / ("b" if variant == "b" else "")
        return (folder / asked.page.path[1:]).read_bytes()
