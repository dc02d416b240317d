"""Reasoning about a policy: what in it can never happen, and what will hardly be as it was meant.

A rule is a function from the policy to what it finds; files group them by what they look at. What
is said to be certain is proved from what matchers and filters claim of themselves
(`edgeproxy.claims`) and from the patterns of hosts and paths; where that is not enough, a rule says
so or keeps quiet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgeproxy.errors import Place
from edgeproxy.lint import (
    caching,
    limits,
    origins,
    patterns,
    reach,
    redirects,
    serving,
    splits,
    trust,
)
from edgeproxy.lint.allow import CODES, allows, heeded
from edgeproxy.lint.finding import Finding, Rule
from edgeproxy.lint.view import View
from edgeproxy.policy.policy import LoadedPlugin, Policy

RULES: tuple[Rule, ...] = (
    reach.unreachable_route,
    reach.unreachable_match,
    reach.impossible_match,
    reach.unserved_host,
    reach.uncovered_visitors,
    reach.order_matters,
    patterns.impossible_path,
    patterns.respelled_path,
    patterns.literal_wildcard,
    patterns.regex_of_one_path,
    redirects.redirect_loop,
    redirects.redirect_chain,
    redirects.unfilled_wildcard,
    redirects.query_in_path,
    origins.unused_origin,
    origins.plain_http_origin,
    origins.backend_without_weight,
    origins.idle_websocket,
    origins.refused_method,
    serving.idle_filter,
    serving.idle_setting,
    serving.body_buffering,
    splits.split_assets,
    caching.unused_rule,
    caching.ignored_status_ttl,
    caching.shared_cookies,
    caching.cookie_in_shared_answer,
    caching.fact_not_in_key,
    limits.process_memory_too_small,
    trust.trusts_everyone,
    trust.literal_secret,
)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, in the order of the files, and what could be neither proved nor ruled out."""

    findings: tuple[Finding, ...]
    undecided: tuple[str, ...]

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    def __str__(self) -> str:
        """`2 errors, 1 warning`."""
        errors = len(self.errors)
        counts = {"error": errors, "warning": len(self.findings) - errors}
        return ", ".join(f"{n} {word}{'s' * (n > 1)}" for word, n in counts.items() if n)


def lint(policy: Policy) -> Report:
    """All that the rules find, without what comments allow."""
    view = View(policy)
    found = [finding for rule in RULES for finding in rule.findings(view)]
    found += [finding for plugin in policy.plugins for finding in _reviewed(view, plugin)]
    kept = heeded(dict.fromkeys(found), allows(policy.sources), codes(policy))
    secrets = [each.place for each in found if each.code == trust.literal_secret.code]
    files = {name: number for number, name in enumerate(policy.files)}

    def turn(finding: Finding) -> tuple[int, int, int]:
        place = finding.place
        return files.get(place.file, 0), place.line, place.column

    return Report(
        tuple(replace(each, place=each.place.without(secrets)) for each in sorted(kept, key=turn)),
        tuple(view.undecided()),
    )


def codes(policy: Policy) -> frozenset[str]:
    """Every code that a finding about `policy` may have."""
    of_plugins = (code for plugin in policy.plugins for code in plugin.instance.remarks)
    return frozenset((*(rule.code for rule in RULES), *CODES, *of_plugins))


def _reviewed(view: View, plugin: LoadedPlugin) -> Iterator[Finding]:
    """What a plugin remarks about its own section."""
    filters = [
        bound.filter
        for route in view.policy.routes
        for bound in route.filters
        if bound.plugin is plugin
    ]
    section = tuple((plugin.instance.section or plugin.name).split("."))
    for remark in plugin.instance.review(filters):
        place = _place(view, (*section, *remark.at))
        yield Finding(remark.code, "warning", True, place, remark.reason, remark.fix)


def _place(view: View, path: tuple[str, ...]) -> Place:
    """The place of the key at the end of `path`, or of what is nearest to it."""
    node, place = view.policy.root, view.policy.root.place
    for key in path:
        if key not in node.block:
            break
        entry = node.block[key]
        node, place = entry.node, entry.key
    return place
