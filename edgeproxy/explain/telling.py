"""An explanation for people: a tree of plain text, in colour on a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from edgeproxy.explain.explanation import (
    Caching,
    Clause,
    Compared,
    Effect,
    Explanation,
    KnownFact,
    TriedRoute,
    Upstream,
)
from edgeproxy.log_formats import printable

MANY_ROUTES = 20  # beyond it those for other hosts and paths are only counted
MAX_VALUE = 300  # characters of one value

_REASONS = {
    "SPLIT": "by weight",
    "CACHED": "kept by the visitor's cookie",
    "TARGETING_MATCH": "the client is a bot",
    "FORCED": "forced by the query",
}

_BOLD, _DIM, _GREEN, _YELLOW, _RED = "1", "2", "32", "33", "31"


def has_colours(stream: TextIO) -> bool:
    """Whether `stream` is a terminal of somebody who wants colours (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def tell(explanation: Explanation, *, colours: bool = False) -> str:
    """The whole explanation, as lines."""
    return "\n".join(_Teller(colours).lines(explanation)) + "\n"


def in_short(explanation: Explanation) -> str:
    """The route and why it was taken, what answers, and what the cache makes of it: one line."""
    if explanation.route is None:
        said = f"{explanation.answered_by} answers" if explanation.answered_by else "no route"
        return f"{said}; status {explanation.answer.status}"
    taken = explanation.routes[-1]
    upstream = explanation.upstream
    origin = f"origin {upstream.origin}" if upstream and not explanation.answered_by else ""
    parts = (
        f"route {taken.name}, {taken.place}: {'; '.join(_outcome(taken))}",
        f"{explanation.answered_by} answers" if explanation.answered_by else origin,
        f"cache: {explanation.caching.code}",
    )
    return "; ".join(part for part in parts if part)


class _Teller:
    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def _in(self, colour: str, text: str) -> str:
        return f"\033[{colour}m{text}\033[0m" if self._colours and text else text

    def lines(self, of: Explanation) -> Iterator[str]:
        arrival = of.arrival
        request = f"{arrival.method} {printable(arrival.url)}"
        yield self._in(_BOLD, request) + f" from {arrival.client} at {arrival.at}"
        yield from _fields(arrival.headers, "  ")
        yield f"policy {of.policy}"
        yield from self._section("facts", _columns(_fact(fact) for fact in of.facts if _says(fact)))
        yield from self._section("routes", self._routes(of))
        yield from self._section("filters", _columns(_effects(of.effects)))
        yield from self._section("origin", self._origin(of.upstream, of.answered_by))
        yield from self._section("cache", _cache(of.caching))
        yield from self._section("answer", self._answer(of))

    def _section(self, title: str, lines: Iterable[str]) -> Iterator[str]:
        found = [f"  {line}" for line in lines]
        if found:
            yield from ("", self._in(_BOLD, title), *found)

    # ------------------------------------------------------------ routes

    def _routes(self, of: Explanation) -> Iterator[str]:
        shown = of.routes
        if len(shown) > MANY_ROUTES:
            shown = tuple(route for route in shown if route.matched or not _is_elsewhere(route))
        left_out = len(of.routes) - len(shown) + of.elsewhere
        width = max((len(route.name) for route in shown), default=0)
        places = max((len(route.place) for route in shown), default=0)
        for route in shown:
            mark = self._in(_GREEN, "yes") if route.matched else self._in(_DIM, "no ")
            head = f"{mark}  {route.name:<{width}}  {route.place:<{places}}"
            indent = " " * (9 + width + places - 2)
            for number, words in enumerate(_outcome(route)):
                yield f"{indent if number else head}  {words}"
            for near in _near(route) if not route.matched else ():
                yield f"{indent}  {self._in(_YELLOW, near)}"
        if left_out:
            yield self._in(_DIM, f"and {left_out} before, for other hosts or paths")
        if of.route is None and (of.routes or of.elsewhere):
            yield self._in(_RED, "no route matches")
        if of.caching.code == "unknown-host":
            yield self._in(_RED, f"no route is tried: {printable(of.caching.words)}")

    # ------------------------------------------------------------ what follows

    def _origin(self, upstream: Upstream | None, answered_by: str) -> Iterator[str]:
        if answered_by:
            yield f"not asked: {answered_by} answers"
        elif upstream is not None:
            place = f", {upstream.place}" if upstream.place else ""
            chosen_by = f"; chosen by {upstream.chosen_by}" if upstream.chosen_by else ""
            yield f"{upstream.origin}{place}{chosen_by}"
            would = "" if upstream.was_asked else "not asked, it would be "
            yield f"{would}{upstream.method} {printable(upstream.url)}"
            yield from _fields(upstream.headers, "  ")

    def _answer(self, of: Explanation) -> Iterator[str]:
        status = of.answer.status
        colour = _GREEN if status < 400 else _RED
        assumed = "  (the origin was not asked, its answer is made up)" if of.is_assumed else ""
        yield self._in(colour, str(status)) + assumed
        yield from _fields(of.answer.headers, "  ")
        if of.error:
            yield self._in(_RED, printable(of.error))


def _fields(fields: Iterable[tuple[str, str]], indent: str) -> Iterator[str]:
    return (f"{indent}{printable(name)}: {spelled(value)}" for name, value in fields)


def _columns(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Rows of one length, set below each other; the last column is not padded."""
    found = list(rows)
    widths = [max(map(len, column)) for column in zip(*found, strict=True)][:-1]
    for row in found:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[-1]]).rstrip()


def _says(fact: KnownFact) -> bool:
    return fact.is_given or fact.value not in (None, "", 0)


def _fact(fact: KnownFact) -> tuple[str, ...]:
    reason = f", {fact.reason}: {_REASONS.get(fact.reason, '')}".rstrip(": ") if fact.reason else ""
    source = "given" if fact.is_given else f"plugin {fact.plugin}{reason}"
    return fact.name, spelled(fact.value), source


# ------------------------------------------------------------ routes and their clauses


def _is_elsewhere(route: TriedRoute) -> bool:
    failed = [match.failed for match in route.matches]
    return all(clause is not None and clause.key in ("host", "path") for clause in failed)


def _outcome(route: TriedRoute) -> list[str]:
    """A line for each match that did not hold; or one that says why the route was taken."""
    if not route.matched:
        return list(dict.fromkeys(_difference(match.failed) for match in route.matches))
    held = [match for match in route.matches if match.holds]
    clauses = held[0].clauses if held else ()
    return [", ".join(map(_seen, clauses)) or "takes every request"]


def _difference(clause: Clause | None) -> str:
    if clause is None:
        return "not tried"
    if clause.error:
        return f"{clause.key} failed: {printable(clause.error)}"
    _, wanted = _side_by_side(clause)
    return f"{_seen(clause)}; wanted {wanted}"


def _seen(clause: Clause) -> str:
    if not clause.is_told:
        return f"{clause.key} {'holds' if clause.held else 'does not hold'}"
    seen, _ = _side_by_side(clause)
    return f"{clause.key} {seen}"


def _side_by_side(clause: Clause) -> tuple[str, str]:
    """What was seen, with its verb, and what was wanted; of one field alone without the rest."""
    seen, wanted = clause.seen, clause.wanted
    if isinstance(seen, dict):
        if isinstance(wanted, dict) and len(wanted) == 1 and seen.keys() == wanted.keys():
            wanted = next(iter(wanted.values()))
        found = ", ".join(f"{printable(name)} is {spelled(value)}" for name, value in seen.items())
        return found, spelled(wanted)
    return f"is {spelled(seen)}", spelled(wanted)


def _near(route: TriedRoute) -> Iterator[str]:
    for match in route.matches:
        if match.is_near:
            yield f"would match if {_wish(match)}"


def _wish(match: Compared) -> str:
    clause = match.failed
    assert clause is not None
    if not clause.is_told or clause.error:
        return f"{clause.key} held"
    seen, wanted = clause.seen, clause.wanted
    if not isinstance(seen, dict):
        return f"{clause.key} were {spelled(wanted, ' or ')}"
    if isinstance(wanted, dict) and len(wanted) == 1 and seen.keys() == wanted.keys():
        ((name, value),) = wanted.items()
        return f"{clause.key} {printable(name)} were {spelled(value, ' or ')}"
    return f"{clause.key} were {spelled(wanted, ' or ')}"


def spelled(value: Any, last: str = ", ") -> str:
    """A value in the words of a policy: texts bare, lists without brackets."""
    if value is None:
        return "absent"
    if value == "":
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        if value.keys() <= {"exact", "glob"} and len(value) == 1:
            return spelled(next(iter(value.values())), last)
        inner = ", ".join(f"{printable(str(k))}: {spelled(v, last)}" for k, v in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list | tuple):
        words = [spelled(each) for each in value]
        return last.join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
    text = printable(str(value))
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}..."


# ------------------------------------------------------------ filters and the cache


def _effects(effects: Sequence[Effect]) -> Iterator[tuple[str, str, str, str]]:
    """A row for each change; filters that changed nothing come last."""
    changed = {(effect.filter, effect.place) for effect in effects if not effect.is_nothing}
    for effect in effects:
        name = effect.filter or f"plugin {effect.plugin}"
        for number, words in enumerate(_changes(effect)):
            head = (effect.phase, name, effect.place) if not number else ("", "", "")
            yield *head, words
    idle = dict.fromkeys((effect.filter, effect.place) for effect in effects if effect.filter)
    for name, place in idle:
        if (name, place) not in changed:
            yield "", name, place, "changes nothing"


def _changes(effect: Effect) -> Iterator[str]:
    if effect.error:
        yield f"fails: {printable(effect.error)}"
    if effect.answered:
        yield f"answers {effect.answered}"
    if effect.target:
        yield f"asks {printable(effect.target)}"
    yield from (f"key {printable(name)}={spelled(value)}" for name, value in effect.key)
    yield from (f"- {printable(name)}: {spelled(value)}" for name, value in effect.removed)
    yield from (f"+ {printable(name)}: {spelled(value)}" for name, value in effect.added)
    yield from (f"sets the cookie {printable(cookie)}" for cookie in effect.cookies)


def _cache(caching: Caching) -> Iterator[str]:
    parts = [(printable(part.text), part.source) for part in caching.key]
    for number, line in enumerate(_columns(parts)):
        yield f"{'' if number else 'key':<7}  {line}"
    if caching.rule:
        yield f"rule     {caching.rule}, {caching.place}"
    source = f" ({caching.source})" if caching.source else ""
    yield f"verdict  {caching.code}: {printable(caching.words)}{source}"
