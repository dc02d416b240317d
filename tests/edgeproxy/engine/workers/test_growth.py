"""How long a worker stays that has taken the place of one that had grown."""

from __future__ import annotations

import mmap
import os

import pytest

from edgeproxy import memory
from edgeproxy.engine.workers.growth import Term


def test_the_first_one_may_be_replaced_at_any_time_and_the_next_one_after_a_minute() -> None:
    assert Term().left_s(0) < 0
    assert Term().following(100) == Term(60, 100)
    assert Term(60, 100).left_s(130) == 30


@pytest.mark.parametrize(
    ("grown_after_s", "length_s"), [(60, 120), (119, 120), (120, 60), (5000, 60)]
)
def test_the_term_is_twice_as_long_while_they_grow_as_fast_as_that(
    grown_after_s: float, length_s: float
) -> None:
    assert Term(60, 100).following(100 + grown_after_s).length_s == length_s


def test_a_term_is_an_hour_at_most() -> None:
    term, now_s = Term(), 0.0
    for _ in range(20):
        now_s += term.length_s
        term = term.following(now_s)
    assert term.length_s == 3600


def test_memory_of_a_process_is_what_the_system_says() -> None:
    before = memory.resident_bytes(os.getpid())
    with mmap.mmap(-1, 2**26) as kept:  # bytes might get what was freed before
        for place in range(0, len(kept), mmap.PAGESIZE):
            kept[place] = 1
        assert 2**26 - 2**20 < memory.resident_bytes(os.getpid()) - before < 2**27
    assert memory.resident_bytes(2**22 + 1) == 0  # pid_max of Linux is 2**22
