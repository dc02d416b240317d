"""HTTP/1 messages, read strictly and written canonically (RFC 9112). Pure: bytes in, bytes out.

Every request is read here once. What two readers could understand in two ways is refused; what
passes is written anew by us: one spelling of authority and path, our own framing, no hop-by-hop
fields. Nothing is converted before a full match on ASCII has proved what it is.

How the input is cut into pieces never changes the outcome.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import NoReturn

from edgeproxy.errors import ClientError
from edgeproxy.http import normalise_path
from edgeproxy.policy.model import Limits

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # RFC 9110, section 5.6.2
_VALUE = rb"[\t\x20-\x7e\x80-\xff]"  # RFC 9110, section 5.5
_PATH = rb"/[!$-;=@-~]*+"  # printable ASCII but space " # < > ?
_QUERY = rb"[!$-;=?-~]*+"  # the same and ?; browsers send more than RFC 3986, section 3.4 allows
_METHOD = rb"[!#$%&'*+\-.^_`|~0-9A-Z]{1,32}"

_TOKENS = re.compile(_TOKEN + rb"+")
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb"++:" + _VALUE + rb"*+\r\n)*+\r\n")
_PLAIN_LINE = re.compile(rb"(%b) (%b)(?:\?(%b))? HTTP/1\.([01])\r\n" % (_METHOD, _PATH, _QUERY))
_ANY_LINE = re.compile(rb"(%b++) ([\x21-\x7e]++) HTTP/([0-9]\.[0-9])\r\n" % _TOKEN)
_ORIGIN_FORM = re.compile(rb"(%b)(?:\?(%b))?" % (_PATH, _QUERY))
_ABSOLUTE_FORM = re.compile(
    rb"([Hh][Tt][Tt][Pp][Ss]?)://([^/?#]++)(%b)?(?:\?(%b))?" % (_PATH, _QUERY)
)
_AUTHORITY = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9A-Za-z._~-]{1,254}))(?::(|[1-9][0-9]{0,4}))?"
)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")  # a CR or LF on its own
_QUOTED = rb"\"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\%b)*+\"" % _VALUE
_EXTENSION = rb";%b++(?:=(?:%b++|%b))?" % (_TOKEN, _TOKEN, _QUOTED)  # RFC 9112, section 7.1.1
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:%b)*+)\r\n" % _EXTENSION)
_CHUNK_LINE_START = re.compile(rb"(?:[0-9A-Fa-f]{1,16}(?:;%b*+)?\r?)?" % _VALUE)
_CHUNK_LINE_MAX = 256
_WEBSOCKET_KEY = re.compile(rb"[0-9A-Za-z+/]{21}[AQgw]==")  # 16 bytes (RFC 6455, section 4.1)
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: (%b*))?\r\n" % _VALUE)

_TOKEN_BYTES = frozenset(b"!#$%&'*+-.^_`|~0123456789") | frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
_METHODS_REFUSED = {b"CONNECT": 405, b"TRACE": 405, b"PRI": 400}

_HOP_BY_HOP = frozenset(  # RFC 9110, section 7.6.1; and RFC 9113, section 3.1 for HTTP2-Settings
    b"keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer"
    b" http2-settings".split()
)
_OURS = frozenset(b"host content-length transfer-encoding connection expect upgrade".split())
_LOOKALIKES = frozenset(b"content_length transfer_encoding".split())  # the same to a CGI
_SPECIAL = _HOP_BY_HOP | _OURS | _LOOKALIKES
_NEVER_NOMINATED = frozenset(  # they say how to read the message, or where it came from
    b"host content-length transfer-encoding forwarded via cdn-loop"
    b" x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-real-ip".split()
)
_USUAL_OPTIONS = {
    value: frozenset({value.lower()})
    for value in (b"close", b"Close", b"keep-alive", b"Keep-Alive", b"upgrade", b"Upgrade")
}

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def frame(data: bytes) -> bytes:
    """`data` as one chunk (RFC 9112, section 7.1); nothing for no data."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


