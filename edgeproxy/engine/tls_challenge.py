"""Handshakes by which an authority sees a name proved (tls-alpn-01, RFC 8737), among others."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from edgeproxy.acme.challenges import TLS_PROTOCOL, Challenges
from edgeproxy.engine.waiting import Accept, Ends, Waiting

if TYPE_CHECKING:
    from edgeproxy.engine.front import Front

MAX_HELLO_BYTES = 64 * 1024


class TlsChallenge(Waiting):
    """Looks at the first message of a client while a proof is waited for: a client that agrees on
    `acme-tls/1` alone gets the proof, all others are served as ever.

    OpenSSL reads the message, as if to answer the authority; whatever comes of it is forgotten if
    it is somebody else.
    """

    late = "no handshake came in time"

    def __init__(
        self, front: Front, accept: Accept, ends: Ends | None, challenges: Challenges
    ) -> None:
        super().__init__(front, accept, ends)
        self._challenges = challenges
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols([TLS_PROTOCOL])
        context.sni_callback = self._choose
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_ours = False

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        context = self._challenges.tls(name)
        if context is not None:
            tls.context = context

    def data_received(self, data: bytes) -> None:
        if not self._is_done:
            self._incoming.write(data)
        super().data_received(data)

    def _look(self) -> None:
        try:
            self._tls.do_handshake()
            is_waiting = False
        except ssl.SSLWantReadError:
            is_waiting = True
        except ssl.SSLError:
            if self._is_ours:
                self.abort()
            else:
                self._hand_over(self._ends, self._data)
            return
        self._is_ours = self._tls.selected_alpn_protocol() == TLS_PROTOCOL
        if self._is_ours:
            self._transport.write(self._outgoing.read())
            if not is_waiting:
                self._end()
                self._transport.close()
        elif self._outgoing.pending or not is_waiting or len(self._data) > MAX_HELLO_BYTES:
            self._hand_over(self._ends, self._data)
