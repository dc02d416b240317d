"""docs/errors.md against the code: the same codes, and examples that give what they show."""

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edgeproxy.errors import PolicyError
from edgeproxy.policy.installed import Registry
from edgeproxy.policy.load import load
from edgeproxy.policytest.suite import Suite

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "errors.md"
CODE = re.compile(r"[a-z]+(-[a-z]+)+|unreadable")


TESTS = "# policy_test.yaml\n"  # how a block begins that is the tests of the policy before it


class Section(NamedTuple):
    code: str
    policy: str | None
    tests: str | None
    output: str


def sections() -> list[Section]:
    found = []
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        code, _, body = part.partition("\n")
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", body, re.M | re.S)
        files = [text for language, text in blocks if language == "yaml"]
        (output,) = (text for language, text in blocks if language == "text")
        policy, tests = (*files, None, None)[:2]
        found.append(Section(code, policy, tests, output))
    return found


def codes_in_the_code() -> set[str]:
    """Every text in the loader that looks like a code: it uses no other such words."""
    found: set[str] = set()
    for file in (ROOT / "edgeproxy" / "policy").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            value: Any = getattr(node, "value", None)
            if isinstance(node, ast.Constant) and isinstance(value, str) and CODE.fullmatch(value):
                found.add(value)
    return found


def test_page_has_each_code_once_and_in_order() -> None:
    named = [section.code for section in sections()]
    assert named == sorted(codes_in_the_code())


def test_every_code_has_a_case() -> None:
    cases = (ROOT / "tests" / "cases").glob("polic*/*.err")
    shown = "".join(case.read_text(encoding="utf-8") for case in cases)
    assert {code for code in codes_in_the_code() if f" [{code}]\n" not in shown} == set()


def read(section: Section, name: str, registry: Registry) -> None:
    if section.tests is None:
        load([name], registry, env={})
        return
    assert section.tests.startswith(TESTS)
    Path("policy_test.yaml").write_text(section.tests, encoding="utf-8")
    Suite.load([Path(name)])


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.code)
def test_example_gives_what_the_page_shows(
    section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "policy.yaml"
    if section.policy is None:
        name = "policy.yml"  # the page names a file that is not there
    else:
        encoding = "latin-1" if section.code == "yaml-encoding" else "utf-8"
        Path(name).write_text(section.policy, encoding=encoding)
    with pytest.raises(PolicyError) as caught:
        read(section, name, registry)
    assert f"{caught.value}\n" == section.output
    assert section.code in {fault.code for fault in caught.value.faults}
