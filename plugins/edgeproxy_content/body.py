"""What a request body says: form fields and JSON values. Strict: in doubt it says nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self
from urllib.parse import parse_qsl

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from edgeproxy.api import Config, Exchange, Size

from .text import Condition, TextConditions, any_text_test, grouped, text_test

MAX_SIZE = 2**20  # bytes that a policy may ask to read ahead
MAX_FIELDS = 1000  # of a form
MAX_PART_HEAD = 1024  # bytes of header fields of one part

Fields = Mapping[str, tuple[str, ...]]


class _Absent:
    """What a pointer finds where there is nothing."""


ABSENT = _Absent()


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError("write a text, a number, true or false")
    return value


def _long_form(value: Any) -> Any:
    return value if isinstance(value, dict | Condition) else {"exact": value}


Scalar = Annotated[bool | int | float | str, BeforeValidator(_scalar)]
type JsonCondition = Annotated[
    Condition[Scalar],
    BeforeValidator(
        _long_form,
        json_schema_input_type=(
            Scalar | Annotated[list[Scalar], Field(min_length=1)] | Condition[Scalar]
        ),
    ),
]


def reference_tokens(pointer: str) -> tuple[str, ...]:
    """The steps of a JSON Pointer (RFC 6901). ValueError if it is none."""
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"a JSON pointer begins with a slash; write {'/' + pointer!r}")
    if re.search(r"~(?![01])", pointer):
        raise ValueError(f"in {pointer!r}, write ~0 for ~ and ~1 for a slash (RFC 6901)")
    tokens = pointer.split("/")[1:]
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in tokens)


def _pointer(value: str) -> str:
    reference_tokens(value)
    return value


class BodyCondition(Config):
    """The `body` of a match: `form` or `json`; all that it names must hold."""

    form: TextConditions | None = None
    """Fields of a form and their conditions."""
    json_: Annotated[
        dict[Annotated[str, AfterValidator(_pointer)], JsonCondition] | None,
        Field(alias="json", min_length=1),
    ] = None
    """JSON Pointers (RFC 6901) and the conditions on what they lead to."""
    max_size: Annotated[Size, Field(gt=0, le=MAX_SIZE)] = "64KiB"  # type: ignore[assignment]
    """A longer body does not match; up to 1 MiB."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.form is None) == (self.json_ is None):
            raise ValueError("write form or json: a body is of one type")
        return self


def body_test(condition: BodyCondition) -> Callable[[Exchange], bool]:
    """Whether a body meets the condition; no if it is too large, of another type or malformed."""
    if condition.form is not None:
        holds = _form_test(condition.form)
    else:
        assert condition.json_ is not None
        holds = _json_test(condition.json_)

    def matches(exchange: Exchange) -> bool:
        found = _parsed(condition, exchange)
        return found is not ABSENT and holds(found)

    return matches


def body_values(condition: BodyCondition, exchange: Exchange) -> dict[str, Any] | None:
    """What the condition is about: the named fields or values; None if the body cannot be read."""
    found = _parsed(condition, exchange)
    if found is ABSENT:
        return None
    if condition.form is not None:
        return {name: found.get(name) for name in condition.form}
    values = {at: pointed_at(found, reference_tokens(at)) for at in condition.json_ or ()}
    return {at: None if value is ABSENT else value for at, value in values.items()}


def _parsed(condition: BodyCondition, exchange: Exchange) -> Any:
    """What the body holds; ABSENT if it is too large, encoded, malformed or of another type."""
    data = exchange.request.body.data
    if not data or len(data) > condition.max_size:
        return ABSENT
    headers = exchange.request.headers
    if (headers.joined("content-encoding") or "identity").lower() != "identity":
        return ABSENT
    parse = form_fields if condition.form is not None else json_value
    return parse(headers.joined("content-type") or "", data)


def _form_test(conditions: Mapping[str, Condition[Any]]) -> Callable[[Any], bool]:
    tests = tuple((name, any_text_test(each)) for name, each in conditions.items())
    return lambda fields: all(test(fields.get(name, ())) for name, test in tests)


def _json_test(conditions: Mapping[str, Condition[Any]]) -> Callable[[Any], bool]:
    tests = tuple((reference_tokens(at), _value_test(each)) for at, each in conditions.items())
    return lambda document: all(test(pointed_at(document, tokens)) for tokens, test in tests)


def _value_test(condition: Condition[Any]) -> Callable[[Any], bool]:
    """As `text_test`, for a JSON value: a number is never a text, nor is `true` the number 1."""
    if condition.present is not None:
        wanted = condition.present
        return lambda value: (value is not ABSENT) is wanted
    scalars = condition.exact or ()
    texts = tuple(each for each in scalars if isinstance(each, str))
    others = frozenset((isinstance(e, bool), e) for e in scalars if not isinstance(e, str))
    test = text_test(condition.model_copy(update={"exact": texts}) if others else condition)

    def matches(value: Any) -> bool:
        if isinstance(value, str):
            return test(value)
        return isinstance(value, int | float) and (isinstance(value, bool), value) in others

    return matches


