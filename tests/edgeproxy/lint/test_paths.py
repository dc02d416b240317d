"""Inclusion and overlap of patterns, against trying every short path."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.lint.paths import PathSet, covers, meeting, normalise_or_none, path_set
from edgeproxy.policy.model import PathMatch
from tests.policies_strategy import path_patterns, paths


def of(plain: Any) -> PathSet:
    return path_set(PathMatch.model_validate(plain))


SHORT = [
    path
    for length in range(1, 7)
    for path in map("".join, product("/ab.", repeat=length))
    if normalise_or_none(path) == path
]
_globs = st.lists(st.sampled_from(["a", "b", ".", "/", "*", "**"]), max_size=6).map(
    lambda parts: "/" + "".join(parts)
)
_patterns = st.one_of(_globs, _globs.map(lambda text: {"prefix": text}), path_patterns())


@settings(deadline=None, max_examples=300)
@given(_patterns, _patterns)
def test_no_short_path_contradicts_what_is_proved(one: Any, other: Any) -> None:
    try:
        wide, narrow = of(one), of(other)
    except ValueError:
        return  # a pattern that climbs above the root is refused when the policy loads
    inside = [path for path in SHORT if narrow.holds(path)]
    missed = [path for path in inside if not wide.holds(path)]
    if covers(wide, narrow) is True:
        assert missed == []
    found, example = meeting(wide, narrow)
    both = [path for path in inside if wide.holds(path)]
    if found is False:
        assert both == []
    if example is not None:
        assert wide.holds(example)
        assert narrow.holds(example)
    if not (wide.is_regex or narrow.is_regex):  # globs are decided, and rightly
        assert covers(wide, narrow) is not (True if missed else None)
        assert found is not (False if both else None)


@given(path_patterns(), paths())
def test_tokens_stand_for_what_is_matched(plain: Any, path: str) -> None:
    found = of(plain)
    if found.test(path) is not None:
        assert meeting(found, of({"exact": path}))[0] is True
        assert covers(found, of({"exact": path})) is True


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("/**", {"regex": ".*"}, True),
        ("/a/**", "/a", True),
        ("/a/**", "/a/*/b", True),
        ("/a/*", "/a/**", False),
        ("/*", "/a", True),
        ("/*/**", "/**", True),
        ("/**/b", "/a/*/b", True),
        ("/*/b", "/a/**", False),
        ("/a**", "/a/**", True),
        ({"prefix": "/a/"}, "/a", True),
        ({"prefix": "/a"}, "/ab", False),
        ({"exact": "/a*"}, "/a*", False),
        ("/a*", {"exact": "/a*"}, True),
        ("/über/**", "/%C3%BCber/x", True),
        ("/a/**", {"regex": "/a/[0-9]+"}, True),
        ("/a/**", {"regex": "/a[0-9]+"}, None),
        ({"regex": "/a/.*"}, "/a/b", True),
        ({"regex": "/a/.*"}, "/a/**", None),
        ({"regex": "/a/.+"}, "/b/**", False),
        ({"regex": "/a/.*"}, {"regex": "/a/.*"}, True),
    ],
)
def test_which_pattern_covers_which(wide: Any, narrow: Any, expected: bool | None) -> None:
    assert covers(of(wide), of(narrow)) is expected


@pytest.mark.parametrize(
    ("plain", "is_empty"),
    [
        ("/*/.*", False),
        ({"regex": "docs.*"}, True),
        ({"regex": "[^/].*"}, False),  # not proved: that takes more than looking at its start
        ({"regex": "/a//b"}, True),
        ({"regex": "/%7Euser"}, True),
        ({"regex": "/%2Fa"}, False),
        ({"regex": ""}, True),
    ],
)
def test_which_pattern_matches_nothing(plain: Any, is_empty: bool) -> None:
    assert of(plain).is_empty is is_empty


def test_contrived_patterns_are_given_up_on() -> None:
    one = of("/" + "**a" * 14)
    other = of("/" + "".join(f"*{letter}" for letter in "bcdefghijklmno") + "**")
    assert covers(one, other) in (False, None)
    assert of("/" + "*a*b" * 40).example is not None
