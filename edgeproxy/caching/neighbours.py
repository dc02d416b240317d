"""Other processes that serve the same site, as far as the cache has to do with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from edgeproxy.caching.purges import Mark
from edgeproxy.caching.tiers import StoredResponse


@dataclass(frozen=True, slots=True)
class Brought:
    """What a fetch of a neighbour came to: an answer for all, or nothing that others can use.

    Where it `is_stored` without an `entry`, a tier that is shared has it.
    """

    entry: StoredResponse | None = None
    is_stored: bool = False


NOTHING = Brought()


class Neighbours(Protocol):
    """Nothing here fails: a neighbour that is gone heeds nothing, and fetches nothing."""

    async def tell(self, marks: Sequence[Mark]) -> None:
        """Have the neighbours heed `marks`. Returns when all do."""
        ...

    async def take_turn(self, name: str) -> Brought | None:
        """None: fetch what goes by `name`, and then `end_turn`. Else a neighbour has."""
        ...

    def end_turn(self, name: str, brought: Brought) -> None:
        """Let those have it who waited. To be called once after each turn, whatever happens."""
        ...


class Alone:
    """No neighbours."""

    async def tell(self, marks: Sequence[Mark]) -> None:
        return None

    async def take_turn(self, name: str) -> Brought | None:
        return None

    def end_turn(self, name: str, brought: Brought) -> None:
        return None


def turn_of(key: str, id: str) -> str:
    """The name of the fetch for a key and a variant of it: short, and without what was asked."""
    return blake2b(f"{key}\n{id}".encode(), digest_size=16).hexdigest()
