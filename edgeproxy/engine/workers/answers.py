"""How the answers of several workers become one, for the admin listener."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeproxy import recent
from edgeproxy.shadow import MAX_EXAMPLES

type Answers = Mapping[int, Mapping[str, Any]]
"""What each worker answers, by its number."""

_ONCE = ("objects", "bytes", "max_bytes")  # of a tier that is shared


def health(answers: Answers) -> dict[str, Any]:
    """Of each origin the worst that a worker has seen: each finds out by itself."""
    reports = (one for answer in answers.values() for one in answer["origins_unwell"])
    return {**answers[min(answers)], "origins_unwell": _worst(reports, "origin")}


def origins(answers: Answers) -> dict[str, Any]:
    """The same of those that are well, too."""
    return {"origins": _worst((o for a in answers.values() for o in a["origins"]), "name")}


def _worst(reports: Iterable[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for report in reports:
        found[report[key]] = max(found.get(report[key], report), report, key=_badness)
    return list(found.values())


def _badness(report: Mapping[str, Any]) -> tuple[int, float]:
    return ("healthy", "failing", "down").index(report["state"]), report["for_s"]


def stats(answers: Answers) -> dict[str, Any]:
    """Sums; how much there is of what is shared, only once."""
    tiers: dict[str, dict[str, Any]] = {}
    for tier in (one for answer in answers.values() for one in answer["tiers"]):
        total = tiers.setdefault(tier["name"], {"name": tier["name"], "shared": tier["shared"]})
        for key in tier.keys() - {"name", "shared"}:
            before = total.get(key, 0)
            is_once = tier["shared"] and key in _ONCE
            total[key] = max(before, tier[key]) if is_once else before + tier[key]
    return {**answers[min(answers)], "tiers": list(tiers.values())}


def objects(answers: Answers) -> dict[str, Any]:
    """What each has, by the number of the worker; what is shared only once."""
    first = min(answers)
    return {
        "objects": [
            one if one["shared"] else {**one, "worker": number}
            for number, answer in sorted(answers.items())
            for one in answer["objects"]
            if number == first or not one["shared"]
        ]
    }


def requests(answers: Answers) -> dict[str, Any]:
    """What each has explained, the latest first."""
    found = (one for answer in answers.values() for one in answer["requests"])
    return {"requests": sorted(found, key=lambda one: str(one["at"]), reverse=True)}


def experiments(answers: Answers) -> dict[str, Any]:
    """Of one policy, with the requests and the new visitors of all."""
    every = [answer["experiments"] for answer in answers.values()]
    same = zip(*every, strict=False)  # while policies change, one may be ahead for a moment
    return {"experiments": [_added(each) for each in same]}


def _added(same: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    variants = zip(*(one["variants"] for one in same), strict=False)
    return {
        **same[0],
        "variants": [
            {**each[0], **{key: sum(one[key] for one in each) for key in ("requests", "assigned")}}
            for each in variants
        ],
    }


def traffic(answers: Answers) -> dict[str, Any]:
    """What all have seen."""
    return {**recent.merged(answers.values()), "is_logged": answers[min(answers)]["is_logged"]}


def tried(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a candidate has done in all of them."""
    shadows = [report["shadow"] for report in reports]
    return {
        "answers": _summed(report["answers"] for report in reports),
        "answers_in_force": _summed(report["answers_in_force"] for report in reports),
        "shadow": {
            **_summed({k: v for k, v in one.items() if k != "kinds"} for one in shadows),
            "kinds": _kinds(kind for one in shadows for kind in one["kinds"]),
        },
    }


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _kinds(kinds: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in kinds:
        total = found.setdefault(one["kind"], {"kind": one["kind"], "count": 0, "examples": []})
        total["count"] += one["count"]
        total["examples"] = (total["examples"] + one["examples"])[:MAX_EXAMPLES]
    return list(found.values())
