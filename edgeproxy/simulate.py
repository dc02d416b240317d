"""What a cache of some size would have done with an access log: `edgeproxy cache simulate`.

The memory tier is the one that serves, with the clock of the log; bodies have a size and no bytes.
The disk is a model of the tier that serves: least recently used goes first, and what is new gets
in once it is filling up only when it is asked for again.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import OrderedDict
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.rules import key_query, policy_ttl_s
from edgeproxy.caching.tiers import StoredResponse, Tier
from edgeproxy.http import Exchange, Headers, Request
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.installed import Broken, installed
from edgeproxy.policy.load import load
from edgeproxy.routing import find
from edgeproxy.traffic import Seen, Unreadable, Visit, read
from edgeproxy.traffic.logs import parse_line
from edgeproxy.traffic.reading import UNREADABLE
from edgeproxy.values import Size

DEFAULT_TTL_S = 600.0  # what GitHub Pages gives every page
COUNTED_STATUSES = frozenset((200, 301, 404))
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of all bytes, where no sizes are asked for
MAX_SIZE_BYTES = 2**40
ROOMY_SHARE = 0.8  # up to here the disk takes everything


@dataclass(frozen=True, slots=True)
class Access:
    """One line of a log that counts. `bytes` is what was sent."""

    at_s: float
    is_head: bool
    host: str
    path: str
    query: str | None
    status: int
    bytes: int


@dataclass(slots=True)
class Lines:
    """How many lines there were. `bad` ones cannot be read, `others` do not count."""

    total: int = 0
    bad: int = 0
    others: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """An access under the policy: what it is a request for, and how long an answer is fresh."""

    at_s: float
    is_head: bool
    key: str
    status: int
    bytes: int
    ttl_s: float
    revalidate_s: float = 0.0


@dataclass(slots=True)
class Result:
    """What a cache of this size would have done."""

    memory_bytes: int
    requests: int = 0
    hits: int = 0
    disk_hits: int = 0  # of the hits
    origin_requests: int = 0
    revalidations: int = 0  # of the origin requests: for news of what is stored
    bytes: int = 0
    hit_bytes: int = 0

    @property
    def hit_ratio(self) -> float:
        return self.hits / self.requests if self.requests else 0.0

    @property
    def byte_hit_ratio(self) -> float:
        return self.hit_bytes / self.bytes if self.bytes else 0.0

    def as_json(self) -> dict[str, Any]:
        ratios = {"hit_ratio": self.hit_ratio, "byte_hit_ratio": self.byte_hit_ratio}
        return asdict(self) | {name: round(ratio, 6) for name, ratio in ratios.items()}


# ------------------------------------------------------------ reading logs


def accesses(lines: Iterable[str], seen: Lines, host: str = "") -> Iterator[Access]:
    """The GETs and HEADs among `lines`, whose formats may be mixed; `seen` counts all.

    `host` is the one that lines which name none are for.
    """
    for line in lines:
        if not line.strip():
            continue
        seen.total += 1
        try:
            found = _access(parse_line(line, host))
        except UNREADABLE:
            seen.bad += 1
            continue
        if found is None:
            seen.others += 1
        else:
            yield found


def _access(seen: Visit) -> Access | None:
    if seen.method not in ("GET", "HEAD") or seen.status not in COUNTED_STATUSES:
        return None
    name = re.sub(r":\d+$", "", seen.authority)
    return Access(
        seen.at_s, seen.method == "HEAD", name, seen.path, seen.query, seen.status, seen.bytes
    )


# ------------------------------------------------------------ the policy


class Rules:
    """What a policy says about accesses. Without one, everything is fresh for ten minutes.

    A log does not tell what visitors sent, so that conditions on it are taken as not met.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        self._plan = plan
        self._known: dict[tuple[str, str], tuple[bool, CacheRule | None]] = {}

    def asked(self, access: Access) -> Asked | None:
        """None if the cache has no part in it."""
        takes_part, rule = self._rule(access.host, access.path)
        if not takes_part:
            return None
        query = access.query
        if rule is not None:
            query = key_query(query, rule.query, rule.ignore_query)
        key = access.host + access.path + ("" if query is None else f"?{query}")
        return Asked(
            access.at_s, access.is_head, key, access.status, access.bytes,
            self._ttl_s(rule, access.status), rule.stale_while_revalidate if rule else 0.0,
        )  # fmt: skip

    def _ttl_s(self, rule: CacheRule | None, status: int) -> float:
        ttl_s = policy_ttl_s(rule, status)
        if ttl_s is not None:
            return ttl_s
        return DEFAULT_TTL_S if self._plan is None or status == 200 else 0.0

    def _rule(self, host: str, path: str) -> tuple[bool, CacheRule | None]:
        if self._plan is None:
            return True, None
        if (host, path) not in self._known:
            exchange = Exchange(Request("GET", host, path, None, Headers()))
            found = find(self._plan.routes.candidates(host, path), exchange)
            cached = found is not None and found.route.cached
            self._known[host, path] = (cached, found.route.rule if found else None)
        return self._known[host, path]


