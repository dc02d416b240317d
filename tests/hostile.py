"""The corpus of odd and hostile HTTP/1 requests in `cases/requests/`, for every test that wants it.

A file holds the cases of one class:

    === name                    a case begins; what follows is what a client sends
    GET / HTTP/1.1              every line ends with CRLF ...
    Host: a.example

    --- passed                  what must come of it; after `passed`, the canonical request
    GET / HTTP/1.1
    Host: a.example

A line that ends with a backslash has no CRLF. Inside lines `\\r \\n \\t \\0 \\xHH \\\\` are bytes;
`\\{text*N}` is N times text. Lines that begin with `#` are comments. Outcomes come in the order of
the requests: `passed`, `answered STATUS` (by the front itself), and last `refused STATUS`, after
which the connection is closed. The client closes its side after the last byte.

A chunked body is written as one chunk, since where chunks end carries no meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CASES = Path(__file__).parent / "cases" / "requests"
_ESCAPE = re.compile(r"\\(?:([rnt0\\])|x([0-9a-f]{2})|\{((?:[^*\\]|\\.)+)\*([0-9]+)\})")
_LETTERS = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What comes of one request: `kind` is passed, answered or refused."""

    kind: str
    status: int = 200  # of the answer; 200 stands for whatever the origin says
    canonical: bytes = b""  # what the core gets, if passed


@dataclass(frozen=True, slots=True)
class Case:
    """One connection: what the client sends, and what must come of it."""

    name: str
    raw: bytes
    expect: tuple[Outcome, ...]

    @property
    def passed(self) -> tuple[bytes, ...]:
        """The canonical requests that reach the core, in order."""
        return tuple(outcome.canonical for outcome in self.expect if outcome.kind == "passed")

    @property
    def statuses(self) -> tuple[int, ...]:
        """The statuses the client sees if the origin answers 200."""
        return tuple(outcome.status for outcome in self.expect)


def load_corpus() -> list[Case]:
    """Every case, by file and place in it. Names are `file/name`."""
    cases = [case for path in sorted(_CASES.glob("*.http")) for case in _read(path)]
    names = [case.name for case in cases]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"case names are used twice: {sorted(repeated)}")
    return cases


def _read(path: Path) -> Iterator[Case]:
    lines = [line for line in path.read_text("ascii").split("\n") if not line.startswith("#")]
    for chunk in "\n".join(lines).split("=== ")[1:]:
        name, _, text = chunk.partition("\n")
        raw, *outcomes = re.split(r"^--- (.+)\n", text, flags=re.MULTILINE)
        if not outcomes:
            raise ValueError(f"{path.name}: case {name!r} says nothing of its outcome")
        pairs = zip(outcomes[::2], outcomes[1::2], strict=True)
        yield Case(f"{path.stem}/{name}", _bytes(raw), tuple(_outcome(*pair) for pair in pairs))


def _outcome(words: str, text: str) -> Outcome:
    kind, _, status = words.partition(" ")
    if kind == "passed":
        return Outcome(kind, 200, _bytes(text))
    if kind not in ("refused", "answered"):
        raise ValueError(f"an outcome is passed, answered or refused, not {kind!r}")
    return Outcome(kind, int(status))


def _bytes(text: str) -> bytes:
    lines = text.removesuffix("\n").split("\n") if text else []
    joined = "".join(_ended(line) for line in lines)
    return _ESCAPE.sub(_unescape, joined).encode("latin-1")


def _ended(line: str) -> str:
    is_open = (len(line) - len(line.rstrip("\\"))) % 2 == 1
    return line[:-1] if is_open else line + "\r\n"


def _unescape(match: re.Match[str]) -> str:
    letter, digits, text, times = match.groups()
    if letter:
        return _LETTERS[letter]
    if digits:
        return chr(int(digits, 16))
    return _ESCAPE.sub(_unescape, text) * int(times)
