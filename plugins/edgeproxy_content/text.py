"""Conditions on text, and the header fields and queries the text comes from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl

import re2
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from edgeproxy.api import Config, Exchange, FieldName, OneOrMany

TextTest = Callable[[str | None], bool]
"""Whether a text meets a condition; None is a text that is not there."""

MAX_PATTERN_LENGTH = 4096  # characters
MAX_PATTERN_MEMORY = 2**20  # bytes; a pattern that is too large is refused within 5 ms
MAX_PATTERN_STEPS = 1000  # RE2 instructions: bounds what one character of text can cost


def pattern(source: str, *, ignore_case: bool = False) -> Callable[[bytes], bool]:
    """A test for UTF-8 bytes that match `source` as a whole, in linear time.

    Raises ValueError for a pattern that RE2 does not take, or that is too large.
    """
    if len(source) > MAX_PATTERN_LENGTH:
        raise ValueError(f"a pattern may be {MAX_PATTERN_LENGTH} characters long")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_PATTERN_MEMORY
    options.never_capture = True  # only whether it matches is asked, which is the quick way
    options.dot_nl = True  # else a line end in a form field would get past `.*word.*`
    options.case_sensitive = not ignore_case
    try:
        compiled = re2.compile(source.encode(), options)
    except re2.error as error:
        words = error.args[0].decode("utf-8", "replace")
        raise ValueError(f"{source!r} is not an RE2 pattern: {words}") from None
    except UnicodeEncodeError:
        raise ValueError(f"{source!r} holds half a character") from None
    if compiled.programsize > MAX_PATTERN_STEPS:
        raise ValueError(
            f"{source!r} is too large: {compiled.programsize} steps, and {MAX_PATTERN_STEPS} are "
            "allowed; write smaller counts, or a list of plain texts"
        )
    full_match = compiled.fullmatch
    return lambda text: full_match(text) is not None


def _text(value: Any) -> Any:
    if isinstance(value, int | float):
        word = str(value).lower() if isinstance(value, bool) else str(value)
        raise ValueError(f"this is compared as text; write it in quotes: {word!r}")
    return value


def _long_form(value: Any) -> Any:
    return value if isinstance(value, dict | Condition) else {"exact": value}


def _pattern(source: str) -> str:
    pattern(source)
    return source


Text = Annotated[str, BeforeValidator(_text)]
Part = Annotated[str, Field(min_length=1), BeforeValidator(_text)]
Pattern = Annotated[Text, AfterValidator(_pattern)]


class Condition[T](Config):
    """What a value must be: exactly one of the kinds. Of several texts, any one will do."""

    exact: Annotated[OneOrMany[T], Field(min_length=1)] | None = None
    """It is this text, or one of these."""
    prefix: Annotated[OneOrMany[Part], Field(min_length=1)] | None = None
    """It begins with this text, or one of these."""
    suffix: Annotated[OneOrMany[Part], Field(min_length=1)] | None = None
    """It ends with this text, or one of these."""
    contains: Annotated[OneOrMany[Part], Field(min_length=1)] | None = None
    """It has this text, or one of these, anywhere."""
    regex: Pattern | None = None
    """The whole of it matches this RE2 pattern."""
    present: bool | None = None
    """`true`: it is there, whatever it says; `false`: it is not."""
    ignore_case: bool = False
    """Whether upper and lower case are the same."""

    @model_validator(mode="after")
    def _one_kind(self) -> Condition[T]:
        kinds = ("exact", "prefix", "suffix", "contains", "regex", "present")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            found = f"; found {' and '.join(given)}" if given else ""
            raise ValueError(f"write exactly one of {', '.join(kinds)}{found}")
        if self.ignore_case and given == ["present"]:
            raise ValueError("ignore_case says nothing beside present; remove it")
        return self


type TextCondition = Annotated[
    Condition[Text],
    BeforeValidator(
        _long_form,
        json_schema_input_type=str | Annotated[list[str], Field(min_length=1)] | Condition[Text],
    ),
]
"""A text (exact), a list of texts (any of them), or a mapping that says which kind."""


def _lower_case_once(value: Any) -> Any:
    if isinstance(value, dict):
        seen: dict[str, str] = {}
        for name in value:
            other = seen.setdefault(str(name).lower(), name)
            if other != name:
                raise ValueError(f"{other!r} and {name!r} are the same field; write it once")
    return value


type TextConditions = Annotated[dict[str, TextCondition], Field(min_length=1)]
type FieldConditions = Annotated[
    dict[FieldName, TextCondition], Field(min_length=1), BeforeValidator(_lower_case_once)
]


def text_test(condition: Condition[Any]) -> TextTest:
    """What a condition does per request."""
    if condition.present is not None:
        wanted = condition.present
        return lambda text: (text is not None) is wanted
    if condition.regex is not None:
        matches = pattern(condition.regex, ignore_case=condition.ignore_case)
        return lambda text: text is not None and matches(text.encode("utf-8", "surrogatepass"))
    for kind in ("exact", "prefix", "suffix", "contains"):
        texts: tuple[str, ...] | None = getattr(condition, kind)
        if texts is not None:
            break
    if condition.ignore_case:
        folded = _test(kind, tuple(text.casefold() for text in texts or ()))
        return lambda text: text is not None and folded(text.casefold())
    test = _test(kind, texts or ())
    return lambda text: text is not None and test(text)


def _test(kind: str, texts: tuple[str, ...]) -> Callable[[str], bool]:
    if kind == "prefix":
        return lambda text: text.startswith(texts)
    if kind == "suffix":
        return lambda text: text.endswith(texts)
    if kind == "contains":
        return lambda text: any(part in text for part in texts)
    return frozenset(texts).__contains__


def any_text_test(condition: Condition[Any]) -> Callable[[tuple[str, ...]], bool]:
    """The same for a name that may be repeated: any of its values will do."""
    test = text_test(condition)

    def matches(texts: tuple[str, ...]) -> bool:
        return any(map(test, texts)) if texts else test(None)

    return matches


def header_test(conditions: Mapping[str, Condition[Any]]) -> Callable[[Exchange], bool]:
    """Whether every named header field meets its condition."""
    tests = tuple((name, text_test(each)) for name, each in conditions.items())

    def matches(exchange: Exchange) -> bool:
        headers = exchange.request.headers
        return all(test(headers.joined(name)) for name, test in tests)

    return matches


def cookie_test(conditions: Mapping[str, Condition[Any]]) -> Callable[[Exchange], bool]:
    """Whether every named cookie meets its condition."""
    tests = tuple((name, text_test(each)) for name, each in conditions.items())

    def matches(exchange: Exchange) -> bool:
        cookies = exchange.request.cookies()
        return all(test(cookies.get(name)) for name, test in tests)

    return matches


def query_test(conditions: Mapping[str, Condition[Any]]) -> Callable[[Exchange], bool]:
    """Whether every named query parameter meets its condition."""
    tests = tuple((name, any_text_test(each)) for name, each in conditions.items())

    def matches(exchange: Exchange) -> bool:
        parameters = query_parameters(exchange.request.query)
        return all(test(parameters.get(name, ())) for name, test in tests)

    return matches


@functools.lru_cache(maxsize=64)  # several routes ask about the query of one request
def query_parameters(query: str | None) -> Mapping[str, tuple[str, ...]]:
    """The parameters of a query, decoded once; every value of a repeated name, in order.

    `+` is a space, a name without `=` has the empty value, and what is not UTF-8 is replaced.
    """
    return grouped(parse_qsl(query or "", keep_blank_values=True))


def grouped(pairs: Iterable[tuple[str, str]]) -> Mapping[str, tuple[str, ...]]:
    """Values by name, in order."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return {name: tuple(values) for name, values in found.items()}
