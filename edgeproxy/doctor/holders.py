"""Which program listens on a port or a Unix socket, as far as Linux shows it to this user."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LISTENS = "0A"  # the state of a socket in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, such as `nginx (process 812)`."""

    name: str
    is_ours: bool


def holder(port: int) -> Holder | None:
    """None if nobody listens there, or the process is another user's."""
    inodes = {
        inode
        for table in ("tcp", "tcp6")
        for inode in listening(_text(Path(f"/proc/net/{table}")), port)
    }
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in _processes():
        if not wanted.isdisjoint(_open_files(process)):
            return _named(process)
    return None


def holder_of(sock: socket.socket) -> Holder | None:
    """Who listens at the other end of a Unix socket that has been connected."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    process: int = struct.unpack("3i", found)[0]
    return _named(Path(f"/proc/{process}"))


def listening(table: str, port: int) -> Iterator[str]:
    """The inodes of sockets that listen on `port`, from the text of /proc/net/tcp."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[3] == LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]


def is_edgeproxy(command: list[str]) -> bool:
    """Whether a command line is that of edgeproxy: by name, or of a module, as workers have it."""
    if "edgeproxy" in [Path(word).name for word in command[:2]]:
        return True
    _, option, module = " ".join(command[:4]).partition(" -m ")
    return bool(option) and module.split(" ")[0].split(".")[0] == "edgeproxy"


def _processes() -> Iterator[Path]:
    with suppress(OSError):
        yield from (path for path in Path("/proc").iterdir() if path.name.isdigit())


def _open_files(process: Path) -> Iterator[str]:
    with suppress(OSError):  # another user's, or gone
        for link in (process / "fd").iterdir():
            with suppress(OSError):  # closed since it was listed
                yield os.readlink(link)


def _named(process: Path) -> Holder:
    command = _text(process / "cmdline").split("\0")
    name = _text(process / "comm").strip() or "a program"
    is_ours = is_edgeproxy(command)
    return Holder(f"{'edgeproxy' if is_ours else name} (process {process.name})", is_ours)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
