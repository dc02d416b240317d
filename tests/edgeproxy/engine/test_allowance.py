"""What a client may ask besides requests: it grows, and not beyond its bound."""

from __future__ import annotations

import pytest

from edgeproxy.engine.allowance import ALLOWANCE, ALLOWANCE_PER_S, Allowance, ConnectionFault


def test_the_allowance_grows_with_time_and_with_answers_and_not_beyond_its_bound() -> None:
    allowance = Allowance(11, 0.0)
    allowance.spend(ALLOWANCE, 0.0)
    allowance.spend(ALLOWANCE_PER_S, 1.0)
    allowance.earn(8)
    allowance.spend(8, 1.0)
    allowance.earn(2 * ALLOWANCE)
    allowance.spend(ALLOWANCE, 1000.0)
    with pytest.raises(ConnectionFault) as raised:
        allowance.spend(1, 1000.0)
    assert raised.value.code == 11
