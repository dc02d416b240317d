"""The pages of the dashboard over HTTP, and signing in to them."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import jinja2
from aiohttp import web

from edgeproxy.admin.asked import Asked, Explained, Nothing, Request
from edgeproxy.admin.dashboard import words
from edgeproxy.admin.dashboard.history import EVERY_S, History
from edgeproxy.admin.dashboard.panels import panels
from edgeproxy.admin.messages import MAX_BODY_BYTES, Refusal, answer, read
from edgeproxy.admin.routes import BY_OPERATION, Ask
from edgeproxy.admin.sessions import COOKIE, LASTS_S, Sessions
from edgeproxy.explain import Explanation, tell
from edgeproxy.metrics.snapshot import Snapshot

PUBLIC = ("/", "/session", "/static/dashboard.css", "/static/dashboard.js", "/static/icon.svg")
"""What needs no token: it says no more than that this is edgeproxy."""

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'",
        "connect-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
    )
)  # fmt: skip

log = logging.getLogger("edgeproxy")


class SignIn(Asked):
    token: str


class Asking(Explained):
    """A request whose explanation may be kept, and what it was like if it is not."""

    id: str


class Dashboard:
    """`routes` is what it serves; between `start` and `stop` it notes the figures. `is_known` says
    of a request whether it shows the token, or a session that has begun with it."""

    def __init__(
        self,
        ask: Ask,
        sessions: Sessions,
        token: Callable[[], str],
        is_known: Callable[[web.Request], bool],
    ) -> None:
        self._ask = ask
        self._is_known = is_known
        self._sessions = sessions
        self._token = token
        self._history = History()
        self._noting: asyncio.Task[None] | None = None

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self._page),
            web.get("/panels", self._panels),
            web.get("/panels/request", self._explained),
            web.post("/session", self._sign_in),
            web.post("/session/end", self._sign_out),
            web.get("/static/{name}", self._static),
        ]

    def start(self) -> None:
        self._noting = asyncio.create_task(self._note())

    async def stop(self) -> None:
        if self._noting is not None:
            self._noting.cancel()
            await asyncio.wait([self._noting])

    async def _note(self) -> None:
        while True:
            try:
                self._history.note(await self._figures())
            except Refusal:
                pass  # no worker serves at the moment
            except Exception:
                log.exception("the dashboard cannot note figures")
            await asyncio.sleep(EVERY_S)

    async def _figures(self) -> Snapshot:
        found: Any = await self._ask(BY_OPERATION["figures"], Nothing())
        snapshot: Snapshot = found
        return snapshot

    # ------------------------------------------------------------ pages

    async def _page(self, request: web.Request) -> web.Response:
        if not self._is_known(request):
            response = _html("sign-in.html")
            response.set_status(401)
            response.headers["WWW-Authenticate"] = 'Bearer realm="edgeproxy admin"'
            return response
        return _html("dashboard.html", **await panels(self._ask, self._history))

    async def _panels(self, request: web.Request) -> web.Response:
        return _html("panels.html", **await panels(self._ask, self._history))

    async def _explained(self, request: web.Request) -> web.Response:
        """The explanation that is kept of a request; else of one like it."""
        what = await read(request, Asking, MAX_BODY_BYTES)
        try:
            found: Any = await self._ask(BY_OPERATION["request"], Request(id=what.id))
            is_kept = True
        except Refusal:
            like = Explained(url=what.url, fact=what.fact)
            found = await self._ask(BY_OPERATION["explain"], like)
            is_kept = False
        text = tell(Explanation.from_json(found))
        return _html("request.html", text=text, is_kept=is_kept, id=what.id)

    async def _static(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if f"/static/{name}" not in PUBLIC:
            raise Refusal(404, "no-such-page", "there is no such file")
        data, content_type = _file(name)
        return web.Response(body=data, content_type=content_type, charset="utf-8")

    # ------------------------------------------------------------ signing in

    async def _sign_in(self, request: web.Request) -> web.Response:
        given = (await read(request, SignIn, MAX_BODY_BYTES)).token.strip()
        wait_s = self._sessions.wait_s
        cookie = self._sessions.begin(given, self._token())
        if cookie is None:
            log.warning("admin: somebody at %s could not sign in", request.remote)
            if wait_s:
                wait = {"Retry-After": str(int(wait_s) + 1)}
                raise Refusal(429, "too-many", "too many wrong tokens; wait a minute", **wait)
            raise Refusal(401, "token", "this is not the token")
        log.info("admin: somebody at %s has signed in", request.remote)
        response = answer({"done": True})
        response.set_cookie(
            COOKIE, cookie, max_age=LASTS_S, path="/", httponly=True, samesite="Strict"
        )
        return response

    async def _sign_out(self, request: web.Request) -> web.Response:
        """Of all browsers: one may have been left somewhere."""
        await read(request, Nothing, MAX_BODY_BYTES)
        self._sessions.end()
        response = answer({"done": True})
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
        return response


def _html(template: str, **values: Any) -> web.Response:
    text = _templates().get_template(template).render(**values)
    response = web.Response(text=text, content_type="text/html")
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for word in (words.number, words.size, words.stored, words.duration, words.percent):
        environment.filters[word.__name__] = word
    return environment


@functools.cache
def _file(name: str) -> tuple[bytes, str]:
    content = files(__package__).joinpath("static", name).read_bytes()
    return content, _TYPES[name.rpartition(".")[2]]
