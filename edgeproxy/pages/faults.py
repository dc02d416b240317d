"""What goes wrong on request: which paths, what happens there, and how often.

A fault becomes a `plan`: the bytes, pauses and endings that a client meets, in order. The plan is
pure, so that a fault can be tested without a socket and without waiting.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

DRIP_EVERY_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong. The parts combine: a delay, then half a body, then a reset."""

    status: int | None = None  # 429, 500, 502, 503, 504 or another error, in place of the answer
    retry_after: str | int | None = None  # with `status`: the Retry-After header
    delay_s: float = 0  # a pause before the first byte
    body_delay_s: float = 0  # a pause in the middle of the body
    drip_bytes_per_s: int | None = None  # the body at this speed
    cut_after_bytes: int | None = None  # the connection ends cleanly, the body too soon
    reset: bool = False  # the connection is reset before the first byte
    reset_after_bytes: int | None = None  # the connection is reset within the body
    content_length_delta: int = 0  # the stated Content-Length is wrong by so much
    stall: bool = False  # the connection stays open, and no byte comes
    times: int | None = None  # how many requests meet it; None: all of them

    def __post_init__(self) -> None:
        if self.status is not None and not 400 <= self.status <= 599:
            raise ValueError(f"status {self.status} is no error; use 400 to 599")
        if self.retry_after is not None and self.status is None:
            raise ValueError("retry_after needs a status, such as 429 or 503")
        if "\r" in str(self.retry_after) or "\n" in str(self.retry_after):
            raise ValueError("retry_after must be a single line")
        self._require(self.delay_s >= 0, "delay_s", "0 or more")
        self._require(self.body_delay_s >= 0, "body_delay_s", "0 or more")
        self._require(
            self.drip_bytes_per_s is None or self.drip_bytes_per_s > 0,
            "drip_bytes_per_s",
            "1 or more",
        )
        self._require((self.cut_after_bytes or 0) >= 0, "cut_after_bytes", "0 or more")
        self._require((self.reset_after_bytes or 0) >= 0, "reset_after_bytes", "0 or more")
        self._require(self.times is None or self.times > 0, "times", "1 or more")

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise ValueError(f"{name} is {getattr(self, name)}; it must be {expected}")


# ---------------------------------------------------------------- plans


class End(Enum):
    """How an exchange ends, where it does not end well."""

    CLOSE = "the connection is closed"
    RESET = "the connection is reset"
    STALL = "nothing more comes, and the connection stays open"


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


type Step = bytes | Pause | End


def plan(fault: Fault, head: bytes, body: bytes) -> Iterator[Step]:
    """What a client meets in place of `head` and `body`. Only an `End` ends the connection."""
    if fault.delay_s:
        yield Pause(fault.delay_s)
    if fault.stall:
        yield End.STALL
        return
    if fault.reset:
        yield End.RESET
        return
    yield head
    limit, end = _ending(fault, len(body))
    yield from _paced(fault, body, limit)
    if end:
        yield end


def _ending(fault: Fault, size: int) -> tuple[int, End | None]:
    """How much of the body is sent, and what comes after it. A cut takes at least one byte."""
    short_of_all = max(0, size - 1)
    if fault.reset_after_bytes is not None:
        return min(fault.reset_after_bytes, short_of_all), End.RESET
    if fault.cut_after_bytes is not None:
        return min(fault.cut_after_bytes, short_of_all), End.CLOSE
    return size, End.CLOSE if fault.content_length_delta else None


def _paced(fault: Fault, body: bytes, limit: int) -> Iterator[Step]:
    """The body up to `limit`, at the fault's speed and with its pause in the middle."""
    middle = len(body) // 2 if fault.body_delay_s else 0
    if middle:
        yield from _dripped(fault, body[: min(middle, limit)])
    if fault.body_delay_s:
        yield Pause(fault.body_delay_s)
    yield from _dripped(fault, body[middle:limit])


def _dripped(fault: Fault, body: bytes) -> Iterator[Step]:
    if fault.drip_bytes_per_s is None:
        if body:
            yield body
        return
    piece = max(1, int(fault.drip_bytes_per_s * DRIP_EVERY_S))
    for start in range(0, len(body), piece):
        yield Pause(piece / fault.drip_bytes_per_s)
        yield body[start : start + piece]


# ---------------------------------------------------------------- which requests


