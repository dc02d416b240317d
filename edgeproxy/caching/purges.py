"""Purging by marks: what was asked for before a moment does not count any more.

A purge writes down one mark per thing named, whatever number of stored answers it covers, and
every lookup compares the answer it found with the marks. So it is in force at once, in every tier,
and also for an answer that is still on its way from the origin: what counts is when its request
was sent. A hard mark makes an answer disappear, a soft one ends its freshness.

No I/O here: `edgeproxy.caching.upkeep` keeps the marks on disk and sweeps up.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.errors import ClientError
from edgeproxy.http import Headers, normalise_path

MAX_MARKS = 4096
"""Of one kind. Beyond it the older half becomes marks of the next wider kind."""

MAX_TAGS = 1000
MAX_TAG_LENGTH = 1024
ANY_TAG = "*"
"""Stands for the tags that went beyond the limits: a purge of any tag covers its bearer."""

KINDS = ("url", "prefix", "host", "tag", "everything")

_HOST = re.compile(r"[a-z0-9_.\-]+|\[[0-9a-f:.]+\]", re.ASCII)


class Mark(NamedTuple):
    """What was asked for up to these moments is gone, or stale. A moment of 0 is none."""

    kind: str
    value: str
    hard_s: float
    soft_s: float


@dataclass(frozen=True, slots=True)
class Selection:
    """What to purge: answers that match any of this. Raises ValueError for what cannot be meant.

    A URL or a prefix may leave out the scheme, and also the host: it then counts for every host.
    Ports do not count. A prefix ends at a slash, or where the path ends.
    """

    urls: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    everything: bool = False

    def __post_init__(self) -> None:
        self.parts()

    def parts(self) -> list[tuple[str, str]]:
        """Kind and canonical value of each thing named, each once."""
        if self.everything:
            return [("everything", "")]
        parts = [("url", public_url(url)) for url in self.urls]
        parts += [_prefix(prefix) for prefix in self.prefixes]
        parts += [("host", _host(host)) for host in self.hosts]
        parts += [("tag", _tag(tag)) for tag in self.tags]
        if not parts:
            raise ValueError("nothing is selected; name a URL, prefix, host, tag or everything")
        return list(dict.fromkeys(parts))


EVERYTHING = Selection(everything=True)


class CacheControl(Protocol):
    """What a plugin may do to the cache. Both give the names of tiers that could not write it
    down, so that it would not outlast a crash."""

    async def purge(self, selection: Selection) -> list[str]:
        """Have no answer of `selection` any more."""
        ...

    async def invalidate(self, selection: Selection) -> list[str]:
        """Take no answer of `selection` for fresh any more."""
        ...


@dataclass(slots=True)
class Changes:
    """What to write down: marks by kind and value, and those that are not needed any more."""

    new: dict[tuple[str, str], Mark] = field(default_factory=dict)
    gone: list[Mark] = field(default_factory=list)


class Purges:
    """The marks in force. `now` is the wall clock, in seconds since 1970.

    Moments never run backwards: a request is stamped later than every mark so far, and a mark
    covers every stamp so far, whatever the clock does in between.
    """

    def __init__(self, now: Callable[[], float] = time.time, *, max_marks: int = MAX_MARKS) -> None:
        self._now = now
        self._max_marks = max_marks
        self._tables: dict[str, dict[str, tuple[float, float]]] = {kind: {} for kind in KINDS}
        self._any_tag = (0.0, 0.0)
        self._mark_s = 0.0  # the latest mark
        self._latest_s = 0.0  # the latest mark or stamp
        self.is_empty = True
        self.version = 0  # another one after each change

    def stamp(self) -> float:
        """The moment to write down for a request that is sent now."""
        stamp_s = max(self._now(), math.nextafter(self._mark_s, math.inf))
        self._latest_s = max(self._latest_s, stamp_s)
        return stamp_s

    # ------------------------------------------------------------ marking

    def add(self, selection: Selection, *, soft: bool) -> Changes:
        """Mark `selection` now."""
        at_s = max(self._now(), self._latest_s)
        times = (0.0, at_s) if soft else (at_s, 0.0)
        return self._enter(Mark(kind, value, *times) for kind, value in selection.parts())

    def merge(self, marks: Iterable[Mark]) -> Changes:
        """Heed marks that another process made, or this one before it was started."""
        return self._enter(
            mark for mark in marks
            if mark.kind in self._tables and math.isfinite(mark.hard_s + mark.soft_s)
        )  # fmt: skip

    def heed(self, marks: Iterable[Mark]) -> Changes:
        """Heed marks that a neighbour makes at this moment.

        They cover every stamp so far here too: its clock, or ours, may have been set meanwhile.
        """
        latest_s = self._latest_s
        return self.merge(
            mark._replace(hard_s=max(mark.hard_s, latest_s))
            if mark.hard_s >= mark.soft_s
            else mark._replace(soft_s=max(mark.soft_s, latest_s))
            for mark in marks
        )

    def drop(self, marks: Iterable[Mark]) -> list[Mark]:
        """Forget marks under which nothing lies any more, unless they have been renewed."""
        dropped = []
        for mark in marks:
            if self._tables[mark.kind].get(mark.value) == (mark.hard_s, mark.soft_s):
                del self._tables[mark.kind][mark.value]
                dropped.append(mark)
        self._settle()
        return dropped

    def marks(self) -> list[Mark]:
        """Every mark in force."""
        return [
            Mark(kind, value, *times)
            for kind, table in self._tables.items()
            for value, times in table.items()
        ]

    def _enter(self, marks: Iterable[Mark]) -> Changes:
        changes = Changes()
        for mark in marks:
            self._put(mark, changes)
        for kind in KINDS[:-1]:
            if len(self._tables[kind]) > self._max_marks:
                self._compact(kind, changes)
        if ("everything", "") in changes.new:
            self._subsume(changes)
        self._settle()
        return changes

    def _put(self, mark: Mark, changes: Changes) -> None:
        kind, value, hard_s, soft_s = mark
        table = self._tables[kind]
        old = table.get(value, (0.0, 0.0))
        times = table[value] = (max(old[0], hard_s), max(old[1], soft_s))
        if kind == "tag":
            self._any_tag = _later(self._any_tag, times)
        self._mark_s = max(self._mark_s, *times)
        self._latest_s = max(self._latest_s, self._mark_s)
        if times != old:
            changes.new[kind, value] = Mark(kind, value, *times)

    def _take(self, kind: str, value: str, changes: Changes) -> Mark:
        mark = Mark(kind, value, *self._tables[kind].pop(value))
        if changes.new.pop((kind, value), None) is None:
            changes.gone.append(mark)
        return mark

    def _compact(self, kind: str, changes: Changes) -> None:
        """Let the older half of a kind become marks that cover more, never less.

        The oldest go, since the earlier a mark is, the fewer answers it covers.
        """
        table = self._tables[kind]
        oldest = sorted(table, key=lambda value: max(table[value]))
        for value in oldest[: len(oldest) - self._max_marks // 2]:
            mark = self._take(kind, value, changes)
            self._put(Mark(*_wider(kind, value), mark.hard_s, mark.soft_s), changes)

    def _subsume(self, changes: Changes) -> None:
        """Forget what the mark of everything says already."""
        hard_s, soft_s = self._tables["everything"][""]
        for kind in KINDS[:-1]:
            for value, times in list(self._tables[kind].items()):
                if times[0] <= hard_s and times[1] <= max(hard_s, soft_s):
                    self._take(kind, value, changes)

    def _settle(self) -> None:
        self.version += 1
        self.is_empty = not any(self._tables.values())
        if not self._tables["tag"]:
            self._any_tag = (0.0, 0.0)

    # ------------------------------------------------------------ looking

    def seen(self, entry: StoredResponse, url: str = "") -> StoredResponse | None:
        """What is left of `entry`: itself, a copy that is stale, or nothing.

        `url` is the public URL that it is to answer, besides the one that it was stored for.
        """
        if self.is_empty or not entry.status:
            return entry
        hard_s, soft_s = self._times(entry.tags, entry.url, url)
        if not (hard_s or soft_s):
            return entry
        asked_s, now_s = entry.requested_at_s, self._now()
        if asked_s > max(self._latest_s, now_s):
            asked_s = 0.0  # from the future: nobody knows whether it came before the mark
        if asked_s <= hard_s:
            return None
        if asked_s > soft_s:
            return entry
        # Fresh until the mark, and stale since.
        fresh_for_s = entry.age_s + min(soft_s, now_s) - entry.stored_at_s
        return replace(entry, fresh_for_s=min(entry.fresh_for_s, fresh_for_s))

    def covers(self, asked_s: float, *urls: str) -> bool:
        """Whether a request for any of `urls`, sent at `asked_s`, came before a mark."""
        return not self.is_empty and asked_s <= max(self._times((), *urls))

    def covering(self, entry: StoredResponse) -> Iterator[Mark]:
        """The marks that `entry` lies under."""
        for kind, value in _places(entry.tags, (entry.url,)):
            times = self._tables[kind].get(value)
            if times and entry.requested_at_s <= max(times):
                yield Mark(kind, value, *times)
        if ANY_TAG in entry.tags:
            for value, times in self._tables["tag"].items():
                if entry.requested_at_s <= max(times):
                    yield Mark("tag", value, *times)

    def _times(self, tags: Sequence[str], *urls: str) -> tuple[float, float]:
        """The latest hard and the latest soft mark on any of this."""
        found = (0.0, 0.0)
        for kind, value in _places(tags, urls):
            table = self._tables[kind]
            if table and (times := table.get(value)):
                found = _later(found, times)
        return _later(found, self._any_tag) if ANY_TAG in tags else found


def _later(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return max(one[0], other[0]), max(one[1], other[1])


def _places(tags: Iterable[str], urls: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Where marks on such an answer would stand: as many as its path is deep and it has tags."""
    yield "everything", ""
    for tag in tags:
        yield "tag", tag
    for url in dict.fromkeys(urls):
        if not url:
            continue
        host, target = _split(url)
        path = target.partition("?")[0]
        yield "url", url
        yield "url", target
        yield "host", host
        at = path.find("/", 1)
        while at > 0:
            yield "prefix", path[:at]
            yield "prefix", host + path[:at]
            at = path.find("/", at + 1)
        yield "prefix", path
        yield "prefix", host + path


