"""Each file of tests in tests/cases/policy-tests against the faults that it has.

`NAME.err` holds what is wrong with `NAME_test.yaml`. After adding one, or changing a message, write
them again and read the difference:

    REGENERATE=1 make test ARGS=tests/edgeproxy/policytest/test_cases.py
"""

import os
from pathlib import Path

import pytest

from edgeproxy.errors import PolicyError
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.load import load
from edgeproxy.policytest.cases import find_files, read_cases

CASES = Path(__file__).resolve().parents[2] / "cases" / "policy-tests"
NAMES = sorted(path.stem.removesuffix("_test") for path in CASES.glob("*_test.yaml"))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_plan(load([CASES / "policy.yaml"]))


@pytest.mark.parametrize("name", NAMES)
def test_file_has_the_faults_that_its_case_says(
    name: str, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CASES)
    with pytest.raises(PolicyError) as caught:
        read_cases([Path(f"{name}_test.yaml")], plan)
    expected = CASES / f"{name}.err"
    if os.environ.get("REGENERATE"):
        expected.write_text(f"{caught.value}\n", encoding="utf-8")
    assert f"{caught.value}\n" == expected.read_text(encoding="utf-8")


def test_every_expectation_belongs_to_a_case() -> None:
    assert {path.stem for path in CASES.glob("*.err")} == set(NAMES)


# ------------------------------------------------------------------- which files


def test_beside_a_file_are_the_tests_of_its_name_and_in_a_folder_all(tmp_path: Path) -> None:
    for name in ("a.yaml", "a_test.yaml", "b.yml", "b_test.yml", "c.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "d_test.yaml").touch()

    def names(*policies: str, tests: tuple[str, ...] = ()) -> list[str]:
        found = find_files([tmp_path / p for p in policies], [tmp_path / t for t in tests])
        return [file.name for file in found]

    assert names("a.yaml") == ["a_test.yaml"]
    assert names("a.yaml", "b.yml", "a.yaml") == ["a_test.yaml", "b_test.yml"]
    assert names("c.yaml") == []
    assert names(".") == ["a_test.yaml", "b_test.yml"]
    assert names("a.yaml", tests=("below", "b_test.yml")) == ["d_test.yaml", "b_test.yml"]


def test_a_test_file_that_cannot_be_read_is_a_fault(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none_test.yaml: No such file .* \[unreadable\]"):
        read_cases([tmp_path / "none_test.yaml"], plan)
