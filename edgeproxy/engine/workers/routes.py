"""The admin listener of all workers: it stands with the supervisor, and they answer.

A worker answers with the routes that it would have on a listener of its own. So a route that is
not named here works as well: what asks is answered by one, what changes something is done by all.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

from aiohttp import web

from edgeproxy.admin import MetricsRoutes
from edgeproxy.admin.messages import Refusal, answer
from edgeproxy.engine.workers import answers
from edgeproxy.engine.workers.channel import Lost, Refused
from edgeproxy.engine.workers.child import Child
from edgeproxy.engine.workers.counting import CrewCounts
from edgeproxy.engine.workers.crew import Crew
from edgeproxy.metrics.counts import Reloads
from edgeproxy.metrics.snapshot import Snapshot

type Answers = dict[int, dict[str, Any]]
"""JSON objects, by the number of the worker."""

_BY_ONE = ("/purge", "/invalidate", "/cache/verify")
"""Changes that one worker sees to for all: it tells the others, or all have the same."""


class CrewRoutes:
    """`routes` is what the supervisor's listener serves besides what is about policies."""

    def __init__(self, crew: Crew, reloads: Reloads) -> None:
        self._crew = crew
        self._metrics = MetricsRoutes(CrewCounts(self._snapshots).snapshot, reloads)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self._health),
            web.get("/cache/stats", self._merged(lambda found: answers.stats([*found.values()]))),
            web.get("/cache/objects", self._merged(answers.objects)),
            web.get("/cache/object", self._merged(answers.objects)),
            web.get("/requests", self._merged(answers.requests)),
            web.get("/requests/{id}", self._merged(lambda found: next(iter(found.values())))),
            *self._metrics.routes(),
            web.route("*", "/{path:.*}", self._any),
        ]

    async def _health(self, request: web.Request) -> web.Response:
        now_s = time.monotonic()
        workers = [
            {
                "number": child.number,
                "process": child.process.pid,
                "up_s": round(now_s - child.started_s, 1),
            }
            for child in self._crew.ready()
        ]
        found = await self._of_all(request)
        return answer({**answers.health([*found.values()]), "workers": workers})

    def _merged(
        self, merge: Callable[[Answers], dict[str, Any]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def merged(request: web.Request) -> web.Response:
            return answer(merge(await self._of_all(request)))

        return merged

    async def _snapshots(self) -> dict[Child, Snapshot]:
        found: dict[Child, Snapshot] = {}
        for child in self._crew.ready():
            with suppress(Lost):
                found[child] = cast(Snapshot, await _asked(child, "GET", "/metrics.json"))
        if not found:
            raise _no_worker()
        return found

    async def _any(self, request: web.Request) -> web.Response:
        is_for_one = request.method in ("GET", "HEAD") or request.path in _BY_ONE
        found = await (self._of_one(request) if is_for_one else self._of_all(request))
        return answer(next(iter(found.values())))

    async def _of_one(self, request: web.Request) -> Answers:
        """The answer of the first worker that gives one. Raises Refusal."""
        for child in self._crew.ready():
            try:
                return {child.number: await _passed_on(child, request)}
            except Lost:
                continue  # what was asked for can be done twice
        raise _no_worker()

    async def _of_all(self, request: web.Request) -> Answers:
        """The answers of all that are there. Raises Refusal if all of them refuse."""
        found: Answers = {}
        refusal = _no_worker()
        for child in self._crew.ready():
            try:
                found[child.number] = await _passed_on(child, request)
            except Lost:
                continue
            except Refusal as error:
                refusal = error
        if not found:
            raise refusal
        return found


def _no_worker() -> Refusal:
    return Refusal(503, "no-worker", "no worker serves at the moment; try again")


async def _passed_on(child: Child, request: web.Request) -> dict[str, Any]:
    """What one worker answers to `request`. Raises Lost, or what it refuses with."""
    method = "GET" if request.method == "HEAD" else request.method
    return await _asked(child, method, request.path_qs, await request.read())


async def _asked(child: Child, method: str, target: str, body: bytes = b"") -> dict[str, Any]:
    """What one worker answers to such a request. Raises Lost, or what it refuses with."""
    try:
        told = await child.channel.ask("admin", body, method=method, target=target)
    except Refused as error:
        raise Refusal(500, "worker-failed", str(error)) from error
    if told["status"] >= 400:
        said = told["answer"]["error"]
        raise Refusal(told["status"], said["code"], said["message"])
    found: dict[str, Any] = told["answer"]
    return found
