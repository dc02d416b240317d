"""For tests of policies and plugins, from Python.

`running` is a whole edgeproxy over real sockets, in the test's own loop:

```python
async with running(policy, origins={"site": pages.url}) as proxy:
    reply = await proxy.get("/guide/", headers={"cookie": "ep_hero=bold"})
    assert reply.status == 200
```

`assert_policy_tests_pass` runs the `*_test.yaml` beside policies, without a network.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from edgeproxy import policytest
from edgeproxy.engine.listening import ListenAddress
from edgeproxy.engine.serve import Server
from edgeproxy.policy.installed import Registry


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client got: the body as it came, undecoded."""

    status: int
    headers: Mapping[str, str]  # names without case
    body: bytes

    @property
    def cache_status(self) -> str:
        return self.headers.get("cache-status", "")


@dataclass(slots=True)
class Proxy:
    """A running proxy. `log` holds the entries of the access log so far."""

    server: Server
    policy_file: Path | None
    log: list[dict[str, Any]] = field(default_factory=list)
    _session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return self.server.urls[0]

    @property
    def port(self) -> int:
        port = URL(self.url).port
        assert port is not None
        return port

    async def get(
        self,
        target: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        data: Any = None,
    ) -> Reply:
        """One request, its target sent as it is written; redirects are not followed."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("Accept-Encoding", "Accept", "User-Agent"),
            )
        url = URL(self.url.rstrip("/") + target, encoded=True)
        async with self._session.request(
            method, url, headers=headers, data=data, allow_redirects=False
        ) as response:
            return Reply(response.status, response.headers, await response.read())

    async def reload(self, policy: str) -> None:
        """Write `policy` over the one in force and reload; faults are logged, not raised."""
        assert self.policy_file is not None
        self.policy_file.write_text(policy)
        await self.server.reload()


def assert_policy_tests_pass(
    *policies: Path, tests: Sequence[Path] = (), registry: Registry | None = None
) -> None:
    """Run the tests beside `policies`, or those in `tests`. AssertionError with what failed.

    Not from an async test: it has an event loop of its own.
    """
    report = policytest.run(policies, tests, registry=registry)
    if not report.results:
        raise AssertionError("there are no tests; write them into NAME_test.yaml beside NAME.yaml")
    if not report.passed:
        raise AssertionError(f"\n{report}")


@asynccontextmanager
async def running(
    policy: str | Sequence[Path],
    *,
    origins: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    tls: bool = False,
    listen: Sequence[ListenAddress] = (ListenAddress("127.0.0.1"),),
) -> AsyncIterator[Proxy]:
    """A proxy that serves `policy` (text, or files) on a free port, with origins where they are.

    With `tls` it also serves HTTPS on another, `server.urls[1]`.
    """
    with tempfile.TemporaryDirectory(prefix="edgeproxy-") as folder:
        policy_file: Path | None = None
        if isinstance(policy, str):
            policy_file = Path(folder) / "policy.yaml"
            policy_file.write_text(policy)
        log: list[dict[str, Any]] = []
        secure = [ListenAddress("127.0.0.1", tls=True)] if tls else []
        server = Server(
            [policy_file] if policy_file is not None else list(policy),  # type: ignore[arg-type]
            [f"{name}={url}" for name, url in (origins or {}).items()],
            listen=[*listen, *secure],
            write=log.append,
            registry=registry,
        )
        await server.start()
        proxy = Proxy(server, policy_file, log)
        try:
            yield proxy
        finally:
            if proxy._session is not None:
                await proxy._session.close()
            await server.stop()
