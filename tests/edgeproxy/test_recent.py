"""What the access log says of late: bounded, whatever clients ask for."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy import recent
from edgeproxy.recent import Recent


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def entry(path: str = "/", number: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "time": "2026-11-25T08:00:00Z", "method": "GET", "host": "www.example.org", "path": path,
        "status": 200, "bytes": 10, "duration_ms": 2.0, "route": "site", "cache": "miss",
        "origin": "pages", "policy": "abc", "request_id": f"{number:08x}", **more,
    }  # fmt: skip


def test_entries_are_counted_and_told_the_newest_first() -> None:
    seen = Recent()
    seen.add(entry("/a", 1, country="DE", variant="hero=bold,nav=new"))
    seen.repeat(entry("/b", 2, country="DE", cache="hit", duration_ms=0.0))
    seen.add(entry("/c", 3, country="FR", status=503))
    report = seen.report()
    assert report["seen"] == 3
    assert report["countries"] == {"DE": 2, "FR": 1}
    assert report["variants"] == {"hero=bold": 1, "nav=new": 1}
    assert [one["path"] for one in report["tail"]] == ["/c", "/b", "/a"]
    assert [page["path"] for page in report["failing"]] == ["/c"]
    assert "/b" not in [page["path"] for page in report["slowest"]]  # nobody measures it
    assert seen.report()["seen"] == 3


def test_who_is_new_to_a_variant_is_counted_by_policy() -> None:
    seen = Recent()
    for _ in range(2):
        seen.add(entry(assigned="hero=bold,nav=new", variant="hero=bold,nav=new"))
    seen.repeat(entry(assigned="hero=plain", policy="def"))
    seen.add(entry(variant="hero=bold"))
    assert seen.assigned("abc") == {"hero=bold": 2, "nav=new": 2}
    assert seen.assigned("def") == {"hero=plain": 1}
    assert seen.assigned("never in force") == {}
    for number in range(recent.MAX_POLICIES):
        seen.add(entry(assigned="hero=plain", policy=f"later-{number}"))
    assert seen.assigned("abc") == {}
    assert seen.assigned("later-0") == {"hero=plain": 1}


def test_what_is_told_of_an_entry_is_on_a_list() -> None:
    """Whatever else comes to be logged, such as who asked."""
    seen = Recent()
    seen.add(entry(client="192.0.2.1", error="a secret", agent="curl"))
    assert set(seen.report()["tail"][0]) <= set(recent.TAIL_KEYS)


def test_a_flood_of_other_paths_pushes_no_busy_page_out() -> None:
    seen = Recent()
    for number in range(20):
        seen.add(entry("/broken", number, status=502, duration_ms=900.0))
    seen.report()
    for round_ in range(20):
        for number in range(2000):
            path = f"/{round_}-{number}"
            seen.add(entry(path, number, status=404 if number % 2 else 500, duration_ms=1.0))
        seen.report()
    report = seen.report()
    assert report["failing"][0]["path"] == "/broken"
    assert report["slowest"][0]["path"] == "/broken"
    assert len(seen._failing._pages) <= recent.MAX_PAGES
    assert len(report["tail"]) == recent.MAX_TAIL
    assert all(len(report[kind]) <= recent.MAX_TOLD for kind in ("slowest", "failing", "missing"))


def test_what_nobody_asks_for_is_bounded_as_well() -> None:
    seen = Recent()
    for number in range(50_000):
        seen.add(entry(f"/{number}", number))
        seen.repeat(entry(f"/{number}", number))
    assert seen.report()["seen"] == recent.MAX_REPEATED + recent.MAX_OTHERS


def test_a_long_path_is_cut() -> None:
    seen = Recent()
    seen.add(entry("/" + "x" * 10_000))
    assert len(seen.report()["tail"][0]["path"]) == recent.MAX_PATH


def test_names_are_bounded() -> None:
    seen = Recent()
    for number in range(1000):
        seen.add(entry(country=f"X{number}", variant=f"a={number}"))
    report = seen.report()
    assert len(report["countries"]) == len(report["variants"]) == recent.MAX_NAMES


def test_what_is_past_counts_less_and_less() -> None:
    clock = Clock()
    seen = Recent(clock)
    for number in range(4):
        seen.add(entry("/once", number, status=500))
    assert seen.report()["failing"][0]["requests"] == 4
    clock.now_s += recent.HALF_LIFE_S
    assert seen.report()["failing"][0]["requests"] == 2
    clock.now_s += 10 * recent.HALF_LIFE_S
    assert seen.report()["failing"] == []


@given(st.lists(st.lists(st.sampled_from(["/a", "/b", "/c"]), max_size=8), min_size=1, max_size=4))
def test_several_say_together_what_one_would(workers: list[list[str]]) -> None:
    one, several = Recent(), []
    numbers = iter(range(1000))
    for paths in workers:
        of_worker = Recent()
        for path in paths:
            number = next(numbers)
            moment = f"2026-11-25T08:{number // 60:02}:{number % 60:02}Z"
            made = entry(path, number, time=moment, status=500, country=path[1:].upper())
            of_worker.add(made)
            one.add(made)
        several.append(of_worker.report())
    assert recent.merged(several) == one.report()


def test_the_last_of_each_are_told_of_a_second_in_which_each_had_more_than_is_told() -> None:
    reports = []
    for worker in (1, 2):
        of_worker = Recent()
        for number in range(2 * recent.MAX_TAIL):
            of_worker.add(entry(f"/{number}", (worker << 16) + number))
        reports.append(of_worker.report())
    tail = recent.merged(reports)["tail"]
    half = recent.MAX_TAIL // 2
    for worker in (1, 2):
        told = [one["path"] for one in tail if int(one["request_id"], 16) >> 16 == worker]
        assert told == [f"/{2 * recent.MAX_TAIL - 1 - back}" for back in range(half)]
