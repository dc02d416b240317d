"""One process's way from clients to origins: the front, the core, the app and the upstream."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from edgeproxy import memory
from edgeproxy.acme import Challenges
from edgeproxy.addresses import BadAddress
from edgeproxy.app import App
from edgeproxy.caching.neighbours import Neighbours
from edgeproxy.engine.accelerator import Accelerator
from edgeproxy.engine.datagrams import DatagramSocket
from edgeproxy.engine.flows import written
from edgeproxy.engine.front import HTTP1, Front, FrontSettings, Peer
from edgeproxy.engine.http1 import Http1
from edgeproxy.engine.http2 import Http2
from edgeproxy.engine.listening import ListenAddress
from edgeproxy.engine.mitm import Core
from edgeproxy.engine.pipe import PipeEnd, duplex
from edgeproxy.engine.quic_limits import check_library
from edgeproxy.engine.quic_listener import QuicListener
from edgeproxy.engine.recording import Recording
from edgeproxy.engine.renewals import Renewals
from edgeproxy.engine.upstream import Upstream
from edgeproxy.engine.watchdog import Watchdog
from edgeproxy.log import AccessLog
from edgeproxy.metrics.counts import Counts
from edgeproxy.plan import Plan
from edgeproxy.policy.certificates import ServerNames
from edgeproxy.policy.model import Limits, RecordConfig
from edgeproxy.policy.policy import Policy

log = logging.getLogger("edgeproxy")

Write = Callable[[dict[str, Any]], None]
"""Takes an entry of the access log."""


class Edge:
    """`open` once `app` has a policy in force; `drain`, then `close`, whatever came of that."""

    def __init__(
        self,
        listen: Sequence[ListenAddress],
        *,
        access_log: str = "auto",
        write: Write | None = None,
        neighbours: Neighbours | None = None,
        record: RecordConfig | None = None,
    ) -> None:
        """`record` holds whatever policies say of it; `neighbours` write into the same log."""
        names_clients = False
        if write is None and access_log != "off":
            written = AccessLog(sys.stdout, access_log, is_shared=neighbours is not None)
            write, names_clients = written.write, written.names_client
        self.urls: list[str] = []
        self._listen = listen
        counts = Counts()
        self._upstream = Upstream(counts)
        self.app = App(self._upstream.fetch, write, neighbours, counts, names_clients=names_clients)
        self.accelerator = Accelerator(self.app)
        self.watchdog = Watchdog(self.app)
        self._record = record
        self._recording: Recording | None = None
        self._core: Core | None = None
        self._front: Front | None = None
        self._front_settings = FrontSettings(Limits())
        self._plan: Plan | None = None  # that they are made of
        self._streams: set[asyncio.Future[None]] = set()
        self._renewals = Renewals(lambda: self.app.plan.tls, self._forget_settings)
        self._upkeep: list[asyncio.Future[None]] = []

    async def open(self) -> None:
        """Listen. Raises BadAddress."""
        self._record_as(self.app.plan.policy)
        self._core = Core(self.app)
        self._front = Front(
            self._connect,
            self._settings,
            {HTTP1: Http1, "h2": Http2},
            self.accelerator,
            beside=self._listen_beside,
            counts=self.app.counts,
        )
        for address in self._listen:
            self.urls.append((await self._front.listen(address)).url)
        self._front.follow()
        for work in (self._renewals.run(), memory.stay_trimmed()):
            self._upkeep.append(asyncio.ensure_future(work))
        self.watchdog.start()

    async def drain(self) -> None:
        """Stop accepting, and let requests under way finish within the policy's time."""
        self.app.is_draining = True
        for work in self._upkeep:
            work.cancel()
        await asyncio.gather(*self._upkeep, return_exceptions=True)
        if self._front is not None:
            await self._front.stop(self.app.plan.limits.shutdown_timeout)
        for stream in tuple(self._streams):
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)

    async def close(self) -> None:
        self.watchdog.stop()
        await self.app.close()
        if (recording := self._end_recording()) is not None:
            await recording.written()
        await self._upstream.close()

    def follow(self, policy: Policy) -> None:
        """Do what `policy`, which is in force now, says of this process."""
        try:
            self._record_as(policy)
        except BadAddress as error:
            log.error("nothing is recorded: %s", error)
        if self._front is not None:
            try:
                self._front.follow()
            except BadAddress as error:
                log.error("HTTP/3 is not served: %s", error)

    def _listen_beside(self, front: Front, sock: socket.socket) -> QuicListener:
        check_library()
        return QuicListener(front, DatagramSocket.beside(sock), self._certificates)

    def _certificates(self) -> ServerNames:
        names = self.app.plan.tls
        assert names is not None  # HTTP/3 is a protocol of TLS
        return names

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

    def _end_recording(self) -> Recording | None:
        """The recording that there was, which takes no more."""
        recording, self._recording, self.app.recorder = self._recording, None, None
        if recording is not None:
            recording.end()
        return recording

    def _settings(self) -> FrontSettings:
        plan = self.app.plan
        if self._plan is not plan:
            self._plan, tls = plan, plan.policy.core.tls
            self._front_settings = FrontSettings(
                plan.limits,
                plan.encoded_slashes,
                names=plan.tls,
                has_http3=tls is not None and "h3" in tls.protocols,
                alt_svc=tls.alt_svc if tls is not None else None,
                trusted_proxies=plan.trusted_proxies,
                is_accelerated=plan.policy.core.accelerator == "on",
                challenges=self._challenges(plan.policy),
            )
        return self._front_settings

    @staticmethod
    def _challenges(policy: Policy) -> Challenges | None:
        tls, state = policy.core.tls, policy.core.state.path
        if tls is None or tls.acme is None or state is None:
            return None
        return Challenges(state / "acme" / "challenges")

    def _forget_settings(self) -> None:
        self._plan = None

    def _connect(self, peer: Peer) -> PipeEnd:
        assert self._core is not None
        near, far = duplex(peername=peer.peername, sockname=peer.sockname, scheme=peer.scheme)
        stream = asyncio.ensure_future(self._core.handle_stream(far))
        self._streams.add(stream)
        stream.add_done_callback(self._streams.discard)
        return near
