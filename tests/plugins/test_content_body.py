"""What the plugin `content` reads in a body, and what it refuses to read."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeproxy.api import Body, Exchange, Headers, Request
from edgeproxy_content.body import (
    ABSENT,
    form_fields,
    json_value,
    media_type,
    multipart_fields,
    pointed_at,
    reference_tokens,
)
from edgeproxy_content.plugin import Content, Plugin
from edgeproxy_content.text import query_parameters

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


def matches(value: Any, content_type: str, data: bytes, *fields: tuple[str, str]) -> bool:
    test = Plugin.matchers["body"].model_validate(value).compile(Plugin(Content()))
    headers = Headers.of(("content-type", content_type), *fields)
    return test(Exchange(Request("POST", "example.org", "/", None, headers, Body(data))))


def form(*parts: str, boundary: str = "b0") -> bytes:
    body = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts)
    return f"{body}--{boundary}--\r\n".encode()


def field(name: str, text: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}'


# ------------------------------------------------------------------- forms


def test_form_fields_meet_conditions() -> None:
    body = b"name=J%C3%BCrgen+M&tag=a&tag=b&empty="
    assert matches({"form": {"name": "Jürgen M", "tag": "b"}}, FORM, body)
    assert matches({"form": {"empty": ""}}, FORM, body)
    assert matches({"form": {"other": {"present": False}}}, FORM, body)
    assert not matches({"form": {"name": "Jürgen M", "tag": "c"}}, FORM, body)
    assert not matches({"form": {"other": {"present": True}}}, FORM, body)


def test_multipart_fields_meet_conditions() -> None:
    file = 'Content-Disposition: form-data; name="f"; filename="x"\r\nContent-Type: a/b\r\n\r\n\xff'
    body = form(field("a", "1"), file, field("b%22c", "line\r\nline"), field("a", "2"))
    kind = "multipart/form-data; boundary=b0"
    assert matches({"form": {"a": "2", 'b"c': {"contains": "line"}}}, kind, body)
    assert matches({"form": {"f": {"present": False}}}, kind, body)
    assert matches({"form": {"a": "1"}}, 'Multipart/Form-Data; boundary="b0"', body)
    assert not matches({"form": {"a": "3"}}, kind, body)


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("", b"a=1"),
        ("text/plain", b"a=1"),
        (FORM, b""),
        (FORM, b"a=%ff"),
        (FORM, b"a=\xff"),
        (FORM, b"&".join([b"a=1"] * 1001)),
        (FORM + "; charset=latin-1", b"a=1"),
        (FORM + "; charset=utf-8; charset=utf-8", b"a=1"),
        (FORM + ", text/plain", b"a=1"),
        ("multipart/form-data", form(field("a", "1"))),
        ("multipart/form-data; boundary=b1", form(field("a", "1"))),
        ("multipart/form-data; boundary=" + "b" * 71, form(field("a", "1"), boundary="b" * 71)),
        ('multipart/form-data; boundary="b0 "', form(field("a", "1"), boundary="b0 ")),
    ],
)
def test_what_is_no_form_does_not_match(content_type: str, data: bytes) -> None:
    assert not matches({"form": {"a": {"present": False}}}, content_type, data)
    assert not matches({"form": {"a": {"present": True}}}, content_type, data)


HEAD = 'Content-Disposition: form-data; name="a"'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"preamble\r\n" + form(field("a", "1")),
        form(field("a", "1")) + b"epilogue",
        form(field("a", "1"))[:-4],
        form(field("a", "1")).replace(b"\r\n", b"\n"),
        form(f"{HEAD}\r\n"),
        form("a: b\r\n\r\n1"),
        form(f"{HEAD}; name=\"b\"\r\n\r\n1"),
        form(f"{HEAD}; name*=utf-8''b\r\n\r\n1"),
        form('Content-Disposition: form-data; name="a\\"b"\r\n\r\n1'),
        form("Content-Disposition: form-data; name=a\r\n\r\n1"),
        form(f"{HEAD}\r\n{HEAD}\r\n\r\n1"),
        form(f"{HEAD}\r\n folded\r\n\r\n1"),
        form(f"{HEAD}\r\nContent-Transfer-Encoding: base64\r\n\r\nMQ=="),
        form(f"{HEAD}\r\nContent-Type: text/plain; charset=utf-16\r\n\r\n1"),
        form(f"{HEAD}\r\nx-a: {'b' * 2000}\r\n\r\n1"),
        form(f"{HEAD}\nX: y\r\n\r\n1"),
        form("Content-Disposition: attachment; name=\"a\"\r\n\r\n1"),
        b"--b0 \r\n" + form(field("a", "1"))[6:],
        b"--b0--\r\n" + form(field("a", "1")),
        form(*[field("a", "1")] * 1001),
        form(field("a", "")).replace(b"\r\n\r\n", b"\r\n\r\n\xff"),
    ],
)  # fmt: skip
def test_doubtful_multipart_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        multipart_fields("b0", data)
    assert form_fields("multipart/form-data; boundary=b0", data) is ABSENT


def test_empty_multipart_has_no_fields() -> None:
    assert multipart_fields("b0", b"--b0--\r\n") == []


names = st.text(alphabet=st.characters(exclude_characters='"\\\r\n%\0', codec="utf-8"), max_size=9)
texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=30)


@given(st.lists(st.tuples(names, texts), max_size=5))
def test_multipart_gives_back_what_was_sent(pairs: list[tuple[str, str]]) -> None:
    body = form(*[field(name, text) for name, text in pairs], boundary="0f3c9a7e")
    assert multipart_fields("0f3c9a7e", body) == pairs


@given(st.binary(max_size=200), st.text(max_size=60))
def test_no_body_breaks_a_reader(data: bytes, content_type: str) -> None:
    for kind in (content_type, FORM, JSON, "multipart/form-data; boundary=b0"):
        form_fields(kind, data)
        form_fields("multipart/form-data; boundary=b0", b"--b0" + data + b"\r\n--b0--")
        json_value(kind, data)
        media_type(kind)


@given(st.lists(st.tuples(texts, texts), max_size=6))
def test_query_and_form_give_back_what_was_sent(pairs: list[tuple[str, str]]) -> None:
    encoded = "&".join(f"{quote_plus(name)}={quote_plus(text)}" for name, text in pairs)
    expected: dict[str, tuple[str, ...]] = {}
    for name, text in pairs:
        expected[name] = (*expected.get(name, ()), text)
    assert query_parameters(encoded) == expected
    assert form_fields(FORM, encoded.encode()) == expected


@given(st.text(max_size=60))
def test_any_query_is_read(query: str) -> None:
    assert all(values for values in query_parameters(query).values())


# ------------------------------------------------------------------- JSON

DOCUMENT: dict[str, Any] = {
    "action": "opened",
    "n": 42,
    "x": 1.5,
    "yes": True,
    "none": None,
    "one": 1,
    "list": ["a", {"b": "c"}],
    "": "empty",
    "a/b": "slash",
    "m~n": "tilde",
    "half": "\ud800",
}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"/action": "opened"}, True),
        ({"/action": ["closed", "opened"]}, True),
        ({"/action": {"prefix": "OPEN", "ignore_case": True}}, True),
        ({"/action": {"regex": "open.d"}}, True),
        ({"/action": "opened", "/n": 43}, False),
        ({"/n": 42}, True),
        ({"/n": 42.0}, True),
        ({"/n": "42"}, False),
        ({"/n": {"prefix": "4"}}, False),
        ({"/n": ["x", 42]}, True),
        ({"/x": 1.5}, True),
        ({"/yes": True}, True),
        ({"/yes": 1}, False),
        ({"/one": True}, False),
        ({"/one": {"exact": [True, 1]}}, True),
        ({"/none": {"present": True}}, True),
        ({"/none": "null"}, False),
        ({"/list": {"present": True}}, True),
        ({"/list": "a"}, False),
        ({"/list/0": "a"}, True),
        ({"/list/1/b": "c"}, True),
        ({"/list/2": {"present": False}}, True),
        ({"/list/-": {"present": False}}, True),
        ({"/list/00": {"present": False}}, True),
        ({"/action/0": {"present": False}}, True),
        ({"/": "empty"}, True),
        ({"/a~1b": "slash"}, True),
        ({"/m~0n": "tilde"}, True),
        ({"": {"present": True}}, True),
        ({"/half": {"regex": "x"}}, False),
        ({"/half": {"contains": "x", "ignore_case": True}}, False),
    ],
)
def test_json(conditions: Any, expected: bool) -> None:
    data = json.dumps(DOCUMENT).encode()
    assert matches({"json": conditions}, "application/json; charset=utf-8", data) is expected
    assert matches({"json": conditions}, "application/merge-patch+json", data) is expected


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("text/plain", b"{}"),
        ("text/x+json", b"{}"),
        ("", b"{}"),
        (JSON, b""),
        (JSON, b"{"),
        (JSON, b"\xff"),
        (JSON, '{"a": 1}'.encode("utf-16")),
        (JSON, b'\xef\xbb\xbf{"a": 1}'),
        (JSON, b'{"a": NaN}'),
        (JSON, b'{"a": 1, "a": 2}'),
        (JSON, b"[" * 60_000),
        (JSON, b"1" * 60_000),
    ],
)
def test_what_is_no_json_does_not_match(content_type: str, data: bytes) -> None:
    assert not matches({"json": {"/b": {"present": False}}}, content_type, data)


def test_larger_body_does_not_match() -> None:
    data = json.dumps({"a": "x" * 2000}).encode()
    assert matches({"json": {"/a": {"prefix": "x"}}}, JSON, data)
    assert not matches({"json": {"/a": {"prefix": "x"}}, "max_size": "1KiB"}, JSON, data)


def test_body_that_was_not_read_ahead_does_not_match() -> None:
    async def never() -> Any:
        yield b""

    test = Plugin.matchers["body"].model_validate({"json": {"": {"present": True}}})
    request = Request("POST", "example.org", "/", body=Body(None, stream=never()))
    request.headers.set("content-type", JSON)
    assert not test.compile(Plugin(Content()))(Exchange(request))


def test_compressed_body_does_not_match() -> None:
    assert not matches({"form": {"a": "1"}}, FORM, b"a=1", ("content-encoding", "gzip"))
    assert matches({"form": {"a": "1"}}, FORM, b"a=1", ("content-encoding", "Identity"))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "write form or json"),
        ({"form": {"a": "1"}, "json": {"/a": 1}}, "write form or json"),
        ({"form": {}}, "at least 1"),
        ({"json": {}}, "at least 1"),
        ({"json": {"a": 1}}, "begins with a slash; write '/a'"),
        ({"json": {"/a~b": 1}}, "write ~0 for ~"),
        ({"json": {"/a": [None]}}, "a text, a number, true or false"),
        ({"form": {"a": 1}}, "write it in quotes"),
        ({"form": {"a": "1"}, "max_size": "2MiB"}, "1048576"),
        ({"form": {"a": "1"}, "max_size": 100}, "unit"),
        ({"xml": {}}, "xml"),
    ],
)
def test_bad_body_condition_is_a_fault(value: Any, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Plugin.matchers["body"].model_validate(value)
    assert words in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_every_value_has_a_pointer(document: Any) -> None:
    def walk(value: Any, pointer: str) -> None:
        assert pointed_at(document, reference_tokens(pointer)) is value
        inner = value.items() if isinstance(value, dict) else ()
        if isinstance(value, list):
            inner = enumerate(value)
        for key, each in inner:
            walk(each, pointer + "/" + str(key).replace("~", "~0").replace("/", "~1"))

    walk(document, "")
    assert json_value(JSON, json.dumps(document).encode()) == document
