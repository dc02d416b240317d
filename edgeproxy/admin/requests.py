"""Operations of the admin listener on requests that were explained while they were served."""

from __future__ import annotations

from typing import Any

from edgeproxy.admin import asked
from edgeproxy.admin.messages import Refusal
from edgeproxy.app import App


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
