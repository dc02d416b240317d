"""Tells when policy files change: `edgeproxy run --watch`."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from watchfiles import awatch

from edgeproxy.errors import PolicyError
from edgeproxy.policy.files import sources
from edgeproxy.policytest.cases import find_files

QUIET_MS = 100  # an editor writes several times; a checkout changes many files
MAX_WAIT_MS = 1000  # for quiet
LOOK_EVERY_S = 5.0  # without being told: what is on a network may change in silence

log = logging.getLogger("edgeproxy")


class Watch:
    """Watches `paths`, which may come and go, and the tests beside them.

    What counts is what the files say, from when this was made: not by which name an editor wrote
    before it renamed, nor where a link leads today.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        look_every_s: float = LOOK_EVERY_S,
        told: Callable[..., AsyncGenerator[Any, None]] = awatch,
    ) -> None:
        self._paths = paths
        self._look_every_s = look_every_s
        self._told = told
        self._seen = _content(paths)

    async def run(self, changed: Callable[[], None]) -> None:
        """Call `changed` for each change, until this is cancelled."""
        while True:
            try:
                await self._watch(_folders(self._paths), changed)
            except (OSError, RuntimeError) as error:
                log.warning("changes of policy files are looked for, not told: %s", error)
                await asyncio.sleep(self._look_every_s)
                await self._look(changed)

    async def _watch(self, folders: frozenset[Path], changed: Callable[[], None]) -> None:
        """Watch `folders` for as long as they are the ones to watch."""
        told = self._told(
            *folders,
            watch_filter=None,
            recursive=False,
            step=QUIET_MS,
            debounce=MAX_WAIT_MS,
            rust_timeout=int(self._look_every_s * 1000),
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        news = asyncio.ensure_future(anext(told))
        try:
            await asyncio.sleep(0)  # now it watches: look for what came before
            while True:
                await self._look(changed)
                if _folders(self._paths) != folders:
                    return
                await news
                news = asyncio.ensure_future(anext(told))
        finally:
            news.cancel()
            await asyncio.gather(news, return_exceptions=True)
            await told.aclose()

    async def _look(self, changed: Callable[[], None]) -> None:
        content = await asyncio.to_thread(_content, self._paths)
        if content != self._seen:
            self._seen = content
            changed()


def _content(paths: Sequence[Path]) -> str:
    """What the policies and tests say, as a hash; or else why they cannot be read."""
    digest = hashlib.sha256()
    try:
        tests = find_files(paths)
        for name, content in [*sources(paths), *(sources(tests) if tests else ())]:
            raw = content.encode() if isinstance(content, str) else content
            digest.update(b"%d %b %d\n%b" % (len(name), name.encode(), len(raw), raw))
    except (PolicyError, OSError) as error:
        return str(error)
    return digest.hexdigest()


def _folders(paths: Sequence[Path]) -> frozenset[Path]:
    """The folders in which something happens when a policy changes."""
    return frozenset(_nearest(folder) for path in paths for folder in _around(path))


def _around(path: Path) -> Iterator[Path]:
    """The folder of policies and what it lies in, or the folder that a file lies in; the same of
    what links lead to."""
    for one in (path.absolute(), path.resolve()):
        yield one.parent
        if one.is_dir():
            yield one
            yield from (file.resolve().parent for file in one.iterdir() if file.is_symlink())


def _nearest(folder: Path) -> Path:
    """`folder`, or what is there of the way to it."""
    return next((one for one in (folder, *folder.parents) if one.is_dir()), folder)
