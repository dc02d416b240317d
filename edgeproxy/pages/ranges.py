"""The Range header, read as nginx reads it (RFC 9110, section 14, with nginx's deviations)."""

import re
from typing import Literal

UNIT = "bytes="
PART = re.compile(r" *(?:([0-9]+) *- *([0-9]*)|-([0-9]+)) *")

type Span = tuple[int, int]  # first and last byte, both included


def parse_range(value: str, size: int) -> list[Span] | Literal["whole", "unsatisfiable"]:
    """The spans that `value` asks of a body of `size` bytes, in the order asked.

    "whole" means the header is to be ignored (200), "unsatisfiable" means 416. Other than RFC 9110
    has it, nginx answers 416 to nonsense such as `bytes=5-1`, and sends the whole body where the
    spans add up to more than it.
    """
    if value[: len(UNIT)].lower() != UNIT:
        return "whole"
    spans: list[Span] = []
    for part in value[len(UNIT) :].split(","):
        match = PART.fullmatch(part)
        if match is None:
            return "unsatisfiable"
        first, last = _bounds(match, size)
        if first <= last:
            spans.append((first, last))
        elif first == 0:  # any range of an empty body
            return "whole"
    if not spans:
        return "unsatisfiable"
    return "whole" if sum(last - first + 1 for first, last in spans) > size else spans


def _bounds(match: re.Match[str], size: int) -> Span:
    start, end, suffix = (_number(digits) for digits in match.groups())
    if start is None:
        return max(0, size - (suffix or 0)), size - 1
    return start, size - 1 if end is None else min(end, size - 1)


def _number(digits: str | None) -> int | None:
    """The number, cut at 19 digits: no file is larger, and int() of a huge one takes long."""
    return int(digits.lstrip("0")[:19] or 0) if digits else None