def pointed_at(document: Any, tokens: tuple[str, ...]) -> Any:
    """The value that a pointer names, or ABSENT (RFC 6901, section 4)."""
    for token in tokens:
        if isinstance(document, dict):
            document = document.get(token, ABSENT)
        elif isinstance(document, list) and re.fullmatch(r"0|[1-9][0-9]{0,8}", token):
            document = document[int(token)] if int(token) < len(document) else ABSENT
        else:
            return ABSENT
    return document


_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TYPE = re.compile(rf"[ \t]*({_TOKEN}/{_TOKEN})[ \t]*")
_PARAMETER = re.compile(rf';[ \t]*(?:({_TOKEN})=(?:"([^"\\]*)"|({_TOKEN})))?[ \t]*')


def media_type(content_type: str) -> tuple[str, dict[str, str]]:
    """A Content-Type in lower case and its parameters; an empty type if it is malformed."""
    match = _TYPE.match(content_type)
    parameters: dict[str, str] = {}
    if match is None:
        return "", parameters
    kind, at = match[1].lower(), match.end()
    while at < len(content_type):
        match = _PARAMETER.match(content_type, at)
        if match is None or (match[1] or "").lower() in parameters:
            return "", {}
        if match[1]:
            parameters[match[1].lower()] = match[2] if match[3] is None else match[3]
        at = match.end()
    return kind, parameters


def json_value(content_type: str, data: bytes) -> Any:
    """The value of a JSON body (RFC 8259), or ABSENT if it is none.

    Refused besides what is not JSON: NaN and infinities, and a name that stands twice in an
    object, which two readers would read in two ways.
    """
    kind, _ = media_type(content_type)
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        return ABSENT
    try:
        return json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return ABSENT


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def form_fields(content_type: str, data: bytes) -> Fields | _Absent:
    """The text fields of a form, every value of a repeated name in order, or ABSENT if it is none.

    Files that are sent along are not looked at. All text must be UTF-8.
    """
    kind, parameters = media_type(content_type)
    if parameters.get("charset", "utf-8").lower() != "utf-8":
        return ABSENT
    try:
        if kind == "application/x-www-form-urlencoded":
            pairs = parse_qsl(
                data.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
            )
        elif kind == "multipart/form-data":
            pairs = multipart_fields(parameters.get("boundary", ""), data)
        else:
            return ABSENT
    except ValueError:
        return ABSENT
    return grouped(pairs)


_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]", re.ASCII)
_DISPOSITION = re.compile(
    r'form-data; *name="([^"\\]*)"(; *filename=.*)?', re.ASCII | re.IGNORECASE
)
_PART_TYPE = re.compile(r'text/plain(?:; *charset="?utf-8"?)?', re.ASCII | re.IGNORECASE)


def multipart_fields(boundary: str, data: bytes) -> list[tuple[str, str]]:
    """Name and text of every field in a multipart/form-data body (RFC 7578), without the files.

    Takes only what browsers and common libraries write, so that no two readers can see two
    things in it: no preamble, no epilogue, no folded fields, no transfer encodings. Raises
    ValueError for anything else.
    """
    if not _BOUNDARY.fullmatch(boundary):
        raise ValueError("the boundary is missing or malformed (RFC 2046, section 5.1.1)")
    start, *parts = (b"\r\n" + data).split(b"\r\n--" + boundary.encode(), MAX_FIELDS + 2)
    if start or not parts or parts.pop() not in (b"--", b"--\r\n"):
        raise ValueError("the body does not begin and end with its boundary")
    if len(parts) > MAX_FIELDS:
        raise ValueError(f"the form has more than {MAX_FIELDS} fields")
    fields = (_part(part) for part in parts)
    return [field for field in fields if field is not None]


def _part(part: bytes) -> tuple[str, str] | None:
    """Name and text of one part, from the line end after its boundary; None for a file."""
    head, blank, content = part.partition(b"\r\n\r\n")
    if not blank or not head.startswith(b"\r\n") or len(head) > MAX_PART_HEAD:
        raise ValueError("a part has no head, or too long a one")
    fields: dict[str, str] = {}
    for line in head[2:].decode().split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or name.lower() in fields or "\r" in line or "\n" in line or "\0" in line:
            raise ValueError("a part has a malformed head")
        fields[name.lower()] = value.strip(" \t")
    disposition = _DISPOSITION.fullmatch(fields.pop("content-disposition", ""))
    if disposition is None:
        raise ValueError("a part has no name")
    if disposition[2]:
        return None
    if not _PART_TYPE.fullmatch(fields.pop("content-type", "text/plain")) or fields:
        raise ValueError("a field is not plain text")
    return _unescaped(disposition[1]), content.decode()


def _unescaped(name: str) -> str:
    """A field name as browsers escape it (HTML, section 4.10.21.8)."""
    return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
