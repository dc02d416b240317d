"""Messages: fields, bodies that are peeked at, and the one spelling of a path."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeproxy.errors import ClientError
from edgeproxy.http import (
    Body,
    BodyTooLarge,
    Exchange,
    Fact,
    Facts,
    Headers,
    Origin,
    Request,
    decoded_path,
    fill,
    normalise_path,
)

# ---------------------------------------------------------------- fields


def test_names_compare_without_case_and_keep_their_spelling() -> None:
    headers = Headers.of(("Content-Type", "text/html"), ("X-A", "1"), ("x-a", "2"))
    assert headers.get("content-type") == "text/html"
    assert headers.get_all("X-a") == ["1", "2"]
    assert headers.joined("x-A") == "1, 2"
    assert "CONTENT-TYPE" in headers
    assert [name for name, _ in headers.items()] == ["Content-Type", "X-A", "x-a"]


def test_set_takes_the_place_of_the_first_and_drops_the_others() -> None:
    headers = Headers.of(("a", "1"), ("b", "2"), ("A", "3"))
    headers.set("A", "4")
    assert list(headers.items()) == [("A", "4"), ("b", "2")]


def test_append_adds_a_member_to_the_list() -> None:
    headers = Headers.of(("vary", "accept"), ("Vary", "cookie"))
    headers.append("vary", "origin")
    headers.append("via", "1.1 edgeproxy")
    assert list(headers.items()) == [("vary", "accept, cookie, origin"), ("via", "1.1 edgeproxy")]


def test_a_copy_is_edited_alone() -> None:
    headers = Headers.of(("a", "1"))
    copy = headers.copy()
    copy.remove("A")
    assert "a" in headers
    assert len(copy) == 0
    assert headers != copy


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0b", "a\x7fb", "\x0b", "a\rb"])
def test_no_value_ends_a_line(value: str) -> None:
    headers = Headers()
    for change in (headers.add, headers.set, headers.append):
        with pytest.raises(ValueError, match="control character"):
            change("x", value)
    assert len(headers) == 0


@pytest.mark.parametrize("name", ["", "a b", "a:", "ä", "a\r\n", "a\0"])
def test_no_name_is_anything_but_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="not a field name"):
        Headers().add(name, "x")


@given(st.text())
def test_what_may_be_added_comes_back_as_one_line(value: str) -> None:
    headers = Headers()
    try:
        headers.add("x", value)
    except ValueError:
        assert any(ord(char) < 32 or ord(char) == 127 for char in value)
        return
    ((_, raw),) = headers.fields
    assert not set(raw) & {0, 10, 13}


# ---------------------------------------------------------------- bodies


class Stream:
    """Chunks, and what became of them."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks, self.taken, self.closed = chunks, 0, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.taken += 1
            yield chunk

    async def close(self) -> None:
        self.closed += 1

    def body(self, length: int | None = None) -> Body:
        return Body(stream=aiter(self), length=length, close=self.close)


async def whole(body: Body) -> bytes:
    return b"".join([chunk async for chunk in body])


async def test_peek_gives_a_short_body_and_leaves_it_whole() -> None:
    stream = Stream(b"ab", b"cd")
    body = stream.body()
    assert await body.peek(4) == b"abcd"
    assert (body.data, body.length) == (b"abcd", 4)
    assert stream.closed == 1
    assert await whole(body) == b"abcd"
    assert await whole(body) == b"abcd"
    assert await body.peek(3) is None


async def test_peek_at_a_long_body_uses_nothing_up() -> None:
    stream = Stream(b"ab", b"cd", b"ef")
    body = stream.body()
    assert await body.peek(3) is None
    assert stream.taken == 2
    assert await body.peek(2) is None
    assert stream.taken == 2
    assert await whole(body) == b"abcdef"


async def test_peek_does_not_read_what_says_that_it_is_too_long() -> None:
    stream = Stream(b"ab")
    assert await stream.body(length=1000).peek(999) is None
    assert stream.taken == 0


async def test_read_raises_and_leaves_the_body_readable() -> None:
    body = Stream(b"abc", b"def").body()
    with pytest.raises(BodyTooLarge, match="5 bytes"):
        await body.read(5)
    assert await body.read(6) == b"abcdef"


async def test_close_gives_back_once() -> None:
    stream = Stream()
    body = stream.body()
    await body.close()
    await body.close()
    assert stream.closed == 1


