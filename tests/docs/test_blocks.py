"""What the pages show is so: policies load, Python compiles, commands print what is shown.

The convention for the words behind a fence is in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from edgeproxy.plan import compile_plan
from edgeproxy.policy.load import parse
from edgeproxy.policytest.suite import Suite
from tests.docs.blocks import Block, blocks, commands, pattern_of

ALL = list(blocks())
FOLLOWED = ("workbench.md",)  # from top to bottom, by a test of its own
EDGEPROXY = Path(sys.executable).with_name("edgeproxy")


def of(language: str, *marks: str) -> list[Block]:
    return [block for block in ALL if block.words == (language, *marks)]


def is_right(block: Block) -> bool:
    """Policies of the page of errors are wrong on purpose, and have a test of their own."""
    return block.page.name != "errors.md"


def is_tests(block: Block) -> bool:
    """Whether the block is a file of tests, which stand beside a policy of the same page."""
    return (block.file_name or "").endswith("_test.yaml")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_mark_is_one_of_the_convention() -> None:
    known = {("yaml", "fragment"), ("yaml", "plugin")}
    assert [str(block) for block in ALL if len(block.words) > 1 and block.words not in known] == []
    assert [str(block) for block in ALL if not block.words] == []


POLICIES = [block for block in of("yaml") if is_right(block) and not is_tests(block)]
TESTS = [block for block in of("yaml") if is_right(block) and is_tests(block)]


@pytest.mark.parametrize("block", POLICIES, ids=str)
def test_policy_loads(block: Block) -> None:
    assert re.search(r"^version: 1\b", block.text, re.M), "mark a part of a policy as `fragment`"
    compile_plan(parse(block.text, str(block)))


@pytest.mark.parametrize("block", TESTS, ids=str)
def test_policy_tests_can_be_run(block: Block) -> None:
    before = [policy for policy in POLICIES if policy.page == block.page]
    policy = next(policy for policy in reversed(before) if policy.line < block.line)
    Path("policy.yaml").write_text(policy.text)
    Path("policy_test.yaml").write_text(block.text)
    assert Suite.load([Path("policy.yaml")]).cases


@pytest.mark.parametrize("block", of("yaml", "fragment") + of("yaml", "plugin"), ids=str)
def test_fragment_is_yaml(block: Block) -> None:
    assert isinstance(yaml.safe_load(block.text), dict)


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_compiles_and_finds_its_imports(block: Block) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compile(block.text, str(block), "exec", flags=flags, dont_inherit=True)
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_json_parses(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_toml_parses(block: Block) -> None:
    tomllib.loads(block.text)


@pytest.mark.parametrize(
    "block", [block for block in of("console") if block.page.name not in FOLLOWED], ids=str
)
def test_command_prints_what_is_shown(block: Block, tmp_path: Path) -> None:
    for other in blocks(block.page):
        if other.language in ("yaml", "text") and other.file_name:
            (tmp_path / other.file_name).write_text(other.text)
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHON_COLORS": "0"}
    for command, shown in commands(block):
        program, *arguments = shlex.split(command)
        assert program == "edgeproxy", f"{block}: only edgeproxy commands run; use a `sh` block"
        done = subprocess.run(
            [EDGEPROXY, *arguments], capture_output=True, text=True, timeout=30, env=environment
        )
        assert re.fullmatch(pattern_of(shown), done.stdout + done.stderr, re.S), (
            f"{block}: {command}\n{done.stdout}{done.stderr}"
        )
