"""Over real sockets, a client gets what `edgeproxy explain --live` says of it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from edgeproxy.explain import explain
from edgeproxy.explain.explanation import Explanation
from edgeproxy.policy.source import write
from edgeproxy.testing import Proxy, Reply, running
from tests.edgeproxy.explain.origins import answer, is_gone
from tests.policies_strategy import Plain, Visit, policies, visits

EXAMPLES = int(os.environ.get("EDGEPROXY_AGREEMENT", "200")) // 100  # of ten visits each
BASES = {"pages": "docs/", "next": "next/", "api": ""}

# What frames a message, and what the clock and the cache have a say in.
MOVING = frozenset(
    ("age", "cache-status", "connection", "content-length", "date", "keep-alive",
     "transfer-encoding")
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _in_silence() -> Iterator[None]:
    """Origins that fail are logged, as they should be."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


class Origins:
    """The three origins of the policies that are drawn, on ports of their own."""

    async def __aenter__(self) -> dict[str, str]:
        self._runners: list[web.AppRunner] = []
        return {name: await self._start(name) for name in BASES}

    async def __aexit__(self, *_: object) -> None:
        for runner in self._runners:
            await runner.cleanup()

    async def _start(self, name: str) -> str:
        async def serve(request: web.BaseRequest) -> web.StreamResponse:
            path = request.path_qs.partition("?")[0]
            if is_gone(path):
                assert request.transport is not None
                request.transport.close()
            made = answer(name, path, request.headers.get("x-edge", ""))
            made.headers.remove("content-length")
            return web.Response(
                status=made.status, headers=list(made.headers.items()), body=made.body.data
            )

        runner = web.AppRunner(_catch_all(serve), access_log=None, shutdown_timeout=1)
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/{BASES[name]}"


def _catch_all(serve: Any) -> web.Application:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", serve)
    return application


def sent(visit: Visit) -> Visit:
    """The visit with the fields by which its client and scheme are known to the proxy."""
    more = (("x-forwarded-for", visit.client), ("x-forwarded-proto", visit.scheme))
    return Visit(
        visit.method, visit.scheme, visit.host, visit.path, visit.query, visit.fields + more,
        visit.client,
    )  # fmt: skip


async def get(proxy: Proxy, visit: Visit) -> Reply:
    target = visit.path if visit.query is None else f"{visit.path}?{visit.query}"
    headers = {"host": visit.host, **dict(visit.fields)}
    return await proxy.get(target, method=visit.method, headers=headers)


def fields(pairs: Any) -> list[tuple[str, str]]:
    return sorted((name.lower(), value) for name, value in pairs if name.lower() not in MOVING)


def route_of(explanation: Explanation) -> str | None:
    return next((one.name for one in explanation.routes if one.matched), None)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.generate],  # to shrink an example takes many proxies
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(policies(), st.lists(visits(), min_size=10, max_size=10))
def test_a_client_gets_what_is_explained(policy: Plain, seen: list[Visit]) -> None:
    async def compare() -> None:
        text = write({**policy, "trusted_proxies": ["127.0.0.0/8"]})
        async with Origins() as urls, running(text, origins=urls) as proxy:
            app = proxy.server.app
            for visit in map(sent, seen):
                reply = await get(proxy, visit)
                explanation = await explain(app.plan, visit.arriving(), app.fetch)
                line = proxy.log[-1]
                assert route_of(explanation) == explanation.route == line["route"]
                upstream = explanation.upstream
                assert (upstream.origin if upstream else None) == line["origin"]
                variants = {fact.name: fact.value for fact in explanation.facts}
                assert variants.get("split.applied") == line.get("variant")
                if line["cache"] == "stale":
                    continue  # the origin was seen to be down, which no policy says
                assert explanation.answer.status == reply.status
                assert fields(explanation.answer.headers) == fields(reply.headers.items())

    asyncio.run(compare())
