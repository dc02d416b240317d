"""What an operator should look at first: each a few words, and the panel that says more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgeproxy.admin.dashboard.history import Span
from edgeproxy.admin.dashboard.words import number, percent
from edgeproxy.metrics.snapshot import Snapshot

MANY_FAILED = 0.01  # of the requests of the last minute


@dataclass(frozen=True, slots=True)
class Notice:
    """`level` is a class of the style sheet; `panel` the id of where there is more."""

    level: Literal["down", "failing", "known"]
    words: str
    panel: str


def notices(
    lately: Span, figures: Snapshot, origins: Iterable[Mapping[str, Any]], policy: Mapping[str, Any]
) -> list[Notice]:
    """All that is out of the ordinary now, the worst first."""
    found = [*_of_origins(origins), *_of_requests(lately, figures), *_of_policy(policy)]
    return sorted(found, key=lambda one: ("down", "failing", "known").index(one.level))


def _of_origins(origins: Iterable[Mapping[str, Any]]) -> Iterator[Notice]:
    for origin in origins:
        if origin["state"] != "healthy":
            cause = f": {origin['cause']}" if origin["cause"] else ""
            words = f"Origin {origin['name']} is {origin['state']}{cause}"
            yield Notice(origin["state"], words, "p-origins")


def _of_requests(lately: Span, figures: Snapshot) -> Iterator[Notice]:
    failed = lately.failed_share
    if failed is not None and failed >= MANY_FAILED:
        words = f"{percent(failed)} of the requests of the last minute failed"
        yield Notice("down", words, "p-failing")
    for row in figures["plugin_errors"]:
        times = "once" if row["count"] == 1 else f"{number(row['count'])} times"
        words = f"Plugin {row['plugin']} raised in {row['hook']}, {times} since the start"
        yield Notice("failing", words, "p-policy")


def _of_policy(policy: Mapping[str, Any]) -> Iterator[Notice]:
    if not policy["is_last_reload_good"]:
        yield Notice("failing", "The last change of the policy was refused", "p-policy")
    if policy["files_are_other"]:
        yield Notice(
            "known", "The policy files say something else than what is in force", "reload-files"
        )
    if policy["candidate"]:
        share = policy["candidate"]["percent"]
        how = f"for {share:g} % of the visitors" if share else "in shadow"
        words = f"Policy {policy['candidate']['version']} is on trial {how}"
        yield Notice("known", words, "p-trial")
