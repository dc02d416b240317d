"""Changes of policy files are seen, however they are made; what changes nothing is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgeproxy.rollout.watch import Watch


class Seen:
    """Counts changes, and lets a test wait for the next one."""

    def __init__(self) -> None:
        self.count = 0
        self._news = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._news.set()

    async def one_more(self) -> None:
        async with asyncio.timeout(30):
            await self._news.wait()
        self._news.clear()


@asynccontextmanager
async def watching(*paths: Path) -> AsyncIterator[Seen]:
    seen = Seen()
    task = asyncio.ensure_future(Watch(paths, look_every_s=3600).run(seen))
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def rename_over(file: Path, text: str) -> None:
    """As editors save: a draft beside it takes its place."""
    draft = file.with_name(f".{file.name}.swp")
    write(draft, text)
    draft.replace(file)


@pytest.mark.parametrize("save", [write, rename_over])
async def test_a_file_that_is_saved(tmp_path: Path, save: Callable[[Path, str], None]) -> None:
    file = tmp_path / "site.yaml"
    write(file, "one")
    async with watching(file) as seen:
        for number in range(3):
            save(file, f"text {number}")
            await seen.one_more()


@pytest.mark.parametrize("save", [write, rename_over])
async def test_a_file_of_a_folder_comes_changes_and_goes(
    tmp_path: Path, save: Callable[[Path, str], None]
) -> None:
    folder = tmp_path / "policies"
    write(folder / "a.yaml", "one")
    async with watching(folder) as seen:
        save(folder / "b.yaml", "two")
        await seen.one_more()
        save(folder / "b.yaml", "three")
        await seen.one_more()
        (folder / "a.yaml").unlink()
        await seen.one_more()


async def test_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "down" / "site.yaml"
    async with watching(file) as seen:
        write(file, "one")
        await seen.one_more()
        file.unlink()
        await seen.one_more()
        write(file, "one")
        await seen.one_more()


async def test_a_folder_that_is_put_in_the_place_of_another(tmp_path: Path) -> None:
    folder, other = tmp_path / "policies", tmp_path / "other"
    write(folder / "a.yaml", "one")
    write(other / "a.yaml", "two")
    async with watching(folder) as seen:
        folder.rename(tmp_path / "former")
        other.rename(folder)
        await seen.one_more()
        write(folder / "a.yaml", "three")
        await seen.one_more()


async def test_links_that_are_turned_to_another_folder(tmp_path: Path) -> None:
    """As a Kubernetes volume is updated: files are links through a link that is replaced."""
    volume = tmp_path / "volume"
    write(volume / "..1" / "site.yaml", "one")
    write(volume / "..2" / "site.yaml", "two")
    (volume / "..data").symlink_to("..1")
    (volume / "site.yaml").symlink_to("..data/site.yaml")
    for path in (volume, volume / "site.yaml"):
        async with watching(path) as seen:
            (volume / "..draft").symlink_to("..2")
            (volume / "..draft").replace(volume / "..data")
            await seen.one_more()
            (volume / "..draft").symlink_to("..1")
            (volume / "..draft").replace(volume / "..data")
            await seen.one_more()


@pytest.mark.parametrize("of_folder", [True, False], ids=["folder", "file"])
async def test_what_a_link_leads_to(tmp_path: Path, of_folder: bool) -> None:
    target, folder = tmp_path / "repository" / "site.yaml", tmp_path / "policies"
    write(target, "one")
    folder.mkdir()
    (folder / "site.yaml").symlink_to(target)
    async with watching(folder if of_folder else folder / "site.yaml") as seen:
        write(target, "two")
        await seen.one_more()


async def test_a_test_beside_the_policy_counts(tmp_path: Path) -> None:
    write(tmp_path / "site.yaml", "one")
    async with watching(tmp_path / "site.yaml") as seen:
        write(tmp_path / "site_test.yaml", "tests")
        await seen.one_more()


async def test_what_changes_nothing_is_no_change(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    write(file, "one")
    async with watching(file, tmp_path) as seen:
        file.touch()
        rename_over(file, "one")
        write(tmp_path / "notes.txt", "nothing")
        write(tmp_path / "below" / "other.yaml", "nothing")
        await asyncio.to_thread(write, file, "two")
        await seen.one_more()
        assert seen.count == 1


async def test_a_change_from_before_the_watching_began_is_seen(tmp_path: Path) -> None:
    """Between the first reading of the policy and now."""
    file = tmp_path / "site.yaml"
    write(file, "one")
    watch, seen = Watch([file], look_every_s=3600), Seen()
    write(file, "two")
    task = asyncio.ensure_future(watch.run(seen))
    await seen.one_more()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_changes_in_silence_is_looked_for(tmp_path: Path) -> None:
    """Folders that cannot be watched at all, to go without being told."""
    file = tmp_path / "site.yaml"
    write(file, "one")

    async def nothing(*_: object, **__: object) -> AsyncIterator[None]:
        raise OSError("no space left for watches")
        yield

    watch, seen = Watch([file], look_every_s=0.01, told=nothing), Seen()
    task = asyncio.ensure_future(watch.run(seen))
    write(file, "two")
    await seen.one_more()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
