"""The access log: one line a request, readable on a terminal, JSON otherwise.

It holds no query, no cookie and no header value, so that no secret of a visitor gets into it.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from edgeproxy.http import Exchange, Fact, new_id

_COLOURS = {2: "32", 3: "36", 4: "33", 5: "31"}


def entry(exchange: Exchange, facts: tuple[Fact[Any], ...]) -> dict[str, Any]:
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
    return line


def repeated(line: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of an answer that is sent once more as it is, to a client with these facts.

    Finding it takes some microseconds, which are not measured.
    """
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {**line, **facts, "time": now, "duration_ms": 0.0, "request_id": new_id()}


class AccessLog:
    """Writes entries to `stream`, as `text` for people or as `json`."""

    def __init__(self, stream: TextIO, style: str = "auto") -> None:
        self._stream = stream
        self._json = style == "json" or (style == "auto" and not stream.isatty())
        self._colour = not self._json and stream.isatty()

    def write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, ensure_ascii=True) if self._json else self._readable(line)
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            logging.getLogger("edgeproxy").debug("the access log cannot be written")

    def _readable(self, line: dict[str, Any]) -> str:
        status = str(line["status"])
        if self._colour:
            status = f"\033[{_COLOURS.get(line['status'] // 100, '0')}m{status}\033[0m"
        extra = " ".join(
            f"{name}={printable(line[name])}"
            for name in ("route", "country", "variant", "origin", "error")
            if line.get(name)
        )
        return (
            f"{line['time'][11:19]} {status} {line['method']:<4} "
            f"{printable(line['host'])}{printable(line['path'])} "
            f"{line['bytes']} B {line['duration_ms']:.1f} ms {line['cache']} {extra} "
            f"{line['request_id']}"
        )


def printable(value: Any) -> str:
    """The text of `value` without what could steer a terminal: it is from clients and origins."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


def set_up(level: str = "INFO", stream: TextIO | None = None, *, who: str = "") -> None:
    """Send the program's own messages to `stream` (standard error if None), as from `who`."""
    handler = logging.StreamHandler(stream or sys.stderr)
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
