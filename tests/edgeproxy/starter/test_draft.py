"""Whatever is found, the draft is a good policy: as it stands, and with its comments made policy.

Its comments hold lines of policy for the reader to uncomment; those have to be good as well.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy import policytest
from edgeproxy.lint import lint
from edgeproxy.plan import compile_plan
from edgeproxy.policy.load import parse
from edgeproxy.policy.policy import Policy
from edgeproxy.routing import find
from edgeproxy.starter.draft import draft
from edgeproxy.starter.draft_tests import draft_tests
from edgeproxy.starter.findings import WANTED, Findings, Hashed
from tests.policies_strategy import Visit

# A comment that is policy once its `# ` is gone: what it can begin with.
_POLICY = re.compile(
    r"^( *)# (content:|disk:|strict-transport|content-security|  [a-z]+-(?:src|uri) |remove:|"
    r"- {name|rewrite_links:)",
    re.MULTILINE,
)
PATHS = st.sampled_from(
    ["/", "/a/", "/a", "/feed.xml", "/%C3%BCber/", "/a~b/", "/no/", "/a.b/c-d_e.html"]
)
SOURCES = st.sampled_from(["https://cdn.example", "http://a.example:8080", "'unsafe-inline'"])
TAGS = st.sampled_from(["en", "de", "no", "pt-BR", "zh-Hant-TW", "ast"])
FOLDERS = st.sampled_from(["/assets/", "/a.b/c/"])


def some(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(strategy, unique=True, max_size=3).map(tuple)


def with_samples(hashed: Hashed) -> Hashed:
    """`hashed` with a file of each kind."""
    samples = [f"{hashed.folder}x-0123abcd.{ending}" for ending in hashed.endings[:1]]
    samples += [f"{folder}x.js" for folder in hashed.folders]
    samples += [f"{folder}x.css?{name}=1" for folder, name in hashed.queries]
    return replace(hashed, samples=tuple(samples))


HASHED = st.builds(
    Hashed,
    endings=some(st.sampled_from(["js", "css", "woff2"])),
    folder=st.just("/") | FOLDERS,
    is_minified=st.booleans(),
    folders=some(FOLDERS),
    queries=st.lists(
        st.tuples(FOLDERS, st.sampled_from(["v", "hash"])), unique=True, max_size=2
    ).map(tuple),
).map(with_samples)
FINDINGS = st.builds(
    Findings,
    url=st.sampled_from(["https://you.github.io/project/", "http://[::1]:8081/", "https://a.org/"]),
    base=st.sampled_from(["/", "/project/", "/a/b.c/"]),
    came_from=st.sampled_from(["", "https://you.github.io/"]),
    is_pages=st.booleans(),
    takes_more=st.booleans(),
    states_freshness=st.booleans(),
    language=st.just("") | TAGS,
    languages=st.dictionaries(TAGS, PATHS),
    hashed=HASHED,
    feeds=some(PATHS.filter(lambda path: path != "/")),
    missing=st.sampled_from(["own", "default", "app", "found", "unknown"]),
    stubs=st.lists(st.tuples(PATHS, PATHS), unique=True, max_size=3).map(tuple),
    lacking=some(st.sampled_from(list(WANTED))),
    lets_all_read=st.booleans(),
    loads=st.dictionaries(
        st.sampled_from(["script-src", "img-src", "style-src", "frame-src"]), some(SOURCES)
    ),
    own_links=st.integers(0, 3),
    slash=st.sampled_from(["", "/guide"]),
    pages=st.integers(1, 9),
)


def checked(text: str) -> Policy:
    policy = parse(text, "site.yaml")
    compile_plan(policy)
    return policy


@given(FINDINGS)
@settings(deadline=None, max_examples=50)
def test_it_is_a_good_policy(found: Findings) -> None:
    text = draft(found, "site.yaml")
    policy = checked(text)
    assert [route.core.name for route in policy.routes][-1] == "site"
    assert max(map(len, text.splitlines())) <= 200


@given(FINDINGS)
@settings(deadline=None, max_examples=50)
def test_there_is_nothing_to_remark_about_it(found: Findings) -> None:
    remarks = lint(checked(draft(found, "site.yaml"))).findings
    assert {one.code for one in remarks} <= {"plain-http-origin"}  # as it is for some of the sites


@given(FINDINGS)
@settings(deadline=None, max_examples=50)
def test_its_comments_can_be_made_policy(found: Findings) -> None:
    text = draft(found, "site.yaml")
    policy = checked(_POLICY.sub(lambda match: match[1] + match[2], text))
    assert ("content-security-policy-report-only" in str(policy.expanded)) == bool(found.lacking)
    assert bool(found.own_links) == ("rewrite_links" in str(policy.expanded))
    onward = [route for route in policy.routes if route.core.name.startswith("onward-")]
    assert len(onward) == len(found.stubs)


@given(FINDINGS)
@settings(deadline=None, max_examples=50)
def test_its_tests_pass(found: Findings) -> None:
    with TemporaryDirectory() as folder:
        policy = Path(folder, "site.yaml")
        policy.write_text(draft(found, policy.name))
        policy.with_name("site_test.yaml").write_text(draft_tests(found, policy.name))
        report = policytest.run([policy])
    assert report.passed, str(report)


def test_every_line_of_policy_has_a_comment_near_it() -> None:
    found = Findings("https://you.github.io/project/", lacking=tuple(WANTED), own_links=1)
    lines = draft(found, "site.yaml").splitlines()
    comments = sum("#" in line for line in lines)
    assert comments >= len(lines) / 3


def test_paths_are_matched_with_the_base_and_without() -> None:
    found = Findings(
        "https://you.github.io/project/",
        base="/project/",
        feeds=("/feed.xml",),
        hashed=Hashed(endings=("js",), folder="/assets/"),
    )
    plan = compile_plan(parse(draft(found, "site.yaml")))
    for path, rule in (
        ("/feed.xml", "feeds"),
        ("/project/feed.xml", "feeds"),
        ("/assets/app.0123abcd.js", "assets"),
        ("/project/assets/app.0123abcd.js", "assets"),
        ("/assets/app.js", "site"),
        ("/projects/assets/app.0123abcd.js", "site"),
    ):
        exchange = Visit(path=path).exchange(plan)
        found_route = find(plan.routes.candidates("example.org", path), exchange)
        assert found_route is not None
        assert found_route.route.name == rule, path
