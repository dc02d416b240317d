"""The front on the public port: its listeners, and whom it lets in.

What clients speak is read strictly by `http1.py`, by which those of other protocols have their
requests read, too: one request at a time, bounded, and handed to the core in canonical form. The
front never forwards.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from edgeproxy.acme.challenges import Challenges
from edgeproxy.addresses import BadAddress, Network
from edgeproxy.engine.accelerator import Accelerator
from edgeproxy.engine.listening import ListenAddress, Listener
from edgeproxy.engine.pipe import PipeEnd
from edgeproxy.engine.proxied import LOCAL, Proxied
from edgeproxy.engine.tls import Tls
from edgeproxy.engine.tls_challenge import TlsChallenge
from edgeproxy.engine.waiting import Ends, Waiting
from edgeproxy.metrics.counts import Counts
from edgeproxy.policy.certificates import ServerNames
from edgeproxy.policy.model import Limits

log = logging.getLogger("edgeproxy.front")

LINGER_S = 2.0
"""How long a client may take to read the last answer and close (RFC 9112, section 9.6)."""

FIRST_REQUEST_S = 1.0
"""A connection that came in no longer ago than this has its first request on the way."""

MAX_LINGERING = 256  # connections over the caps that are closed gently; more are just closed


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a client connection: socket addresses as Python gives them."""

    peername: Any
    sockname: Any
    scheme: str = "http"  # what the client spoke to this listener
    protocol: str = "HTTP/1.1"  # of its requests, if it is not HTTP/1.0


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """What the policy in force says about the front."""

    limits: Limits
    encoded_slashes: bool = False
    names: ServerNames | None = None  # the certificates, if there is TLS
    has_http3: bool = False
    alt_svc: str | Literal[False] | None = None  # what the policy says that answers tell of it
    trusted_proxies: tuple[Network, ...] = ()
    is_accelerated: bool = True
    challenges: Challenges | None = None  # of an authority that is asked for certificates


Connect = Callable[[Peer], PipeEnd]
"""Opens a stream to the core for one client connection, and returns the front's end of it."""


class Counted(Protocol):
    """A connection, as the front counts and ends it."""

    def close_if_idle(self) -> None: ...

    def abort(self) -> None: ...


type Speaker = Callable[[Front, Ends | None], asyncio.Protocol]
"""Makes what speaks a protocol; the connection is between these ends, or its socket's."""


class Beside(Protocol):
    """A listener for datagrams beside one for connections."""

    @property
    def port(self) -> int: ...

    def close(self) -> None:
        """Begin no connection any more."""


type ListenBeside = Callable[[Front, socket.socket], Beside]
"""Listens for datagrams where a socket listens for connections. Raises OSError."""

HTTP1 = "http/1.1"  # as ALPN has it (RFC 7301)
ALT_SVC_MAX_AGE_S = 86_400


