"""The simulator reads logs of several formats and predicts what a cache would have done."""

from __future__ import annotations

import bisect
import itertools
import json
import random
from pathlib import Path

import pytest

from edgeproxy import cli
from edgeproxy.engine.flows import written
from edgeproxy.plan import compile_plan
from edgeproxy.policy.load import parse
from edgeproxy.simulate import Access, Asked, Lines, Rules, accesses, distinct_bytes, run, svg
from edgeproxy.traffic.visit import visit

COMMON = '203.0.113.7 - - [10/Oct/2026:13:55:36 +0000] "GET /a?x=1 HTTP/1.1" 200 2326'
OURS = json.dumps(
    {
        "time": "2026-10-10T13:55:36Z", "method": "GET", "host": "Example.org:8080",
        "path": "/a", "status": 200, "bytes": 2326, "duration_ms": 1.0,
    }
)  # fmt: skip


def read(*lines: str, host: str = "") -> tuple[list[Access], Lines]:
    seen = Lines()
    return list(accesses(lines, seen, host)), seen


def asked(at_s: float, key: str, size: int = 1000, *, is_head: bool = False) -> Asked:
    return Asked(at_s, is_head, key, 200, size, 600.0)


def zipf(length: int) -> list[Asked]:
    chance = random.Random(1)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, 2001)))
    sizes = [chance.randrange(500, 20_000) for _ in weights]
    names = [bisect.bisect(weights, chance.random() * weights[-1]) for _ in range(length)]
    return [asked(0.01 * n, f"/p{name}", sizes[name]) for n, name in enumerate(names)]


# ------------------------------------------------------------ formats


def test_lines_of_our_own_log_and_of_common_and_combined_ones_may_be_mixed() -> None:
    combined = COMMON + ' "https://example.org/" "A browser [1.0]"'
    found, seen = read(OURS, COMMON, combined, host="example.org")
    assert {one.host for one in found} == {"example.org"}
    assert [(one.path, one.query) for one in found] == [("/a", None), ("/a", "x=1"), ("/a", "x=1")]
    assert {one.at_s for one in found} == {1791640536.0}
    assert {one.bytes for one in found} == {2326}
    assert (seen.total, seen.bad, seen.others) == (3, 0, 0)


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "{",
        "{}",
        "[" * 5000,
        OURS.replace("2326", "-1"),
        OURS.replace('"/a"', "null"),
        OURS.replace('"/a"', '"/../.."'),
        COMMON.replace("Oct", "Okt"),
        '{"a":' * 5000,
    ],
    ids=range(9),
)
def test_a_line_that_cannot_be_read_is_counted(line: str) -> None:
    found, seen = read(line, COMMON)
    assert len(found) == 1
    assert (seen.total, seen.bad) == (2, 1)


@pytest.mark.parametrize(("old", "new"), [("GET", "POST"), (" 200 ", " 503 "), (" 200 ", " 304 ")])
def test_other_methods_and_statuses_do_not_count(old: str, new: str) -> None:
    found, seen = read(COMMON.replace(old, new))
    assert not found
    assert (seen.bad, seen.others) == (0, 1)


# ------------------------------------------------------------ rules


def test_the_rule_of_the_route_gives_lifetime_and_key() -> None:
    policy = """\
version: 1
origins: {pages: {url: "https://you.github.io/"}}
cache:
  memory: {max_size: 1MiB}
  rules: {long: {ttl: 1h, query: drop, stale_while_revalidate: 30s}}
routes:
  - {name: assets, match: {path: /assets/**}, cache: long}
  - {name: live, match: {path: /live/**}, cache: false}
  - {name: site}
"""
    rules = Rules(compile_plan(parse(policy)))

    def of(path: str, status: int = 200) -> Asked | None:
        return rules.asked(Access(0.0, False, "h", path, "v=1", status, 10))

    assets, site, gone = of("/assets/x.js"), of("/"), of("/none", 404)
    assert assets == Asked(0.0, False, "h/assets/x.js", 200, 10, 3600.0, 30.0)
    assert site == Asked(0.0, False, "h/?v=1", 200, 10, 600.0)
    assert gone is not None
    assert gone.ttl_s == 0  # the policy gives a 404 no lifetime
    assert of("/live/score") is None


