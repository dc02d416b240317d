"""HTTP/1.1 on the wire: a request head read strictly, an answer written. Pure.

Own code and not a library's, since a simulator must write heads that no library would: a wrong
Content-Length, half a body. Source: RFC 9112.
"""

import re
from dataclasses import dataclass
from typing import Literal

from .error_pages import phrase_of
from .messages import Answer, Headers, Request

MAX_HEAD_BYTES = 65_536

REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) HTTP/1\.([01])")
FIELD_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
ABSOLUTE = re.compile(r"https?://([^/?#]*)([^#]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request head, and how it goes on."""

    request: Request
    body_bytes: int  # that follow the head
    keep_alive: bool


def read_head(
    head: str, scheme: Literal["http", "https"] = "http", tls_name: str | None = None
) -> Incoming | None:
    """The request in `head`, which ends before its empty line; None if it is malformed."""
    request_line, *lines = head.split("\r\n")
    start = REQUEST_LINE.fullmatch(request_line)
    if start is None:
        return None
    pairs = []
    for line in lines:
        match = FIELD_LINE.fullmatch(line)
        if match is None:
            return None
        pairs.append((match[1], match[2].rstrip(" \t")))
    headers = Headers(pairs)
    framing = _framing(headers, minor=start[3])
    target = start[2]
    if absolute := ABSOLUTE.match(target):
        target = absolute[2] if absolute[2].startswith("/") else f"/{absolute[2]}"
        headers = Headers([("Host", absolute[1]), *(p for p in pairs if p[0].lower() != "host")])
    if framing is None:
        return None
    request = Request(start[1], target.partition("#")[0], headers, scheme, tls_name)
    return Incoming(request, *framing)


def _framing(headers: Headers, minor: str) -> tuple[int, bool] | None:
    """Body length and keep-alive; None for a Host or framing that no server may guess at.

    A chunked body is not read: the connection ends after the answer instead.
    """
    host = headers.get("host")
    if (host is None and minor == "1") or (host is not None and "," in host):
        return None
    length = headers.get("content-length", "0")
    if not re.fullmatch("[0-9]{1,15}", length):
        return None
    is_chunked = "transfer-encoding" in headers
    if is_chunked and "content-length" in headers:
        return None
    options = {option.strip() for option in headers.get("connection", "").lower().split(",")}
    keep_alive = "close" not in options if minor == "1" else "keep-alive" in options
    return int(length), keep_alive and not is_chunked


def head_of(answer: Answer, *, keep_alive: bool) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {phrase_of(answer.status)}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in answer.headers]
    lines.append("Connection: keep-alive\r\n\r\n" if keep_alive else "Connection: close\r\n\r\n")
    return "".join(lines).encode("latin-1", "replace")
