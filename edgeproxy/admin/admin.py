"""The admin listener as the policy in force wants it."""

from __future__ import annotations

import asyncio
import logging

from edgeproxy.addresses import BadAddress
from edgeproxy.admin.listener import AdminListener
from edgeproxy.admin.routes import Ask
from edgeproxy.policy.model import AdminConfig

log = logging.getLogger("edgeproxy")


class Admin:
    """Listens where and for whom `follow` was told last; not at all in the beginning."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._listener: AdminListener | None = None
        self._stopping: set[asyncio.Future[None]] = set()

    @property
    def address(self) -> str:
        """`HOST:PORT`, or the path of a socket; empty without a listener."""
        return self._listener.address if self._listener is not None else ""

    async def follow(self, config: AdminConfig | None) -> None:
        """Listen as `config` says. Raises BadAddress, with nothing changed."""
        former = self._listener
        if config is not None and former is not None and config.listen == former.config.listen:
            former.config = config
            return
        self._listener = await self._listening(config) if config is not None else None
        if former is not None:  # not waited for: the request that led here may be its own
            stopping = asyncio.ensure_future(former.stop())
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    async def _listening(self, config: AdminConfig) -> AdminListener:
        listener = AdminListener(config, self._ask)
        try:
            await listener.start()
        except OSError as error:
            reason = error.strerror or error
            raise BadAddress(f"cannot listen for admin on {config.listen}: {reason}") from error
        log.info("admin listens on %s", listener.address)
        return listener

    async def stop(self) -> None:
        """Listen no more."""
        await self.follow(None)
        await asyncio.gather(*self._stopping)