@dataclass(slots=True)
class RequestHead:
    """A request head in canonical form: what the core gets.

    `fields` are those that go on, in order, with the case they came in; not `Host`, framing and
    hop-by-hop fields, which `serialise` writes. `length` is that of Content-Length, None if there
    was none.
    """

    method: bytes
    target: bytes
    authority: bytes
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    length: int | None = None
    chunked: bool = False
    is_websocket: bool = False
    minor: int = 1  # of the version the client speaks
    keep_alive: bool = True
    expects_continue: bool = False

    @property
    def is_plain(self) -> bool:
        """A GET or HEAD for a path, without a body and without anything to settle first."""
        return (
            self.method in (b"GET", b"HEAD")
            and self.length is None
            and not (self.chunked or self.is_websocket or self.expects_continue)
        )

    def serialise(self) -> bytes:
        """The head as it goes to the core."""
        lines = [b"%b %b HTTP/1.1\r\nHost: %b" % (self.method, self.target, self.authority)]
        lines += [b"%b: %b" % pair for pair in self.fields]
        if self.chunked:
            lines.append(b"Transfer-Encoding: chunked")
        elif self.length is not None:
            lines.append(b"Content-Length: %d" % self.length)
        elif self.is_websocket:
            lines.append(b"Connection: Upgrade\r\nUpgrade: websocket")
        lines.append(b"\r\n")
        return b"\r\n".join(lines)


# ------------------------------------------------------------------- requests


class RequestReader:
    """Cuts request heads from a stream: put bytes at the end of `buffer`, ask `next_head`."""

    __slots__ = ("_blank_lines", "_line_is_good", "_seen", "buffer")

    def __init__(self) -> None:
        self.buffer = b""
        self._reset()

    def _reset(self) -> None:
        self._seen = 0  # up to here there is no end of the head
        self._blank_lines = 0
        self._line_is_good = False

    def next_head(self, limits: Limits, *, encoded_slashes: bool = False) -> RequestHead | None:
        """The next head, taken out of the buffer; None if more must come.

        Raises ClientError as soon as nothing that may come could make the head good.
        """
        data = self.buffer
        if data[:1] in b"\r\n":
            data = self._skip_blank_lines()
        if not data:
            return None
        end = data.find(b"\r\n\r\n", self._seen, limits.head_size)
        if end < 0:
            self._check_start(data, limits)
            self._seen = max(0, len(data) - 3)
            return None
        end += 4
        head = parse_head(data[:end], limits, encoded_slashes=encoded_slashes)
        self.buffer = data[end:]
        self._reset()
        return head

    def first(self) -> tuple[bytes, bytes]:
        """Request line and header section at the start of the buffer, both with their line ends.

        Empty if it is not all there, or is no GET or HEAD of HTTP/1.1 that stands at the start.
        Nothing else is checked: what `next_head` has taken once it takes again.
        """
        data = self.buffer
        if not data.startswith((b"GET /", b"HEAD /")):
            return b"", b""
        line_end = data.find(b"\r\n") + 2
        end = data.find(b"\r\n\r\n", line_end - 2) + 4
        if line_end < 2 or end < 4 or not data.startswith(b" HTTP/1.1", line_end - 11):
            return b"", b""
        return data[:line_end], data[line_end:end]

    def skip(self, size: int) -> None:
        """Take a request of `size` bytes from the start of the buffer, unread."""
        self.buffer = self.buffer[size:]
        self._reset()

    def _skip_blank_lines(self) -> bytes:
        """At most two CRLF may stand before a request (RFC 9112, section 2.2)."""
        data = self.buffer
        while data[:2] == b"\r\n" and self._blank_lines < 2:
            data = self.buffer = data[2:]
            self._blank_lines += 1
        if data[:1] in (b"\r", b"\n") and (data != b"\r" or self._blank_lines == 2):
            raise ClientError(400, "line ends before the request line")
        return b"" if data == b"\r" else data

    def _check_start(self, data: bytes, limits: Limits) -> None:
        """Refuse a head of which only the start is there, if that is bad already."""
        line_end = _request_line_end(data, limits)
        if not line_end:
            return
        if not self._line_is_good:
            _parse_request_line(data[:line_end], limits)
            self._line_is_good = True
        if _BARE.search(data, max(line_end, self._seen - 1), limits.head_size):
            raise ClientError(400, "a line ends without CRLF")
        if len(data) >= limits.head_size:
            raise ClientError(431, "the header section is too large")