# ------------------------------------------------------------ the tiers


class _Unmade(bytes):
    """A body that has a length and takes no memory."""

    length = 0

    def __len__(self) -> int:
        return self.length


def _entry(asked: Asked) -> StoredResponse:
    body = _Unmade()
    body.length = asked.bytes
    return StoredResponse(
        asked.key, asked.status, _NO_FIELDS, body, asked.at_s, asked.at_s, asked.ttl_s
    )


_NO_FIELDS = Headers()


class _Disk:
    """Least recently used goes first; a name is let in at its second time, once it fills up."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._entries: OrderedDict[str, StoredResponse] = OrderedDict()
        self._seen: set[str] = set()

    def get(self, id: str) -> StoredResponse | None:
        entry = self._entries.get(id)
        if entry is not None:
            self._entries.move_to_end(id)
        return entry

    def put(self, id: str, entry: StoredResponse) -> None:
        old = self._entries.pop(id, None)
        if old is not None:
            self._bytes -= old.size
        is_new = id not in self._seen and old is None
        self._seen.add(id)
        is_filling = self._bytes + entry.size > ROOMY_SHARE * self._max_bytes
        if entry.size > self._max_bytes or (is_new and is_filling):
            return
        self._entries[id] = entry
        self._bytes += entry.size
        while self._bytes > self._max_bytes:
            self._bytes -= self._entries.popitem(last=False)[1].size


def _memory(max_bytes: int) -> Tier:
    """The memory tier, as its plugin makes it."""
    kind = installed()["memory_cache"].load()
    assert not isinstance(kind, Broken), kind.reason
    assert kind.Config is not None
    (tier,) = kind(kind.Config(max_size=f"{max_bytes}B")).register_tiers()  # type: ignore[attr-defined]
    found: Tier = tier
    return found


def _done(work: Coroutine[Any, Any, None]) -> None:
    """Run what does not wait: the memory tier never does."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise RuntimeError("the memory tier waits")


def run(trace: Iterable[Asked], memory_bytes: int, disk_bytes: int = 0) -> Result:
    """What a cache of these sizes does with `trace`. The same trace gives the same result."""
    result = Result(memory_bytes)
    memory, disk = _memory(memory_bytes), _Disk(disk_bytes) if disk_bytes else None
    for asked in trace:
        result.requests += 1
        result.bytes += asked.bytes
        entry = memory.get(asked.key)
        from_disk = False
        if entry is None and disk is not None:
            entry = disk.get(asked.key)
            from_disk = entry is not None
            if entry is not None:
                _done(memory.put(asked.key, entry))
        stale_s = math.inf if entry is None else asked.at_s - entry.stored_at_s - entry.fresh_for_s
        if stale_s < 0 or (entry is not None and stale_s < asked.revalidate_s):
            result.hits += 1
            result.disk_hits += from_disk
            result.hit_bytes += asked.bytes
        if stale_s < 0:
            continue
        result.origin_requests += 1
        result.revalidations += entry is not None
        if asked.ttl_s > 0 and not (asked.is_head and entry is None):
            stored = _entry(asked)
            if asked.is_head and entry is not None:
                assert isinstance(stored.body, _Unmade)
                stored.body.length = len(entry.body)
            _done(memory.put(asked.key, stored))
            if disk is not None:
                disk.put(asked.key, stored)
    return result


def distinct_bytes(trace: Iterable[Asked]) -> int:
    """The bytes of all that was asked for, each thing once, at its largest."""
    largest: dict[str, int] = {}
    for asked in trace:
        largest[asked.key] = max(largest.get(asked.key, 0), asked.bytes)
    return sum(largest.values())


# ------------------------------------------------------------ showing


def table(results: Sequence[Result], has_disk: bool) -> list[str]:
    rows = [("MEMORY", "HITS", "BYTE HITS", "ORIGIN REQUESTS", "FROM DISK", "")]
    for one in results:
        bar = "█" * round(one.hit_ratio * 30)
        rows.append(
            (
                spelled(one.memory_bytes), f"{one.hit_ratio:.1%}", f"{one.byte_hit_ratio:.1%}",
                str(one.origin_requests), str(one.disk_hits), bar,
            )
        )  # fmt: skip
    columns = [0, 1, 2, 3, *([4] if has_disk else [])]
    widths = {column: max(len(row[column]) for row in rows) for column in columns}
    return [
        "  ".join([*(row[c].rjust(widths[c]) for c in columns), row[5]]).rstrip() for row in rows
    ]


