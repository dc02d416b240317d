"""Rows 42 and 52: who holds up the event loop is named while it does, and who always fails is left
out for a while."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from edgeproxy.admin.asked import Nothing
from edgeproxy.admin.messages import Refusal
from edgeproxy.admin.serving import ServingOperations
from edgeproxy.api import Exchange, Plugin, Response, Tier, hookimpl
from edgeproxy.pipeline import MAX_FAILURES
from edgeproxy.policy.installed import Installed, Registry
from edgeproxy.policy.installed import installed as all_installed
from edgeproxy.testing import running
from edgeproxy_memory_cache.plugin import MemoryTier
from tests.threats.raw import Origin, answering, ask

POLICY = """\
version: 1
plugins: [slow]
origins: {site: {url: http://127.0.0.1:1/, kind: http}}
routes: [{name: all, origin: site}]
"""
FRESH = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok"


class Heard(logging.Handler):
    """Lets go of whoever waits for a message of the watchdog, once it has come."""

    def __init__(self) -> None:
        super().__init__()
        self.held_up, self.goes_on = threading.Event(), threading.Event()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        (self.goes_on if "goes on" in self.said[-1] else self.held_up).set()

    def wait(self) -> None:
        assert self.held_up.wait(20), "nobody noticed"


@pytest.fixture
def heard() -> Iterable[Heard]:
    handler = Heard()
    logger = logging.getLogger("edgeproxy.watchdog")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def registry(plugin: type[Plugin]) -> Registry:
    return Registry(
        [*all_installed().values(), Installed("slow", lambda: plugin, distribution="slow-plugin")]
    )


def in_admit(wait: Callable[[], None]) -> type[Plugin]:
    class Slow(Plugin):
        @hookimpl
        def admit(self, exchange: Exchange) -> Response | None:
            if exchange.request.path == "/slow":
                wait()
            return None

    return Slow


def in_before_send(wait: Callable[[], None]) -> type[Plugin]:
    class Slow(Plugin):
        @hookimpl
        async def before_send(self, exchange: Exchange, response: Response) -> None:
            await asyncio.sleep(0)
            if exchange.request.path == "/slow":
                wait()

    return Slow


def in_a_tier(wait: Callable[[], None]) -> type[Plugin]:
    class SlowTier(MemoryTier):
        def get(self, key: str) -> Any:
            if "/slow" in key:
                wait()
            return super().get(key)

    class Slow(Plugin):
        @hookimpl
        def register_tiers(self) -> Iterable[Tier]:
            return [SlowTier(1 << 20)]

    return Slow


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (in_admit, "plugin 'slow' in admit"),
        (in_before_send, "plugin 'slow' in before_send"),
        (in_a_tier, "plugin 'slow'"),
    ],
)
async def test_plugin_that_holds_up_the_loop_is_named_with_its_stack(
    make: Callable[[Callable[[], None]], type[Plugin]], named: str, heard: Heard
) -> None:
    async with (
        Origin(answering(FRESH)) as origin,
        running(POLICY, origins={"site": origin.url}, registry=registry(make(heard.wait))) as proxy,
    ):
        operations = ServingOperations(proxy.server.app)
        assert (await ask(proxy.port, "/")).status == 200
        assert (await operations.ready(Nothing()))["ready"]
        slow = ask(proxy.port, "/slow", within_s=30)
        assert (await slow).status == 200  # a slow answer is one all the same
        with pytest.raises(Refusal, match="stood still"):
            await operations.ready(Nothing())
        assert heard.said[0].startswith("the event loop is held up for ")
        assert f" s by {named}:" in heard.said[0]
        assert "test_stalls.py" in heard.said[0]
        assert "in wait" in heard.said[0]
        await asyncio.to_thread(heard.goes_on.wait, 20)
        assert sum(proxy.server.app.counts.plugin_errors.values()) == 1
    assert [said for said in heard.said if "goes on" in said]
    assert len(heard.said) == 2


async def test_hook_that_only_fails_is_left_out_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = 0

    class Failing(Plugin):
        @hookimpl
        def annotate(self, exchange: Exchange) -> None:
            nonlocal calls
            calls += 1
            raise ValueError("the lookup is down")

    async with (
        Origin(answering(FRESH)) as origin,
        running(POLICY, origins={"site": origin.url}, registry=registry(Failing)) as proxy,
    ):
        for number in range(MAX_FAILURES + 10):
            assert (await ask(proxy.port, f"/{number}")).status == 200
    assert calls == MAX_FAILURES
    assert "annotate of plugin 'slow' is left out for 30 s" in caplog.text
