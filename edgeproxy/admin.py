"""The admin listener: what operators and their tools may see and do, on an address of its own.

It is no part of the public port and cannot be reached through it. Every request needs the token;
nothing changes by GET; a browser on another site gets nowhere.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from aiohttp import web

from edgeproxy import __version__
from edgeproxy.addresses import parse_address
from edgeproxy.app import App
from edgeproxy.caching import contents
from edgeproxy.caching.purges import Selection
from edgeproxy.policy.model import AdminConfig
from edgeproxy.why import why

MAX_BODY_BYTES = 1024 * 1024
MAX_LISTED = 10_000

_OF_PROXIES = ("via", "cdn-loop", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger("edgeproxy")


class Refusal(Exception):
    """The request is not answered: its status, a code that never changes, and why."""

    def __init__(self, status: int, code: str, reason: str, **headers: str) -> None:
        self.status, self.code, self.reason, self.headers = status, code, reason, headers
        super().__init__(reason)


class Admin:
    """`start`, `stop`; `config` may be replaced by one with another token."""

    def __init__(
        self,
        app: App,
        config: AdminConfig,
        reload: Callable[[], Awaitable[str]],
    ) -> None:
        self.config = config
        self.address = ""  # `HOST:PORT`, or the path of a socket
        self._app = app
        self._reload = reload
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. OSError if that cannot be."""
        application = web.Application(middlewares=[self._guarded], client_max_size=MAX_BODY_BYTES)
        application.add_routes(
            [
                web.get("/health", self._health),
                web.get("/version", self._version),
                web.post("/purge", self._purge),
                web.post("/invalidate", self._invalidate),
                web.get("/cache/objects", self._objects),
                web.get("/cache/object", self._object),
                web.get("/cache/stats", self._stats),
                web.post("/cache/verify", self._verify),
                web.get("/cache/why", self._why),
                web.post("/policy/reload", self._reloaded),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=2)
        await self._runner.setup()
        try:
            await self._listen(self._runner)
        except BaseException:
            await self.stop()
            raise

    async def _listen(self, runner: web.AppRunner) -> None:
        path = self.config.socket
        if path is not None:
            path.unlink(missing_ok=True) if path.is_socket() else None
            await web.UnixSite(runner, str(path)).start()
            path.chmod(0o600)
            self.address = str(path)
            return
        host, port = self.config.host_and_port
        await web.TCPSite(runner, host, port).start()
        name, number = runner.addresses[0][:2]
        self.address = f"[{name}]:{number}" if ":" in name else f"{name}:{number}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # ------------------------------------------------------------ who may ask

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check(request)
            response = await handler(request)
        except Refusal as refusal:
            response = _json({"error": {"code": refusal.code, "message": refusal.reason}})
            response.set_status(refusal.status)
            response.headers.update(refusal.headers)
        except web.HTTPException as error:
            code = {404: "no-such-page", 405: "wrong-method"}.get(error.status, "bad-request")
            response = _json({"error": {"code": code, "message": error.reason}})
            response.set_status(error.status)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def _check(self, request: web.Request) -> None:
        """Raises Refusal, for what says least about this listener first."""
        headers = request.headers
        for name in _OF_PROXIES:
            if name in headers:
                raise Refusal(403, "through-a-proxy", f"no request with {name} is answered here")
        if not self._is_ours(headers.getall("Host", [])):
            raise Refusal(421, "wrong-host", "the Host is not the address of this listener")
        origin = headers.get("Origin")
        site = headers.get("Sec-Fetch-Site", "none")
        if (origin is not None and origin != f"http://{headers.get('Host')}") or (
            site not in ("none", "same-origin")
        ):
            raise Refusal(403, "cross-origin", "no request of another site is answered here")
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        expected = self.config.token.value
        given = token.strip().encode("utf-8", "surrogateescape")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, expected.encode()):
            challenge = 'Bearer realm="edgeproxy admin"'
            if scheme:
                challenge += ', error="invalid_token"'
                log.warning("admin: a request with a wrong token from %s", request.remote)
            raise Refusal(
                401,
                "token",
                "send `Authorization: Bearer TOKEN`",
                **{"WWW-Authenticate": challenge},
            )
        if request.method not in ("GET", "HEAD") and request.content_type != "application/json":
            raise Refusal(415, "not-json", "send `Content-Type: application/json`")

    def _is_ours(self, hosts: list[str]) -> bool:
        """Whether the one Host names this listener: a name that an attacker's DNS points here
        does not."""
        if len(hosts) != 1:
            return False
        if self.config.socket is not None:
            return True
        own = self.address.rpartition(":")
        name, _, port = hosts[0].lower().rpartition(":")
        if port != own[2]:
            return False
        listen = self.config.host_and_port[0].lower()
        if name in (own[0], listen, "localhost", "127.0.0.1", "[::1]"):
            return True
        return self.config.allow_remote and parse_address(name.strip("[]")) is not None

    # ------------------------------------------------------------ what they may ask

    async def _health(self, request: web.Request) -> web.Response:
        unwell = [asdict(report) for report in self._app.health.reports()]
        return _json({"status": "ok", "policy": self._app.plan.version, "origins_unwell": unwell})

    async def _version(self, request: web.Request) -> web.Response:
        return _json({"edgeproxy": __version__, "policy": self._app.plan.version})

    async def _purge(self, request: web.Request) -> web.Response:
        return _marked(await self._app.purge(await _selection(request)))

    async def _invalidate(self, request: web.Request) -> web.Response:
        return _marked(await self._app.invalidate(await _selection(request)))

    async def _objects(self, request: web.Request) -> web.Response:
        query = _query(request, "prefix", "limit")
        limit = query.get("limit", "100")
        if not (limit.isascii() and limit.isdigit() and 0 < int(limit[:9]) <= MAX_LISTED):
            raise Refusal(400, "bad-request", f"limit is a number from 1 to {MAX_LISTED}")
        cache = self._app.plan.cache
        found = await contents.objects(cache, query.get("prefix", ""), int(limit))
        return _json({"objects": found})

    async def _object(self, request: web.Request) -> web.Response:
        try:
            found = await contents.entries_of(self._app.plan.cache, _url(request))
        except ValueError as error:
            raise Refusal(400, "bad-request", str(error)) from None
        if not found:
            raise Refusal(404, "not-stored", "nothing is stored for this URL")
        return _json({"objects": found})

    async def _stats(self, request: web.Request) -> web.Response:
        return _json(contents.stats(self._app.plan.cache))

    async def _verify(self, request: web.Request) -> web.Response:
        await _body(request)
        checked = await contents.verify(self._app.plan.cache)
        return _json({"tiers": [asdict(one) for one in checked]})

    async def _why(self, request: web.Request) -> web.Response:
        url = _url(request, "header")
        pairs = [text.partition(":") for text in request.query.getall("header", [])]
        try:
            report = await why(
                self._app.plan,
                self._app.fetch,
                url,
                [(name.strip(), value.strip()) for name, _, value in pairs],
            )
        except ValueError as error:
            raise Refusal(400, "bad-request", str(error)) from None
        return _json(report)

    async def _reloaded(self, request: web.Request) -> web.Response:
        await _body(request)
        faults = await self._reload()
        if faults:
            raise Refusal(409, "policy-faults", faults)
        return _json({"policy": self._app.plan.version})


