"""Bodies in files: sent in blocks, proven as they are sent. And who gets a place on a full disk."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgeproxy.api import StoredResponse
from edgeproxy_disk_cache.admission import NAMES_PER_TURN, Seen
from edgeproxy_disk_cache.blocks import BLOCK_BYTES, FileBody
from edgeproxy_disk_cache.encoding import name_of
from edgeproxy_disk_cache.plugin import Disk, DiskTier, Plugin
from edgeproxy_disk_cache.store import Store
from tests.plugins.tier_contract import entry

MIB = 2**20
LARGE = random.Random(1).randbytes(3 * BLOCK_BYTES + 1000)


@contextmanager
def opened(folder: Path, max_bytes: int = 64 * MIB, *, picky: bool = False) -> Iterator[Store]:
    store = Store(folder, max_bytes, picky=picky)
    store.open()
    yield store
    store.close()


def large(**changes: object) -> StoredResponse:
    fields: dict[str, object] = {"body": LARGE, "encoded": (("br", LARGE[::-1]), ("gzip", b"gz"))}
    return entry(**{**fields, **changes})  # type: ignore[arg-type]


def body_of(found: StoredResponse | None) -> FileBody:
    assert found is not None
    assert isinstance(found.body, FileBody)
    return found.body


def body_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("bodies/*") if path.is_file()]


async def streamed(body: FileBody, first: int = 0, length: int | None = None) -> bytes:
    pieces = body.stream(first, len(body) if length is None else length)
    return b"".join([piece async for piece in pieces])


async def test_a_large_body_stays_in_its_file(tmp_path: Path) -> None:
    with opened(tmp_path / "c") as store:
        store.put("id", large())
        found = store.load("id")
        body = body_of(found)
        assert len(body) == len(LARGE)
        assert await streamed(body) == LARGE
        assert found is not None
        assert await found.read() == large()
        (br, brotli), (gzip, small) = found.encoded or ()
        assert (br, gzip) == ("br", "gzip")
        assert isinstance(brotli, FileBody)
        assert isinstance(small, FileBody)
        assert await streamed(brotli) == LARGE[::-1]
        assert await streamed(small) == b"gz"


async def test_any_part_of_a_body_can_be_read(tmp_path: Path) -> None:
    chance = random.Random(2)
    edges = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, len(LARGE)]
    with opened(tmp_path / "c") as store:
        store.put("id", large())
        body = body_of(store.load("id"))
        for _ in range(60):
            first, end = sorted(chance.choice([*edges, chance.randrange(len(LARGE))]) for _ in "ab")
            assert await streamed(body, first, end - first) == LARGE[first:end]


async def test_a_damaged_block_is_never_sent_and_ends_the_entry(tmp_path: Path) -> None:
    with opened(tmp_path / "c") as store:
        for number in range(1, 4):
            store.put("id", large(encoded=None))
            (file,) = body_files(tmp_path)
            content = bytearray(LARGE)
            content[number * BLOCK_BYTES + 500] ^= 4
            file.write_bytes(content)
            body = body_of(store.load("id"))
            got = bytearray()

            async def take(body: FileBody = body, got: bytearray = got) -> None:
                async for piece in body.stream(0, len(body)):
                    got += piece

            with pytest.raises(OSError, match=f"block {number}"):
                await take()
            assert LARGE.startswith(got)
            assert (number - 1) * BLOCK_BYTES <= len(got) <= number * BLOCK_BYTES
            assert store.load("id") is None
            assert not body_files(tmp_path)


def test_damage_in_the_first_block_is_a_miss(tmp_path: Path) -> None:
    with opened(tmp_path / "c") as store:
        store.put("id", large())
        (file,) = body_files(tmp_path)
        file.write_bytes(b"X" + file.read_bytes()[1:])
        assert store.load("id") is None
        assert store.stats["objects"] == 0


async def test_a_body_cut_short_under_the_reader_is_noticed(tmp_path: Path) -> None:
    with opened(tmp_path / "c") as store:
        store.put("id", large())
        body = body_of(store.load("id"))
        (file,) = body_files(tmp_path)
        os.truncate(file, BLOCK_BYTES + 5)
        with pytest.raises(OSError, match="block 1"):
            await streamed(body)


async def test_what_is_being_sent_goes_on_when_the_entry_goes(tmp_path: Path) -> None:
    with opened(tmp_path / "c") as store:
        store.put("id", large())
        body = body_of(store.load("id"))
        store.remove("id")
        assert not body_files(tmp_path)
        assert await streamed(body) == LARGE


def test_another_head_for_the_same_body_leaves_its_file_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "c") as store:
        store.put("id", large())
        (file,) = body_files(tmp_path)
        found = store.load("id")
        assert found is not None
        store.put("id", replace(found, fresh_for_s=1234.0))
        again = store.load("id")
        assert again is not None
        assert again.fresh_for_s == 1234.0
        assert body_of(again).whole() == LARGE
        assert body_files(tmp_path) == [file]
        store.remove("id")
        store.put("id", replace(again, fresh_for_s=5.0))  # its file is gone, not its content
        last = store.load("id")
        assert last is not None
        assert body_of(last).whole() == LARGE
        assert last.fresh_for_s == 5.0


def test_a_body_knows_its_bytes_without_being_read(tmp_path: Path) -> None:
    with opened(tmp_path / "c") as store:
        store.put("id", large())
        body = body_of(store.load("id"))
        assert body.is_same(LARGE)
        assert not body.is_same(LARGE[:-1] + b"?")
        assert not body.is_same(b"?" + LARGE[1:])
        assert not body.is_same(LARGE + b"?")


def test_open_files_are_given_back(tmp_path: Path) -> None:
    with opened(tmp_path / "c") as store:
        store.put("id", large())
        before = len(os.listdir("/dev/fd"))
        for _ in range(20):
            store.load("id")
        assert len(os.listdir("/dev/fd")) <= before + 2


# ---------------------------------------------------------------- admission


def fill(store: Store, share: float) -> None:
    number = 0
    while store.stats["bytes"] < share * store.max_bytes:
        store.put(f"filler-{number}", entry(body=b"x" * 50_000))
        number += 1


def test_a_disk_with_room_takes_everything(tmp_path: Path) -> None:
    with opened(tmp_path / "c", 4 * MIB, picky=True) as store:
        fill(store, 0.7)
        store.put("once", entry())
        assert store.load("once") is not None
        assert store.counts["rejected"] == 0


def test_a_disk_that_fills_up_takes_what_comes_twice(tmp_path: Path) -> None:
    with opened(tmp_path / "c", 4 * MIB, picky=True) as store:
        fill(store, 0.79)
        store.put("last filler", entry(body=b"x" * 60_000))
        store.put("page", entry(body=b"y" * 50_000))
        assert store.load("page") is None
        assert store.counts["rejected"] >= 1
        store.put("page", entry(body=b"y" * 50_000))
        assert store.load("page") is not None
        store.put("record", entry(status=0, body=b"[]"))
        assert store.load("record") is not None


def test_what_replaces_an_entry_is_always_taken(tmp_path: Path) -> None:
    with opened(tmp_path / "c", 4 * MIB) as store:
        store.put("page", entry(body=b"old"))
    with opened(tmp_path / "c", 4 * MIB, picky=True) as store:
        fill(store, 0.79)
        store.put("last filler", entry(body=b"x" * 60_000))
        store.put("page", entry(body=b"new" * 20_000))
        assert store.load("page") == entry(body=b"new" * 20_000)


async def test_what_memory_lets_go_after_use_finds_a_place(tmp_path: Path) -> None:
    tier = DiskTier(Store(tmp_path / "c", 4 * MIB, picky=True))
    await tier.open()
    for number in range(120):
        await tier.put(f"filler-{number}", entry(body=b"x" * 30_000))
    await tier.put("page", entry(body=b"y" * 300_000))
    assert await tier.load("page") is None
    tier.offer("page", entry(body=b"y" * 300_000))
    await tier.remove("nothing")  # comes after it
    assert await tier.load("page") is not None
    tier.offer("page", entry(body=b"older"))
    tier.offer("gone", entry())
    await tier.remove("gone")
    found = await tier.load("page")
    assert found is not None
    assert len(found.body) == 300_000
    assert await tier.load("gone") is None
    stats = tier.stats()
    assert stats["rejected"] >= 1
    assert (stats["hits"], stats["misses"]) == (2, 2)
    await tier.close()
    tier.offer("late", entry())


def test_names_are_remembered_for_a_while() -> None:
    seen = Seen()
    names = [name_of(str(number)) for number in range(3 * NAMES_PER_TURN)]
    false = sum(seen.add(name) for name in names[:NAMES_PER_TURN])
    assert false < 0.01 * NAMES_PER_TURN
    assert all(seen.add(name) for name in names[:1000])
    for name in names[NAMES_PER_TURN:]:
        seen.add(name)
    assert sum(seen.add(name) for name in names[:1000]) < 100


def test_a_policy_says_what_is_admitted(tmp_path: Path) -> None:
    for admit, picky in (("always", False), ("second_hit", True)):
        plugin = Plugin(Disk.model_validate({"path": str(tmp_path), "admit": admit}))
        assert (plugin.tier._store._seen is not None) is picky


async def test_a_lazy_body_of_another_tier_is_not_kept(tmp_path: Path) -> None:
    class Elsewhere:
        def __len__(self) -> int:
            return 5

    tier = DiskTier(Store(tmp_path / "c", 4 * MIB))
    await tier.open()
    await tier.put("id", entry())
    await tier.put("id", replace(entry(), body=Elsewhere()))  # type: ignore[arg-type]
    assert await tier.load("id") is None
    await tier.close()
    await asyncio.sleep(0)
