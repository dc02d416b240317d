"""Rules about patterns of paths: what they match may be nothing, or not what they look like."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgeproxy.errors import Place
from edgeproxy.lint.finding import Found, rule
from edgeproxy.lint.paths import NO_SLASH, NOT_CANONICAL, path_set
from edgeproxy.lint.view import View
from edgeproxy.policy.model import PathMatch
from edgeproxy.routing import canonical_pattern


def patterns(view: View) -> Iterator[tuple[PathMatch, Place]]:
    """Every pattern of the policy, and where it stands."""
    for route in view.policy.routes:
        for match in route.matches:
            node = match.node.get("path")
            if node is not None:
                items = node.items or [node]
                for pattern, item in zip(match.core.path or (), items, strict=True):
                    yield pattern, item.place


def plain_patterns(view: View) -> Iterator[tuple[str, str, Place]]:
    """The kind and the text of those that are no regular expressions."""
    for pattern, place in patterns(view):
        for kind in ("exact", "prefix", "glob"):
            text = getattr(pattern, kind)
            if text is not None:
                yield kind, text, place


_WHY_NEVER = {
    NO_SLASH: "a path begins with a slash",
    NOT_CANONICAL: (
        "in a path, what is not ASCII stands as %C3%BC, in upper case, and no letter, digit, dot, "
        "- _ or ~ is escaped"
    ),
}


@rule("impossible-path", "error")
def impossible_path(view: View) -> Found:
    """No path, in the one spelling that all paths are brought into, meets the pattern."""
    for pattern, place in patterns(view):
        found = path_set(pattern)
        if found.is_empty:
            why = _WHY_NEVER.get(
                found.tokens[0], "a path has no empty segments and no dot segments"
            )
            reason = f"no path meets this regular expression: {why}"
            yield place, reason, "write paths as the access log shows them"
    if not view.policy.core.encoded_slashes:
        for _, text, place in plain_patterns(view):
            if "%2F" in canonical_pattern(text):
                reason = "no path meets this pattern: those with %2F are refused"
                yield place, reason, "write encoded_slashes: true, or take %2F out"


@rule("respelled-path", "warning")
def respelled_path(view: View) -> Found:
    """Dot segments and empty segments of a pattern are resolved, which may take wildcards along."""
    for _, text, place in plain_patterns(view):
        if re.search(r"//|/\.\.?(/|$)", text):
            reason = f"paths are compared without dot segments and double slashes: {text!r} is read"
            respelled = canonical_pattern(text)
            yield place, f"{reason} as {respelled!r}", f"write {respelled!r} if that is meant"


_LOOKS = (
    (r"\?", "the query is no part of the path", "match it with the key query"),
    (r"#", "no client sends what follows a #", "take it out"),
    (
        r"\{[^}]*,|\[[^\]]*\]",
        "a glob knows no braces and brackets",
        "write a list of paths, or regex",
    ),
    (r"/(:[a-z]|\{\w+\}|<\w+>)", "a name is no placeholder here", "write * for a segment"),
    (r"\([^)]*[.*+][^)]*\)|\.\*|\.\+", "this is no regular expression", "write path: {regex: ...}"),
)


@rule("literal-wildcard", "warning", certain=False)
def literal_wildcard(view: View) -> Found:
    """Characters that mean something elsewhere, and themselves here."""
    for kind, text, place in plain_patterns(view):
        if kind != "glob" and "*" in text:
            reason = f"a star in {kind} is a star and no wildcard"
            yield place, reason, f"write the path alone: path: {text}"
            continue
        for look, reason, fix in _LOOKS:
            if re.search(look, text):
                yield place, f"this part of {text!r} is taken literally: {reason}", fix
                break


@rule("regex-of-one-path", "warning", certain=False)
def regex_of_one_path(view: View) -> Found:
    """A regular expression that matches one path, as it has to match the whole of it."""
    for pattern, place in patterns(view):
        only = path_set(pattern).literal if pattern.regex is not None else None
        if only is not None:
            reason = f"a regular expression has to match the whole path; this one is {only} alone"
            yield place, reason, f"write exact: {only}, or end it in .* for all that begins so"
