"""A running edgeproxy: the front, the core and the app, started and stopped together."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeproxy.addresses import BadAddress
from edgeproxy.admin import Admin, routes
from edgeproxy.app import App
from edgeproxy.engine.front import Front, FrontSettings, Peer
from edgeproxy.engine.listening import ListenAddress
from edgeproxy.engine.mitm import Core
from edgeproxy.engine.pipe import PipeEnd, duplex
from edgeproxy.engine.upstream import Upstream
from edgeproxy.errors import Fault, PolicyError
from edgeproxy.log import AccessLog
from edgeproxy.policy.installed import Registry
from edgeproxy.policy.load import load, parse
from edgeproxy.policy.model import Limits, OriginConfig
from edgeproxy.policy.policy import Policy

log = logging.getLogger("edgeproxy")

DEFAULT_POLICY = """\
version: 1
origins:
  site: {{url: {url}}}
cache:
  rules:
    as_the_origin_says: {{status_ttl: {{301: 60s, 404: 30s}}, stale_if_error: 7d}}
routes:
  - {{name: site, origin: site, cache: as_the_origin_says}}
"""


class Server:
    """Policies served on some addresses. `start`, `reload`, `stop`; `urls` once started."""

    def __init__(
        self,
        policies: Sequence[Path],
        origins: Sequence[str] = (),
        *,
        listen: Sequence[ListenAddress] = (ListenAddress("127.0.0.1", 8080),),
        access_log: str = "auto",
        write: Callable[[dict[str, Any]], None] | None = None,
        registry: Registry | None = None,
    ) -> None:
        self._registry = registry
        self._policies = policies
        self._origins = origins
        self._listen = listen
        if write is None and access_log != "off":
            write = AccessLog(sys.stdout, access_log).write
        self._upstream = Upstream()
        self.app = App(self._upstream.fetch, write)
        self.admin = Admin(routes(self.app, self._reload))
        self._core: Core | None = None
        self._front: Front | None = None
        self._front_settings = FrontSettings(Limits())
        self._streams: set[asyncio.Future[None]] = set()
        self.urls: list[str] = []

    @property
    def version(self) -> str:
        """That of the policy in force."""
        return self.app.plan.version

    async def start(self) -> None:
        """Load, open, listen. Raises PolicyError or BadAddress, with nothing left open."""
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        try:
            policy = self._read()
            await self.app.load(policy)
            await self.admin.follow(policy.core.admin)
            self._core = Core(self.app)
            self._front = Front(self._connect, self._settings)
            self._warn_of_certificates()
            for address in self._listen:
                self.urls.append((await self._front.listen(address)).url)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop accepting, let requests under way finish within the policy's time, close all."""
        await self.admin.stop()
        if self._front is not None:
            await self._front.stop(self.app.plan.limits.shutdown_timeout)
        for stream in tuple(self._streams):
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        await self.app.close()
        await self._upstream.close()

    async def reload(self) -> None:
        """Put the policies as they are now in force, or log their faults and change nothing."""
        await self._reload()

    async def _reload(self) -> str:
        """The same; what was wrong, nothing if it went well."""
        try:
            policy = self._read()
            await self.app.load(policy)
        except PolicyError as error:
            log.error("the policy was not reloaded, %s stays:\n%s", self.app.plan.version, error)
            return str(error)
        except (Exception, SystemExit) as error:  # a plugin may try to end the program
            log.exception("the policy was not reloaded, %s stays", self.app.plan.version)
            return f"{type(error).__name__}: {error}"
        log.info("policy %s is in force", self.app.plan.version)
        self._warn_of_certificates()
        try:
            await self.admin.follow(policy.core.admin)
        except BadAddress as error:
            log.error("the admin listener stays as it was: %s", error)
        return ""

    def _read(self) -> Policy:
        running = {plugin.name: plugin for plugin in self.app.plugins}
        if not self._policies:
            url = self._origins[-1].partition("=")[2] or self._origins[-1]
            return parse(DEFAULT_POLICY.format(url=json.dumps(url)), "--origin")
        policy = load(self._policies, self._registry, reuse=running)
        if policy.core.tls is None and any(address.tls for address in self._listen):
            reason = "--listen-tls needs a section 'tls' with certificates in the policy"
            raise PolicyError([Fault("missing-key", reason)])
        return with_origins(policy, self._origins)

    def _warn_of_certificates(self) -> None:
        if self.app.plan.tls is not None:
            self.app.plan.tls.warn_of_ends()

    def _settings(self) -> FrontSettings:
        plan = self.app.plan
        if self._front_settings.limits is not plan.limits:
            context = plan.tls.context if plan.tls is not None else None
            self._front_settings = FrontSettings(plan.limits, plan.encoded_slashes, context)
        return self._front_settings

    def _connect(self, peer: Peer) -> PipeEnd:
        assert self._core is not None
        near, far = duplex(peername=peer.peername, sockname=peer.sockname, scheme=peer.scheme)
        stream = asyncio.ensure_future(self._core.handle_stream(far))
        self._streams.add(stream)
        stream.add_done_callback(self._streams.discard)
        return near


def with_origins(policy: Policy, origins: Sequence[str]) -> Policy:
    """`policy` with the URLs of origins replaced, as `--origin NAME=URL` asks."""
    specs = dict(policy.core.origins)
    for text in origins:
        name, equals, url = text.partition("=")
        if not equals or "/" in name:
            name, url = (next(iter(specs), ""), text) if len(specs) == 1 else ("", text)
        if name not in specs:
            known = ", ".join(specs)
            raise PolicyError(
                [Fault("unknown-origin", f"--origin {text}: write NAME=URL; origins: {known}")]
            )
        try:
            OriginConfig(url=url)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise PolicyError([Fault("bad-value", f"--origin {text}: {reason}")]) from None
        specs[name] = specs[name].model_copy(update={"url": url})
    return replace(policy, core=policy.core.model_copy(update={"origins": specs}))
