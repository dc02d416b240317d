"""Each policy in tests/cases/policies against what `edgeproxy check` says of it.

`NAME.yaml`, or a folder `NAME`, is the policy; `NAME.err` holds its faults, or `NAME.out` the long
form that `check --expand` prints. After adding a case, or changing a message, write them again and
read the difference:

    REGENERATE=1 make test ARGS=tests/edgeproxy/policy/test_cases.py
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

CASES = Path(__file__).resolve().parents[2] / "cases" / "policies"
NAMES = sorted(path.stem for path in CASES.iterdir() if path.suffix == ".yaml" or path.is_dir())

Check = Callable[[Path], tuple[str, str]]


def policy_of(name: str) -> Path:
    folder = CASES / name
    return folder if folder.is_dir() else CASES / f"{name}.yaml"


@pytest.mark.parametrize("name", NAMES)
def test_policy_gives_what_its_case_says(name: str, check: Check) -> None:
    faults, expanded = check(policy_of(name))
    found = {CASES / f"{name}.err": faults, CASES / f"{name}.out": expanded}
    if os.environ.get("REGENERATE"):
        for path, text in found.items():
            path.unlink(missing_ok=True)
            if text:
                path.write_text(text, encoding="utf-8")
    expected = {path: path.read_text(encoding="utf-8") if path.exists() else "" for path in found}
    assert found == expected


def test_every_expectation_belongs_to_a_case() -> None:
    expectations = {path.stem for path in CASES.iterdir() if path.suffix in (".err", ".out")}
    assert expectations == set(NAMES)


def test_no_expectation_shows_a_secret() -> None:
    for path in CASES.iterdir():
        if path.suffix in (".err", ".out"):
            assert "canary" not in path.read_text(encoding="utf-8"), path.name
