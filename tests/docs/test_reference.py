"""The reference pages list exactly what the code has: hooks, options, keys and defaults."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from edgeproxy import cli, doctor
from edgeproxy.admin.routes import ROUTES
from edgeproxy.caching.config import CacheConfig
from edgeproxy.hooks import Hooks
from edgeproxy.plugin import Plugin
from edgeproxy.policy.acme import AcmeConfig
from edgeproxy.policy.installed import Broken, installed
from edgeproxy.policy.model import (
    AdminConfig,
    CertificateConfig,
    ExplainConfig,
    Limits,
    MatchCore,
    OriginConfig,
    PathMatch,
    PolicyCore,
    RecordConfig,
    RouteCore,
    StateConfig,
    TlsConfig,
)
from edgeproxy.policytest.language import Condition, Expectations, PolicyTest
from edgeproxy_headers.plugin import Edits
from edgeproxy_links.plugin import RewriteLinks
from edgeproxy_otel.plugin import Otel
from edgeproxy_rewrite.plugin import ErrorPage, Redirect, Respond, Rewrite, SpaFallback
from edgeproxy_split.plugin import Experiment, ExperimentFilter, VariantChange
from edgeproxy_trace.plugin import Trace
from tests.docs.blocks import DOCS, first_code, table


def keys(page: str, heading: str) -> list[str]:
    """The keys that the first column of a table names; a row may name several."""
    return [key for row in table(page, heading) for key in re.findall(r"`([^`]+)`", row[0])]


def fields(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


def first_party() -> dict[str, type[Plugin]]:
    found: dict[str, type[Plugin]] = {}
    for name, entry in installed().items():
        if entry.is_first_party:
            plugin = entry.load()
            assert not isinstance(plugin, Broken), plugin.reason
            found[name] = plugin
    return found


# ------------------------------------------------------------------- hooks


def test_hooks_are_those_of_the_code_in_its_order() -> None:
    hooks = [name for name in vars(Hooks) if not name.startswith("_")]
    assert keys("hooks.md", "# Hooks") == hooks


@pytest.mark.parametrize("row", table("hooks.md", "# Hooks"), ids=lambda row: row[0])
def test_hook_fails_as_its_docstring_says(row: list[str]) -> None:
    said = re.sub(r"\s+", " ", getattr(Hooks, first_code(row[0])).__doc__ or "")
    result = {"none": "none", "collected": "collected", "the first answer": "the first response"}
    assert f"Results: {result.get(row[1], 'each plugin in turn')}" in said
    status = re.search(r"\b50[02]\b", row[3])
    assert (status.group() in said) if status else not re.search(r"\b50[02]\b", said)
    assert ("logged" in row[3]) == ("logged" in said)


# ------------------------------------------------------------------- command line


def subcommands() -> dict[str, argparse.ArgumentParser]:
    parser = cli._parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("no commands")


def test_every_command_has_a_section() -> None:
    headings = re.findall(r"^## `edgeproxy (\w+)`$", (DOCS / "cli.md").read_text(), re.M)
    assert headings == list(subcommands())


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "check",
        "doctor",
        "schema",
        "test",
        "init",
        "warm",
        "explain",
        "replay",
        "plan",
        "cert",
        "top",
    ],
)
def test_options_are_those_of_the_parser(command: str) -> None:
    rows = table("cli.md", f"## `edgeproxy {command}`")
    documented = {first_code(row[0]).partition(" ")[0]: first_code(row[1]) for row in rows}
    expected: dict[str, str] = {}
    for action in subcommands()[command]._actions:
        name = action.option_strings[-1] if action.option_strings else action.dest.upper()
        if name != "--help":
            default = action.default if isinstance(action.default, str) else ""
            expected[name] = default
    assert documented == expected


def test_checks_of_the_doctor_are_those_of_the_code_in_its_order() -> None:
    listed = [first_code(row[0]) for row in table("doctor.md", "## What is checked")]
    assert listed == [check.name for check in doctor.CHECKS]


# ------------------------------------------------------------------- the admin listener


def test_operations_are_those_of_the_table() -> None:
    documented = {
        first_code(row[0]): re.sub(r"\[(.+?)\]\(\S+\)", r"\1", row[1])
        for row in table("admin.md", "# Admin listener")
    }
    expected: dict[str, str] = {}
    for route in ROUTES:
        names = [] if route.method == "POST" else fields(route.asked)
        names = [name for name in names if name not in route.asked.headers]
        asked = "&".join(f"{name}=" for name in names if f"{{{name}}}" not in route.path)
        expected[f"{route.method} {route.path}{'?' * bool(asked)}{asked}"] = route.summary
    assert documented == expected
    assert list(documented) == list(expected)


def test_figures_of_the_comparison_are_those_that_were_measured() -> None:
    said = re.findall(r"([0-9][0-9,.]*)\s+(?:µs|times)", (DOCS / "comparison.md").read_text())
    measured = (DOCS / "performance.md").read_text()
    assert len(said) == 5
    assert [figure for figure in said if figure not in measured] == []


# ------------------------------------------------------------------- policy keys


def test_sections_are_those_of_the_core_and_of_plugins() -> None:
    sections = {
        (plugin.section or name).partition(".")[0]
        for name, plugin in first_party().items()
        if plugin.Config is not None
    }
    expected = {*fields(PolicyCore), "cache", *sections}
    assert set(keys("policy.md", "## Sections")) == expected


def test_route_keys_are_those_of_the_model() -> None:
    assert set(keys("policy.md", "## Routes")) == {*fields(RouteCore), "match", "filters"}


def column(page: str, heading: str) -> dict[str, str]:
    """First column to last, of a table."""
    return {first_code(row[0]): row[-1] for row in table(page, heading)}


def test_match_keys_are_those_of_the_core_and_of_plugins() -> None:
    expected = dict.fromkeys(fields(MatchCore), "core")
    for name, plugin in first_party().items():
        expected |= dict.fromkeys(plugin.matchers, name)
    documented = column("policy.md", "## Matches")
    assert {key: re.sub(r"\W.*", "", cell.lstrip("[")) for key, cell in documented.items()} == (
        expected
    )


def test_filters_are_those_of_plugins() -> None:
    expected = {key: name for name, plugin in first_party().items() for key in plugin.filters}
    documented = column("policy.md", "## Filters")
    assert {key: re.sub(r"\W.*", "", cell.lstrip("[")) for key, cell in documented.items()} == (
        expected
    )


def test_plugins_are_those_that_ship() -> None:
    page = "plugins/index.md"
    listed = [row[0].partition("]")[0].lstrip("[") for row in table(page, "# Plugins")]
    assert set(listed) == set(first_party())
    for name in listed:
        assert Path(DOCS, "plugins", f"{name}.md").is_file()


@pytest.mark.parametrize(
    ("page", "heading", "model"),
    [
        ("policy.md", "## Origins", OriginConfig),
        ("policy.md", "### Paths", PathMatch),
        ("policy.md", "## Admin", AdminConfig),
        ("policy.md", "## Explain", ExplainConfig),
        ("tls.md", "# TLS", TlsConfig),
        ("reload.md", "## Go back", StateConfig),
        ("replay.md", "## Record", RecordConfig),
        ("tls.md", "## Certificates", CertificateConfig),
        ("tls.md", "## From an authority, by ACME", AcmeConfig),
        ("limits.md", "## Clients", Limits),
        ("plugins/headers.md", "# Headers: edit them on either side", Edits),
        ("plugins/rewrite.md", "## `redirect`", Redirect),
        ("plugins/rewrite.md", "## `rewrite`", Rewrite),
        ("plugins/rewrite.md", "## `respond`", Respond),
        ("plugins/rewrite.md", "## `spa_fallback`", SpaFallback),
        ("plugins/rewrite.md", "## `error_page`", ErrorPage),
        ("plugins/split.md", "## The section `experiments`", Experiment),
        ("plugins/split.md", "## The filter `experiment`", ExperimentFilter),
        ("plugins/otel.md", "# OpenTelemetry: traces and metrics by OTLP", Otel),
        ("plugins/trace.md", "# Trace: one request, followed through", Trace),
        ("test-policies.md", "## What is expected", Expectations),
        ("plugins/links.md", "# Links: keep visitors on the public name", RewriteLinks),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_keys_and_defaults_are_those_of_the_model(
    page: str, heading: str, model: type[BaseModel]
) -> None:
    assert sorted(keys(page, heading)) == sorted(fields(model))
    for row in table(page, heading):
        if len(row) == 3 and re.fullmatch(r"`[^`]+`", row[-1]):
            default = model.model_fields[first_code(row[0])].default
            assert first_code(row[-1]) == spelled(default), row[0]


def test_defaults_of_limits_are_those_of_the_model() -> None:
    for heading, model in (("## Clients", Limits), ("## Origins", OriginConfig)):
        for row in table("limits.md", heading):
            default = model.model_fields[first_code(row[0])].default
            assert first_code(row[1]) == spelled(default), row[0]


def test_keys_of_policy_tests_are_those_of_the_model() -> None:
    names = [info.alias or name for name, info in PolicyTest.model_fields.items()]
    assert sorted(keys("test-policies.md", "## What is asked")) == sorted(names)
    text = (DOCS / "test-policies.md").read_text()
    _, _, below = text.partition("says something looser:\n")
    listed = re.findall(r"^\| `(\w+)`", below.partition("`reason` is a word")[0], re.M)
    assert listed == fields(Condition)


def test_variants_may_change_what_the_page_says() -> None:
    text = (DOCS / "plugins" / "split.md").read_text()
    _, _, below = text.partition("and of a variant:\n")
    listed = re.findall(r"^\| `(\w+)`", below.partition("`experiment: hero` alone")[0], re.M)
    assert listed == fields(VariantChange)


def test_the_cache_page_is_told_about() -> None:
    for key in fields(CacheConfig):
        assert f"`{key}`" in (DOCS / "caching.md").read_text(), key


def spelled(value: Any) -> str:
    """A default as a policy would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple) and len(value) == 1:
        return str(value[0])
    if isinstance(value, tuple) and value:
        return f"[{', '.join(map(str, value))}]"
    return str(value)