def _json(data: Mapping[str, Any]) -> web.Response:
    return web.Response(
        text=json.dumps(data, ensure_ascii=True) + "\n", content_type="application/json"
    )


def _marked(not_kept: list[str]) -> web.Response:
    """A purge is in force; whether it would also be after a crash is said."""
    return _json({"done": True, "not_written_down_by": not_kept})


async def _body(request: web.Request) -> dict[str, Any]:
    """The JSON object that was sent; an empty body counts as an empty one."""
    try:
        data = json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError):
        raise Refusal(400, "bad-request", "the body is not JSON") from None
    if not isinstance(data, dict):
        raise Refusal(400, "bad-request", "the body is not a JSON object")
    return data


_LISTS = ("urls", "prefixes", "hosts", "tags")


async def _selection(request: web.Request) -> Selection:
    data = await _body(request)
    unknown = sorted(data.keys() - {*_LISTS, "everything"})
    if unknown:
        keys = ", ".join((*_LISTS, "everything"))
        raise Refusal(400, "bad-request", f"unknown key {unknown[0]!r}; keys: {keys}")
    lists: dict[str, tuple[str, ...]] = {}
    for name in _LISTS:
        value = data.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise Refusal(400, "bad-request", f"{name} is a list of texts")
        lists[name] = tuple(value)
    everything = data.get("everything", False)
    if not isinstance(everything, bool):
        raise Refusal(400, "bad-request", "everything is true or false")
    if everything and any(lists.values()):
        raise Refusal(400, "bad-request", "everything stands alone")
    try:
        return Selection(**lists, everything=everything)
    except ValueError as error:
        raise Refusal(400, "bad-request", str(error)) from None


def _query(request: web.Request, *known: str) -> dict[str, str]:
    for name in request.query:
        if name not in known:
            raise Refusal(400, "bad-request", f"unknown parameter {name!r}")
    return {name: request.query[name] for name in request.query}


def _url(request: web.Request, *more: str) -> str:
    url = _query(request, "url", *more).get("url")
    if not url:
        raise Refusal(400, "bad-request", "say which: ?url=https://example.org/page")
    return url
