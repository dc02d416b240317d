"""One worker process, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from edgeproxy.engine.workers.channel import Channel, Handler, Lost, Refused

PROGRAM = (sys.executable, "-P", "-m", "edgeproxy.engine.workers.worker")
PING_EVERY_S = 5.0
HUNG_S = 30.0
"""A worker that does not answer for so long serves nobody either. It is killed."""

FAREWELL_S = 5.0  # between the end of the channel and that of the process, on a busy machine too

log = logging.getLogger("edgeproxy.workers")


class Child:
    """`channel` is open from the beginning; `is_ready` once it serves."""

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        channel: Channel,
        *,
        ping_every_s: float = PING_EVERY_S,
        hung_s: float = HUNG_S,
        farewell_s: float = FAREWELL_S,
    ) -> None:
        self.number = number
        self.process = process
        self.channel = channel
        self._ping_every_s, self._hung_s = ping_every_s, hung_s
        self._farewell_s = farewell_s
        self.is_ready = False
        self.started_s = time.monotonic()

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.process.pid})"

    @classmethod
    async def born(
        cls,
        number: int,
        handlers: Mapping[str, Handler],
        descriptors: Iterable[int] = (),
        program: Sequence[str] = PROGRAM,
        **times: float,
    ) -> Child:
        """A new process, which inherits `descriptors`. It is told that of its channel.

        It is a program of its own rather than a fork: nothing of the supervisor is in it. And it
        has a session of its own, so that Ctrl-C in a terminal is heard by the supervisor alone.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *program, str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *descriptors),
                start_new_session=True,
            )  # fmt: skip
        channel = Channel(handlers)
        await channel.open(ours)
        return cls(number, process, channel, **times)

    async def ended(self) -> str:
        """Return when the process is no more: how it ended. One that hangs is killed."""
        watching = asyncio.ensure_future(self._watch())
        try:
            status = await self.process.wait()
        finally:
            watching.cancel()
            self.channel.close()
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with exit status {status}"

    async def _watch(self) -> None:
        """Kill it when it does not answer, or says what cannot be understood."""
        pinging = asyncio.ensure_future(self._ping())
        try:
            reason = await self.channel.lost()
        finally:
            pinging.cancel()
        await asyncio.sleep(self._farewell_s)
        log.error("%s is killed: %s", self, reason)
        self.kill()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._ping_every_s)
            if not self.is_ready:  # a plugin may take its time to start
                continue
            try:
                async with asyncio.timeout(self._hung_s):
                    await self.channel.ask("ping")
            except TimeoutError:
                self.channel.close(f"it has not answered for {self._hung_s:g} s")
                return
            except (Lost, Refused):
                return

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
