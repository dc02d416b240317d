"""Unix sockets that listen: with their rights, in the place of what a dead process has left."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

DEFAULT_MODE = 0o660


def bound(path: Path, mode: int = DEFAULT_MODE, owner: str = "", group: str = "") -> socket.socket:
    """A socket that is bound to `path`. OSError if it cannot be, or a live one listens there.

    It is made beside `path` and renamed once it has its rights, so that nobody connects before.
    """
    make_room(path)
    draft = path.with_name(f".{path.name[:20]}.{os.getpid()}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(draft))
        try:
            draft.chmod(mode)
            _give(draft, owner, group)
            draft.rename(path)
        except BaseException:
            draft.unlink()
            raise
    except BaseException:
        sock.close()
        raise
    return sock


def _give(path: Path, owner: str, group: str) -> None:
    """Make it that of `owner` and `group`, names or numbers; empty: as it is."""
    users: list[int | str | None] = [
        int(text) if text.isdigit() else text or None for text in (owner, group)
    ]
    if not any(user is not None for user in users):
        return
    try:
        shutil.chown(path, *users)  # type: ignore[arg-type]
    except LookupError as error:
        raise OSError(errno.EINVAL, str(error)) from None


def make_room(path: Path) -> None:
    """Remove a socket that a dead process has left. OSError if a live one listens there, or if it
    is no socket."""
    if not path.is_socket():
        if path.exists():
            raise OSError(errno.EEXIST, "it is a file that is no socket")
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # it lives, and has much to do
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def remover(path: Path) -> Callable[[], None]:
    """Removes `path`, unless by then somebody else's file has taken its place."""
    ours = _identity(path)

    def remove() -> None:
        with contextlib.suppress(OSError):
            if _identity(path) == ours:
                path.unlink()

    return remove


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
