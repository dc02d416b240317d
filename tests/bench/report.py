"""What came out of a group of contestants: a table to read, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.bench.contest import median
from tests.bench.contestants import Contestant

FORMATS = {
    "req/s": ",.0f",
    "p50 ms": ".2f",
    "p99 ms": ".2f",
    "CPU us": ".1f",
    "± %": ".0f",
    "MB": ",.0f",
    "errors": ",d",
    "objects": ",.0f",
    "bodies MB": ",.0f",
    "tier MB": ",.0f",
    "grown MB": ",.0f",
}
WITH_RATIO = ("req/s", "p99 ms", "CPU us")


@dataclass(slots=True)
class Report:
    """One group. The first row is what ratios refer to; `notes` are for the reader."""

    name: str
    title: str
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    with_ratio: Sequence[str] = WITH_RATIO

    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for row in self.rows.values() for column in row))

    def ratio(self, row: str, column: str) -> float:
        """To the first row; NaN where there is nothing to compare."""
        first = next(iter(self.rows.values())).get(column, 0)
        return self.rows[row].get(column, float("nan")) / first if first else float("nan")

    def lines(self) -> Iterator[str]:
        yield f"{self.name}: {self.title}"
        if self.rows:
            yield from self._table()
        for note in self.notes:
            yield f"  {note}"

    def _table(self) -> Iterator[str]:
        wide = max(14, *(len(name) for name in self.rows))
        heads = [
            f"{column:>10}" + ("  ratio" if column in self.with_ratio else "")
            for column in self.columns()
        ]
        yield f"  {'':{wide}}{''.join(heads)}"
        for name, row in self.rows.items():
            cells = []
            for column in self.columns():
                value = row.get(column)
                shown = "-" if value is None else format(value, FORMATS.get(column, ".2f"))
                ratio = f"{self.ratio(name, column):7.2f}" if column in self.with_ratio else ""
                cells.append(f"{shown:>10}{ratio}")
            yield f"  {name:{wide}}{''.join(cells)}"

    def as_json(self) -> dict[str, object]:
        ratios = {
            name: {column: self.ratio(name, column) for column in self.with_ratio if column in row}
            for name, row in self.rows.items()
        }
        return {
            "name": self.name,
            "title": self.title,
            "rows": self.rows,
            "ratios": ratios,
            "notes": self.notes,
        }


def row_of(one: Contestant) -> dict[str, float]:
    """Medians of the rounds; `± %` is half of what lies between the best and the worst CPU time."""
    cost = median(one.costs_us)
    return {
        "req/s": median([done.rate for done in one.rounds]),
        "p50 ms": median([done.p50_ms for done in one.rounds]),
        "p99 ms": median([done.p99_ms for done in one.rounds]),
        "CPU us": cost,
        "± %": (max(one.costs_us) - min(one.costs_us)) / 2 / cost * 100,
        "MB": one.memory_bytes / 1e6,
        "errors": sum(done.errors for done in one.rounds),
    }