@dataclass(slots=True)
class Armed:
    pattern: str
    matches: re.Pattern[str]
    fault: Fault
    left: int | None


class Faults:
    """Faults by path pattern. The one set last is asked first; a used-up one lets others act."""

    def __init__(self) -> None:
        self._armed: dict[str, Armed] = {}

    def set(self, pattern: str, fault: Fault) -> None:
        """Put `fault` on all paths like `pattern`, in place of what that same pattern had."""
        armed = Armed(pattern, compile_pattern(pattern), fault, fault.times)
        self._armed = {pattern: armed} | {k: v for k, v in self._armed.items() if k != pattern}

    def clear(self) -> None:
        self._armed = {}

    def take(self, raw_path: str) -> Fault | None:
        """The fault for this request, counted as used; None without one."""
        if not self._armed:
            return None
        path = unquote(raw_path)
        for armed in self._armed.values():
            if armed.left != 0 and armed.matches.fullmatch(path):
                if armed.left is not None:
                    armed.left -= 1
                return armed.fault
        return None


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A path pattern: `*` is any text within a folder, `**` any text, `?` one character but `/`."""
    if not pattern.startswith("/"):
        raise ValueError(f"the path pattern {pattern!r} must start with '/'; for all paths use /**")
    wild = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts), re.DOTALL)


# ---------------------------------------------------------------- the command line

DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m)")
UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0}
KINDS = "status, retry-after, delay, body-delay, drip, cut, reset, length, stall, times"


def parse_fault(text: str) -> tuple[str, Fault]:
    """Read `PATTERN=KIND[:VALUE][,KIND[:VALUE]...]`, such as `/slow/**=delay:2s,times:1`.

    Raises ValueError with what was found and what to write instead.
    """
    pattern, equals, kinds = text.rpartition("=")
    if not equals or not kinds:
        raise ValueError(f"fault {text!r}: write PATTERN=KIND:VALUE, such as '/slow/**=delay:2s'")
    try:
        compile_pattern(pattern)
        found: dict[str, object] = {}
        for kind in kinds.split(","):
            name, value = _read_kind(kind.strip())
            if name in found:
                raise ValueError(f"{kind.partition(':')[0].strip()} is given twice")
            found[name] = value
        return pattern, Fault(**found)  # type: ignore[arg-type]  # _read_kind pairs them
    except ValueError as problem:
        raise ValueError(f"fault {text!r}: {problem}") from None


def _read_kind(text: str) -> tuple[str, object]:
    """The `Fault` field that `text` sets, and its value."""
    kind, colon, value = text.partition(":")
    if kind == "reset":
        return ("reset_after_bytes", _whole(kind, value)) if colon else ("reset", True)
    if kind == "stall":
        if colon:
            raise ValueError("stall takes no value")
        return "stall", True
    if kind == "delay":
        return "delay_s", _duration(kind, value)
    if kind == "body-delay":
        return "body_delay_s", _duration(kind, value)
    if kind == "length":
        return "content_length_delta", _signed(kind, value)
    if kind == "retry-after":
        if not value:
            raise ValueError("retry-after needs seconds, such as retry-after:30")
        return "retry_after", _whole(kind, value)
    fields = {
        "status": "status",
        "drip": "drip_bytes_per_s",
        "cut": "cut_after_bytes",
        "times": "times",
    }
    if kind not in fields:
        raise ValueError(f"unknown kind {kind!r}; kinds: {KINDS}")
    return fields[kind], _whole(kind, value)


def _duration(kind: str, value: str) -> float:
    match = DURATION.fullmatch(value)
    if match is None:
        raise ValueError(f"{kind} needs a time such as {kind}:2s or {kind}:500ms, not {value!r}")
    return float(match[1]) * UNIT_S[match[2]]


def _whole(kind: str, value: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", value):
        raise ValueError(
            f"{kind} needs a whole number such as {kind}:{EXAMPLES[kind]}, not {value!r}"
        )
    return int(value)


def _signed(kind: str, value: str) -> int:
    if not re.fullmatch("[+-]?[0-9]{1,12}", value) or not int(value):
        raise ValueError(
            f"{kind} needs a difference such as {kind}:+10 or {kind}:-10, not {value!r}"
        )
    return int(value)


EXAMPLES = {
    "status": 503,
    "retry-after": 30,
    "drip": 1000,
    "cut": 100,
    "reset": 100,
    "times": 2,
}
