"""Other content codings of stored answers, made by the cache in the background.

GitHub Pages has gzip only; most clients take brotli. What is made is kept with the entry that it
was made of, as one thing: it is purged, evicted, replaced and found fresh together with it.

A coding made here is sent with the weak form of the origin's ETag, so that a client that asks
again by any of them hears that nothing has changed; ranges are never cut from one (RFC 9110,
sections 8.8.1 and 14.2).
"""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import import_module
from typing import Literal

import brotli

from edgeproxy.caching.fields import cache_control
from edgeproxy.caching.tiers import StoredBody, StoredResponse
from edgeproxy.caching.variants import weights

Coding = Literal["br", "zstd", "gzip"]
Encoded = tuple[tuple[str, bytes], ...]

MIN_BYTES = 1024
MAX_BYTES = 8 * 1024 * 1024
MAX_BYTES_HARD = 1024 * 1024
WORTH = 0.95  # of the size that is sent today; what saves less is not kept
LONG_LIVED_S = 86_400.0
MAX_WAITING = 32
"""Answers that wait to be encoded; more is load, and then nothing is. They get another chance when
they are asked for again."""

_TEXT = ("text/", "application/json", "application/javascript", "application/xml", "image/svg+xml")
_LIKE_TEXT = frozenset(
    (
        "application/ecmascript",
        "application/geo+json",
        "application/ld+json",
        "application/manifest+json",
        "application/wasm",
        "application/x-javascript",
        "application/xhtml+xml",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/x-icon",
        "image/vnd.microsoft.icon",
    )
)
_OF_THESE_BYTES = ("content-digest", "repr-digest", "digest", "content-md5", "content-range")


# ---------------------------------------------------------------- whether and which


