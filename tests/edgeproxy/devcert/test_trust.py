"""How a machine is told to trust an authority: the commands, and what they do."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from edgeproxy.devcert.authority import DevAuthority
from edgeproxy.devcert.trust import NICKNAME, Step, browser_steps, system_steps


def test_a_system_is_told_as_its_distribution_has_it() -> None:
    authority = Path("/home/ada/authority.pem")
    for undo in (False, True):
        steps = system_steps(authority, undo=undo)
        if not Path("/usr/local/share/ca-certificates").is_dir():
            pytest.skip("this system keeps its authorities elsewhere")
        copy, refresh = map(str, steps)
        assert copy.startswith("rm -f /" if undo else f"install -m 644 {authority} /")
        assert copy.endswith(".crt")
        assert refresh == "update-ca-certificates"


def test_what_stands_in_a_path_is_no_part_of_a_command() -> None:
    step = Step(("certutil", "-i", "/home/ada; rm -rf /authority.pem"))
    assert str(step) == "certutil -i '/home/ada; rm -rf /authority.pem'"


@pytest.mark.skipif(shutil.which("certutil") is None, reason="needs certutil of NSS")
def test_the_store_of_a_browser_has_it_once_and_then_no_more(tmp_path: Path) -> None:
    authority = DevAuthority(tmp_path / "dev")
    authority.sign(["localhost"])

    def run(steps: Iterable[Step]) -> None:
        for step in steps:
            subprocess.run(step.words, check=not step.may_fail, capture_output=True)

    def listed() -> int:
        store = f"sql:{tmp_path}/.pki/nssdb"
        done = subprocess.run(["certutil", "-d", store, "-L"], capture_output=True, check=True)
        return done.stdout.count(NICKNAME.encode())

    for _ in range(2):
        run(browser_steps(authority.certificate, tmp_path))
        assert listed() == 1
    for _ in range(2):
        run(browser_steps(authority.certificate, tmp_path, undo=True))
        assert listed() == 0
