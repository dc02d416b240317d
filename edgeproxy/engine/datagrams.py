"""A socket for datagrams, beside one that takes connections on the same address and port."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any

MAX_DATAGRAM_BYTES = 65_535
RECEIVE_BUFFER_BYTES = 1024 * 1024  # what may come while the loop is at something else

_PKTINFO = struct.Struct("=I4s4s")  # ip(7): interface, and the local address twice
_PKTINFO_6 = struct.Struct("=16sI")  # ipv6(7): the local address, interface
_IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)  # which Python names since 3.14


class DatagramSocket:
    """Receives and sends; neither ever waits.

    Where a machine has several addresses and all are listened on, a client has to be answered from
    the one that it wrote to: `receive` tells which, and `send` takes it.
    """

    def __init__(self, family: int, address: Any, v6only: int = 0) -> None:
        """Raises OSError."""
        self._family = family
        self._address = address
        self._v6only = v6only
        self._is_any = address[0] in ("0.0.0.0", "::")
        self._socket = sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            # Workers share the port, and so do two processes of which one takes the other's place.
            # Nobody else can: the port for connections is taken.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
            if self._is_any:
                self._ask_for_local_address()
            sock.bind(address)
        except BaseException:
            sock.close()
            raise

    @classmethod
    def beside(cls, sock: socket.socket) -> DatagramSocket:
        """Where `sock` takes connections. Raises OSError."""
        is_v6 = sock.family == socket.AF_INET6
        v6only = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) if is_v6 else 0
        return cls(sock.family, sock.getsockname(), v6only)

    def for_one(self, client: Any, local: Any) -> DatagramSocket:
        """Another at the same port, that gets all that `client` sends to the address `local`, and
        nothing else: whoever listens on this port besides gets none of it any more.

        Raises OSError.
        """
        own = DatagramSocket(self._family, local, self._v6only)
        try:
            own._socket.connect(client)
        except BaseException:
            own.close()
            raise
        return own

    def _ask_for_local_address(self) -> None:
        if self._family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    @property
    def port(self) -> int:
        return int(self._address[1])

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> tuple[bytes, Any, Any]:
        """A datagram, who sent it, and the address of ours that it came to. Raises OSError; that is
        BlockingIOError if there is none."""
        if not self._is_any:
            data, client = self._socket.recvfrom(MAX_DATAGRAM_BYTES)
            return data, client, self._address
        data, told, _, client = self._socket.recvmsg(MAX_DATAGRAM_BYTES, 128)
        return data, client, self._local(told)

    def _local(self, told: list[tuple[int, int, bytes]]) -> Any:
        for level, kind, info in told:
            if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
                packed = _PKTINFO.unpack(info[: _PKTINFO.size])[1]
                return socket.inet_ntop(socket.AF_INET, packed), self.port
            if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                packed = _PKTINFO_6.unpack(info[: _PKTINFO_6.size])[0]
                return socket.inet_ntop(socket.AF_INET6, packed), self.port, 0, 0
        return self._address

    def send(self, data: bytes, client: Any, local: Any) -> None:
        """What cannot be sent now is lost, as datagrams may be; QUIC sends it again."""
        with suppress(OSError):
            if self._is_any and local is not self._address:
                self._socket.sendmsg([data], self._from(local), 0, client)
            else:
                self._socket.sendto(data, client)

    def send_back(self, data: bytes) -> None:
        """Send to the one client that this is for."""
        with suppress(OSError):
            self._socket.send(data)

    def _from(self, local: Any) -> list[tuple[int, int, bytes]]:
        if self._family == socket.AF_INET6:
            packed = socket.inet_pton(socket.AF_INET6, local[0])
            return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO_6.pack(packed, 0))]
        packed = socket.inet_pton(socket.AF_INET, local[0])
        return [(socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO.pack(0, packed, bytes(4)))]

    def close(self) -> None:
        self._socket.close()
