"""The schema for editors against `edgeproxy check`: what one takes, the other takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from pydantic import Field
from pydantic_core import core_schema

from edgeproxy import cli
from edgeproxy.errors import PolicyError
from edgeproxy.plugin import Config, Plugin
from edgeproxy.policy.installed import Installed, Registry, installed
from edgeproxy.policy.load import parse
from edgeproxy.policy.schema import schema
from edgeproxy.policy.source import read, write
from edgeproxy.policy.vocabulary import everything
from tests.policies_strategy import Plain, policies

ROOT = Path(__file__).resolve().parents[3]
CASES = ROOT / "tests" / "cases" / "policies"
FILES = sorted(
    path
    for path in (*CASES.glob("*.yaml"), *CASES.glob("*/*.yaml"), *CASES.glob("*/*.yml"))
    if not path.stem.endswith("_test")
)
EXAMPLES = sorted(
    path for path in (ROOT / "policies").glob("*.yaml") if not path.stem.endswith("_test")
)

# What a schema can say of one file by itself. It cannot know which names another part of the policy
# gives (unknown-origin, unknown-rule, unknown-plugin, duplicate-name), what a value of the right
# form is good for (bad-value, bad-pattern, missing-secret), how plugins behave (plugin-failed,
# plugin-conflict, missing-extra), nor what only several files together have or lack
# (duplicate-key, missing-origin, missing-key at the top).
KNOWN = {"bad-choice", "bad-type", "out-of-range", "secret-as-value", "unknown-key"}


class Language:
    """The language as an editor knows it."""

    def __init__(self, registry: Registry) -> None:
        self.schema = schema(everything(registry))
        self._validator = Draft7Validator(self.schema)

    def faults(self, data: Any) -> list[str]:
        return [error.message for error in self._validator.iter_errors(data)]


@pytest.fixture(scope="session")
def with_test_plugins(registry: Registry) -> Language:
    return Language(registry)


@pytest.fixture(scope="session")
def own() -> Language:
    """With what is installed."""
    return Language(installed())


def faults_of(file: Path) -> list[str]:
    """The codes of what its case says is wrong with `file`."""
    case = file if file.parent == CASES else file.parent
    expected = CASES / f"{case.stem}.err"
    if not expected.exists():
        return []
    name = re.escape(file.relative_to(CASES).as_posix())
    return re.findall(rf"^{name}:.* \[([a-z-]+)\]$", expected.read_text(), re.M)


# ------------------------------------------------------------------- agreement


def test_it_is_a_schema_of_the_draft_it_names(own: Language) -> None:
    Draft7Validator.check_schema(own.schema)
    assert own.schema["$schema"] == Draft7Validator.META_SCHEMA["$schema"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_as_the_schema_says(path: Path, own: Language) -> None:
    assert own.faults(read(path.read_bytes(), path.name).plain()) == []


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.relative_to(CASES).as_posix())
def test_a_file_is_taken_or_refused_as_by_check(
    file: Path, own: Language, with_test_plugins: Language
) -> None:
    raw = file.read_bytes()
    by = own if raw.startswith(b"# plugins: first-party") else with_test_plugins
    codes = faults_of(file)
    try:
        data = read(raw, file.name).plain()
    except PolicyError:
        assert codes  # it is no YAML that a schema could be held to
        return
    if not codes:
        assert by.faults(data) == []
    elif KNOWN & set(codes):
        assert by.faults(data), codes


def test_every_code_that_is_known_has_cases_that_show_it() -> None:
    shown = [code for file in FILES for code in faults_of(file)]
    assert {code: shown.count(code) for code in KNOWN if shown.count(code) < 2} == {}


RICH = read((ROOT / "policies" / "demo.yaml").read_bytes(), "demo.yaml").plain() | {
    "admin": {"token": "${env:EDGE_TOKEN}"},
    "limits": {"body_size": "5MB", "connections": 100},
    "filters": [{"response_headers": {"set": {"x-a": "b"}}}],
    "routes": [
        {
            "name": "first",
            "matches": [
                {"path": ["/a/**", {"regex": "/b+"}], "host": "*.example.org", "method": "GET"},
                {"country": ["DE", "XX"], "continent": "EU", "region": "GB-*", "asn": [3320, 1]},
                {"header": {"x-plan": "pro"}, "cookie": {"a": {"present": False}}},
                {"query": {"q": ["1", "2"]}, "language": "de", "device": ["mobile", "bot"]},
                {"body": {"json": {"/a": 5, "/b": {"prefix": "x"}}, "max_size": "4KiB"}},
            ],
            "redirect": "/c",
            "cache": False,
        },
        {
            "name": "second",
            "match": {"scheme": "https", "country_group": "eu", "media_type": "text/html"},
            "experiment": "hero",
            "backend_refs": [{"name": "pages", "weight": 3}],
            "filters": [
                {"rewrite": {"prefix": "/x"}},
                {"rewrite_links": True},
                {"error_page": {"body": "sorry"}},
                {"request_headers": {"remove": ["x-a", "x-b"], "add": {"x-c": ["d", "e"]}}},
            ],
        },
        {"name": "third", "respond": {"status": 503, "retry_after": "1h"}, "origin": "pages"},
        {"name": "fourth", "spa_fallback": None, "cache": "html", "websocket": True},
    ],
}
WORDS = [
    None, True, False, 0, 1, -1, 404, 2.5, "", "x", "X Y", "/a", "10m", "5MiB", "DE", "eu", "GET",
    "mobile", "https", "keep", "hero", "pages", "html", "${env:EDGE_TOKEN}", [], ["x"], [1], {},
    {"x": "y"}, {"name": "x"}, {"path": "/a"}, [{"redirect": "/a"}],
]  # fmt: skip
KEYS = ["x", "name", "path", "match", "filters", "cache", "ttl", "set", "redirect", "X Y", "404"]


def places(data: Any) -> Iterator[tuple[Any, str | int]]:
    """Every entry of blocks and lists, as the container and the key or index in it."""
    entries = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in list(entries):
        yield data, key
        if isinstance(value, dict | list):
            yield from places(value)


def edited(where: int, how: str, word: Any, key: str) -> dict[str, Any]:
    """The rich policy with one entry replaced, dropped, renamed or joined by another."""
    data: dict[str, Any] = json.loads(json.dumps(RICH))
    found = list(places(data))
    container, place = found[where % len(found)]
    if how == "replace":
        container[place] = word
    elif how == "drop":
        del container[place]
    elif isinstance(container, list):
        container.append(word)
    else:
        container[key] = container.pop(place) if how == "rename" else word
    return data


def test_the_rich_policy_is_good(own: Language) -> None:
    assert own.faults(RICH) == []
    assert codes_of(RICH) == set()


def codes_of(data: Mapping[str, Any]) -> set[str]:
    try:
        parse(write(data), env={"EDGE_TOKEN": "long enough for a token"})
    except PolicyError as error:
        return {fault.code for fault in error.faults}
    return set()


@given(policies())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_random_good_policy_is_as_the_schema_says(own: Language, policy: Plain) -> None:
    assert own.faults(policy) == []


@given(
    where=st.integers(0, 500),
    how=st.sampled_from(["replace", "drop", "rename", "add"]),
    word=st.sampled_from(WORDS),
    key=st.sampled_from(KEYS),
)
@example(where=0, how="replace", word=True, key="")
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_edited_policy_is_taken_or_refused_as_by_check(
    where: int, how: str, word: Any, key: str, own: Language
) -> None:
    data = edited(where, how, word, key)
    codes = codes_of(data)
    if not codes:
        assert own.faults(data) == []
    elif KNOWN & codes:
        assert own.faults(data), codes


# ------------------------------------------------------------------- what editors show


def blocks(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every block of a schema, with its schema."""
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            yield from node["properties"].items()
        node = list(node.values())
    for each in node if isinstance(node, list) else ():
        yield from blocks(each)


