"""Hostile requests by class: every bad byte in every place, every bad line end, every bad pair.

Each is one fault in a request that is good without it. What must come of it follows from RFC 9112
and from the rules of `engine/message.py`: it is refused, unless the byte may stand there.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from tests.hostile import Case, Outcome, load_corpus

REFUSED = (Outcome("refused", 400),)

# ---------------------------------------------------------------- a byte too many

BYTES = {
    "nul": b"\0", "soh": b"\x01", "backspace": b"\b", "tab": b"\t", "lf": b"\n", "vt": b"\x0b",
    "ff": b"\x0c", "cr": b"\r", "escape": b"\x1b", "fs": b"\x1c", "us": b"\x1f", "space": b" ",
    "del": b"\x7f", "x80": b"\x80", "nel": b"\x85", "nbsp": b"\xa0", "xff": b"\xff",
}  # fmt: skip

WITH_LENGTH = (
    "{first}PO{method}ST {before target}/fo{path}rm?a{query}b {before version}HT{protocol}TP/1."
    "{version}1{line end}\r\nHo{host name}st{host colon}:{host start} a.ex{host}ample{host end}\r\n"
    "X-Or{name}der{colon}:{start} a{value}b{end}\r\n"
    "Content-Length{length colon}:{length start} 0{length}5{length end}\r\n\r\nhello"
)
WITH_CHUNKS = (
    "POST /form HTTP/1.1\r\nHost: a.example\r\n"
    "Transfer-Encoding{coding colon}:{coding start} chun{coding}ked{coding end}\r\n\r\n"
    '{before size}5{after size};na{extension}me="a{quoted}b"{size end}\r\nhello{data end}\r\n'
    "{before last}0{last end}\r\nTrai{trailer name}ler{trailer colon}: a{trailer}b\r\n\r\n"
)

_BLANKS = frozenset(b" \t")
_TEXT = _BLANKS | {0x80, 0x85, 0xA0, 0xFF}
_MAY_STAND = {  # RFC 9110, sections 5.5 and 5.6.3
    **dict.fromkeys(("host start", "host end", "length start", "length end"), _BLANKS),
    **dict.fromkeys(("coding start", "coding end"), _BLANKS),
    **dict.fromkeys(("start", "value", "end", "quoted", "trailer"), _TEXT),
}
_PLACE = re.compile(r"\{([a-z ]+)\}")


def _bytes_in_places() -> Iterator[Case]:
    for template in (WITH_LENGTH, WITH_CHUNKS):
        for place in _PLACE.findall(template):
            for name, byte in BYTES.items():
                found = template.replace(f"{{{place}}}", byte.decode("latin-1"))
                raw = _PLACE.sub("", found).encode("latin-1")
                may = byte[0] in _MAY_STAND.get(place, ())
                expect = (_passed(template, place, byte),) if may else REFUSED
                yield Case(f"bytes/{name} in {place}", raw, expect)


def _passed(template: str, place: str, byte: bytes) -> Outcome:
    """The request without its fault, but for a byte that is part of a value."""
    if template is WITH_CHUNKS:
        head, body = b"POST /form", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    else:
        value = {"start": byte + b" ab", "value": b"a" + byte + b"b", "end": b"ab" + byte}
        order = value.get(place, b"ab").strip(b" \t")
        head = b"POST /form?ab"
        body = b"X-Order: " + order + b"\r\nContent-Length: 5\r\n\r\nhello"
    return Outcome("passed", 200, head + b" HTTP/1.1\r\nHost: a.example\r\n" + body)


# ------------------------------------------------------------- ends of lines

LINE_ENDS = {
    "lf": b"\n", "cr": b"\r", "cr cr lf": b"\r\r\n", "lf cr": b"\n\r", "lf lf": b"\n\n",
    "vt": b"\x0b", "ff": b"\x0c", "nel": b"\x85", "nul crlf": b"\0\r\n", "none": b"",
    "fold": b"\r\n \t", "escaped": b"\\r\\n",
}  # fmt: skip

LINES = {
    "the request line": b"POST /form HTTP/1.1",
    "a field": b"Host: a.example",
    "the last field": b"Transfer-Encoding: chunked",
    "the head": b"",
    "a size": b"5",
    "data": b"hello",
    "the last size": b"0",
    "a trailer": b"Trailer: a",
}


def _line_ends() -> Iterator[Case]:
    for place, (name, ending) in itertools.product(LINES, LINE_ENDS.items()):
        if (place, name) == ("the head", "none"):
            continue  # the same bytes as none after the last field
        raw = b"".join(
            line + (ending if where == place else b"\r\n") for where, line in LINES.items()
        )
        yield Case(f"line-ends/{name} after {place}", raw + b"\r\n", REFUSED)


# ------------------------------------------------------------- pairs of fields

FRAMING = {
    "length": b"Content-Length: 5",
    "shorter": b"Content-Length: 3",
    "list": b"Content-Length: 5, 5",
    "signed": b"Content-Length: +5",
    "spaced": b"Content-Length : 5",
    "lookalike": b"Content_Length: 5",
    "chunked": b"Transfer-Encoding: chunked",
    "capitals": b"TRANSFER-ENCODING: CHUNKED",
    "twice": b"Transfer-Encoding: chunked, chunked",
    "identity": b"Transfer-Encoding: identity",
    "empty": b"Transfer-Encoding:",
    "spaced coding": b"Transfer-Encoding : chunked",
    "coding lookalike": b"Transfer_Encoding: chunked",
}
_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


def _pairs() -> Iterator[Case]:
    """Two fields that say how long the body is, in both orders, next to each other and apart."""
    for (one, first), (other, second) in itertools.permutations(FRAMING.items(), 2):
        lines = [b"POST /form HTTP/1.1", b"Host: a.example", first, second]
        raw = b"\r\n".join(lines) + b"\r\n\r\n" + _CHUNKS
        yield Case(f"pairs/{one} and {other}", raw, REFUSED)
    for name, line in FRAMING.items():
        lines = [b"POST /form HTTP/1.1", line, b"Host: a.example", line]
        raw = b"\r\n".join(lines) + b"\r\n\r\n" + _CHUNKS
        yield Case(f"pairs/{name} again", raw, REFUSED)


def whole_corpus() -> list[Case]:
    """The cases that are written down, and these."""
    return [*load_corpus(), *_bytes_in_places(), *_line_ends(), *_pairs()]
