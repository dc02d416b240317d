"""A file that is written in a thread: in order, and what is lost is told."""

from __future__ import annotations

import errno
import io
import threading
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.engine.appending import MAX_WAITING, Appending

PATH = Path("traffic.mitm")
MANY = 2**40


class Disk(io.BytesIO):
    """What was written stays after it is closed. While `is_fast` is not set, a write hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.is_fast, self.is_writing = threading.Event(), threading.Event()
        self.is_full = False
        self.held = b""

    def write(self, data: Any) -> int:
        self.is_writing.set()
        assert self.is_fast.wait(20)
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.held += data
        return super().write(data)


def test_what_is_added_is_written_in_order_and_the_file_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before ")
    file = Appending(path.open("ab", buffering=0), path, MANY)
    for number in range(500):
        file.add(b"%d " % number)
    file.end()
    file.wait()
    assert path.read_bytes() == b"before " + b"".join(b"%d " % number for number in range(500))
    assert file.lost == 0


def test_a_disk_that_hangs_holds_nobody_up_and_what_is_lost_is_counted_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = Disk()
    file = Appending(disk, PATH, MANY)
    file.add(b"first ")
    assert disk.is_writing.wait(20)  # so that it waits no more in the queue
    for _ in range(MAX_WAITING + 3):
        file.add(b"x")
    assert file.lost == 3
    assert caplog.messages == ["traffic.mitm takes too long to be written: 1 lost so far"]
    disk.is_fast.set()
    file.end()
    file.wait()
    assert disk.held == b"first " + b"x" * MAX_WAITING


def test_what_hangs_for_good_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    file = Appending(disk, PATH, MANY)
    file.add(b"first")
    assert disk.is_writing.wait(20)
    file.add(b"second")
    file.end()
    file.wait(0.01)
    assert "could not be written in time" in caplog.messages[0]
    disk.is_fast.set()


@pytest.mark.parametrize(
    ("is_full", "max_bytes", "said"),
    [(False, 10, "has its max_size"), (True, MANY, "No space left on device")],
)
def test_it_is_over_when_there_is_no_more_room(
    caplog: pytest.LogCaptureFixture, is_full: bool, max_bytes: int, said: str
) -> None:
    disk = Disk()
    disk.is_full = is_full
    disk.is_fast.set()
    file = Appending(disk, PATH, max_bytes)
    for _ in range(5):
        file.add(b"0123")
    file.end()
    file.wait()
    assert file.is_over
    assert disk.held == (b"" if is_full else b"01230123")
    (message,) = caplog.messages
    assert message.startswith("recording has ended: traffic.mitm")
    assert said in message
    file.add(b"more")
    assert disk.closed
