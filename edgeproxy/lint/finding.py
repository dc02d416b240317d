"""What a rule finds, and how rules are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgeproxy.errors import Fault, Place

if TYPE_CHECKING:
    from edgeproxy.lint.view import View

Severity = Literal["error", "warning"]

type Found = Iterator[tuple[Place, str, str]]
"""Places, each with a reason and a fix."""

type Looks = Callable[[View], Found]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a policy that loads and yet is not right, or not likely to be meant.

    An `error` is proved to be of no use or to fail visitors. `certain` is false where the rule can
    only guess what was meant. `code` never changes.
    """

    code: str
    severity: Severity
    certain: bool
    place: Place
    reason: str
    fix: str

    def __str__(self) -> str:
        return str(Fault(self.code, f"{self.severity}: {self.reason}; {self.fix}", self.place))

    def as_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "severity": self.severity,
            "certain": self.certain,
            "file": self.place.file,
            "line": self.place.line,
            "column": self.place.column,
            "width": self.place.width,
            "reason": self.reason,
            "fix": self.fix,
        }


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of finding."""

    code: str
    severity: Severity
    certain: bool
    look: Looks

    def findings(self, view: View) -> Iterator[Finding]:
        for place, reason, fix in self.look(view):
            yield Finding(self.code, self.severity, self.certain, place, reason, fix)


def rule(code: str, severity: Severity, *, certain: bool = True) -> Callable[[Looks], Rule]:
    """Make a rule of a function that yields a place, a reason and a fix for all that it finds."""
    return lambda look: Rule(code, severity, certain, look)
