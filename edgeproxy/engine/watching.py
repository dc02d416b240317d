"""An exchange that notes what is read of it: what its answer may depend on, and nothing else can.

Whoever agrees with it in all that was read would have got the same answer. Two kinds of reads count
as one thing, whatever is read inside them:

- a fact, such as a country, which is worked out of an address;
- a clause of a match that looks at no target: visitors are told apart by whether it holds.

A fact that only stands in a field of the response tells nobody apart: it is noted as a *quote*, and
filled in anew for each visitor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Self

from edgeproxy.http import Exchange, Facts, Headers, Request, Response, Text

type Clause = Callable[[Exchange], bool]
type Quote = tuple[str, Text]
"""A field of the response, and the text with facts that is its whole value."""


class Asked:
    """What was read of a request."""

    __slots__ = ("client", "cookies", "facts", "fields", "target")

    def __init__(self) -> None:
        self.fields: set[str] = set()  # names in lower case
        self.cookies: set[str] = set()  # names
        self.facts: set[str] = set()  # names
        self.client = False  # the address itself
        self.target = False  # its method, path or query: all that does not say who asks

    def add(self, more: Asked) -> None:
        self.fields |= more.fields
        self.cookies |= more.cookies
        self.facts |= more.facts
        self.client |= more.client
        self.target |= more.target


class Reads:
    """What was read of an exchange, and what its facts were made of.

    `is_alone` once something was read that no two requests have in common.
    """

    __slots__ = (
        "_facts_under_way",
        "_is_off",
        "asked",
        "asks_query",
        "clauses",
        "edits",
        "is_alone",
        "made_of",
        "quotes",
        "written",
    )

    def __init__(self) -> None:
        self.asked = Asked()
        self.clauses: dict[Clause, Asked] = {}
        self.quotes: dict[str, Text] = {}  # by the name of the field
        self.is_alone = False
        self.asks_query = False  # of an introduction
        self.edits = 0  # of request fields
        self.written: Counter[str] = Counter()  # facts that were given a value or a way to it
        self.made_of: dict[str, set[str]] = {}  # the facts that were read to work out a fact
        self._facts_under_way: list[str] = []
        self._is_off = False

    @property
    def matters(self) -> bool:
        return not (self._facts_under_way or self._is_off)

    def field(self, name: str) -> None:
        if self.matters:
            self.asked.fields.add(name.lower())

    def all_fields(self) -> None:
        self.is_alone |= self.matters

    def begin_fact(self, name: str) -> None:
        if self._facts_under_way:
            self.made_of.setdefault(self._facts_under_way[-1], set()).add(name)
        elif self.matters:
            self.asked.facts.add(name)
        self._facts_under_way.append(name)

    def end_fact(self) -> None:
        self._facts_under_way.pop()

    def judge(self, clause: Clause, exchange: Exchange) -> bool:
        """Whether `clause` holds. If it looks at the target, what it reads is noted instead."""
        before, self.asked = self.asked, Asked()
        try:
            return clause(exchange)
        finally:
            own, self.asked = self.asked, before
            if own.target:
                before.add(own)
            else:
                self.clauses[clause] = own

    @contextmanager
    def unnoticed(self) -> Iterator[None]:
        before, self._is_off = self._is_off, True
        try:
            yield
        finally:
            self._is_off = before

    def end(self) -> None:
        """What is read from now on decides nothing."""
        self._is_off = True

    def unquote(self, name: str) -> None:
        """Somebody has looked at the field `name` of the response, and may decide by it."""
        if self.matters and (text := self.quotes.pop(name, None)) is not None:
            self.asked.facts.update(text.facts)

    def basis(self, facts: Collection[str]) -> set[str]:
        """All facts that these were made of, and these."""
        found: set[str] = set()
        left = list(facts)
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left += self.made_of.get(name, ())
        return found


class WatchedHeaders(Headers):
    """Request fields. Who reads them all, by `fields` or `items`, is answered alone."""

    __slots__ = ("_plain", "_reads")

    def __init__(self, plain: Headers, reads: Reads) -> None:
        self._plain = plain
        self._reads = reads

    def _one(self, name: str) -> None:
        self._reads.field(name)

    def _all(self) -> None:
        self._reads.all_fields()

    def _edit(self) -> None:
        self._reads.edits += 1

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        self._all()
        return self._plain.fields

    @fields.setter
    def fields(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._edit()
        self._plain.fields = fields

    def get(self, name: str, default: str | None = None) -> str | None:
        self._one(name)
        return self._plain.get(name, default)

    def get_all(self, name: str) -> list[str]:
        self._one(name)
        return self._plain.get_all(name)

    def joined(self, name: str) -> str | None:
        self._one(name)
        return self._plain.joined(name)

    def pick(self, names: Collection[bytes]) -> list[tuple[bytes, bytes]]:
        for name in names:
            self._one(name.decode("latin-1"))
        return self._plain.pick(names)

    def __contains__(self, name: str) -> bool:
        self._one(name)
        return name in self._plain

    def add(self, name: str, value: str) -> None:
        self._edit()
        self._plain.add(name, value)

    def set(self, name: str, value: str) -> None:
        self._edit()
        self._plain.set(name, value)

    def append(self, name: str, value: str) -> None:
        self._one(name)
        self._edit()
        self._plain.append(name, value)

    def drop(self, names: Collection[bytes]) -> None:
        self._edit()
        self._plain.drop(names)

    def copy(self) -> Headers:
        return CopiedHeaders(self._plain.copy(), self._reads)

    def __len__(self) -> int:
        return len(self.fields)


class CopiedHeaders(WatchedHeaders):
    """A copy of them, which becomes another message: to edit it changes nothing here."""

    __slots__ = ()

    def _edit(self) -> None:
        pass


class QuotingHeaders(WatchedHeaders):
    """Response fields, some of which are quotes; no longer, once somebody has looked at them."""

    __slots__ = ()

    def _one(self, name: str) -> None:
        self._reads.unquote(name.lower())

    def _all(self) -> None:
        for name in list(self._reads.quotes):
            self._reads.unquote(name)

    def _edit(self) -> None:
        pass

    def copy(self) -> Headers:
        return QuotingHeaders(self._plain.copy(), self._reads)


class WatchedCookies(dict[str, str]):
    """Cookies, each of which counts for itself. Who goes through all is answered alone."""

    def __init__(self, plain: dict[str, str], reads: Reads) -> None:
        super().__init__(plain)
        self._reads = reads

    def _one(self, name: object) -> None:
        self._reads.asked.cookies.add(str(name))

    def _all(self) -> None:
        self._reads.is_alone = True

    def get(self, name: str, default: Any = None) -> Any:
        self._one(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> str:
        self._one(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self._one(name)
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        self._all()
        return super().__iter__()

    def __len__(self) -> int:
        self._all()
        return super().__len__()

    def keys(self) -> Any:
        self._all()
        return super().keys()

    def values(self) -> Any:
        self._all()
        return super().values()

    def items(self) -> Any:
        self._all()
        return super().items()


def _noticed(cls: type, name: str, note: Callable[[Any], None]) -> Any:
    """The field `name` of `cls`; to read it is noted first."""
    field = vars(cls)[name]

    def read(owner: Any) -> Any:
        note(owner)
        return field.__get__(owner)

    return property(read, field.__set__)


def _aims(request: WatchedRequest) -> None:
    request.reads.asked.target = True


def _asks_for_query(introduction: Introduction) -> None:
    introduction.reads.asks_query = True


class WatchedRequest(Request):
    """A request without a body, whose fields, cookies and target are watched."""

    __slots__ = ("reads",)
    reads: Reads

    @classmethod
    def of(cls, request: Request, reads: Reads) -> Self:
        watched = cls.__new__(cls)
        watched.reads = reads
        for name in Request.__slots__:
            setattr(watched, name, getattr(request, name))
        watched.headers = WatchedHeaders(request.headers, reads)
        return watched

    method: Any = _noticed(Request, "method", _aims)
    path: Any = _noticed(Request, "path", _aims)
    query: Any = _noticed(Request, "query", _aims)

    def cookies(self) -> dict[str, str]:
        if not self.reads.matters:
            return super().cookies()
        return WatchedCookies(_cookies(self), self.reads)


class Introduction(WatchedRequest):
    """What is known of a visitor before any path. Who asks for its query has that noted apart."""

    __slots__ = ()

    @classmethod
    def to(cls, request: Request, query: str | None, reads: Reads) -> Introduction:
        """The visitor who has made `request`, whose fields stay as they are."""
        headers = request.headers.copy()
        plain = Request("GET", request.authority, "/", query, headers, request.body)
        plain.scheme = request.scheme
        return cls.of(plain, reads)

    query: Any = _noticed(Request, "query", _asks_for_query)


def _cookies(request: WatchedRequest) -> dict[str, str]:
    """The cookies, read without counting as a read of the whole field."""
    headers = request.headers
    assert isinstance(headers, WatchedHeaders)
    plain = Request("GET", "", "/", headers=headers._plain)
    return plain.cookies()


class WatchedFacts(Facts):
    """Facts that tell which of them were asked for, and which were given a value."""

    __slots__ = ("_reads",)

    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self._reads = reads

    def __setitem__(self, fact: Any, value: Any) -> None:
        self._reads.written[fact.name] += 1
        super().__setitem__(fact, value)

    def defer(self, fact: Any, compute: Callable[[], Any]) -> None:
        self._reads.written[fact.name] += 1
        super().defer(fact, compute)

    def named(self, name: str, default: Any = None) -> Any:
        self._reads.begin_fact(name)
        try:
            return super().named(name, default)
        finally:
            self._reads.end_fact()

    def known(self) -> dict[str, Any]:
        self._reads.is_alone = True
        return super().known()


def _asks_for_client(exchange: WatchedExchange) -> None:
    exchange.reads.asked.client |= exchange.reads.matters


def _is_alone(exchange: WatchedExchange) -> None:
    exchange.reads.is_alone = True


class WatchedExchange(Exchange):
    """An exchange whose reads are noted in `reads`."""

    __slots__ = ("reads",)
    reads: Reads

    @classmethod
    def of(cls, exchange: Exchange) -> WatchedExchange:
        """The same exchange, before anything has been decided about it."""
        reads = Reads()
        watched = cls.__new__(cls)
        watched.reads = reads
        for name in Exchange.__slots__:
            setattr(watched, name, getattr(exchange, name))
        watched.request = WatchedRequest.of(exchange.request, reads)
        watched.facts = WatchedFacts(reads)
        return watched

    @classmethod
    def introducing(cls, exchange: Exchange, query: str | None) -> WatchedExchange:
        """An exchange of the same visitor that is about no path yet."""
        reads = Reads()
        request = Introduction.to(exchange.request, query, reads)
        told = cls(request, exchange.client, WatchedFacts(reads))
        told.reads, told.protocol = reads, exchange.protocol
        return told

    client: Any = _noticed(Exchange, "client", _asks_for_client)
    id: Any = _noticed(Exchange, "id", _is_alone)
    started_s: Any = _noticed(Exchange, "started_s", _is_alone)
    at_s: Any = _noticed(Exchange, "at_s", _is_alone)

    def holds(self, clause: Clause) -> bool:
        return self.reads.judge(clause, self)

    def set_field(self, response: Response, name: str, text: Text) -> None:
        with self.reads.unnoticed():
            super().set_field(response, name, text)
        self.reads.quotes.pop(name.lower(), None)
        if text.facts:
            self.reads.quotes[name.lower()] = text
            if not isinstance(response.headers, QuotingHeaders):
                response.headers = QuotingHeaders(response.headers, self.reads)
