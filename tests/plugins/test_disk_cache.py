"""The disk tier: restarts, damage, crashes, a disk that fails, hostile folders, two processes."""

from __future__ import annotations

import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgeproxy.api import StoredResponse, Tier
from edgeproxy_disk_cache.blocks import FileBody
from edgeproxy_disk_cache.plugin import Disk, DiskTier, Plugin
from edgeproxy_disk_cache.store import INLINE_BYTES, Store
from tests.plugins.tier_contract import TierContract, entry

MIB = 2**20
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "cache"


class TestDiskTier(TierContract):
    @pytest.fixture(autouse=True)
    def in_folder(self, folder: Path) -> None:
        self.folder = folder

    @asynccontextmanager
    async def make(self, max_bytes: int) -> AsyncIterator[Tier]:
        tier = DiskTier(Store(self.folder, max_bytes))
        await tier.open()
        yield tier
        await tier.close()


class Ticks:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def opened(
    folder: Path, max_bytes: int = 64 * MIB, clock: Callable[[], float] | None = None
) -> Iterator[Store]:
    store = Store(folder, max_bytes, monotonic=clock) if clock else Store(folder, max_bytes)
    store.open()
    try:
        yield store
    finally:
        store.close()


def body_of(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


def sample(number: int) -> StoredResponse:
    """Small bodies, and every fourth a large one."""
    size = INLINE_BYTES + 100 if number % 4 == 0 else 3000 + number
    return entry(key=f"key-{number}", body=body_of(number, size))


def loaded(store: Store, id: str) -> StoredResponse | None:
    """What is found, read in; None also for damage that shows only then."""
    found = store.load(id)
    if found is None or isinstance(found.body, bytes):
        return found
    assert isinstance(found.body, FileBody)
    try:
        return replace(found, body=found.body.whole(), encoded=found.encoded and whole(found))
    except OSError:
        return None


def whole(entry: StoredResponse) -> tuple[tuple[str, bytes], ...]:
    assert entry.encoded
    return tuple((c, b.whole() if isinstance(b, FileBody) else bytes(b)) for c, b in entry.encoded)


def instance(folder: Path) -> Path:
    return folder / (folder / "current").read_text()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_entries_survive_a_restart(folder: Path) -> None:
    with opened(folder) as store:
        for number in range(8):
            store.put(f"id-{number}", sample(number))
        before = dict(store.stats)
    with opened(folder) as store:
        assert store.stats == before
        for number in range(8):
            assert loaded(store, f"id-{number}") == sample(number)


def test_uses_survive_a_restart(folder: Path) -> None:
    ticks = Ticks()

    def fill(store: Store, name: str) -> None:
        ticks.now_s += 1
        store.put(name, entry(body=b"x" * 100_000))

    first = Store(folder, MIB, wall=ticks)
    for number in range(9):
        fill(first, f"id-{number}")
    ticks.now_s += 1
    loaded(first, "id-0")
    first.close()
    second = Store(folder, MIB, wall=ticks)
    for number in range(9, 12):
        fill(second, f"id-{number}")
    assert loaded(second, "id-0") is not None
    assert loaded(second, "id-1") is None
    second.close()


def test_everything_is_for_this_user_alone(folder: Path) -> None:
    old = os.umask(0)
    try:
        with opened(folder) as store:
            store.put("id", sample(0))
            for path in [folder, instance(folder), *(p for p in folder.rglob("*") if p.is_dir())]:
                assert path.stat().st_mode & 0o777 == 0o700, path
            for path in files(instance(folder) / "bodies"):
                assert path.stat().st_mode & 0o777 == 0o600, path
    finally:
        os.umask(old)


def test_file_names_tell_nothing_of_requests(folder: Path) -> None:
    with opened(folder) as store:
        store.put("../../canary", entry(key="../../canary", body=b"x" * 500_000))
        assert not any("canary" in path.name for path in folder.rglob("*"))


def test_removed_and_replaced_bodies_leave_no_file(folder: Path) -> None:
    with opened(folder) as store:
        for _ in range(3):
            store.put("id", sample(0))
        assert len(files(instance(folder) / "bodies")) == 1
        store.remove("id")
        assert not files(instance(folder) / "bodies")


def test_evicted_bodies_leave_no_file(folder: Path) -> None:
    with opened(folder, 4 * MIB) as store:
        for number in range(40):
            store.put(f"id-{number}", sample(0))
        assert store.stats["bytes"] <= 4 * MIB
        assert len(files(instance(folder) / "bodies")) == store.stats["objects"]


# ---------------------------------------------------------------- damage


def test_a_flipped_bit_never_changes_an_answer(folder: Path, tmp_path: Path) -> None:
    """At many offsets of every file: the right entry or none, and work goes on."""
    with opened(folder) as store:
        for number in range(8):
            store.put(f"id-{number}", sample(number))
    pristine = {path: path.read_bytes() for path in files(folder)}
    index = instance(folder) / "index.sqlite3"
    chance = random.Random(7)
    spots = [(index, at) for at in range(0, 200, 3)]
    for path, content in pristine.items():
        spots += [(path, chance.randrange(len(content))) for _ in range(60) if content]
    wrong = 0
    clock = Ticks()
    for count, (path, at) in enumerate(spots):
        copy = tmp_path / f"copy-{count}"
        for original, content in pristine.items():
            target = copy / original.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            target.write_bytes(content)
        (instance(copy) / "tmp").mkdir(exist_ok=True)
        target = copy / path.relative_to(folder)
        content = bytearray(pristine[path])
        content[at] ^= 1 << chance.randrange(8)
        target.write_bytes(content)
        with opened(copy, clock=clock) as store:
            for number in range(8):
                found = loaded(store, f"id-{number}")
                wrong += found is not None and found != sample(number)
            found = None
            for _ in range(3):  # damage may come to light only now
                clock.now_s += 1.1
                store.put("after", sample(1))
                found = found or loaded(store, "after")
            assert found == sample(1), (path, at)
    assert wrong == 0


@pytest.mark.parametrize("length", [0, 10, 4096, 10_000])
def test_a_truncated_index_is_set_aside(
    folder: Path, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(folder) as store:
        for number in range(50):
            store.put(f"id-{number}", sample(1))
    index = instance(folder) / "index.sqlite3"
    os.truncate(index, length)
    with opened(folder) as store, caplog.at_level(logging.WARNING):
        for number in range(50):
            assert loaded(store, f"id-{number}") in (None, sample(1))
        store.put("new", sample(2))
        store.put("new", sample(2))
        assert loaded(store, "new") == sample(2)


def test_a_damaged_index_is_kept_beside_with_one_log_line(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(folder) as store:
        store.put("id", sample(0))
    index = instance(folder) / "index.sqlite3"
    index.write_bytes(b"no database" * 1000)
    with caplog.at_level(logging.WARNING), opened(folder) as store:
        assert loaded(store, "id") is None
        store.put("id", sample(1))
        assert loaded(store, "id") == sample(1)
    assert len(caplog.records) == 1
    assert "damaged and set aside" in caplog.text
    assert (folder / "damaged" / "index.sqlite3").read_bytes().startswith(b"no database")
    assert not (folder / "damaged" / "bodies").exists()


def test_damage_while_running_is_survived(folder: Path) -> None:
    with opened(folder) as store:
        for number in range(50):
            store.put(f"id-{number}", sample(1))
        with sqlite3.connect(instance(folder) / "index.sqlite3") as other:
            other.execute("DROP TABLE entries")
        other.close()
        assert loaded(store, "id-1") is None
        store.put("id-1", sample(1))
        assert loaded(store, "id-1") == sample(1)


@pytest.mark.parametrize("version", [1, 99])
def test_another_format_is_set_aside(folder: Path, version: int) -> None:
    with opened(folder) as store:
        store.put("id", sample(1))
    other = sqlite3.connect(instance(folder) / "index.sqlite3")
    other.execute(f"PRAGMA user_version = {version}")
    other.close()
    with opened(folder) as store:
        assert loaded(store, "id") is None
        store.put("id", sample(1))
        assert loaded(store, "id") == sample(1)


def test_a_body_of_another_entry_is_no_body(folder: Path) -> None:
    with opened(folder) as store:
        store.put("a", sample(0))
        store.put("b", sample(4))
        one, other = files(instance(folder) / "bodies")
        swapped = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(swapped)
        assert loaded(store, "a") is None
        assert loaded(store, "b") is None
        assert store.stats["objects"] == 0
        assert not files(instance(folder) / "bodies")


def test_wrong_totals_right_themselves(folder: Path) -> None:
    with opened(folder) as store:
        store.put("id", sample(1))
    other = sqlite3.connect(instance(folder) / "index.sqlite3", isolation_level=None)
    other.execute("UPDATE totals SET bytes = 1000000000000, objects = 7")
    other.close()
    with opened(folder) as store:
        store.put("a", sample(1))
        store.put("b", sample(1))
        assert loaded(store, "a") == sample(1)
        assert store.stats["objects"] == 2
        assert store.stats["bytes"] < 20_000


# ---------------------------------------------------------------- hostile folders


def test_a_link_in_the_place_of_a_body_is_not_followed(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(sample(0).body)
    with opened(folder) as store:
        store.put("id", sample(0))
        (body,) = files(instance(folder) / "bodies")
        body.unlink()
        body.symlink_to(secret)
        assert loaded(store, "id") is None
    assert secret.exists()


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_plain_file_is_no_body(folder: Path, kind: str) -> None:
    with opened(folder) as store:
        store.put("id", sample(0))
        (body,) = files(instance(folder) / "bodies")
        body.unlink()
        os.mkfifo(body) if kind == "fifo" else body.mkdir()
        assert loaded(store, "id") is None


def test_a_link_in_the_place_of_the_index_is_not_followed(folder: Path, tmp_path: Path) -> None:
    with opened(folder):
        pass
    index = instance(folder) / "index.sqlite3"
    elsewhere = tmp_path / "elsewhere"
    index.rename(elsewhere)
    content = elsewhere.read_bytes()
    index.symlink_to(elsewhere)
    with opened(folder) as store:
        store.put("id", sample(1))
        assert loaded(store, "id") == sample(1)
    assert elsewhere.read_bytes() == content


def refused(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    with caplog.at_level(logging.WARNING), opened(folder) as store:
        store.put("id", sample(1))
        assert loaded(store, "id") is None
    return caplog.text


def test_a_linked_folder_is_refused(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "target").mkdir(mode=0o700)
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "target")
    assert "a link is not followed" in refused(folder, caplog)
    assert not list((tmp_path / "target").iterdir())


def test_a_folder_that_others_may_write_is_refused(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert "can be written by others" in refused(folder, caplog)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("content", ["", "..", "/etc", "i-0000000000000000", "i-x\n", "\0" * 64])
def test_rubbish_in_the_pointer_begins_anew(folder: Path, content: str) -> None:
    with opened(folder) as store:
        store.put("id", sample(1))
    (folder / "current").write_text(content)
    with opened(folder) as store:
        assert loaded(store, "id") is None
        store.put("id", sample(1))
        assert loaded(store, "id") == sample(1)
    assert len(list(folder.glob("i-*"))) == 1


# ---------------------------------------------------------------- a disk that fails


def test_a_folder_that_is_gone_comes_back(folder: Path) -> None:
    with opened(folder) as store:
        store.put("id", sample(1))
        folder.rename(folder.with_name("moved"))
        assert loaded(store, "id") is None
        store.put("id", sample(1))
        assert loaded(store, "id") == sample(1)


def test_a_path_that_cannot_be_is_one_log_line_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    clock = Ticks()
    with caplog.at_level(logging.WARNING), opened(blocker / "cache", clock=clock) as store:
        for _ in range(50):
            clock.now_s += 1.1
            store.put("id", sample(1))
            assert loaded(store, "id") is None
        assert len(caplog.records) == 1
        clock.now_s += 60
        loaded(store, "id")
        assert len(caplog.records) == 2
        blocker.unlink()
        clock.now_s += 1.1
        store.put("id", sample(1))
        assert loaded(store, "id") == sample(1)


FULL = """
    import resource, signal
    from pathlib import Path
    from edgeproxy_disk_cache.store import Store
    from tests.plugins.test_disk_cache import Ticks, loaded, sample

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    clock = Ticks()
    store = Store(Path({folder!r}), 64 * 2**20, monotonic=clock)
    store.put("small", sample(1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    kept = 0
    for number in range(100):
        clock.now_s += 1.1
        store.put(f"id-{{number}}", sample(number))
        found = loaded(store, f"id-{{number}}")
        assert found in (None, sample(number))
        kept += found is not None
    clock.now_s += 1.1
    assert loaded(store, "small") == sample(1)
    assert kept < 100, kept
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    clock.now_s += 1.1
    for number in range(100):
        store.put(f"id-{{number}}", sample(number))
        assert loaded(store, f"id-{{number}}") == sample(number), number
    store.close()
    print("done")
"""


def child(code: str, **values: object) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code).format(**values)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_files_that_cannot_grow_are_gone_without(folder: Path) -> None:
    out, err = child(FULL, folder=str(folder)).communicate(timeout=50)
    assert out.strip() == "done", err
    assert err.count("disk cache") <= 3, err


def test_a_full_disk_is_gone_without(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    clock = Ticks()
    try:
        with opened(mount / "cache", clock=clock) as store:
            store.put("first", sample(1))
            filler = mount / "filler"
            with filler.open("wb") as file:
                try:
                    while True:
                        file.write(b"x" * 4096)
                        file.flush()
                except OSError:
                    pass
            for number in range(20):
                clock.now_s += 1.1
                store.put(f"id-{number}", sample(number))
                assert loaded(store, f"id-{number}") in (None, sample(number))
            assert loaded(store, "first") == sample(1)
            filler.unlink()
            clock.now_s += 1.1
            store.put("after", sample(4))
            assert loaded(store, "after") == sample(4)
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        with opened(mount / "cache", clock=clock) as store:
            store.put("id", sample(1))
            assert loaded(store, "id") is None
            subprocess.run(["mount", "-o", "remount,rw", str(mount)], check=True)
            clock.now_s += 1.1
            store.put("id", sample(1))
            assert loaded(store, "id") == sample(1)
            assert loaded(store, "after") == sample(4)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)


# ---------------------------------------------------------------- crashes and company


WRITER = """
    import random, sys
    from pathlib import Path
    from edgeproxy_disk_cache.store import Store
    from tests.plugins.test_disk_cache import write_at_random

    write_at_random(Path({folder!r}), {seed}, {times})
    print("done", flush=True)
"""

WRITERS_TO_KILL = """
    import os, sys
    from pathlib import Path
    from tests.plugins.test_disk_cache import write_at_random

    for line in sys.stdin:
        writer = os.fork()
        if not writer:
            write_at_random(Path({folder!r}), int(line), 10**9)
        os.waitpid(writer, 0)
        print("killed", flush=True)
"""


def write_at_random(folder: Path, seed: int, times: int) -> None:
    """What the processes do that are killed, or share a folder."""
    chance = random.Random(seed)
    store = Store(folder, 4 * MIB)
    store.put("known", sample(5))
    print("ready", os.getpid(), flush=True)
    for _ in range(times):
        number = chance.randrange(40)
        if chance.random() < 0.1:
            store.remove(f"id-{number}")
        else:
            store.put(f"id-{number}", sample(number))
    store.close()


def test_nothing_is_wrong_after_kill_9_while_writing(folder: Path) -> None:
    chance = random.Random(3)
    with child(WRITERS_TO_KILL, folder=str(folder)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for seed in range(20):
            process.stdin.write(f"{seed}\n")
            process.stdin.flush()
            writer = int(process.stdout.readline().removeprefix("ready "))
            threading.Event().wait(chance.uniform(0.0, 0.05))
            os.kill(writer, signal.SIGKILL)
            assert process.stdout.readline() == "killed\n"
            check_after_crash(folder)
        process.communicate()


def check_after_crash(folder: Path) -> None:
    """Every entry is right, no file is left over, and the totals are true."""
    with opened(folder, 4 * MIB) as store:
        known = loaded(store, "known")
        assert known in (None, sample(5))
        found = [loaded(store, f"id-{number}") for number in range(40)]
        assert all(entry in (None, sample(number)) for number, entry in enumerate(found))
        assert store.stats["objects"] == sum(entry is not None for entry in [known, *found])
        assert not list((instance(folder) / "tmp").iterdir())
        index = sqlite3.connect(instance(folder) / "index.sqlite3")
        named = {file for (file,) in index.execute("SELECT file FROM entries") if file}
        totals = index.execute("SELECT count(*), sum(size) FROM entries").fetchone()
        index.close()
        assert {path.name for path in files(instance(folder) / "bodies")} == named
        assert (store.stats["objects"], store.stats["bytes"]) == (totals[0], totals[1] or 0)


def test_two_processes_share_a_folder(folder: Path) -> None:
    with opened(folder, 4 * MIB) as store:
        others = [child(WRITER, folder=str(folder), seed=seed, times=300) for seed in (1, 2)]
        chance = random.Random(0)
        while any(other.poll() is None for other in others):
            number = chance.randrange(40)
            assert loaded(store, f"id-{number}") in (None, sample(number))
            store.put(f"id-{number}", sample(number))
        for other in others:
            out, err = other.communicate()
            assert out.splitlines()[-1] == "done", err
            assert "disk cache" not in err
        assert len(files(instance(folder) / "bodies")) <= store.stats["objects"]


def test_an_instance_that_another_process_began_is_taken_up(folder: Path) -> None:
    with opened(folder) as one:
        one.put("id", sample(1))
        (instance(folder) / "index.sqlite3").write_bytes(b"rubbish" * 1000)
        with opened(folder) as other:
            other.put("new", sample(2))
            assert loaded(one, "new") == sample(2)
            one.put("newer", sample(3))
            assert loaded(other, "newer") == sample(3)


# ---------------------------------------------------------------- the plugin


async def test_a_policy_says_where_and_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plugin = Plugin(Disk.model_validate({"path": "cache", "max_size": "1MiB"}))
    (tier,) = plugin.register_tiers()
    await plugin.startup()
    await tier.put("id", sample(1))
    assert await tier.load("id") == sample(1)
    assert tier.get("id") is None
    assert tier.stats()["max_bytes"] == MIB
    await plugin.shutdown()
    await plugin.shutdown()
    assert (tmp_path / "cache" / "current").exists()
    assert await tier.load("id") is None
    await tier.put("id", sample(1))