@lru_cache(maxsize=1024)
def wanted(accept_encoding: str, codings: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `codings` that a client takes at least as gladly as gzip, the best first.

    Source: RFC 9110, section 12.5.3. What it does not name it does not get, but for `*`.
    """
    weight = weights(accept_encoding)
    other = weight.get("*", 0.0)
    least = weight.get("gzip", 0.0)
    taken = [(weight.get(coding, other), coding) for coding in codings]
    # `sorted` keeps the order of the policy among equals.
    chosen = sorted((one for one in taken if one[0] > 0 and one[0] >= least), key=lambda o: -o[0])
    return tuple(coding for _, coding in chosen)


def is_encodable(entry: StoredResponse) -> bool:
    """Whether another coding of `entry` may be made, and is likely to be smaller."""
    headers = entry.headers
    if entry.status != 200 or not MIN_BYTES <= _declared(entry) <= MAX_BYTES:
        return False
    kind = (headers.get("content-type") or "").partition(";")[0].strip(" \t").lower()
    if not (kind.startswith(_TEXT) or kind.endswith(("+json", "+xml")) or kind in _LIKE_TEXT):
        return False
    if (headers.joined("content-encoding") or "identity").lower() not in ("identity", "gzip"):
        return False
    if any(name in headers for name in _OF_THESE_BYTES):
        return False
    return "no-transform" not in cache_control(headers)


def _declared(entry: StoredResponse) -> int:
    gzipped = "content-encoding" in entry.headers
    return len(entry.body) * (4 if gzipped else 1)  # of text, about


# ---------------------------------------------------------------- what a client is sent


def chosen(entry: StoredResponse, codings: Sequence[str]) -> tuple[str, StoredBody] | None:
    """The first of `codings` that there is of `entry`."""
    if entry.encoded and codings:
        for coding in codings:
            for made, body in entry.encoded:
                if made == coding:
                    return coding, body
    return None


def encoded_fields(
    fields: Sequence[tuple[bytes, bytes]], coding: str, length: int
) -> list[tuple[bytes, bytes]]:
    """`fields` of an answer for the same content in `coding`."""
    kept = []
    for name, value in fields:
        lower = name.lower()
        if lower == b"etag" and not value.startswith(b"W/"):
            value = b"W/" + value
        if lower not in (b"content-encoding", b"content-length"):
            kept.append((name, value))
    kept.append((b"Content-Encoding", coding.encode()))
    kept.append((b"Content-Length", b"%d" % length))
    return kept


def with_vary(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """`fields`, saying that the answer depends on Accept-Encoding."""
    for name, value in fields:
        if name.lower() == b"vary" and (b"accept-encoding" in value.lower() or b"*" in value):
            return fields
    return [*fields, (b"Vary", b"Accept-Encoding")]


# ---------------------------------------------------------------- making them


def encode(entry: StoredResponse, codings: Sequence[str]) -> Encoded:
    """The codings of `entry` that are worth keeping. Takes time: 15 ms per MB, and 100 times that
    for what lives for a day or more."""
    body = entry.body
    assert isinstance(body, bytes)
    present = (entry.headers.joined("content-encoding") or "identity").lower()
    plain = gunzipped(body) if present == "gzip" else body
    if plain is None or len(plain) < MIN_BYTES:
        return ()
    is_long_lived = (
        entry.fresh_for_s >= LONG_LIVED_S or "immutable" in cache_control(entry.headers)
    ) and len(plain) <= MAX_BYTES_HARD
    made = []
    for coding in codings:
        if coding == present:
            continue
        data = ENCODERS[coding](plain, is_long_lived)
        if len(data) < WORTH * len(body):
            made.append((coding, data))
    return tuple(made)


def gunzipped(data: bytes) -> bytes | None:
    """The content of a gzip body; None if it is damaged, longer than 8 MiB, or more than one."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        plain = inflate.decompress(data, MAX_BYTES)
    except zlib.error:
        return None
    return plain if inflate.eof and not inflate.unused_data else None


def _brotli(data: bytes, is_long_lived: bool) -> bytes:
    made: bytes = brotli.compress(data, quality=11 if is_long_lived else 5)
    return made


def _gzip(data: bytes, is_long_lived: bool) -> bytes:
    return gzip.compress(data, 9 if is_long_lived else 6, mtime=0)


def _zstd(data: bytes, is_long_lived: bool) -> bytes:
    compress = zstd_compress()
    assert compress is not None  # the policy has been checked
    return compress(data, 19 if is_long_lived else 9)


ENCODERS: dict[str, Callable[[bytes, bool], bytes]] = {
    "br": _brotli,
    "zstd": _zstd,
    "gzip": _gzip,
}


@lru_cache(maxsize=1)
def zstd_compress() -> Callable[[bytes, int], bytes] | None:
    """The compressor of Python 3.14, or of its backport; None if there is neither."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            compress: Callable[[bytes, int], bytes] = import_module(name).compress
            return compress
        except ImportError:
            continue
    return None


class Encoder:
    """Makes codings in threads of low priority, a few for the whole process."""

    def __init__(self, codings: tuple[str, ...]) -> None:
        self.codings = codings
        self.skipped = 0  # because too many were waiting
        self.tasks: set[asyncio.Task[None]] = set()
        self._waiting: set[str] = set()

    def is_free(self, id: str) -> bool:
        """Whether the entry under `id` may be encoded now: it is not yet, and there is room."""
        if id in self._waiting:
            return False
        if len(self._waiting) >= MAX_WAITING:
            self.skipped += 1
            return False
        return True

    async def encode(self, id: str, entry: StoredResponse) -> Encoded:
        """What is worth keeping of `entry`, which stands under `id`."""
        self._waiting.add(id)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                _threads(), encode, entry, self.codings
            )
        finally:
            self._waiting.discard(id)


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 4), "encode", _be_nice)


def _be_nice() -> None:
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)


__all__ = ["Coding", "Encoder", "chosen", "encode", "encoded_fields", "is_encodable", "wanted"]
