"""What the operations of the admin listener answer, for the OpenAPI document.

Where the core has a type of its own for it, that one is named in the table of routes.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from pydantic import ConfigDict, with_config

from edgeproxy import recent
from edgeproxy.caching.contents import Checked
from edgeproxy.health import Report, State

_open = with_config(ConfigDict(extra="allow"))


# ---------------------------------------------------------------- what serves


class Worker(TypedDict):
    number: int
    process: int
    up_s: float


class Health(TypedDict):
    status: Literal["ok"]
    policy: str
    origins_unwell: list[Report]
    workers: NotRequired[list[Worker]]


class Ready(TypedDict):
    ready: Literal[True]
    policy: str


class Version(TypedDict):
    edgeproxy: str
    policy: str


class Origin(TypedDict):
    name: str
    url: str
    static: bool
    state: State
    failures: int
    cause: str
    for_s: float
    next_probe_in_s: float | None


class Origins(TypedDict):
    origins: list[Origin]


class Variant(TypedDict):
    name: str
    share: float
    requests: int
    assigned: int


class Experiment(TypedDict):
    name: str
    variants: list[Variant]
    routes: list[str]


class Experiments(TypedDict):
    experiments: list[Experiment]


class Plugin(TypedDict):
    name: str
    version: str
    distribution: str
    phases: list[str]
    matches: list[str]
    filters: list[str]


class Plugins(TypedDict):
    plugins: list[Plugin]


class LoggedFrom(TypedDict):
    level: str


# ---------------------------------------------------------------- the cache


class Marked(TypedDict):
    done: bool
    not_written_down_by: list[str]


class StoredAnswer(TypedDict):
    url: str
    tier: str
    shared: bool
    status: int
    bytes: int
    type: str
    age_s: float
    fresh_for_s: float
    tags: list[str]
    gone_since_s: float | None
    worker: NotRequired[int]


class StoredAnswers(TypedDict):
    objects: list[StoredAnswer]


class WholeAnswer(StoredAnswer):
    key: list[str]
    vary: dict[str, str | None]
    headers: list[tuple[str, str]]


class WholeAnswers(TypedDict):
    objects: list[WholeAnswer]


@_open
class Tier(TypedDict):
    """Beside these, the figures that the tier counts."""

    name: str
    shared: bool


class CacheStats(TypedDict):
    tiers: list[Tier]
    marks: dict[str, int]


class Verified(TypedDict):
    tiers: list[Checked]


class Why(TypedDict):
    url: str
    route: str | None
    origin: str | None
    status: int
    storable: bool
    stored_now: dict[str, Any] | None
    rule: NotRequired[str | None]
    key: NotRequired[list[str]]
    code: str
    words: str
    source: str
    fresh_for_s: NotRequired[float]


# ---------------------------------------------------------------- policies


class PolicyVersion(TypedDict):
    number: int
    version: str
    at: str
    event: Literal["start", "reload", "rollback", "promote"]
    by: str
    why: str
    files: list[str]


class PolicyFile(TypedDict):
    name: str
    text: str


class PolicyTexts(TypedDict):
    number: int
    version: str
    at: str
    event: Literal["start", "reload", "rollback", "promote"]
    by: str
    why: str
    files: list[PolicyFile]


class PolicyHistory(TypedDict):
    versions: list[PolicyVersion]
    kept: int


class Candidate(TypedDict):
    version: str
    percent: float
    since: str
    by: str
    why: str
    files: list[str]
    answers: dict[str, int]
    answers_in_force: dict[str, int]
    shadow: dict[str, Any]


class PolicyStatus(TypedDict):
    in_force: PolicyVersion
    files_are_other: bool
    candidate: Candidate | None


class PolicyChanged(TypedDict):
    policy: str
    in_force: PolicyVersion
    files_are_other: bool
    candidate: Candidate | None


class Fault(TypedDict):
    code: str
    reason: str
    file: NotRequired[str]
    line: NotRequired[int]
    column: NotRequired[int]
    width: NotRequired[int]


class Finding(Fault):
    severity: Literal["error", "warning"]
    certain: bool
    fix: str


class PolicyChecked(TypedDict):
    policy: str | None
    faults: list[Fault]
    findings: list[Finding]


# ---------------------------------------------------------------- requests


class ExplainedRequest(TypedDict):
    id: str
    at: str
    policy: str
    method: str
    url: str
    status: int
    route: str | None
    origin: str | None
    verdict: str


class ExplainedRequests(TypedDict):
    requests: list[ExplainedRequest]


class Traffic(recent.Report):
    is_logged: bool


# ---------------------------------------------------------------- what goes wrong


class ErrorWords(TypedDict):
    code: str
    message: str


class Error(TypedDict):
    error: ErrorWords
