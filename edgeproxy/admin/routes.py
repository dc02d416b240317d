"""Every operation of the admin listener: one table, for the listener, the workers and OpenAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from aiohttp import web

from edgeproxy.admin import answers, asked
from edgeproxy.admin.messages import MAX_BODY_BYTES, Answer, Handler, Text, answer, read
from edgeproxy.explain import Explanation
from edgeproxy.metrics.snapshot import Snapshot

MAX_POLICY_BYTES = 16 * MAX_BODY_BYTES  # of a request that carries whole policies


@dataclass(frozen=True, slots=True)
class Route:
    """An operation, and where it is. `refusals` are codes of its own, by status."""

    method: Literal["GET", "POST"]
    path: str
    operation: str
    summary: str
    asked: type[asked.Asked]
    answer: Any
    refusals: Mapping[int, tuple[str, ...]] = MappingProxyType({})
    max_body_bytes: int = MAX_BODY_BYTES


type Ask = Callable[[Route, Any], Awaitable[Answer]]
"""Carries out an operation with what is asked, and gives the answer. Raises Refusal."""

_REFUSED_POLICY = {409: ("policy-faults",)}
_NO_VERSION = {404: ("no-such-version",)}
_NO_TRIAL = {409: ("policy-faults", "no-candidate")}
_CANDIDATE = {409: ("policy-faults", "in-force", "no-candidate")}

ROUTES = (
    Route("GET", "/health", "health",
          "says that it runs, with which policy, and with which workers",
          asked.Nothing, answers.Health),
    Route("GET", "/ready", "ready",
          "says whether it should be sent visitors: not while it ends, without a policy or stalled",
          asked.Nothing, answers.Ready, {503: ("draining", "no-policy", "stalled")}),
    Route("GET", "/version", "version", "the versions of edgeproxy and of the policy",
          asked.Nothing, answers.Version),
    Route("GET", "/metrics", "metrics", "all figures, for Prometheus", asked.Scrape, Text),
    Route("GET", "/metrics.json", "figures", "the same as plain data",
          asked.Nothing, Snapshot),
    Route("GET", "/origins", "origins", "the origins, and how each does",
          asked.Nothing, answers.Origins),
    Route("GET", "/experiments", "experiments",
          "the experiments: routes, variants, and the requests that each variant had",
          asked.Nothing, answers.Experiments),
    Route("GET", "/plugins", "plugins",
          "the plugins that are in use, where they are from, and in which phases they act",
          asked.Nothing, answers.Plugins),
    Route("GET", "/log-level", "log_level", "the level of messages that are logged",
          asked.Nothing, answers.LoggedFrom),
    Route("POST", "/log-level", "set_log_level",
          'sets it, until the next start: `{"level": "DEBUG"}`',
          asked.LogLevel, answers.LoggedFrom),
    Route("POST", "/purge", "purge", "drops what is selected",
          asked.Selection, answers.Marked),
    Route("POST", "/invalidate", "invalidate", "takes what is selected for stale",
          asked.Selection, answers.Marked),
    Route("GET", "/cache/objects", "cache_objects", "lists what is stored",
          asked.Listing, answers.StoredAnswers),
    Route("GET", "/cache/object", "cache_object",
          "every stored answer for a URL, with its fields",
          asked.Stored, answers.WholeAnswers, {404: ("not-stored",)}),
    Route("GET", "/cache/stats", "cache_stats",
          "how full each tier is, and how many purges are heeded",
          asked.Nothing, answers.CacheStats),
    Route("POST", "/cache/verify", "cache_verify",
          "reads all that is stored, and drops what is damaged",
          asked.Nothing, answers.Verified),
    Route("GET", "/cache/why", "cache_why",
          "asks the origin once, stores nothing, and says what would be stored and why",
          asked.Wondered, answers.Why),
    Route("GET", "/policy", "policy",
          "the policy in force with the texts of its files; or a kept one, by number or version",
          asked.Kept, answers.PolicyTexts, _NO_VERSION),
    Route("GET", "/policy/status", "policy_status",
          "what is in force, and what is on trial with its differences",
          asked.Nothing, answers.PolicyStatus),
    Route("GET", "/policy/history", "policy_history",
          "the policies that were in force, without their texts",
          asked.Nothing, answers.PolicyHistory),
    Route("POST", "/policy/check", "policy_check",
          "says what is wrong with a policy, or with the files as they are; changes nothing",
          asked.Policy, answers.PolicyChecked, max_body_bytes=MAX_POLICY_BYTES),
    Route("POST", "/policy/reload", "policy_reload", "reads the policies again",
          asked.Change, answers.PolicyChanged, _REFUSED_POLICY),
    Route("POST", "/policy/rollback", "policy_rollback",
          'puts a kept policy in force: `{"version": "3"}`, or `{}` for the last other one',
          asked.Rollback, answers.PolicyChanged,
          {**_NO_VERSION, 409: ("policy-faults", "in-force")}),
    Route("POST", "/policy/shadow", "policy_shadow",
          'tries a policy in shadow: `{"files": [{"name": "site.yaml", "text": "..."}], '
          '"tests": []}`',
          asked.Shadow, answers.PolicyChanged, _CANDIDATE, MAX_POLICY_BYTES),
    Route("POST", "/policy/canary", "policy_canary",
          'tries a policy on a share of the visitors: the same with `"percent": 5`',
          asked.Canary, answers.PolicyChanged, _CANDIDATE, MAX_POLICY_BYTES),
    Route("POST", "/policy/promote", "policy_promote", "puts the policy on trial in force",
          asked.OnTrial, answers.PolicyChanged, _NO_TRIAL),
    Route("POST", "/policy/abort", "policy_abort", "ends the trial",
          asked.OnTrial, answers.PolicyChanged, {409: ("no-candidate",)}),
    Route("GET", "/requests", "requests",
          "the last requests that were explained, the newest first",
          asked.Nothing, answers.ExplainedRequests),
    Route("GET", "/requests/{id}", "request",
          "the whole explanation of one, by the id that stands in the log and in `Edge-Explain`",
          asked.Request, Explanation, {404: ("no-such-request",)}),
    Route("GET", "/explain", "explain",
          "what the policy makes of a request that nobody has sent; no origin is asked",
          asked.Explained, Explanation),
    Route("GET", "/traffic", "traffic",
          "what the access log says of late: countries, variants, slow and failing pages, requests",
          asked.Nothing, answers.Traffic),
    Route("GET", "/openapi.json", "openapi", "all of this as an OpenAPI 3.1 document",
          asked.Nothing, dict[str, Any]),
)  # fmt: skip

BY_OPERATION = {route.operation: route for route in ROUTES}


def answered_by(*operations: object, otherwise: Ask | None = None) -> Ask:
    """Whatever these have methods for, by the name of the operation; the rest by `otherwise`."""
    methods: dict[str, Callable[[Any], Awaitable[Answer]]] = {
        name: method
        for some in operations
        for name in BY_OPERATION
        if (method := getattr(some, name, None)) is not None
    }

    async def ask(route: Route, what: asked.Asked) -> Answer:
        method = methods.get(route.operation)
        if method is None and otherwise is not None:
            return await otherwise(route, what)
        return await methods[route.operation](what)

    return ask


def handlers(ask: Ask) -> list[web.RouteDef]:
    """All of the table over HTTP."""
    return [_handled(route, ask) for route in ROUTES]


def _handled(route: Route, ask: Ask) -> web.RouteDef:
    async def handle(request: web.Request) -> web.Response:
        return answer(await ask(route, await read(request, route.asked, route.max_body_bytes)))

    handler: Handler = handle
    method = web.get if route.method == "GET" else web.post
    return method(route.path, handler)