def _split(url: str) -> tuple[str, str]:
    at = url.find("/")
    return url[:at], url[at:]


def _wider(kind: str, value: str) -> tuple[str, str]:
    """The narrowest mark of a wider kind that covers all that this one covers."""
    host, target = _split(value) if kind in ("url", "prefix") else (value, "")
    if kind == "url":
        folder = target.partition("?")[0].rpartition("/")[0]
        if folder:
            return "prefix", host + folder
        return ("host", host) if host else ("everything", "")
    if kind == "prefix" and host:
        return "host", host
    return "everything", ""


# ------------------------------------------------------------ what people write


def public_url(text: str) -> str:
    """Host and target of a URL as marks have them: no scheme, no port. ValueError if it has none.

    >>> public_url("https://Example.org:8443/a/../b?x=1")
    'example.org/b?x=1'
    """
    if text.startswith("/") and not text.startswith("//"):
        host, rest = "", text
    else:
        full = text if "//" in text.partition("?")[0] else f"//{text}"
        parts = urlsplit(full)
        if parts.scheme not in ("", "http", "https"):
            raise ValueError(f"{text!r} is not a URL; write for example https://example.org/page")
        host = _host(parts.netloc)
        rest = (parts.path or "/") + (f"?{parts.query}" if "?" in full.partition("#")[0] else "")
    path, mark, query = rest.partition("#")[0].partition("?")
    if not all("!" <= character <= "~" for character in rest):
        raise ValueError(f"{text!r} holds blanks or letters beyond ASCII; escape them")
    try:
        # Slashes stay encoded if a policy keeps them so; else such a URL is never stored.
        path = normalise_path(path, encoded_slashes=True)
    except ClientError as error:
        raise ValueError(f"{text!r}: {error.reason}") from None
    return f"{host}{path}{mark}{query}"


