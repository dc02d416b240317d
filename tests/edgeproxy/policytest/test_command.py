"""`edgeproxy test` as it is typed: what it prints, and its exit status."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
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
    passed, covered = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"2 tests passed in \d+\.\d\d s", passed)
    assert covered == "coverage 100 %: 2 of 2 routes, 1 of 1 outcomes of clauses, 1 of 1 filters"


def test_one_fails(capsys: Captured) -> None:
    Path("site_test.yaml").write_text(TESTS.replace("/new/a", "/a"))
    assert cli.main(["test", "."]) == 1
    first, last, _ = capsys.readouterr().out.splitlines()
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


def test_what_is_not_covered_is_listed_and_can_fail_the_run(capsys: Captured) -> None:
    arguments = ["test", "site.yaml", "-k", "others"]
    assert cli.main([*arguments, "--fail-under", "25"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "coverage 25 %: 1 of 2 routes, 0 of 1 outcomes of clauses, 0 of 1 filters",
        "site.yaml:4:12: route 'moved' is never taken",
    ]
    assert cli.main([*arguments, "--fail-under", "26", "--no-coverage"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert err == "edgeproxy test: coverage 25.0 % is under 26 %\n"
    with pytest.raises(SystemExit, match="2"):
        cli.main([*arguments, "--fail-under", "101"])


def test_a_long_list_of_gaps_is_cut(capsys: Captured) -> None:
    routes = "".join(f"  - {{name: r{n}, match: {{path: /{n}}}}}\n" for n in range(22))
    Path("site.yaml").write_text(POLICY.replace("routes:\n", f"routes:\n{routes}"))
    assert cli.main(["test", "site.yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "... and 2 more; --json lists all"


def test_json_holds_the_whole_report(capsys: Captured) -> None:
    Path("site_test.yaml").write_text(TESTS.replace("/new/a", "/a"))
    assert cli.main(["test", "site.yaml", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["passed"], report["failed"], len(report["policy"])) == (1, 1, 12)
    first, second = report["tests"]
    assert (first["name"], first["place"], first["passed"]) == (
        "old pages have moved", "site_test.yaml:3:5", False
    )  # fmt: skip
    assert first["failures"] == [
        {
            "place": "site_test.yaml:3:66", "what": "redirect", "expected": "'/a'",
            "came": "'/new/a'", "request": "", "route": "moved", "decided": "site.yaml:4:12",
            "error": "",
        }
    ]  # fmt: skip
    assert second["passed"]
    assert report["coverage"]["percent"] == 100
    assert report["coverage"]["counts"]["routes"] == [2, 2]


def test_junit_xml_counts_and_quotes(capsys: Captured) -> None:
    awkward = '  - {name: "a < b & c", get: /a, origin: {body: "\\0]]>"}, expect: {body: x}}\n'
    Path("site_test.yaml").write_text(TESTS + awkward)
    Path("more_test.yaml").write_text(TESTS.replace("/new/a", "/a"))
    assert cli.main(["test", ".", "--junit", "report.xml"]) == 1
    root = ElementTree.parse("report.xml").getroot()
    assert root.tag == "testsuites"
    assert (root.get("tests"), root.get("failures")) == ("5", "2")
    suites = root.findall("testsuite")
    assert [suite.get("name") for suite in suites] == ["more_test.yaml", "site_test.yaml"]
    for suite in (root, *suites):
        cases, failed = suite.findall(".//testcase"), suite.findall(".//failure")
        assert (suite.get("tests"), suite.get("failures")) == (str(len(cases)), str(len(failed)))
        assert suite.get("name")
        assert float(suite.get("time", "")) >= 0
    for suite in suites:
        assert (suite.get("errors"), suite.get("skipped")) == ("0", "0")
    for case in root.iter("testcase"):
        assert {"name", "classname", "time", "file", "line"} <= set(case.attrib)
    (failure,) = suites[1].iter("failure")
    assert (
        failure.get("message") == "body is '\\x00]]>', expected 'x'; route 'site', site.yaml:5:12"
    )
    assert (failure.text or "").startswith("site_test.yaml:5:74: a < b & c: body is ")


def test_slips_that_no_test_notices_are_listed_and_can_fail_the_run(capsys: Captured) -> None:
    assert cli.main(["test", "site.yaml", "--mutate", "--fail-under", "50"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "mutation score 80 %: 4 of 5 noticed",
        "site.yaml:5:12: no test notices that route 'site' is taken out",
    ]


def test_json_holds_the_mutation_score(capsys: Captured) -> None:
    assert cli.main(["test", "site.yaml", "--mutate", "--json", "--fail-under", "90"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["mutation"] == {
        "percent": 80,
        "mutants": 5,
        "left_out": 0,
        "survivors": [{"place": "site.yaml:5:12", "words": "route 'site' is taken out"}],
    }
    assert "mutation score 80.0 % is under 90 %" in err


def test_without_tests_that_pass_no_mutants_are_tried(capsys: Captured) -> None:
    Path("site_test.yaml").write_text(TESTS.replace("/new/a", "/a"))
    assert cli.main(["test", "site.yaml", "--mutate"]) == 1
    assert capsys.readouterr().err == (
        "edgeproxy test: no mutants were tried, as a test fails without them\n"
    )


def test_a_failure_can_be_explained(capsys: Captured) -> None:
    Path("site_test.yaml").write_text(TESTS.replace("/new/a", "/a"))
    assert cli.main(["test", "site.yaml", "--explain", "--no-coverage"]) == 1
    first, *explained, last = capsys.readouterr().out.splitlines()
    assert "redirect is '/new/a', expected '/a'" in first
    assert explained[0].startswith("    GET https://www.example.org/old/a from 127.0.0.1 at ")
    assert any(line.split()[:2] == ["yes", "moved"] for line in explained)
    assert last.startswith("1 of 2 tests failed")


def test_a_report_that_cannot_be_written_is_said(capsys: Captured) -> None:
    assert cli.main(["test", "site.yaml", "--junit", "none/report.xml"]) == 2
    assert capsys.readouterr().err == (
        "edgeproxy test: none/report.xml: No such file or directory\n"
    )


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
