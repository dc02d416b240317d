"""What edgeproxy says: the access log, one line a request, and its own messages.

The access log holds no query, no cookie and no value of a field, so that no secret of a visitor
gets into it; the formats of other servers name the client besides.
"""

from __future__ import annotations

import fcntl
import io
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import RLock
from typing import Any, TextIO

from edgeproxy.http import Exchange, Fact, new_id
from edgeproxy.log_formats import Format, as_json, combined, common, readable

STYLES = ("auto", "text", "json", "common", "combined", "off")
_NAME_CLIENTS = ("common", "combined")


def entry(
    exchange: Exchange, facts: tuple[Fact[Any], ...], *, names_client: bool = False
) -> dict[str, Any]:
    """What is logged of one exchange. Duration in milliseconds."""
    response = exchange.response
    line: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "method": exchange.request.method,
        "host": exchange.request.authority,
        "path": exchange.request.path,
        "status": response.status if response else 0,
        "bytes": exchange.bytes_sent,
        "duration_ms": round((time.monotonic() - exchange.started_s) * 1000, 2),
        "route": exchange.route,
        "cache": exchange.cache_verdict,
        "origin": exchange.target.origin if exchange.target else None,
        "policy": exchange.policy,
        "request_id": exchange.id,
    }
    for fact in facts:
        value = exchange.facts.get(fact)
        if value is not None:
            assert fact.log is not None
            line[fact.log] = f"{line[fact.log]},{value}" if fact.log in line else value
    if exchange.error:
        line["error"] = exchange.error
    return {**line, **client(exchange)} if names_client else line


def client(exchange: Exchange) -> dict[str, Any]:
    """Who has asked, as far as the formats of other servers say it."""
    headers = exchange.request.headers
    referer = headers.get("referer") or ""
    return {
        "client": str(exchange.client),
        "protocol": exchange.protocol,
        "referer": referer.partition("?")[0].partition("#")[0],
        "user_agent": headers.get("user-agent") or "",
    }


def repeated(line: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of an answer that is sent once more as it is, to a client with these facts.

    Finding it takes some microseconds, which are not measured.
    """
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {**line, **facts, "time": now, "duration_ms": 0.0, "request_id": new_id()}


class AccessLog:
    """Writes entries to `stream` in one of the STYLES; other processes may write there, too, if it
    `is_shared`. `names_client` tells whether its entries have to."""

    def __init__(self, stream: TextIO, style: str = "auto", *, is_shared: bool = False) -> None:
        self._stream = stream
        if style == "auto":
            style = "text" if stream.isatty() else "json"
        self.names_client = style in _NAME_CLIENTS
        formats: dict[str, Format] = {
            "text": partial(readable, is_coloured=stream.isatty()),
            "json": as_json,
            "common": common,
            "combined": combined,
        }
        self._format = formats[style]
        self._write = _write_alone if is_shared else _write

    def write(self, line: Mapping[str, Any]) -> None:
        try:
            self._write(self._stream, self._format(line) + "\n")
        except (OSError, ValueError):
            logging.getLogger("edgeproxy").debug("the access log cannot be written")


def _write(stream: TextIO, text: str) -> None:
    """Write all of `text` now. An unbuffered stream (PYTHONUNBUFFERED) would drop what a signal has
    kept a pipe from taking."""
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:
        stream.write(text)
        return
    stream.flush()
    left = memoryview(text.encode(errors="backslashreplace"))
    while left:
        left = left[os.write(descriptor, left) :]


def _write_alone(stream: TextIO, text: str) -> None:
    with _alone(stream):
        _write(stream, text)


@contextmanager
def _alone(stream: TextIO) -> Iterator[None]:
    """Keep other processes that do the same from writing to where `stream` leads.

    The kernel keeps no more than 4 KiB together in a pipe (PIPE_BUF), so short lines have to wait
    for long ones as well. The lock is on the pipe or file itself, whoever has opened it; the system
    lets go of it when a process dies. What cannot be locked is written as it comes.
    """
    with _turn:
        is_locked = _set_lock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if is_locked:
                _set_lock(stream, fcntl.LOCK_UN)


_turn = RLock()
"""Of the threads of this process, which share its locks on files: one would end another's."""


def _set_lock(stream: TextIO, how: int) -> bool:
    try:
        fcntl.lockf(stream.fileno(), how)
    except (OSError, ValueError):  # it leads to no file, or is closed
        return False
    return True


class _Messages(logging.StreamHandler[TextIO]):
    """One message after the other, also from several processes."""

    def emit(self, record: logging.LogRecord) -> None:
        with _alone(self.stream):
            super().emit(record)


def set_up(level: str = "INFO", stream: TextIO | None = None, *, who: str = "") -> None:
    """Send the program's own messages to `stream` (standard error if None), as from `who`."""
    handler = _Messages(stream or sys.stderr)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname)-7s {who}%(message)s", "%H:%M:%S")
    )
    logger = logging.getLogger("edgeproxy")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def level() -> str:
    """The least level of the program's own messages that are logged."""
    return logging.getLevelName(logging.getLogger("edgeproxy").getEffectiveLevel())


def set_level(level: str) -> None:
    """Log the program's own messages from `level` on."""
    logging.getLogger("edgeproxy").setLevel(level)
