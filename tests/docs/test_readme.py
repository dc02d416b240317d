"""README and CONTRIBUTING, as they are shown beside the code."""

from __future__ import annotations

import re

import pytest

from tests.docs.blocks import ROOT, blocks

README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"


@pytest.mark.parametrize("page", [README, CONTRIBUTING], ids=lambda path: path.name)
def test_links_lead_to_files(page: object) -> None:
    text = (ROOT / str(page)).read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^(\w+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    for page in (README, CONTRIBUTING):
        used = set(re.findall(r"^make (\w+)|`make (\w+)`", page.read_text(), re.M))
        assert {one or other for one, other in used} <= targets


def test_the_readme_shows_a_policy_of_about_twenty_lines() -> None:
    (policy,) = (block for block in blocks(README) if block.language == "yaml")
    assert len(policy.text.splitlines()) <= 22


def test_contributing_opens_with_three_commands() -> None:
    first = next(blocks(CONTRIBUTING))
    assert first.line <= 3
    assert len(first.text.splitlines()) == 3
