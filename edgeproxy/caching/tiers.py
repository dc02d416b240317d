"""What a cache level must do. Tiers are plugins: they come in through `register_tiers`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from edgeproxy.http import Headers


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it was stored. Times are seconds since 1970 by the wall clock.

    `vary` holds the request fields that chose it, name and normalised value, None for a field that
    was absent. `key` is the primary key it was stored under, so that a tier can prove that a file
    holds what its name says. A `status` of 0 is no response: it is the record of the variants that
    `key` has, and stands under the key itself.
    """

    key: str
    status: int
    headers: Headers
    body: bytes
    stored_at_s: float  # when the response had been received
    requested_at_s: float  # when its request was sent
    fresh_for_s: float  # freshness lifetime, from `stored_at_s` less the initial age
    age_s: float = 0.0  # corrected initial age (RFC 9111, section 4.2.3)
    vary: tuple[tuple[str, str | None], ...] = ()
    tags: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        """Bytes of memory that the entry takes, about."""
        fields = sum(len(name) + len(value) + 120 for name, value in self.headers.fields)
        return len(self.body) + len(self.key) + 512 + fields


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
        """`objects`, `bytes`, `max_bytes`."""
        ...
