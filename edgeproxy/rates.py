"""How often each client may ask: `limits.request_rate`, over all its connections.

The generic cell rate algorithm: one moment is kept for each client, from which on its allowance is
whole again. A client whose moment has passed needs no entry, so that forgetting it changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeproxy.http import Address

MAX_CLIENTS = 65536
SWEEP_EVERY_S = 1.0


class RequestRates:
    """Who has asked how often. Bounded: with more clients than `max_clients` at once, whoever
    began first gets a new allowance, since to turn strangers away would serve an attacker."""

    def __init__(
        self, now: Callable[[], float] = time.monotonic, *, max_clients: int = MAX_CLIENTS
    ) -> None:
        self._now = now
        self._max_clients = max_clients
        self._whole_at_s: dict[int, float] = {}
        self._swept_at_s = 0.0

    def __len__(self) -> int:
        return len(self._whole_at_s)

    def wait_s(self, client: int, rate: float, burst: int) -> float:
        """0, and one request of `client` is counted; or how long it has to wait, and none is.

        `burst` requests may come at once, and `rate` a second.
        """
        now_s = self._now()
        whole_at_s = max(self._whole_at_s.get(client, now_s), now_s)
        early_s = whole_at_s - now_s - (burst - 1) / rate
        if early_s > 1e-9:  # of rounding
            return early_s
        if client not in self._whole_at_s and len(self._whole_at_s) >= self._max_clients:
            self._make_room(now_s)
        self._whole_at_s[client] = whole_at_s + 1 / rate
        return 0.0

    def _make_room(self, now_s: float) -> None:
        if now_s >= self._swept_at_s + SWEEP_EVERY_S:
            self._swept_at_s = now_s
            self._whole_at_s = {
                client: at_s for client, at_s in self._whole_at_s.items() if at_s > now_s
            }
        if len(self._whole_at_s) >= self._max_clients:
            del self._whole_at_s[next(iter(self._whole_at_s))]


def client_number(address: Address) -> int:
    """What requests are counted by: an IPv4 address, or the /64 of an IPv6 address, which one
    visitor has for itself."""
    number = int(address)
    return number if address.version == 4 else -(number >> 64) - 1
