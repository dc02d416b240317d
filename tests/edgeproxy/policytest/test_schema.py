"""The schema of tests against what is said of their files: what one takes, the other takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from edgeproxy import cli
from edgeproxy.errors import PolicyError
from edgeproxy.policy.source import read
from edgeproxy.policytest import schema
from tests.docs.blocks import Block, blocks

CASES = Path(__file__).resolve().parents[2] / "cases" / "policy-tests"
SHOWN = [block for block in blocks() if (block.file_name or "").endswith("_test.yaml")]
EXAMPLES = sorted(Path(__file__).resolve().parents[3].glob("policies/*_test.yaml"))
SCHEMA = schema()

# What a schema can say of a test without its policy, and outside the cells of a row: it cannot know
# which column a cell stands in.
KNOWN = {"bad-choice", "bad-type", "out-of-range", "unknown-key"}


def faults(data: Any) -> list[str]:
    return [error.message for error in Draft7Validator(SCHEMA).iter_errors(data)]


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("block", SHOWN, ids=str)
def test_tests_of_the_documentation_are_as_it_says(block: Block) -> None:
    assert faults(read(block.text, str(block)).plain()) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_tests_of_the_examples_are_as_it_says(path: Path) -> None:
    assert faults(read(path.read_bytes(), path.name).plain()) == []


@pytest.mark.parametrize("file", sorted(CASES.glob("*_test.yaml")), ids=lambda path: path.stem)
def test_every_test_with_a_fault_that_it_can_know_is_refused(file: Path) -> None:
    """By the line of the fault: each of these files has many tests, one fault in most."""
    try:
        root = read(file.read_bytes(), file.name)
    except PolicyError:
        return
    said = (CASES / f"{file.stem.removesuffix('_test')}.err").read_text()
    places = re.findall(rf"^{file.name}:(\d+):.* \[([a-z-]+)\]$", said, re.M)
    lines = {int(line) for line, code in places if code in KNOWN}
    tests = root.get("tests")
    nodes = tests.items if tests else []
    starts = [node.place.line for node in nodes]
    for node, start, end in zip(nodes, starts, [*starts[1:], 10_000], strict=False):
        if lines & set(range(start, end)) and "a cell is wrong" not in str(node.plain()):
            one = {"version": 1, "tests": [node.plain()]}
            assert faults(one), f"{file.name}, line {start}"


def test_short_forms() -> None:
    test = {"name": "a", "request": "POST /a", "expect": {}}
    for expected in (
        {"redirect": True, "status": 302},
        {"redirect": {"prefix": "/a"}, "cache": False},
        {"cache": "html", "route": False},
        {"response_headers": {"etag": False, "vary": "accept"}},
    ):
        assert faults({"version": 1, "tests": [{**test, "expect": expected}]}) == []
    for wrong in ({"redirect": 5}, {"cache": True}, {"route": True}, {"stauts": 200}):
        assert faults({"version": 1, "tests": [{**test, "expect": wrong}]})


ROWS_ARE_BLOCKS = {"items": {"type": "object"}}


def blocks_of(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            yield from node["properties"].items()
        node = list(node.values())
    for each in node if isinstance(node, list) else ():
        yield from blocks_of(each)


def test_every_key_is_described() -> None:
    found = [(key, each) for key, each in blocks_of(SCHEMA) if each != ROWS_ARE_BLOCKS]
    assert len(found) > 50
    assert [key for key, each in found if not str(each.get("description", "")).endswith(".")] == []


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema", "--tests"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA
