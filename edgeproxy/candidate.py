"""A policy on trial beside the one in force: in shadow, or deciding for a share of the visitors."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

from edgeproxy.http import Address, Exchange
from edgeproxy.live import Live
from edgeproxy.plan import Plan
from edgeproxy.shadow import Shadow


class Candidate:
    """`share` is that of the visitors for whom it decides, 0..1; 0 has it in shadow alone. `by` is
    who tries it, and `why`."""

    def __init__(self, live: Live, share: float) -> None:
        self.live = live
        self.share = share
        self.by = self.why = ""
        self.since_s = time.time()
        self.shadow = Shadow(live.plan)
        self._answers: dict[str, Counter[str]] = {}  # by version, then `2xx` and its sisters

    @property
    def plan(self) -> Plan:
        return self.live.plan

    def takes(self, client: Address) -> bool:
        """Whether it decides for `client`. A larger share keeps all that a smaller one took."""
        return point_of(client, self.plan.version) < self.share

    def saw(self, exchange: Exchange, in_force: Plan) -> None:
        """Hear of an exchange that is over, whichever policy decided it."""
        status = exchange.response.status if exchange.response else 0
        counts = self._answers.setdefault(exchange.policy, Counter())
        counts[f"{status // 100}xx"] += 1
        if not self.share:
            self.shadow.offer(exchange, in_force)

    @property
    def is_behind(self) -> bool:
        """Whether it could not take in another exchange, and decides for nobody."""
        return not self.share and self.shadow.is_full

    def missed(self) -> None:
        """Hear that there was an exchange that it has not seen."""
        self.shadow.dropped += 1

    def answers(self, version: str) -> dict[str, int]:
        """How many answers of each class a policy gave since the trial began."""
        return dict(sorted(self._answers.get(version, Counter()).items()))

    def report(self, in_force: str) -> dict[str, Any]:
        """What it has done, beside the version `in_force`, as plain data."""
        shadow = self.shadow.report()
        kinds = [
            {**one, "examples": [asdict(example) for example in one["examples"]]}
            for one in shadow["kinds"]
        ]
        return {
            "answers": self.answers(self.plan.version),
            "answers_in_force": self.answers(in_force),
            "shadow": {**shadow, "kinds": kinds},
        }

    def close(self) -> None:
        self.shadow.close()


def point_of(client: Address, salt: str) -> float:
    """Where a visitor stands between 0 and 1: the same for the same salt, anywhere for another.

    Of an IPv6 address the first 64 bits count, as the rest changes every day (RFC 8981).
    """
    network = ipaddress.ip_network((client, 64 if client.version == 6 else 32), strict=False)
    seed = str(network.network_address).encode()
    return int.from_bytes(blake2b(seed, key=salt.encode(), digest_size=8).digest()) / 2**64
