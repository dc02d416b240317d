"""What visitors are asked under a plan: all that an answer has ever hung on but its target.

Visitors who answer alike are an audience: the policy cannot tell them apart, only fill in fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgeproxy.engine.watching import Asked, Clause, Quote, Reads, WatchedExchange
from edgeproxy.http import Headers, Text

MAX_CLAUSES, MAX_QUOTES = 32, 32
"""Each is tried for every new visitor. Past that, what they read are the questions."""


@dataclass(frozen=True, slots=True)
class Introduced:
    """What is kept of how a visitor answered. `said` are the values of the quotes, in order."""

    said: tuple[bytes, ...]
    written: Counter[str]  # facts, before anything was decided; shared by visitors
    edits: int  # of request fields, likewise


STRANGER = Introduced((), Counter(), 0)
"""Who has not been asked."""


class Questions:
    """Those of one plan. They only become more: see `learn`."""

    def __init__(self) -> None:
        self._fields: tuple[str, ...] = ()
        self._cookies: tuple[str, ...] = ()
        self._facts: tuple[str, ...] = ()
        self._asks_client = False
        self._clauses: dict[Clause, Asked] = {}
        self._takes_clauses = True
        self._written: Counter[str] = Counter()  # of the last visitor, who is like most
        self.quotes: tuple[Quote, ...] = ()

    # ------------------------------------------------------------ asking

    def put_to(self, told: WatchedExchange) -> tuple[tuple[Any, ...], Introduced]:
        """Ask the visitor who is introduced in `told`, after its facts have been annotated: the
        answers, in which all of an audience agree, and what is this visitor's own.

        Raises what a fact or a clause raises.
        """
        request, facts = told.request, told.facts
        if told.reads.written != self._written:
            self._written = told.reads.written.copy()
        written, edits = self._written, told.reads.edits
        values = _values(request.headers)
        cookies = request.cookies() if self._cookies else _NO_COOKIES
        traits = (
            request.authority,
            request.scheme,
            told.protocol,
            told.client if self._asks_client else None,
            *map(values.get, self._fields),
            *map(cookies.get, self._cookies),
            *map(facts.named, self._facts),
            *[clause(told) for clause in self._clauses],
        )
        said = tuple([_as_sent(name, text.render(told)) for name, text in self.quotes])
        return traits, Introduced(said, written, edits)

    # ------------------------------------------------------------ learning

    def learn(self, reads: Reads, visitor: Introduced, head: bytes) -> bool | None:
        """Add what was read for an answer that was sent with `head` to this visitor.

        True if any of it is new, so that visitors have to be asked again; None if the answer is for
        nobody else. A clause or a quote is judged by what is known of a visitor beforehand: where
        hooks on the way have changed what it rests on, what it read is a question instead. What
        remains in `reads.quotes` is filled in.
        """
        late = set(reads.written - visitor.written)
        self._unquote(reads, late, visitor, head)
        clauses = self._settled(reads, late)
        asked = reads.asked
        changed = any(not late.isdisjoint(reads.basis([fact]) - {fact}) for fact in asked.facts)
        if changed or reads.is_alone or reads.edits != visitor.edits:
            return None
        before = self._all()
        self._fields = _joined(self._fields, asked.fields)
        self._cookies = _joined(self._cookies, asked.cookies)
        self._facts = _joined(self._facts, asked.facts)
        self._asks_client |= asked.client
        self._clauses = clauses
        self.quotes = (*self.quotes, *[q for q in reads.quotes.items() if q not in self.quotes])
        return before != self._all()

    def _settled(self, reads: Reads, late: set[str]) -> dict[Clause, Asked]:
        """The clauses that are questions from now on; what others have read is asked itself."""
        clauses = dict(self._clauses)
        for clause, own in reads.clauses.items():
            if late.isdisjoint(reads.basis(own.facts)):
                clauses[clause] = own
            else:
                reads.asked.add(own)
        if self._takes_clauses and len(clauses) <= MAX_CLAUSES:
            return clauses
        self._takes_clauses = False
        for own in clauses.values():
            reads.asked.add(own)
        return {}

    def _unquote(self, reads: Reads, late: set[str], visitor: Introduced, head: bytes) -> None:
        """Leave those quotes that may be filled in; the facts of others are questions."""
        for name, text in [*reads.quotes.items()]:
            is_settled = late.isdisjoint(reads.basis(text.facts))
            if not (is_settled and self._stands(name, text, visitor, head)):
                reads.asked.facts.update(reads.quotes.pop(name).facts)

    def _stands(self, name: str, text: Text, visitor: Introduced, head: bytes) -> bool:
        """Whether the field is in `head` once, as what its visitor is told, if that is known."""
        start = b"%s: " % name.encode("latin-1")
        lines = [line for line in head.split(b"\r\n") if line.lower().startswith(start)]
        if (name, text) in self.quotes:
            said = visitor.said[self.quotes.index((name, text))]
            return [line[len(start) :] for line in lines] == [said]
        return len(lines) == 1 and len(self.quotes) < MAX_QUOTES

    def places(self, reads: Reads) -> dict[bytes, int]:
        """The fields that are filled in, each with its place in what a visitor is told."""
        return {name.encode("latin-1"): self.quotes.index((name, text))
                for name, text in reads.quotes.items()}  # fmt: skip

    def _all(self) -> tuple[Any, ...]:
        asked = (self._fields, self._cookies, self._facts, self._asks_client)
        return (*asked, [*self._clauses], self.quotes)


_NO_COOKIES: dict[str, str] = {}


def _values(headers: Headers) -> dict[str, bytes]:
    """The value of each field by its name in lower case, lines joined."""
    found: dict[str, bytes] = {}
    for raw_name, value in headers.fields:
        name = raw_name.lower().decode("latin-1")
        found[name] = value if name not in found else found[name] + b", " + value
    return found


def _joined(known: tuple[str, ...], more: Iterable[str]) -> tuple[str, ...]:
    new = sorted(set(more) - set(known))
    return (*known, *new) if new else known


def _as_sent(name: str, text: str) -> bytes:
    """A value as `Headers` writes it."""
    return Headers.of((name, text)).fields[0][1]
