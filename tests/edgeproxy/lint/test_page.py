"""docs/lint.md against the code: the same findings, and examples that give what they show."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from edgeproxy.lint import RULES, lint
from edgeproxy.lint.allow import CODES
from edgeproxy.plan import compile_plan
from edgeproxy.policy.installed import Broken, Registry, installed
from edgeproxy.policy.load import compose
from tests.docs.blocks import DOCS, first_code, table

PAGE = DOCS / "lint.md"


class Section(NamedTuple):
    code: str
    policy: str
    output: str


def sections() -> list[Section]:
    found = []
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        code, _, body = part.partition("\n")
        if re.fullmatch(r"[a-z]+(-[a-z]+)+", code):
            blocks = dict(re.findall(r"^```(\w+)[^\n]*\n(.*?)^```$", body, re.M | re.S))
            found.append(Section(code, blocks["yaml"], blocks["text"]))
    return found


def kinds() -> dict[str, tuple[str, bool]]:
    """Every code of the core and first-party plugins: its severity, and whether it is certain."""
    found = {rule.code: (str(rule.severity), rule.certain) for rule in RULES}
    for entry in installed().values():
        plugin = entry.load()
        assert not isinstance(plugin, Broken)
        found |= dict.fromkeys(plugin.remarks, ("warning", True))
    return found | dict.fromkeys(CODES, ("warning", True))


def test_page_has_each_finding_once_and_in_order() -> None:
    assert [section.code for section in sections()] == sorted(kinds())


def test_table_has_severities_and_how_sure_they_are() -> None:
    rows = table("lint.md", "## All findings")
    said = {first_code(row[0]): (row[1], row[2] == "proved") for row in rows}
    assert said == kinds()


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.code)
def test_example_gives_what_the_page_shows(section: Section, registry: Registry) -> None:
    policy = compose([("policy.yaml", section.policy)], registry)
    compile_plan(policy)
    findings = lint(policy).findings
    assert "".join(f"{finding}\n" for finding in findings) == section.output
    assert {finding.code for finding in findings} == {section.code}