def test_without_a_policy_everything_is_fresh_for_ten_minutes() -> None:
    result = run([asked(0, "/"), asked(599, "/"), asked(600, "/"), asked(601, "/")], 1_000_000)
    assert (result.hits, result.origin_requests, result.revalidations) == (2, 2, 1)


def test_a_head_is_answered_from_what_a_get_stored_but_stores_nothing() -> None:
    trace = [asked(0, "/", 0, is_head=True), asked(1, "/"), asked(2, "/", 0, is_head=True)]
    assert run(trace, 1_000_000).hits == 1


def test_a_stale_answer_is_a_hit_while_it_is_revalidated() -> None:
    trace = [Asked(at_s, False, "/", 200, 10, 60.0, 30.0) for at_s in (0, 80, 200)]
    result = run(trace, 1_000_000)
    assert (result.hits, result.origin_requests) == (1, 3)


# ------------------------------------------------------------ sizes


def test_more_memory_gives_more_hits_and_the_same_log_the_same_result() -> None:
    trace = zipf(20_000)
    sizes = [distinct_bytes(trace) // share for share in (50, 20, 10, 5, 2)]
    results = [run(trace, size) for size in sizes]
    ratios = [one.hit_ratio for one in results]
    assert ratios == sorted(ratios)
    assert ratios[-1] > ratios[0] + 0.2
    assert results == [run(trace, size) for size in sizes]


def test_a_disk_below_the_memory_saves_requests_to_the_origin() -> None:
    trace = zipf(5_000)
    size = distinct_bytes(trace) // 50
    alone, both = run(trace, size), run(trace, size, distinct_bytes(trace) * 2)
    assert both.disk_hits > 0
    assert both.hits == 5_000 - both.origin_requests
    assert both.origin_requests < alone.origin_requests


def test_sizes_beyond_any_memory_are_not_allocated() -> None:
    trace = [asked(0, "/film", 2**36), asked(1, "/film", 2**36)]
    assert run(trace, 2**40).hit_bytes == 2**36


# ------------------------------------------------------------ command


def write_log(folder: Path) -> Path:
    log = folder / "access.log"
    lines = [COMMON.replace("/a?x=1", f"/{number % 7}") for number in range(100)]
    log.write_text("\n".join([*lines, "nonsense"]) + "\n")
    return log


def test_the_command_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write_log(tmp_path)
    assert cli.main(["cache", "simulate", str(log), "--memory", "1MiB,1KiB", "--disk", "1GiB"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("101 lines: 100 requests for 15.9 KiB of different content")
    assert "1 that cannot be read" in said[0]
    assert said[1].split() == [
        "MEMORY",
        "HITS",
        "BYTE",
        "HITS",
        "ORIGIN",
        "REQUESTS",
        "FROM",
        "DISK",
    ]
    assert said[-1].split()[:5] == ["1", "MiB", "93.0%", "93.0%", "7"]


def test_the_command_prints_json_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, picture = write_log(tmp_path), tmp_path / "curve.svg"
    assert cli.main(["cache", "simulate", str(log), "--json", "--svg", str(picture)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["total"], answer["bad"], answer["requests"]) == (101, 1, 100)
    assert answer["results"][-1]["hits"] <= 93
    assert picture.read_text().startswith("<svg ")
    assert svg([run([asked(0, "/")], 1024)]).count("<polyline") == 2


def test_what_cannot_be_simulated_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.log"
    empty.write_text("")
    assert cli.main(["cache", "simulate", str(empty)]) == 1
    assert cli.main(["cache", "simulate", str(tmp_path / "none.log")]) == 2
    assert "none.log: No such file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["cache", "simulate", str(empty), "--memory", "lots"])
    assert "is not a size" in capsys.readouterr().err


def test_recordings_are_read_as_logs_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "traffic.mitm"
    page = visit("GET", "example.org", "/a", at_s=1791640536.0, status=200, bytes=2326)
    file.write_bytes(written(page) * 2)
    assert cli.main(["cache", "simulate", str(file), "--memory", "1MiB", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["total"], report["requests"], report["distinct_bytes"]) == (2, 2, 2326)
    assert report["results"][-1]["hits"] == 1
