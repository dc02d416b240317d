"""A PNG with a palette of 256 colours: less than half the size, for pictures of pages."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
type Colour = tuple[int, ...]

_RGB = 2  # what Chromium makes
_PALETTE = 3


def with_palette(picture: bytes) -> bytes:
    """`picture` in 256 of its colours, and the nearest of them for the others."""
    width, height, rows = _read(picture)
    pixels = [list(zip(row[0::3], row[1::3], row[2::3], strict=True)) for row in rows]
    counts = Counter(pixel for row in pixels for pixel in row)
    palette = _palette(counts)
    index = {colour: number for number, colour in enumerate(palette)}
    for colour in counts.keys() - index.keys():
        index[colour] = min(range(len(palette)), key=lambda n: _distance(palette[n], colour))
    lines = b"".join(b"\0" + bytes(map(index.__getitem__, row)) for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, _PALETTE, 0, 0, 0)
    return _SIGNATURE + b"".join(
        _chunk(kind, data)
        for kind, data in (
            (b"IHDR", head),
            (b"PLTE", b"".join(map(bytes, palette))),
            (b"IDAT", zlib.compress(lines, 9)),
            (b"IEND", b""),
        )
    )


def _palette(counts: Counter[Colour]) -> list[Colour]:
    """The most frequent colours, and those that are farthest from them: red is to stay red."""
    palette = [colour for colour, _ in counts.most_common(160)]
    missed = {
        colour: min(_distance(one, colour) for one in palette)
        for colour in counts.keys() - set(palette)
    }
    while missed and len(palette) < 256:
        farthest = max(missed, key=lambda colour: missed[colour] * counts[colour])
        palette.append(farthest)
        del missed[farthest]
        for colour, distance in missed.items():
            missed[colour] = min(distance, _distance(farthest, colour))
    return palette


def _distance(one: Colour, other: Colour) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(picture):
        (length,) = struct.unpack_from(">I", picture, at)
        yield picture[at + 4 : at + 8], picture[at + 8 : at + 8 + length]
        at += 12 + length


def _read(picture: bytes) -> tuple[int, int, list[bytearray]]:
    """Width, height, and the rows of RGB."""
    chunks = list(_chunks(picture))
    width, height, depth, kind = struct.unpack_from(">IIBB", dict(chunks)[b"IHDR"])
    assert (depth, kind) == (8, _RGB)
    data = zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT"))
    size = 3 * width
    rows, above = [], bytearray(size)
    for start in range(0, height * (size + 1), size + 1):
        above = _unfiltered(data[start], bytearray(data[start + 1 : start + 1 + size]), above)
        rows.append(above)
    return width, height, rows


def _unfiltered(kind: int, row: bytearray, above: bytearray) -> bytearray:
    """The filters of PNG, section 9.2 of its specification."""
    for at in range(len(row) if kind else 0):
        left = row[at - 3] if at >= 3 else 0
        corner = above[at - 3] if at >= 3 else 0
        guess = (left, above[at], (left + above[at]) // 2, _paeth(left, above[at], corner))
        row[at] = (row[at] + guess[kind - 1]) & 255
    return row


def _paeth(left: int, above: int, corner: int) -> int:
    near = left + above - corner
    return min((left, above, corner), key=lambda one: abs(near - one))
