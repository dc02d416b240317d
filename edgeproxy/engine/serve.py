"""A running edgeproxy in one process: an edge, its policies and the admin listener."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from edgeproxy.acme import Keeper
from edgeproxy.addresses import BadAddress
from edgeproxy.admin import (
    Admin,
    OpenApiOperations,
    PolicyOperations,
    answered_by,
    app_operations,
)
from edgeproxy.engine.edge import Edge, Write
from edgeproxy.engine.listening import ListenAddress
from edgeproxy.engine.process import Step, eager_task
from edgeproxy.errors import PolicyError
from edgeproxy.policy.installed import Registry
from edgeproxy.policy.model import RecordConfig
from edgeproxy.policy.policy import Policy
from edgeproxy.rollout import PolicyFiles, Rollout

log = logging.getLogger("edgeproxy")


class Server:
    """Policies served on some addresses. `start`, `reload`, `stop`; `urls` once started."""

    def __init__(
        self,
        policies: Sequence[Path],
        origins: Sequence[str] = (),
        *,
        listen: Sequence[ListenAddress] = (ListenAddress("127.0.0.1", 8080),),
        access_log: str = "auto",
        write: Write | None = None,
        registry: Registry | None = None,
        record: RecordConfig | None = None,
    ) -> None:
        self.edge = Edge(listen, access_log=access_log, write=write, record=record)
        self.app = self.edge.app
        self.urls = self.edge.urls
        files = PolicyFiles(policies, origins, any(one.tls for one in listen), registry)
        self.rollout = Rollout(self.app, files, self._follow)
        self.admin = Admin(
            answered_by(
                *app_operations(self.app, self.rollout.reloads),
                PolicyOperations(self.rollout),
                OpenApiOperations(),
            )
        )
        self.keeper = Keeper(lambda: self.app.plan.policy.core)

    @property
    def version(self) -> str:
        """That of the policy in force."""
        return self.app.plan.version

    async def start(self, before_admin: Step | None = None) -> None:
        """Load, open, listen. Raises PolicyError or BadAddress, with nothing left open."""
        asyncio.get_running_loop().set_task_factory(eager_task)
        try:
            await self.rollout.start()
            self._warn_of_certificates()
            await self.edge.open()
            if before_admin is not None:
                await before_admin()
            await self.admin.follow(self.app.plan.policy.core.admin)
            self.keeper.start()
        except BaseException:
            await self.stop()
            raise

    async def retire(self) -> None:
        await self.admin.stop()

    async def stop(self) -> None:
        """Stop accepting, let requests under way finish within the policy's time, close all.

        Until they have, the admin listener says that this is not ready.
        """
        await self.keeper.stop()
        await self.edge.drain()
        await self.admin.stop()
        await self.rollout.close()
        await self.edge.close()

    async def reload(self, by: str = "reload") -> None:
        """Put the policies as they are now in force, or log their faults and change nothing."""
        with suppress(PolicyError):
            await self.rollout.reload(by)

    async def _follow(self, policy: Policy) -> None:
        """Do what `policy`, which is in force now, says of this process."""
        self._warn_of_certificates()
        if policy.core.limits.process_memory:
            log.warning("limits.process_memory counts from the next start: nobody is there yet who "
                        "could start this process anew")  # fmt: skip
        self.keeper.follow()
        self.edge.follow(policy)
        try:
            await self.admin.follow(policy.core.admin)
        except BadAddress as error:
            log.error("the admin listener stays as it was: %s", error)

    def _warn_of_certificates(self) -> None:
        if self.app.plan.tls is not None:
            self.app.plan.tls.warn_of_ends()
