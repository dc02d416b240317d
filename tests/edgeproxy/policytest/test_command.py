"""`edgeproxy test` as it is typed: what it prints, and its exit status."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeproxy import cli
from edgeproxy.testing import assert_policy_tests_pass

POLICY = """\
version: 1
origins: {pages: {url: "https://acme.github.io/docs/"}}
routes:
  - {name: moved, match: {path: /old/**}, redirect: /new/**}
  - {name: site}
"""
TESTS = """\
version: 1
tests:
  - {name: old pages have moved, get: /old/a, expect: {redirect: /new/a}}
  - {name: others have not, get: /a, expect: {redirect: false}}
"""

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("site.yaml").write_text(POLICY)
    Path("site_test.yaml").write_text(TESTS)


def test_all_pass(capsys: Captured) -> None:
    assert cli.main(["test", "site.yaml"]) == 0
    assert re.fullmatch(r"2 tests passed in \d+\.\d\d s\n", capsys.readouterr().out)


def test_one_fails(capsys: Captured) -> None:
    Path("site_test.yaml").write_text(TESTS.replace("/new/a", "/a"))
    assert cli.main(["test", "."]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first == (
        "site_test.yaml:3:66: old pages have moved: redirect is '/new/a', expected '/a'; "
        "route 'moved', site.yaml:4:12"
    )
    assert last.startswith("1 of 2 tests failed in ")


@pytest.mark.parametrize("part", ["moved", "OLD pages"])
def test_only_those_that_are_named_run(part: str, capsys: Captured) -> None:
    assert cli.main(["test", "site.yaml", "-k", part]) == 0
    assert capsys.readouterr().out.startswith("1 test passed")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["site.yaml", "-k", "nothing"], "edgeproxy test: no test has 'nothing' in its name\n"),
        (["other.yaml"], "edgeproxy test: there are no tests; write them into NAME_test.yaml "),
        (["none.yaml"], "cannot read none.yaml: No such file or directory [unreadable]"),
        (["site.yaml", "--tests", "bad_test.yaml"], "bad_test.yaml:3:23: unknown key 'exspect' in"),
    ],
)
def test_without_tests_that_can_be_run_the_status_is_2(
    arguments: list[str], says: str, capsys: Captured
) -> None:
    Path("other.yaml").write_text(POLICY)
    Path("bad_test.yaml").write_text("version: 1\ntests:\n  - {name: a, get: /, exspect: {}}\n")
    assert cli.main(["test", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(says)


def test_check_reads_the_tests_but_runs_none(capsys: Captured) -> None:
    Path("site_test.yaml").write_text(TESTS.replace("/new/a", "/a"))
    assert cli.main(["check", "site.yaml"]) == 0
    assert " is good: 2 routes, 2 tests; plugins: " in capsys.readouterr().out
    Path("site_test.yaml").write_text(TESTS.replace("redirect", "redirct"))
    assert cli.main(["check", "site.yaml"]) == 2
    assert "unknown key 'redirct'" in capsys.readouterr().err


def test_tests_of_policies_can_be_run_from_pytest() -> None:
    site = Path("site.yaml")
    assert_policy_tests_pass(site)
    Path("more_test.yaml").write_text(TESTS.replace("/new/a", "/a"))
    with pytest.raises(AssertionError, match="redirect is '/new/a', expected '/a'"):
        assert_policy_tests_pass(site, tests=[Path("more_test.yaml")])
    Path("site_test.yaml").unlink()
    with pytest.raises(AssertionError, match="there are no tests"):
        assert_policy_tests_pass(site)
