"""Which conditions on a text follow from one another, and which can never hold together.

What is said here is proved; where that takes more than a few lines (what two patterns have in
common, say) the answer is that it cannot be told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeproxy.api import Constraint

from .text import Condition, text_test

_PRESENT = Condition[Any](present=True)
_PRESENCE = frozenset(("present", "absent"))
_PLAIN = re.compile(
    r"[A-Za-z0-9._~-]+", re.ASCII
)  # can be sent as a value, whatever the name is of

_HOLDS: Mapping[str, Callable[[str, str], bool]] = {
    "exact": str.__eq__, "prefix": str.startswith, "suffix": str.endswith,
    "contains": str.__contains__,
}  # fmt: skip
# A kind, and of which kinds the texts show whether it holds for all that meets them.
_SHOWN_BY = {
    "exact": ("exact",), "prefix": ("exact", "prefix"), "suffix": ("exact", "suffix"),
    "contains": ("exact", "prefix", "suffix", "contains"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TextConstraint(Constraint):
    """A condition on a named text. `values` tells whether any text meets it, or the lack of one."""

    condition: Condition[Any] = _PRESENT

    def covers(self, other: Constraint) -> bool | None:
        assert isinstance(other, TextConstraint)
        return follows(self.condition, other.condition)

    def excludes(self, other: Constraint) -> bool | None:
        assert isinstance(other, TextConstraint)
        if self.condition.present is False or other.condition.present is False:
            return self.condition.present != other.condition.present
        return None if self.several else clash(self.condition, other.condition)

    def is_covered_by(self, values: Iterable[Any]) -> bool:
        return frozenset(values) >= _PRESENCE


def constraints(
    kind: str, conditions: Mapping[str, Condition[Any]], *, several: bool = False
) -> list[Constraint]:
    """A constraint for each named text. `kind` says what has the names: header, cookie, query."""
    return [
        TextConstraint(f"{kind} {name}", _met_by(each), _PRESENCE, several, each)
        for name, each in conditions.items()
    ]


def _met_by(condition: Condition[Any]) -> frozenset[str]:
    if condition.present is None:
        return frozenset()
    return frozenset(("present",) if condition.present else ("absent",))


def follows(wanted: Condition[Any], given: Condition[Any]) -> bool | None:
    """Whether whatever meets `given` meets `wanted`; None if that cannot be told."""
    if wanted == given:
        return True
    if wanted.present is not None:
        return wanted.present is (given.present is not False)
    if given.present is False:
        return False
    if wanted.regex == ".*":
        return True
    if given.present or given.regex is not None:
        return None
    return _follows_from_texts(wanted, given)


def _follows_from_texts(wanted: Condition[Any], given: Condition[Any]) -> bool | None:
    given_kind, texts = _texts(given, fold=wanted.ignore_case)
    if _is_list(given):
        return _told([text for text in given.exact or () if not text_test(wanted)(text)])
    if wanted.regex is not None or (given.ignore_case and not wanted.ignore_case):
        return None
    kind, parts = _texts(wanted, fold=wanted.ignore_case)
    if given_kind not in _SHOWN_BY[kind]:
        return None
    return all(any(_HOLDS[kind](text, part) for part in parts) for text in texts) or None


def clash(one: Condition[Any], other: Condition[Any]) -> bool | None:
    """Whether no text meets both, neither of which is `present: false`; None as above."""
    if one.present or other.present:
        return False
    for given, wanted in ((one, other), (other, one)):
        if _is_list(given):
            return _told([text for text in given.exact or () if text_test(wanted)(text)])
    if one.regex is not None or other.regex is not None:
        return None
    fold = one.ignore_case or other.ignore_case
    forms = sorted((_texts(one, fold=fold), _texts(other, fold=fold)))  # exact comes before others
    (kind, texts), (other_kind, parts) = forms[0], forms[1]
    if kind not in ("exact", other_kind) or kind == "contains":
        return None
    holds = _HOLDS[other_kind]
    same = kind == other_kind
    meet = (holds(text, part) or (same and holds(part, text)) for text in texts for part in parts)
    return not any(meet) or None


def _is_list(condition: Condition[Any]) -> bool:
    """Whether it names every text that meets it, letter by letter."""
    return condition.exact is not None and not condition.ignore_case


def _told(found: list[str]) -> bool | None:
    """True if there is none; False if one of them can surely be sent."""
    if not found:
        return True
    return False if any(_PLAIN.fullmatch(text) for text in found) else None


def _texts(condition: Condition[Any], *, fold: bool) -> tuple[str, tuple[str, ...]]:
    """The kind of a condition, neither `regex` nor `present`, and its texts."""
    kind = next(kind for kind in _HOLDS if getattr(condition, kind) is not None)
    texts: tuple[str, ...] = getattr(condition, kind)
    return kind, tuple(text.casefold() for text in texts) if fold else texts
