"""Starting contestants on a core of their own, and what the system says that they use."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

STARTUP_S = 120.0


class NotStarted(Exception):
    """A process ended, or did not answer in time; what it said."""


@contextmanager
def started(command: Sequence[str], port: int, cores: Iterable[int]) -> Iterator[int]:
    """The id of the process, once it answers on `port`; ended afterwards. Raises NotStarted."""
    allowed = ",".join(map(str, cores))
    pin = ["taskset", "-c", allowed] if allowed else []
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*pin, *command], stdout=output, stderr=output)
        try:
            _wait_for(process, port, output)
            yield process.pid
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, output: IO[bytes]) -> None:
    deadline = time.monotonic() + STARTUP_S
    while True:
        with suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        if process.poll() is not None or time.monotonic() > deadline:
            output.seek(0)
            raise NotStarted(output.read().decode(errors="replace").strip() or "no answer in time")
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ---------------------------------------------------------------- cgroups

CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 10_000


@contextmanager
def held(pids: Iterable[int], share: float, cgroups: Path = CGROUPS) -> Iterator[bool]:
    """Whether each of these processes gets `share` of a core at the most; it takes root on Linux.

    Leave it when they have ended.
    """
    v1 = cgroups / "cpu"
    above = v1 if (v1 / "cpu.cfs_quota_us").exists() else cgroups
    groups = [above / f"edgeproxy-bench-{pid}" for pid in pids]
    try:
        for group, pid in zip(groups, pids, strict=True):
            _hold(group, pid, int(share * PERIOD_US))
        yield True
    except OSError:
        yield False
    finally:
        for group in groups:
            with suppress(OSError):
                group.rmdir()


def _hold(group: Path, pid: int, quota_us: int) -> None:
    group.mkdir(exist_ok=True)
    if (group / "cpu.cfs_quota_us").exists():
        (group / "cpu.cfs_period_us").write_text(f"{PERIOD_US}")
        (group / "cpu.cfs_quota_us").write_text(f"{quota_us}")
    else:
        (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    (group / "cgroup.procs").write_text(f"{pid}")


# ---------------------------------------------------------------- /proc


def tree(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for stat in proc.glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(_fields(stat)[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def cpu_s(pid: int, proc: Path = Path("/proc")) -> dict[int, float]:
    """CPU seconds that each process of a tree has used so far; nothing where nobody tells.

    Children that have ended count to their parent.
    """
    used = {}
    for one in tree(pid, proc):
        with suppress(OSError):
            ticks = sum(map(int, _fields(proc / str(one) / "stat")[11:15]))
            used[one] = ticks / os.sysconf("SC_CLK_TCK")
    return used


def memory_bytes(pid: int, proc: Path = Path("/proc")) -> int:
    """Resident memory of a tree. Pages that processes share count once, if the system says so."""
    return sum(_resident_kb(proc / str(one)) for one in tree(pid, proc)) * 1024


def _resident_kb(process: Path) -> int:
    for file, name in (("smaps_rollup", "Pss"), ("status", "VmRSS")):
        with suppress(OSError):
            found = re.search(rf"^{name}:\s+(\d+) kB", _text(process / file), re.M)
            if found:
                return int(found[1])
    return 0


def _text(path: Path) -> str:
    return path.read_text(encoding="latin-1")


def _fields(stat: Path) -> list[str]:
    """The fields of `stat` from the third on, as the second is a name that may hold anything."""
    return _text(stat).rpartition(")")[2].split()
