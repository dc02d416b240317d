"""`edgeproxy check`: what it prints where, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeproxy.cli import main

CLEAN = """\
version: 1
origins: {pages: {url: "https://you.github.io/"}}
routes:
  - {name: docs, match: {path: /docs/**}, rewrite: {prefix: /m}}
  - {name: site}
"""
WARNING = CLEAN.replace("/docs/**", "/docs//**")
ERROR = CLEAN.replace("{name: site}", "{name: site}\n  - {name: late, match: {path: /late}}")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(text: str, *options: str) -> int:
    Path("site.yaml").write_text(text)
    return main(["check", "site.yaml", *options])


@pytest.mark.parametrize(
    ("text", "status", "strict"), [(CLEAN, 0, 0), (WARNING, 0, 2), (ERROR, 2, 2)]
)
def test_exit_status(text: str, status: int, strict: int) -> None:
    assert check(text) == status
    assert check(text, "--strict") == strict
    assert check(text, "--json") == status


def test_the_verdict_and_the_findings_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    check(WARNING)
    out, err = capsys.readouterr()
    assert " is good: 2 routes; plugins: rewrite, memory_cache\n" in out
    assert err.startswith("site.yaml:4:32: warning: ")
    assert err.endswith("\n1 warning\n")
    check(ERROR)
    out, err = capsys.readouterr()
    assert " loads, but has errors: 3 routes; " in out
    assert "[unreachable-route]" in err
    assert err.endswith("\n1 error\n")
    check(CLEAN)
    assert capsys.readouterr().err == ""


def test_the_long_form_is_all_of_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    check(WARNING, "--expand")
    out, err = capsys.readouterr()
    assert out.startswith("version: 1\n")
    assert "[respelled-path]" in err
    assert "[respelled-path]" not in out


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    check(ERROR.replace("/late", "{regex: '/late(/.*)?'}"), "--json")
    said = json.loads(capsys.readouterr().out)
    assert (said["routes"], said["faults"], said["online"]) == (3, [], [])
    (finding,) = said["findings"]
    assert (finding["code"], finding["severity"]) == ("unreachable-route", "error")
    assert (finding["certain"], finding["line"], finding["column"]) == (True, 6, 12)


def test_what_cannot_be_told_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    check(CLEAN.replace("/docs/**", "{regex: '/docs(/.*)?'}") .replace(
        "  - {name: site}", "  - {name: more, match: {path: /docs/**}}\n  - {name: site}"),
        "--json")  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    assert said["findings"] == []
    (question,) = said["undecided"]
    assert "whether route 'docs' (site.yaml:4) takes all of '/docs/**'" in question


def test_faults_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(CLEAN.replace("prefix", "prefx"), "--json") == 2
    said = json.loads(capsys.readouterr().out)
    (fault,) = said["faults"]
    assert (fault["code"], fault["line"]) == ("unknown-key", 4)


def test_every_example_policy_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(__file__).parents[2] / "policies"
    for policy in sorted(folder.glob("*.yaml")):
        if not policy.stem.endswith("_test"):
            assert main(["check", "--strict", str(policy)]) == 0, capsys.readouterr().err
