"""How things are, as plain data: all that checks know. Tests write it down, `look` finds it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from edgeproxy.claims import DataFile, Folder
from edgeproxy.http import Headers, Origin
from edgeproxy.policy.policy import Policy


@dataclass(frozen=True, slots=True)
class Port:
    """An address to listen on. `trouble` is what the system said, `taken` that it is in use."""

    address: str
    use: str  # HTTP, HTTPS, HTTP/3 or admin
    trouble: str = ""
    is_taken: bool = False
    is_denied: bool = False
    holder: str = ""  # the program that has it, if that can be seen
    is_ours: bool = False  # that is an edgeproxy


@dataclass(frozen=True, slots=True)
class Asked:
    """An origin that was asked once. Without an answer, `trouble` says why there is none."""

    origin: Origin
    addresses: tuple[str, ...] = ()
    is_here: bool = False  # one of them is this machine's
    status: int | None = None
    headers: Headers = field(default_factory=Headers)
    trouble: str = ""
    took_s: float = 0.0
    at: datetime | None = None  # when it answered
    plain_status: int | None = None  # of Pages, asked without TLS

    @property
    def is_pages(self) -> bool:
        """Whether GitHub Pages gave the answer."""
        return self.headers.get("server") == "GitHub.com" or "x-github-request-id" in self.headers


@dataclass(frozen=True, slots=True)
class FolderSeen:
    """A folder that is to be written to, or the nearest above it that is there."""

    folder: Folder
    exists: bool = True
    is_writable: bool = True
    owner: str = ""  # empty if it is the user who looks
    others_write: bool = False
    free_bytes: int = 0
    used_bytes: int = 0
    is_folder: bool = True


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file that holds a secret."""

    path: str
    others_read: bool = False


@dataclass(frozen=True, slots=True)
class AcmeName:
    """A name whose certificate is asked for by ACME. `addresses` is None if nobody was asked."""

    name: str
    not_after: datetime | None = None  # of the certificate, if there is one already
    addresses: tuple[str, ...] | None = None
    is_here: bool = False  # one of them is this machine's


@dataclass(frozen=True, slots=True)
class Memory:
    """What the machine has, or what a limit on this process leaves of it. 0: not known."""

    total_bytes: int = 0
    free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """A machine, what is installed on it, and the policy that is to be served there."""

    now: datetime
    user: str = ""
    is_root: bool = False
    python: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)  # version by name; empty: missing
    broken_plugins: Mapping[str, str] = field(default_factory=dict)  # reason by name
    descriptors: int = 0  # that this process may have open; 0: not known
    descriptors_at_most: int = 0  # that it may ask for
    memory: Memory = Memory()
    cores: int = 1
    policy: Policy | None = None
    ports: tuple[Port, ...] = ()
    origins: tuple[Asked, ...] = ()
    folders: tuple[FolderSeen, ...] = ()
    data_files: tuple[DataFile, ...] = ()
    key_files: tuple[KeyFile, ...] = ()
    acme_names: tuple[AcmeName, ...] = ()

    @property
    def workers(self) -> int:
        """How many processes the policy asks for."""
        said = self.policy.core.workers if self.policy is not None else 1
        return self.cores if said == "auto" else said
