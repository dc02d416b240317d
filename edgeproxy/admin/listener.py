"""The admin listener: what operators and their tools may see and do, on an address of its own.

It is no part of the public port and cannot be reached through it. Every request needs the token, or
the session of a browser that has shown it; nothing changes by GET; another site gets nowhere.
"""

from __future__ import annotations

import hmac
import logging

from aiohttp import web

from edgeproxy.addresses import parse_address
from edgeproxy.admin.dashboard import PUBLIC, Dashboard
from edgeproxy.admin.messages import Handler, Refusal, heed_expectation, told_in_json
from edgeproxy.admin.routes import MAX_POLICY_BYTES, Ask, handlers
from edgeproxy.admin.runner import Runner
from edgeproxy.admin.sessions import COOKIE, Sessions
from edgeproxy.policy.model import AdminConfig
from edgeproxy.unix_socket import make_room

_OF_PROXIES = ("via", "cdn-loop", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")

log = logging.getLogger("edgeproxy")


class AdminListener:
    """One address. `start`, `stop`; `config` may be replaced by one with another token."""

    def __init__(self, config: AdminConfig, ask: Ask) -> None:
        self.config = config
        self.address = ""  # `HOST:PORT`, or the path of a socket
        self._ask = ask
        self._sessions = Sessions()
        self._dashboard = Dashboard(
            ask, self._sessions, lambda: self.config.token.value, self._is_known
        )
        self._runner: Runner | None = None

    async def start(self) -> None:
        """Listen. OSError if that cannot be."""
        middlewares = [told_in_json, self._guarded]
        application = web.Application(middlewares=middlewares, client_max_size=MAX_POLICY_BYTES)
        routes = [*handlers(self._ask), *self._dashboard.routes()]
        for route in routes:
            route.kwargs["expect_handler"] = heed_expectation
        application.add_routes(routes)
        self._runner = Runner(application, access_log=None, shutdown_timeout=2)
        await self._runner.setup()
        try:
            await self._listen(self._runner)
        except BaseException:
            await self.stop()
            raise
        self._dashboard.start()

    async def _listen(self, runner: Runner) -> None:
        path = self.config.socket
        if path is not None:
            make_room(path)
            await web.UnixSite(runner, str(path)).start()
            path.chmod(0o600)
            self.address = str(path)
            return
        host, port = self.config.host_and_port
        await web.TCPSite(runner, host, port).start()
        name, number = runner.addresses[0][:2]
        self.address = f"[{name}]:{number}" if ":" in name else f"{name}:{number}"

    async def stop(self) -> None:
        await self._dashboard.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # ------------------------------------------------------------ who may ask

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._check(request)
        return await handler(request)

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
        if request.path not in PUBLIC and not self._is_known(request):
            challenge = 'Bearer realm="edgeproxy admin"'
            if "Authorization" in headers:
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

    def _is_known(self, request: web.Request) -> bool:
        """Whether it shows the token; or, without one, a session that has begun with it."""
        expected = self.config.token.value
        if "Authorization" not in request.headers:
            return self._sessions.is_good(request.cookies.get(COOKIE, ""), expected)
        scheme, _, token = request.headers["Authorization"].partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        return scheme.lower() == "bearer" and hmac.compare_digest(given, expected.encode())

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
