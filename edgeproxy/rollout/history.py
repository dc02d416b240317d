"""The policies that were in force, each as the texts it was made of, so that any can come back."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from edgeproxy.policy.files import Source

log = logging.getLogger("edgeproxy")

KEPT = 10  # versions, unless the policy says otherwise

Event = Literal["start", "reload", "rollback", "promote"]
Text = tuple[str, str]  # the name of a file, and what is in it


@dataclass(frozen=True, slots=True)
class Version:
    """A policy that came into force. `number` counts these events; `version` is the policy's own,
    and comes again when the policy does."""

    number: int
    version: str
    at_s: float
    event: Event
    by: str
    why: str
    sources: tuple[Text, ...]
    format: Literal[1] = 1  # of the file that holds it


_AS_JSON = TypeAdapter(Version)


class History:
    """The last so many versions, oldest first; the last one is in force.

    `folder` holds them across restarts, a file for each; None keeps them in memory alone.
    """

    def __init__(self) -> None:
        self.kept = KEPT
        self.folder: Path | None = None
        self.versions: list[Version] = []

    def read(self) -> None:
        """Know what the folder holds. What cannot be read is set aside, and logged."""
        if self.folder is not None and self.folder.is_dir():
            self.versions = sorted(_readable(self.folder), key=lambda one: one.number)
            self._trim()

    def add(
        self, version: str, sources: Iterable[Source], event: Event, by: str, why: str = ""
    ) -> None:
        """Note that a policy is in force now. The one that was anyhow is no event, but its texts
        are those of now: comments may have changed."""
        texts = tuple((name, _text(content)) for name, content in sources)
        last = self.versions[-1] if self.versions else None
        if last is not None and last.version == version:
            self.versions[-1] = replace(last, sources=texts)
            return
        number = last.number + 1 if last is not None else 1
        self.versions.append(Version(number, version, time.time(), event, by, why, texts))
        self._trim()

    def _trim(self) -> None:
        del self.versions[: -self.kept]

    def find(self, name: str) -> Version | None:
        """The version of this number, or the last with this hash."""
        named = (one for one in reversed(self.versions) if name in (one.version, str(one.number)))
        return next(named, None)

    def previous(self) -> Version | None:
        """The last that is another policy than the one in force."""
        now = self.versions[-1].version if self.versions else None
        return next((one for one in reversed(self.versions) if one.version != now), None)

    def save(self) -> None:
        """Have the folder hold what is known. May be called from any thread; waits for the disk."""
        if self.folder is None:
            return
        versions = tuple(self.versions)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for one in versions:
                _write(_file(self.folder, one), _AS_JSON.dump_json(one))
            _remove_others(self.folder, versions)
        except OSError as error:
            log.error("the history of policies cannot be kept in %s: %s", self.folder, error)


def _text(content: bytes | str) -> str:
    """What the file holds; it has been read as UTF-8 before."""
    return content if isinstance(content, str) else content.decode()


def _file(folder: Path, one: Version) -> Path:
    return folder / f"{one.number:08}-{one.version}.json"


def _readable(folder: Path) -> Iterable[Version]:
    for file in sorted(folder.glob("*.json")):
        try:
            one = _AS_JSON.validate_json(file.read_bytes())
        except (OSError, ValueError) as error:
            log.warning("%s is not a kept policy, and set aside: %s", file, error)
            with contextlib.suppress(OSError):
                file.replace(file.with_suffix(".set-aside"))
            continue
        yield one


def _write(file: Path, data: bytes) -> None:
    """Put `data` there whole or not at all."""
    if file.exists() and file.read_bytes() == data:
        return
    descriptor, draft = tempfile.mkstemp(dir=file.parent, prefix=".draft-")  # for this user alone
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _remove_others(folder: Path, kept: Sequence[Version]) -> None:
    names = {_file(folder, one).name for one in kept}
    for file in folder.glob("*.json"):
        if file.name not in names:
            file.unlink(missing_ok=True)
