"""Appends to a file in a thread, in order, so that a slow disk holds up nobody else."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

MAX_WAITING = 1024
"""Pieces that may wait for the disk; what comes then is lost, and told."""

TELL_EVERY_S = 60.0
CLOSE_WITHIN_S = 5.0

log = logging.getLogger("edgeproxy")


class Appending:
    """`add` pieces, then `end`. It is over by itself once the file has `max_bytes`, or cannot be
    written to. `file` is its own from now on, and `path` only what it is called in messages."""

    def __init__(self, file: BinaryIO, path: Path, max_bytes: int) -> None:
        self._file = file
        self._path = path
        self._max_bytes = max_bytes
        self._size = file.tell()
        self._waiting: SimpleQueue[bytes | None] = SimpleQueue()
        self.is_over = False
        self.lost = 0
        self._told_at_s = -TELL_EVERY_S
        self._thread = threading.Thread(target=self._write_all, name="appending", daemon=True)
        self._thread.start()

    def add(self, data: bytes) -> None:
        """Have `data` written, whole, behind all that was added before. Returns at once."""
        if self.is_over:
            return
        if self._waiting.qsize() < MAX_WAITING:
            self._waiting.put(data)
            return
        self.lost += 1
        if time.monotonic() - self._told_at_s >= TELL_EVERY_S:
            self._told_at_s = time.monotonic()
            log.warning("%s takes too long to be written: %d lost so far", self._path, self.lost)

    def end(self) -> None:
        """Close the file once all that waits is written. Returns at once."""
        self._waiting.put(None)

    def wait(self, within_s: float = CLOSE_WITHIN_S) -> None:
        """Return when that is done. What hangs is given up."""
        self._thread.join(within_s)
        if self._thread.is_alive():
            log.error("%s: %d could not be written in time", self._path, self._waiting.qsize())

    # ------------------------------------------------- in a thread of its own

    def _write_all(self) -> None:
        with self._file:
            while not self.is_over and (data := self._waiting.get()) is not None:
                self._write(data)

    def _write(self, data: bytes) -> None:
        if self._size + len(data) > self._max_bytes:
            self.is_over = True
            log.warning("recording has ended: %s has its max_size", self._path)
            return
        try:
            self._file.write(data)
            self._size = self._file.tell()  # other workers write there, too
        except OSError as error:
            self.is_over = True
            log.error("recording has ended: %s: %s", self._path, error.strerror)
