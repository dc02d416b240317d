"""Where clients come in: sockets that listen, and taking connections from them."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgeproxy.addresses import BadAddress, split_address

log = logging.getLogger("edgeproxy.front")

BACKLOG = 1024
ACCEPTS_PER_TURN = 32  # of the event loop, so that a flood of connections delays nobody for long
ACCEPT_RETRY_S = 1.0
UNSENT_BYTES = 128 * 1024  # that the kernel holds for a client before we do

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: host and port, or a socket that somebody has opened (its `descriptor`)."""

    host: str = ""
    port: int = 0
    tls: bool = False
    descriptor: int | None = None
    reuse_port: bool = False  # others of us listen there as well

    def __str__(self) -> str:
        if self.descriptor is not None:
            return f"the socket {self.descriptor} of systemd"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self}/"

    async def open(self) -> socket.socket:
        """A socket that is bound, and perhaps listens. Raises BadAddress."""
        try:
            if self.descriptor is not None:
                return _passed(self.descriptor)
            return await _bound(self.host, self.port, reuse_port=self.reuse_port)
        except OSError as error:
            raise self.refused(error) from error

    def refused(self, error: OSError) -> BadAddress:
        """What to say when this address cannot be had."""
        option = "--listen-tls" if self.tls else "--listen"
        return BadAddress(
            f"cannot listen on {self}: {error.strerror or error}; "
            f"stop what uses it, or choose another with {option}"
        )

    def bound_to(self, sock: socket.socket) -> ListenAddress:
        """The same, as `sock` has it: a port in place of 0, a number in place of a name."""
        host, port = sock.getsockname()[:2]
        return replace(self, host=host, port=port, descriptor=None)


def listen_addresses(
    plain: Sequence[str], tls: Sequence[str], passed: Mapping[str, Sequence[int]]
) -> list[ListenAddress]:
    """What `--listen` and `--listen-tls` name. Raises BadAddress.

    `systemd` is every socket in `passed` that `systemd:NAME` does not ask for elsewhere.
    """
    named = {text.partition(":")[2] for text in (*plain, *tls) if text.startswith("systemd:")}
    rest = [one for name, group in passed.items() if name not in named for one in group]
    found: list[ListenAddress] = []
    for text, is_tls in [(text, False) for text in plain] + [(text, True) for text in tls]:
        word, _, name = text.partition(":")
        if word == "systemd":
            descriptors = passed.get(name, ()) if name else rest
            if not descriptors:
                raise BadAddress(f"{text}: no such socket was passed; see man systemd.socket")
            found += [ListenAddress(tls=is_tls, descriptor=one) for one in descriptors]
        else:
            found.append(ListenAddress(*split_address(text), tls=is_tls))
    return found


def _passed(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise OSError(0, "it is not one for TCP (ListenStream=HOST:PORT)")
    return sock


async def _bound(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
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
    it closes. Where the socket `is_shared`, others take from the same queue, now or later.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        *,
        is_shared: bool = False,
    ) -> None:
        self._socket = sock
        self._protocol = protocol
        self._is_shared = is_shared
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

    def _accept(self) -> None:
        for _ in range(1 if self._is_shared else ACCEPTS_PER_TURN):
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
        """Stop listening. What only we could take from the kernel's queue is taken first: to close
        would reset it."""
        self._loop.remove_reader(self._socket)
        while not self._is_shared and self._accept_one():
            pass
        if self._retry is not None:
            self._retry.cancel()
        self._socket.close()
        await asyncio.gather(*self._opening)
