"""The commands that have this machine trust an authority, or trust it no more."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NICKNAME = "edgeproxy development"  # in NSS

_ANCHORS = (  # where a system looks for authorities, and what has it look
    (Path("/usr/local/share/ca-certificates/edgeproxy-dev.crt"), ("update-ca-certificates",)),
    (Path("/etc/pki/ca-trust/source/anchors/edgeproxy-dev.crt"), ("update-ca-trust",)),
    (Path("/etc/ca-certificates/trust-source/anchors/edgeproxy-dev.crt"), ("update-ca-trust",)),
)


@dataclass(frozen=True, slots=True)
class Step:
    """A command. `may_fail` if it is only to make sure of something."""

    words: tuple[str, ...]
    may_fail: bool = False

    def __str__(self) -> str:
        return shlex.join(self.words)


def system_steps(authority: Path, *, undo: bool = False) -> Sequence[Step]:
    """For the whole machine: curl, Python, Go and so on. Empty where the way is not known."""
    for place, refresh in _ANCHORS:
        if place.parent.is_dir():
            if undo:
                return (Step(("rm", "-f", str(place))), Step(refresh))
            copy = ("install", "-m", "644", str(authority), str(place))
            return (Step(copy), Step(refresh))
    return ()


def browser_steps(authority: Path, home: Path, *, undo: bool = False) -> Sequence[Step]:
    """For Chromium and Chrome of one user, with the `certutil` of NSS."""
    store = home / ".pki" / "nssdb"
    certutil = ("certutil", "-d", f"sql:{store}")
    delete = Step((*certutil, "-D", "-n", NICKNAME), may_fail=True)
    if undo:
        return (delete,)
    steps = [] if store.is_dir() else [
        Step(("mkdir", "-p", "-m", "700", str(store))),
        Step((*certutil, "-N", "--empty-password")),
    ]  # fmt: skip
    add = Step((*certutil, "-A", "-t", "C,,", "-n", NICKNAME, "-i", str(authority)))
    return (*steps, delete, add)
