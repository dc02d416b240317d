"""How the admin listener is asked, answers and refuses, whatever it is about."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_origin

from aiohttp import HttpVersion11, web
from pydantic import ValidationError

from edgeproxy.admin.asked import Asked

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES = 1024 * 1024

log = logging.getLogger("edgeproxy")


class Refusal(Exception):
    """The request is not answered: its status, a code that never changes, and why."""

    def __init__(self, status: int, code: str, reason: str, **headers: str) -> None:
        self.status, self.code, self.reason, self.headers = status, code, reason, headers
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is no JSON."""

    body: bytes
    content_type: str


type Answer = Mapping[str, Any] | Text


def answer(data: Answer) -> web.Response:
    """`data` as JSON, unless it is text."""
    if isinstance(data, Text):
        return web.Response(body=data.body, headers={"Content-Type": data.content_type})
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
    except Exception:
        log.exception("admin: %s %s", request.method, request.path)
        response = answer({"error": {"code": "failed", "message": "it failed; the log says why"}})
        response.set_status(500)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


async def heed_expectation(request: web.Request) -> None:
    """Let a client send its body that waits for leave to. Another expectation is passed over, as it
    may be (RFC 9110, section 10.1.1).

    aiohttp would refuse it, with a page of its own, to anybody: before the token is looked at.
    """
    is_body_held = request.headers["Expect"].lower() == "100-continue"
    if is_body_held and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # what counts as sent is the answer alone


async def read[A: Asked](request: web.Request, model: type[A], max_bytes: int) -> A:
    """What is asked: by path and query, or by a JSON body, where an empty one counts as `{}`."""
    if request.method in ("GET", "HEAD"):
        return _checked(lambda: model.model_validate(_parameters(request, model)), model)
    if request.query:
        raise Refusal(400, "bad-request", "what is asked stands in the body, not in the query")
    body = await request.clone(client_max_size=max_bytes).read() or b"{}"
    return _checked(lambda: model.model_validate_json(body), model)


def _parameters(request: web.Request, model: type[Asked]) -> dict[str, Any]:
    """The parts of the path, and the query; one that may come several times as a list."""
    found: dict[str, Any] = dict(request.match_info)
    for name in model.headers & set(map(str.lower, request.headers)):
        found[name] = request.headers[name]
    for name in request.query:
        field = model.model_fields.get(name)
        values = request.query.getall(name)
        is_list = field is not None and get_origin(field.annotation) is list
        if name in found or (len(values) > 1 and not is_list):
            raise Refusal(400, "bad-request", f"{name} stands there twice")
        found[name] = values if is_list else values[0]
    return found


def _checked[A: Asked](build: Callable[[], A], model: type[A]) -> A:
    """Raises Refusal, with the first fault in words that do not repeat what was sent."""
    try:
        return build()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        keys = ", ".join(model.model_fields) or "none"
        reason = f"unknown key {where!r}; keys: {keys}"
    elif where:
        reason = f"{where}: {reason}"
    raise Refusal(400, "bad-request", reason)
