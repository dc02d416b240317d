"""Operations of the admin listener on policies: the one in force, former ones, one on trial."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgeproxy.admin import asked
from edgeproxy.admin.messages import Refusal
from edgeproxy.errors import PolicyError
from edgeproxy.rollout import Refused, Rollout
from edgeproxy.rollout.history import Version


class PolicyOperations:
    def __init__(self, rollout: Rollout) -> None:
        self._rollout = rollout

    # ------------------------------------------------------------ looking

    async def policy(self, what: asked.Kept) -> dict[str, Any]:
        history = self._rollout.history
        name = what.version
        found = history.versions[-1] if name is None else history.find(name)
        if found is None:
            raise Refusal(404, "no-such-version", f"no version {name!r} is kept")
        files = [{"name": name, "text": text} for name, text in found.sources]
        return {**_described(found), "files": files}

    async def policy_history(self, _: asked.Nothing) -> dict[str, Any]:
        versions = [_described(one) for one in reversed(self._rollout.history.versions)]
        return {"versions": versions, "kept": self._rollout.history.kept}

    async def policy_status(self, _: asked.Nothing) -> dict[str, Any]:
        return {
            "in_force": _described(self._rollout.history.versions[-1]),
            "files_are_other": self._rollout.are_files_other(),
            "candidate": await self._tried(),
        }

    async def _tried(self) -> dict[str, Any] | None:
        trial = self._rollout.app.candidate
        if trial is None:
            return None
        return {
            "version": trial.plan.version,
            "percent": trial.share * 100,
            "since": _moment(trial.since_s),
            "by": trial.by,
            "why": trial.why,
            "files": list(trial.plan.policy.files),
            **await self._rollout.app.trial_report(),
        }

    async def policy_check(self, what: asked.Policy) -> dict[str, Any]:
        try:
            policy, report = await self._rollout.check(what.texts(), what.test_texts())
        except PolicyError as error:
            faults = [fault.as_json() for fault in error.faults]
            return {"policy": None, "faults": faults, "findings": []}
        findings = [finding.as_json() for finding in report.findings]
        return {"policy": policy.version, "faults": [], "findings": findings}

    # ------------------------------------------------------------ changing

    async def policy_reload(self, what: asked.Change) -> dict[str, Any]:
        with _refusing():
            await self._rollout.reload(what.by, what.why)
        return await self._changed()

    async def policy_rollback(self, what: asked.Rollback) -> dict[str, Any]:
        with _refusing():
            await self._rollout.rollback(what.version or None, what.by, what.why)
        return await self._changed()

    async def policy_shadow(self, what: asked.Shadow) -> dict[str, Any]:
        return await self._try_out(what, 0.0, what)

    async def policy_canary(self, what: asked.Canary) -> dict[str, Any]:
        return await self._try_out(what, what.percent / 100, what)

    async def _try_out(
        self, what: asked.Policy, share: float, change: asked.Change
    ) -> dict[str, Any]:
        with _refusing():
            tests = what.test_texts()
            await self._rollout.try_out(what.texts(), share, change.by, change.why, tests=tests)
        return await self._changed()

    async def policy_promote(self, what: asked.OnTrial) -> dict[str, Any]:
        with _refusing():
            await self._rollout.promote(what.by, what.why, what.version)
        return await self._changed()

    async def policy_abort(self, what: asked.OnTrial) -> dict[str, Any]:
        with _refusing():
            await self._rollout.abort(what.by, what.version)
        return await self._changed()

    async def _changed(self) -> dict[str, Any]:
        """The state that a change has led to."""
        status = await self.policy_status(asked.Nothing())
        return {"policy": self._rollout.app.plan.version, **status}


@contextmanager
def _refusing() -> Iterator[None]:
    """Why nothing was changed, told to who asked for it."""
    try:
        yield
    except PolicyError as error:
        raise Refusal(409, "policy-faults", str(error)) from None
    except Refused as refused:
        status = 404 if refused.code == "no-such-version" else 409
        raise Refusal(status, refused.code, str(refused)) from None


def _described(one: Version) -> dict[str, Any]:
    """All but what is in the files."""
    return {
        "number": one.number, "version": one.version, "at": _moment(one.at_s), "event": one.event,
        "by": one.by, "why": one.why, "files": [name for name, _ in one.sources],
    }  # fmt: skip


def _moment(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
