"""Comments that allow a finding: `# edgeproxy: allow CODE reason`.

At the end of a line such a comment is about that line; alone, about the next line that is neither
blank nor a comment. The parsed policy has no comments, so the files are looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from edgeproxy.errors import Place
from edgeproxy.lint.finding import Finding
from edgeproxy.policy.files import Source
from edgeproxy.policy.source import MAX_SHOWN, line_texts
from edgeproxy.values import did_you_mean

CODES = ("allow-without-reason", "idle-allow", "unknown-allow")

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ALLOW = re.compile(r"#\s*edgeproxy:\s*allow\b[ \t]*(?P<code>[^ \t]*)[ \t]*(?P<reason>.*)")


@dataclass(frozen=True, slots=True)
class Allow:
    """One comment: the code it allows, why, and the line that it is about."""

    place: Place
    code: str
    reason: str
    line: int


def allows(sources: Iterable[Source]) -> Iterator[Allow]:
    """Every such comment of the files."""
    for file, content in sources:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        if "edgeproxy:" not in text:
            continue
        lines = line_texts(text)
        for row, column in comments(text, lines):
            found = _ALLOW.match(lines[row][column:].rstrip())
            if found is not None:
                shown = lines[row].replace("\t", " ")
                width = len(found.group())
                place = Place(
                    file, row + 1, column + 1, width, shown if len(shown) <= MAX_SHOWN else ""
                )
                line = row + 1 if lines[row][:column].strip() else _next(lines, row + 1)
                yield Allow(place, found["code"], found["reason"], line)


def _next(lines: Sequence[str], row: int) -> int:
    """The number, from 1, of the first line from `row` on that says something."""
    while row < len(lines) and (not lines[row].strip() or lines[row].lstrip().startswith("#")):
        row += 1
    return row + 1


def comments(text: str, lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where comments begin: row and column, from 0. A `#` within a scalar begins none."""
    scalars: dict[int, list[tuple[int, int]]] = {}
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.ScalarEvent):
            for row, span in _spans(event, lines):
                scalars.setdefault(row, []).append(span)
    for row, line in enumerate(lines):
        for match in re.finditer(r"(?:^|(?<=[ \t]))#", line):
            column = match.start()
            if not any(start <= column < end for start, end in scalars.get(row, ())):
                yield row, column
                break


def _spans(event: Any, lines: Sequence[str]) -> Iterator[tuple[int, tuple[int, int]]]:
    """The part of each row that a scalar takes up; of a `|` or `>` only what is below it."""
    start, end = event.start_mark, event.end_mark
    for row in range(start.line, min(end.line + 1, len(lines))):
        first = start.column if row == start.line else 0
        last = end.column if row == end.line else len(lines[row])
        if event.style in ("|", ">") and row == start.line:
            last = first
        yield row, (first, last)


def heeded(
    findings: Iterable[Finding], found: Iterable[Allow], known: Collection[str]
) -> list[Finding]:
    """`findings` without those that are allowed, and with what is wrong about allowing."""
    given = list(found)
    kept: list[Finding] = []
    used: set[Allow] = set()
    for finding in findings:
        place = finding.place
        by = [
            allow
            for allow in given
            if (allow.place.file, allow.line, allow.code) == (place.file, place.line, finding.code)
        ]
        used.update(by)
        if not by:
            kept.append(finding)
    return [*kept, *(each for allow in given for each in _wrong(allow, allow in used, known))]


def _wrong(allow: Allow, is_used: bool, known: Collection[str]) -> Iterator[Finding]:
    def finding(code: str, reason: str, fix: str) -> Finding:
        return Finding(code, "warning", True, allow.place, reason, fix)

    if allow.code not in known:
        reason = f"nothing has the code {allow.code!r}" if allow.code else "this allows nothing"
        hint = did_you_mean(allow.code, known) or "; write a code as the finding shows it"
        yield finding("unknown-allow", reason, hint.removeprefix("; "))
    elif not is_used:
        reason = f"there is no {allow.code} in line {allow.line} to be allowed"
        yield finding("idle-allow", reason, "remove the comment, or put it above the line it means")
    elif not allow.reason:
        reason = "this says that the finding is allowed, and not why"
        yield finding("allow-without-reason", reason, f"write: allow {allow.code} BECAUSE")