def parse_head(head: bytes, limits: Limits, *, encoded_slashes: bool = False) -> RequestHead:
    """The request in `head`: request line, fields, empty line. Raises ClientError."""
    line_end, method, scheme, authority, path, query, minor = _parse_request_line(head, limits)
    if not _FIELDS.fullmatch(head, line_end):
        _refuse_fields(head, line_end)
    lines = head[line_end:-4].split(b"\r\n") if len(head) > line_end + 2 else []
    if len(lines) > limits.head_fields:
        raise ClientError(431, "too many fields")
    request = RequestHead(method, b"*", b"", minor=minor)
    special = _sort_fields(lines, request)
    _apply_special(special, request, scheme, authority, limits)
    if path:
        request.target = _canonical_target(path, query, encoded_slashes)
    elif request.length or request.chunked:
        raise ClientError(400, "OPTIONS * has a body")
    return request


def _sort_fields(lines: list[bytes], request: RequestHead) -> list[tuple[bytes, bytes]]:
    """Put ordinary fields into `request`; return the others, with their names in lower case."""
    special: list[tuple[bytes, bytes]] = []
    fields = request.fields
    for line in lines:
        name, _, value = line.partition(b":")
        lower = name.lower()
        if lower in _SPECIAL:
            special.append((lower, value.strip(b" \t")))
        else:
            fields.append((name, value.strip(b" \t")))
    return special


def _apply_special(
    special: list[tuple[bytes, bytes]],
    request: RequestHead,
    scheme: bytes,
    authority: bytes,
    limits: Limits,
) -> None:
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    connections: list[bytes] = []
    upgrades: list[bytes] = []
    for name, value in special:
        if name == b"host":
            hosts.append(value)
        elif name == b"connection":
            connections.append(value)
        elif name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"upgrade":
            upgrades.append(value)
        elif name == b"expect":
            _expect(value, request)
        elif name in _LOOKALIKES:
            raise ClientError(400, "a field name looks like a framing field")
    if len(hosts) != 1:  # RFC 9112, section 3.2
        raise ClientError(400, "there must be exactly one Host")
    _authority(hosts[0], scheme, authority, request)
    if lengths or codings:
        _framing(lengths, codings, request, limits)
    _connection(connections, upgrades, request)


def _authority(host: bytes, scheme: bytes, authority: bytes, request: RequestHead) -> None:
    """Host, which an absolute-form target must agree with (RFC 9112, section 3.2.2)."""
    port = 443 if scheme == b"https" else 80
    request.authority = canonical_authority(host, port)
    if authority and canonical_authority(authority, port) != request.authority:
        raise ClientError(400, "Host and target name different places")


def _framing(
    lengths: list[bytes], codings: list[bytes], request: RequestHead, limits: Limits
) -> None:
    """How long the body is (RFC 9112, section 6.3), if there is only one way to read it."""
    if lengths and codings:
        raise ClientError(400, "both Content-Length and Transfer-Encoding")
    if len(lengths) > 1 or len(codings) > 1:
        raise ClientError(400, "a framing field is repeated")
    if codings:
        if request.minor == 0:  # section 6.1
            raise ClientError(400, "Transfer-Encoding in HTTP/1.0")
        if codings[0].lower() != b"chunked":
            raise ClientError(400, "the only transfer coding served is chunked")
        request.chunked = True
        return
    if not _LENGTH.fullmatch(lengths[0]):  # RFC 9110, section 8.6
        raise ClientError(400, "Content-Length is not a number")
    request.length = int(lengths[0])
    if request.length > limits.body_size:
        raise ClientError(413, "the body is too large")


def _expect(value: bytes, request: RequestHead) -> None:
    """RFC 9110, section 10.1.1: the one expectation there is; HTTP/1.0 cannot have it."""
    if value.lower() != b"100-continue":
        raise ClientError(417, "an expectation that cannot be met")
    request.expects_continue = request.minor == 1


def _connection(values: list[bytes], upgrades: list[bytes], request: RequestHead) -> None:
    """Persistence, upgrade, and fields for this connection only (RFC 9110, section 7.6.1)."""
    if not values:
        request.keep_alive = request.minor == 1
        return
    options = _USUAL_OPTIONS.get(values[0]) if len(values) == 1 else None
    if options is None:
        options = _connection_options(values)
        nominated = options - _SPECIAL
        if nominated:
            request.fields = [pair for pair in request.fields if pair[0].lower() not in nominated]
    request.keep_alive = b"close" not in options and (
        request.minor == 1 or b"keep-alive" in options
    )
    if upgrades and b"upgrade" in options:
        request.is_websocket = _is_websocket(upgrades, request)


