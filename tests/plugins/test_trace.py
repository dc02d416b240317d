"""The context of traces: what is valid goes on, what is not does not, and the log names it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.testing import Proxy, running
from edgeproxy_trace.context import TraceContext, parse, started, state
from tests.journeys.conftest import RawOrigin

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01"
STATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
ANSWER = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 2\r\n\r\nhi"

# ------------------------------------------------------------------------ reading


@pytest.mark.parametrize(
    "text",
    [
        VALID.upper(), VALID[:-1], VALID + "-more", f"ff{VALID[2:]}", f"0{VALID}",
        VALID.replace(TRACE, "0" * 32), VALID.replace(PARENT, "0" * 16), VALID.replace("-", "_"),
        f"01{VALID[2:]}more", "", "00-" + "g" * 32 + f"-{PARENT}-01", f"{VALID},{VALID}",
        f"{VALID} ",
        VALID.replace("4", "٤", 1),
    ],
)  # fmt: skip
def test_what_is_not_valid_is_none(text: str) -> None:
    assert parse([text]) is None


def test_there_is_one_or_none() -> None:
    assert parse([VALID]) == TraceContext(TRACE, PARENT, 1)
    assert parse([]) is None
    assert parse([VALID, VALID]) is None


@pytest.mark.parametrize("later", ["01", "cc-what-is-new", "01-"])
def test_of_a_later_version_what_is_known_counts(later: str) -> None:
    version, dash, more = later.partition("-")
    assert str(parse([f"{version}{VALID[2:]}{dash}{more}"])) == VALID


def test_unknown_flags_do_not_go_on() -> None:
    assert str(parse([VALID[:-2] + "ff"])) == VALID[:-2] + "03"


@given(st.text(max_size=80))
def test_whatever_is_sent_gives_a_valid_one_or_none(text: str) -> None:
    found = parse([text])
    if found is not None:
        assert parse([str(found)]) == found


@given(st.booleans())
def test_what_begins_here_is_valid(is_sampled: bool) -> None:
    context = started(is_sampled=is_sampled)
    assert parse([str(context)]) == context
    assert (context.flags & 1 == 1) is is_sampled


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([STATE], STATE),
        (["congo=t61rcWkgMzE", " rojo=00f067aa0ba902b7 "], STATE),
        (["a=1,,b=2"], "a=1,b=2"),
        (["fw529a3039@dt=1"], "fw529a3039@dt=1"),
        ([], ""),
        (["a=1,a=2"], ""),
        (["A=1"], ""),
        (["a"], ""),
        (["a="], ""),
        (["a=1=2"], ""),
        (["a=\x7f"], ""),
        ([",".join(f"k{number}=1" for number in range(33))], ""),
        (["a=" + "x" * 250, "b=" + "x" * 250, "c=" + "x" * 50], ""),
    ],
)
def test_state_is_one_list_or_nothing(lines: list[str], expected: str) -> None:
    assert state(lines) == expected


# ------------------------------------------------------------------------ carrying

POLICY = """\
version: 1
accelerator: on
SECTION
origins: {site: {url: "http://site.example/", kind: KIND}}
cache: {memory: {}}
routes:
  - {name: echo, match: {path: /echo}, respond: {body: hi},
     response_headers: {set: {x-trace: "${trace.id}"}}}
  - {name: site}
"""


@asynccontextmanager
async def served(
    section: str = "trace: {}", kind: str = "http"
) -> AsyncIterator[tuple[Proxy, RawOrigin]]:
    policy = POLICY.replace("SECTION", section).replace("KIND", kind)
    async with (
        RawOrigin(ANSWER) as origin,
        running(policy, origins={"site": origin.url}) as proxy,
    ):
        yield proxy, origin


@pytest.mark.parametrize("kind", ["http", "pages"])
async def test_a_valid_context_goes_on_to_the_origin_and_into_the_log(kind: str) -> None:
    async with served(kind=kind) as (proxy, origin):
        await proxy.get("/", headers={"traceparent": VALID, "tracestate": STATE})
        told = origin.fields()
        assert (told["traceparent"], told["tracestate"]) == (VALID, STATE)
        assert proxy.log[-1]["trace_id"] == TRACE
        reply = await proxy.get("/echo", headers={"traceparent": VALID})
        assert reply.headers["x-trace"] == TRACE


async def test_what_is_not_valid_reaches_no_origin() -> None:
    async with served() as (proxy, origin):
        await proxy.get("/", headers={"traceparent": VALID.upper(), "tracestate": STATE})
        assert not {"traceparent", "tracestate"} & set(origin.fields())
        assert "trace_id" not in proxy.log[-1]


async def test_a_trace_begins_only_if_the_policy_says_so() -> None:
    async with served() as (proxy, origin):
        await proxy.get("/")
        assert "traceparent" not in origin.fields()
    async with served("trace: {start: true}") as (proxy, origin):
        await proxy.get("/", headers={"tracestate": STATE})
        told = origin.fields()
        context = parse([told["traceparent"]])
        assert context is not None
        assert context.flags & 1
        assert proxy.log[-1]["trace_id"] == context.trace_id
        assert "tracestate" not in told
    async with served("trace: {start: true, sample: 0}") as (proxy, origin):
        await proxy.get("/")
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-02", origin.fields()["traceparent"])


async def test_hits_are_remembered_and_each_line_names_its_own_trace() -> None:
    async with served("trace: {start: true}") as (proxy, origin):
        headers: dict[str, Any] = {"traceparent": VALID}
        other = VALID.replace(TRACE, TRACE[::-1])
        while not proxy.server.app.counts.remembered:
            await proxy.get("/", headers=headers)
            await proxy.server.app.plan.cache.settled()
            assert len(proxy.log) < 10
        await proxy.get("/", headers={"traceparent": other})
        await proxy.get("/")
        assert len(origin.heads) == 1
        assert proxy.server.app.counts.remembered == 3
        assert [line.get("trace_id") for line in proxy.log[-3:]] == [TRACE, TRACE[::-1], None]


async def test_without_the_section_both_fields_pass_as_they_come() -> None:
    policy = POLICY.replace("SECTION", "").replace("KIND", "http").replace("${trace.id}", "none")
    async with (
        RawOrigin(ANSWER) as origin,
        running(policy, origins={"site": origin.url}) as proxy,
    ):
        await proxy.get("/", headers={"traceparent": "nonsense"})
        assert origin.fields()["traceparent"] == "nonsense"
