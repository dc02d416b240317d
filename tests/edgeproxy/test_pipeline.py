"""The journey without an engine: in which order things happen, and what failures become."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgeproxy.api import Plugin, hookimpl
from edgeproxy.errors import ClientError, UpstreamError
from edgeproxy.http import Exchange, Origin, Request, Response, Target
from edgeproxy.pipeline import handle, http_date
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.load import parse

POLICY = """\
version: 1
origins:
  site: {url: "https://site.example/"}
  app: {url: "http://app.example/", kind: http}
cache: {memory: {max_size: 1MiB}, rules: {any: {ttl: 1h}}}
limits: {hook_timeout: 50ms}
routes:
  - {name: moved, match: {path: /old/**}, redirect: /new/**}
  - {name: app, match: {path: /app/**}, origin: app}
  - {name: nothing, match: {path: /nothing}, respond: {body: ""}}
  - {name: site, match: {path: /**}, origin: site, cache: any}
"""


async def fetch(origin: Origin, request: Request) -> Response:
    return Response.text(200, f"{origin.name} {request.target}")


async def never(origin: Origin, request: Request) -> Response:
    raise AssertionError("the origin is not to be asked")


def plan_of(text: str = POLICY, *instances: tuple[str, Plugin]) -> Plan:
    """A plan; `instances` are plugins that stand in it besides the policy's own."""
    from dataclasses import replace

    from edgeproxy.policy.policy import LoadedPlugin

    policy = parse(text)
    extra = tuple(LoadedPlugin(name, "test", instance) for name, instance in instances)
    return compile_plan(replace(policy, plugins=(*policy.plugins, *extra)))


def asking(target: str = "/", method: str = "GET") -> Exchange:
    path, _, query = target.partition("?")
    return Exchange(Request(method, "www.example.org", path, query or None))


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ("", 200),
        ("hosts: [else.example]", 421),
        ("hosts: [else.example]\nunknown_host: 404", 404),
        ('hosts: [else.example, "*.example.org"]', 200),
        ('hosts: ["*.www.example.org"]', 421),
        ("hosts: [WWW.example.org]", 200),
    ],
)
def test_only_names_that_are_served_get_anything(more: str, status: int) -> None:
    plugin = Greedy()
    plan = plan_of(f"{POLICY}{more}\n", ("greedy", plugin))
    assert at_once(handle(asking("/nothing"), plan, never)).status == status
    assert plugin.asked == (status == 200)


class Greedy(Plugin):
    """Would like to answer everything."""

    asked = False

    @hookimpl
    def admit(self, exchange: Exchange) -> None:
        self.asked = True


def at_once[T](journey: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that must not give up the event loop a single time."""
    try:
        journey.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    journey.close()
    raise AssertionError("the journey was suspended")


# ---------------------------------------------------------------- what never waits


def test_a_redirect_is_answered_without_a_turn_of_the_loop() -> None:
    response = at_once(handle(asking("/old/x?a=b"), plan_of(), never))
    assert (response.status, response.headers.get("location")) == (302, "/new/x?a=b")


def test_a_refusal_is_answered_without_a_turn_of_the_loop() -> None:
    assert at_once(handle(asking("/", "POST"), plan_of(), never)).status == 405


async def test_a_hit_in_memory_is_answered_without_a_turn_of_the_loop() -> None:
    plan = plan_of()
    first = await handle(asking("/page"), plan, fetch)
    await plan.cache.settled()
    exchange = asking("/page")
    second = at_once(handle(exchange, plan, never))
    assert exchange.cache_verdict == "hit"
    assert second.body.data == await first.body.read(100)
    assert "; hit" in (second.headers.get("cache-status") or "")


# ---------------------------------------------------------------- the order of hooks


@dataclass
class Story:
    """What happened, in order."""

    said: list[str] = field(default_factory=list)


class Teller(Plugin):
    """Notes every hook that runs; `answers` makes one of them answer."""

    def __init__(self, story: Story, answers: str = "") -> None:
        super().__init__()
        self.story, self.answers = story, answers

    def note(self, hook: str) -> Response | None:
        self.story.said.append(hook)
        return Response.text(299, hook) if hook == self.answers else None

    @hookimpl
    def annotate(self, exchange: Exchange) -> None:
        self.note("annotate")

    @hookimpl
    async def admit(self, exchange: Exchange) -> Response | None:
        return self.note("admit")

    @hookimpl
    def route(self, exchange: Exchange) -> Target | None:
        self.note("route")
        return None

    @hookimpl
    def cache_key(self, exchange: Exchange) -> list[tuple[str, str]]:
        self.note("cache_key")
        return [("teller", "1")]

    @hookimpl
    def before_fetch(self, exchange: Exchange, request: Request) -> None:
        self.note("before_fetch")

    @hookimpl
    async def after_fetch(self, response: Response) -> None:
        self.note("after_fetch")

    @hookimpl
    def fetch_failed(self, error: UpstreamError) -> None:
        self.note("fetch_failed")

    @hookimpl
    def recover(self, error: UpstreamError) -> Response | None:
        return self.note("recover")

    @hookimpl
    def before_send(self, exchange: Exchange, response: Response) -> None:
        self.note("before_send")


async def told(target: str, fetch: Any = fetch, answers: str = "") -> tuple[list[str], Response]:
    story = Story()
    plan = plan_of(POLICY, ("teller", Teller(story, answers)))
    response = await handle(asking(target), plan, fetch)
    return story.said, response


async def test_hooks_run_in_the_order_of_the_journey() -> None:
    said, response = await told("/page")
    assert said == [
        "annotate", "admit", "route", "cache_key", "before_fetch", "after_fetch", "before_send",
    ]  # fmt: skip
    assert response.status == 200


async def test_a_hit_skips_the_hooks_around_the_origin() -> None:
    story = Story()
    plan = plan_of(POLICY, ("teller", Teller(story)))
    await handle(asking("/page"), plan, fetch)
    story.said.clear()
    await handle(asking("/page"), plan, never)
    assert story.said == ["annotate", "admit", "route", "cache_key", "before_send"]


async def test_whoever_answers_in_admit_ends_the_journey() -> None:
    said, response = await told("/page", never, answers="admit")
    assert said == ["annotate", "admit", "before_send"]
    assert response.status == 299


async def test_recover_may_answer_for_an_origin_that_fails() -> None:
    async def down(origin: Origin, request: Request) -> Response:
        raise UpstreamError(origin.name, "connection_refused", "it refuses")

    said, response = await told("/page", down, answers="recover")
    assert said[-3:] == ["fetch_failed", "recover", "before_send"]
    assert response.status == 299
    said, response = await told("/page", down)
    assert said[-1] == "recover"
    assert response.status == 502
    assert response.headers.get("proxy-status") == (
        'edgeproxy; error=connection_refused; next-hop="site"'
    )
    assert response.headers.get("cache-control") == "no-store"


# ---------------------------------------------------------------- failures


class Broken(Plugin):
    """Fails in one hook, in one way."""

    def __init__(self, hook: str, how: Callable[[], Any], on_error: str = "open") -> None:
        super().__init__()
        self.__dict__["on_error"] = on_error

        def fails(exchange: Exchange) -> Any:
            return how()

        setattr(self, hook, hookimpl(fails))


def raises(error: BaseException) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail


async def hangs() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("hook", "how", "status"),
    [
        ("admit", raises(RuntimeError("x")), 500),
        ("admit", lambda: "nonsense", 500),
        ("admit", hangs, 500),
        ("admit", raises(ClientError(403, "no")), 403),
        ("route", raises(RuntimeError("x")), 500),
        ("route", lambda: Response(200), 500),
        ("cache_key", raises(KeyError("x")), 500),
        ("cache_key", lambda: 5, 500),
        ("before_fetch", raises(RuntimeError("x")), 500),
        ("after_fetch", raises(RuntimeError("x")), 502),
        ("after_fetch", hangs, 502),
        ("before_send", raises(RuntimeError("x")), 500),
        ("annotate", raises(RuntimeError("x")), 200),
        ("annotate", hangs, 200),
    ],
)
async def test_a_hook_that_fails_lets_nothing_through(
    hook: str, how: Callable[[], Any], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "edgeproxy")
    exchange = asking("/page")
    response = await handle(exchange, plan_of(POLICY, ("broken", Broken(hook, how))), fetch)
    assert response.status == status
    assert exchange.response is response
    if status >= 500:
        assert exchange.id in (response.body.data or b"").decode()
        assert b"RuntimeError" not in (response.body.data or b"")
        assert "'broken' failed in" in exchange.error
    if status != 403:
        assert f"plugin 'broken' failed in {hook}" in caplog.text


async def test_a_plugin_may_say_that_its_annotate_must_not_fail() -> None:
    broken = Broken("annotate", raises(RuntimeError("x")), on_error="closed")
    assert (await handle(asking(), plan_of(POLICY, ("broken", broken)), fetch)).status == 500


async def test_what_failed_is_not_stored() -> None:
    calls = iter([RuntimeError("once"), None])

    def once() -> None:
        error = next(calls)
        if error:
            raise error

    plan = plan_of(POLICY, ("broken", Broken("after_fetch", once)))
    assert (await handle(asking("/page"), plan, fetch)).status == 502
    exchange = asking("/page")
    assert (await handle(exchange, plan, fetch)).status == 200
    assert exchange.cache_verdict == "miss"


async def test_an_error_of_our_own_is_a_500_and_told_in_the_log_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(origin: Origin, request: Request) -> Response:
        raise ZeroDivisionError("a fault of ours")

    exchange = asking("/app/x", "POST")
    response = await handle(exchange, plan_of(), broken)
    assert response.status == 500
    assert b"fault of ours" not in (response.body.data or b"")
    assert "a fault of ours" in caplog.text


async def test_cancellation_is_not_an_answer() -> None:
    async def waits(origin: Origin, request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(handle(asking("/app/x"), plan_of(), waits))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---------------------------------------------------------------- answers of the pipeline's own


async def test_a_path_without_a_route_or_an_origin_is_a_404() -> None:
    text = "version: 1\nroutes:\n  - {name: x, match: {path: /x}, respond: {body: x}}\n"
    response = await handle(asking("/y"), plan_of(text), never)
    assert response.status == 404


async def test_a_site_is_asked_with_get_and_head_only() -> None:
    for method in ("POST", "DELETE", "PURGE"):
        response = await handle(asking("/", method), plan_of(), never)
        assert (response.status, response.headers.get("allow")) == (405, "GET, HEAD, OPTIONS")
    response = await handle(asking("/", "OPTIONS"), plan_of(), never)
    assert (response.status, response.body.data) == (204, b"")
    assert (await handle(asking("/app/", "DELETE"), plan_of(), fetch)).status == 200


async def test_every_answer_has_date_via_and_cache_status_where_it_applies() -> None:
    plan = plan_of()
    for target, status in (("/page", True), ("/page", True), ("/app/x", True), ("/old/", False)):
        response = await handle(asking(target), plan, fetch)
        assert response.headers.get_all("via") == ["1.1 edgeproxy"]
        assert len(response.headers.get_all("date")) == 1
        assert ("cache-status" in response.headers) is status


async def test_keys_of_different_requests_never_meet() -> None:
    plan = plan_of()
    targets = ["/a", "/a?", "/a?b", "/a/b", "/a%2Fb", "/A", "/a%20b", "/a?b&c", "/a?c&b"]
    seen: dict[str, Exchange] = {}
    for target in targets:
        exchange = asking(target)
        response = await handle(exchange, plan, fetch)
        body = response.body.data or b""
        assert body.decode() == f"site {exchange.request.target}"
        seen[target] = exchange
    verdicts = {target: exchange.cache_verdict for target, exchange in seen.items()}
    assert verdicts == {**dict.fromkeys(targets, "miss"), "/a?": "hit"}


def test_a_date_is_an_imf_fixdate() -> None:
    assert http_date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert http_date(784111777.9) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"