def _connection_options(values: list[bytes]) -> frozenset[bytes]:
    options = {option.strip(b" \t").lower() for value in values for option in value.split(b",")}
    options.discard(b"")  # an empty member means nothing (RFC 9110, section 5.6.1)
    if not all(_TOKENS.fullmatch(option) for option in options):
        raise ClientError(400, "Connection is not a list of tokens")
    if options & _NEVER_NOMINATED:
        raise ClientError(400, "Connection names a field that is meant for all")
    return frozenset(options)


def _is_websocket(upgrades: list[bytes], request: RequestHead) -> bool:
    """Whether this is a whole WebSocket handshake (RFC 6455, section 4.1); else no upgrade."""
    if request.method != b"GET" or request.minor == 0 or len(upgrades) != 1:
        return False
    if request.length is not None or request.chunked or upgrades[0].lower() != b"websocket":
        return False
    versions = [value for name, value in request.fields if name.lower() == b"sec-websocket-version"]
    keys = [value for name, value in request.fields if name.lower() == b"sec-websocket-key"]
    return versions == [b"13"] and len(keys) == 1 and bool(_WEBSOCKET_KEY.fullmatch(keys[0]))


# --------------------------------------------------------------- request line

_Line = tuple[int, bytes, bytes, bytes, bytes, bytes | None, int]


def _parse_request_line(data: bytes, limits: Limits) -> _Line:
    """End of the line, method, scheme, authority, path, query, minor version (RFC 9112, section 3).

    Scheme and authority are empty in origin-form, the path in asterisk-form.
    """
    match = _PLAIN_LINE.match(data)
    if match is None:
        return _parse_unusual_line(data[: _request_line_end(data, limits)], limits)
    method, path, query, minor = match.groups()
    if len(path) + (0 if query is None else len(query) + 1) > limits.target_length:
        raise ClientError(414, "the target is too long")
    if method in _METHODS_REFUSED:
        _refuse_method(_METHODS_REFUSED[method])
    return match.end(), method, b"", b"", path, query, 1 if minor == b"1" else 0


def _request_line_end(data: bytes, limits: Limits) -> int:
    """Index past the request line, 0 if more must come."""
    longest = limits.target_length + 44  # with a method of 32, a version and CRLF
    if data[0] not in _TOKEN_BYTES:
        raise ClientError(400, "this is not an HTTP request")
    end = data.find(b"\n", 0, longest)
    stop = end if end >= 0 else min(len(data), longest)
    if 0 <= data.find(b"\r", 0, stop) < stop - 1 or (end >= 0 and data[end - 1] != 0x0D):
        raise ClientError(400, "the request line ends without CRLF")
    if end < 0 and len(data) >= longest:
        raise ClientError(414, "the target is too long")
    return end + 1


def _parse_unusual_line(line: bytes, limits: Limits) -> _Line:
    match = _ANY_LINE.fullmatch(line)
    if match is None:
        raise ClientError(400, "the request line is malformed")
    method, target, version = match.groups()
    if version not in (b"1.1", b"1.0"):
        raise ClientError(505, "the version is not served")
    if method in _METHODS_REFUSED:
        _refuse_method(_METHODS_REFUSED[method])
    if not re.fullmatch(_METHOD, method):  # methods are case-sensitive (RFC 9110, section 9.1)
        raise ClientError(501, "the method is unknown")
    if len(target) > limits.target_length:
        raise ClientError(414, "the target is too long")
    minor = 1 if version == b"1.1" else 0
    if target == b"*" and method == b"OPTIONS":
        return len(line), method, b"", b"", b"", None, minor
    if origin := _ORIGIN_FORM.fullmatch(target):
        return len(line), method, b"", b"", origin[1], origin[2], minor
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        raise ClientError(400, "the target is malformed")
    scheme, authority, path, query = absolute.groups()
    if not path and (method != b"OPTIONS" or query is not None):  # RFC 9112, section 3.2.4
        path = b"/"
    return len(line), method, scheme.lower(), authority, path or b"", query, minor


def _refuse_method(status: int) -> NoReturn:
    allow = (("Allow", "GET, HEAD, OPTIONS"),) if status == 405 else ()
    raise ClientError(status, "the method is not served", allow)


def _refuse_fields(head: bytes, line_end: int) -> NoReturn:
    """Say what is wrong with a header section (RFC 9112, section 5)."""
    if _BARE.search(head, line_end):
        raise ClientError(400, "a line ends without CRLF")
    for line in head[line_end:-4].split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):  # section 5.2
            raise ClientError(400, "a field line is folded")
        name, colon, _ = line.partition(b":")
        if not colon or not _TOKENS.fullmatch(name):  # section 5.1
            raise ClientError(400, "a field name is malformed")
    raise ClientError(400, "a field value holds a control character")


