"""What a cache level must do. Tiers are plugins: they come in through `register_tiers`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from edgeproxy.http import Headers

if TYPE_CHECKING:
    from edgeproxy.caching.purges import Mark


class Readable(Protocol):
    """A body that is not in memory as a whole, and is read in pieces."""

    def __len__(self) -> int: ...

    def stream(self, first: int, length: int) -> AsyncIterator[bytes]:
        """`length` bytes from position `first` on, in pieces."""
        ...


class LazyBody(Readable, Protocol):
    """A body that stays where it is kept, on disk for example.

    Every byte is proven before it is given out: damage raises an OSError, which ends the answer
    before its end, and the entry goes.
    """

    async def read(self) -> bytes:
        """All of it."""
        ...

    def is_same(self, data: bytes) -> bool:
        """Whether it holds just these bytes; told without reading it."""
        ...


StoredBody = bytes | LazyBody


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it was stored. Times are seconds since 1970 by the wall clock.

    `vary` holds the request fields that chose it, name and normalised value, None for a field that
    was absent. `key` is the primary key it was stored under, so that a tier can prove that a file
    holds what its name says. A `status` of 0 is no response: it is the record of the variants that
    `key` has, and stands under the key itself.

    A `status` of 206 stands for what is kept in parts (`edgeproxy.caching.parts`): either the head
    of the whole, without a body, or one of its parts.

    `url` is the public URL it was first stored for: host and target, without scheme and port.
    `validators` are the origin's own, where the fields keep older ones for the same bytes.
    `encoded` holds the same content in other codings, made by the cache; None: not tried yet.
    """

    key: str
    status: int
    headers: Headers
    body: StoredBody
    stored_at_s: float  # when the response had been received
    requested_at_s: float  # when its request was sent, by `Purges.stamp`
    fresh_for_s: float  # freshness lifetime, from `stored_at_s` less the initial age
    age_s: float = 0.0  # corrected initial age (RFC 9111, section 4.2.3)
    vary: tuple[tuple[str, str | None], ...] = ()
    tags: tuple[str, ...] = field(default=())
    url: str = ""
    validators: tuple[tuple[str, str], ...] = ()  # If-None-Match, If-Modified-Since
    gone_at_s: float = 0.0  # when the origin first said that it has this no more; 0: it has
    encoded: tuple[tuple[str, StoredBody], ...] | None = None  # coding and body

    @property
    def size(self) -> int:
        """Bytes of memory that the entry takes, about."""
        fields = sum(len(name) + len(value) + 120 for name, value in self.headers.fields)
        return self.body_bytes + len(self.key) + 512 + fields

    @property
    def body_bytes(self) -> int:
        """Bytes of the body in all its codings."""
        return len(self.body) + sum(len(body) for _, body in self.encoded or ())

    @property
    def is_partial(self) -> bool:
        """It is a part of something larger, or its head: never an answer by itself."""
        return self.status == 206

    @property
    def whole_status(self) -> int:
        """The status of what it is, or is a part of."""
        return 200 if self.status == 206 else self.status

    @property
    def is_lazy(self) -> bool:
        return not isinstance(self.body, bytes)

    async def read(self) -> StoredResponse:
        """The same entry with its bodies in memory. Raises OSError for damage."""
        if isinstance(self.body, bytes):
            return self
        encoded = [(coding, await _read(body)) for coding, body in self.encoded or ()]
        whole = None if self.encoded is None else tuple(encoded)
        return replace(self, body=await _read(self.body), encoded=whole)


async def _read(body: StoredBody) -> bytes:
    return body if isinstance(body, bytes) else await body.read()


def is_same(one: StoredBody, data: StoredBody) -> bool:
    """Whether two bodies are equal; if both are lazy, nobody knows, and they are not."""
    if isinstance(one, bytes):
        return one == data if isinstance(data, bytes) else data.is_same(one)
    return isinstance(data, bytes) and one.is_same(data)


class Tier(Protocol):
    """One level of the cache, such as memory or disk.

    `id` is the key of a variant: the primary key and the values of the `Vary` fields. A tier
    never raises for what a disk or a damaged entry does: `get` answers None and the entry goes.
    Entries belong to all who read them: nobody changes one, its headers included.
    """

    name: str

    def get(self, id: str) -> StoredResponse | None:
        """The entry, without waiting; None if it is not here or cannot be had at once."""
        ...

    async def load(self, id: str) -> StoredResponse | None:
        """The entry, waiting if need be."""
        ...

    async def put(self, id: str, entry: StoredResponse) -> None:
        """Keep `entry`, unless it does not fit. Returns when a reader would find it."""
        ...

    async def remove(self, id: str) -> None:
        """Forget the entry, if it is here."""
        ...

    def stats(self) -> dict[str, int]:
        """`objects`, `bytes` and `max_bytes`; and, since the start, those of `hits`, `misses`,
        `admitted`, `rejected`, `evicted` and `promoted` that the tier can tell."""
        ...


@runtime_checkable
class Spills(Protocol):
    """What a tier does that says what it lets go to make room."""

    def follow_evictions(self, heard: Callable[[str, StoredResponse], None]) -> None:
        """Tell `heard`, on the event loop, of each evicted entry that had been used."""
        ...


@runtime_checkable
class TakesSpills(Protocol):
    """What a tier does that does not keep everything at once, and so takes up what a tier above
    lets go."""

    def offer(self, id: str, entry: StoredResponse) -> None:
        """Keep `entry` unless something is here under `id`. Does not wait; what is put, removed
        or offered later comes after it."""
        ...


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a tier's list: all but its body."""

    entry: StoredResponse
    body_bytes: int


@runtime_checkable
class Listing(Protocol):
    """What a tier does that can be listed, swept and checked. Without it, entries stay until they
    are asked for."""

    def entries(self) -> AsyncIterator[Sequence[Listed]]:
        """Everything that is here, in batches. What changes meanwhile may be missed."""
        ...


@runtime_checkable
class KeepsMarks(Protocol):
    """What a tier does whose entries outlive the process, so that purged ones stay purged."""

    def follow_marks(self, heard: Callable[[Sequence[Mark]], None]) -> None:
        """Tell `heard` of every mark that is kept here, whoever wrote it.

        It is told, on the event loop, before `load` or `entries` gives out an entry that the mark
        may cover, and whenever `read_marks` finds news.
        """
        ...

    async def read_marks(self) -> None:
        """See whether there are marks that `heard` has not been told of."""
        ...

    async def save_marks(self, new: Sequence[Mark], gone: Sequence[Mark] = ()) -> bool:
        """Keep `new`, each unless a later one is here, and drop `gone` unless renewed.

        True once that is safe against a crash of the machine.
        """
        ...
