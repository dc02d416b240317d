"""Where clients come in: sockets that listen, and taking connections from them."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

log = logging.getLogger("edgeproxy.front")

BACKLOG = 1024
ACCEPTS_PER_TURN = 32  # of the event loop, so that a flood of connections delays nobody for long
ACCEPT_RETRY_S = 1.0
UNSENT_BYTES = 128 * 1024  # that the kernel holds for a client before we do

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


async def bound_socket(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A socket that is bound and does not listen yet. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, *_, address = found[0]
    # With the protocol named, event loops set TCP_NODELAY on what is accepted.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


class Listener:
    """Takes connections from a bound socket, its own from now on, each for a new `protocol`.

    It accepts by itself rather than through asyncio's server: so it is the same on every event
    loop, a lack of descriptors is waited out and told once, and no queued connection is lost when
    it closes.
    """

    def __init__(self, sock: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._socket = sock
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Future[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        try:
            sock.setblocking(False)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # else megabytes may wait in the kernel
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        self._loop.add_reader(sock, self._accept)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it is bound to."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Take one connection; False if there is none, or none can be taken."""
        try:
            sock, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._pause(error)
                return False
            return True  # this one is gone already
        sock.setblocking(False)
        opening = asyncio.ensure_future(self._open(sock))
        if not opening.done():
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
        return True

    async def _open(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, sock)
        except OSError as error:
            log.debug("a connection could not be taken: %s", error)
            sock.close()

    def _pause(self, error: OSError) -> None:
        log.warning("no connection can be taken for a moment: %s", error.strerror)
        self._loop.remove_reader(self._socket)
        self._retry = self._loop.call_later(ACCEPT_RETRY_S, self._resume)

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._socket, self._accept)

    async def close(self) -> None:
        """Stop listening. What the kernel has queued is taken first: to close would reset it."""
        self._loop.remove_reader(self._socket)
        while self._accept_one():
            pass
        if self._retry is not None:
            self._retry.cancel()
        self._socket.close()
        await asyncio.gather(*self._opening)
