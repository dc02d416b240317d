"""The supervisor: reserves addresses, holds the policies, and has workers serve as one."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from edgeproxy.acme import Keeper
from edgeproxy.addresses import BadAddress
from edgeproxy.admin import (
    Admin,
    MetricsOperations,
    OpenApiOperations,
    PolicyOperations,
    answered_by,
)
from edgeproxy.engine.listening import ListenAddress
from edgeproxy.engine.process import Step
from edgeproxy.engine.workers.carrying import words_of_record
from edgeproxy.engine.workers.counting import CrewCounts
from edgeproxy.engine.workers.crew import STOP_GRACE_S
from edgeproxy.engine.workers.fleet import Fleet
from edgeproxy.engine.workers.growth import Growth
from edgeproxy.engine.workers.operations import CrewOperations
from edgeproxy.errors import PolicyError
from edgeproxy.policy.model import RecordConfig
from edgeproxy.policy.policy import Policy
from edgeproxy.rollout import PolicyFiles, Rollout

BALANCES_PORTS = sys.platform == "linux"
"""Whether the kernel spreads connections over sockets that listen on one port (SO_REUSEPORT)."""

log = logging.getLogger("edgeproxy")


class Supervisor:
    """Policies served by `count` workers. `start`, `reload`, `stop`; `urls` once started."""

    def __init__(
        self,
        policies: Sequence[Path],
        origins: Sequence[str],
        count: int,
        *,
        listen: Sequence[ListenAddress],
        record: RecordConfig | None,
        access_log: str,
    ) -> None:
        self.urls: list[str] = []
        self._count = count
        self._listen = listen
        self._record = record
        self._access_log = access_log
        self._reserved: list[socket.socket] = []
        self._removers: list[Callable[[], None]] = []  # of Unix sockets
        self._files = PolicyFiles(policies, origins, any(one.tls for one in listen))
        self._keeper = Keeper(lambda: self._fleet.plan.policy.core)
        self._watching: asyncio.Future[None] | None = None

    @property
    def version(self) -> str:
        """That of the policy in force."""
        return self._fleet.plan.version

    async def start(self, before_admin: Step | None = None) -> None:
        """Have all workers serve. Raises what keeps one from it, with nothing left behind."""
        listen = [await self._reserve(address) for address in self._listen]
        how = {
            "listen": [asdict(address) for address in listen],
            "paths": [str(path) for path in self._files.paths],
            "origins": list(self._files.origins),
            "record": words_of_record(self._record),
            "access_log": self._access_log,
        }
        descriptors = [one.descriptor for one in listen if one.descriptor is not None]
        self._fleet = Fleet(self._count, how, descriptors)
        self._rollout = Rollout(self._fleet, self._files, self._follow)
        crew = CrewOperations(self._fleet.crew)
        policies = PolicyOperations(self._rollout)
        counts = CrewCounts(crew.snapshots)
        figures = MetricsOperations(counts.snapshot, self._rollout.reloads)
        self._admin = Admin(
            answered_by(policies, figures, OpenApiOperations(), crew, otherwise=crew.of_workers)
        )
        try:
            await self._rollout.start()
            if before_admin is not None:
                await before_admin()
            await self._admin.follow(self._fleet.plan.policy.core.admin)
            self._keeper.start()
            growth = Growth(self._fleet.crew, lambda: self._fleet.plan.limits)
            self._watching = asyncio.ensure_future(growth.watch())
        except BaseException:
            await self.stop()
            raise

    async def _reserve(self, address: ListenAddress) -> ListenAddress:
        """Where workers are to listen for `address`: nobody else may, and all of them can."""
        if address.descriptor is not None:
            shared = socket.socket(fileno=address.descriptor)
            self.urls.append(address.bound_to(shared).url)
            shared.detach()
            return address
        sock = await address.open()  # fails if anybody listens there
        bound = address.bound_to(sock)
        self.urls.append(bound.url)
        if remove := address.remover():
            self._removers.append(remove)
        if bound.path or not BALANCES_PORTS:
            self._reserved.append(sock)
            return replace(address, descriptor=sock.fileno())
        sock.close()
        bound = replace(bound, reuse_port=True)
        self._reserved.append(await bound.open())  # and does not listen: it gets no connection
        return bound

    async def reload(self, by: str = "reload") -> None:
        """Put the policies as they are now in force, or log their faults and change nothing."""
        with suppress(PolicyError):
            await self._rollout.reload(by)

    async def _follow(self, policy: Policy) -> None:
        """Do what `policy`, which is in force now, says of this process."""
        self._keeper.follow()
        try:
            await self._admin.follow(policy.core.admin)
        except BadAddress as error:
            log.error("the admin listener stays as it was: %s", error)

    async def retire(self) -> None:
        await self._admin.stop()

    async def stop(self) -> None:
        """Have the workers finish what is under way within the policy's time, and end. Until they
        have, the admin listener says that this is not ready."""
        await self._keeper.stop()
        if self._watching is not None:
            self._watching.cancel()
        plan = getattr(self._fleet, "plan", None)
        within_s = plan.limits.shutdown_timeout + STOP_GRACE_S if plan is not None else 0
        await self._fleet.crew.stop(within_s)
        await self._admin.stop()
        await self._rollout.close()
        for sock in self._reserved:
            sock.close()
        for remove in self._removers:
            remove()
