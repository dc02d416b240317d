"""Where clients come in: sockets that listen, and taking connections from them."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeproxy import unix_socket
from edgeproxy.addresses import BadAddress, split_address

log = logging.getLogger("edgeproxy.front")

BACKLOG = 1024
ACCEPTS_PER_TURN = 8  # of the event loop, so that a flood of connections delays nobody for long
ACCEPT_RETRY_S = 1.0
UNSENT_BYTES = 128 * 1024  # that the kernel holds for a client before we do

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: host and port, the path of a Unix socket, or a socket that somebody has
    opened (its `descriptor`)."""

    host: str = ""
    port: int = 0
    tls: bool = False
    descriptor: int | None = None
    reuse_port: bool = False  # others of us listen there as well
    is_proxied: bool = False  # each connection begins with a PROXY header
    path: str = ""
    mode: int = unix_socket.DEFAULT_MODE
    owner: str = ""
    group: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        if self.descriptor is not None:
            return f"the socket {self.descriptor} of systemd"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return str(self) if self.path else f"{'https' if self.tls else 'http'}://{self}/"

    async def open(self) -> socket.socket:
        """A socket that is bound, and perhaps listens. Raises BadAddress."""
        try:
            if self.descriptor is not None:
                return _passed(self.descriptor)
            if self.path:
                return unix_socket.bound(Path(self.path), self.mode, self.owner, self.group)
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

    def remover(self) -> Callable[[], None] | None:
        """What removes the path of the socket that `open` made, if it did."""
        is_ours = self.path and self.descriptor is None
        return unix_socket.remover(Path(self.path)) if is_ours else None

    def bound_to(self, sock: socket.socket) -> ListenAddress:
        """The same, as `sock` has it: a port in place of 0, a number in place of a name."""
        if sock.family == socket.AF_UNIX:
            path = self.path or os.fsdecode(sock.getsockname()).replace("\0", "@", 1)
            return replace(self, path=path, descriptor=None)
        host, port = sock.getsockname()[:2]
        return replace(self, host=host, port=port, descriptor=None)


def listen_addresses(
    plain: Sequence[str], tls: Sequence[str], passed: Mapping[str, Sequence[int]]
) -> list[ListenAddress]:
    """What `--listen` and `--listen-tls` name. Raises BadAddress.

    `systemd` is every socket in `passed` that `systemd:NAME` does not ask for elsewhere.
    """
    texts = [(text, False) for text in plain] + [(text, True) for text in tls]
    named = {_split(text)[1] for text, _ in texts if text.startswith("systemd:")}
    rest = [one for name, group in passed.items() if name not in named for one in group]
    found: list[ListenAddress] = []
    for text, is_tls in texts:
        kind, name, options = _split(text)
        how = replace(_with_options(text, options), tls=is_tls)
        if kind == "systemd":
            descriptors = passed.get(name, ()) if name else rest
            if not descriptors:
                raise BadAddress(f"{text}: no such socket was passed; see man systemd.socket")
            found += [replace(how, descriptor=one) for one in descriptors]
        elif kind == "unix":
            found.append(replace(how, path=_whole_path(text, name)))
        else:
            host, port = split_address(name)
            found.append(replace(how, host=host, port=port))
    return found


def _split(text: str) -> tuple[str, str, list[str]]:
    """The kind of an address, what follows it, and the options behind commas."""
    address, *options = text.split(",")
    kind, _, name = address.partition(":")
    return (kind, name, options) if kind in ("unix", "systemd") else ("", address, options)


def _with_options(text: str, options: Sequence[str]) -> ListenAddress:
    address = ListenAddress()
    for option in options:
        key, _, value = option.partition("=")
        if option == "proxy":
            address = replace(address, is_proxied=True)
        elif not text.startswith("unix:") or not value:
            raise BadAddress(f"{text}: {option!r} is no option; write ,proxy {_OF_UNIX}")
        elif key == "mode" and re.fullmatch("0?[0-7]{3}", value):
            address = replace(address, mode=int(value, 8))
        elif key == "owner":
            address = replace(address, owner=value)
        elif key == "group":
            address = replace(address, group=value)
        else:
            raise BadAddress(f"{text}: {option!r} is no option; write ,proxy {_OF_UNIX}")
    return address


_OF_UNIX = "or, behind unix:PATH, ,mode=660 ,owner=NAME ,group=NAME"


def _whole_path(text: str, path: str) -> str:
    if not path.startswith("/"):
        raise BadAddress(f"{text}: write the socket's whole path, as in unix:/run/edgeproxy.sock")
    return path


def _passed(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    if sock.type != socket.SOCK_STREAM or sock.family not in _FAMILIES:
        raise OSError(0, "it is not one for connections (ListenStream=)")
    return sock


_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


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
        at_close: Callable[[], None] | None = None,
    ) -> None:
        self._socket = sock
        self._at_close = at_close
        self._protocol = protocol
        self._is_shared = is_shared
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Future[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        try:
            sock.setblocking(False)
            is_tcp = sock.family != socket.AF_UNIX
            if is_tcp and hasattr(
                socket, "TCP_NOTSENT_LOWAT"
            ):  # else megabytes may wait in the kernel
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
        if self._at_close is not None:
            self._at_close()
        await asyncio.gather(*self._opening)
