"""What is different between two decisions about the same request, by kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgeproxy.decision import Decision
from edgeproxy.http import Exchange, Headers

KINDS = ("route", "origin", "variant", "status", "headers", "cache_key", "verdict")
"""In the order in which one causes the next."""

_BY_THE_WAY = frozenset(("cache-status", "content-length", "date"))  # the verdict, body and clock


@dataclass(frozen=True, slots=True)
class Difference:
    """One kind of difference; `before` and `after` are for people."""

    kind: str
    before: str
    after: str


def differences(before: Decision, after: Decision) -> list[Difference]:
    """What `after` has otherwise than `before`; nothing if a client could not tell them apart and
    the cache would not either. Names of routes and origins count."""
    return compared(spelled(before), spelled(after))


def compared(old: Mapping[str, str], new: Mapping[str, str]) -> list[Difference]:
    """The differences between two spelled decisions, of the kinds that both know of."""
    found = [
        Difference(kind, old[kind], new[kind])
        for kind in KINDS
        if kind in old and kind in new and old[kind] != new[kind]
    ]
    return [_narrowed(one) if "\n" in one.before + one.after else one for one in found]


def spelled(decision: Decision) -> dict[str, str]:
    """All that counts of a decision, by kind; lines where it is a list."""
    return dict(_spelled(decision))


def spelled_fields(headers: Headers) -> str:
    """The fields of an answer that count: one a line, in order."""
    lines = (f"{name.lower()}: {value}" for name, value in headers.items())
    return "\n".join(sorted(line for line in lines if not _is_by_the_way(line)))


def spelled_key(key: str) -> str:
    """A cache key without what tells policies apart that run side by side."""
    return "\n".join(line for line in key.split("\n") if not line.startswith("policy="))


def spelled_variant(exchange: Exchange) -> str:
    return exchange.facts.named("split.applied") or "none"


def _spelled(decision: Decision) -> Iterator[tuple[str, str]]:
    exchange, asked = decision.exchange, decision.asked
    yield "route", exchange.route or "none"
    yield "origin", f"{decision.origin} {asked.authority}{asked.target}" if asked else "none"
    yield "variant", spelled_variant(exchange)
    yield "status", str(decision.response.status)
    yield "headers", spelled_fields(decision.response.headers)
    yield "cache_key", spelled_key(exchange.cache_key)
    yield "verdict", _verdict(decision)


def _is_by_the_way(line: str) -> bool:
    return line.partition(":")[0] in _BY_THE_WAY


def _verdict(decision: Decision) -> str:
    judgement = decision.judgement
    if judgement is None:
        return "not asked"
    fresh = f", fresh for {judgement.fresh_for_s:.0f} s" if judgement.storable else ""
    return f"{judgement.code}{fresh}"


def _narrowed(one: Difference) -> Difference:
    """Of values of many lines, those that the other one lacks."""
    old, new = one.before.split("\n"), one.after.split("\n")
    before = "; ".join(line for line in old if line not in new)
    after = "; ".join(line for line in new if line not in old)
    return Difference(one.kind, before, after)
