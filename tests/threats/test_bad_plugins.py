"""Row 42: a plugin that fails does what `edgeproxy/hooks.py` says, and nothing to anybody else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgeproxy.api import (
    Body,
    ClientError,
    Exchange,
    Fact,
    Headers,
    Response,
    Target,
    UpstreamError,
    hookimpl,
)
from edgeproxy.api import Plugin as BasePlugin
from edgeproxy.errors import PluginError, PolicyError
from edgeproxy.policy.installed import Installed, Registry
from edgeproxy.policy.installed import installed as all_installed
from edgeproxy.testing import Proxy, running
from tests.threats.raw import Origin, answering, ask

POLICY = """\
version: 1
plugins: [bad, good]
origins:
  site: {{url: http://127.0.0.1:1/, kind: http}}
  down: {{url: http://127.0.0.1:1/, kind: http}}
cache: {{memory: {{max_size: 8MiB}}}}
limits: {{hook_timeout: 100ms}}
routes:
  - {{name: down, match: {{path: /down/**}}, origin: down}}
  - {{name: bad, match: {{path: /bad/**}}, origin: site}}
  - {{name: rest, origin: site}}
# {comment}
"""

FRESH = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=60\r\n\r\ngood"


class Ends(BaseException):
    """What is no Exception, as code that wants to leave all at once may raise."""


class Nonsense:
    """Refuses to be looked at."""

    def __bool__(self) -> bool:
        raise ValueError("no truth in it")

    def __iter__(self) -> Iterator[Any]:
        raise ValueError("nothing in it")


async def _hang(*_: Any) -> None:
    await asyncio.Event().wait()


async def _swallow(*_: Any) -> None:
    """Hangs, and takes no hint that its time is up; only once, or no loop could ever end it."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return


async def _fail_later(*_: Any) -> None:
    await asyncio.sleep(0)
    raise ValueError("later")


async def _fail_in_a_group(*_: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_fail_later())


def _raise(error: BaseException) -> Callable[..., Any]:
    def act(*_: Any) -> None:
        raise error

    return act


BAD: dict[str, Callable[..., Any]] = {
    "raises": _raise(ValueError("broken")),
    "raises a lookup error": _raise(KeyError("absent")),
    "asserts": _raise(AssertionError()),
    "runs out of stack": _raise(RecursionError("too deep")),
    "runs out of memory": _raise(MemoryError()),
    "leaves the program": _raise(SystemExit(3)),
    "raises no Exception": _raise(Ends("all")),
    "says it was cancelled": _raise(asyncio.CancelledError()),
    "stops an iteration": _raise(StopIteration()),
    "fails later": _fail_later,
    "fails in a group": _fail_in_a_group,
    "hangs": _hang,
    "returns text": lambda *_: "nonsense",
    "returns a number": lambda *_: 42,
    "returns the class": lambda *_: Response,
    "returns nonsense": lambda *_: Nonsense(),
}  # fmt: skip

PHASES = {
    "annotate": 200, "admit": 500, "route": 500, "cache_key": 500, "before_fetch": 500,
    "after_fetch": 502, "fetch_failed": 502, "recover": 502, "before_send": 500, "finish": 200,
}  # fmt: skip

ARGUMENTS = {
    "before_fetch": "exchange, request",
    "after_fetch": "exchange, response",
    "before_send": "exchange, response",
    "fetch_failed": "exchange, error",
    "recover": "exchange, error",
}


def plugin(phase: str, act: Callable[..., Any], **attributes: Any) -> type[BasePlugin]:
    """A plugin with one hook, which does as `act` says for paths under /bad/ and /down/."""

    def hook(self: Any, exchange: Exchange, *rest: Any) -> Any:
        return act(exchange, *rest) if exchange.request.path != "/good" else None

    names = ARGUMENTS.get(phase, "exchange")
    scope: dict[str, Any] = {"hook": hook}
    exec(f"def {phase}(self, {names}): return hook(self, {names})", scope)
    return type("Bad", (BasePlugin,), {phase: hookimpl(scope[phase]), **attributes})


class Good(BasePlugin):
    """Another plugin, which must not notice."""

    @hookimpl
    def before_send(self, exchange: Exchange, response: Response) -> None:
        response.headers.set("x-good", "1")


def registry(bad: type[BasePlugin], good: type[BasePlugin] = Good) -> Registry:
    own = tuple(all_installed().values())
    return Registry(
        [
            *own,
            Installed("bad", lambda: bad, distribution="bad-plugin"),
            Installed("good", lambda: good, distribution="good-plugin"),
        ]
    )


async def _is_well(proxy: Proxy) -> None:
    """Others are served as ever, and the log of accesses is whole."""
    reply = await ask(proxy.port, "/good")
    assert (reply.status, reply.body, reply.get("x-good")) == (200, b"good", "1")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("how", BAD)
async def test_failing_hook_does_as_its_specification_says(
    phase: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    status = PHASES[phase]
    target = "/down/x" if phase in ("fetch_failed", "recover") else "/bad/x"
    caplog.set_level(logging.WARNING, "edgeproxy")
    async with (
        Origin(answering(FRESH)) as origin,
        running(
            POLICY.format(comment=""),
            origins={"site": origin.url},
            registry=registry(plugin(phase, BAD[how])),
        ) as proxy,
    ):
        for _ in range(2):
            began_s = time.monotonic()
            reply = await ask(proxy.port, target, within_s=5)
            assert reply.status == status, reply
            assert time.monotonic() - began_s < 2
            assert b"broken" not in reply.body
        if status == 500:
            sent = [asked.target for asked in origin.requests()]
            assert phase == "before_send" or target not in sent
        if phase == "after_fetch":
            assert len([a for a in origin.requests() if a.target == target]) == 2  # nothing stored
        await _is_well(proxy)
    logged = [entry["status"] for entry in proxy.log if entry["path"] == target]
    assert logged == [status, status]
    assert f"plugin 'bad' failed in {phase}" in caplog.text


async def test_finish_that_hangs_holds_no_client_up() -> None:
    async with (
        Origin(answering(FRESH)) as origin,
        running(
            POLICY.format(comment="").replace("hook_timeout: ", "hook_timeout: 1"),
            origins={"site": origin.url},
            registry=registry(plugin("finish", BAD["hangs"])),
        ) as proxy,
    ):
        first = await ask(proxy.port, "/bad/x")
        assert first.status == 200
        assert not proxy.log  # the hook is still waiting, the client is not
    assert len(proxy.log) == 1


async def test_annotate_that_must_not_fail_ends_the_request_if_the_plugin_says_so() -> None:
    bad = plugin("annotate", _raise(ValueError("broken")), on_error="closed")
    async with (
        Origin() as origin,
        running(
            POLICY.format(comment=""), origins={"site": origin.url}, registry=registry(bad)
        ) as proxy,
    ):
        assert (await ask(proxy.port, "/bad/x")).status == 500
        assert not origin.received


@pytest.mark.parametrize("how", ["hangs", "takes no hint"])
async def test_admission_that_hangs_lets_nobody_through(how: str) -> None:
    bad = plugin("admit", _hang if how == "hangs" else _swallow)
    async with (
        Origin() as origin,
        running(
            POLICY.format(comment=""), origins={"site": origin.url}, registry=registry(bad)
        ) as proxy,
    ):
        waiting = asyncio.gather(*(ask(proxy.port, "/bad/x") for _ in range(20)))
        assert (await ask(proxy.port, "/good")).status == 200  # meanwhile
        assert {reply.status for reply in await waiting} == {500}
        assert not any(asked.target == "/bad/x" for asked in origin.requests())


ANSWERS: dict[str, Callable[[], Any]] = {
    "status 0": lambda: Response(0),
    "status 42": lambda: Response(42),
    "status 100": lambda: Response(100),
    "status 101": lambda: Response(101),
    "status 103": lambda: Response(103),
    "status 1000": lambda: Response(1000),
    "a status in words": lambda: Response("ok"),  # type: ignore[arg-type]
    "no status": lambda: Response(None),  # type: ignore[arg-type]
    "text for a body": lambda: Response(200, Headers(), "text"),  # type: ignore[arg-type]
    "no body": lambda: Response(200, Headers(), None),  # type: ignore[arg-type]
    "a mapping for headers": lambda: Response(200, {"a": "b"}),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", ANSWERS)
@pytest.mark.parametrize("phase", ["admit", "recover"])
async def test_answer_that_cannot_be_sent_is_a_failure(phase: str, what: str) -> None:
    bad = plugin(phase, lambda *_: ANSWERS[what]())
    async with (
        Origin(answering(FRESH)) as origin,
        running(
            POLICY.format(comment=""), origins={"site": origin.url}, registry=registry(bad)
        ) as proxy,
    ):
        target = "/down/x" if phase in ("fetch_failed", "recover") else "/bad/x"
        reply = await ask(proxy.port, target, within_s=5)
        assert reply.status in (500, 502)
        await _is_well(proxy)


async def _broken_stream() -> Any:
    yield b"half"
    raise ValueError("broken")


def _spoil_status(exchange: Exchange, response: Response) -> None:
    response.status = 42


def _spoil_body(exchange: Exchange, response: Response) -> None:
    response.body = "text"  # type: ignore[assignment]


def _spoil_stream(exchange: Exchange, response: Response) -> None:
    response.body = Body(stream=_broken_stream())


def _spoil_headers(exchange: Exchange, response: Response) -> None:
    response.headers = None  # type: ignore[assignment]


@pytest.mark.parametrize("spoil", [_spoil_status, _spoil_body, _spoil_stream, _spoil_headers])
@pytest.mark.parametrize("phase", ["after_fetch", "before_send"])
async def test_response_that_a_plugin_spoils_is_an_error_or_visibly_short(
    phase: str, spoil: Any
) -> None:
    async with (
        Origin(answering(FRESH)) as origin,
        running(
            POLICY.format(comment=""),
            origins={"site": origin.url},
            registry=registry(plugin(phase, spoil)),
        ) as proxy,
    ):
        for _ in range(2):
            reply = await ask(proxy.port, "/bad/x", within_s=5)
            assert reply.status in (500, 502) or not reply.whole
        await _is_well(proxy)
        assert len([entry for entry in proxy.log if entry["path"] == "/bad/x"]) == 2


SHARED = Fact[list[str]]("bad.shared", default=[])


def _mutate_request(exchange: Exchange, *_: Any) -> None:
    exchange.request.headers.fields.clear()
    exchange.request.path = "/changed"


def _mutate_response(exchange: Exchange, response: Response) -> None:
    response.headers.set("x-visitor", exchange.request.query or "")
    response.body = Body((exchange.request.query or "").encode())


async def test_what_a_plugin_changes_is_one_clients_own() -> None:
    """The stored answer stays as it is, whatever is done to a copy."""
    async with (
        Origin(answering(FRESH)) as origin,
        running(
            POLICY.format(comment=""),
            origins={"site": origin.url},
            registry=registry(plugin("before_send", _mutate_response)),
        ) as proxy,
    ):
        await asyncio.gather(*(ask(proxy.port, "/bad/x?one") for _ in range(10)))
        reply = await ask(proxy.port, "/bad/x?one")
        assert (reply.body, reply.all("x-visitor")) == (b"one", ["one"])
        assert "hit" in (reply.get("cache-status") or "")
    async with (
        Origin(answering(FRESH)) as origin,
        running(
            POLICY.format(comment=""),
            origins={"site": origin.url},
            registry=registry(plugin("finish", _mutate_request)),
        ) as proxy,
    ):
        for _ in range(3):
            assert (await ask(proxy.port, "/bad/x")).body == b"good"


@pytest.mark.parametrize("error", [ClientError(403, "no"), UpstreamError("site", "x", "y")])
@pytest.mark.parametrize("phase", ["finish"])
async def test_edgeproxys_own_failures_are_as_harmless_in_finish(
    phase: str, error: Exception
) -> None:
    async with (
        Origin(answering(FRESH)) as origin,
        running(
            POLICY.format(comment=""),
            origins={"site": origin.url},
            registry=registry(plugin(phase, _raise(error))),
        ) as proxy,
    ):
        assert (await ask(proxy.port, "/bad/x")).status == 200
        assert [entry["status"] for entry in proxy.log] == [200]


async def test_unknown_origin_in_a_target_is_an_answer() -> None:
    bad = plugin("route", lambda exchange: Target("nowhere", "/"))
    async with (
        Origin() as origin,
        running(
            POLICY.format(comment=""), origins={"site": origin.url}, registry=registry(bad)
        ) as proxy,
    ):
        assert (await ask(proxy.port, "/bad/x")).status in (404, 500)
        assert not origin.received


@pytest.mark.parametrize(
    "pairs", ["nonsense", [("a",)], [("a", "b", "c")], [1, 2], {"a": "b"}, [(1, object())]]
)
async def test_cache_key_that_is_no_list_of_pairs_shows_nobody_anothers_answer(pairs: Any) -> None:
    async with (
        Origin(answering(FRESH)) as origin,
        running(
            POLICY.format(comment=""),
            origins={"site": origin.url},
            registry=registry(plugin("cache_key", lambda *_: pairs)),
        ) as proxy,
    ):
        for _ in range(2):
            reply = await ask(proxy.port, "/bad/x")
            assert reply.status == 500 or "hit" not in (reply.get("cache-status") or "")
        await _is_well(proxy)


# ------------------------------------------------------------ startup and shutdown


def living(hook: str, act: Callable[..., Any]) -> type[BasePlugin]:
    def call(self: Any) -> Any:
        return act()

    call.__name__ = hook
    return type("Bad", (BasePlugin,), {hook: hookimpl(call)})


FAILING = [name for name in BAD if name.startswith(("raises", "leaves", "says", "fails", "hangs"))]

LATER = ("fails later", "fails in a group", "hangs")


@pytest.mark.parametrize("how", FAILING)
async def test_startup_that_fails_stops_the_start(how: str) -> None:
    with pytest.raises((PolicyError, PluginError), match="failed in startup"):
        async with running(
            POLICY.format(comment=""), registry=registry(living("startup", BAD[how]))
        ):
            pass


@pytest.mark.parametrize("how", FAILING)
async def test_startup_that_fails_at_a_reload_changes_nothing(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    without = POLICY.format(comment="").replace("plugins: [bad, good]", "plugins: [good]")
    async with (
        Origin(answering(FRESH)) as origin,
        running(
            without,
            origins={"site": origin.url},
            registry=registry(living("startup", BAD[how])),
        ) as proxy,
    ):
        version = proxy.server.app.plan.version
        async with asyncio.timeout(5):
            await proxy.reload(POLICY.format(comment="again"))
        assert proxy.server.app.plan.version == version
        assert "plugin 'bad' failed in startup" in caplog.text
        await _is_well(proxy)
        await proxy.reload(without.replace("name: rest", "name: others"))
        assert proxy.server.app.plan.version != version
        await _is_well(proxy)


@pytest.mark.parametrize("how", [name for name in FAILING if name != "hangs"])
async def test_shutdown_that_fails_is_logged_and_the_others_end(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    ended = []

    class Other(Good):
        @hookimpl
        async def shutdown(self) -> None:
            ended.append("good")

    async with (
        Origin(answering(FRESH)) as origin,
        running(
            POLICY.format(comment=""),
            origins={"site": origin.url},
            registry=registry(living("shutdown", BAD[how]), Other),
        ) as proxy,
    ):
        await _is_well(proxy)
    assert ended == ["good"]
    assert "plugin 'bad' failed in shutdown" in caplog.text


@pytest.mark.parametrize("how", [how for how in FAILING if how not in LATER])
async def test_tiers_that_cannot_be_registered_stop_the_start(how: str) -> None:
    with pytest.raises((PolicyError, PluginError), match="failed in register_tiers"):
        async with running(
            POLICY.format(comment=""), registry=registry(living("register_tiers", BAD[how]))
        ):
            pass
