"""What an operator does with policies: reload, go back, try one beside the other, promote it.

Everything here is all or nothing: a policy with faults is refused, and nothing has changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from edgeproxy.errors import Fault, PolicyError
from edgeproxy.lint import Report, lint
from edgeproxy.metrics.counts import Reloads
from edgeproxy.plan import Plan
from edgeproxy.policy.files import Source
from edgeproxy.policy.policy import Policy
from edgeproxy.rollout.files import PolicyFiles
from edgeproxy.rollout.history import Event, History
from edgeproxy.rollout.stage import Stage, Trial

log = logging.getLogger("edgeproxy")

Changed = Callable[[Policy], Awaitable[None]]
"""Is told of each policy that has come into force after the first."""


class Refused(Exception):
    """What is asked for cannot be done now: a code that never changes, and why."""

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        super().__init__(reason)


class Rollout:
    """The policies of one app: in force, kept, and on trial. One change at a time."""

    def __init__(self, app: Stage, files: PolicyFiles, changed: Changed) -> None:
        self.app = app
        self.history = History()
        self.reloads = Reloads()
        self._files = files
        self._changed = changed
        self._lock = asyncio.Lock()

    # ------------------------------------------------------------ what is in force

    async def start(self) -> None:
        """Put the policy of the files in force. Raises PolicyError, or PluginError."""
        policy = self._files.compose(self._files.sources(), {})
        await self.app.load(self.app.compile(policy))
        self._keep(policy)
        self.history.read()
        self._tell_of_former(policy)
        await self._note(policy, "start", "edgeproxy run")

    async def check(
        self, texts: Sequence[Source], tests: Sequence[Source]
    ) -> tuple[Policy, Report]:
        """The policy that `texts` make, if `tests` pass, and what is odd about it; without texts
        that of the files as they are now, with the tests beside them. Raises PolicyError."""

        def checked() -> tuple[Policy, Report]:
            policy = self._files.compose(texts or self._files.sources(), {})
            self._files.test(texts or policy.sources, tests if texts else self._files.tests())
            self.app.compile(policy)
            return policy, lint(policy)

        try:
            return await asyncio.to_thread(checked)
        except PolicyError:
            raise
        except (Exception, SystemExit) as error:  # a plugin may try to end the program
            raise PolicyError([_plugin_failed(error)]) from error

    async def reload(self, by: str, why: str = "") -> None:
        """Put the policy of the files, as they are now, in force, if the tests beside them pass.
        Raises PolicyError."""
        async with self._lock:
            with self._counted(), self._all_or_nothing("the policy was not reloaded"):
                texts, tests = self._files.sources(), self._files.tests()
                plan = await self._built(texts, tests)
                await self._put_in_force(plan, "reload", by, why)

    async def rollback(self, to: str | None, by: str, why: str = "") -> None:
        """Put a former policy in force again, as it was made of its texts: `to` is its number or
        version, None the one before. Raises Refused, or PolicyError if it does not load any more.
        """
        async with self._lock:
            former = self.history.previous() if to is None else self.history.find(to)
            if former is None:
                named = f"no version {to!r} is kept" if to else "no other version is kept"
                raise Refused("no-such-version", f"{named}; see: edgeproxy policy history")
            if former.version == self.app.plan.version:
                raise Refused("in-force", f"policy {former.version} is in force")
            with self._counted(), self._all_or_nothing("the policy was not rolled back"):
                plan = await self._built(former.sources)
                await self._put_in_force(plan, "rollback", by, why)

    async def _put_in_force(self, plan: Plan, event: Event, by: str, why: str) -> None:
        former = self.app.plan
        is_other = plan.version != former.version
        await self.app.load(plan)
        if self.app.candidate is not None and is_other:
            log.info("the trial of policy %s is over", self.app.candidate.plan.version)
            await self.app.end_trial()
        log.info("policy %s is in force", plan.version)
        if plan.policy.core.workers != former.policy.core.workers:
            log.warning("`workers` counts from the next start")
        self._keep(plan.policy)
        await self._note(plan.policy, event, by, why)
        await self._changed(plan.policy)

    async def _built(
        self, texts: Sequence[Source], tests: Sequence[Source] = (), *, beside: bool = False
    ) -> Plan:
        """The plan that `texts` make, tested; in a thread, so that what is served goes on."""

        def build() -> Plan:
            reuse = {plugin.name: plugin for plugin in self.app.plugins}
            policy = self._files.compose(texts, reuse)
            self._files.test(texts, tests)
            return self.app.compile(policy, beside=beside)

        return await asyncio.to_thread(build)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a change of what is in force, made or refused."""
        try:
            yield
        except PolicyError:
            self.reloads.note(is_good=False)
            raise
        self.reloads.note(is_good=True)

    @contextmanager
    def _all_or_nothing(self, what: str) -> Iterator[None]:
        """Log why something was not done. Whatever is raised inside becomes a PolicyError."""
        version = self.app.plan.version
        try:
            yield
        except PolicyError as error:
            log.error("%s, %s stays:\n%s", what, version, error)
            raise
        except Refused:
            raise
        except (Exception, SystemExit) as error:  # a plugin may try to end the program
            log.exception("%s, %s stays", what, version)
            raise PolicyError([_plugin_failed(error)]) from error

    # ------------------------------------------------------------ what is kept

    def _keep(self, policy: Policy) -> None:
        """Keep policies where and as long as `policy` says."""
        state = policy.core.state
        self.history.kept = state.versions
        self.history.folder = state.path / "policies" if state.path is not None else None

    async def _note(self, policy: Policy, event: Event, by: str, why: str = "") -> None:
        self.history.add(policy.version, policy.sources, event, by, why)
        await asyncio.to_thread(self.history.save)

    def _tell_of_former(self, policy: Policy) -> None:
        """After a restart the files win; say so where that changes what was in force."""
        if self.history.versions:
            last = self.history.versions[-1]
            if last.version != policy.version:
                log.warning(
                    "before the restart policy %s was in force (%s by %s%s); now it is %s, as the "
                    "files say; to go back: edgeproxy policy rollback %d",
                    last.version, last.event, last.by, f": {last.why}" if last.why else "",
                    policy.version, last.number,
                )  # fmt: skip

    def are_files_other(self) -> bool:
        """Whether a reload would put another text in force."""
        try:
            return _raw(self._files.sources()) != _raw(self.app.plan.policy.sources)
        except PolicyError:
            return True

    # ------------------------------------------------------------ what is tried

    async def try_out(
        self,
        texts: Sequence[Source],
        share: float,
        by: str,
        why: str = "",
        *,
        tests: Sequence[Source] = (),
    ) -> Trial:
        """Try the policy that `texts` make, if `tests` pass, on a share of the visitors, 0 for in
        shadow; without texts the one that is on trial. Raises Refused or PolicyError."""
        async with self._lock:
            if not texts:
                candidate = self._candidate()
            else:
                with self._all_or_nothing("the candidate was not taken"):
                    plan = await self._built(texts, tests, beside=True)
                    candidate = await self._taken(plan, share)
            candidate.by, candidate.why = by, why
            await self.app.set_share(share)
            how = f"on {share * 100:g} % of the visitors" if share else "in shadow"
            log.info("policy %s is tried %s, by %s", candidate.plan.version, how, by)
            return candidate

    async def _taken(self, plan: Plan, share: float) -> Trial:
        if plan.version == self.app.plan.version:
            raise Refused("in-force", f"policy {plan.version} is in force")
        running = self.app.candidate
        if running is not None and running.plan.version == plan.version:
            return running  # with its counts, and everybody on the side where they are
        return await self.app.try_out(plan, share)

    async def promote(self, by: str, why: str = "", version: str = "") -> None:
        """Put the candidate in force, if it is `version`. Raises Refused, or PolicyError."""
        async with self._lock:
            candidate = self._candidate(version)
            with self._counted(), self._all_or_nothing("the candidate was not promoted"):
                plan = await asyncio.to_thread(self.app.compile, candidate.plan.policy)
                await self._put_in_force(plan, "promote", by, why)

    async def abort(self, by: str, version: str = "") -> str:
        """End the trial, if it is of `version`; the version that was tried. Raises Refused."""
        async with self._lock:
            version = self._candidate(version).plan.version
            await self.app.end_trial()
            log.info("the trial of policy %s was ended by %s", version, by)
            return version

    def _candidate(self, version: str = "") -> Trial:
        """The policy on trial; of `version`, if that is said, since somebody looked at it."""
        candidate = self.app.candidate
        if candidate is None:
            raise Refused("no-candidate", "no policy is on trial")
        if version and candidate.plan.version != version:
            another = f"policy {candidate.plan.version} is on trial by now, not {version}"
            raise Refused("no-candidate", another)
        return candidate

    async def close(self) -> None:
        """Let a change that is under way come to its end."""
        async with self._lock:
            pass


def _plugin_failed(error: BaseException) -> Fault:
    return Fault("plugin-failed", f"{type(error).__name__}: {error}")


def _raw(texts: Sequence[Source]) -> list[tuple[str, bytes]]:
    return [(name, text.encode() if isinstance(text, str) else text) for name, text in texts]
