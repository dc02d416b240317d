"""How an entry of the access log is written: as JSON, for people, and as other servers write it.

`common` is the format of the first web server, of NCSA, and `combined` adds Referer and User-Agent
to it; whatever reads the logs of Apache or nginx reads them. They name the client, as that is what
they are read for; queries are left out, as everywhere.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

Entry = Mapping[str, Any]
Format = Callable[[Entry], str]

_COLOURS = {2: "32", 3: "36", 4: "33", 5: "31"}


def as_json(entry: Entry) -> str:
    return json.dumps(entry, ensure_ascii=True)


def readable(entry: Entry, *, is_coloured: bool = False) -> str:
    """A line for people."""
    status = str(entry["status"])
    if is_coloured:
        status = f"\033[{_COLOURS.get(entry['status'] // 100, '0')}m{status}\033[0m"
    extra = " ".join(
        f"{name}={printable(entry[name])}"
        for name in ("route", "country", "variant", "origin", "error")
        if entry.get(name)
    )
    return (
        f"{entry['time'][11:19]} {status} {entry['method']:<4} "
        f"{printable(entry['host'])}{printable(entry['path'])} "
        f"{entry['bytes']} B {entry['duration_ms']:.1f} ms {entry['cache']} {extra} "
        f"{entry['request_id']}"
    )


def printable(value: Any) -> str:
    """The text of `value` without what could steer a terminal: it is from clients and origins."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


def common(entry: Entry) -> str:
    """Apache's `%h %l %u %t \\"%r\\" %>s %b`. Nobody logs in here, so `%l` and `%u` are `-`."""
    request = f"{entry['method']} {entry['path']} {entry['protocol']}"
    return (
        f"{entry['client']} - - [{_common_time(entry['time'])}] {_quoted(request)} "
        f"{entry['status'] or '-'} {entry['bytes'] or '-'}"
    )


def combined(entry: Entry) -> str:
    """`common`, and `\\"%{Referer}i\\" \\"%{User-Agent}i\\"`."""
    return f"{common(entry)} {_quoted(entry['referer'])} {_quoted(entry['user_agent'])}"


@lru_cache(maxsize=16)
def _common_time(text: str) -> str:
    """A moment in UTC, as in `10/Oct/2000:13:55:36 +0000`, in English wherever we are."""
    moment = time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun",
             "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[moment.tm_mon - 1]  # fmt: skip
    return time.strftime(f"%d/{month}/%Y:%H:%M:%S +0000", moment)


_UNSAFE = re.compile(r"[^ !#-\[\]-~]")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b",
            "\v": "\\v"}  # fmt: skip


def _quoted(text: str | None) -> str:
    """`text` in quotes, with everything else escaped as Apache does, `-` for none."""
    return f'"{_UNSAFE.sub(_escaped, text)}"' if text else '"-"'


def _escaped(match: re.Match[str]) -> str:
    char = match.group()
    return _ESCAPES.get(char) or "".join(f"\\x{byte:02x}" for byte in char.encode("latin-1"))
