"""Taking the place of a running process without a refused connection: `edgeproxy run --replace`.

A process that may be replaced has a Unix socket. The next one connects there, is given the sockets
that listen, and takes connections from the same queues; then the former takes no more, finishes
what is under way and ends. If the next one fails before that, nothing has changed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edgeproxy import unix_socket
from edgeproxy.addresses import BadAddress
from edgeproxy.engine.listening import BACKLOG, ListenAddress

TAKE, GO, GONE = b"take\n", b"go\n", b"gone\n"
ANSWER_WITHIN_S = 10.0
MAX_SOCKETS = 64

log = logging.getLogger("edgeproxy")


class Place:
    """What one process after the other holds at `path`: the sockets that listen.

    In this order: `take`, `go` once requests are served, `offer`, and at the end `leave`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._former: socket.socket | None = None
        self._sockets: dict[str, socket.socket] = {}
        self._removers: list[Callable[[], None]] = []  # of the paths of Unix sockets
        self._is_handed_over = False

    # ------------------------------------------------------------ the next one

    async def take(self, wanted: Sequence[ListenAddress]) -> list[ListenAddress]:
        """`wanted`, each with a socket that listens already: that of the process which is there,
        or a new one. Raises BadAddress."""
        try:
            given = await asyncio.to_thread(self._ask)
        except (OSError, ValueError) as error:
            raise BadAddress(f"cannot take the place at {self._path}: {error}") from error
        found = []
        for address in wanted:
            key = _key(address)
            sock = given.pop(key, None) or await address.open()
            sock.listen(BACKLOG)
            self._sockets[key] = sock
            if address.path:
                self._removers.append(unix_socket.remover(Path(address.path)))
            found.append(replace(address, descriptor=os.dup(sock.fileno())))
        for sock in given.values():
            sock.close()  # nobody listens there once the former process has ended
        return found

    def _ask(self) -> dict[str, socket.socket]:
        """The sockets of the process that is there, by what they listen for; none without one."""
        if self._path.exists() and not self._path.is_socket():
            raise OSError("it is a file that is no socket")
        former = socket.socket(socket.AF_UNIX)
        former.settimeout(ANSWER_WITHIN_S)
        try:
            former.connect(str(self._path))
        except (FileNotFoundError, ConnectionRefusedError):
            former.close()
            return {}
        self._former = former
        former.sendall(TAKE)
        data, descriptors, _, _ = socket.recv_fds(former, 65536, MAX_SOCKETS)
        given = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        return dict(zip(json.loads(data), given, strict=True))

    async def go(self) -> None:
        """Have the former process listen no more, if there is one. It ends by itself."""
        if self._former is None:
            return
        with self._former as former:
            try:
                await asyncio.to_thread(_say_go, former)
            except OSError as error:  # the sockets are ours as well, so visitors are served
                log.warning("the former process does not say that it goes: %s", error)

    # ------------------------------------------------------------ the former one

    async def offer(self, replaced: Callable[[], Awaitable[None]]) -> None:
        """Wait for the next process; `replaced` is called once it serves."""
        try:
            sock = unix_socket.bound(self._path, 0o600)
        except OSError as error:
            log.error("nobody can take our place: cannot listen at %s: %s", self._path, error)
            return
        self._removers.append(unix_socket.remover(self._path))
        sock.listen()
        sock.setblocking(False)
        with sock:
            while not self._is_handed_over:
                peer, _ = await asyncio.get_running_loop().sock_accept(sock)
                with peer, suppress(OSError):
                    await self._serve(peer, sock, replaced)

    async def _serve(
        self, peer: socket.socket, sock: socket.socket, replaced: Callable[[], Awaitable[None]]
    ) -> None:
        """Give the sockets away, and go if they are used. Who leaves before changes nothing."""
        loop = asyncio.get_running_loop()
        peer.setblocking(False)
        if _user_of(peer) not in (os.getuid(), 0):
            return
        if await loop.sock_recv(peer, len(TAKE)) != TAKE:
            return
        descriptors = [one.fileno() for one in self._sockets.values()]
        socket.send_fds(peer, [json.dumps(list(self._sockets)).encode()], descriptors)
        if await loop.sock_recv(peer, len(GO)) == GO:
            self._is_handed_over = True
            sock.close()
            log.info("another process takes this one's place")
            await replaced()
            await loop.sock_sendall(peer, GONE)

    def leave(self) -> None:
        """Close all; and remove what has a path, unless another process has it now."""
        for sock in self._sockets.values():
            sock.close()
        for remove in self._removers if not self._is_handed_over else ():
            remove()


def _say_go(former: socket.socket) -> None:
    former.sendall(GO)
    if former.recv(len(GONE)) != GONE:
        raise OSError("it has said something else")


def _key(address: ListenAddress) -> str:
    """What tells addresses apart that are asked for."""
    return f"{address}{' tls' if address.tls else ''}{' proxied' if address.is_proxied else ''}"


def _user_of(peer: socket.socket) -> int:
    """Whose process is at the other end (unix(7), SO_PEERCRED)."""
    size = struct.calcsize("3i")
    found = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3i", found)[1])
