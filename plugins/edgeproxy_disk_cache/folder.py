"""The folder on disk: who may have written there, and which of its parts is in use.

```text
<path>/lock                   held while one process begins or sets aside an instance
<path>/current                the name of the instance in use
<path>/<instance>/            index.sqlite3, bodies/, tmp/
<path>/damaged/               the index of the last instance that was set aside
```

A new start is a new instance: no file is ever replaced under a process that still has it open.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LOCK_WITHIN_S = 2.0

_INSTANCE = re.compile(r"i-[0-9a-f]{16}", re.ASCII)


class Refused(OSError):
    """The folder is not safe to use."""


class _Process:
    """The name of this process: its number, and a token, since numbers come round again."""

    def __init__(self) -> None:
        self.renew()
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.name = f"{os.getpid()}-{secrets.token_hex(4)}"


_process = _Process()


def this_process() -> str:
    """Names what this process has begun, so that what a dead one left can be told apart."""
    return _process.name


@dataclass(frozen=True, slots=True)
class Instance:
    """One life of the cache, from empty until it is set aside."""

    folder: Path
    mark: tuple[int, int]  # of `current`: tells whether another instance has taken its place

    @property
    def index(self) -> Path:
        return self.folder / "index.sqlite3"


def prepare(path: Path) -> None:
    """Create the folder if need be, for this user alone. Raises Refused if others could meddle."""
    for part in [*reversed(path.parents), path]:
        if not os.path.lexists(part):
            with suppress(FileExistsError):
                part.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(f"{path} is not a folder (a link is not followed; name its target)")
    if found.st_uid != os.geteuid():
        raise Refused(f"{path} belongs to another user")
    if found.st_mode & 0o022:
        raise Refused(f"{path} can be written by others; take that right away: chmod go-w {path}")


def current(path: Path) -> Instance | None:
    """The instance in use; None if there is none."""
    try:
        fd = os.open(path / "current", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        name = os.read(fd, 64).decode("latin-1") if stat.S_ISREG(found.st_mode) else ""
    finally:
        os.close(fd)
    folder = path / name
    if not _INSTANCE.fullmatch(name) or folder.is_symlink() or not folder.is_dir():
        return None
    return Instance(folder, (found.st_ino, found.st_mtime_ns))


def is_current(path: Path, instance: Instance) -> bool:
    """Whether no other instance has taken its place, and the folder is still there."""
    try:
        found = os.lstat(f"{path}/current")  # for every entry: a Path costs 10 us more
    except OSError:
        return False
    return (found.st_ino, found.st_mtime_ns) == instance.mark


def begin(path: Path) -> Instance:
    """A new, empty instance, in use from now on. Hold `locked`."""
    folder = path / f"i-{secrets.token_hex(8)}"
    for part in (folder, folder / "bodies", folder / "tmp"):
        part.mkdir(mode=0o700)
    draft = path / f"current.{this_process()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        draft.unlink()
    with os.fdopen(os.open(draft, flags, 0o600), "w") as file:
        file.write(folder.name)
    draft.rename(path / "current")
    instance = current(path)
    if instance is None:
        raise Refused(f"{path}: the new instance is not there")
    return instance


def set_aside(path: Path, folder: Path) -> None:
    """Keep the index of an instance as `damaged`, and remove the rest. Hold `locked`."""
    aside = path / "damaged"
    if aside.is_symlink():
        aside.unlink()
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):
        folder.rename(aside)
        shutil.rmtree(aside / "bodies", ignore_errors=True)
        shutil.rmtree(aside / "tmp", ignore_errors=True)


def sweep(path: Path, instance: Instance) -> None:
    """Remove what was left behind: other instances, and drafts of processes that are gone."""
    for part in path.iterdir():
        if _INSTANCE.fullmatch(part.name) and part != instance.folder and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        elif part.name.startswith("current.") and is_gone(part.name.removeprefix("current.")):
            with suppress(OSError):
                part.unlink()
    for draft in (instance.folder / "tmp").iterdir():
        if is_gone(draft.name.partition(".")[0]):
            with suppress(OSError):
                draft.unlink()


def is_gone(process: str) -> bool:
    """Whether the process that called itself so has ended."""
    if process == this_process():
        return False
    number = process.partition("-")[0]
    if not number.isdecimal() or not number.isascii() or int(number) == os.getpid():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time. OSError if another one takes too long."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path / "lock", flags, 0o600)
    try:
        until_s = time.monotonic() + LOCK_WITHIN_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)
