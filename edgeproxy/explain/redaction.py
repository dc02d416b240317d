"""An explanation without what is confidential: credentials, cookies, and what queries say.

Whatever a request holds of these is hidden wherever it comes up again: in a fact, in a field that a
filter sets, in what a third-party matcher has looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote_plus

from edgeproxy.explain.explanation import Explanation
from edgeproxy.http import Headers, Request
from edgeproxy.traffic.redaction import REDACTED, Redaction

KEPT_COOKIES = ("ep_*",)  # they decide what is served
MIN_LENGTH = 6
"""What is shorter, such as `1` or `de`, is hidden only where it stands, not all over the text."""

_QUERY = re.compile(r"(?<=[\w/.~%-])\?[^\s'\"<>]*")
_FIELDS = ("headers", "added", "removed")  # lists of names and values
_WITH_QUERY = ("url", "target", "text")


def redacted(
    explanation: Explanation, request: Request, fields: Sequence[str] = ()
) -> dict[str, Any]:
    """`explanation` as JSON; `fields` are hidden besides those that always are."""
    data = explanation.as_json()
    answer = Headers.of(*explanation.answer.headers)
    names = {name for headers in (request.headers, answer) for name, _ in headers.items()}
    redaction = Redaction((*fields, *filter(_sounds_secret, names)), KEPT_COOKIES)
    found = [*_hidden(request.headers, redaction), *_hidden(answer, redaction)]
    hidden = {word for word in (*found, *_of_query(request.query)) if word}
    long = sorted((word for word in hidden if len(word) >= MIN_LENGTH), key=len, reverse=True)
    result: dict[str, Any] = _Hiding(redaction, frozenset(hidden), long).value(data, "")
    return result


_SECRET_NAME = re.compile(r"token|secret|passw|session|signature|credential|jwt|api-?key")


def _sounds_secret(name: str) -> bool:
    return _SECRET_NAME.search(name.lower()) is not None


def _hidden(headers: Headers, redaction: Redaction) -> Iterator[str]:
    """The values in `headers` that `redaction` hides, and their parts."""
    after = redaction.headers(headers)
    for (name, value), (_, shown) in zip(headers.items(), after.items(), strict=True):
        if value == shown:
            continue
        if name.lower() in ("cookie", "set-cookie"):
            kept = {pair.strip() for pair in shown.split(";")}
            pairs = (pair.strip() for pair in value.split(";"))
            yield from (pair.partition("=")[2] for pair in pairs if pair not in kept)
        elif "?" in value and name.lower() not in ("authorization", "proxy-authorization"):
            yield from _of_query(value.partition("?")[2])
        else:
            yield value
            yield value.partition(" ")[2]


def _of_query(query: str | None) -> Iterator[str]:
    for pair in (query or "").split("&"):
        value = pair.partition("=")[2] or pair
        yield value
        yield unquote_plus(value)


class _Hiding:
    def __init__(self, redaction: Redaction, hidden: frozenset[str], long: Iterable[str]) -> None:
        self._redaction = redaction
        self._hidden = hidden
        pattern = "|".join(map(re.escape, long))
        self._long = re.compile(pattern) if pattern else None

    def value(self, value: Any, key: str) -> Any:
        """`value`, which stands under `key`, with all that is hidden in it."""
        if key == "seen":
            return self._seen(value)
        if isinstance(value, dict):
            if value.get("is_of_body"):
                value = {**value, "seen": REDACTED}
            return {name: self.value(each, name) for name, each in value.items()}
        if isinstance(value, list) and key in _FIELDS:
            return [self._field(*field) for field in value]
        if key == "cookies":
            return [self._cookie(each) for each in value]
        if isinstance(value, list):
            return [self.value(each, key) for each in value]
        if not isinstance(value, str):
            return value
        return self._text(without_values(value) if key in _WITH_QUERY else value)

    def _field(self, name: str, value: str) -> list[str]:
        field = Headers([(name.encode("latin-1"), value.encode("latin-1", "replace"))])
        ((_, shown),) = self._redaction.headers(field).items()
        return [name, self._text(without_values(shown))]

    def _cookie(self, line: str) -> str:
        return self._field("set-cookie", line)[1]

    def _seen(self, value: Any) -> Any:
        """What a matcher looked at: a part of it may be a cookie's value and nothing else."""
        if isinstance(value, dict):
            return {name: self._seen(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._seen(each) for each in value]
        if isinstance(value, str):
            return REDACTED if value in self._hidden else self._text(without_values(value))
        return value

    def _text(self, text: str) -> str:
        return self._long.sub(REDACTED, text) if self._long is not None else text


def without_values(text: str) -> str:
    """`text` with the values of every query in it hidden; the names of parameters stay."""
    return _QUERY.sub(lambda found: "?" + "&".join(map(_name, found[0][1:].split("&"))), text)


def _name(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}={REDACTED}" if equals else REDACTED if pair else ""
