"""`edgeproxy cert`: the command line."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeproxy.devcert.authority import BadName, DevAuthority
from edgeproxy.devcert.trust import Step, browser_steps, system_steps

DEFAULT_NAMES = ("localhost", "127.0.0.1", "::1")


def add_command(commands: Any) -> None:
    """`cert`, to a set of sub-parsers."""
    cert = commands.add_parser("cert", help="make certificates for development, and trust them")
    cert.set_defaults(command=main)
    add = cert.add_argument
    add("action", choices=("dev", "trust"), help="make a certificate, or trust the authority")
    add("names", nargs="*", metavar="NAME", help="names of it; default: localhost")
    add("--folder", type=Path, metavar="DIR", help="where the authority is kept")
    add("--system", action="store_true", help="trust: for the whole machine, as root")
    add("--undo", action="store_true", help="trust: no more")


def main(options: argparse.Namespace) -> int:
    """0: done; 1: it failed; 2: wrong use."""
    authority = DevAuthority((options.folder or default_folder()).absolute())
    try:
        if options.action == "dev":
            return _make(authority, tuple(options.names) or DEFAULT_NAMES)
        return _trust(authority, system=options.system, undo=options.undo)
    except BadName as error:
        print(f"edgeproxy cert: {error}", file=sys.stderr)
        return 2
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"edgeproxy cert: {error}", file=sys.stderr)
        return 1


def default_folder() -> Path:
    """In this user's folder for the state of programs."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "edgeproxy" / "dev"


def _make(authority: DevAuthority, names: Sequence[str]) -> int:
    is_new = not authority.exists
    pair = authority.sign(names)
    print("tls:\n  certificates:")
    print(f"    - {{certificate: {pair.certificate}, key: {pair.key}}}")
    if is_new:
        print(
            "# Browsers and tools do not trust it yet: edgeproxy cert trust\n"
            f"# For one call: curl --cacert {authority.certificate} https://{names[0]}/"
        )
    return 0


def _trust(authority: DevAuthority, *, system: bool, undo: bool) -> int:
    if not authority.exists and not undo:
        print("edgeproxy cert: there is no authority yet; run: edgeproxy cert dev", file=sys.stderr)
        return 2
    for_all = system_steps(authority.certificate, undo=undo)
    if system:
        return _for_all(for_all, authority)
    if shutil.which("certutil"):
        for step in browser_steps(authority.certificate, Path.home(), undo=undo):
            _run(step)
        print(f"Chromium and Chrome of this user trust it{' no more' if undo else ''}")
    else:
        print("for Chromium and Chrome, install certutil (libnss3-tools, nss-tools) and run again")
    if for_all:
        print("for every program on this machine, as root:")
        print("  sudo sh -c " + shlex.quote(" && ".join(map(str, for_all))))
    else:
        print(f"for other programs, let them trust {authority.certificate}")
    return 0


def _for_all(steps: Sequence[Step], authority: DevAuthority) -> int:
    if not steps:
        print(
            "edgeproxy cert: where this system keeps its authorities is not known; "
            f"give it {authority.certificate}",
            file=sys.stderr,
        )
        return 1
    if os.geteuid() != 0:
        print("edgeproxy cert: --system needs root; or leave it out to see how", file=sys.stderr)
        return 2
    for step in steps:
        print(f"+ {step}", flush=True)
        _run(step)
    return 0


def _run(step: Step) -> None:
    subprocess.run(step.words, check=not step.may_fail, capture_output=step.may_fail)
