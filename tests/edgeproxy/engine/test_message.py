"""Strict reading and canonical writing of HTTP/1 messages, without any I/O."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeproxy.engine.message import (
    LAST_CHUNK,
    ChunkedBody,
    FixedBody,
    RequestHead,
    RequestReader,
    body_of,
    canonical_authority,
    frame,
    parse_head,
    parse_response_head,
)
from edgeproxy.errors import ClientError
from edgeproxy.policy.model import Limits
from tests.hostile import Case, load_corpus

LIMITS = Limits.model_validate({"body_size": "1MiB"})
SMALL = Limits.model_validate(
    {"head_size": "120B", "head_fields": 3, "target_length": 64, "body_size": "64B"}
)
CORPUS = load_corpus()

Outcome = tuple[str, bytes | int]


def outcomes(pieces: list[bytes], limits: Limits) -> list[Outcome]:
    """What comes of a stream that arrives in `pieces` and then ends."""
    return list(Stream(limits).take(pieces))


class Stream:
    """Reads requests one after the other, as a server does."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.reader = RequestReader()
        self.head: RequestHead | None = None
        self.body: FixedBody | ChunkedBody | None = None
        self.content = b""
        self.found: list[Outcome] = []

    def take(self, pieces: list[bytes]) -> list[Outcome]:
        try:
            for piece in pieces:
                if not self.feed(piece):
                    return self.found
        except ClientError as error:
            return [*self.found, ("refused", error.status)]
        if self.body is not None or self.reader.buffer:
            self.found.append(("refused", 400))
        return self.found

    def feed(self, data: bytes) -> bool:
        """False if the connection ends after the requests so far."""
        if self.body is None:
            self.reader.buffer += data
        while self.body is not None or self.reader.buffer:
            if self.body is None:
                self.head = self.reader.next_head(self.limits)
                if self.head is None:
                    return True
                self.body = body_of(self.head, self.limits)
                data, self.content = self.reader.buffer, b""
                if self.body is not None:
                    self.reader.buffer = b""
            if self.body is not None:
                self.content += self.body.feed(data)
                if not self.body.done:
                    return True
                self.reader.buffer, self.body = self.body.rest, None
            if not self.complete():
                return False
        return True

    def complete(self) -> bool:
        assert self.head is not None
        if self.head.target == b"*":
            self.found.append(("answered", 204))
        else:
            content = self.content
            if self.head.chunked:
                content = frame(content) + LAST_CHUNK
            self.found.append(("passed", self.head.serialise() + content))
        return self.head.keep_alive


def expected(case: Case) -> list[Outcome]:
    return [
        (each.kind, each.canonical if each.kind == "passed" else each.status)
        for each in case.expect
    ]


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_corpus_in_one_piece(case: Case) -> None:
    assert outcomes([case.raw], Limits()) == expected(case)


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_corpus_byte_by_byte(case: Case) -> None:
    pieces = [case.raw[at : at + 1] for at in range(len(case.raw))]
    assert outcomes(pieces, Limits()) == expected(case)


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_what_passed_passes_again_unchanged(case: Case) -> None:
    for canonical in case.passed:
        assert outcomes([canonical], Limits()) == [("passed", canonical)]


FRAGMENTS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a?b HTTP/1.0\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PUT http://a/ HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"Connection: close\r\n",
        b"A: b\r\n",
        b"5;x=y\r\nhello\r\n",
        b"0\r\n\r\n",
        b"40\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b"\0",
        b" ",
        b":",
        b"a" * 70,
        b"GET",
        b"HTTP/1.1",
    ]
)
STREAMS = st.lists(st.one_of(FRAGMENTS, FRAGMENTS, st.binary(max_size=8)), max_size=12).map(
    b"".join
)


@given(STREAMS, st.lists(st.integers(0, 400), max_size=6))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\n\r\n" + b"a" * 200, [30])
@example(b"G" * 107 + b"\r" + b"\n", [107])
@example(b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 90 + b"\r\n\r\n", [119])
def test_where_a_stream_is_cut_changes_nothing(data: bytes, cuts: list[int]) -> None:
    whole = outcomes([data], SMALL)
    marks = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(marks)]
    assert outcomes(pieces, SMALL) == whole
    assert outcomes([data[at : at + 1] for at in range(len(data))], SMALL) == whole


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    outcomes([data], SMALL)
    outcomes([b"GET / HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n"], LIMITS)
    outcomes([b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data], LIMITS)


