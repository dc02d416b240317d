"""Answers that are remembered: what one visitor was told from memory is told to all who are alike.

A decision is a pure function of the request, the facts and the policy. So when an answer comes from
the memory tier, it is decided once more under watch, and what was read is noted: some request
fields, some cookies, some facts, some clauses of matches. All that was ever read under a plan are
its *questions*. Visitors who answer them in the same way form an *audience*; the policy cannot tell
them apart, but for what it says of each in a field. Each audience remembers its answers by request
line, as bytes that are ready to be sent.

A remembered answer holds for as long as the stored response it was made of is the one that stands
in the tier, is fresh, and has not been marked by a purge.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from edgeproxy import log as access_log
from edgeproxy.caching.errand import Hit
from edgeproxy.caching.freshness import CLOCK_TOLERANCE_S, current_age_s
from edgeproxy.engine.questions import STRANGER, Introduced, Questions
from edgeproxy.engine.watching import WatchedExchange
from edgeproxy.http import Exchange, Facts
from edgeproxy.metrics.counts import RequestTally
from edgeproxy.plan import Plan
from edgeproxy.rates import client_number

MAX_VISITORS = 16384
MAX_ANSWERS = 65536
MAX_SHARE = 0.5
"""Of the memory tier's size, in bytes of answers: a client that varies what is asked makes many."""

MAX_TAIL_BYTES = 2048
"""A longer header section is not remembered: so visitors take 32 MiB at most."""

COPIED_BYTES = 16 * 1024
"""A shorter body is sent in one piece with its head, which is cheaper than two."""


class Remembered:
    """An answer as bytes. `wire` gives them as of a moment, for a visitor: what ages in them is
    filled in, and what the visitor is told in fields of its own."""

    __slots__ = (
        "_from_s",
        "_hit",
        "_is_copied",
        "_keeps",
        "_pattern",
        "_picked",
        "_until_s",
        "_wire",
        "body",
        "bytes",
        "log",
        "tally",
    )

    def __init__(
        self,
        hit: Hit,
        keeps: Callable[[Hit], bool],
        pattern: Pattern,
        body: bytes,
        tally: RequestTally,
    ) -> None:
        self._hit = hit
        self._keeps = keeps
        self._pattern = pattern
        self._picked = pattern.picked
        self._is_copied = pattern.picked is None and len(body) <= COPIED_BYTES
        self.body = body
        self.bytes = len(body)
        self.tally = tally  # where it is counted each time
        self.log: dict[str, Any] = {}
        self._from_s = self._until_s = 0.0
        self._wire: list[bytes] = []  # if something is `picked`, its head is yet to be filled in

    def wire(self, now_s: float, said: tuple[bytes, ...]) -> list[bytes] | None:
        """The bytes to send, in one or two parts; None if this is no answer any more."""
        if not self._keeps(self._hit):
            return None
        if not self._from_s <= now_s < self._until_s and not self._fill_in(now_s):
            return None
        if self._picked is None:
            return self._wire
        head, body = self._wire
        return [head % self._picked(said), body]

    @property
    def takes_bytes(self) -> int:
        """Its memory, besides a body that is only referred to."""
        return 2 * self._pattern.size + (len(self.body) if self._is_copied else 0)

    def _fill_in(self, now_s: float) -> bool:
        """Write Age and the like as of now. False if the stored response is stale."""
        entry = self._hit.entry
        left_s = self._hit.at_s + self._hit.fresh_for_s - now_s
        if left_s <= 0 or entry.stored_at_s > now_s + CLOCK_TOLERANCE_S:
            return False
        age_s = current_age_s(entry.age_s, entry.stored_at_s, now_s)
        head = self._pattern.filled(int(age_s), int(left_s))
        self._wire = [head + self.body] if self._is_copied else [head, self.body]
        self._from_s = now_s
        self._until_s = now_s + min(1 - age_s % 1, left_s % 1 or 1.0)
        return True


class Pattern:
    """A response head with places for what ages in it, and for what each visitor is told.

    `picked` takes from a visitor's values those that go into it; None if none do.
    """

    __slots__ = ("_extra_s", "_text", "picked", "size")

    def __init__(
        self,
        head: bytes,
        hit: Hit,
        status: str,
        browser_ttl_s: int | None,
        told: Mapping[bytes, int],
    ) -> None:
        """`head` as it was sent: with the age and the time left of `hit`, in Age and in our
        Cache-Status `status`, and in the max-age that a rule's `browser_ttl` makes. The fields
        `told` have the values of a visitor that stand in these places."""
        self._extra_s = browser_ttl_s or 0
        age_s = int(current_age_s(hit.entry.age_s, hit.entry.stored_at_s, hit.at_s))
        max_age = b"max-age=%d" % (self._extra_s + age_s)
        own = status.encode("latin-1")
        ageing = own.replace(b"; ttl=%d" % hit.fresh_for_s, b"; ttl=%(left)d", 1)
        percent = b"%%%%" if told else b"%%"  # it is filled in twice
        lines, places = [], []
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b": ")
            text = line.replace(b"%", percent)
            name = name.lower()
            if name in told:
                text = line[: len(name) + 2].replace(b"%", percent) + b"%%b"
                places.append(told[name])
            elif name == b"age" and value == b"%d" % age_s:
                text = text[: -len(value)] + b"%(age)d"
            elif name == b"cache-status" and value.endswith(own):
                text = text[: -len(own)] + ageing
            elif name == b"cache-control" and browser_ttl_s is not None:
                members = [b"max-age=%(max)d" if m == max_age else m for m in text.split(b", ")]
                text = b", ".join(members)
            lines.append(text)
        self._text = b"\r\n".join(lines)
        self.picked = itemgetter(*places) if places else None
        self.size = len(self._text)

    def filled(self, age_s: int, left_s: int) -> bytes:
        """The head as of a moment, with `%b` where a visitor is told something."""
        return self._text % {b"age": age_s, b"left": left_s, b"max": self._extra_s + age_s}


