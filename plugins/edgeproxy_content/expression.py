"""Conditions in CEL, for what the other keys cannot say.

Everything that depends on the CEL library (the extra `cel`) is in `_compiled`; the rest reads the
text of an expression to know which names it uses.
"""

from __future__ import annotations

import difflib
import functools
import logging
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from edgeproxy.api import Exchange, decoded_path

from .text import pattern, query_parameters

log = logging.getLogger("edgeproxy.content")

MAX_LENGTH = 4096  # characters
LOG_EVERY_S = 60.0

MAPS = ("query", "headers", "cookies", "facts")
TEXTS = ("method", "scheme", "host", "path", "client")
NAMES = (*TEXTS, *MAPS)

# Facts of this plugin, by the request fields that they are made of.
FIELDS_OF_FACTS = {
    "content.language": ("accept-language",),
    "content.device": ("user-agent", "sec-ch-ua-mobile"),
    "content.bot": ("user-agent", "sec-ch-ua-mobile"),
}

_TOKEN = re.compile(
    r"(?P<space>\s+|//[^\n]*)"
    r"|(?P<text>[rRbB]{0,2}(?:\"\"\".*?\"\"\"|'''.*?'''"
    r"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'))"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<other>[0-9][0-9A-Za-z.]*|.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Names:
    """The variables that an expression uses, and the keys it reads of each map.

    Keys are None where they are not all plain text, as in `headers.exists(...)`.
    """

    variables: frozenset[str]
    keys: Mapping[str, frozenset[str] | None]

    @property
    def varies_by(self) -> tuple[str, ...]:
        """The request fields that the outcome depends on; `*` where more does."""
        fields: set[str] = {"cookie"} if "cookies" in self.variables else set()
        headers = self.keys.get("headers", frozenset())
        if headers is None or "client" in self.variables:
            return ("*",)
        fields |= headers
        for fact in self.keys.get("facts") or ():
            if fact not in FIELDS_OF_FACTS:
                return ("*",)
            fields.update(FIELDS_OF_FACTS[fact])
        return tuple(sorted(fields))


Token = tuple[str, str, int]
"""Kind, text and offset."""


def _tokens(source: str) -> list[Token]:
    """Every token but space and comments."""
    return [
        (match.lastgroup or "", match.group(), match.start())
        for match in _TOKEN.finditer(source)
        if match.lastgroup != "space"
    ]


def _literal(token: Token) -> str | None:
    """What a simple text literal stands for; None for any other token."""
    kind, word, _ = token
    if kind != "text" or word[0] not in "\"'" or word[:3] in ('"""', "'''") or "\\" in word:
        return None
    return word[1:-1]


def names_in(source: str, known_facts: Collection[str] | None = None) -> Names:
    """The names that an expression uses.

    Raises ValueError, one line per fault, for a header in upper case, for a fact that no plugin of
    the policy sets, and for a pattern that is not RE2.
    """
    end = ("", "", 0)
    tokens = [end, end, end, *_tokens(source), end, end, end]
    variables: set[str] = set()
    keys: dict[str, set[str] | None] = {}
    faults: list[str] = []
    for at in range(3, len(tokens) - 3):
        kind, word, offset = tokens[at]
        if word == "matches" and tokens[at - 1][1] == "." and tokens[at + 1][1] == "(":
            faults += _pattern_faults(source, tokens[at + 2])
        if kind != "name" or word not in NAMES or _is_member(tokens[at - 2 : at]):
            continue
        variables.add(word)
        if word in MAPS:
            key = _key(tokens[at - 3 : at], tokens[at + 1 : at + 4])
            faults += _key_faults(source, offset, word, key, known_facts)
            found = keys.setdefault(word, set())
            if key is None or found is None:
                keys[word] = None
            else:
                found.add(key)
    if faults:
        raise ValueError("\n".join(faults))
    frozen = {word: None if of is None else frozenset(of) for word, of in keys.items()}
    return Names(frozenset(variables), frozen)


def _is_member(before: list[Token]) -> bool:
    """Whether a name after these two tokens is a member, as in `x.name`, and no variable."""
    (kind, word, _), (_, dot, _) = before
    return dot == "." and (kind in ("name", "text") or word in (")", "]", "}")) and word != "in"


def _key(before: list[Token], after: list[Token]) -> str | None:
    """The one key that is read of a map between these tokens; None if they do not say."""
    if after[0][1] == "[" and after[2][1] == "]":
        return _literal(after[1])
    if after[0][1] == "." and after[1][0] == "name" and after[2][1] != "(":
        return after[1][1]
    stands_alone = before[0][1] in ("", "(", "&", "|", "?", ":", ",")  # unlike "a" + "b" in headers
    if stands_alone and before[2][1] == "in" and after[0][1] not in (".", "["):
        return _literal(before[1])
    return None


def _place(source: str, offset: int) -> str:
    line = source.count("\n", 0, offset) + 1
    return f"expression {line}:{offset - source.rfind(chr(10), 0, offset)}"


def _key_faults(
    source: str, offset: int, word: str, key: str | None, known_facts: Collection[str] | None
) -> list[str]:
    place = _place(source, offset)
    if word == "headers" and key is not None and key != key.lower():
        return [f'{place}: header names are in lower case here; write headers["{key.lower()}"]']
    if word == "facts" and key is None:
        return [f'{place}: name the fact in quotes: facts["geo.country"]']
    if word == "facts" and known_facts is not None and key not in known_facts:
        near = difflib.get_close_matches(key or "", known_facts, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(sorted(known_facts)) or "none"
        return [f"{place}: no plugin in this policy sets the fact {key!r}; {hint}known: {known}"]
    return []


def _pattern_faults(source: str, token: Token) -> list[str]:
    kind, word, offset = token
    raw = kind == "text" and re.fullmatch(r"[rR](\"[^\"]*\"|'[^']*')", word)
    text = raw[1][1:-1] if raw else _literal(token)
    try:
        if text is not None:
            pattern(text)
    except ValueError as error:
        return [f"{_place(source, offset)}: {error}"]
    return []


@functools.cache
def _compiler() -> Any:
    """The CEL environment. Raises ImportError where the extra `cel` is not installed."""
    from cel_expr_python import cel

    text, kind = cel.Type.STRING, cel.Type
    variables = dict.fromkeys(TEXTS, text) | dict.fromkeys(MAPS[:-1], kind.Map(text, text))
    return cel.NewEnv(variables=variables | {"facts": kind.Map(text, kind.DYN)})


def _compiled(source: str) -> tuple[Callable[[dict[str, Any]], Any], str]:
    """What evaluates `source`, and the name of its type. ValueError holds a line per fault.

    CEL gives failures at run time as values of their own type, whose Python value is a text: only
    the very value True is true.
    """
    environment = _compiler()
    try:
        expression = environment.compile(source)
    except RuntimeError as error:
        raise ValueError("\n".join(_faults(source, str(error)))) from None

    def evaluate(data: dict[str, Any]) -> Any:
        return expression.eval(data=data).value()

    return evaluate, str(expression.return_type().name()).lower()


_FAULT = re.compile(r"^(?:INVALID_ARGUMENT: )?ERROR: <input>:(-?\d+):(-?\d+): (.*)$", re.MULTILINE)


def _faults(source: str, report: str) -> list[str]:
    """CEL's report in our words, one line per fault."""
    found: dict[str, None] = {}
    lines = source.split("\n")
    for match in _FAULT.finditer(report):
        line, column = int(match[1]), int(match[2])
        at = lines[line - 1][column - 1 :] if 0 < line <= len(lines) and column > 0 else ""
        place = f"expression {line}:{column}: " if line > 0 else "expression: "
        found[place + _words(match[3].removesuffix(" [INVALID_ARGUMENT]"), at)] = None
    return list(found) or [f"expression: {report}"]


def _words(problem: str, at: str) -> str:
    if match := re.match(r"undeclared reference to '([^']*)'", problem):
        if at.startswith("("):
            return f"unknown function {match[1]!r}"
        if "." in match[1]:
            return f'unknown name {match[1]!r}; a fact is written facts["{match[1]}"]'
        near = difflib.get_close_matches(match[1], NAMES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"names: {', '.join(NAMES)}"
        return f"unknown name {match[1]!r}; {hint}"
    if match := re.match(
        r"found no matching overload for '([^']*)' applied to '\((.*)\)'", problem
    ):
        name = {"_[_]": "[ ]", "_?_:_": "? :", "@in": "in"}.get(match[1], match[1].strip("_"))
        return f"{name!r} cannot be applied to {match[2] or 'nothing'}"
    if "<EOF>' expecting" in problem:
        return "the expression ends too early"
    if match := re.match(r"Syntax error: token recognition error at: '(.*)'$", problem):
        word = match[1].strip()
        return "write == to compare" if word == "=" else f"cannot read {word!r}"
    if match := re.match(
        r"Syntax error: (?:mismatched|extraneous) input '(.*)' expecting", problem
    ):
        return f"{match[1]} is not expected here"
    if match := re.match(r"Exceeded max recursion depth of (\d+)", problem):
        return f"nested more than {match[1]} levels deep; split it into several matches"
    return problem.removeprefix("Syntax error: ")


def check(source: str, known_facts: Collection[str] | None = None) -> None:
    """Raise what `expression_test` would, and ValueError for facts not among `known_facts`."""
    names_in(source, known_facts)
    expression_test(source)


def expression_test(
    source: str, *, clock: Callable[[], float] = time.monotonic
) -> Callable[[Exchange], bool]:
    """Whether an exchange meets the CEL expression `source`.

    Raises ValueError, one line per fault, for a wrong name or type and for an expression that
    gives anything but true or false; ImportError where the extra `cel` is not installed. What
    fails at run time does not match, and is logged once a minute.
    """
    names = names_in(source)
    evaluate, kind = _compiled(source)
    if kind != "bool":
        raise ValueError(f"expression 1:1: this gives {_kind_words(kind)}, not true or false")
    readers = tuple((name, _reader(name, names)) for name in sorted(names.variables))
    next_log_s = float("-inf")

    def matches(exchange: Exchange) -> bool:
        nonlocal next_log_s
        try:
            outcome = evaluate({name: read(exchange) for name, read in readers})
        except Exception as error:  # a value that CEL has no type for, such as half a character
            outcome = f"{type(error).__name__}: {error}"
        if outcome is True or outcome is False:
            return outcome
        now_s = clock()
        if now_s >= next_log_s:
            next_log_s = now_s + LOG_EVERY_S
            log.warning("expression %r failed and does not match: %.300r", source, outcome)
        return False

    return matches


def read_names(source: str, exchange: Exchange) -> dict[str, Any]:
    """What `source` reads of `exchange`: each variable, or of a map each key."""
    names = names_in(source)
    found: dict[str, Any] = {}
    for name in sorted(names.variables):
        value, keys = _reader(name, names)(exchange), names.keys.get(name)
        found |= (
            {f"{name}.{key}": value.get(key) for key in sorted(keys)} if keys else {name: value}
        )
    return found


def _kind_words(kind: str) -> str:
    return "a value of any type" if kind == "dyn" else kind


def _reader(name: str, names: Names) -> Callable[[Exchange], Any]:
    """How one variable is read from an exchange: maps only as far as the expression looks."""
    keys = names.keys.get(name)
    if name == "headers" and keys is not None:
        return functools.partial(_named_headers, wanted={key.encode(): key for key in keys})
    if name == "facts":
        return functools.partial(_facts, wanted=tuple(keys or ()))
    return _READERS[name]


def _headers(exchange: Exchange) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in exchange.request.headers.items():
        name = name.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _named_headers(exchange: Exchange, wanted: Mapping[bytes, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw, value in exchange.request.headers.pick(wanted):
        name, text = wanted[raw], value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def _facts(exchange: Exchange, wanted: tuple[str, ...]) -> dict[str, Any]:
    named = exchange.facts.named
    return {name: _plain(named(name)) for name in wanted}


def _plain(value: Any) -> Any:
    """A fact as CEL takes it; null where nothing is known."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(str(each) for each in value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return str(value)


_READERS: Mapping[str, Callable[[Exchange], Any]] = {
    "method": lambda exchange: exchange.request.method,
    "scheme": lambda exchange: exchange.request.scheme,
    "host": lambda exchange: exchange.request.host,
    "path": lambda exchange: decoded_path(exchange.request.path),
    "client": lambda exchange: str(exchange.client),
    "query": lambda exchange: {
        name: values[0] for name, values in query_parameters(exchange.request.query).items()
    },
    "headers": _headers,
    "cookies": lambda exchange: exchange.request.cookies(),
}
