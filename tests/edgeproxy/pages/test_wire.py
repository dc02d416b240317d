"""Request heads read strictly, answers written to the byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.pages import Answer
from edgeproxy.pages.wire import head_of, read_head


def test_head_becomes_a_request() -> None:
    incoming = read_head("GET /a?b=c HTTP/1.1\r\nHost: x.example\r\nX-A: 1 \r\nx-a:2")
    assert incoming is not None
    request = incoming.request
    assert (request.method, request.target, request.path, request.query) == (
        "GET", "/a?b=c", "/a", "?b=c",
    )  # fmt: skip
    assert request.headers.pairs == (("Host", "x.example"), ("X-A", "1"), ("x-a", "2"))
    assert request.headers["x-A"] == "1, 2"
    assert (incoming.body_bytes, incoming.keep_alive) == (0, True)


def test_absolute_target_names_the_host() -> None:
    incoming = read_head("GET HTTP://User.github.io?x=1#top HTTP/1.1\r\nHost: other")
    assert incoming is not None
    assert incoming.request.target == "/?x=1"
    assert incoming.request.headers["host"] == "User.github.io"


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        ("GET / HTTP/1.1\r\nHost: x", True),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: TE, Close", False),
        ("GET / HTTP/1.0", False),
        ("GET / HTTP/1.0\r\nConnection: keep-alive", True),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked", False),
    ],
)
def test_keep_alive(head: str, keep_alive: bool) -> None:
    incoming = read_head(head)
    assert incoming is not None
    assert incoming.keep_alive is keep_alive


@pytest.mark.parametrize(
    "head",
    [
        "",
        "GET",
        "GET /",
        "GET  / HTTP/1.1\r\nHost: x",
        "GET /a b HTTP/1.1\r\nHost: x",
        "GET / HTTP/2.0\r\nHost: x",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: y",
        "GET / HTTP/1.1\r\nHost : x",
        "GET / HTTP/1.1\r\nHost: x\r\n folded",
        "GET / HTTP/1.1\r\nHost: x\r\nA: \0",
        "GET / HTTP/1.1\r\nHost: x\nA: b",
        "GET /\x1b[2J HTTP/1.1\r\nHost: x",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    ],
)
def test_malformed_head_is_no_request(head: str) -> None:
    assert read_head(head) is None


@given(st.text(st.characters(max_codepoint=255), max_size=80))
def test_any_bytes_are_read_or_refused(text: str) -> None:
    read_head(text)
    read_head(f"GET /{text} HTTP/1.1\r\nHost: {text}")


def test_answer_is_written_with_nginx_phrases() -> None:
    answer = Answer(405, (("Content-Length", "0"),))
    assert head_of(answer, keep_alive=True) == (
        b"HTTP/1.1 405 Not Allowed\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
    )
    assert head_of(Answer(599, ()), keep_alive=False) == (
        b"HTTP/1.1 599 Unknown\r\nConnection: close\r\n\r\n"
    )
