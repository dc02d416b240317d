"""What is read from /proc: time and memory of a process and all that descend from it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from tests.bench.processes import NotStarted, cpu_s, free_port, held, memory_bytes, started, tree

TICK = os.sysconf("SC_CLK_TCK")


def process(proc: Path, pid: int, parent: int, ticks: tuple[int, ...], memory: str) -> None:
    """One process, whose name is as awkward as names may be."""
    folder = proc / str(pid)
    folder.mkdir()
    fields = ["S", str(parent), *["0"] * 9, *map(str, ticks), "20", "0"]
    (folder / "stat").write_text(f"{pid} (a) b (c) {' '.join(fields)}\n")
    name = "smaps_rollup" if memory.startswith("Pss") else "status"
    (folder / name).write_text(f"Rss:  999 kB\n{memory}\nPss_Anon: 1 kB\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    process(tmp_path, 10, 1, (100, 20, 3, 0), "Pss:   1000 kB")
    process(tmp_path, 11, 10, (50, 0, 0, 0), "Pss:   500 kB")
    process(tmp_path, 12, 11, (0, 7, 0, 0), "VmRSS:\t  30 kB")
    process(tmp_path, 20, 1, (9000, 0, 0, 0), "Pss:   9000 kB")
    (tmp_path / "30").mkdir()  # it has ended meanwhile
    return tmp_path


def test_a_tree_is_a_process_and_its_descendants(proc: Path) -> None:
    assert sorted(tree(10, proc)) == [10, 11, 12]
    assert tree(20, proc) == [20]


def test_cpu_time_is_that_of_each_with_its_ended_children(proc: Path) -> None:
    assert cpu_s(10, proc) == {10: 123 / TICK, 11: 50 / TICK, 12: 7 / TICK}


def test_memory_counts_shared_pages_once_where_the_system_says_so(proc: Path) -> None:
    assert memory_bytes(10, proc) == (1000 + 500 + 30) * 1024


def test_a_system_that_does_not_tell_gives_nothing(tmp_path: Path) -> None:
    assert cpu_s(10, tmp_path) == {}
    assert memory_bytes(10, tmp_path) == 0


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_processes_are_held_to_a_share_of_a_core_each(tmp_path: Path, version: str) -> None:
    above = tmp_path / "cpu" if version == "v1" else tmp_path
    for pid in (7, 8):
        group = above / f"edgeproxy-bench-{pid}"
        group.mkdir(parents=True)
        if version == "v1":
            (group / "cpu.cfs_quota_us").touch()
            (above / "cpu.cfs_quota_us").touch()
    with held([7, 8], 0.4, tmp_path) as is_held:
        assert is_held
        for pid in (7, 8):
            group = above / f"edgeproxy-bench-{pid}"
            assert (group / "cgroup.procs").read_text() == str(pid)
            if version == "v1":
                assert (group / "cpu.cfs_quota_us").read_text() == "4000"
                assert (group / "cpu.cfs_period_us").read_text() == "10000"
            else:
                assert (group / "cpu.max").read_text() == "4000 10000"


def test_a_system_that_holds_nobody_says_so(tmp_path: Path) -> None:
    with held([7], 0.4, tmp_path / "absent") as is_held:
        assert not is_held


SERVE = "import http.server, sys; http.server.test(port=int(sys.argv[1]), bind='127.0.0.1')"


def test_a_process_answers_while_it_is_started_and_is_gone_afterwards() -> None:
    port = free_port()
    with started([sys.executable, "-c", SERVE, str(port)], port, []) as pid:
        assert cpu_s(pid)[pid] > 0
        assert memory_bytes(pid) > 1_000_000
        socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(OSError, match=r".*"):
        socket.create_connection(("127.0.0.1", port))


def test_a_process_that_ends_says_why() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such module')"]
    with pytest.raises(NotStarted, match="no such module"), started(command, free_port(), []):
        pass
