"""Policies, faults, marks and cache entries as messages carry them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

from edgeproxy.caching.neighbours import Brought
from edgeproxy.caching.purges import Mark
from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.engine.workers.channel import Message
from edgeproxy.errors import Fault, Place, PolicyError
from edgeproxy.http import Headers
from edgeproxy.policy.files import Source
from edgeproxy.policy.model import RecordConfig

CARRIED_BYTES = 1024 * 1024
"""A larger answer is not carried; a worker that waited finds it on disk, or fetches it too."""

_APART = ("headers", "body", "encoded")  # other codings are made anew


def words_of_sources(sources: Iterable[Source]) -> list[list[str]]:
    """The texts of a policy; nobody knows yet that they are text."""
    return [
        [name, (text if isinstance(text, bytes) else text.encode()).decode("latin-1")]
        for name, text in sources
    ]


def read_sources(words: Iterable[Sequence[str]]) -> list[Source]:
    return [(name, text.encode("latin-1")) for name, text in words]


def words_of_faults(error: PolicyError) -> list[dict[str, Any]]:
    return [asdict(fault) for fault in error.faults]


def read_faults(words: Iterable[dict[str, Any]]) -> PolicyError:
    return PolicyError(
        Fault(each["code"], each["message"], Place(**each["place"]) if each["place"] else None)
        for each in words
    )


def words_of_record(record: RecordConfig | None) -> dict[str, Any] | None:
    return record.model_dump(mode="json") if record is not None else None


def read_record(words: dict[str, Any] | None) -> RecordConfig | None:
    """What was checked when it was written down; sizes are bytes by now."""
    return RecordConfig(**{**words, "max_size": f"{words['max_size']}B"}) if words else None


def words_of_marks(marks: Iterable[Mark]) -> list[list[Any]]:
    return [list(mark) for mark in marks]


def read_marks(words: Iterable[Sequence[Any]]) -> list[Mark]:
    return [
        Mark(kind, value, float(hard_s), float(soft_s)) for kind, value, hard_s, soft_s in words
    ]


def is_carried(entry: StoredResponse) -> bool:
    """Whether an entry is handed from worker to worker, rather than left where it is stored."""
    return not entry.is_lazy and entry.body_bytes <= CARRIED_BYTES


def words_of_entry(entry: StoredResponse) -> dict[str, Any]:
    """All of it but the body."""
    words = {f.name: getattr(entry, f.name) for f in fields(entry) if f.name not in _APART}
    words["fields"] = [[part.decode("latin-1") for part in one] for one in entry.headers.fields]
    return words


def read_brought(message: Message) -> Brought:
    words = message.words.get("entry")
    if words is None:
        return Brought(is_stored=bool(message["is_stored"]))
    values = {name: _frozen(value) for name, value in words.items()}
    lines = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in values.pop("fields")
    ]
    return Brought(StoredResponse(**values, headers=Headers(lines), body=message.data), True)


def _frozen(value: Any) -> Any:
    """JSON has lists where entries have tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
