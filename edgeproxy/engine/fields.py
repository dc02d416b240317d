"""Requests of HTTP/2 and HTTP/3 as text of HTTP/1.1, and answers back (RFC 9113 and 9114). Pure.

What these versions forbid is malformed, and ends the stream it came on. What passes is a request of
HTTP/1.1 with a framing of our own, for `message.py` to judge like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edgeproxy.engine.message import ResponseHead

Fields = list[tuple[bytes, bytes]]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9113, section 8.2.1: no upper case
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path"))
_OF_CONNECTIONS = frozenset(  # RFC 9113, section 8.2.2
    b"connection keep-alive proxy-connection transfer-encoding upgrade".split()
)


class Malformed(Exception):
    """A request that is none (RFC 9113, section 8.1.1; RFC 9114, section 4.1.2)."""


@dataclass(frozen=True, slots=True)
class RequestText:
    """A request head as HTTP/1.1 has it. A body of no known `length` is to be sent in chunks."""

    text: bytes
    method: bytes
    length: int | None
    is_chunked: bool


def request_text(fields: Iterable[tuple[bytes, bytes]], scheme: bytes, ended: bool) -> RequestText:
    """The request that `fields` are, on a connection of `scheme`; `ended` if no body follows.

    Raises Malformed.
    """
    pseudo, rest = _split(fields)
    method, target = _line(pseudo, scheme)
    lines: list[bytes] = []
    crumbs: list[bytes] = []
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    for name, value in rest:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Malformed("a field is malformed")
        if name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
            raise Malformed("a field is about an HTTP/1.1 connection")
        if name == b"cookie":
            crumbs.append(value)
        elif name == b"host":
            hosts.append(value)
        elif name == b"content-length":
            lengths.append(value)
        else:
            lines.append(b"%b: %b" % (name, value))
    if crumbs:  # RFC 9113, section 8.2.3
        lines.append(b"cookie: " + b"; ".join(crumbs))
    length = _length(lengths, ended)
    if length is not None:
        lines.append(b"content-length: %d" % length)
    elif not ended:
        lines.append(b"transfer-encoding: chunked")
    head = b"%b %b HTTP/1.1\r\nhost: %b" % (method, target, _host(pseudo, hosts))
    text = b"\r\n".join((head, *lines, b"\r\n"))
    return RequestText(text, method, length, length is None and not ended)


def _split(fields: Iterable[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], Fields]:
    """Pseudo-fields, which come first and once each, and the others (RFC 9113, section 8.3)."""
    pseudo: dict[bytes, bytes] = {}
    rest: Fields = []
    for name, value in fields:
        if not name.startswith(b":"):
            rest.append((name, value))
        elif rest or name in pseudo or name not in _PSEUDO:
            raise Malformed("a pseudo-field is unknown, repeated or late")
        else:
            pseudo[name] = value
    return pseudo, rest


def _line(pseudo: dict[bytes, bytes], scheme: bytes) -> tuple[bytes, bytes]:
    """Method and target (RFC 9113, sections 8.3.1 and 8.5)."""
    method = pseudo.get(b":method", b"")
    if not _METHOD.fullmatch(method):
        raise Malformed("the method is missing or malformed")
    if method == b"CONNECT":
        target = pseudo.get(b":authority", b"")
        if len(pseudo) != 2 or not _TARGET.fullmatch(target):
            raise Malformed("CONNECT has an authority and nothing else")
        return method, target
    if pseudo.get(b":scheme") != scheme:
        raise Malformed("the scheme is missing, or is not that of the connection")
    target = pseudo.get(b":path", b"")
    if not _TARGET.fullmatch(target) or not (target.startswith(b"/") or target == b"*"):
        raise Malformed("the path is missing or malformed")
    return method, target


def _host(pseudo: dict[bytes, bytes], hosts: list[bytes]) -> bytes:
    """The one authority that the request is for (RFC 9113, section 8.3.1)."""
    named = [pseudo[b":authority"]] if b":authority" in pseudo else []
    named += hosts
    if not named or any(one.lower() != named[0].lower() for one in named) or len(hosts) > 1:
        raise Malformed("the authority is missing, or there are two")
    if not _TARGET.fullmatch(named[0]):
        raise Malformed("the authority is malformed")
    return named[0]


def _length(lengths: list[bytes], ended: bool) -> int | None:
    if not lengths:
        return None
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise Malformed("content-length is malformed or repeated")
    length = int(lengths[0])
    if ended and length:
        raise Malformed("content-length promises a body that is not there")
    return length


def check_trailers(fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises Malformed if these are no trailers (RFC 9113, section 8.1). They are dropped."""
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name in _OF_CONNECTIONS:
            raise Malformed("a trailer is malformed")


def response_fields(head: ResponseHead) -> Fields:
    """The fields of an answer (RFC 9113, section 8.3.2); names in lower case."""
    fields = [(b":status", b"%d" % head.status)]
    for line in head.lines:
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip(b" \t")))
    if head.length is not None:
        fields.append((b"content-length", b"%d" % head.length))
    return fields