def test_every_key_is_described(own: Language) -> None:
    definitions = own.schema["definitions"]

    def description(schema: dict[str, Any]) -> str:
        ref = schema.get("$ref", "").removeprefix("#/definitions/")
        return str((definitions[ref] if ref else schema).get("description", ""))

    found = list(blocks(own.schema))
    assert len(found) > 150
    assert [key for key, schema in found if not description(schema).endswith(".")] == []


def test_no_block_takes_any_key(own: Language) -> None:
    for name, definition in own.schema["definitions"].items():
        if "properties" in definition:
            assert definition["additionalProperties"] is False, name


def test_defaults_and_choices_are_told(own: Language) -> None:
    origin = own.schema["definitions"]["OriginConfig"]["properties"]
    assert origin["kind"]["default"] == "pages"
    assert origin["kind"]["enum"] == ["pages", "http"]
    assert origin["connect_timeout"]["default"] == "5s"


# ------------------------------------------------------------------- plugins


def test_plugins_of_others_are_included_whether_listed_or_not(with_test_plugins: Language) -> None:
    policy = {"version": 1, "origins": {"pages": {"url": "https://a.example/"}}}
    assert (
        with_test_plugins.faults({**policy, "auth": {"realm": "docs", "key": "${env:KEY}"}}) == []
    )
    assert with_test_plugins.faults({**policy, "auth": {"realm": "docs"}})
    assert with_test_plugins.faults({**policy, "auth": {"realm": "docs", "key": "in the clear"}})
    route = {"name": "a", "match": {"signed": True, "weather": ["rain"]}, "late": None}
    assert with_test_plugins.faults({**policy, "routes": [route]}) == []


def test_a_key_that_two_bring_is_that_of_the_first(with_test_plugins: Language) -> None:
    """`acme_umbrella` brings `cache` as a filter too, which is a key of routes already."""
    route = with_test_plugins.schema["definitions"]["RouteCore"]["properties"]["cache"]
    assert "cache.rules" in route["description"]


class Odd:
    """A type that pydantic checks and cannot describe."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.no_info_plain_validator_function(lambda value: cls())


class OddConfig(Config):
    """A section with such a key."""

    odd: Odd = Field(default=Odd())
    pair: tuple[int, str] = (1, "a")


class OddPlugin(Plugin):
    Config = OddConfig


def test_a_key_that_only_python_can_judge_takes_anything() -> None:
    language = Language(Registry([Installed("odd", lambda: OddPlugin, "acme-edge", "1.0")]))
    assert language.faults({"version": 1, "odd": {"odd": ["what", {"ever": 1}]}}) == []
    assert language.faults({"version": 1, "odd": {"pair": [2, "b"]}}) == []
    assert language.faults({"version": 1, "odd": {"pair": ["b", 2]}})
    assert language.faults({"version": 1, "odd": {"even": 1}})


def test_what_cannot_be_loaded_is_told(registry: Registry) -> None:
    assert {"tides", "acme_crash", "acme_graph", "acme_text"} <= set(everything(registry).broken)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str], own: Language) -> None:
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == own.schema