def svg(results: Sequence[Result]) -> str:
    """Both ratios over the size of the memory, as a picture."""
    wide, high, left, top = 560, 260, 56, 40
    logs = [math.log(max(1, one.memory_bytes)) for one in results]
    low, span = min(logs), (max(logs) - min(logs)) or 1.0
    xs = [left + wide * (value - low) / span for value in logs]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + wide + 40} '
        f'{top + high + 50}" font-family="sans-serif" font-size="12" fill="#777">',
        "<title>Hit ratio over the size of the memory tier</title>",
    ]
    for percent in (0, 25, 50, 75, 100):
        y = top + high - high * percent / 100
        parts.append(f'<path d="M{left} {y:.1f}h{wide}" stroke="#8884"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>')
    for x, one in zip(xs, results, strict=True):
        label = spelled(one.memory_bytes)
        parts.append(f'<text x="{x:.1f}" y="{top + high + 20}" text-anchor="middle">{label}</text>')
    for number, (name, colour, ratios) in enumerate(
        (
            ("hits", "#1f77b4", [one.hit_ratio for one in results]),
            ("byte hits", "#ff7f0e", [one.byte_hit_ratio for one in results]),
        )
    ):
        points = " ".join(
            f"{x:.1f},{top + high - high * ratio:.1f}" for x, ratio in zip(xs, ratios, strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
            f'<text x="{left + number * 90}" y="24" fill="{colour}">{name}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def spelled(size: float) -> str:
    """`512 B`, `1.5 MiB`, as a policy would say it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.3g} {unit}"


# ------------------------------------------------------------ the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "log",
        nargs="+",
        metavar="LOG",
        help="access logs, recordings or HAR, in order; - is standard input",
    )
    add("--policy", action="append", type=Path, metavar="FILE", help="whose rules hold")
    add("--memory", metavar="SIZE,...", type=_sizes, help="sizes to try, such as 16MiB,64MiB")
    add("--disk", metavar="SIZE", type=_size, default=0, help="with a disk tier of this size")
    add("--host", metavar="NAME", default="", help="the host of lines that name none")
    add("--json", action="store_true", help="print the answer as JSON")
    add("--svg", type=Path, metavar="FILE", help="draw the curve into this file")


_SIZE: TypeAdapter[int] = TypeAdapter(Size)


def _size(text: str) -> int:
    try:
        size = _SIZE.validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(error.errors()[0]["msg"]) from None
    if not 1 <= size <= MAX_SIZE_BYTES:
        raise argparse.ArgumentTypeError("a size is 1 byte or more, and at most 1024 GiB")
    return size


def _sizes(text: str) -> list[int]:
    return sorted({_size(part.strip()) for part in text.split(",")})


def main(options: argparse.Namespace) -> int:
    """0 done, 1 nothing in the logs counts, 2 a log cannot be read. PolicyError for the policy."""
    rules = Rules(compile_plan(load(options.policy)) if options.policy else None)
    seen = Lines()
    trace: list[Asked] = []
    uncached = 0
    try:
        for access in _recorded(options, seen):
            asked = rules.asked(access)
            if asked is None:
                uncached += 1
            else:
                trace.append(asked)
    except Unreadable as error:
        print(f"edgeproxy cache simulate: {error}", file=sys.stderr)
        return 2
    if not trace:
        print(
            f"edgeproxy cache simulate: of {seen.total} lines ({seen.bad} cannot be read) none is "
            "a GET or HEAD that the cache has a part in",
            file=sys.stderr,
        )
        return 1
    whole = distinct_bytes(trace)
    sizes = options.memory or sorted(
        {min(max(1, int(whole * share)), MAX_SIZE_BYTES) for share in SHARES}
    )
    results = [run(trace, size, options.disk) for size in sizes]
    counts = {
        **asdict(seen), "uncached": uncached, "requests": len(trace), "distinct_bytes": whole
    }  # fmt: skip
    if options.svg is not None:
        options.svg.write_text(svg(results), encoding="utf-8")
    if options.json:
        print(json.dumps({**counts, "results": [one.as_json() for one in results]}, indent=2))
    else:
        _tell(counts, results, options.disk)
    return 0


def _tell(counts: Mapping[str, int], results: Sequence[Result], disk_bytes: int) -> None:
    print(
        f"{counts['total']} lines: {counts['requests']} requests for "
        f"{spelled(counts['distinct_bytes'])} of different content; not counted: "
        f"{counts['bad']} that cannot be read, {counts['others']} by method or status, "
        f"{counts['uncached']} that the policy does not cache"
    )
    print("\n".join(table(results, disk_bytes > 0)))


def _recorded(options: argparse.Namespace, lines: Lines) -> Iterator[Access]:
    """What counts of the files, whatever their formats; `lines` counts all."""
    seen = Seen()
    for visit in read(options.log, lambda file: options.flows()(file), seen, host=options.host):
        access = _access(visit)
        lines.others += access is None
        if access is not None:
            yield access
    lines.total, lines.bad = seen.total, seen.bad
