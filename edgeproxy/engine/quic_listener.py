"""Where clients of HTTP/3 come in: datagrams on one port, dealt to the connections they belong to.

Before a client has shown that it is where it says, it binds little here and is sent little: there
is room for a few such handshakes, then everybody is asked to come back with a token (RFC 9000,
section 8.1).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from edgeproxy.engine.allowance import Allowance
from edgeproxy.engine.datagrams import DatagramSocket
from edgeproxy.engine.front import Front, client_key
from edgeproxy.engine.http3 import Http3
from edgeproxy.engine.http3_frames import Code
from edgeproxy.engine.quic import Quic
from edgeproxy.engine.quic_limits import ID_BYTES, VERSIONS, BoundedQuic
from edgeproxy.engine.quic_tokens import QuicTokens
from edgeproxy.policy.certificates import ServerNames

log = logging.getLogger("edgeproxy.front")

DATAGRAMS_PER_TURN = 32  # of the event loop, so that a flood of them delays nobody for long
LAST_DATAGRAMS = 1024  # that have come already when the listener closes
UNPROVEN = 32  # handshakes at once of clients whose address is not proven
INSISTS_S = 2.0
"""A packet of a connection that is not here may have gone astray while processes come and go, and a
reset would end the one it was for. Who still sends after this time is told."""

MAX_ASTRAY = 1024  # connections of which it is known since when
ANSWERS_PER_S = 100  # to who has no connection: resets, and what versions there are
MIN_IDLE_S = 30.0  # without a packet, after which a client is gone

_SMALLEST_HELLO_BYTES = 1200  # of a datagram that begins a connection (section 14.1)
_SMALLEST_ID_BYTES = 8  # that a client may choose for it (section 7.2)
_RESET_BYTES = 42  # as if it were a packet (section 10.3)
_LONG_HEADER = 0x80


class QuicListener:
    """Takes datagrams from `sock`, its own from now on.

    `names` gives the certificates in force.
    """

    def __init__(
        self, front: Front, sock: DatagramSocket, names: Callable[[], ServerNames]
    ) -> None:
        self._front = front
        self._socket = sock
        self._names = names
        self._secret: PrivateKeyTypes | None = None
        self._made_tokens = QuicTokens(None)
        self._loop = asyncio.get_running_loop()
        self._by_id: dict[bytes, Quic] = {}
        self._ids: dict[Quic, set[bytes]] = {}
        self._unproven: set[Quic] = set()
        self._astray: dict[bytes, float] = {}
        self._answers_left = float(ANSWERS_PER_S)
        self._answered_at_s = 0.0
        self._is_closing = False
        self._apart: dict[Quic, DatagramSocket] = {}  # that outlive the listener
        self._loop.add_reader(sock, self._read, sock)

    @property
    def _tokens(self) -> QuicTokens:
        certificate = next(iter(self._names().certificates), None)
        if certificate is not None and certificate.key is not self._secret:
            self._secret = certificate.key
            self._made_tokens = QuicTokens(self._secret)
        return self._made_tokens

    @property
    def port(self) -> int:
        return self._socket.port

    def close(self) -> None:
        """Begin no connection any more, and let those end that there are.

        Each has a socket of its own from then on: another process may take this one's place.
        """
        self._is_closing = True
        for quic in list(self._unproven):
            quic.abort()
        for quic in list(self._ids):
            try:
                self._set_apart(quic)
            except OSError as error:  # there are too many: they share what there is
                log.debug("a connection gets no socket of its own: %s", error)
        for _ in range(LAST_DATAGRAMS):
            if not self._read_one(self._socket):
                break
        self._close_if_done()

    def _set_apart(self, quic: Quic) -> None:
        own = self._apart[quic] = self._socket.for_one(quic.address, quic.local)
        self._loop.add_reader(own, self._read, own)
        quic.send = lambda data, client: own.send_back(data)

    def _close_if_done(self) -> None:
        if self._is_closing and len(self._ids) == len(self._apart) and self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    # ------------------------------------------------------ what comes in

    def _read(self, sock: DatagramSocket) -> None:
        for _ in range(DATAGRAMS_PER_TURN):
            if not self._read_one(sock):
                return

    def _read_one(self, sock: DatagramSocket) -> bool:
        """Take a datagram; False if there is none."""
        try:
            data, client, local = sock.receive()
        except OSError:  # also if it is closed, or the network says that one of ours did not arrive
            return False
        self._take(data, client, local)
        return True

    def _take(self, data: bytes, client: Any, local: Any) -> None:
        if not data:
            return
        is_long = bool(data[0] & _LONG_HEADER)
        wanted = data[6 : 6 + data[5]] if is_long and len(data) > 6 else data[1 : 1 + ID_BYTES]
        quic = self._by_id.get(wanted)
        if quic is not None:
            quic.receive(data, client)
            if quic in self._ids:
                self._follow(quic)
        elif is_long:
            self._welcome(data, client, local)
        else:
            self._reset(wanted, len(data), client, local)

    def _follow(self, quic: Quic) -> None:
        """Know the connection by the ids that it has now."""
        if quic.is_proven:
            self._unproven.discard(quic)
        known = self._ids[quic]
        if quic.is_agreed and (wanted := set(quic.bounded.ids)) != known:
            for gone in known - wanted:
                del self._by_id[gone]
            for new in wanted - known:
                self._by_id[new] = quic
            self._ids[quic] = wanted

    def _welcome(self, data: bytes, client: Any, local: Any) -> None:
        """Begin a connection, if that is what the client wants and there is room."""
        if len(data) < _SMALLEST_HELLO_BYTES or self._is_closing:
            return
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=ID_BYTES)
        except ValueError:
            return
        if header.version not in VERSIONS:
            self._tell_versions(header, client, local)
            return
        first_id = header.destination_cid
        if header.packet_type != QuicPacketType.INITIAL or len(first_id) < _SMALLEST_ID_BYTES:
            return
        retried_id = None
        if header.token:
            found = self._tokens.first_id(header.token, client, first_id, time.time())
            first_id, retried_id = (found, first_id) if found else (first_id, None)
        if reason := self._front.lacks_room(client_key(client)):
            self._front.count_refusal(client, 503, reason)
        elif retried_id is None and len(self._unproven) >= UNPROVEN:
            self._retry(header, client, local)
        elif self._names().certificates:
            self._begin(first_id, retried_id, client, local).receive(data, client)

    def _begin(self, first_id: bytes, retried_id: bytes | None, client: Any, local: Any) -> Quic:
        limits = self._front.settings().limits
        allowance = Allowance(Code.EXCESSIVE_LOAD, self._front.now())
        names = self._names()
        idle_s = max(MIN_IDLE_S, limits.idle_timeout)
        bounded = BoundedQuic(
            choose=lambda name: names.certificate_for(name) or names.certificates[0],
            reset_token=self._tokens.reset_token,
            allowance=allowance,
            idle_s=idle_s,
            first_id=first_id,
            retried_id=retried_id,
        )
        quic = Quic(
            bounded,
            lambda data, address: self._socket.send(data, address, local),
            self._forget,
            local,
            handshake_s=limits.head_timeout,
            keep_alive_s=idle_s / 3,
        )
        quic.rider = Http3(self._front, (client, local), quic, allowance)
        ids = {retried_id or first_id, *bounded.ids}
        self._ids[quic] = ids
        for one in ids:
            self._by_id[one] = quic
        if retried_id is None:
            self._unproven.add(quic)
        return quic

    def _forget(self, quic: Quic) -> None:
        self._unproven.discard(quic)
        for one in self._ids.pop(quic, ()):
            del self._by_id[one]
        own = self._apart.pop(quic, None)
        if own is not None:
            self._loop.remove_reader(own)
            own.close()
        self._close_if_done()

    # ------------------------------------------------------ what goes out

    def _retry(self, header: QuicHeader, client: Any, local: Any) -> None:
        """Have the client prove that it gets what is sent there. Nothing is kept of it."""
        retried_id, now_s = os.urandom(ID_BYTES), time.time()
        first_id = header.destination_cid
        assert header.version is not None
        data = encode_quic_retry(
            version=header.version,
            source_cid=retried_id,
            destination_cid=header.source_cid,
            original_destination_cid=first_id,
            retry_token=self._tokens.retry_token(client, first_id, retried_id, now_s),
        )
        self._socket.send(data, client, local)

    def _tell_versions(self, header: QuicHeader, client: Any, local: Any) -> None:
        if not header.version or not self._may_answer():  # 0: it tells us versions itself
            return
        data = encode_quic_version_negotiation(
            source_cid=header.destination_cid,
            destination_cid=header.source_cid,
            supported_versions=[int(version) for version in VERSIONS],
        )
        self._socket.send(data, client, local)

    def _reset(self, connection_id: bytes, size: int, client: Any, local: Any) -> None:
        """Say that there is no such connection, by something shorter than what asked for it."""
        token = self._tokens.reset_token(connection_id)
        length = min(size - 1, _RESET_BYTES)
        if len(connection_id) < ID_BYTES or length < 5 + len(token):
            return
        if not self._insists(connection_id) or not self._may_answer():
            return
        noise = bytearray(os.urandom(length - len(token)))
        noise[0] = noise[0] & 0x3F | 0x40
        self._socket.send(bytes(noise) + token, client, local)

    def _insists(self, connection_id: bytes) -> bool:
        """Whether somebody has been sending to a connection for long that is not here."""
        now_s = self._front.now()
        since_s = self._astray.setdefault(connection_id, now_s)
        if len(self._astray) > MAX_ASTRAY:
            del self._astray[next(iter(self._astray))]
        return now_s - since_s >= INSISTS_S

    def _may_answer(self) -> bool:
        now_s = self._front.now()
        grown = self._answers_left + (now_s - self._answered_at_s) * ANSWERS_PER_S
        self._answers_left, self._answered_at_s = min(grown, ANSWERS_PER_S), now_s
        if self._answers_left < 1:
            return False
        self._answers_left -= 1
        return True
