"""All workers as one app for a rollout: what it does is done in all of them, or in none.

The supervisor compiles policies as well, and opens nothing of them: so it has their faults at once,
and knows what to tell a worker that begins.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeproxy import log
from edgeproxy.engine.workers.answers import tried
from edgeproxy.engine.workers.carrying import read_faults, words_of_sources
from edgeproxy.engine.workers.channel import Message
from edgeproxy.engine.workers.crew import Crew
from edgeproxy.errors import Fault, PolicyError
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.policy import LoadedPlugin, Policy


@dataclass(slots=True)
class Tried:
    """What is on trial in all workers; what it has done there, they know."""

    plan: Plan
    share: float
    by: str = ""
    why: str = ""
    since_s: float = field(default_factory=time.time)


class Fleet:
    """What a rollout drives in place of an app."""

    plan: Plan
    plugins: tuple[LoadedPlugin, ...] = ()  # none of them runs here, so none is reused

    def __init__(self, count: int, how: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """`how` is what workers are told besides policies."""
        self.candidate: Tried | None = None
        self.crew = Crew(count, self._order, descriptors)
        self._how = how

    def _order(self) -> dict[str, Any]:
        candidate = self.candidate
        return {
            **self._how,
            "log_level": log.level(),  # which may have been set since the start
            "policy": words_of_sources(self.plan.policy.sources),
            "candidate": words_of_sources(candidate.plan.policy.sources) if candidate else None,
            "share": candidate.share if candidate else 0.0,
        }

    def compile(self, policy: Policy, *, beside: bool = False) -> Plan:
        return compile_plan(policy)

    async def load(self, plan: Plan) -> None:
        """Put `plan` in force in all workers; the first one is what they begin with."""
        if not self.crew.is_begun:
            self.plan = plan
            await self.crew.start()
            return
        async with self.crew.changing:
            await self._prepare(plan, beside=False)
            self.plan = plan  # also for one that dies now, and begins anew
            await self.crew.ask_all("commit", share=None)

    async def try_out(self, plan: Plan, share: float) -> Tried:
        async with self.crew.changing:
            await self._prepare(plan, beside=True)
            self.candidate = Tried(plan, share)
            await self.crew.ask_all("commit", share=share)
            return self.candidate

    async def _prepare(self, plan: Plan, *, beside: bool) -> None:
        """Have `plan` ready in all. Raises PolicyError, with it ready in none."""
        policy = words_of_sources(plan.policy.sources)
        answers = await self.crew.ask_all("prepare", policy=policy, beside=beside)
        for child, answer in answers.items():
            error: PolicyError | None = None
            if not isinstance(answer, Message):
                said = f"{child} was lost while it made the policy ready ({answer}); try again"
                error = PolicyError([Fault("worker-lost", said)])
            elif "faults" in answer.words:
                error = read_faults(answer["faults"])
            if error is not None:
                await self.crew.ask_all("discard")
                raise error

    async def set_share(self, share: float) -> None:
        async with self.crew.changing:
            if self.candidate is not None:
                self.candidate.share = share
                await self.crew.ask_all("set_share", share=share)

    async def end_trial(self) -> None:
        async with self.crew.changing:
            self.candidate = None
            await self.crew.ask_all("end_trial")

    async def trial_report(self) -> dict[str, Any]:
        answers = (await self.crew.ask_all("tried")).values()
        found = [one["report"] for one in answers if isinstance(one, Message)]
        return tried([report for report in found if report is not None])
