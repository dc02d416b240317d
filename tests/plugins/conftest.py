"""A journey without an engine: a policy, a request, and an origin of three lines."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from edgeproxy.errors import PolicyError
from edgeproxy.http import Exchange, Origin, Request, Response, normalise_path
from edgeproxy.pipeline import handle
from edgeproxy.plan import compile_plan
from edgeproxy.policy.load import parse

PREFACE = """\
version: 1
origins:
  a: {url: "https://a.example/base/"}
  b: {url: "https://b.example/", kind: http}
"""


@dataclass
class Trip:
    """What became of one request."""

    exchange: Exchange
    response: Response
    asked: list[Request] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        return self.response.headers.joined(name)

    @property
    def body(self) -> bytes:
        assert self.response.body.data is not None
        return self.response.body.data


class Journeys:
    """A policy in force, and requests through it."""

    def __init__(
        self,
        text: str,
        answer: Callable[[Origin, Request], Response | Awaitable[Response]] | None = None,
    ) -> None:
        self.plan = compile_plan(parse(PREFACE + text))
        self._answer = answer or (lambda origin, request: Response.text(200, request.target))

    async def __call__(
        self, target: str = "/", *, method: str = "GET", client: str = "192.0.2.1", **fields: str
    ) -> Trip:
        path, _, query = target.partition("?")
        request = Request(method, "www.example.org", normalise_path(path), query or None)
        for name, value in fields.items():
            request.headers.add(name.replace("_", "-"), value)
        exchange = Exchange(request, ipaddress.ip_address(client))
        asked: list[Request] = []

        async def fetch(origin: Origin, request: Request) -> Response:
            asked.append(request)
            answer = self._answer(origin, request)
            return answer if isinstance(answer, Response) else await answer

        return Trip(exchange, await handle(exchange, self.plan, fetch), asked)


@pytest.fixture
def journeys() -> type[Journeys]:
    """`journeys(POLICY, answer)`: the policy without its version and its origins `a` and `b`."""
    return Journeys


@pytest.fixture
def fault() -> Callable[[str], str]:
    """The faults of a policy, as text."""

    def faults(text: str) -> str:
        with pytest.raises(PolicyError) as error:
            compile_plan(parse(PREFACE + text))
        return str(error.value)

    return faults
