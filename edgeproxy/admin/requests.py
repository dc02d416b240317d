"""Operations of the admin listener on requests: those of late, and why they were served so."""

from __future__ import annotations

from typing import Any

from edgeproxy.admin import asked
from edgeproxy.admin.messages import Refusal
from edgeproxy.app import App
from edgeproxy.explain import arriving, explain
from edgeproxy.recent import Recent


class RequestOperations:
    def __init__(self, app: App) -> None:
        self._app = app

    async def requests(self, _: asked.Nothing) -> dict[str, Any]:
        return {"requests": self._app.explained.summaries()}

    async def request(self, what: asked.Request) -> dict[str, Any]:
        found = self._app.explained.find(what.id)
        if found is None:
            raise Refusal(404, "no-such-request", "no explanation is kept under this id")
        return found

    async def explain(self, what: asked.Explained) -> dict[str, Any]:
        plan = self._app.plan
        facts = dict(text.partition("=")[::2] for text in what.fact)
        try:
            exchange = arriving(plan, what.url, facts=facts)
        except ValueError as error:
            raise Refusal(400, "bad-request", str(error)) from None
        return (await explain(plan, exchange)).as_json()

    async def traffic(self, _: asked.Nothing) -> dict[str, Any]:
        found = (self._app.recent or Recent()).report()
        return {**found, "is_logged": self._app.is_logging}
