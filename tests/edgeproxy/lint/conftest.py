"""The plugins of these tests: what is installed, and one with a fault that rules find."""

from __future__ import annotations

import pytest

from edgeproxy.api import Exchange, Filter, Plugin, Response, Template
from edgeproxy.policy.installed import Installed, Registry, installed


class Stamp(Filter):
    """Writes a text into what is stored, and forgets the cache key."""

    text: Template

    def after_fetch(self, exchange: Exchange, response: Response) -> None:
        response.headers.set("x-stamp", self.text.render(exchange))


class StampPlugin(Plugin):
    filters = {"stamp": Stamp}


@pytest.fixture(scope="session")
def registry() -> Registry:
    stamp = Installed("acme_stamp", lambda: StampPlugin, "acme-edge", "2.0")
    return Registry([*installed().entries, stamp])
