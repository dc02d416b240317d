"""What a client may ask of a connection that carries many requests besides requests.

Frames that ask for work and carry no request are paid for from an allowance, which grows with time
and with the answers that the client takes. Who has used it up is told and disconnected.
"""

from __future__ import annotations

ALLOWANCE = 600  # a browser that leaves a page resets up to 100 requests at once
ALLOWANCE_PER_S = 60
RESET_COST = 4
SMALL_DATA_BYTES = 64
"""DATA of fewer bytes is paid for, as one of none is, unless it ends the body."""


class ConnectionFault(Exception):
    """What ends a connection at once (RFC 9113, section 5.4.1; RFC 9114, section 8)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Allowance:
    """`code` is what a client is told that has used it up."""

    __slots__ = ("_at_s", "_code", "_left")

    def __init__(self, code: int, now_s: float) -> None:
        self._code = code
        self._left = float(ALLOWANCE)
        self._at_s = now_s

    def spend(self, cost: int, now_s: float) -> None:
        """Take `cost` from the allowance. Raises ConnectionFault if there is too little."""
        grown = self._left + (now_s - self._at_s) * ALLOWANCE_PER_S
        self._left = min(grown, ALLOWANCE) - cost
        self._at_s = now_s
        if self._left < 0:
            raise ConnectionFault(self._code, "too many frames that carry no request")

    def earn(self, amount: int) -> None:
        """The client has been sent answers, which it may confirm and cancel."""
        self._left = min(self._left + amount, ALLOWANCE)
