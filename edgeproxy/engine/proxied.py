"""A connection that begins with a PROXY header: nobody serves it before its client is known."""

from __future__ import annotations

from edgeproxy.addresses import is_within, parse_address
from edgeproxy.engine.proxy_header import BadHeader, read_header
from edgeproxy.engine.waiting import Ends, Waiting

LOCAL: Ends = (("127.0.0.1", 0), ("127.0.0.1", 0))
"""A Unix socket has no addresses: who may connect to it is on this machine."""


class Proxied(Waiting):
    """Reads the header. One from a peer that the policy does not trust is not read: it could name
    any client."""

    late = "no PROXY header came in time"

    def _unwelcome(self) -> str:
        peer = parse_address(self._peer[0].partition("%")[0])
        if peer is None or not is_within(peer, self._front.settings().trusted_proxies):
            return "a PROXY header is not taken from here: it is not in trusted_proxies"
        return ""

    def _look(self) -> None:
        try:
            header = read_header(self._data)
        except BadHeader as error:
            self._refuse(f"the connection does not begin with a PROXY header: {error}")
            return
        if header is None:
            return
        ends, told = self._ends, header.told
        if told is not None:
            source = (str(told.source), told.source_port)
            ends = source, (str(told.destination), told.destination_port)
        self._hand_over(ends, self._data[header.size :])
