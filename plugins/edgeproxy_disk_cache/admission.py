"""Who gets a place on a disk that is filling up: what was asked for a second time."""

from __future__ import annotations

BITS = 2**20
HASHES = 4
NAMES_PER_TURN = 100_000
"""At that many names, one in 80 of others is taken for seen."""


class Seen:
    """Remembers about the last 100,000 to 200,000 names in 256 KiB: two Bloom filters in turn."""

    def __init__(self) -> None:
        self._now, self._before = bytearray(BITS // 8), bytearray(BITS // 8)
        self._count = 0

    def add(self, name: bytes) -> bool:
        """Note `name`, which is a digest; whether it was known, at least most likely."""
        spots = [int.from_bytes(name[at : at + 4]) % BITS for at in range(0, 4 * HASHES, 4)]
        known = _has(self._now, spots)
        if not known:
            if self._count >= NAMES_PER_TURN:
                self._now, self._before, self._count = bytearray(BITS // 8), self._now, 0
            for spot in spots:
                self._now[spot >> 3] |= 1 << (spot & 7)
            self._count += 1
        return known or _has(self._before, spots)


def _has(bits: bytearray, spots: list[int]) -> bool:
    return all(bits[spot >> 3] >> (spot & 7) & 1 for spot in spots)
