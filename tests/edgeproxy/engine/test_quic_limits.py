"""That aioquic is the one which was bounded, and what is kept of streams that have ended."""

from __future__ import annotations

import pytest

from edgeproxy.engine import quic_limits
from edgeproxy.engine.quic_limits import WrongLibrary, _Ended, check_library


def test_the_installed_library_is_the_one_that_is_known() -> None:
    check_library()


def test_a_library_that_has_changed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quic_limits, "_NAMES_OF_SENDERS", "_buffer _pages")
    with pytest.raises(WrongLibrary, match="lacks _pages"):
        check_library()


def test_streams_that_have_ended_take_no_memory_each() -> None:
    ended = _Ended()
    for stream in range(0, 400_000, 4):
        ended.add(stream)
    ended.add(2)
    assert ended.requests == 100_000
    assert 399_996 in ended
    assert 2 in ended
    assert 400_000 not in ended
    assert 3 not in ended
    assert [len(numbers) for numbers in ended._numbers] == [1, 0, 1, 0]