TOKENS = st.text("ABCxyz019!#$%&'*+-.^_`|~", min_size=1, max_size=12).map(str.encode)
VALUES = st.binary(max_size=20).map(
    lambda raw: bytes(b for b in raw if b == 9 or 32 <= b != 127).strip(b" \t")
)


@given(
    method=st.sampled_from([b"GET", b"POST", b"X-1"]),
    target=st.sampled_from([b"/", b"/a/b.html", b"/a%20b?c=%zz"]),
    authority=st.sampled_from([b"a.example", b"a:8080", b"[::1]:81"]),
    fields=st.lists(st.tuples(TOKENS.map(lambda name: b"X-" + name), VALUES), max_size=5),
    framing=st.one_of(st.none(), st.integers(0, 2**20), st.just(True)),
)
def test_a_canonical_head_reads_as_itself(
    method: bytes,
    target: bytes,
    authority: bytes,
    fields: list[tuple[bytes, bytes]],
    framing: int | None,
) -> None:
    head = RequestHead(method, target, authority, fields)
    if framing is True:
        head.chunked = True
    else:
        head.length = framing
    assert parse_head(head.serialise(), LIMITS) == head


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.data())
def test_a_chunked_body_decodes_to_what_was_framed(parts: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(frame(part) for part in parts) + LAST_CHUNK + b"rest"
    cut = data.draw(st.integers(0, len(raw)))
    body = ChunkedBody(LIMITS)
    content = body.feed(raw[:cut])
    rest = body.rest if body.done else b""
    if not body.done:
        content += body.feed(raw[cut:])
        rest = body.rest
    else:
        rest += raw[cut:]
    assert content == b"".join(parts)
    assert body.done
    assert rest == b"rest"


def test_encoded_slash_passes_if_the_policy_says_so() -> None:
    raw = b"GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n"
    assert parse_head(raw, LIMITS, encoded_slashes=True).target == b"/a%2Fb"
    with pytest.raises(ClientError):
        parse_head(raw, LIMITS)


def test_default_port_is_that_of_the_scheme() -> None:
    assert canonical_authority(b"a:443", 443) == b"a"
    assert canonical_authority(b"a:443", 80) == b"a:443"


def refusal(raw: bytes) -> ClientError | None:
    """Why the first request in `raw` is refused; None if it is not."""
    reader = RequestReader()
    reader.buffer = raw
    try:
        reader.next_head(Limits())
    except ClientError as error:
        return error
    return None


def test_refusals_echo_nothing() -> None:
    errors = [refusal(case.raw.replace(b"a.example", b"secret.example")) for case in CORPUS]
    reasons = {error.reason for error in errors if error}
    assert len(reasons) > 20
    for reason in reasons:
        assert "secret" not in reason
        assert reason.isascii()
        assert reason.isprintable()


def test_response_head_loses_framing_and_hop_by_hop_fields() -> None:
    head = parse_response_head(
        b"HTTP/1.1 200 Very  OK\r\nA: b\r\nConnection: x\r\nKeep-Alive: 5\r\n"
        b"content-length: 3\r\nTrailer: c\r\nD:e \r\n\r\n"
    )
    assert (head.status, head.length, head.chunked) == (200, 3, False)
    assert head.serialise(b"X: y") == b"HTTP/1.1 200 Very  OK\r\nA: b\r\nD:e \r\nX: y\r\n\r\n"


def test_response_without_fields_or_reason() -> None:
    assert parse_response_head(b"HTTP/1.1 204\r\n\r\n").serialise() == b"HTTP/1.1 204 \r\n\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\nc: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ],
)
def test_malformed_response_head_is_an_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match="response"):
        parse_response_head(raw)


def test_whether_a_response_has_a_body() -> None:
    ok = parse_response_head(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
    assert ok.has_body(b"GET")
    assert not ok.has_body(b"HEAD")
    for status in (100, 101, 204, 304):
        assert not parse_response_head(b"HTTP/1.1 %d X\r\n\r\n" % status).has_body(b"GET")
