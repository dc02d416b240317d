"""The formats of other servers, held to how Apache defines them (mod_log_config)."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.log_formats import combined, common
from edgeproxy.traffic.logs import parse_line

ENTRY: dict[str, Any] = {
    "time": "2000-10-10T20:55:36Z", "method": "GET", "path": "/apache_pb.gif", "status": 200,
    "bytes": 2326, "client": "127.0.0.1", "protocol": "HTTP/1.0",
    "referer": "http://www.example.com/start.html",
    "user_agent": "Mozilla/4.08 [en] (Win98; I ;Nav)",
}  # fmt: skip

QUOTED = r'"((?:[^"\\\x00-\x1f\x7f-\U0010ffff]|\\["\\bnrtv]|\\x[0-9a-f]{2})*)"'
COMMON = re.compile(
    r"([0-9a-f.:]+) - - "
    r"\[(\d\d/(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)/\d{4}"
    r":\d\d:\d\d:\d\d [+-]\d{4})\] "
    + QUOTED + r" (\d{3}|-) ([1-9]\d*|-)"
)  # fmt: skip
COMBINED = re.compile(f"{COMMON.pattern} {QUOTED} {QUOTED}")


def unescaped(text: str) -> str:
    """What stood there before Apache's escapes, as latin-1."""
    names = {"b": "\b", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

    def one(match: re.Match[str]) -> str:
        found = match.group(1)
        return chr(int(found[1:], 16)) if found[0] == "x" else names.get(found, found)

    return re.sub(r"\\(x[0-9a-f]{2}|.)", one, text)


def test_the_example_of_apaches_manual() -> None:
    assert common(ENTRY) == (
        '127.0.0.1 - - [10/Oct/2000:20:55:36 +0000] "GET /apache_pb.gif HTTP/1.0" 200 2326'
    )
    assert combined(ENTRY) == (
        f'{common(ENTRY)} "http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)"'
    )


def test_what_is_not_there_is_a_dash() -> None:
    entry = {**ENTRY, "status": 0, "bytes": 0, "referer": "", "user_agent": ""}
    assert combined(entry).endswith('HTTP/1.0" - - "-" "-"')


def test_months_are_english() -> None:
    for number, name in enumerate(["Jan", "Mar", "May", "Dec"]):
        month = (1, 3, 5, 12)[number]
        entry = {**ENTRY, "time": f"2026-{month:02}-09T00:00:00Z"}
        assert f"[09/{name}/2026:00:00:00 +0000]" in common(entry)


anything = st.text(st.characters(max_codepoint=255), max_size=80)


@given(path=anything, referer=anything, agent=anything)
def test_whatever_clients_write_is_one_line_that_says_it(
    path: str, referer: str, agent: str
) -> None:
    line = combined({**ENTRY, "path": path, "referer": referer, "user_agent": agent})
    found = COMBINED.fullmatch(line)
    assert found is not None
    assert found[1] == "127.0.0.1"
    assert unescaped(found[3]) == f"GET {path} HTTP/1.0"
    for text, shown in ((referer, found[6]), (agent, found[7])):
        assert unescaped(shown) == (text or "-")


def test_replay_reads_them() -> None:
    agent = 'a "quoted" \\ agent'
    seen = parse_line(combined({**ENTRY, "user_agent": agent}), "www.example.org")
    assert (seen.method, seen.path, seen.status, seen.bytes) == ("GET", "/apache_pb.gif", 200, 2326)
    assert str(seen.client) == "127.0.0.1"
    assert seen.headers.get("referer") == ENTRY["referer"]
    assert seen.headers.get("user-agent") == agent
    assert parse_line(common(ENTRY), "www.example.org").headers.get("referer") is None