class Front:
    """The listeners of one process and their connections.

    `settings` is asked for every connection and every request, so that a reload takes effect.
    `protocols` are those that a client may agree on in TLS; the one of `HTTP1` is spoken with
    everybody else. `accelerator` answers what need not wait; without it, everything goes to the
    core. `beside` listens for HTTP/3. Connections and refusals are added to `counts`.
    """

    def __init__(
        self,
        connect: Connect,
        settings: Callable[[], FrontSettings],
        protocols: Mapping[str, Speaker],
        accelerator: Accelerator | None = None,
        *,
        beside: ListenBeside | None = None,
        counts: Counts | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.accelerator = accelerator
        self.connect = connect
        self.settings = settings
        self._http1 = protocols[HTTP1]
        self._others = {name: protocols[name] for name in protocols if name != HTTP1}
        self.counts = counts or Counts()
        self.now = now
        self.is_stopping = False
        self.alt_svc = b""  # the field that tells who comes over TLS of HTTP/3, if there is any
        self._listeners: list[Listener] = []
        self._listen_beside = beside
        self._secure: list[socket.socket] = []  # those of them that HTTP/3 can be beside
        self._beside: list[Beside] = []
        self._open: set[Counted] = set()
        self._turned_away: set[Counted] = set()
        self._lent = 0  # connections that a request on them is counted for
        self._per_client: Counter[str] = Counter()
        self._all_closed = asyncio.Event()

    @property
    def connections(self) -> int:
        """Client connections open now, without those turned away."""
        return len(self._open)

    async def listen(self, address: ListenAddress) -> ListenAddress:
        """Serve there too; returns the address that it is, with the port chosen for 0.

        Raises BadAddress.
        """
        sock = await address.open()
        try:
            listener = Listener(
                sock,
                self._protocol(address, sock),
                is_shared=address.descriptor is not None,
                at_close=address.remover(),
            )
        except OSError as error:  # somebody was faster
            raise address.refused(error) from error
        self._listeners.append(listener)
        if address.tls and not address.is_proxied and sock.family != socket.AF_UNIX:
            self._secure.append(sock)
        return address.bound_to(sock)

    def follow(self) -> None:
        """Listen for HTTP/3, or no more, as the settings say. Raises BadAddress."""
        settings = self.settings()
        if not settings.has_http3:
            self._close_beside()
        elif not self._beside and self._listen_beside is not None:
            for sock in self._secure:
                try:
                    self._beside.append(self._listen_beside(self, sock))
                except OSError as error:
                    self._close_beside()
                    raise _no_port_for_http3(sock, error) from error
        told = settings.alt_svc
        if told is None and self._beside:
            told = f'h3=":{self._beside[0].port}"; ma={ALT_SVC_MAX_AGE_S}'
        field = f"Alt-Svc: {told}".encode("ascii") if told and self._beside else b""
        if field != self.alt_svc and self.accelerator is not None:
            self.accelerator.start_over()
        self.alt_svc = field

    def _close_beside(self) -> None:
        listeners, self._beside = self._beside, []
        for listener in listeners:
            listener.close()

    def _protocol(
        self, address: ListenAddress, sock: socket.socket
    ) -> Callable[[], asyncio.Protocol]:
        """What makes the protocol of each connection to `address`."""
        accept = self._accept_tls if address.tls else partial(self._http1, self)
        local = LOCAL if sock.family == socket.AF_UNIX else None
        if address.is_proxied:
            return lambda: Proxied(self, accept, local)
        return lambda: accept(local)

    def _accept_tls(self, ends: Ends | None) -> asyncio.Protocol:
        """What serves a connection; it is between `ends`, or those that the socket tells."""
        challenges = self.settings().challenges
        if challenges is not None and challenges.has_tls:
            return TlsChallenge(self, self._serve_tls, ends, challenges)
        return self._serve_tls(ends)

    def _serve_tls(self, ends: Ends | None) -> Tls:
        settings = self.settings()
        assert settings.names is not None  # no policy comes into force that lacks it
        others = {name: partial(self._speak, other, ends) for name, other in self._others.items()}
        return Tls(
            settings.names.context,
            self._http1(self, ends),
            others,
            handshake_s=settings.limits.head_timeout,
        )

    def _speak(self, other: Speaker, ends: Ends | None) -> asyncio.Protocol:
        """What takes over from a connection that was counted already."""
        self.counts.connections_accepted -= 1
        return other(self, ends)

    def lane(self, ends: Ends) -> asyncio.Protocol:
        """What reads a request of HTTP/1.1 and answers it, on a connection that carries many."""
        self.counts.connections_accepted -= 1
        return self._http1(self, ends)

    async def stop(self, timeout_s: float) -> None:
        """Stop accepting, close idle connections, let requests under way finish, then abort.

        A request that is on its way at this moment is one of those: what has come in is read
        first, and a connection that is new gets a moment for its first request.
        """
        self.is_stopping = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            await listener.close()
        self._close_beside()
        for _ in range(2):  # one turn of the loop to see what has come, one to read it
            await asyncio.sleep(0)
        for connection in list(self._open):
            connection.close_if_idle()
        for timeout in (timeout_s, 1.0):
            if self._open or self._turned_away:
                self._all_closed.clear()
                try:
                    async with asyncio.timeout(timeout):
                        await self._all_closed.wait()
                except TimeoutError:
                    for connection in (*self._open, *self._turned_away):
                        connection.abort()

    # Called by connections.

    def admit(self, connection: Counted, client: str = "") -> str | None:
        """Count a new connection in; the reason if it has to be turned away.

        Its client may not be known yet.
        """
        reason = self.lacks_room(client)
        if reason is None:
            self._open.add(connection)
            if client:
                self._per_client[client] += 1
            self.counts.connections_open = len(self._open)
            self.counts.connections_accepted += 1
        else:
            self._turned_away.add(connection)
        return reason

    def lacks_room(self, client: str) -> str | None:
        """Why `client` may have no other connection now; None if it may."""
        limits = self.settings().limits
        if len(self._open) - self._lent >= limits.connections:
            return "too many connections"
        if client and self._per_client[client] >= limits.connections_per_client:
            return "too many connections of one client"
        return None

    def lend(self, client: str) -> None:
        """Count a connection of `client` no more, until `take_back`: a request on it counts."""
        self._lent += 1
        if client:
            self._per_client[client] -= 1

    def take_back(self, client: str) -> None:
        self._lent -= 1
        if client:
            self._per_client[client] += 1

    @property
    def may_linger(self) -> bool:
        """Whether a connection that was turned away may stay open until its client has read why."""
        return len(self._turned_away) <= MAX_LINGERING

    def hand_over(self, connection: Waiting) -> None:
        """Its client is known: who serves it will be counted in its place."""
        self._open.discard(connection)
        self.counts.connections_accepted -= 1

    def forget(self, connection: Counted, client: str = "") -> None:
        """Count a closed connection out."""
        if connection in self._open:
            self._open.remove(connection)
            self.counts.connections_open = len(self._open)
            self._per_client[client] -= 1
            if self._per_client[client] <= 0:  # nobody is counted as ""
                del self._per_client[client]
        self._turned_away.discard(connection)
        if not self._open and not self._turned_away:
            self._all_closed.set()

    def count_refusal(self, peername: Any, status: int, reason: str) -> None:
        self.counts.refuse(status, reason)
        log.info("refused: %d, %s", status, reason, extra={"client": peername, "status": status})


def _no_port_for_http3(sock: socket.socket, error: OSError) -> BadAddress:
    host, port = sock.getsockname()[:2]
    remedy = "stop what uses it"
    if isinstance(error, PermissionError):
        remedy = "allow it (CAP_NET_BIND_SERVICE)"
    return BadAddress(
        f"cannot listen for HTTP/3 on UDP port {port} of {host}: {error.strerror or error}; "
        f"{remedy}, or take h3 out of tls.protocols"
    )


def client_key(peername: Any) -> str:
    """What connections are counted by: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        address = ipaddress.ip_address(str(peername[0]).partition("%")[0])
    except (ValueError, TypeError, IndexError):
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))