type Audience = dict[bytes, Remembered]
"""What visitors are told whom the plan cannot tell apart, by request line."""


@dataclass(slots=True)
class Visitor:
    """A header section from an address: the audience it belongs to, None if it stands alone."""

    audience: Audience | None
    logged: dict[str, Any]
    client: int = 0  # by which its requests are counted
    introduced: Introduced = STRANGER
    asks_query: bool = False  # it is another visitor with another query


class Recall:
    """The memory of answers under one plan: `bytes` of them, `max_bytes` at the most."""

    def __init__(
        self,
        plan: Plan,
        tally: Callable[[Exchange], RequestTally],
        *,
        wants_log: bool,
        names_clients: bool,
    ) -> None:
        self.plan = plan
        self._tally = tally
        self._visitors: OrderedDict[tuple[str, bytes], Visitor] = OrderedDict()
        self._audiences: dict[tuple[Any, ...], Audience] = {}
        self._answers = 0
        self.bytes = 0  # of answers, and of each body that they refer to, once
        self._bodies: dict[int, bytes] = {}  # by identity
        self._hits: set[bytes] = set()  # lines that were hits
        self._questions = Questions()
        self._wants_log = wants_log
        self._names_clients = names_clients
        self.is_able = _is_repeatable(plan)
        self.is_counting = plan.limits.request_rate > 0
        levels, self._purges = plan.cache.levels, plan.cache.purges
        self._get = levels.tiers[0].get if levels.tiers else None
        self._first = levels.tiers[0].name if levels.tiers else ""
        size = levels.tiers[0].stats().get("max_bytes", 0) if levels.tiers else 0
        self.max_bytes = int(MAX_SHARE * size)
        self._from_s = 0.0  # when the plugins were last asked for their revisions
        self._revisions: tuple[Any, ...] = ()

    # ------------------------------------------------------------ asking

    def find(
        self, who: str, line: bytes, tail: bytes, now_s: float
    ) -> tuple[Visitor, Remembered] | None:
        """What the visitor who sent `tail` from the address `who` is told for `line`."""
        if not self._from_s <= now_s < self._from_s + 1:
            self._look_at_plugins(now_s)
        visitor = self._visitors.get((who, tail))
        if visitor is not None and visitor.asks_query:
            visitor = self._visitors.get((who, tail + _query(line)))
        if visitor is None or visitor.audience is None:
            return None
        answer = visitor.audience.get(line)
        return None if answer is None else (visitor, answer)

    def _look_at_plugins(self, now_s: float) -> None:
        self._from_s = now_s
        revisions = tuple([plugin.instance.revision for plugin in self.plan.plugins])
        if revisions != self._revisions:
            self._revisions = revisions
            self._start_over()

    def forget(self, visitor: Visitor, line: bytes) -> None:
        """Drop an answer that is none any more."""
        if visitor.audience is not None:
            visitor.audience.pop(line, None)

    def meet(self, who: str, line: bytes, tail: bytes, exchange: Exchange) -> Visitor:
        """The visitor who asks for `line` the first time, with such a `tail`, in `exchange`."""
        visitor = self._met(who, tail, exchange, None)
        if visitor.asks_query and exchange.request.query is not None:
            return self._met(who, tail + _query(line), exchange, exchange.request.query)
        return visitor

    def _met(self, who: str, tail: bytes, exchange: Exchange, query: str | None) -> Visitor:
        visitor = self._visitors.get((who, tail))
        if visitor is None:
            visitor = self._placed(who, exchange, query)
            if len(tail) <= MAX_TAIL_BYTES:
                self._visitors[who, tail] = visitor
                if len(self._visitors) > MAX_VISITORS:
                    self._visitors.popitem(last=False)
        return visitor

    def _placed(self, who: str, exchange: Exchange, query: str | None) -> Visitor:
        """Put the questions to whoever made `exchange`, with that `query`, whatever its path.

        Who comes over TLS is an audience apart: the front tells it of HTTP/3.
        """
        told = WatchedExchange.introducing(exchange, query)
        try:
            for hook in self.plan.phases.annotate:
                if hook.call(told) is not None:
                    return _NOBODY  # it would have to wait
            traits, introduced = self._questions.put_to(told)
            logged = self._logged(exchange, told.facts) if self._wants_log else _NOTHING
            asked, client = told.reads.asked, client_number(exchange.client)
            is_over_tls = who.startswith("https ")
            audience = None if asked.target else self._audience((is_over_tls, *traits))
            return Visitor(audience, logged, client, introduced, asks_query=told.reads.asks_query)
        except Exception:  # a fact that cannot be had or compared: the journey will tell
            return _NOBODY
        finally:
            told.facts.close()

    def _logged(self, exchange: Exchange, facts: Facts) -> dict[str, Any]:
        """What the log says of the visitor, whatever the answer."""
        found = ((fact.log, facts.get(fact)) for fact in self.plan.logged_facts)
        known = {name: value for name, value in found if name is not None and value is not None}
        return {**known, **access_log.client(exchange)} if self._names_clients else known

    def _audience(self, traits: tuple[Any, ...]) -> Audience:
        audience = self._audiences.get(traits)
        if audience is None:
            if len(self._audiences) >= MAX_VISITORS:
                self._start_over()
            audience = self._audiences[traits] = {}
        return audience

    # ------------------------------------------------------------ learning

    def is_worth_learning(self, line: bytes) -> bool:
        """Whether the next answer should be decided under watch: it was a hit before."""
        return line in self._hits

    def note_hit(self, line: bytes) -> None:
        """A hit, whoever asked: the next audience that asks is worth learning for."""
        if len(self._hits) >= MAX_ANSWERS:
            self._hits.clear()
        self._hits.add(line)

    def learn(
        self,
        visitor: Visitor,
        line: bytes,
        exchange: WatchedExchange,
        head: bytes,
        body: bytes,
    ) -> None:
        """Remember what this visitor was sent for `line`: a hit, decided under watch."""
        hit, reads, audience = exchange.hit, exchange.reads, visitor.audience
        assert hit is not None
        assert audience is not None
        has_new = self._questions.learn(reads, visitor.introduced, head)
        if has_new:
            self._start_over()
        if has_new is not False or hit.tier != self._first or not self._is_settled(hit):
            return
        told = self._questions.places(reads)
        browser_ttl_s = self._browser_ttl_s(exchange.route)
        pattern = Pattern(head, hit, exchange.cache_status, browser_ttl_s, told)
        tally = self._tally(exchange)
        audience[line] = answer = Remembered(hit, self._keeps, pattern, body, tally)
        if self._wants_log:
            facts, named = self.plan.logged_facts, self._names_clients
            entry = access_log.entry(exchange, facts, names_client=named)
            answer.log = {name: entry[name] for name in entry if name not in visitor.logged}
        self._count(answer)

    def _count(self, answer: Remembered) -> None:
        """Take an answer into account; at a bound, all are learned anew."""
        self._answers += 1
        self.bytes += answer.takes_bytes
        if id(answer.body) not in self._bodies:  # what it refers to may have left the tier
            self._bodies[id(answer.body)] = answer.body
            self.bytes += len(answer.body)
        if self._answers > MAX_ANSWERS or self.bytes > self.max_bytes:
            self._start_over()

    def _browser_ttl_s(self, route: str | None) -> int | None:
        rule = self.plan.rule_names.get(route or "")
        ttl_s = self.plan.policy.cache.rules[rule].browser_ttl if rule else None
        return None if ttl_s is None else int(ttl_s)

    def _start_over(self) -> None:
        self._visitors.clear()
        self._audiences.clear()
        self._bodies.clear()
        self._answers = self.bytes = 0

    def _is_settled(self, hit: Hit) -> bool:
        """Whether its codings have been made: a hit that is remembered would never ask for them."""
        return not self.plan.cache.encodings or hit.entry.encoded is not None

    def _keeps(self, hit: Hit) -> bool:
        """Whether the tier still has what the answer was made of, and no purge has marked it."""
        if self._get is None or self._get(hit.id) is not hit.entry:
            return False
        if hit.id != hit.entry.key:
            self._get(hit.entry.key)  # the record of variants is in use as well
        if hit.purges_seen != self._purges.version:
            if self._purges.seen(hit.entry, hit.url) is not hit.entry:
                return False
            hit.purges_seen = self._purges.version
        return True


def _query(line: bytes) -> bytes:
    return line.partition(b"?")[2][: -len(b" HTTP/1.1\r\n")]


_NOBODY = Visitor(None, {})
_NOTHING: dict[str, Any] = {}


def _is_repeatable(plan: Plan) -> bool:
    """Whether every plugin says that the same exchange always gets the same of it, and nobody has
    to be told of each request."""
    is_sampled = plan.explain is not None and plan.explain.sample > 0
    is_observed = bool(plan.phases.finish) or is_sampled
    return not is_observed and all(plugin.instance.repeatable for plugin in plan.plugins)
