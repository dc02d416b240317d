"""The queues of the memory tier: what stays, what goes, and that they count right."""

from __future__ import annotations

import random

from edgeproxy_memory_cache.queues import Queues


def test_a_scan_does_not_push_out_what_is_used() -> None:
    queues: Queues[int] = Queues(1000)
    for turn in range(3):
        for number in range(50):
            queues.put(f"used-{number}", number, 10) if turn == 0 else queues.get(f"used-{number}")
    for number in range(10_000):
        queues.put(f"scan-{number}", number, 10)
    assert all(queues.get(f"used-{number}") == number for number in range(50))


def test_what_comes_back_soon_enters_the_main_queue() -> None:
    queues: Queues[int] = Queues(1000)
    for number in range(100):
        queues.put(f"first-{number}", number, 10)
    queues.put("x", 1, 10)
    for number in range(20):
        queues.put(f"second-{number}", number, 10)
    for number in range(95):
        queues.put(f"third-{number}", number, 10)
    assert queues.peek("x") is None
    queues.put("x", 2, 10)
    for number in range(200):
        queues.put(f"fourth-{number}", number, 10)
    assert queues.peek("x") == 2


def test_it_is_told_what_goes_and_whether_it_was_used() -> None:
    gone: list[tuple[str, bool]] = []
    queues: Queues[int] = Queues(100, lambda name, value, used: gone.append((name, used)))
    queues.put("used", 1, 10)
    queues.get("used")
    for number in range(20):
        queues.put(str(number), number, 10)
    assert ("used", True) in gone
    assert ("0", False) in gone
    assert queues.evictions == len(gone)
    queues.pop("19")
    assert queues.evictions == len(gone)


def test_listing_is_not_using() -> None:
    queues: Queues[int] = Queues(100)
    queues.put("a", 1, 10)
    for _ in range(5):
        assert queues.peek("a") == 1
        assert queues.names() == ["a"]
    for number in range(20):
        queues.put(str(number), number, 10)
    assert queues.peek("a") is None


def test_bytes_are_counted_right_whatever_happens() -> None:
    chance = random.Random(4)
    queues: Queues[int] = Queues(5000)
    model: dict[str, int] = {}
    for _ in range(20_000):
        name = f"id-{int(chance.paretovariate(0.6)) % 300}"
        match chance.randrange(4):
            case 0:
                queues.pop(name)
                model.pop(name, None)
            case 1:
                size = chance.randrange(1, 600)
                queues.put(name, size, size)
                model[name] = size
                assert queues.peek(name) == size
            case _:
                queues.get(name)
        assert queues.bytes <= 5000
        assert queues.bytes == sum(queues.peek(n) or 0 for n in queues.names())
        assert len(queues) == len(queues.names())
    assert set(queues.names()) <= set(model)
    assert all(queues.peek(name) == model[name] for name in queues.names())
    for name in queues.names():
        queues.pop(name)
    assert (queues.bytes, len(queues)) == (0, 0)
