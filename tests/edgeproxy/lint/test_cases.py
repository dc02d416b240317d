"""Each policy in tests/cases/lint against what the linter finds in it.

`NAME.yaml` is the policy, `NAME.txt` what `edgeproxy check` prints below its verdict; it is empty
for a policy that is clean. A name begins with the code that it is about, or with `clean`. After
adding a case, or changing a message, write them again and read the difference:

    REGENERATE=1 make test ARGS=tests/edgeproxy/lint/test_cases.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeproxy.lint import RULES, codes, lint
from edgeproxy.lint.allow import CODES
from edgeproxy.plan import compile_plan
from edgeproxy.policy.installed import Registry
from edgeproxy.policy.load import load

CASES = Path(__file__).resolve().parents[2] / "cases" / "lint"
NAMES = sorted(path.stem for path in CASES.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_policy_gives_what_its_case_says(
    name: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CASES)
    policy = load([f"{name}.yaml"], registry)
    compile_plan(policy)
    report = lint(policy)
    found = "".join(f"{finding}\n" for finding in report.findings)
    found += "".join(f"undecided: {question}\n" for question in report.undecided)
    expected = CASES / f"{name}.txt"
    if os.environ.get("REGENERATE"):
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")
    assert {finding.code for finding in report.findings} <= codes(policy)


def test_a_case_that_is_clean_has_no_findings_and_no_other_has_none() -> None:
    for name in NAMES:
        is_empty = not (CASES / f"{name}.txt").read_text(encoding="utf-8")
        assert is_empty is name.startswith(("clean", "allow-end", "allow-line")), name


def test_every_kind_of_finding_has_a_case_named_for_it() -> None:
    kinds = [*(rule.code for rule in RULES), *CODES, "unused-experiment", "variant-without-weight"]
    shown = {name: (CASES / f"{name}.txt").read_text(encoding="utf-8") for name in NAMES}
    for code in kinds:
        assert any(f"[{code}]" in text for text in shown.values()), code
        if code not in CODES:
            assert any(n.startswith(code) and f"[{code}]" in t for n, t in shown.items()), code


def test_the_set_is_large_enough_to_show_something() -> None:
    assert len(NAMES) >= 60


def test_expectations_and_policies_come_in_pairs() -> None:
    assert {path.stem for path in CASES.glob("*.txt")} == set(NAMES)
