"""What a rollout acts on: an app, or several that act as one."""

from __future__ import annotations

from typing import Any, Protocol

from edgeproxy.plan import Plan
from edgeproxy.policy.policy import LoadedPlugin, Policy


class Trial(Protocol):
    """The policy that is tried: see `edgeproxy.candidate`."""

    by: str
    why: str
    since_s: float

    @property
    def plan(self) -> Plan: ...

    @property
    def share(self) -> float: ...


class Stage(Protocol):
    """See `edgeproxy.app.App`, which is one."""

    @property
    def plan(self) -> Plan: ...

    @property
    def plugins(self) -> tuple[LoadedPlugin, ...]: ...

    @property
    def candidate(self) -> Trial | None: ...

    def compile(self, policy: Policy, *, beside: bool = False) -> Plan: ...

    async def load(self, plan: Plan) -> None: ...

    async def try_out(self, plan: Plan, share: float) -> Trial: ...

    async def set_share(self, share: float) -> None: ...

    async def end_trial(self) -> None: ...

    async def trial_report(self) -> dict[str, Any]:
        """What the policy on trial has done, and what the one in force did meanwhile."""
        ...
