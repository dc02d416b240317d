"""`make audit` says what it found, and never that nothing is known where nobody could be asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.packaged import ROOT

VULNERABLE = """\
Found 1 known vulnerability in 1 package
Name    Version ID             Fix Versions
------- ------- -------------- ------------
aiohttp 3.9.0   PYSEC-2024-24  3.9.2
"""
OUTCOMES = {
    "clean": ("No known vulnerabilities found\n", 0),
    "vulnerable": (VULNERABLE, 1),
    "left-out": (
        "ERROR:pip_audit._cli:acme: Dependency not found on PyPI and could not be audited: acme\n",
        1,
    ),
    "offline": ("requests.exceptions.ConnectionError: Failed to resolve 'pypi.org'\n", 1),
    "no-tool": ("error: Failed to fetch: `pip-audit`\n", 2),
}


@pytest.fixture
def audit(tmp_path: Path, request: pytest.FixtureRequest) -> CompletedProcess[str]:
    """The script, in a checkout whose `uv` does nothing but answer."""
    output, status = OUTCOMES[request.param]
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "audit", tmp_path / ".ci")
    uv = tmp_path / ".venv" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(f"#!/bin/sh\ncat <<'END'\n{output}END\nexit {status}\n")
    uv.chmod(0o755)
    return subprocess.run([tmp_path / ".ci" / "audit"], capture_output=True, text=True)


@pytest.mark.parametrize("audit", ["clean"], indirect=True)
def test_nothing_known_is_success(audit: CompletedProcess[str]) -> None:
    assert (audit.returncode, audit.stdout) == (0, "No known vulnerabilities found\n")


@pytest.mark.parametrize("audit", ["vulnerable"], indirect=True)
def test_what_is_known_is_shown_with_what_to_do(audit: CompletedProcess[str]) -> None:
    assert audit.returncode == 1
    assert "PYSEC-2024-24" in audit.stdout
    assert "make requirements ARGS='--upgrade-package NAME'" in audit.stdout


@pytest.mark.parametrize("audit", ["left-out", "offline", "no-tool"], indirect=True)
def test_where_nobody_could_be_asked_nothing_was_audited(audit: CompletedProcess[str]) -> None:
    assert audit.returncode == 2
    assert "NOTHING WAS AUDITED" in audit.stderr
