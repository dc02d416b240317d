"""The admin listener of all workers together: who is asked, and how answers become one.

A worker answers with the routes that it would have on a listener of its own. So a route that is not
known here works as well: a question is put to one worker, and what changes something to all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Answer = tuple[int, dict[str, Any]]
"""Status and JSON object, as a worker has them."""

Merge = Callable[[Sequence[dict[str, Any]]], dict[str, Any]]


def health(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of each origin the worst that a worker has seen: each finds out by itself."""
    worst: dict[str, dict[str, Any]] = {}
    for report in (one for answer in answers for one in answer["origins_unwell"]):
        known = worst.setdefault(report["origin"], report)
        if _badness(report) > _badness(known):
            worst[report["origin"]] = report
    return {**answers[0], "origins_unwell": list(worst.values())}


def _badness(report: Mapping[str, Any]) -> tuple[bool, float]:
    return report["state"] == "down", report["for_s"]


def stats(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums, but of what is shared only once."""
    tiers = {tier["name"]: dict(tier) for tier in answers[0]["tiers"]}
    for tier in (one for answer in answers[1:] for one in answer["tiers"]):
        total = tiers[tier["name"]]
        for key, value in tier.items():
            if isinstance(value, bool) or not isinstance(value, int):
                continue
            is_once = tier["shared"] and key in ("objects", "bytes", "max_bytes")
            total[key] = max(total[key], value) if is_once else total[key] + value
    return {**answers[0], "tiers": list(tiers.values())}


def objects(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All that is stored, with the worker that has it; what is shared only once."""
    found = []
    for number, answer in enumerate(answers):
        for one in answer["objects"]:
            if one["shared"] and number:
                continue
            found.append(one if one["shared"] else {**one, "worker": number + 1})
    return {"objects": found}
