"""An authority that speaks ACME (RFC 8555), as strict as a real one, with faults on demand.

Pebble is more of an authority; this one also limits rates, holds a validation back, and signs
certificates that are old.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from acme.jws import JWS
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from josepy.b64 import b64decode, b64encode
from josepy.jwk import JWK

from tests.certificates import Authority

ERROR = "urn:ietf:params:acme:error:"


class Problem(Exception):
    """What is answered in place of what was asked for (RFC 8555, section 6.7)."""

    def __init__(self, status: int, code: str, detail: str, **headers: str) -> None:
        self.status, self.code, self.detail, self.headers = status, code, detail, headers
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Said:
    """What a request says, once its signature was found good: whose it is, and what is asked."""

    key: JWK
    account: str
    payload: Any


@dataclass
class Order:
    """Of one name: pending, ready once that is proved, valid once it is signed for."""

    account: str
    name: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    status: str = "pending"
    error: dict[str, Any] | None = None
    certificate: str = ""


class Directory:
    """`async with` runs it. It comes to `port` of this machine for a proof, once that is known.

    `bad_nonces` are refused before any is taken; `limited` orders are refused, for `retry_after`.
    It signs for `days` (from, until), the first of them first; the last for all that come later.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.in_folder(folder, "directory")
        self.port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.gate = asyncio.Event()
        self.gate.set()
        self.came = asyncio.Condition()
        self.bad_nonces = 0
        self.limited = 0
        self.retry_after = "7200"
        self.days = [(-1, 89)]
        self.signs_for: str | None = None  # in place of the name that was proved
        self.accounts: dict[str, JWK] = {}
        self.orders: list[Order] = []
        self.asked: Counter[str] = Counter()
        self._folder = folder
        self._nonces: set[str] = set()
        self._validations: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{self._base}/dir"

    async def __aenter__(self) -> Directory:
        app = web.Application(middlewares=[self._guarded])
        app.router.add_get("/dir", self._dir)
        app.router.add_route("HEAD", "/nonce", self._nonce)
        for path, handler in {
            "/account": self._account, "/order": self._new_order, "/order/{n}": self._order,
            "/authorization/{n}": self._authorization, "/challenge/{n}": self._challenge,
            "/finalize/{n}": self._finalize, "/certificate/{n}": self._certificate,
        }.items():  # fmt: skip
            app.router.add_post(path, self._signed_for(handler))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        context = self.authority.context(self._folder, "127.0.0.1")
        assert self._runner.server is not None
        self._server = await asyncio.get_running_loop().create_server(
            self._runner.server, "127.0.0.1", 0, ssl=context, ssl_shutdown_timeout=0.1
        )
        host, port = self._server.sockets[0].getsockname()
        self._base = f"https://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        for task in self._validations:
            task.cancel()
        await asyncio.gather(*self._validations, return_exceptions=True)
        self._server.close()
        await self._runner.cleanup()
        await self._server.wait_closed()  # all connections, too

    async def has(self, asked: str, count: int = 1) -> None:
        """Return once `asked` has come so often."""
        async with asyncio.timeout(30), self.came:
            await self.came.wait_for(lambda: self.asked[asked] >= count)

    # ------------------------------------------------------------ what every request is held to

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except Problem as problem:
            body = {"type": ERROR + problem.code, "detail": problem.detail}
            response = web.json_response(
                body, status=problem.status, content_type="application/problem+json",
                headers={name.replace("_", "-"): v for name, v in problem.headers.items()},
            )  # fmt: skip
        nonce = secrets.token_urlsafe(16)
        self._nonces.add(nonce)
        response.headers["Replay-Nonce"] = nonce
        kind = request.path.split("/")[1]
        async with self.came:
            self.asked[kind] += 1
            self.came.notify_all()
        return response

    def _signed_for(self, handler: Callable[[web.Request, Said], Awaitable[web.Response]]) -> Any:
        async def handle(request: web.Request) -> web.Response:
            return await handler(request, await self._check(request))

        return handle

    async def _check(self, request: web.Request) -> Said:
        """RFC 8555, section 6."""
        if request.content_type != "application/jose+json":
            raise Problem(415, "malformed", f"it is {request.content_type}")
        said = json.loads(await request.text())
        assert set(said) == {"protected", "payload", "signature"}
        head = json.loads(b64decode(said["protected"]))
        signed = JWS.from_json(said)
        if head["alg"] != "ES256":
            raise Problem(400, "badSignatureAlgorithm", head["alg"])
        if head["url"] != f"{self._base}{request.path}":
            raise Problem(403, "unauthorized", f"the url is {head['url']}")
        is_new = request.path == "/account"
        if is_new == ("kid" in head) or is_new == ("jwk" not in head):
            raise Problem(400, "malformed", "a jwk is for new accounts, a kid for all else")
        key = JWK.from_json(head["jwk"]) if is_new else self.accounts.get(head["kid"])
        if key is None:
            raise Problem(400, "accountDoesNotExist", "there is no such account")
        if not signed.verify(key):
            raise Problem(403, "unauthorized", "the signature is wrong")
        nonce = head["nonce"]
        if self.bad_nonces or nonce not in self._nonces:
            self.bad_nonces = max(0, self.bad_nonces - 1)
            raise Problem(400, "badNonce", "the nonce is not one of mine")
        self._nonces.remove(nonce)
        payload = json.loads(b64decode(said["payload"]) or b"null")
        return Said(key, head.get("kid", ""), payload)

    # ------------------------------------------------------------ resources

    async def _dir(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "newNonce": f"{self._base}/nonce",
                "newAccount": f"{self._base}/account",
                "newOrder": f"{self._base}/order",
                "meta": {"termsOfService": f"{self._base}/terms"},
            }
        )

    async def _nonce(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _account(self, request: web.Request, said: Said) -> web.Response:
        if said.payload.get("termsOfServiceAgreed") is not True:
            raise Problem(403, "userActionRequired", "agree to the terms of service")
        key = said.key
        for uri, known in self.accounts.items():
            if known == key:
                return web.json_response({"status": "valid"}, headers={"Location": uri})
        uri = f"{self._base}/account/{len(self.accounts)}"
        self.accounts[uri] = key
        body = {"status": "valid", "contact": said.payload.get("contact", [])}
        return web.json_response(body, status=201, headers={"Location": uri})

    async def _new_order(self, request: web.Request, said: Said) -> web.Response:
        if self.limited:
            self.limited -= 1
            raise Problem(429, "rateLimited", "too many certificates", Retry_After=self.retry_after)
        [identifier] = said.payload["identifiers"]
        assert identifier["type"] == "dns"
        self.orders.append(Order(said.account, identifier["value"]))
        number = len(self.orders) - 1
        return self._told(number, status=201)

    def _told(self, number: int, status: int = 200) -> web.Response:
        order = self.orders[number]
        body = {
            "status": order.status,
            "identifiers": [{"type": "dns", "value": order.name}],
            "authorizations": [f"{self._base}/authorization/{number}"],
            "finalize": f"{self._base}/finalize/{number}",
        }
        if order.certificate:
            body["certificate"] = f"{self._base}/certificate/{number}"
        where = {"Location": f"{self._base}/order/{number}"}
        return web.json_response(body, status=status, headers=where)

    def _of(self, request: web.Request, said: Said) -> tuple[int, Order]:
        """The order that is asked about, by the account that made it."""
        number = int(request.match_info["n"])
        order = self.orders[number]
        if order.account != said.account:
            raise Problem(403, "unauthorized", "it is another account's")
        return number, order

    async def _order(self, request: web.Request, said: Said) -> web.Response:
        return self._told(self._of(request, said)[0])

    async def _authorization(self, request: web.Request, said: Said) -> web.Response:
        number, order = self._of(request, said)
        status = "valid" if order.status in ("ready", "valid") else order.status
        return web.json_response(
            {
                "status": status,
                "identifier": {"type": "dns", "value": order.name},
                "challenges": [{"type": "dns-01", "url": f"{self._base}/no", "status": "pending",
                                "token": order.token}, self._challenge_of(number)],
            }
        )  # fmt: skip

    def _challenge_of(self, number: int) -> dict[str, Any]:
        order = self.orders[number]
        status = "valid" if order.status in ("ready", "valid") else order.status
        body = {
            "type": "http-01", "url": f"{self._base}/challenge/{number}", "status": status,
            "token": order.token,
        }  # fmt: skip
        return body if order.error is None else {**body, "error": order.error}

    async def _challenge(self, request: web.Request, said: Said) -> web.Response:
        number, order = self._of(request, said)
        assert said.payload == {}
        task = asyncio.create_task(self._validate(order, said.key))
        self._validations.add(task)
        task.add_done_callback(self._validations.discard)
        link = f'<{self._base}/authorization/{number}>;rel="up"'
        return web.json_response(self._challenge_of(number), headers={"Link": link})

    async def _validate(self, order: Order, key: JWK) -> None:
        """Really come and see (RFC 8555, section 8.3)."""
        port = await self.port
        await self.gate.wait()
        url = f"http://127.0.0.1:{port}/.well-known/acme-challenge/{order.token}"
        thumbprint = b64encode(key.thumbprint(hash_function=hashes.SHA256)).decode()
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(url, headers={"Host": order.name}, allow_redirects=False) as answer,
            ):
                seen = f"{answer.status} {(await answer.text()).strip()}"
        except aiohttp.ClientError as error:
            seen = str(error)
        if seen == f"200 {order.token}.{thumbprint}":
            order.status = "ready"
            return
        order.status = "invalid"
        order.error = {"type": ERROR + "unauthorized", "detail": f"{order.name} shows {seen}"}

    async def _finalize(self, request: web.Request, said: Said) -> web.Response:
        number, order = self._of(request, said)
        if order.status != "ready":
            raise Problem(403, "orderNotReady", f"it is {order.status}")
        csr = x509.load_der_x509_csr(b64decode(said.payload["csr"]))
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if names.get_values_for_type(x509.DNSName) != [order.name] or not csr.is_signature_valid:
            raise Problem(400, "badCSR", "it is for other names")
        order.certificate = self._signed(csr, self.signs_for or order.name)
        order.status = "valid"
        return self._told(number)

    def _signed(self, csr: x509.CertificateSigningRequest, name: str) -> str:
        days = self.days.pop(0) if len(self.days) > 1 else self.days[0]
        return self.authority.certify(csr.public_key(), [name], *days)

    async def _certificate(self, request: web.Request, said: Said) -> web.Response:
        _, order = self._of(request, said)
        chain = order.certificate + self.authority.file.read_text()
        return web.Response(text=chain, content_type="application/pem-certificate-chain")

    @property
    def trust(self) -> ssl.SSLContext:
        """Of a client that trusts the certificates it gives."""
        return ssl.create_default_context(cafile=self.authority.file)
