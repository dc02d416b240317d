"""Comments that allow findings: where they are read, and what they are about."""

from __future__ import annotations

import pytest

from edgeproxy.errors import PolicyError
from edgeproxy.lint import lint
from edgeproxy.lint.allow import allows
from edgeproxy.policy.load import compose, parse

POLICY = """\
version: 1
origins: {pages: {url: "https://you.github.io/"}}
routes:
  - name: site
  - name: late
    match: {path: /late/**}
"""


def read(text: str) -> list[tuple[str, str, int]]:
    return [(found.code, found.reason, found.line) for found in allows([("a.yaml", text)])]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1 # edgeproxy: allow x why not", [("x", "why not", 1)]),
        ("a: 1 #edgeproxy:allow x", [("x", "", 1)]),
        ("# edgeproxy: allow x because\n\n# more\na: 1", [("x", "because", 4)]),
        ("# edgeproxy: allow\na: 1", [("", "", 2)]),
        ("a: 1#edgeproxy:allow x y", []),
        ("a: '# edgeproxy: allow x y'", []),
        ('a: "b\n  # edgeproxy: allow x y"', []),
        ("a: |\n  # edgeproxy: allow x y\nb: 1", []),
        ("a: | # edgeproxy: allow x y\n  text\nb: 1", [("x", "y", 1)]),
        ("a: >-\n  text\n# edgeproxy: allow x y\nb: 1", [("x", "y", 4)]),
        ("ä: 'ö' # edgeproxy: allow x ü", [("x", "ü", 1)]),
        ("a: [b, # edgeproxy: allow x y\n  c]", [("x", "y", 1)]),
        ("# edgeproxy: allows x y\na: 1", []),
        ("# says edgeproxy: allow x y\na: 1", []),
        ("a: 1\r\nb: 2 # edgeproxy: allow x y\r\n", [("x", "y", 2)]),
        ("a: 1\n# edgeproxy: allow x at the end", [("x", "at the end", 3)]),
    ],
)
def test_where_a_comment_is_one(text: str, expected: list[tuple[str, str, int]]) -> None:
    assert read(text) == expected


def test_a_comment_is_about_its_own_file() -> None:
    late = POLICY.replace("  - name: site\n", "")
    first = POLICY.partition("  - name: late")[0] + "# edgeproxy: allow unreachable-route no\n"
    report = lint(compose([("a.yaml", first), ("b.yaml", late.replace(ORIGINS, ""))]))
    assert [(found.code, found.place.file) for found in report.findings] == [
        ("idle-allow", "a.yaml"),
        ("unreachable-route", "b.yaml"),
    ]


ORIGINS = 'origins: {pages: {url: "https://you.github.io/"}}\n'


def test_bytes_with_a_mark_at_the_start_are_read_as_the_policy_is() -> None:
    text = POLICY.replace("name: late", "name: late # edgeproxy: allow unreachable-route soon")
    assert lint(compose([("a.yaml", b"\xef\xbb\xbf" + text.encode())])).findings == ()


def test_a_policy_with_faults_is_not_looked_at() -> None:
    with pytest.raises(PolicyError):
        lint(parse(POLICY + "    nonsense: 1 # edgeproxy: allow unknown-key no\n"))
