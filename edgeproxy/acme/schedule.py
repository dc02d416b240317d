"""When a certificate is renewed, and when one that could not be had is tried again."""

from __future__ import annotations

from datetime import datetime

RENEWED_AT = 1 / 3
"""Of its life that is left: so there is a month for what goes wrong with one of 90 days, and as
much for its life with one of six days."""

SPREAD = 1 / 30
"""Of its life, by which renewals are spread: authorities ask for that, as many sites begin at the
same minute."""

FIRST_PAUSE_S = 300.0  # five failures an hour are what Let's Encrypt takes
MAX_PAUSE_S = 24 * 3600.0


def renewal_at(begins: datetime, ends: datetime, share: float) -> datetime:
    """The moment to renew what is good from `begins` to `ends`; `share` (0..1) says which one."""
    life = ends - begins
    return ends - life * RENEWED_AT - life * SPREAD * share


def pause_s(failures: int, share: float) -> float:
    """How long to wait after so many `failures` in a row; `share` (0..1) adds up to a fifth."""
    doubled: float = FIRST_PAUSE_S * 2 ** min(failures - 1, 20)
    return min(doubled, MAX_PAUSE_S) * (1 + share / 5)