def _canonical_target(path: bytes, query: bytes | None, encoded_slashes: bool) -> bytes:
    try:
        normal = normalise_path(path.decode("ascii"), encoded_slashes=encoded_slashes)
    except ClientError as error:
        raise ClientError(400, "the path can be read in two ways") from error
    target = normal.encode("ascii")
    return target if query is None else b"%b?%b" % (target, query)


@lru_cache(maxsize=1024)
def canonical_authority(value: bytes, default_port: int = 80) -> bytes:
    """The one spelling of an authority: lower case, no default port, no trailing dot.

    Narrower than RFC 3986, section 3.2.2: what no name in the DNS can hold is refused, as are
    user names and IPv6 zones. Raises ClientError (400).
    """
    match = _AUTHORITY.fullmatch(value)
    if match is None:
        raise ClientError(400, "Host is malformed")
    literal, name, port = match.groups()
    host = _canonical_name(name) if name else _canonical_literal(literal)
    if not port or int(port) == default_port:
        return host
    if int(port) > 65535:
        raise ClientError(400, "Host is malformed")
    return b"%b:%b" % (host, port)


def _canonical_name(name: bytes) -> bytes:
    labels = name.lower().removesuffix(b".").split(b".")
    if not all(0 < len(label) <= 63 for label in labels):  # RFC 1035, section 2.3.4
        raise ClientError(400, "Host is malformed")
    return b".".join(labels)


def _canonical_literal(literal: bytes) -> bytes:
    try:
        return b"[%b]" % str(ipaddress.IPv6Address(literal.decode("ascii"))).encode("ascii")
    except ValueError as error:
        raise ClientError(400, "Host is malformed") from error


# --------------------------------------------------------------------- bodies


class FixedBody:
    """A body framed by its length. `rest` is what follows it, once it is `done`."""

    __slots__ = ("_left", "done", "rest")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = not length
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The part of `data` that is body."""
        size = len(data)
        if size < self._left:
            self._left -= size
            return data
        left, self._left = self._left, 0
        self.done = True
        if size == left:
            return data
        self.rest = data[left:]
        return data[:left]


class ChunkedBody:
    """Decodes chunked framing (RFC 9112, section 7.1). `rest` is what follows, once it is `done`.

    Extensions and trailers are checked and dropped; `head_size` and `head_fields` bound them.
    `feed` raises ClientError: 413 for more than `body_size`, 431 for large trailers, else 400.
    """

    __slots__ = (
        "_buffer",
        "_dropped",
        "_left",
        "_limits",
        "_seen",
        "_size",
        "_step",
        "done",
        "rest",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = b""
        self._step = self._read_size
        self._left = 0  # of the chunk under way
        self._size = 0  # of all chunks
        self._dropped = 0  # bytes of extensions
        self._seen = 0
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The content in `data`, without its framing."""
        self._buffer = self._buffer + data if self._buffer else data
        parts: list[bytes] = []
        position = 0
        while not self.done:
            end = self._step(position, parts)
            if end < 0:
                break
            position = end
        rest = self._buffer[position:]
        self._buffer = b"" if self.done else rest
        self.rest = rest if self.done else b""
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # Each step reads one element from `position`: returns where it ends, or -1 if more must come.

    def _read_size(self, position: int, parts: list[bytes]) -> int:
        match = _CHUNK_LINE.match(self._buffer, position, position + _CHUNK_LINE_MAX)
        if match is None:
            self._check_size_start(position)
            return -1
        self._left = int(match[1], 16)
        self._size += self._left
        self._dropped += len(match[2])
        if self._size > self._limits.body_size:
            raise ClientError(413, "the body is too large")
        if self._dropped > self._limits.head_size:
            raise ClientError(400, "too many chunk extensions")
        self._step = self._read_data if self._left else self._read_trailers
        return match.end()

    def _check_size_start(self, position: int) -> None:
        line = self._buffer[position : position + _CHUNK_LINE_MAX]
        if len(line) == _CHUNK_LINE_MAX or not _CHUNK_LINE_START.fullmatch(line):
            raise ClientError(400, "a chunk size is malformed")

    def _read_data(self, position: int, parts: list[bytes]) -> int:
        part = self._buffer[position : position + self._left]
        if not part:
            return -1
        parts.append(part)
        self._left -= len(part)
        if not self._left:
            self._step = self._read_data_end
        return position + len(part)

    def _read_data_end(self, position: int, parts: list[bytes]) -> int:
        ending = self._buffer[position : position + 2]
        if ending == b"\r\n":
            self._step = self._read_size
            return position + 2
        if ending not in (b"", b"\r"):
            raise ClientError(400, "a chunk is longer than its size")
        return -1

    def _read_trailers(self, position: int, parts: list[bytes]) -> int:
        """Section 7.1.2. Dropped, since they may not be merged with the fields."""
        size = self._limits.head_size
        data = self._buffer[position : position + size]
        end = data.find(b"\r\n\r\n", self._seen) + 4 if data[:2] != b"\r\n" else 2
        if end != 3:  # found
            return position + self._end_trailers(data[:end])
        if _BARE.search(data, max(0, self._seen - 1)):
            raise ClientError(400, "the trailers are malformed")
        if len(data) == size:
            raise ClientError(431, "the trailers are too large")
        self._seen = max(0, len(data) - 3)
        return -1

    def _end_trailers(self, section: bytes) -> int:
        if not _FIELDS.fullmatch(section):
            raise ClientError(400, "the trailers are malformed")
        if section.count(b"\r\n") - 1 > self._limits.head_fields:
            raise ClientError(431, "too many trailers")
        self.done = True
        return len(section)


