"""What a check says, and what makes a check of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from edgeproxy.doctor.view import View

State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says of one subject: an origin, a port, or nothing in particular.

    `why` it matters, and how to `mend` it; a verdict that is ok needs no mending.
    """

    check: str
    state: State
    subject: str
    says: str
    why: str
    mend: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        what = f"{self.check} {self.subject}".rstrip()
        line = f"{self.state:<8} {what}: {self.says}"
        if self.state == "ok":
            return line
        return f"{line}\n         why:  {self.why}\n         mend: {self.mend}"


type Judged = tuple[State, str, str, str]
type Judges = Callable[[View], Iterator[Judged]]


def ok(says: str, *, of: str = "") -> Judged:
    return "ok", of, says, ""


def warning(says: str, mend: str, *, of: str = "") -> Judged:
    return "warning", of, says, mend


def fault(says: str, mend: str, *, of: str = "") -> Judged:
    return "fault", of, says, mend


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at. `name` never changes."""

    name: str
    why: str
    judges: Judges

    def verdicts(self, view: View) -> list[Verdict]:
        """One for each subject; none if there is nothing to look at."""
        return [
            Verdict(self.name, state, of, says, self.why, mend)
            for state, of, says, mend in self.judges(view)
        ]


def check(name: str, why: str) -> Callable[[Judges], Check]:
    """Make a check of a function that yields `ok`, `warning` and `fault`."""
    return lambda judges: Check(name, why, judges)
