"""A running edgeproxy: the front, the core and the app, started and stopped together."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeproxy.addresses import BadAddress
from edgeproxy.admin import Admin, routes
from edgeproxy.app import App
from edgeproxy.engine.accelerator import Accelerator
from edgeproxy.engine.flows import written
from edgeproxy.engine.front import Front, FrontSettings, Peer
from edgeproxy.engine.listening import ListenAddress
from edgeproxy.engine.mitm import Core
from edgeproxy.engine.pipe import PipeEnd, duplex
from edgeproxy.engine.recording import Recording
from edgeproxy.engine.upstream import Upstream
from edgeproxy.errors import PolicyError
from edgeproxy.log import AccessLog
from edgeproxy.policy.installed import Registry
from edgeproxy.policy.model import Limits, RecordConfig
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
        write: Callable[[dict[str, Any]], None] | None = None,
        registry: Registry | None = None,
        record: RecordConfig | None = None,
    ) -> None:
        """`record` holds whatever the policies say of it."""
        self._listen = listen
        if write is None and access_log != "off":
            write = AccessLog(sys.stdout, access_log).write
        self._upstream = Upstream()
        self.app = App(self._upstream.fetch, write)
        files = PolicyFiles(policies, origins, any(one.tls for one in listen), registry)
        self.rollout = Rollout(self.app, files, self._follow)
        self.admin = Admin(routes(self.rollout))
        self.accelerator = Accelerator(self.app)
        self._record = record
        self._recording: Recording | None = None
        self._core: Core | None = None
        self._front: Front | None = None
        self._front_settings = FrontSettings(Limits())
        self._streams: set[asyncio.Future[None]] = set()
        self.urls: list[str] = []

    @property
    def version(self) -> str:
        """That of the policy in force."""
        return self.app.plan.version

    async def start(self) -> None:
        """Load, open, listen. Raises PolicyError or BadAddress, with nothing left open."""
        asyncio.get_running_loop().set_task_factory(eager_task)
        try:
            await self.rollout.start()
            await self.admin.follow(self.app.plan.policy.core.admin)
            self._record_as(self.app.plan.policy)
            self._core = Core(self.app)
            self._front = Front(self._connect, self._settings, self.accelerator)
            self._warn_of_certificates()
            for address in self._listen:
                self.urls.append((await self._front.listen(address)).url)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop accepting, let requests under way finish within the policy's time, close all."""
        await self.admin.stop()
        if self._front is not None:
            await self._front.stop(self.app.plan.limits.shutdown_timeout)
        for stream in tuple(self._streams):
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        await self.rollout.close()
        await self.app.close()
        self._end_recording()
        await self._upstream.close()

    async def reload(self, by: str = "reload") -> None:
        """Put the policies as they are now in force, or log their faults and change nothing."""
        with suppress(PolicyError):
            await self.rollout.reload(by)

    async def _follow(self, policy: Policy) -> None:
        """Do what `policy`, which is in force now, says of this process."""
        self._warn_of_certificates()
        try:
            self._record_as(policy)
        except BadAddress as error:
            log.error("nothing is recorded: %s", error)
        try:
            await self.admin.follow(policy.core.admin)
        except BadAddress as error:
            log.error("the admin listener stays as it was: %s", error)

    def _record_as(self, policy: Policy) -> None:
        """Record what `policy` wants recorded. BadAddress if the file cannot be written."""
        wanted = self._record or policy.core.record
        if self._recording is not None and self._recording.config == wanted:
            return
        self._end_recording()
        if wanted is not None:
            try:
                self.app.recorder = self._recording = Recording(wanted, written)
            except OSError as error:
                raise BadAddress(f"cannot record into {wanted.path}: {error.strerror}") from None

    def _end_recording(self) -> None:
        recording, self._recording, self.app.recorder = self._recording, None, None
        if recording is not None:
            recording.close()

    def _warn_of_certificates(self) -> None:
        if self.app.plan.tls is not None:
            self.app.plan.tls.warn_of_ends()

    def _settings(self) -> FrontSettings:
        plan = self.app.plan
        if self._front_settings.limits is not plan.limits:
            self._front_settings = FrontSettings(
                plan.limits,
                plan.encoded_slashes,
                plan.tls.context if plan.tls is not None else None,
                plan.policy.core.accelerator == "on",
            )
        return self._front_settings

    def _connect(self, peer: Peer) -> PipeEnd:
        assert self._core is not None
        near, far = duplex(peername=peer.peername, sockname=peer.sockname, scheme=peer.scheme)
        stream = asyncio.ensure_future(self._core.handle_stream(far))
        self._streams.add(stream)
        stream.add_done_callback(self._streams.discard)
        return near


def eager_task[T](
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], **options: Any
) -> asyncio.Task[T]:
    """A task that runs at once, up to where it first waits.

    asyncio's own factory does not take the arguments that uvloop hands on, on Python 3.13.
    """
    options.pop("eager_start", None)
    return asyncio.Task(work, loop=loop, eager_start=True, **options)
