"""Requests of HTTP/2 and HTTP/3 as text of HTTP/1.1: what is malformed; that nothing slips by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.engine.fields import (
    Malformed,
    check_trailers,
    request_text,
    response_fields,
)
from edgeproxy.engine.message import parse_head, parse_response_head
from edgeproxy.errors import ClientError
from edgeproxy.policy.model import Limits

Fields = list[tuple[bytes, bytes]]
PSEUDO: Fields = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"a.example"),
    (b":path", b"/x?y"),
]


def text(fields: Fields, *, ended: bool = True) -> bytes:
    return request_text(fields, b"https", ended).text


def without(name: bytes) -> Fields:
    return [pair for pair in PSEUDO if pair[0] != name]


def test_a_request_becomes_one_of_http_1_1() -> None:
    assert text([*PSEUDO, (b"accept", b"*/*"), (b"te", b"trailers")]) == (
        b"GET /x?y HTTP/1.1\r\nhost: a.example\r\naccept: */*\r\nte: trailers\r\n\r\n"
    )


def test_a_body_is_framed_by_us() -> None:
    asked = request_text(PSEUDO, b"https", False)
    assert (asked.length, asked.is_chunked) == (None, True)
    assert asked.text.endswith(b"\r\ntransfer-encoding: chunked\r\n\r\n")
    asked = request_text([*PSEUDO, (b"content-length", b"05")], b"https", False)
    assert (asked.length, asked.is_chunked) == (5, False)
    assert asked.text.endswith(b"\r\ncontent-length: 5\r\n\r\n")


def test_crumbs_of_cookies_are_joined() -> None:
    crumbs = [(b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2")]
    assert b"\r\ncookie: a=1; b=2\r\n" in text([*PSEUDO, *crumbs])


def test_host_may_stand_in_for_the_authority_and_agree_with_it() -> None:
    assert b"\r\nhost: a.example\r\n" in text([*without(b":authority"), (b"host", b"a.example")])
    assert text([*PSEUDO, (b"host", b"A.example")]).count(b"host") == 1


MALFORMED: dict[str, Fields] = {
    "nothing": [],
    "no method": without(b":method"),
    "no scheme": without(b":scheme"),
    "no path": without(b":path"),
    "no authority": without(b":authority"),
    "two methods": [(b":method", b"GET"), *PSEUDO],
    "two authorities": [*PSEUDO, (b":authority", b"b.example")],
    "two hosts": [*PSEUDO, (b"host", b"a.example"), (b"host", b"a.example")],
    "another host": [*PSEUDO, (b"host", b"b.example")],
    "an authority with a space": [*without(b":authority"), (b":authority", b"a b")],
    "an authority with a line": [*without(b":authority"), (b":authority", b"a\r\nx: y")],
    "an empty authority": [*without(b":authority"), (b":authority", b"")],
    "a pseudo-field after a field": [*PSEUDO[:3], (b"accept", b"*/*"), PSEUDO[3]],
    "an unknown pseudo-field": [*PSEUDO, (b":protocol", b"websocket")],
    "a pseudo-field of answers": [*PSEUDO, (b":status", b"200")],
    "a method with a space": [*without(b":method"), (b":method", b"GET /other")],
    "a method with a line": [*without(b":method"), (b":method", b"GET / HTTP/1.1\r\nx: y\r\n\r\n")],
    "an empty method": [*without(b":method"), (b":method", b"")],
    "another scheme": [*without(b":scheme"), (b":scheme", b"http")],
    "an empty path": [*without(b":path"), (b":path", b"")],
    "an absolute path": [*without(b":path"), (b":path", b"https://b.example/")],
    "a path without a slash": [*without(b":path"), (b":path", b"x")],
    "a path with a space": [*without(b":path"), (b":path", b"/x HTTP/1.1")],
    "a path with a line": [*without(b":path"), (b":path", b"/\r\nx: y")],
    "CONNECT with a path": [*without(b":method"), (b":method", b"CONNECT")],
    "upper case": [*PSEUDO, (b"Accept", b"*/*")],
    "no name": [*PSEUDO, (b"", b"x")],
    "a name with a space": [*PSEUDO, (b"a b", b"x")],
    "a name with a colon": [*PSEUDO, (b"a:b", b"x")],
    "a name with a line": [*PSEUDO, (b"a\r\nb", b"x")],
    "a value with CR": [*PSEUDO, (b"a", b"x\ry")],
    "a value with LF": [*PSEUDO, (b"a", b"x\ny")],
    "a value with NUL": [*PSEUDO, (b"a", b"x\0y")],
    "a value with DEL": [*PSEUDO, (b"a", b"x\x7fy")],
    "a value that begins with a space": [*PSEUDO, (b"a", b" x")],
    "a value that ends with a tab": [*PSEUDO, (b"a", b"x\t")],
    "a cookie with a line": [*PSEUDO, (b"cookie", b"x\r\ny: z")],
    "connection": [*PSEUDO, (b"connection", b"close")],
    "keep-alive": [*PSEUDO, (b"keep-alive", b"1")],
    "proxy-connection": [*PSEUDO, (b"proxy-connection", b"close")],
    "transfer-encoding": [*PSEUDO, (b"transfer-encoding", b"chunked")],
    "upgrade": [*PSEUDO, (b"upgrade", b"h2c")],
    "te of more": [*PSEUDO, (b"te", b"gzip")],
    "a length of a body that is not there": [*PSEUDO, (b"content-length", b"5")],
    "a length that is none": [*PSEUDO, (b"content-length", b"+0")],
    "two lengths": [*PSEUDO, (b"content-length", b"0"), (b"content-length", b"0")],
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_forbidden_is_malformed(what: str) -> None:
    with pytest.raises(Malformed):
        text(MALFORMED[what])


def test_connect_and_an_asterisk_are_left_to_the_front() -> None:
    assert text([(b":method", b"CONNECT"), (b":authority", b"a.example:443")]).startswith(
        b"CONNECT a.example:443 HTTP/1.1\r\nhost: a.example:443\r\n"
    )
    options = [(b":method", b"OPTIONS"), *PSEUDO[1:3], (b":path", b"*")]
    assert text(options).startswith(b"OPTIONS * HTTP/1.1\r\n")


SHORT = st.binary(max_size=6)
ODD = st.sampled_from(
    [b"\r\n", b"\n", b"\0", b" ", b":", b"/", b"x", b"\r\n\r\nGET / HTTP/1.1\r\n"]
)
BYTES = st.one_of(SHORT, st.lists(st.one_of(SHORT, ODD), max_size=4).map(b"".join))
NAMES = st.one_of(
    st.sampled_from(
        b"host content-length transfer-encoding connection cookie te x :path :method".split()
    ),
    BYTES,
)


@given(
    st.one_of(st.just(b"GET"), BYTES),
    st.one_of(st.just(b"/"), BYTES.map(lambda one: b"/" + one)),
    st.one_of(st.just(b"a.example"), BYTES),
    st.lists(st.tuples(NAMES, BYTES), max_size=4),
    st.booleans(),
)
def test_whatever_is_sent_is_refused_or_is_exactly_one_request(
    method: bytes, path: bytes, authority: bytes, more: Fields, ended: bool
) -> None:
    pseudo = [(b":method", method), (b":scheme", b"https"), (b":authority", authority)]
    try:
        asked = request_text([*pseudo, (b":path", path), *more], b"https", ended)
        assert asked.text.index(b"\r\n\r\n") == len(asked.text) - 4
        head = parse_head(asked.text, Limits())
    except (Malformed, ClientError):
        return
    assert (head.chunked, head.length) == (asked.is_chunked, asked.length)
    names = [name for name, _ in more if name not in (b"host", b"content-length", b"te", b"cookie")]
    assert [name for name, _ in head.fields if name != b"cookie"] == names


@pytest.mark.parametrize(
    "field", [(b":path", b"/"), (b"X", b"y"), (b"x", b"y\r\n"), (b"transfer-encoding", b"chunked")]
)
def test_trailers_are_fields_too(field: tuple[bytes, bytes]) -> None:
    check_trailers([(b"x-checksum", b"1")])
    with pytest.raises(Malformed):
        check_trailers([field])


def test_an_answer_has_its_names_in_lower_case_and_no_connection() -> None:
    head = parse_response_head(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
        b"Content-Length: 5\r\nX-Empty:\r\n\r\n"
    )
    assert response_fields(head) == [
        (b":status", b"200"),
        (b"content-type", b"text/plain"),
        (b"x-empty", b""),
        (b"content-length", b"5"),
    ]
