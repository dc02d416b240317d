"""Whatever becomes of a good policy, loading it gives a policy or faults with places."""

from collections.abc import Mapping

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.errors import PolicyError
from edgeproxy.policy.installed import Registry
from edgeproxy.policy.load import parse

GOOD = """version: 1
plugins: [acme_auth]
trusted_proxies: [10.0.0.0/8, "::1/128"]
encoded_slashes: false
origins:
  pages: {url: "https://acme.github.io/docs/", connect_timeout: 2s}
  next:
    url: http://localhost:8000
    kind: http
    max_connections: 5
limits: {body_size: 5MB, connections: 100}
weather: {station: roof, token: "${env:EDGE_TOKEN}"}
auth: {realm: docs, key: "${env:EDGE_TOKEN}"}
cache:
  memory: {max_size: 64MiB}
  rules:
    html: {ttl: 10m, status_ttl: {404: 1m}, query: [page]}
    assets: {ttl: 30d, query: drop, tags: [asset]}
routes:
  - name: docs
    match: {path: /docs/**, host: "*.Example.ORG", weather: [rain, NO]}
    greet: {text: "${weather}"}
    origin: pages
    cache: html
    filters: [{sunny: {parts: {a: {share: 1, origin: next}}}}, {greet: {text: again}}]
  - name: split
    matches: [{signed: true}, {path: [/a, {exact: /b}, {regex: "/c+"}]}]
    backend_refs: [{name: pages, weight: 9}, {name: next}]
    cache: false
  - name: gone
    reply:
"""
WORDS = [
    "", " ", "\n", "\n  ", "\t", ":", ": ", "- ", "[", "]", "{", "}", ",", "'", '"', "#", "&a ",
    "*a", "!t ", "|\n", "? ", "---\n", "...\n", "%", "@", "<<: ", "null", "~", "true", "NO", "-1",
    "1e999", "9" * 400, "0x", ".nan", "/", "**", "(", "${", "${x}", "${env:X}", "\x00", "\x7f",
    "\u2028", "é", "😀", "\ud800", "\r", "name", "match", "matches", "filters", "cache", "routes",
    "plugins", "weather", "tides", "acme_graph", "memory", "version", "[[[[[[", "a: {b: ",
]  # fmt: skip

_edits = st.lists(
    st.tuples(st.integers(0, len(GOOD)), st.integers(0, 30), st.sampled_from(WORDS)),
    min_size=1,
    max_size=4,
)
_moves = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=3)


def mutated(edits: list[tuple[int, int, str]], moves: list[tuple[int, int]]) -> str:
    text = GOOD
    for start, length, word in edits:
        text = text[:start] + word + text[start + length :]
    lines = text.split("\n")
    for taken, put in moves:
        lines.insert(put % len(lines), lines.pop(taken % len(lines)))
    return "\n".join(lines)


@given(edits=_edits, moves=_moves)
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_mutated_policy_loads_or_has_faults_with_places(
    edits: list[tuple[int, int, str]],
    moves: list[tuple[int, int]],
    registry: Registry,
    env: Mapping[str, str],
) -> None:
    text = mutated(edits, moves)
    try:
        policy = parse(text, "policy.yaml", registry, env=env)
    except PolicyError as error:
        assert_places_inside(error, text)
    else:
        assert len(policy.version) == 12


def assert_places_inside(error: PolicyError, text: str) -> None:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").split("\n")
    assert error.faults
    places = [fault.place for fault in error.faults]
    for fault, place in zip(error.faults, places, strict=True):
        assert place is not None, fault
        assert place.file == "policy.yaml"
        assert 1 <= place.line <= len(lines)
        width = len(lines[place.line - 1])
        assert 1 <= place.column <= width + 1
        assert place.width >= 1
        assert place.column - 1 + place.width <= max(width, place.column)
        assert fault.message
        assert "\n" not in fault.message
        assert "pydantic" not in fault.message
        assert "Input should" not in fault.message
    assert [(p.line, p.column) for p in places if p] == sorted(
        (p.line, p.column) for p in places if p
    )
