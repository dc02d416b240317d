"""Filters at the top of a policy act on every route, before the route's own."""

from __future__ import annotations

from typing import Any

from edgeproxy.pages import Pages
from edgeproxy.testing import running

POLICY = """\
version: 1
origins:
  site: {url: "https://example.github.io/"}
filters:
  - response_headers: {set: {x-frame-options: DENY, x-who: every}}
routes:
  - {name: guide, match: {path: /guide}, response_headers: {set: {x-who: guide}}}
  - {name: moved, match: {path: /old}, redirect: /guide}
  - {name: site}
"""


async def test_every_route_has_the_shared_filters_before_its_own(make_site: Any) -> None:
    async with (
        Pages(make_site(index="home", guide="guide")) as site,
        running(POLICY, origins={"site": site.url}) as proxy,
    ):
        replies = {target: await proxy.get(target) for target in ("/", "/guide", "/old")}
    assert {reply.headers["x-frame-options"] for reply in replies.values()} == {"DENY"}
    assert [reply.headers["x-who"] for reply in replies.values()] == ["every", "guide", "every"]
