"""Each recorded request, decided again: by one policy against the record, or by two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeproxy.decision import Decision, Rehearsal
from edgeproxy.differences import Difference, compared, spelled, spelled_fields
from edgeproxy.explain import explain
from edgeproxy.explain.telling import in_short
from edgeproxy.http import Body, Exchange, Headers, Request
from edgeproxy.plan import Plan
from edgeproxy.replay.origins import Origins
from edgeproxy.traffic import Visit

_BY_STORE = frozenset(("age", "content-encoding", "content-length", "etag"))
"""Fields in which a stored answer differs from a fetched one."""


@dataclass(slots=True)
class HitRatio:
    """What a cache without bounds would do: an answer is a hit while it is fresh, whatever its
    size; `Vary` and stale copies are left out."""

    requests: int = 0
    hits: int = 0
    _fresh_until_s: dict[int, float] = field(default_factory=dict)

    def count(self, decision: Decision) -> None:
        if decision.looked_up is None:
            return
        self.requests += 1
        key, at_s = hash(decision.exchange.cache_key), decision.exchange.at_s
        if at_s < self._fresh_until_s.get(key, 0.0):
            self.hits += 1
        elif decision.judgement is not None and decision.judgement.storable:
            self._fresh_until_s[key] = at_s + decision.judgement.fresh_for_s

    @property
    def ratio(self) -> float:
        return self.hits / self.requests if self.requests else 0.0


@dataclass(slots=True)
class Example:
    """A request that is decided otherwise, and why each side decides so."""

    visit: Visit
    difference: Difference
    why_before: str = ""
    why_after: str = ""


class Side:
    """A policy that decides."""

    def __init__(self, plan: Plan, origins: Origins) -> None:
        self.plan = plan
        self.hit_ratio = HitRatio()
        self._origins = origins
        self._now_s = 0.0
        self._rehearsal = Rehearsal(plan, origins.fetch, now=lambda: self._now_s)

    async def decide(self, visit: Visit) -> Decision:
        self._now_s = visit.at_s
        decision = await self._rehearsal.decide(_exchange(visit))
        self.hit_ratio.count(decision)
        return decision

    async def why(self, visit: Visit) -> str:
        return in_short(await explain(self.plan, _exchange(visit), self._origins.fetch))


@dataclass(slots=True)
class Comparison:
    """`after` against `before`, or against what was recorded if that is None."""

    after: Side
    before: Side | None
    origins: Origins
    requests: int = 0
    changed: int = 0
    left_out: int = 0  # WebSockets
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Example] = field(default_factory=dict)

    @classmethod
    def of(cls, after: Plan, before: Plan | None = None) -> Comparison:
        origins = Origins()
        return cls(
            Side(after, origins), Side(before, origins) if before is not None else None, origins
        )

    async def add(self, visit: Visit) -> None:
        """Decide `visit` on both sides, and note what is different."""
        if visit.status == 101 or "upgrade" in visit.headers:
            self.left_out += 1
            return
        self.requests += 1
        self.origins.meet(visit)
        decision = await self.after.decide(visit)
        if self.before is not None:
            found = compared(spelled(await self.before.decide(visit)), spelled(decision))
        else:
            found = compared(*_beside_record(visit, decision))
        self.changed += bool(found)
        for one in found:
            self.counts[one.kind] += 1
            if one.kind not in self.examples:
                self.examples[one.kind] = await self._example(visit, one)

    async def _example(self, visit: Visit, one: Difference) -> Example:
        before = f"recorded under policy {visit.recalled.policy}" if visit.recalled.policy else ""
        if self.before is not None:
            before = await self.before.why(visit)
        return Example(visit, one, before, await self.after.why(visit))


def _exchange(visit: Visit) -> Exchange:
    headers = visit.headers.copy()
    if "host" not in headers:
        headers.fields.insert(0, (b"Host", visit.authority.encode("ascii")))
    request = Request(
        visit.method, visit.authority, visit.path, visit.query, headers, Body(), visit.scheme
    )
    exchange = Exchange(request, visit.client)
    exchange.at_s = visit.at_s
    return exchange


def _beside_record(visit: Visit, decision: Decision) -> tuple[dict[str, str], Mapping[str, str]]:
    """What was recorded, spelled as far as the record tells, and the decision beside it."""
    new, told = spelled(decision), visit.recalled
    old = {"status": str(visit.status)}
    for kind in ("route", "variant", "cache_key"):
        value = getattr(told, kind)
        if value is not None:
            old[kind] = value
    if told.verdict is not None:
        new["verdict"], old["verdict"] = _verdicts(told.verdict, new["verdict"])
    if visit.answer is not None and told.verdict is not None:
        old["headers"] = _fields(visit.answer)
        new["headers"] = _fields(decision.response.headers)
    return old, new


def _verdicts(recorded: str, decided: str) -> tuple[str, str]:
    """The decision of now and of then in the same words. A record tells what the cache did; not
    why, nor for how long an answer would have been fresh."""
    took_part = decided != "not asked" or recorded == "stale"
    if recorded == "hit" and not decided.startswith("storable"):
        return decided, "hit"
    return ("in the cache's hands" if took_part else "not asked"), (
        "not asked" if recorded == "pass" else "in the cache's hands"
    )


def _fields(headers: Headers) -> str:
    kept = Headers([one for one in headers.fields if one[0].lower().decode() not in _BY_STORE])
    lines = spelled_fields(kept).split("\n")
    return "\n".join(_without_value(line) for line in lines)


def _without_value(line: str) -> str:
    """A cookie that is set, without its value, which a recording does not hold."""
    if not line.startswith("set-cookie: "):
        return line
    name, _, rest = line.partition("=")
    return f"{name}{''.join(rest.partition(';')[1:])}"
