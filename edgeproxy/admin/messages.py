"""What every route of the admin listener shares: how it is asked, answers and refuses."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES = 1024 * 1024
MAX_POLICY_BYTES = 16 * MAX_BODY_BYTES  # of a request that carries whole policies


class Refusal(Exception):
    """The request is not answered: its status, a code that never changes, and why."""

    def __init__(self, status: int, code: str, reason: str, **headers: str) -> None:
        self.status, self.code, self.reason, self.headers = status, code, reason, headers
        super().__init__(reason)


def answer(data: Mapping[str, Any]) -> web.Response:
    """`data` as JSON."""
    return web.Response(
        text=json.dumps(data, ensure_ascii=True) + "\n", content_type="application/json"
    )


@web.middleware
async def told_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What `handler` answers or refuses, and never kept by anybody on the way."""
    try:
        response = await handler(request)
    except Refusal as refusal:
        response = answer({"error": {"code": refusal.code, "message": refusal.reason}})
        response.set_status(refusal.status)
        response.headers.update(refusal.headers)
    except web.HTTPException as error:
        code = {404: "no-such-page", 405: "wrong-method"}.get(error.status, "bad-request")
        response = answer({"error": {"code": code, "message": error.reason}})
        response.set_status(error.status)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


async def read_body(
    request: web.Request, max_bytes: int = MAX_BODY_BYTES, known: Collection[str] | None = None
) -> dict[str, Any]:
    """The JSON object that was sent; an empty body counts as an empty one. If `known` is given,
    only these keys may be there."""
    limited = request.clone(client_max_size=max_bytes)
    try:
        data = json.loads(await limited.read() or b"{}")
    except (ValueError, RecursionError):
        raise Refusal(400, "bad-request", "the body is not JSON") from None
    if not isinstance(data, dict):
        raise Refusal(400, "bad-request", "the body is not a JSON object")
    unknown = sorted(data.keys() - known) if known is not None else []
    if unknown:
        keys = ", ".join(known or ())
        raise Refusal(400, "bad-request", f"unknown key {unknown[0]!r}; keys: {keys}")
    return data


def read_query(request: web.Request, *known: str) -> dict[str, str]:
    """The parameters of the URL, of which only those `known` may be there."""
    for name in request.query:
        if name not in known:
            raise Refusal(400, "bad-request", f"unknown parameter {name!r}")
    return {name: request.query[name] for name in request.query}


def named_url(request: web.Request, *more: str) -> str:
    """The URL that is asked about; `more` are parameters that may be there besides."""
    url = read_query(request, "url", *more).get("url")
    if not url:
        raise Refusal(400, "bad-request", "say which: ?url=https://example.org/page")
    return url
