"""Access logs: edgeproxy's own JSON, and the common and combined formats of other servers."""

from __future__ import annotations

import json
import re
from datetime import datetime
from functools import lru_cache

from edgeproxy.addresses import parse_address
from edgeproxy.http import Headers
from edgeproxy.traffic.visit import UNKNOWN_CLIENT, Recalled, Visit, is_field, visit

MAX_LINE = 64 * 1024  # characters; a longer line is no line of a log

_COMMON = re.compile(
    r'(\S+) \S+ .*?\[([^\]]+)\] "([A-Z]+) (\S+)(?: HTTP/[\d.]+)?" (\d{3}) (\d+|-)'
    r'(?: "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)")?(?:\s|$)'
)
"""The common log format; the combined one has Referer and User-Agent behind it."""

_ESCAPED = re.compile(r'\\(["\\])')


def parse_line(line: str, host: str = "") -> Visit:
    """The request that a line tells of; `host` is for lines that name none.

    An error of one of `UNREADABLE` for a line in no format, or with other kinds of values in it.
    """
    return _from_json(line, host) if line.startswith("{") else _from_common(line, host)


def _from_json(line: str, host: str) -> Visit:
    entry = json.loads(line)
    route, status = entry.get("route"), int(entry["status"])
    ours = "cache" in entry and "request_id" in entry
    verdict = entry["cache"] if ours else None
    if not (route is None or isinstance(route, str)) or not isinstance(verdict, str | None):
        raise TypeError("a route or a verdict that is no text")
    return visit(
        entry["method"], entry.get("host") or host, entry["path"],
        at_s=moment(entry["time"]), status=status, bytes=int(entry["bytes"]),
        recalled=Recalled(
            route=(route or "none") if ours else None, verdict=verdict,
            by_itself=ours and entry.get("origin") is None,
        ),
    )  # fmt: skip


def _from_common(line: str, host: str) -> Visit:
    found = _COMMON.match(line)
    if found is None:
        raise ValueError("no such format")
    who, when, method, target, status, size, referer, agent = found.groups()
    scheme = "http"
    if target.startswith(("http://", "https://")):
        scheme, _, rest = target.partition("://")
        host, slash, rest = rest.partition("/")
        target = slash + rest or "/"
    headers = Headers()
    for name, escaped in (("referer", referer), ("user-agent", agent)):
        value = _ESCAPED.sub(r"\1", escaped or "")
        if value and value != "-" and is_field(name, value):
            headers.add(name, value)
    return visit(
        method, host, target, scheme=scheme, headers=headers,
        at_s=_common_moment(when), status=int(status), bytes=0 if size == "-" else int(size),
        client=parse_address(who) or UNKNOWN_CLIENT,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def moment(text: str) -> float:
    """A time in ISO 8601."""
    return datetime.fromisoformat(text).timestamp()


@lru_cache(maxsize=4096)
def _common_moment(text: str) -> float:
    return datetime.strptime(text, "%d/%b/%Y:%H:%M:%S %z").timestamp()
