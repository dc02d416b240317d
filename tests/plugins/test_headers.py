"""Header rules on both sides of the cache."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.http import Origin, Request, Response


def answer(origin: Origin, request: Request) -> Response:
    return Response.text(
        200, "page", ("x-old", "1"), ("X-Many", "1"), ("x-many", "2"), ("vary", "accept"),
        ("cache-control", "max-age=60"),
    )  # fmt: skip


async def test_the_response_is_edited_in_a_fixed_order(journeys: Any) -> None:
    policy = """
routes:
  - name: all
    origin: a
    response_headers:
      append: {vary: origin, x-new: last, x-list: one}
      add: {x-new: [second, third], x-many: added}
      set: {x-new: first, X-Many: only}
      remove: [X-Old, X-Missing]
"""
    trip = await journeys(policy, answer)()
    fields = [(name.lower(), value) for name, value in trip.response.headers.items()]
    assert "x-old" not in dict(fields)
    assert [value for name, value in fields if name == "x-many"] == ["only", "added"]
    assert trip.header("x-new") == "first, second, third, last"
    assert trip.header("vary") == "accept, origin"
    assert trip.header("x-list") == "one"


async def test_the_stored_copy_is_not_edited(journeys: Any) -> None:
    policy = """
routes:
  - {name: one, match: {query: {v: "1"}}, origin: a, cache: any,
     response_headers: {set: {x-v: one}, remove: x-old}}
  - {name: rest, origin: a, cache: any}
cache: {rules: {any: {ttl: 1h, query: drop}}}
"""
    go = journeys(policy, answer)
    assert (await go("/?v=1")).header("x-v") == "one"
    plain = await go("/?v=2")
    assert plain.exchange.cache_verdict == "hit"
    assert plain.header("x-v") is None
    assert plain.header("x-old") == "1"
    again = await go("/?v=1")
    assert (again.header("x-v"), again.header("x-old")) == ("one", None)


async def test_the_origin_is_sent_what_the_policy_says(journeys: Any) -> None:
    policy = """
routes:
  - name: all
    origin: b
    request_headers: {remove: user-agent, set: {x-edge: "yes"}, append: {accept: text/x}}
"""
    trip = await journeys(policy)(user_agent="x", accept="text/html", x_edge="forged")
    (request,) = trip.asked
    assert "user-agent" not in request.headers
    assert request.headers.get_all("x-edge") == ["yes"]
    assert request.headers.joined("accept") == "text/html, text/x"


async def test_a_fact_sent_to_the_origin_is_part_of_the_key(journeys: Any) -> None:
    policy = """
content: {languages: [en, de]}
cache: {rules: {any: {ttl: 1h}}}
routes:
  - {name: all, origin: a, cache: any, request_headers: {set: {x-lang: "${content.language}"}}}
"""

    def by_language(origin: Origin, request: Request) -> Response:
        return Response.text(200, request.headers.get("x-lang") or "none")

    go = journeys(policy, by_language)
    for _ in range(2):
        assert (await go(accept_language="de")).body == b"de"
        assert (await go(accept_language="en")).body == b"en"
    assert (await go(accept_language="de-CH")).exchange.cache_verdict == "hit"


async def test_values_made_of_facts_keep_caches_behind_apart(journeys: Any) -> None:
    policy = """
routes:
  - {name: all, origin: a, response_headers: {set: {x-device: "a ${content.device} b"}}}
"""
    trip = await journeys(policy, answer)(user_agent="Mozilla/5.0 (iPhone) Mobile")
    assert trip.header("x-device") == "a mobile b"
    assert "private" in (trip.header("cache-control") or "")


@pytest.mark.parametrize("sent", ["de\r\nset-cookie: a=b", "de\nx: y", "de\0", "d\x7fe"])
async def test_no_fact_can_end_a_line(journeys: Any, sent: str) -> None:
    """A fact may hold what a client sent; here a template renders such a value."""
    from edgeproxy.http import Exchange, Fact, Headers
    from edgeproxy.http import Request as Incoming
    from edgeproxy.values import Template

    exchange = Exchange(Incoming("GET", "x", "/"))
    exchange.facts[Fact[str]("some.fact")] = sent
    headers = Headers()
    headers.set("x-fact", Template("<${some.fact}>").render(exchange))
    ((_, raw),) = headers.fields
    assert not set(raw) & {0, 10, 13, 127}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{}", "nothing to change"),
        ("{set: {host: x}}", "frames the message"),
        ("{remove: Content-Length}", "frames the message"),
        ("{add: {Transfer-Encoding: x}}", "frames the message"),
        ("{set: {'a b': x}}", "not a header field name"),
        ('{set: {a: "x\\ny"}}', "control characters"),
        ("{set: {a: '${geo.contry}'}}", "geo.contry"),
        ("{sett: {a: b}}", "sett"),
    ],
)
def test_what_cannot_work_is_a_fault(fault: Any, block: str, message: str) -> None:
    for filter in ("request_headers", "response_headers"):
        text = f"routes:\n  - {{name: all, origin: a, {filter}: {block}}}\n"
        assert message in fault(text)
