"""Messages, facts and the exchange that carries them: plain data, no I/O, no engine."""

from __future__ import annotations

import ipaddress
import itertools
import os
import re
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, overload
from urllib.parse import quote, unquote_to_bytes

from edgeproxy.errors import ClientError

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

    from edgeproxy.caching.errand import Hit
    from edgeproxy.trace import Trace

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, section 5.5


class Headers:
    """An ordered multi-dict over bytes: fields keep their order, their case and their repeats.

    Names compare without case. Values are read and written as latin-1, which loses no byte.
    """

    __slots__ = ("fields",)

    def __init__(self, fields: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.fields: list[tuple[bytes, bytes]] = list(fields)

    @classmethod
    def of(cls, *pairs: tuple[str, str]) -> Headers:
        """Headers from text, checked as `add` checks."""
        headers = cls()
        for name, value in pairs:
            headers.add(name, value)
        return headers

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of `name`, or `default`."""
        wanted = name.lower().encode("latin-1")
        length = len(wanted)
        for key, value in self.fields:
            if len(key) == length and key.lower() == wanted:
                return value.decode("latin-1")
        return default

    def get_all(self, name: str) -> list[str]:
        """Every value of `name`, one per field line, in order."""
        wanted = name.lower().encode("latin-1")
        length = len(wanted)
        return [
            value.decode("latin-1")
            for key, value in self.fields
            if len(key) == length and key.lower() == wanted
        ]

    def joined(self, name: str) -> str | None:
        """All field lines of `name` as one list (RFC 9110, section 5.3); None if there is none."""
        values = self.get_all(name)
        return ", ".join(values) if values else None

    def pick(self, names: Collection[bytes]) -> list[tuple[bytes, bytes]]:
        """The field lines of any of `names`, in order, read in one pass; names in lower case."""
        return [(lower, value) for key, value in self.fields if (lower := key.lower()) in names]

    def add(self, name: str, value: str) -> None:
        """One more field line. ValueError if the name or the value could not be sent safely."""
        self.fields.append(_field(name, value))

    def set(self, name: str, value: str) -> None:
        """Exactly one field line of `name`, in the place of the first there was."""
        new = _field(name, value)
        wanted = new[0].lower()
        length = len(wanted)
        places = [
            place
            for place, (key, _) in enumerate(self.fields)
            if len(key) == length and key.lower() == wanted
        ]
        if not places:
            self.fields.append(new)
            return
        self.fields[places[0]] = new
        for place in reversed(places[1:]):
            del self.fields[place]

    def append(self, name: str, value: str) -> None:
        """`value` as one more member of the list in `name`; a new field if there is none."""
        present = self.joined(name)
        self.set(name, f"{present}, {value}" if present else value)

    def remove(self, *names: str) -> None:
        """No field line of any of `names`."""
        self.drop({name.lower().encode("latin-1") for name in names})

    def drop(self, names: Collection[bytes]) -> None:
        """The same for names that are bytes in lower case."""
        self.fields = [field for field in self.fields if field[0].lower() not in names]

    def copy(self) -> Headers:
        return Headers(self.fields)

    def items(self) -> Iterator[tuple[str, str]]:
        """Name and value of every field line as text."""
        for key, value in self.fields:
            yield key.decode("latin-1"), value.decode("latin-1")

    def __contains__(self, name: str) -> bool:
        wanted = name.lower().encode("latin-1")
        return wanted in [key.lower() for key, _ in self.fields]

    def __len__(self) -> int:
        return len(self.fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.fields == other.fields

    def __repr__(self) -> str:
        return f"Headers({dict(self.items())!r})"


def _field(name: str, value: str) -> tuple[bytes, bytes]:
    return _known_field(name, value) if len(value) <= 256 else _checked_field(name, value)


def _checked_field(name: str, value: str) -> tuple[bytes, bytes]:
    if not TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a field name (RFC 9110, section 5.1)")
    try:
        raw = value.encode("latin-1")
    except UnicodeEncodeError:
        raw = value.encode("utf-8")
    if not FIELD_VALUE.fullmatch(raw.decode("latin-1")):
        raise ValueError(f"the value of {name!r} holds a control character (RFC 9110, section 5.5)")
    return name.encode("ascii"), raw.strip(b" \t")


_known_field = lru_cache(maxsize=4096)(_checked_field)  # most fields that we set are set again


class BodyTooLarge(Exception):
    """A body is longer than the reader allows. The body itself stays readable."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        super().__init__(f"body is longer than {max_bytes} bytes")


class Body:
    """The content of a message: bytes at hand, or a stream read once.

    `length` is in bytes, None if not known beforehand. `data` is the whole content if it is in
    memory, else None.
    """

    __slots__ = ("_close", "_source", "_start", "data", "length")

    def __init__(
        self,
        data: bytes | None = b"",
        *,
        stream: AsyncIterator[bytes] | None = None,
        length: int | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.data = None if stream is not None else data or b""
        self.length = len(self.data) if self.data is not None else length
        self._start: list[bytes] = []
        self._source = stream
        self._close = close

    async def peek(self, max_bytes: int) -> bytes | None:
        """The whole content if it is at most `max_bytes` long, else None. Nothing is used up."""
        if self.data is None and await self._fill(max_bytes):
            self.data = b"".join(self._start)
            self.length = len(self.data)
            await self.close()
        if self.data is not None:
            return self.data if len(self.data) <= max_bytes else None
        return None

    async def read(self, max_bytes: int) -> bytes:
        """The whole content. Raises BodyTooLarge, with the body still readable, if it is longer."""
        data = await self.peek(max_bytes)
        if data is None:
            raise BodyTooLarge(max_bytes)
        return data

    async def _fill(self, max_bytes: int) -> bool:
        """Read on until the end (True) or until more than `max_bytes` are at hand (False)."""
        if self.length is not None and self.length > max_bytes:
            return False
        assert self._source is not None
        size = sum(len(chunk) for chunk in self._start)
        while size <= max_bytes:
            try:
                chunk = await anext(self._source)
            except StopAsyncIteration:
                return True
            self._start.append(chunk)
            size += len(chunk)
        return False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.data is not None:
            if self.data:
                yield self.data
            return
        assert self._source is not None
        start, self._start = self._start, []
        for chunk in start:
            yield chunk
        async for chunk in self._source:
            yield chunk

    async def close(self) -> None:
        """Give back what the stream holds. May be called twice."""
        close, self._close = self._close, None
        if close is not None:
            await close()


@dataclass(slots=True)
class Request:
    """A request in canonical form: what policy, cache key and origin all see.

    `path` is normalised by `normalise_path`. `query` is without its `?`, None if there was none.
    `authority` is the host in lower case, with a port only if it is not the scheme's own.
    """

    method: str
    authority: str
    path: str
    query: str | None = None
    headers: Headers = field(default_factory=Headers)
    body: Body = field(default_factory=Body)
    scheme: str = "http"
    on_interim: Callable[[int, Headers], None] | None = None  # hears of 1xx before the answer

    @property
    def target(self) -> str:
        """Path and query, as they stand in a request line."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    @property
    def host(self) -> str:
        """The authority without its port."""
        host, colon, port = self.authority.rpartition(":")
        return host if colon and port.isdigit() else self.authority

    @property
    def is_upgrade(self) -> bool:
        """It asks for a WebSocket (RFC 6455); no other upgrade gets this far."""
        return (self.headers.get("upgrade") or "").lower() == "websocket"

    def cookies(self) -> dict[str, str]:
        """The cookies sent; of one name the first (RFC 6265, section 5.4)."""
        found: dict[str, str] = {}
        for line in self.headers.get_all("cookie"):
            for pair in line.split(";"):
                name, equals, value = pair.strip().partition("=")
                if equals:
                    found.setdefault(name, value)
        return found


@dataclass(slots=True)
class Response:
    """A response head and its body. `tunnel` is the far end of a 101, ready to be joined."""

    status: int
    headers: Headers = field(default_factory=Headers)
    body: Body = field(default_factory=Body)
    tunnel: tuple[StreamReader, StreamWriter] | None = None

    @classmethod
    def text(cls, status: int, text: str, *headers: tuple[str, str]) -> Response:
        """A short plain-text answer."""
        fields = Headers.of(("content-type", "text/plain; charset=utf-8"), *headers)
        return cls(status, fields, Body(text.encode()))

    def copy(self) -> Response:
        """Another head over the same body, so that one client's edits stay its own."""
        return replace(self, headers=self.headers.copy())


Fetch = Callable[["Origin", Request], Awaitable[Response]]
"""How a request reaches an origin: answers with the response, or raises UpstreamError."""


class Fact[T]:
    """Something known about an exchange, such as the country of its client.

    `name` is what policies write in `${...}`. `log` is its key in the access log, None to leave it
    out. Two plugins meet at a fact by its name.
    """

    __slots__ = ("default", "log", "name")

    def __init__(self, name: str, *, default: T | None = None, log: str | None = None) -> None:
        self.name = name
        self.default = default
        self.log = log

    def __repr__(self) -> str:
        return f"Fact({self.name!r})"


class Facts:
    """What is known about one exchange. A deferred fact is worked out when it is first read."""

    __slots__ = ("_deferred", "_pinned", "_values")

    def __init__(self, pinned: Mapping[str, Any] | None = None) -> None:
        """`pinned` facts keep their values whatever plugins say: for rehearsals, by name."""
        self._pinned = pinned or {}
        self._values: dict[str, Any] = dict(self._pinned)
        self._deferred: dict[str, Callable[[], Any]] = {}

    def __setitem__[T](self, fact: Fact[T], value: T) -> None:
        if fact.name not in self._pinned:
            self._values[fact.name] = value

    def defer[T](self, fact: Fact[T], compute: Callable[[], T]) -> None:
        """Let `compute` give the value if somebody asks."""
        self._deferred[fact.name] = compute

    def __getitem__[T](self, fact: Fact[T]) -> T:
        value: T = self.named(fact.name, fact.default)
        return value

    @overload
    def get[T](self, fact: Fact[T]) -> T | None: ...
    @overload
    def get[T](self, fact: Fact[T], default: T) -> T: ...
    def get[T](self, fact: Fact[T], default: T | None = None) -> T | None:
        value: T | None = self.named(fact.name, default)
        return value

    def named(self, name: str, default: Any = None) -> Any:
        """The value of the fact called `name`, for places that know only its name."""
        if name not in self._values:
            compute = self._deferred.pop(name, None)
            if compute is None:
                return default
            self._values[name] = compute()
        return self._values[name]

    def is_pinned(self, name: str) -> bool:
        """Whether the value was given from outside, for a rehearsal."""
        return name in self._pinned

    def known(self) -> dict[str, Any]:
        """Everything worked out so far, by name."""
        return dict(self._values)

    def close(self) -> None:
        """Work nothing out any more. What would have done so leads back to the exchange, which only
        the collector of cycles would free: with 70 objects a request, pauses of 30 ms."""
        self._deferred.clear()

    def names(self) -> frozenset[str]:
        """The names of all that is known or would be worked out."""
        return frozenset((*self._values, *self._deferred))


@dataclass(frozen=True, slots=True)
class Origin:
    """A place that answers are fetched from.

    `url` parts are canonical; `base` begins and ends with `/`. A `static` origin (GitHub Pages) is
    sent GET and HEAD only, and nothing personal.
    """

    name: str
    scheme: str
    host: str
    port: int
    base: str = "/"
    static: bool = True
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 15.0
    idle_timeout_s: float = 30.0
    total_timeout_s: float = 300.0
    max_connections: int = 64
    ca_file: str | None = None
    allow_private: bool = False

    @property
    def authority(self) -> str:
        """Host, and port unless it is the scheme's own: the upstream `Host`."""
        usual = 443 if self.scheme == "https" else 80
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == usual else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where an exchange goes: an origin by name, and the path and query asked of it.

    The path is the public one; the origin's base path is added when the request is sent.
    """

    origin: str
    path: str
    query: str | None = None

    def with_path(self, path: str) -> Target:
        return replace(self, path=path)

    def with_origin(self, origin: str) -> Target:
        return replace(self, origin=origin)


class Text(Protocol):
    """A text with facts in it, by their names; a Template is one."""

    facts: tuple[str, ...]

    def render(self, exchange: Exchange) -> str: ...


_ids = itertools.count()
_boot = os.urandom(4).hex()


def new_id() -> str:
    """A name for one exchange, in the log and on error pages."""
    return f"{_boot}{next(_ids):08x}"


@dataclass(slots=True)
class Exchange:
    """One request and all that becomes of it. Lives as long as the request; never shared."""

    request: Request
    client: Address = field(default_factory=lambda: ipaddress.IPv4Address("127.0.0.1"))
    facts: Facts = field(default_factory=Facts)
    id: str = field(default_factory=new_id)
    at_s: float = field(default_factory=time.time)  # when it came; rehearsals may say another time
    started_s: float = field(default_factory=time.monotonic)
    protocol: str = "HTTP/1.1"  # that the client speaks
    policy: str = ""  # the version of the policy that decides
    route: str | None = None  # the name of the route that matched
    captures: tuple[str, ...] = ()  # what the wildcards of its path stand for, in order
    target: Target | None = None
    origin: Origin | None = None  # the target's, once it is settled
    cache_key: str = ""  # what the answer is stored under, empty if the cache has no part in it
    cache_status: str = ""  # our member of Cache-Status (RFC 9211)
    cache_verdict: str = "pass"  # hit, miss, stale, revalidated, collapsed, pass
    cache_tier: str = ""  # that had the stored answer, empty if none was used
    hit: Hit | None = None  # the fresh copy that it was answered with, if it was
    varies_by: set[str] = field(default_factory=set)  # request fields that decided; `*` for more
    cookies_to_set: list[str] = field(default_factory=list)
    error: str = ""  # the cause of a failure, for the log only
    response: Response | None = None  # what was sent, once `finish` runs
    bytes_sent: int = 0
    trace: Trace | None = None  # notes each step, if somebody has asked for that

    def holds(self, clause: Callable[[Exchange], bool]) -> bool:
        """Whether a clause of a match holds. Who watches what is read notes no more than that."""
        return clause(self)

    def set_field(self, response: Response, name: str, text: Text) -> None:
        """Make `text` the value of a response field, for this client.

        As `response.headers.set` with the text rendered, but clients for whom its facts differ may
        still be answered with one remembered answer, in which the field is filled in for each.
        """
        response.headers.set(name, text.render(self))


_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PLAIN_PATH = re.compile(
    r"(?:/[A-Za-z0-9\-_~!$&'()*+,;=:@]+(?:\.[A-Za-z0-9\-_~!$&'()*+,;=:@]+)*)+/?|/"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")


def normalise_path(path: str, *, encoded_slashes: bool = False) -> str:
    """The one spelling of `path` that policy, key and origin share (RFC 3986, section 6.2.2).

    Escapes of unreserved characters are decoded, other escapes get upper case, other characters
    are escaped, repeated slashes fold, dot segments resolve. Raises ClientError (400) for a path
    that climbs above the root, a broken escape, an escaped control character, a backslash, and,
    unless `encoded_slashes`, an escaped slash: an origin may read those in two ways.
    """
    if _PLAIN_PATH.fullmatch(path):
        return path
    if not path.startswith("/"):
        raise ClientError(400, "the path does not begin with a slash")

    def decode(match: re.Match[str]) -> str:
        digits = match.group(1)
        if not digits:
            raise ClientError(400, "the path holds a broken percent escape")
        byte = int(digits, 16)
        if byte < 0x20 or byte == 0x7F or byte == 0x5C or (byte == 0x2F and not encoded_slashes):
            raise ClientError(400, f"the path holds the escape %{digits.upper()}")
        return chr(byte) if byte in _UNRESERVED else f"%{digits.upper()}"

    if "\\" in path:
        raise ClientError(400, "the path holds a backslash")
    if _CONTROL.search(path):
        raise ClientError(400, "the path holds a control character")
    decoded = _ESCAPE.sub(decode, path)
    segments: list[str] = []
    parts = decoded.split("/")[1:]
    for part in parts:
        if part == "..":
            if not segments:
                raise ClientError(400, "the path climbs above the root")
            segments.pop()
        elif part not in ("", "."):
            segments.append(quote(part, safe="%!$&'()*+,;=:@"))
    slash = "/" if segments and parts[-1] in ("", ".", "..") else ""
    return "/" + "/".join(segments) + slash


def decoded_path(path: str) -> str:
    """`path` with every escape decoded, for people and for patterns; bad UTF-8 is replaced."""
    return unquote_to_bytes(path).decode("utf-8", "replace") if "%" in path else path


def fill(pattern: str, captures: Iterable[str]) -> str:
    """`pattern` with its wildcards replaced, in order, by what they stood for in the match.

    >>> fill("/v2/**", ("guide/start",))
    '/v2/guide/start'
    """
    left = list(captures)
    parts: list[str] = []
    rest = pattern
    while rest:
        if rest.startswith("*"):
            rest = rest[2:] if rest.startswith("**") else rest[1:]
            parts.append(left.pop(0) if left else "")
        else:
            literal, star, tail = rest.partition("*")
            parts.append(literal)
            rest = star + tail
    return "".join(parts)
