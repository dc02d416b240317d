"""The cache on disk, blocking: an SQLite index with small bodies in it, files for large ones.

Nothing is synced to the disk: a crash of the process loses nothing, a crash of the machine may
lose or damage entries, and the digest of each entry keeps a damaged one from being served.

A file of a body exists before its row and goes after it. In between it is listed in `loose`, so
that whoever starts next knows what to remove.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeproxy.api import Listed, Mark, StoredResponse

from . import folder, marks
from .admission import Seen
from .blocks import FileBody, digests_of, is_plain, open_content, shared_content
from .encoding import (
    Damaged,
    bytes_in,
    digest_of,
    entry_of,
    head_of,
    length_of,
    listed,
    name_of,
    prove,
)

FORMAT = 2  # of the index, kept in its user_version; another one is set aside
INLINE_BYTES = 256 * 1024
ROW_BYTES = 512  # what a row takes beside its content, about
LARGEST_SHARE = 8
ROOMY_SHARE = 0.8  # up to here everything is kept, whatever the admission
SPARE_SHARE = 20  # an eviction frees 1/20 more than it must, so that not every put evicts
USES_IN_MEMORY = 512
REST_S = 1.0  # after a failure
MAX_FAILURES = 10  # of writes in a row; then the index is opened anew
SAY_EVERY_S = 60.0

_SCHEMA = f"""
CREATE TABLE entries (
  name BLOB PRIMARY KEY, used INTEGER NOT NULL, size INTEGER NOT NULL, digest BLOB NOT NULL,
  file TEXT, head BLOB NOT NULL, body BLOB
);
CREATE INDEX entries_used ON entries (used);
CREATE INDEX entries_file ON entries (file) WHERE file IS NOT NULL;
CREATE TABLE loose (file TEXT PRIMARY KEY, process TEXT NOT NULL);
CREATE TABLE totals (objects INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER added AFTER INSERT ON entries BEGIN
  UPDATE totals SET objects = objects + 1, bytes = bytes + NEW.size; END;
CREATE TRIGGER changed AFTER UPDATE OF size ON entries BEGIN
  UPDATE totals SET bytes = bytes - OLD.size + NEW.size; END;
CREATE TRIGGER gone AFTER DELETE ON entries BEGIN
  UPDATE totals SET objects = objects - 1, bytes = bytes - OLD.size; END;
{marks.SCHEMA}
PRAGMA user_version = {FORMAT};
"""

_WAL_VERSIONS = b"\x02\x02"

_PUT = """
INSERT INTO entries (name, used, size, digest, file, head, body) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET used = excluded.used, size = excluded.size,
  digest = excluded.digest, file = excluded.file, head = excluded.head, body = excluded.body
"""

_RECOUNT = """
UPDATE totals SET objects = (SELECT count(*) FROM entries),
  bytes = (SELECT coalesce(sum(size), 0) FROM entries)
"""

log = logging.getLogger(__name__)


class Unavailable(Exception):
    """There is no index to work with at the moment."""


class Index:
    """One open instance: a connection that writes, and some that read."""

    def __init__(self, instance: folder.Instance) -> None:
        self.instance = instance
        self.bodies = instance.folder / "bodies"
        self.drafts = instance.folder / "tmp"
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()  # over the list and `_is_closed`
        self._writing = threading.Lock()
        self._is_closed = False
        self.marks_told: int | None = None  # the change of the marks that was told of last
        self._writer = self._connect()
        try:
            self._check_format()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        if self.instance.index.is_symlink():
            raise Damaged("the index is a link")
        connection = sqlite3.connect(
            self.instance.index, timeout=5, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA journal_size_limit = 16777216")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_format(self) -> None:
        with self.instance.index.open("rb") as file:
            versions = file.read(20)[18:]
        if versions not in (b"", _WAL_VERSIONS):  # SQLite would take others for read-only
            raise Damaged("the head of the index")
        found = self._format()
        if found == 0:
            self._writer.execute("PRAGMA journal_mode = WAL")
            with self.transaction() as connection:
                if self._format() == 0:
                    for statement in _statements(_SCHEMA):
                        connection.execute(statement)
            found = self._format()
        if found != FORMAT:
            raise Damaged(f"its format is {found}, not {FORMAT}")
        if not marks.are_kept(self._writer):  # begun by an earlier version
            with self.transaction() as connection:
                for statement in _statements(marks.SCHEMA):
                    connection.execute(statement)

    def _format(self) -> int:
        return int(self._writer.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A connection for one thread at a time."""
        with self._lock:
            if self._is_closed:
                raise Unavailable
            idle = self._idle.pop() if self._idle else None
        connection = idle or self._connect()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    @contextmanager
    def transaction(self, *, synced: bool = False) -> Iterator[sqlite3.Connection]:
        """All or nothing, by one thread at a time; with `synced`, safe on the disk at the end."""
        with self._writing:
            if self._is_closed:
                raise Unavailable
            if synced:
                self._writer.execute("PRAGMA synchronous = FULL")
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise
            finally:
                if synced:
                    self._writer.execute("PRAGMA synchronous = NORMAL")

    def close(self) -> None:
        """Close what is idle now, and the rest when it comes back."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        with self._writing:
            self._writer.close()


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


class Store:
    """Entries in a folder, at most `max_bytes` of them, the least recently used going first.

    Reads may come from any thread; writes from one. Nothing here raises for what the disk does: a
    read finds nothing, a write keeps nothing, the log has a line a minute, and a second later it
    is tried again. `wall` and `monotonic` are clocks in seconds.

    With `picky`, a store that is filling up takes an entry only if its id was put before, if it is
    offered (a tier above used it), or if it replaces one.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        *,
        picky: bool = False,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.heard: Callable[[Sequence[Mark]], None] = lambda marks: None  # in any thread
        self.stats = {"objects": 0, "bytes": 0, "max_bytes": max_bytes}
        self.counts = {"admitted": 0, "rejected": 0, "evicted": 0}
        self._seen = Seen() if picky else None
        self._wall, self._monotonic = wall, monotonic
        self._index: Index | None = None
        self._opening = threading.Lock()
        self._rest_until_s = float("-inf")
        self._silent_until_s = float("-inf")
        self._used: dict[bytes, int] = {}
        self._failures = 0
        self._is_closed = False

    # ------------------------------------------------------------ what a tier needs

    def open(self) -> None:
        """Be ready, if the disk is."""
        self._safely("open", lambda index: None)

    def load(self, id: str) -> StoredResponse | None:
        """The entry under `id`, proven to be what was put there."""
        return self._safely("read", lambda index: self._load(index, name_of(id)))

    def put(self, id: str, entry: StoredResponse) -> None:
        """Keep `entry`; if it is too large or not wanted, at least not what it replaces."""
        name, head = name_of(id), head_of(entry)
        size = len(head) + entry.body_bytes + ROW_BYTES
        if size > self.max_bytes // LARGEST_SHARE:
            self.counts["rejected"] += 1
            self.remove(id)
        elif not self._is_resting():
            self._safely("write", lambda index: self._put(index, name, head, entry, size))

    def offer(self, id: str, entry: StoredResponse) -> None:
        """Keep `entry`, which was used elsewhere, unless there is one under `id`."""
        name, head = name_of(id), head_of(entry)
        size = len(head) + entry.body_bytes + ROW_BYTES

        def take(index: Index) -> None:
            if not self._has(index, name):
                self._write(index, name, head, entry, size)

        if size <= self.max_bytes // LARGEST_SHARE and not self._is_resting():
            self._safely("write", take)

    def remove(self, id: str) -> None:
        """Forget the entry under `id`."""
        self._safely("remove", lambda index: self._remove(index, name_of(id)))

    def listed(self, after: int) -> tuple[int, list[Listed]] | None:
        """Entries that stand after the place `after`, and the place of the last; None if the disk
        does not say."""
        return self._safely("read", lambda index: self._listed(index, after))

    def read_marks(self) -> None:
        """Tell `heard` of the marks, if they have changed since."""
        self._safely("read", self._read_marks)

    def tell_again(self) -> None:
        """Tell `heard` of every mark, before the next entry is given out."""
        if self._index is not None:
            self._index.marks_told = None

    def save_marks(self, new: Sequence[Mark], gone: Sequence[Mark]) -> bool:
        """Keep and drop marks; True once the disk has that."""

        def save(index: Index) -> bool:
            with index.transaction(synced=True) as connection:
                marks.save(connection, new, gone)
            return True

        # A damaged index is set aside, entries and all, and a new one takes its place.
        return bool(self._safely("write", save) or self._safely("write", save))

    def close(self) -> None:
        """Write down what was used, and close. Nothing is found or kept afterwards."""
        if self._index is not None:
            self._safely("close", self._flush)
        self._is_closed = True
        self._close_index()

    # ------------------------------------------------------------ opening

    def _usable(self) -> Index:
        """The open index, of the instance in use."""
        index = self._index
        if index is not None and folder.is_current(self.path, index.instance):
            return index
        with self._opening:
            if self._index is index:
                self._reopen()
            if self._index is None:
                raise Unavailable
            return self._index

    def _reopen(self) -> None:
        self._close_index()
        if self._is_closed or self._is_resting():
            return
        folder.prepare(self.path)
        with folder.locked(self.path):
            instance = folder.current(self.path) or folder.begin(self.path)
            try:
                index = self._opened(instance)
            except (sqlite3.Error, Damaged) as error:
                if not _is_damage(error):
                    raise
                self._say(f"the index is damaged and set aside: {error}", always=True)
                replacement = folder.begin(self.path)
                folder.set_aside(self.path, instance.folder)
                index = self._opened(replacement)
            folder.sweep(self.path, index.instance)
        self._index = index

    def _opened(self, instance: folder.Instance) -> Index:
        """The index of `instance`, with its totals known and without what dead processes left."""
        index = Index(instance)
        try:
            with index.transaction() as connection:
                loose = connection.execute("SELECT file, process FROM loose").fetchall()
                self._count(connection)
            left = [str(file) for file, process in loose if folder.is_gone(str(process))]
            self._unlink(index, left)
        except BaseException:
            index.close()
            raise
        return index

    def _close_index(self) -> None:
        index, self._index = self._index, None
        if index is not None:
            index.close()

    # ------------------------------------------------------------ failures

    def _safely[T](self, what: str, work: Callable[[Index], T]) -> T | None:
        """What `work` gives; None for whatever the disk does. A damaged index is set aside."""
        index = None
        try:
            index = self._usable()
            result = work(index)
            self._failures = self._failures if what == "read" else 0
            return result
        except Unavailable:
            return None
        except (sqlite3.Error, OSError, Damaged) as error:
            if self._is_closed:
                return None
            if index is not None and _is_damage(error):
                self._set_aside(index, error)
                return None
            self._say(f"cannot {what}, going on without: {error}")
            self._rest_until_s = self._monotonic() + REST_S
            self._failures += not _is_full(error)
            # What cannot be written to may still be good to read from.
            if what == "read" or _is_read_only(error) or self._failures >= MAX_FAILURES:
                self._failures = 0
                with self._opening:
                    if self._index is index:
                        self._close_index()
            return None

    def _set_aside(self, index: Index, error: Exception) -> None:
        with self._opening:
            if self._index is not index:
                return
            self._say(f"the index is damaged and set aside: {error}", always=True)
            self._close_index()
            try:
                with folder.locked(self.path):
                    if folder.is_current(self.path, index.instance):
                        folder.begin(self.path)
                        folder.set_aside(self.path, index.instance.folder)
            except OSError as failure:
                self._say(f"cannot begin anew: {failure}")
                self._rest_until_s = self._monotonic() + REST_S

    def _is_resting(self) -> bool:
        return self._monotonic() < self._rest_until_s

    def _say(self, what: str, *, always: bool = False) -> None:
        now_s = self._monotonic()
        if always or now_s >= self._silent_until_s:
            self._silent_until_s = now_s + SAY_EVERY_S
            log.warning("disk cache %s: %s", self.path, what)

    # ------------------------------------------------------------ reading

    def _load(self, index: Index, name: bytes) -> StoredResponse | None:
        with index.reader() as connection:
            row = connection.execute(
                f"SELECT digest, file, head, body, {marks.CHANGE} FROM entries WHERE name = ?",
                (name,),
            ).fetchone()
        if row is None:
            return None
        digest, file, head, body, change = row
        if change != index.marks_told:
            self._read_marks(index)

        def damaged() -> None:
            self._say("a damaged body is dropped, its answer broken off")
            self._safely("remove", lambda index: self._remove(index, name, digest))

        try:
            prove(name, head, body, digest, is_file=file is not None)
            if file is not None:
                content = open_content(index.bodies, file, length_of(head), body, damaged)
                entry = entry_of(head, content.part)
            else:
                content_bytes = bytes_in(body)
                if len(content_bytes) != length_of(head):
                    raise Damaged("its length")
                entry = entry_of(head, lambda at, size: content_bytes[at : at + size])
        except (Damaged, FileNotFoundError) as error:
            self._say(f"a damaged entry is dropped: {error}")
            self._remove(index, name, digest)
            return None
        self._used[name] = self._now()
        return entry

    def _listed(self, index: Index, after: int) -> tuple[int, list[Listed]]:
        self._read_marks(index)
        with index.reader() as connection:
            rows = connection.execute(
                "SELECT rowid, name, digest, head FROM entries WHERE rowid > ? "
                "ORDER BY rowid LIMIT 250",
                (after,),
            ).fetchall()
        found = []
        for _, name, digest, head in rows:
            try:
                found.append(listed(head))
            except Damaged as error:
                self._say(f"a damaged entry is dropped: {error}")
                self._remove(index, name, digest)
        return (rows[-1][0] if rows else -1), found

    def _read_marks(self, index: Index) -> None:
        with index.reader() as connection:
            change = marks.change(connection)
            if change == index.marks_told:
                return
            kept = marks.read(connection)
        self.heard(kept)
        index.marks_told = change  # only now: another thread may rely on it at once

    # ------------------------------------------------------------ writing

    def _put(
        self, index: Index, name: bytes, head: bytes, entry: StoredResponse, size: int
    ) -> None:
        if self._is_wanted(index, name, entry, size):
            self._write(index, name, head, entry, size)
        else:
            self.counts["rejected"] += 1

    def _is_wanted(self, index: Index, name: bytes, entry: StoredResponse, size: int) -> bool:
        """Records of variants always are: without theirs, variants are not found."""
        if self._seen is None:
            return True
        known = self._seen.add(name)
        is_roomy = self.stats["bytes"] + size <= self.max_bytes * ROOMY_SHARE
        return known or is_roomy or not entry.status or self._has(index, name)

    def _has(self, index: Index, name: bytes) -> bool:
        with index.reader() as connection:
            query = "SELECT 1 FROM entries WHERE name = ?"
            return connection.execute(query, (name,)).fetchone() is not None

    def _write(
        self, index: Index, name: bytes, head: bytes, entry: StoredResponse, size: int
    ) -> None:
        bodies = [entry.body, *(body for _, body in entry.encoded or ())]
        present = shared_content(bodies)
        if present is not None:
            digest = digest_of(name, head, present.digests, is_file=True)
            if self._renew(index, name, present.file, (self._now(), size, digest, head)):
                return
        content = b"".join(b.whole() if isinstance(b, FileBody) else bytes_in(b) for b in bodies)
        if len(content) <= INLINE_BYTES:
            digest = digest_of(name, head, content)
            self._insert(index, (name, self._now(), size, digest, None, head, content))
        else:
            digests = digests_of(content)
            digest = digest_of(name, head, digests, is_file=True)
            with self._body_file(index, name, content) as file:
                self._insert(index, (name, self._now(), size, digest, file, head, digests))
        self.counts["admitted"] += 1

    def _renew(
        self, index: Index, name: bytes, file: str, columns: tuple[int, int, bytes, bytes]
    ) -> bool:
        """Another head for the content that is in `file`; False if the entry has that no more."""
        with index.transaction() as connection:
            done = connection.execute(
                "UPDATE entries SET used = ?, size = ?, digest = ?, head = ? "
                "WHERE name = ? AND file = ?",
                (*columns, name, file),
            ).rowcount
        return done > 0

    def _insert(
        self,
        index: Index,
        row: tuple[bytes, int, int, bytes, str | None, bytes, bytes | None],
    ) -> None:
        name, file = row[0], row[4]
        self._used.pop(name, None)
        with index.transaction() as connection:
            files = self._replaced(connection, name)
            connection.execute(_PUT, row)
            if file is not None:
                connection.execute("DELETE FROM loose WHERE file = ?", (file,))
            if len(self._used) >= USES_IN_MEMORY:
                self._write_uses(connection)
            if self._count(connection) > self.max_bytes:
                files += self._evict(connection, name)
        self._unlink(index, files)

    def _remove(self, index: Index, name: bytes, digest: object = None) -> None:
        """Forget an entry; with `digest`, only if it has not been replaced meanwhile."""
        with index.transaction() as connection:
            if digest is not None:
                query = "SELECT digest FROM entries WHERE name = ?"
                if connection.execute(query, (name,)).fetchone() != (digest,):
                    return
            files = self._replaced(connection, name)
            connection.execute("DELETE FROM entries WHERE name = ?", (name,))
            self._count(connection)
        self._unlink(index, files)

    def _flush(self, index: Index) -> None:
        with index.transaction() as connection:
            self._write_uses(connection)

    @contextmanager
    def _body_file(self, index: Index, name: bytes, body: bytes) -> Iterator[str]:
        """A file with `body`, complete under its name; gone again if what follows fails."""
        process = folder.this_process()
        file = f"{name.hex()}-{secrets.token_hex(8)}"
        draft = index.drafts / f"{process}.{secrets.token_hex(8)}"
        with index.transaction() as connection:
            connection.execute("INSERT INTO loose VALUES (?, ?)", (file, process))
        try:
            _write_file(draft, body)
            draft.rename(index.bodies / file)
            yield file
        except BaseException:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            with suppress(OSError, sqlite3.Error):
                self._unlink(index, [file])
            raise

    def _replaced(self, connection: sqlite3.Connection, name: bytes) -> list[str]:
        """The file of the present entry, noted as loose."""
        query = "SELECT file FROM entries WHERE name = ? AND file IS NOT NULL"
        return self._loosen(connection, connection.execute(query, (name,)).fetchall())

    def _evict(self, connection: sqlite3.Connection, kept: bytes) -> list[str]:
        """Remove the least recently used entries, all but `kept`."""
        self._write_uses(connection)
        files: list[str] = []
        excess = self._count(connection) - (self.max_bytes - self.max_bytes // SPARE_SHARE)
        while excess > 0:
            rows = connection.execute(
                "SELECT rowid, size, file FROM entries WHERE name != ? ORDER BY used LIMIT 64",
                (kept,),
            ).fetchall()
            if not rows:  # the totals were wrong
                connection.execute(_RECOUNT)
                break
            goes = []
            for rowid, size, file in rows:
                if excess <= 0:
                    break
                excess -= _number(size)
                goes.append((rowid,))
                if file is not None:
                    files += self._loosen(connection, [(file,)])
            connection.executemany("DELETE FROM entries WHERE rowid = ?", goes)
            self.counts["evicted"] += len(goes)
        self._count(connection)
        return files

    def _loosen(self, connection: sqlite3.Connection, rows: list[tuple[object]]) -> list[str]:
        """Note the files as loose."""
        files = [str(file) for (file,) in rows]
        process = folder.this_process()
        connection.executemany(
            "INSERT OR REPLACE INTO loose VALUES (?, ?)", [(file, process) for file in files]
        )
        return files

    def _unlink(self, index: Index, files: list[str]) -> None:
        """Remove loose files, but never one that a row names."""
        if not files:
            return
        with index.transaction() as connection:
            for file in files:
                query = "SELECT 1 FROM entries WHERE file = ?"
                if is_plain(file) and not connection.execute(query, (file,)).fetchone():
                    (index.bodies / file).unlink(missing_ok=True)
                connection.execute("DELETE FROM loose WHERE file = ?", (file,))

    def _write_uses(self, connection: sqlite3.Connection) -> None:
        used, self._used = self._used, {}
        uses = [(when, name) for name, when in list(used.items())]
        connection.executemany("UPDATE entries SET used = ? WHERE name = ?", uses)

    def _count(self, connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT objects, bytes FROM totals").fetchone()
        objects, size = (_number(number) for number in row or (None, None))
        self.stats = {"objects": objects, "bytes": size, "max_bytes": self.max_bytes}
        return size

    def _now(self) -> int:
        return int(self._wall() * 1000)


def _number(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise Damaged(f"{value!r} in the place of a number")
    return value


def _write_file(path: Path, body: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as stream:
        stream.write(body)


_NOT_DAMAGE = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_TOOBIG,
    )
)


def _is_damage(error: Exception) -> bool:
    """Whether the index itself is broken, rather than the disk or the moment."""
    if isinstance(error, Damaged):
        return True
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
        return False  # closed under a reader
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.DatabaseError) and (code or 0) & 0xFF not in _NOT_DAMAGE


def _is_read_only(error: Exception) -> bool:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF == sqlite3.SQLITE_READONLY


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF == sqlite3.SQLITE_FULL
