"""Recordings are read as one stream; what is damaged is counted or named, and never a traceback."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.io import FlowReader as MitmproxyReader
from mitmproxy.io import FlowWriter
from mitmproxy.test import tflow

from edgeproxy.engine.flows import flows, written
from edgeproxy.http import Headers
from edgeproxy.traffic import Fetched, Recalled, Seen, Unreadable, Visit, read
from edgeproxy.traffic.logs import parse_line
from edgeproxy.traffic.reading import UNREADABLE
from edgeproxy.traffic.redaction import Redaction
from edgeproxy.traffic.visit import visit

SEEN = visit(
    "GET", "example.org:8080", "/a?x=1", at_s=1791640536.0, status=200, scheme="https",
    headers=Headers.of(("Host", "example.org:8080"), ("Accept", "*/*")), bytes=12,
    client=ip_address("2001:db8::1"), answer=Headers.of(("etag", '"a"')),
    fetched=Fetched("site /a", 200, Headers.of(("x", "a: b"))),
    recalled=Recalled("site", "none", "key", "hit", "abc"),
)  # fmt: skip


def reading(data: bytes) -> list[Visit | None]:
    return list(flows(io.BufferedReader(io.BytesIO(data))))  # type: ignore[arg-type]


def test_a_flow_of_ours_comes_back_whole_and_mitmproxy_reads_it() -> None:
    assert reading(written(SEEN) * 2) == [SEEN, SEEN]
    (flow,) = MitmproxyReader(io.BytesIO(written(SEEN))).stream()
    assert flow.request.url == "https://example.org:8080/a?x=1"  # type: ignore[attr-defined]


def test_a_flow_of_mitmproxy_is_read() -> None:
    out = io.BytesIO()
    writer = FlowWriter(out)
    writer.add(tflow.tflow(resp=True))
    writer.add(tflow.tdnsflow())
    found, other = reading(out.getvalue())
    assert other is None
    assert found is not None
    assert (found.method, found.path, found.status, found.bytes) == ("GET", "/path", 200, 7)


@pytest.mark.parametrize(
    "data", [b"9:", b"999999999999:x", b"5:aaaaa,", b"3:abc}", written(SEEN)[:-9]], ids=range(5)
)
def test_a_damaged_flow_file_is_named(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "traffic.mitm"
    file.write_bytes(data)
    with pytest.raises(Unreadable, match=r"traffic\.mitm: after 0 records"):
        list(read([file], flows, Seen()))


@given(st.binary(max_size=200), st.integers(0, 400))
def test_no_damage_to_a_flow_file_is_a_traceback(junk: bytes, at: int) -> None:
    data = written(SEEN)
    with suppress(Unreadable):
        assert len(reading(data[:at] + junk + data[at + len(junk) :])) < 50


@given(st.text(max_size=200))
def test_a_line_is_read_or_refused(line: str) -> None:
    with suppress(*UNREADABLE):
        assert parse_line(line).status >= 100


def test_formats_are_told_apart(tmp_path: Path) -> None:
    entry = {
        "startedDateTime": "2026-10-10T13:55:36Z",
        "request": {
            "method": "GET", "url": "https://e.org/a?b=1",
            "headers": [{"name": ":path", "value": "/"}, {"name": "Accept", "value": "x"}],
        },
        "response": {"status": 404, "headers": []},
    }  # fmt: skip
    har, log = tmp_path / "a.har", tmp_path / "a.log"
    har.write_text("\ufeff" + json.dumps({"log": {"version": "1.2", "entries": [entry]}}))
    log.write_text(
        '192.0.2.1 - - [10/Oct/2026:13:55:36 +0000] "GET /a HTTP/1.1" 200 5 "-" "B 1"\nnonsense\n'
    )
    seen = Seen()
    found = list(read([har, log], flows, seen, host="WWW.e.org"))
    assert [(one.url, one.status) for one in found] == [
        ("https://e.org/a", 404), ("http://www.e.org/a", 200)
    ]  # fmt: skip
    assert found[0].headers.get("accept") == "x"
    assert str(found[1].client) == "192.0.2.1"
    assert found[1].headers.get("user-agent") == "B 1"
    assert (seen.total, seen.bad) == (3, 1)


def test_credentials_are_redacted_and_what_decides_is_kept() -> None:
    redaction = Redaction(["x-inner"], ["ep_*"])
    headers = Headers.of(
        ("Authorization", "Bearer abc"), ("Cookie", "ep_hero=bold; sid=abc"), ("X-Inner", "abc"),
        ("Set-Cookie", "sid=abc; Path=/"), ("Referer", "https://e.org/?token=abc"), ("Accept", "x"),
    )  # fmt: skip
    assert dict(redaction.headers(headers).items()) == {
        "Authorization": "Bearer redacted", "Cookie": "ep_hero=bold; sid=redacted",
        "X-Inner": "redacted", "Set-Cookie": "sid=redacted; Path=/",
        "Referer": "https://e.org/?token=redacted", "Accept": "x",
    }  # fmt: skip
    assert redaction.query("page=2&code=abc&x-inner=1&h=0123456789abcdef0123456789abcdef") == (
        "page=2&code=redacted&x-inner=redacted&h=redacted"
    )
