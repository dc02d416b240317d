"""A site in memory, and a clock that jumps to when the next sleeper wakes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from multidict import CIMultiDict

from edgeproxy.starter.findings import Findings, findings
from edgeproxy.starter.survey import Seen, survey
from edgeproxy.warm.crawl import Got, Pace, Unreachable


def answer(text: str = "", status: int = 200, kind: str = "text/html", **fields: str) -> Got:
    """An answer; `location` and the like are given with underscores for hyphens."""
    headers = CIMultiDict({name.replace("_", "-"): value for name, value in fields.items()})
    headers.setdefault("content-type", kind)
    return Got(status, headers, text.encode(), len(text))


@dataclass
class Web:
    """Sites by URL: HTML as text, anything else as a `Got`, or what to raise."""

    pages: dict[str, Any]
    asked: list[str] = field(default_factory=list)
    now_s: float = 0.0
    takes_s: float = 0.0

    async def get(self, url: str) -> Got:
        self.asked.append(url)
        self.now_s += self.takes_s
        found = self.pages.get(url, answer("not here", 404, "text/plain"))
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, Got) else answer(found)

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def now(self) -> float:
        return self.now_s

    async def survey(self, url: str) -> Seen:
        return await survey(url, self.get, Pace(5, self.now, self.sleep), self.now)

    async def findings(self, url: str) -> Findings:
        return findings(await self.survey(url))


__all__ = ["Unreachable", "Web", "answer"]
