"""The fields of W3C Trace Context, read and written.

Source: https://www.w3.org/TR/trace-context-2/, sections 3 and 4.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

MAX_STATE_LENGTH = 512  # characters, which everybody has to carry (section 3.3.1.5)
MAX_STATE_MEMBERS = 32

SAMPLED = 0x01
_KNOWN_FLAGS = SAMPLED | 0x02  # whether the id is random

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY = r"(?:[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_MEMBER = re.compile(_KEY + r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Which trace a request belongs to, and to what in it."""

    trace_id: str
    parent_id: str
    flags: int = 0

    def __str__(self) -> str:
        """The value of `traceparent`."""
        return f"00-{self.trace_id}-{self.parent_id}-{self.flags:02x}"


def parse(lines: Iterable[str]) -> TraceContext | None:
    """What `traceparent` says in the `lines` of a request; None if it is not there, or not valid.

    Of a later version, what this one knows counts (section 4.3).
    """
    found = [_TRACEPARENT.fullmatch(line) for line in lines]
    if len(found) != 1 or found[0] is None:
        return None
    version, trace_id, parent_id, flags, more = found[0].groups()
    if version == "ff" or (version == "00" and more) or not (trace_id.strip("0")):
        return None
    if not parent_id.strip("0"):
        return None
    return TraceContext(trace_id, parent_id, int(flags, 16) & _KNOWN_FLAGS)


def started(*, is_sampled: bool) -> TraceContext:
    """A new trace."""
    flags = _KNOWN_FLAGS if is_sampled else _KNOWN_FLAGS & ~SAMPLED
    return TraceContext(_new_id(16), _new_id(8), flags)


def _new_id(length: int) -> str:
    while not (found := secrets.token_hex(length)).strip("0"):
        pass
    return found


def state(lines: Iterable[str]) -> str:
    """What `tracestate` says in the `lines` of a request, as one line; empty if it says nothing, is
    not valid, or too long."""
    members = [member.strip(" \t") for line in lines for member in line.split(",")]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    text = ",".join(members)
    is_good = (
        len(keys) == len(members) <= MAX_STATE_MEMBERS
        and len(text) <= MAX_STATE_LENGTH
        and all(map(_MEMBER.fullmatch, members))
    )
    return text if is_good else ""