@given(st.lists(st.binary(max_size=5), max_size=6), st.lists(st.integers(0, 20), max_size=4))
async def test_peeks_never_change_what_is_read(chunks: list[bytes], sizes: list[int]) -> None:
    body = Stream(*chunks).body()
    data = b"".join(chunks)
    for size in sizes:
        assert await body.peek(size) == (data if len(data) <= size else None)
    assert await whole(body) == data


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/a//b", "/a/b"),
        ("//evil.example/a", "/evil.example/a"),
        ("/a/./b/../c", "/a/c"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/%7Eme", "/~me"),
        ("/%c3%bc", "/%C3%BC"),
        ("/ü", "/%C3%BC"),
        ("/a%2eb", "/a.b"),
        ("/a/%2e%2E/b", "/b"),
        ("/a%20b", "/a%20b"),
        ("/a b", "/a%20b"),
        ("/%25zz", "/%25zz"),
        ("/a;b=c,d", "/a;b=c,d"),
        ("/.well-known/x", "/.well-known/x"),
        ("/...", "/..."),
        ("/a?", "/a%3F"),
    ],
)
def test_a_path_has_one_spelling(path: str, expected: str) -> None:
    assert normalise_path(path) == expected


@pytest.mark.parametrize(
    "path",
    ["", "a", "/..", "/a/../..", "/%2e%2e", "/%", "/%2", "/%zz", "/%00", "/%0d%0a", "/%7f",
     "/a\\b", "/%5c", "/a%2fb", "/a%2Fb", "/%1f"],
)  # fmt: skip
def test_a_path_that_can_be_read_in_two_ways_is_refused(path: str) -> None:
    with pytest.raises(ClientError) as refusal:
        normalise_path(path)
    assert refusal.value.status == 400


def test_escaped_slashes_pass_where_the_policy_lets_them() -> None:
    assert normalise_path("/a%2fb", encoded_slashes=True) == "/a%2Fb"


PATHS = st.one_of(
    st.text(),
    st.text(alphabet="/.%2eEfF5cüa ~\\?#*", max_size=20),
    st.lists(
        st.sampled_from(["", ".", "..", "a", "%2e", "%2E%2e", "%2f", "%41", "a.b", "%25", "*", "."])
    ).map("/".join),
).map(lambda text: "/" + text)


@given(PATHS, st.booleans())
@example("//", False)
@example("/a/%2e%2e/b", False)
@example("/.%2e", True)
def test_a_spelled_path_stays_as_it_is_and_climbs_nowhere(path: str, slashes: bool) -> None:
    try:
        spelled = normalise_path(path, encoded_slashes=slashes)
    except ClientError:
        return
    except UnicodeEncodeError:  # half of a surrogate pair, which no connection can bring
        return
    assert normalise_path(spelled, encoded_slashes=slashes) == spelled
    assert spelled.startswith("/")
    assert "//" not in spelled
    assert not {".", ".."} & set(spelled.split("/"))
    assert not {".", ".."} & set(decoded_path(spelled.replace("%2F", "")).split("/"))
    assert spelled.isascii()
    assert all(" " < char <= "~" and char not in '\\?#"<>' for char in spelled)


def test_fill_puts_captures_in_the_place_of_wildcards() -> None:
    assert fill("/v2/**", ("guide/start",)) == "/v2/guide/start"
    assert fill("/*/x/*", ("a", "b")) == "/a/x/b"
    assert fill("/*/x/**", ("a",)) == "/a/x/"
    assert fill("/fixed", ("a",)) == "/fixed"
    assert fill("", ()) == ""
    # A capture is text: a star in it stands for nothing.
    assert fill("/*/*", ("*", "b")) == "/*/b"


# ---------------------------------------------------------------- requests, facts, origins


def test_a_request_knows_its_host_target_and_cookies() -> None:
    request = Request("GET", "www.example.org:8080", "/a", "b=c")
    request.headers.add("cookie", "a=1; b=2;c=3; a=4; broken")
    request.headers.add("cookie", "d=x=y")
    assert (request.host, request.target) == ("www.example.org", "/a?b=c")
    assert request.cookies() == {"a": "1", "b": "2", "c": "3", "d": "x=y"}
    assert Request("GET", "[::1]:80", "/").host == "[::1]"
    assert Request("GET", "[::1]", "/").host == "[::1]"


def test_a_deferred_fact_is_worked_out_once_and_only_if_read() -> None:
    fact, other = Fact[int]("x", default=7), Fact[int]("y")
    facts, calls = Facts(), []
    facts.defer(fact, lambda: calls.append(1) or 42)  # type: ignore[func-returns-value]
    assert facts.known() == {}
    assert [facts[fact], facts.get(fact), facts.named("x")] == [42, 42, 42]
    assert calls == [1]
    assert facts.get(other) is None
    assert facts.get(other, 3) == 3
    assert Facts()[fact] == 7


def test_ids_of_exchanges_differ() -> None:
    ids = {Exchange(Request("GET", "x", "/")).id for _ in range(1000)}
    assert len(ids) == 1000


def test_an_authority_names_the_port_where_it_is_not_usual() -> None:
    assert Origin("a", "https", "a.example", 443).authority == "a.example"
    assert Origin("a", "https", "a.example", 80).authority == "a.example:80"
    assert Origin("a", "http", "::1", 8080).authority == "[::1]:8080"