def _prefix(text: str) -> tuple[str, str]:
    url = public_url(text)
    if "?" in url:
        raise ValueError(f"{text!r}: a prefix has no query")
    host, path = _split(url.rstrip("/") + "/")
    if path != "/":
        return "prefix", host + path.rstrip("/")
    return ("host", host) if host else ("everything", "")


def _host(text: str) -> str:
    host = text.lower().rpartition("@")[2]
    name, colon, port = host.rpartition(":")
    if colon and (port.isdigit() or not port):
        host = name
    if not _HOST.fullmatch(host):
        raise ValueError(f"{text!r} is not a host; write for example www.example.org")
    return host


def _tag(text: str) -> str:
    if not text.strip() or text == ANY_TAG or "\n" in text or len(text) > MAX_TAG_LENGTH:
        raise ValueError(f"{text[:80]!r} is not a tag")
    return text


# ------------------------------------------------------------ what origins write

TAG_FIELDS = ("cache-tag", "surrogate-key")
"""Meant for caches alone: not passed on to clients, unless a policy says so."""

_GROUP = re.compile(r'"((?:[^"\\]|\\["\\])*)"[^,]*')


def response_tags(headers: Headers, own: Iterable[str] = ()) -> tuple[str, ...]:
    """The tags of a response: `own`, which the policy gives, and those its fields name.

    `Cache-Tag` is a list with commas, `Surrogate-Key` one with blanks, `Cache-Groups` a list of
    strings (RFC 9875, section 2). Tags compare with case.
    """
    found = list(own)
    for line in headers.get_all("cache-tag"):
        found += [tag.strip(" \t") for tag in line.split(",")]
    for line in headers.get_all("surrogate-key"):
        found += line.split()
    for line in headers.get_all("cache-groups"):
        found += [group.replace("\\", "") for group in _GROUP.findall(line)]
    named = [tag for tag in dict.fromkeys(found) if tag]
    tags = [tag for tag in named[:MAX_TAGS] if len(tag) <= MAX_TAG_LENGTH]
    return tuple(tags if len(tags) == len(named) else [*tags, ANY_TAG])
