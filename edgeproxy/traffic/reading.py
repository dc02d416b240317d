"""Recordings of any format, as one stream of visits."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgeproxy.errors import ClientError
from edgeproxy.traffic.har import entries, parse_entry
from edgeproxy.traffic.logs import MAX_LINE, parse_line
from edgeproxy.traffic.visit import Visit

MAX_HAR_BYTES = 256 * 1024 * 1024  # it is one value of JSON, which has to be read whole

UNREADABLE = (
    ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, ClientError
)  # fmt: skip
"""What comes of a record that is in no format, or has other kinds of values in it."""

FlowReader = Callable[[BinaryIO], Iterator[Visit | None]]
"""Reads a flow file; None for a flow that is no request. Unreadable for a damaged file."""


class Unreadable(Exception):
    """A recording cannot be read; says which, where and why."""


@dataclass(slots=True)
class Seen:
    """How many records there were, of which `bad` ones cannot be read; and how far we are."""

    total: int = 0
    bad: int = 0
    share: float = 0.0  # of the bytes of the file that is being read


def read(
    names: Iterable[str | Path], flows: FlowReader, seen: Seen, *, host: str = ""
) -> Iterator[Visit]:
    """The visits of the files `names`, one after the other; `-` is standard input.

    `host` is for records that name none. Unreadable for a file that cannot be read to its end.
    """
    for name in names:
        try:
            with nullcontext(sys.stdin.buffer) if str(name) == "-" else open(name, "rb") as file:
                for found in _records(file, flows, host.lower()):
                    seen.total += 1
                    if found is None:
                        seen.bad += 1
                    else:
                        yield found
                    if seen.total % 1024 == 0:
                        seen.share = _share(file)
        except OSError as error:
            raise Unreadable(f"{name}: {error.strerror or error}") from None
        except Unreadable as error:
            raise Unreadable(f"{name}: after {seen.total} records: {error}") from None


def _share(file: BinaryIO) -> float:
    if not file.seekable():
        return 0.0
    size = Path(file.name).stat().st_size
    return file.tell() / size if size else 1.0


def _records(file: BinaryIO, flows: FlowReader, host: str) -> Iterator[Visit | None]:
    """Told apart by the first bytes: a digit and a colon soon after begin a flow, HAR is one object
    that has `log` in it, all else is lines."""
    start = file.peek(4096)[:4096]  # type: ignore[attr-defined]
    if start[:1].isdigit() and b":" in start[:14] and start[: start.index(b":")].isdigit():
        return flows(file)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and _is_archive(start):
        return _archive(file)
    return _lines(file, host)


def _is_archive(start: bytes) -> bool:
    """A line of a log is an object of its own; an archive is one over many."""
    compact = b"".join(start.lstrip(b"\xef\xbb\xbf").split())
    return compact.startswith(b'{"log":{')


def _archive(file: BinaryIO) -> Iterator[Visit | None]:
    data = file.read(MAX_HAR_BYTES + 1)
    if len(data) > MAX_HAR_BYTES:
        raise Unreadable("an archive of more than 256 MiB; save it in parts")
    try:
        found = entries(json.loads(data.decode("utf-8-sig")))
    except UNREADABLE as error:
        raise Unreadable(f"it begins like HAR, and is none: {error}") from None
    del data
    for entry in found:
        yield _parsed(parse_entry, entry)


def _lines(file: BinaryIO, host: str) -> Iterator[Visit | None]:
    while line := file.readline(MAX_LINE):
        if not line.endswith(b"\n") and len(line) == MAX_LINE:
            while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            yield None
            continue
        text = line.decode("utf-8", "replace").strip()
        if text and not text.startswith("#"):
            yield _parsed(lambda one: parse_line(one, host), text)


def _parsed[T](parse: Callable[[T], Visit], record: T) -> Visit | None:
    try:
        return parse(record)
    except UNREADABLE:
        return None
