"""HAR, the archives that browsers save (HTTP Archive 1.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from edgeproxy.http import Headers
from edgeproxy.traffic.logs import moment
from edgeproxy.traffic.visit import Visit, is_field, visit

_NOT_SENT = frozenset(("host", "connection", "content-length", "transfer-encoding"))


def entries(archive: Any) -> list[Any]:
    """The entries of an archive. An error of one of `UNREADABLE` if it is none."""
    found = archive["log"]["entries"]
    if not isinstance(found, list):
        raise TypeError("entries that are no list")
    return found


def parse_entry(entry: Any) -> Visit:
    """The request of one entry. An error of one of `UNREADABLE` for damaged ones."""
    request, response = entry["request"], entry["response"]
    parts = urlsplit(request["url"])
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return visit(
        request["method"], parts.netloc.rpartition("@")[2], target, scheme=parts.scheme,
        at_s=moment(entry["startedDateTime"]), status=int(response["status"]),
        headers=Headers.of(*_fields(request["headers"])),
        answer=Headers.of(*_fields(response["headers"])),
        bytes=max(0, int(response.get("bodySize") or 0)),
    )  # fmt: skip


def _fields(listed: Any) -> Iterator[tuple[str, str]]:
    """Without pseudo-fields of HTTP/2, and without what belongs to the connection."""
    for one in listed:
        name, value = one["name"].lower(), one["value"]
        if name not in _NOT_SENT and is_field(name, value):
            yield name, value
