"""The databases in force: opened from a private copy, asked, and replaced while in use."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from ipaddress import IPv4Address, IPv6Address
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import maxminddb
from cachetools import LRUCache

from edgeproxy.api import Address

from .records import NOWHERE, Place, merged, place_in

log = logging.getLogger("edgeproxy.geo")

COMPLAINT_INTERVAL_S = 60.0
_NAT64 = 0x64FF9B << 64  # the upper 96 bits of 64:ff9b::/96 (RFC 6052, section 2.1)


class Version(NamedTuple):
    """What tells one state of a file from the next, without reading it."""

    mtime_ns: int
    size: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Version:
        stat = path.stat()
        return cls(stat.st_mtime_ns, stat.st_size, stat.st_ino)


@dataclass(frozen=True, slots=True)
class Database:
    """One MMDB file as it was when it was read."""

    path: Path
    version: Version
    reader: maxminddb.Reader
    ip_version: int
    names_places: bool  # a sample of its records holds a country, a continent or an AS number

    @property
    def built(self) -> datetime:
        """When its data was put together, as it says itself."""
        return datetime.fromtimestamp(self.reader.metadata().build_epoch, UTC)

    @classmethod
    def open(cls, path: Path) -> Database:
        """Read `path` and try it out. ValueError, with the reason, if it cannot be used."""
        try:
            version = Version.of(path)
            data = path.read_bytes()
            if Version.of(path) != version or len(data) != version.size:
                raise ValueError("it was written to while being read")
            reader = _reader(data)
            names_places = _names_places(reader)
            return cls(path, version, reader, reader.metadata().ip_version, names_places)
        except OSError as error:
            reason = error.strerror or str(error)
        except Exception as error:  # a reader over damaged data may raise nearly anything
            reason = str(error) or type(error).__name__
        raise ValueError(f"cannot use the database {str(path)!r}: {reason}")


def builtin_path() -> Path:
    """The database that edgeproxy brings: inside the plugin in a wheel, else in the checkout."""
    here = Path(__file__).parent
    packed = here / "data" / "iptoasn-country.mmdb"
    return packed if packed.exists() else here.parent.parent / "geoip" / packed.name


def _reader(data: bytes) -> maxminddb.Reader:
    """A reader over a copy of `data` that nobody else can reach, so nobody can cut it short.

    The C reader (8 times as fast as the one in Python, which reads memory) wants a file to map.
    It gets one that loses its name at once; a mapping of the real file would end the process with
    SIGBUS when somebody truncates it. Where no temporary file can be made, Python has to do.
    """
    with (
        contextlib.suppress(OSError),
        tempfile.NamedTemporaryFile(prefix="edgeproxy-geo-", suffix=".mmdb") as copy,
    ):
        copy.write(data)
        copy.flush()
        try:
            return maxminddb.open_database(copy.name, maxminddb.MODE_AUTO)
        except maxminddb.InvalidDatabaseError as error:
            raise ValueError(str(error).replace(f" ({copy.name})", "")) from None
    return maxminddb.open_database(io.BytesIO(data), maxminddb.MODE_FD)


def _names_places(reader: maxminddb.Reader) -> bool:
    """Whether a sample of the records names places. Raises what a damaged database raises.

    The sample is the first 2000 networks and 5000 addresses spread over the tree: 20 ms.
    """
    metadata = reader.metadata()
    if metadata.binary_format_major_version != 2 or metadata.ip_version not in (4, 6):
        raise ValueError("it is not in MMDB format 2")
    records = chain(_first_records(reader, 2000), map(reader.get, _spread(metadata.ip_version)))
    return sum(place_in(record) != NOWHERE for record in records) > 0


def _first_records(reader: maxminddb.Reader, count: int) -> Iterator[object]:
    try:
        for _, record in islice(reader, count):
            yield record
    except UnicodeDecodeError:
        raise
    except ValueError:
        return  # the reader cannot spell some networks of sound IPv6 trees without an IPv4 part


def _spread(ip_version: int) -> Iterator[Address]:
    for number in range(4096):
        yield IPv4Address(number << 20 | 1)
    if ip_version == 6:
        for number in range(1024):
            yield IPv6Address((0x2000 << 112) + (number << 115) + 1)


def unwrapped(address: Address) -> Address:
    """The IPv4 address inside a mapped, 6to4 (RFC 3056) or NAT64 one, else `address`."""
    if isinstance(address, IPv4Address):
        return address
    number = int(address)
    if number >> 32 == _NAT64:
        return IPv4Address(number & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


class Complaints:
    """A log that says at most one thing a minute, for what a client can cause at will."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._quiet_until_s = float("-inf")

    def say(self, message: str, *details: object) -> None:
        if self._clock() >= self._quiet_until_s:
            self._quiet_until_s = self._clock() + COMPLAINT_INTERVAL_S
            log.warning(message, *details)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A set of databases and the answers they gave so far. Replaced as a whole, never changed."""

    databases: tuple[Database, ...]
    answers: LRUCache[Address, Place]
    complaints: Complaints

    def at(self, address: Address) -> Place:
        """The place of `address`, from every database in turn. Raises nothing."""
        try:
            return self.answers[address]
        except KeyError:
            inner = unwrapped(address)
            place = reduce(merged, (self._ask(each, inner) for each in self.databases))
            self.answers[address] = place
            return place

    def _ask(self, database: Database, address: Address) -> Place:
        if address.version > database.ip_version:
            return NOWHERE
        try:
            return place_in(database.reader.get(address))
        except Exception as error:  # damage that the sample did not meet
            self.complaints.say("a lookup in %s failed: %r", database.path, error)
            return NOWHERE


class Databases:
    """The databases of a policy. `current` is what answers; take it once per exchange."""

    def __init__(
        self,
        paths: Iterable[Path],
        cache_size: int = 65536,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache_size = cache_size
        self._complaints = Complaints(clock)
        self.current = self._snapshot([Database.open(path) for path in paths])
        for database in self.current.databases:
            if not database.names_places:
                log.warning("%s seems to hold no countries and no AS numbers", database.path)
        self._refused: dict[Path, Version | None] = {}  # None: the file was gone
        self._seen: dict[Path, Version | None] = {}  # by the last look

    def _snapshot(self, databases: Iterable[Database]) -> Snapshot:
        return Snapshot(tuple(databases), LRUCache(self._cache_size), self._complaints)

    async def watch(self, tick: Callable[[], Awaitable[object]]) -> None:
        """Look after every `tick`, until cancelled."""
        while True:
            await tick()
            try:
                await self.look()
            except Exception:
                log.exception("looking for new databases failed; those in force stay")

    async def look(self) -> bool:
        """Put replaced files in force; True if there were any. What cannot be used stays out."""
        old = self.current.databases
        new = [await asyncio.to_thread(self._renewed, database) for database in old]
        if all(one is other for one, other in zip(old, new, strict=True)):
            return False
        self.current = self._snapshot(new)
        return True

    def _renewed(self, old: Database) -> Database:
        """The database that is now at `old.path`; `old` if that is no other or no good.

        A file moved into place is complete. One that is written in place may be half old and half
        new, so it is read once two looks have found it the same.
        """
        path, version = old.path, _version(old.path)
        seen, self._seen[path] = self._seen.get(path, old.version), version
        if version in (old.version, self._refused.get(path, old.version)):
            return old
        if version and seen and version != seen and version.inode == seen.inode:
            return old
        try:
            new = Database.open(path)
            if old.names_places and not new.names_places:
                raise ValueError(f"{str(path)!r} holds no countries and no AS numbers any more")
        except ValueError as error:
            self._refused[path] = version
            log.warning("%s; what was read before stays in force", error)
            return old
        log.info("took over a new %s of %d bytes", path, new.version.size)
        return new


def _version(path: Path) -> Version | None:
    try:
        return Version.of(path)
    except OSError:
        return None