Body = FixedBody | ChunkedBody


def body_of(head: RequestHead, limits: Limits) -> Body | None:
    """What reads the body that follows `head`; None if there is none."""
    if head.chunked:
        return ChunkedBody(limits)
    return FixedBody(head.length) if head.length else None


# ------------------------------------------------------------------ responses


@dataclass(slots=True)
class ResponseHead:
    """A response head from the core. `lines` are its field lines without framing and hop-by-hop.

    `length` and `chunked` are as written; `body` tells what really follows.
    """

    status: int
    reason: bytes
    lines: list[bytes]
    length: int | None = None
    chunked: bool = False

    def has_body(self, method: bytes) -> bool:
        """Whether a body follows in answer to `method` (RFC 9112, section 6.3)."""
        return method != b"HEAD" and self.status >= 200 and self.status not in (204, 304)

    def has(self, name: bytes) -> bool:
        """Whether there is a field of this name, which is in lower case."""
        return any(line.partition(b":")[0].lower() == name for line in self.lines)

    def serialise(self, *own: bytes) -> bytes:
        """The head, with `own` as last field lines."""
        line = b"HTTP/1.1 %d %b" % (self.status, self.reason)
        return b"\r\n".join((line, *self.lines, *own, b"\r\n"))


def head_bytes(status: int, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A response head, as it is written."""
    lines = [b"HTTP/1.1 %d %b" % (status, reason_phrase(status))]
    lines += [b"%b: %b" % field for field in fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


@lru_cache(maxsize=600)
def reason_phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


_DROPPED_FROM_RESPONSES = _HOP_BY_HOP | {b"connection", b"upgrade"}
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_WATCHED = _DROPPED_FROM_RESPONSES | _FRAMING


def parse_response_head(head: bytes) -> ResponseHead:
    """The response in `head`: status line, fields, empty line. ValueError if it is malformed."""
    match = _STATUS_LINE.match(head)
    if match is None or not _FIELDS.fullmatch(head, match.end()):
        raise ValueError("the response head is malformed")
    response = ResponseHead(int(match[1]), match[2] or b"", [])
    keep = response.lines.append
    for line in head[match.end() : -4].split(b"\r\n") if len(head) > match.end() + 2 else ():
        name = line.partition(b":")[0].lower()
        if name not in _WATCHED:
            keep(line)
        elif name in _FRAMING:
            _response_framing(name, line, response)
    return response


def _response_framing(name: bytes, line: bytes, response: ResponseHead) -> None:
    value = line.partition(b":")[2].strip(b" \t")
    if response.length is not None or response.chunked:
        raise ValueError("the response is framed twice")
    if name == b"transfer-encoding":
        if value.lower() != b"chunked":
            raise ValueError("the response has another transfer coding than chunked")
        response.chunked = True
    elif _LENGTH.fullmatch(value):
        response.length = int(value)
    else:
        raise ValueError("Content-Length of the response is not a number")
