"""What happened to one exchange, step by step, for whoever asked: what `explain` is made of.

The pipeline tells an exchange's trace of every hook that it runs. Without a trace, which is the
usual case, that costs one comparison a hook.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeproxy.http import Exchange, Request, Response, Target

if TYPE_CHECKING:
    from edgeproxy.errors import Place

Field = tuple[str, str]  # name and value of a field line


@dataclass(slots=True)
class Step:
    """One hook that ran, and what it did.

    `filter` is the key of the filter it belongs to, empty for a hook of the plugin as a whole;
    `place` is where the policy has that filter. `facts` are the names it set or promised to work
    out. Of the message that it could edit, `removed` and `added` are the field lines it changed.
    """

    phase: str
    plugin: str
    filter: str = ""
    place: Place | None = None
    facts: tuple[str, ...] = ()
    removed: tuple[Field, ...] = ()
    added: tuple[Field, ...] = ()
    cookies: tuple[str, ...] = ()  # that the client will be told to keep
    target: Target | None = None  # chosen in phase `route`
    key: tuple[Field, ...] = ()  # what the answer depends on, in phase `cache_key`
    answered: int = 0  # the status of its own answer, in phases `admit` and `recover`
    error: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One clause of a match: whether it held, and what it looked at (`Matcher.seen`)."""

    held: bool
    seen: Any = NotImplemented
    error: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One match that was tried. `order` is its place in the policy: of its route, within that.

    `captures` is what the wildcards of its path stand for, None if the path differs; then no clause
    was looked at.
    """

    order: tuple[int, int]
    route: Any  # as it was compiled
    captures: tuple[str, ...] | None
    outcomes: tuple[Outcome, ...]

    @property
    def holds(self) -> bool:
        return self.captures is not None and all(one.held for one in self.outcomes)


@dataclass(slots=True)
class Trace:
    """What happened to one exchange: the matches that were tried, and the steps, in order.

    `attempts` is None if the journey ended before a route was wanted. `asked` is what the origin
    was sent, `received` the head of its answer, as it may be stored. `is_asked_for`: the client
    has asked for it, and may be told.
    """

    steps: list[Step] = field(default_factory=list)
    attempts: list[Attempt] | None = None
    asked: Request | None = None
    received: Response | None = None
    is_asked_for: bool = False

    def begin(self, step: Step, exchange: Exchange, arguments: Sequence[Any]) -> Watch:
        """Look at what `step` may change, before it runs."""
        self.steps.append(step)
        return Watch(step, exchange, arguments)


class Watch:
    """What a hook could change, as it was before."""

    def __init__(self, step: Step, exchange: Exchange, arguments: Sequence[Any]) -> None:
        self._step, self._exchange = step, exchange
        last = arguments[-1] if arguments else None
        self._message = last if isinstance(last, Request | Response) else None
        self._fields = list(self._message.headers.items()) if self._message else []
        self._facts = exchange.facts.names()
        self._cookies = len(exchange.cookies_to_set)

    def end(self, result: Any) -> None:
        """Note what is different now, and what the hook returned."""
        step, exchange = self._step, self._exchange
        step.facts = tuple(name for name in exchange.facts.names() if name not in self._facts)
        step.cookies = tuple(exchange.cookies_to_set[self._cookies :])
        if self._message is not None:
            now = list(self._message.headers.items())
            step.removed = _without(self._fields, now)
            step.added = _without(now, self._fields)
        if isinstance(result, Target):
            step.target = result
        elif isinstance(result, Response):
            step.answered = result.status


def _without(fields: Sequence[Field], others: Sequence[Field]) -> tuple[Field, ...]:
    """`fields` less `others`, each as often as it is there."""
    left = list(others)
    kept: list[Field] = []
    for one in fields:
        if one in left:
            left.remove(one)
        else:
            kept.append(one)
    return tuple(kept)
