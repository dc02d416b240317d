"""The admin listener of all workers: it stands with the supervisor, and they answer.

A worker answers as it would on a listener of its own. What asks is answered by one, unless its
answers are merged here; what changes something is done by all, unless one tells the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast

from edgeproxy import log
from edgeproxy.admin import BY_OPERATION, Refusal, Route, asked
from edgeproxy.engine.workers import answers
from edgeproxy.engine.workers.channel import Lost, Refused
from edgeproxy.engine.workers.child import Child
from edgeproxy.engine.workers.crew import Crew
from edgeproxy.metrics.snapshot import Snapshot

type Answers = dict[int, dict[str, Any]]
"""JSON objects, by the number of the worker."""


def _first(found: Answers) -> dict[str, Any]:
    return next(iter(found.values()))


_MERGED: Mapping[str, Callable[[Answers], dict[str, Any]]] = {
    "health": answers.health,
    "origins": answers.origins,
    "experiments": answers.experiments,
    "cache_stats": answers.stats,
    "cache_objects": answers.objects,
    "cache_object": answers.objects,
    "requests": answers.requests,
    "request": _first,
    "traffic": answers.traffic,
}
_BY_ONE = ("purge", "invalidate", "cache_verify")
"""Changes that one worker sees to for all: it tells the others, or all have the same."""


class CrewOperations:
    """What the supervisor has a part in; `of_workers` is all else."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    async def health(self, what: asked.Nothing) -> Mapping[str, Any]:
        now_s = time.monotonic()
        workers = [
            {
                "number": child.number,
                "process": child.process.pid,
                "up_s": round(now_s - child.started_s, 1),
            }
            for child in self._crew.ready()
        ]
        return {**await self.of_workers(BY_OPERATION["health"], what), "workers": workers}

    async def ready(self, what: asked.Nothing) -> Mapping[str, Any]:
        if self._crew.is_stopping:
            raise Refusal(503, "draining", "it finishes what is under way, and ends")
        return _first(await self._of_all(BY_OPERATION["ready"], what))

    async def set_log_level(self, what: asked.LogLevel) -> Mapping[str, Any]:
        log.set_level(what.level)  # also for workers that begin later
        return await self.of_workers(BY_OPERATION["set_log_level"], what)

    async def snapshots(self) -> dict[Child, Snapshot]:
        """The figures of each. Raises Refusal if there is none."""
        found: dict[Child, Snapshot] = {}
        for child in self._crew.ready():
            with suppress(Lost):
                answer = await _answer(child, BY_OPERATION["figures"], asked.Nothing())
                found[child] = cast(Snapshot, answer)
        if not found:
            raise _nobody()
        return found

    async def of_workers(self, route: Route, what: asked.Asked) -> Mapping[str, Any]:
        """What the workers answer, as one. Raises Refusal."""
        merge = _MERGED.get(route.operation)
        if merge is None and (route.method == "GET" or route.operation in _BY_ONE):
            return await self._of_one(route, what)
        return (merge or _first)(await self._of_all(route, what))

    async def _of_one(self, route: Route, what: asked.Asked) -> Mapping[str, Any]:
        """The answer of the first worker that gives one. Raises Refusal."""
        for child in self._crew.ready():
            try:
                return await _answer(child, route, what)
            except Lost:
                continue  # what was asked for can be done twice
        raise _nobody()

    async def _of_all(self, route: Route, what: asked.Asked) -> Answers:
        """The answers of all that are there. Raises Refusal if all of them refuse."""
        found: Answers = {}
        refusal = _nobody()
        for child in self._crew.ready():
            try:
                found[child.number] = await _answer(child, route, what)
            except Lost:
                continue
            except Refusal as error:
                refusal = error
        if not found:
            raise refusal
        return found


def _nobody() -> Refusal:
    return Refusal(503, "no-worker", "no worker serves at the moment; try again")


async def _answer(child: Child, route: Route, what: asked.Asked) -> dict[str, Any]:
    """What one worker answers. Raises Lost, or what it refuses with."""
    data = what.model_dump_json().encode()
    try:
        told = await child.channel.ask("admin", data, operation=route.operation)
    except Refused as error:
        raise Refusal(500, "worker-failed", str(error)) from error
    if "refusal" in told.words:
        raise Refusal(*told["refusal"])
    found: dict[str, Any] = told["answer"]
    return found
