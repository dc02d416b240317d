"""What is confidential in a request is in no explanation that is kept, wherever it comes up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.api import Exchange, Fact, Filter, Matcher, Plugin, Response, hookimpl
from edgeproxy.explain import Explanation, arriving, explain, tell
from edgeproxy.explain.redaction import redacted, without_values
from edgeproxy.http import Headers
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.installed import Installed, Registry, installed
from edgeproxy.policy.load import parse

SESSION = Fact[str]("leaky.session")


class Everything(Matcher[bool]):
    """Looks at all there is."""

    def seen(self, exchange: Exchange) -> Any:
        fields = [[name, value] for name, value in exchange.request.headers.items()]
        return {"cookies": exchange.request.cookies(), "query": exchange.request.query, "f": fields}

    def matches(self, exchange: Exchange) -> bool:
        return False


class Repeat(Filter):
    """Says in a field what the client has sent."""

    def before_send(self, exchange: Exchange, response: Response) -> None:
        response.headers.set("x-session", exchange.facts[SESSION] or "")
        exchange.cookies_to_set.append(f"sid={exchange.facts[SESSION]}; Path=/")


class Leaky(Plugin):
    matchers = {"everything": Everything}
    filters = {"repeat": Repeat}

    def facts(self) -> list[Fact[str]]:
        return [SESSION]

    @hookimpl
    def annotate(self, exchange: Exchange) -> None:
        exchange.facts[SESSION] = exchange.request.cookies().get("sid", "")


POLICY = """\
version: 1
plugins: [leaky]
origins: {site: {url: "http://site.example/", kind: http}}
routes:
  - {name: all, match: {everything: true}, origin: site}
  - {name: form, match: {body: {form: {pin: "1"}}}, origin: site}
  - name: beta
    match: {query: {code: "7"}, header: {x-api-key: k}, cookie: {sid: c}}
    origin: site
  - {name: back, match: {path: /back}, redirect: /to}
  - name: site
    repeat: {}
    request_headers: {set: {x-sent: "${leaky.session}"}}
"""


@pytest.fixture(scope="module")
def plan() -> Plan:
    leaky = Installed("leaky", lambda: Leaky, "a-leak")
    return compile_plan(parse(POLICY, registry=Registry([*installed().entries, leaky])))


async def kept(plan: Plan, target: str = "/", *fields: tuple[str, str], **how: Any) -> Any:
    exchange = arriving(plan, f"http://a.example{target}", headers=Headers.of(*fields), **how)
    return redacted(await explain(plan, exchange), exchange.request)


SECRET = "ab12cd34"


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/", [("cookie", f"a=b; sid={SECRET}")]),
        ("/", [("authorization", f"Bearer {SECRET}")]),
        ("/", [("x-api-key", SECRET)]),
        ("/", [("x-session-token", SECRET)]),
        (f"/?code={SECRET}", []),
        (f"/?{SECRET}", []),
        (f"/back?next=%2F{SECRET}", []),
        ("/", [("referer", f"https://a.example/?token={SECRET}")]),
    ],
)
async def test_a_secret_is_hidden_wherever_it_comes_up(
    plan: Plan, target: str, fields: list[tuple[str, str]]
) -> None:
    data = await kept(plan, target, *fields)
    assert SECRET not in json.dumps(data)
    assert SECRET not in tell(Explanation.from_json(data))


@given(st.text("abcdef0123456789", min_size=6, max_size=40), st.sampled_from("cqa"))
def test_no_secret_of_six_characters_or_more_is_left(plan: Plan, secret: str, where: str) -> None:
    secret = f"zz{secret}"  # so that no word of ours can hold it by chance
    fields = {"c": ("cookie", f"sid={secret}"), "a": ("authorization", f"Basic {secret}")}
    target = f"/x?sid={secret}" if where == "q" else "/x"
    data = asyncio.run(kept(plan, target, *([fields[where]] if where in fields else [])))
    assert secret not in json.dumps(data)


async def test_short_values_are_hidden_where_they_stand(plan: Plan) -> None:
    data = await kept(plan, "/?code=7", ("cookie", "sid=x1; ep_hero=bold"), ("x-api-key", "k9"))
    beta = next(route for route in data["routes"] if route["name"] == "beta")
    seen = {clause["key"]: clause["seen"] for clause in beta["matches"][0]["clauses"]}
    assert seen == {
        "query": {"code": ["redacted"]},
        "header": {"x-api-key": "redacted"},
        "cookie": {"sid": "redacted"},
    }
    assert data["arrival"]["url"] == "http://a.example/?code=redacted"
    assert ["cookie", "sid=redacted; ep_hero=bold"] in data["arrival"]["headers"]


async def test_what_a_body_holds_is_hidden(plan: Plan) -> None:
    form = ("content-type", "application/x-www-form-urlencoded")
    exchange = arriving(
        plan, "http://a.example/", method="POST", headers=Headers.of(form), body=b"pin=4711"
    )
    explanation = await explain(plan, exchange)
    assert "4711" in json.dumps(explanation.as_json())  # the operator's own input, on a terminal
    assert "4711" not in json.dumps(redacted(explanation, exchange.request))


async def test_what_is_harmless_stays(plan: Plan) -> None:
    fields = (("user-agent", "Mozilla/5.0"), ("sec-ch-ua-mobile", "?1"), ("accept", "text/html"))
    headers = (await kept(plan, "/", *fields))["arrival"]["headers"]
    assert {tuple(field) for field in headers} >= set(fields)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("/a?b=c&d", "/a?b=redacted&redacted"),
        ("see https://a.example/?b=c d", "see https://a.example/?b=redacted d"),
        ("?1", "?1"),
        ("a ? b", "a ? b"),
    ],
)
def test_queries_keep_their_names(text: str, hidden: str) -> None:
    assert without_values(text) == hidden
