"""An exchange that notes what is read of it: what its answer may depend on, and nothing else can.

Whoever agrees with it in all that was read would have got the same answer. A fact counts as one
thing: what is read while it is worked out is the fact's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from edgeproxy.http import Exchange, Facts, Headers, Request


class Reads:
    """What was read. `is_alone` once something was read that no two requests have in common."""

    __slots__ = ("_inside", "client", "cookies", "facts", "fields", "is_alone")

    def __init__(self) -> None:
        self.fields: set[str] = set()  # names in lower case
        self.cookies: set[str] = set()  # names
        self.facts: set[str] = set()  # names
        self.client = False  # the address itself
        self.is_alone = False
        self._inside = 0  # so many facts are being worked out

    @property
    def matters(self) -> bool:
        return not self._inside

    def field(self, name: str) -> None:
        if not self._inside:
            self.fields.add(name.lower())

    def begin_fact(self, name: str) -> None:
        if not self._inside:
            self.facts.add(name)
        self._inside += 1

    def end_fact(self) -> None:
        self._inside -= 1


class WatchedHeaders(Headers):
    """Request fields. Who reads them all, by `fields` or `items`, is answered alone."""

    __slots__ = ("_plain", "_reads")

    def __init__(self, plain: Headers, reads: Reads) -> None:
        self._plain = plain
        self._reads = reads

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        self._reads.is_alone |= self._reads.matters
        return self._plain.fields

    @fields.setter
    def fields(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._plain.fields = fields

    def get(self, name: str, default: str | None = None) -> str | None:
        self._reads.field(name)
        return self._plain.get(name, default)

    def get_all(self, name: str) -> list[str]:
        self._reads.field(name)
        return self._plain.get_all(name)

    def joined(self, name: str) -> str | None:
        self._reads.field(name)
        return self._plain.joined(name)

    def pick(self, names: Collection[bytes]) -> list[tuple[bytes, bytes]]:
        for name in names:
            self._reads.field(name.decode("latin-1"))
        return self._plain.pick(names)

    def __contains__(self, name: str) -> bool:
        self._reads.field(name)
        return name in self._plain

    def add(self, name: str, value: str) -> None:
        self._plain.add(name, value)

    def set(self, name: str, value: str) -> None:
        self._plain.set(name, value)

    def append(self, name: str, value: str) -> None:
        self._reads.field(name)
        self._plain.append(name, value)

    def drop(self, names: Collection[bytes]) -> None:
        self._plain.drop(names)

    def copy(self) -> Headers:
        return WatchedHeaders(self._plain.copy(), self._reads)

    def __len__(self) -> int:
        return len(self.fields)


class WatchedCookies(dict[str, str]):
    """Cookies, each of which counts for itself. Who goes through all is answered alone."""

    def __init__(self, plain: dict[str, str], reads: Reads) -> None:
        super().__init__(plain)
        self._reads = reads

    def _one(self, name: object) -> None:
        self._reads.cookies.add(str(name))

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


class WatchedRequest(Request):
    """A request without a body, whose fields and cookies are watched."""

    __slots__ = ("_reads",)
    _reads: Reads

    @classmethod
    def of(cls, request: Request, reads: Reads) -> WatchedRequest:
        watched = cls.__new__(cls)
        watched._reads = reads
        for name in Request.__slots__:
            setattr(watched, name, getattr(request, name))
        watched.headers = WatchedHeaders(request.headers, reads)
        return watched

    def cookies(self) -> dict[str, str]:
        if not self._reads.matters:
            return super().cookies()
        return WatchedCookies(_cookies(self), self._reads)


def _noticed(cls: type, name: str, note: Callable[[Any], None]) -> Any:
    """The field `name` of `cls`; to read it is noted first."""
    field = vars(cls)[name]

    def read(owner: Any) -> Any:
        note(owner)
        return field.__get__(owner)

    return property(read, field.__set__)


def _aims(introduction: Introduction) -> None:
    introduction.is_targeted = True


class Introduction(Request):
    """What is known of a visitor before any target: to read one is noted in `is_targeted`."""

    __slots__ = ("is_targeted",)
    is_targeted: bool

    @classmethod
    def of(cls, request: Request) -> Introduction:
        introduction = cls("GET", request.authority, "/", None, request.headers, request.body)
        introduction.scheme = request.scheme
        introduction.is_targeted = False
        return introduction

    method: Any = _noticed(Request, "method", _aims)
    path: Any = _noticed(Request, "path", _aims)


def _cookies(request: WatchedRequest) -> dict[str, str]:
    """The cookies, read without counting as a read of the whole field."""
    headers = request.headers
    assert isinstance(headers, WatchedHeaders)
    plain = Request("GET", "", "/", headers=headers._plain)
    return plain.cookies()


class WatchedFacts(Facts):
    """Facts that tell which of them were asked for."""

    __slots__ = ("_reads",)

    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self._reads = reads

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
    exchange.reads.client |= exchange.reads.matters


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

    client: Any = _noticed(Exchange, "client", _asks_for_client)
    id: Any = _noticed(Exchange, "id", _is_alone)
    started_s: Any = _noticed(Exchange, "started_s", _is_alone)
    at_s: Any = _noticed(Exchange, "at_s", _is_alone)
