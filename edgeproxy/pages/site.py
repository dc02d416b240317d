"""Which file a path means, and the files themselves. Pure but for reading the folder."""

import gzip
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from urllib.parse import unquote_to_bytes

from .content_types import ContentType, content_type_of

MIN_COMPRESSED_BYTES = 20  # shorter bodies are never compressed
REPLICA_SKEW_S = 2  # how much later the second replica received a deploy

BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

type Signature = tuple[int, int, int, int]


@lru_cache(maxsize=4096)
def normalised(raw_path: str) -> str | None:
    """`raw_path` decoded once, slashes folded, dots resolved; None where the web server says 400.

    Bytes that are not UTF-8 come back as surrogate escapes, as file names do.

    >>> normalised("/a//b/../c%20d/")
    '/a/c d/'
    """
    if not raw_path.startswith("/") or BAD_ESCAPE.search(raw_path):
        return None
    text = unquote_to_bytes(raw_path.encode("latin-1", "replace")).decode(
        "utf-8", "surrogateescape"
    )
    if "\0" in text:
        return None
    segments: list[str] = []
    for segment in text.split("/"):
        if segment == "..":
            if not segments:
                return None
            segments.pop()
        elif segment not in ("", "."):
            segments.append(segment)
    ends_in_folder = text.rpartition("/")[2] in ("", ".", "..")
    return "/" + "/".join(segments) + ("/" if segments and ends_in_folder else "")


def is_hidden(relative: str) -> bool:
    """Whether a dot file or folder is on the way; `.well-known` at the top is the exception."""
    segments = relative.removeprefix(".well-known/").split("/")
    return any(segment.startswith(".") for segment in segments)


@dataclass(frozen=True)
class File:
    """A file of the site as it was when it was read."""

    body: bytes
    content_type: ContentType
    modified_at: int  # seconds; when it was deployed, not when it was written

    @property
    def is_compressible(self) -> bool:
        return self.content_type.compressible and len(self.body) >= MIN_COMPRESSED_BYTES

    @cached_property
    def compressed(self) -> bytes:
        return gzip.compress(self.body, compresslevel=6, mtime=0)

    def modified_on(self, replica: int) -> int:
        return self.modified_at + REPLICA_SKEW_S * replica

    def etag_on(self, replica: int) -> str:
        """The strong ETag: deploy time and uncompressed size, as the web server writes it."""
        return f'"{self.modified_on(replica):x}-{len(self.body):x}"'


class Folder:
    """`/dir` where `dir/index.html` is what the visitor means."""


FOLDER = Folder()


@dataclass
class Site:
    """A published folder. Files are read once and again when they change on disk.

    Every file's time is that of the deploy. A file edited later counts as deployed on its own,
    at the moment its change is noticed, so that a preview never shows a stale ETag.
    """

    root: Path
    now: Callable[[], float]
    replicas: int = 1
    published_at: int = 0
    _latest: int = 0  # the newest time given to any file
    _files: dict[str, tuple[Signature, File]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.publish(self.root)

    def publish(self, root: Path | None = None) -> None:
        """Deploy the folder, or another one: every file gets a new time, so also a new ETag."""
        if root is not None:
            self.root = Path(root)
        if not self.root.is_dir():
            raise NotADirectoryError(f"{self.root} is not a folder")
        self._root = os.path.realpath(self.root)
        self._files.clear()
        self.published_at = self._latest = self._next_time()

    def resolve(self, relative: str) -> File | Folder | None:
        """What `relative` (normalised, without the base and its slash) means; None: nothing.

        `page` beats `page.html` beats `page/index.html`; only the last needs a slash added.
        """
        if is_hidden(relative):
            return None
        if not relative or relative.endswith("/"):
            return self.file(relative + "index.html")
        if file := self.file(relative) or self.file(relative + ".html"):
            return file
        return FOLDER if self.file(relative + "/index.html") else None

    def file(self, relative: str) -> File | None:
        """The regular file at `relative` below the root, spelled exactly so; None without one."""
        location = f"{self._root}/{relative}"
        try:
            status = os.stat(location)
            if not stat.S_ISREG(status.st_mode):
                return None
            signature = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            known = self._files.get(relative)
            if known and known[0] == signature:
                return known[1]
            if not self._is_inside(location) or not is_spelled_exactly(self._root, relative):
                return None
            with open(location, "rb") as stream:
                body = stream.read()
        except (OSError, ValueError):  # missing, unreadable, or a name no file can have
            return None
        if known:
            self._latest = self._next_time()
        file = File(body, content_type_of(relative), self._latest if known else self.published_at)
        self._files[relative] = (signature, file)
        return file

    def _is_inside(self, location: str) -> bool:
        """Whether `location`, with links followed, is still in the folder."""
        return os.path.realpath(location).startswith(self._root.rstrip(os.sep) + os.sep)

    def _next_time(self) -> int:
        """Now, but on no replica a second that any replica has used before."""
        return max(int(self.now()), self._latest + REPLICA_SKEW_S * (self.replicas - 1) + 1)


def is_spelled_exactly(root: str, relative: str) -> bool:
    """Whether every part of `relative` has the case it has on disk.

    Pages is case-sensitive while macOS and Windows are not: a preview must not hide that fault.
    """
    folder = root
    for segment in relative.split("/"):
        if segment not in os.listdir(folder):
            return False
        folder = os.path.join(folder, segment)
    return True
