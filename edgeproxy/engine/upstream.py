"""How requests reach origins: one pooled client for all, with deadlines and limits.

Every failure comes out as UpstreamError with a token of RFC 9209. Redirects are not followed,
bodies are not decoded, and the certificate is verified against the origin's own name.
"""

from __future__ import annotations

import asyncio
import functools
import select
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from edgeproxy.addresses import parse_address
from edgeproxy.engine.resolving import ProhibitedAddress, Resolver
from edgeproxy.errors import UpstreamError
from edgeproxy.http import Body, Headers, Origin, Request, Response
from edgeproxy.metrics.counts import Counts

MAX_HEAD_BYTES = 32 * 1024
MAX_HEAD_FIELDS = 100
MAX_UNREAD_HEADS = 64  # that have come in and nobody has asked for

_NO_BODY = (204, 304)

_has_reused: ContextVar[bool] = ContextVar("_has_reused", default=False)
_on_interim: ContextVar[Callable[[int, Headers], None] | None] = ContextVar(
    "_on_interim", default=None
)


class _Response(aiohttp.ClientResponse):
    """Tells of the interim responses that come before the final one (RFC 9110, section 15.2).

    aiohttp reads them and drops them; nothing else of it is changed here.
    """

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        tell = _on_interim.get()
        protocol = connection.protocol
        if tell is None or protocol is None:
            return await super().start(connection)
        read = protocol.read

        async def reading() -> Any:
            message, payload = await read()
            if 101 < message.code < 200 and _is_sane(message.raw_headers):
                tell(message.code, Headers(message.raw_headers))
            return message, payload

        protocol.read = reading  # type: ignore[method-assign]
        try:
            return await super().start(connection)
        finally:
            del protocol.read  # the class's own again


class _Protocol(ResponseHandler):
    """Tells who reads a body when its chunks are no chunks any more: aiohttp closes the connection
    and stops its clocks, and would let the reader wait until the whole exchange takes too long.

    And ends a flood of interim responses, which aiohttp would keep until they are asked for.
    """

    def data_received(self, data: bytes) -> None:
        if len(self) > MAX_UNREAD_HEADS:
            if self.transport is not None:
                self.transport.close()
            self.set_exception(aiohttp.ClientPayloadError("too many interim responses"))
            return
        super().data_received(data)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        super().set_exception(exc, *cause)
        body = self._payload
        if isinstance(exc, HttpProcessingError) and body is not None and not body.is_eof():
            body.set_exception(aiohttp.ClientPayloadError("its chunks are framed badly"))


class _Connector(aiohttp.TCPConnector):
    """Hands out a resting connection only if nothing has come in on it: no bytes, not its end.

    What came unasked would be taken for the answer to the next request, whoever sends it. A
    request that is tried again because such a connection closed gets a new one.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._factory = functools.partial(_Protocol, loop=self._loop)  # type: ignore[assignment]

    async def _get(self, key: Any, traces: Any) -> Any:
        if _has_reused.get():
            return None
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close and _is_quiet(protocol.transport):
                _has_reused.set(True)
                return connection
            connection.close()
        return None


def _is_sane(raw: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether fields can be sent on safely."""
    size = sum(len(name) + len(value) for name, value in raw)
    if len(raw) > MAX_HEAD_FIELDS or size > MAX_HEAD_BYTES:
        return False
    try:
        Headers.of(*Headers(raw).items())
    except ValueError:
        return False
    return True


def _is_quiet(transport: asyncio.BaseTransport | None) -> bool:
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.fileno() < 0:
        return False
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN)
    return not poller.poll(0)


class Upstream:
    """The way to all origins. Its `fetch` is what the pipeline is handed."""

    def __init__(self, counts: Counts | None = None) -> None:
        self._counts = counts or Counts()
        self._sessions: dict[tuple[str | None, int, bool], aiohttp.ClientSession] = {}

    async def close(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def fetch(self, origin: Origin, request: Request) -> Response:
        """The origin's response: its head read and checked, its body a stream."""
        tally = self._counts.origin(origin.name)
        began_s = time.monotonic()
        send = self._upgrade if request.is_upgrade else self._fetch
        try:
            response = await send(origin, request)
        except UpstreamError as error:
            tally.failures[error.error] += 1
            raise
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            failure = _as_upstream_error(origin, error)
            tally.failures[failure.error] += 1
            raise failure from error
        tally.answered(response.status, time.monotonic() - began_s)
        return response

    async def _fetch(self, origin: Origin, request: Request) -> Response:
        session = self._session(origin)
        headers = CIMultiDict(request.headers.items())
        body = request.body
        if body.data is None and body.length is not None:
            headers["Content-Length"] = str(body.length)
        async with asyncio.timeout(origin.connect_timeout_s + origin.first_byte_timeout_s) as head:
            _has_reused.set(False)
            _on_interim.set(request.on_interim)
            if body.data is None:
                head.reschedule(None)  # an upload takes as long as its client does
            response = await session.request(
                request.method,
                URL(f"{origin.scheme}://{origin.authority}{request.target}", encoded=True),
                headers=headers,
                data=(aiter(body) if body.data is None else body.data or None),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=origin.total_timeout_s,
                    sock_connect=origin.connect_timeout_s,
                    sock_read=max(origin.idle_timeout_s, origin.first_byte_timeout_s),
                ),
            )
        try:
            fields = _checked(origin, response)
        except BaseException:
            response.close()
            raise
        if request.method == "HEAD" or response.status in _NO_BODY:
            response.release()
            return Response(response.status, fields)
        length = response.content_length if "content-length" in fields else None

        async def close() -> None:
            response.close()

        return Response(
            response.status,
            fields,
            Body(stream=self._chunks(origin, response), length=length, close=close),
        )

    async def _chunks(
        self, origin: Origin, response: aiohttp.ClientResponse
    ) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = _as_upstream_error(origin, error, body=True)
            self._counts.origin(origin.name).failures[failure.error] += 1
            raise failure from error
        finally:
            response.release()

    def _session(self, origin: Origin) -> aiohttp.ClientSession:
        key = (origin.ca_file, origin.max_connections, origin.allow_private)
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = aiohttp.ClientSession(
                connector=_Connector(
                    limit=0,
                    limit_per_host=origin.max_connections,
                    ssl=_tls(origin.ca_file),
                    ttl_dns_cache=30,
                    resolver=Resolver(allow_private=origin.allow_private),
                    keepalive_timeout=30,
                ),
                response_class=_Response,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                max_line_size=MAX_HEAD_BYTES,
                max_field_size=MAX_HEAD_BYTES,
            )
        return session

    async def _upgrade(self, origin: Origin, request: Request) -> Response:
        """Open a connection of its own for a WebSocket, and hand it over once the origin agrees."""
        async with asyncio.timeout(origin.connect_timeout_s + origin.first_byte_timeout_s):
            reader, writer = await _open(origin)
            try:
                lines = [f"{request.method} {request.target} HTTP/1.1", f"Host: {origin.authority}"]
                lines += [f"{name}: {value}" for name, value in request.headers.items()]
                writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
                head = await reader.readuntil(b"\r\n\r\n")
                status, fields = _parse_head(head)
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
                writer.close()
                raise UpstreamError(origin.name, "http_upgrade_failed", str(error)) from error
            except BaseException:
                writer.close()
                raise
        if status != 101 or (fields.get("upgrade") or "").lower() != "websocket":
            writer.close()
            return _refused_upgrade(status, fields)
        return Response(101, fields, tunnel=(reader, writer))


async def _open(origin: Origin) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the first address of `origin` that takes one."""
    is_tls = origin.scheme == "https"
    failure: OSError | None = None
    for address in await _addresses(origin):
        try:
            return await asyncio.open_connection(
                address,
                origin.port,
                ssl=_tls(origin.ca_file) if is_tls else None,
                server_hostname=origin.host if is_tls else None,
                limit=MAX_HEAD_BYTES,
            )
        except OSError as error:
            failure = error
    raise failure or OSError("its name has no address")


async def _addresses(origin: Origin) -> list[str]:
    if parse_address(origin.host) is not None:
        return [origin.host]
    resolver = Resolver(allow_private=origin.allow_private)
    found = await resolver.resolve(origin.host, origin.port, socket.AF_UNSPEC)
    return [one["host"] for one in found]


def _refused_upgrade(status: int, fields: Headers) -> Response:
    """The origin's refusal, in its own fields but without its body, which is left unread."""
    if not 300 <= status <= 599:
        return Response.text(502, f"the origin answered the upgrade with {status}\n")
    refusal = Response.text(status, f"the origin refused the upgrade with {status}\n")
    framing = ("content-length", "transfer-encoding", "content-encoding", "content-type", "etag")
    fields.remove(*framing)
    refusal.headers.fields += fields.fields
    return refusal


def _parse_head(head: bytes) -> tuple[int, Headers]:
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest[:3]
    if version != "HTTP/1.1" or not (code.isascii() and code.isdigit() and len(code) == 3):
        raise ValueError("the origin's answer is not HTTP/1.1")
    headers = Headers()
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError("the origin sent a field without a colon")
        headers.add(name, value)
    return int(code), headers


def _checked(origin: Origin, response: aiohttp.ClientResponse) -> Headers:
    """The response's fields, if its head is within bounds and framed in one way only."""
    raw = response.raw_headers
    size = sum(len(name) + len(value) for name, value in raw)
    if len(raw) > MAX_HEAD_FIELDS or size > MAX_HEAD_BYTES:
        raise UpstreamError(
            origin.name, "http_response_header_section_size", "its head is too large"
        )
    if not 200 <= response.status <= 599 or response.version not in ((1, 1), (1, 0)):
        raise UpstreamError(origin.name, "http_protocol_error", f"status {response.status}")
    headers = Headers(raw)
    lengths = headers.get_all("content-length")
    codings = headers.get_all("transfer-encoding")
    if len(lengths) > 1 or (codings and lengths) or codings not in ([], ["chunked"], ["Chunked"]):
        raise UpstreamError(origin.name, "http_protocol_error", "its framing is ambiguous")
    for name, value in headers.items():
        Headers.of((name, value))  # ValueError for what could not be sent on safely
    return headers


@functools.cache
def _tls(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


def _as_upstream_error(origin: Origin, error: Exception, *, body: bool = False) -> UpstreamError:
    """The error in the words of RFC 9209, section 2.3."""
    detail = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL):
        detail = "its answer is not HTTP/1.1"  # its own text holds the URL and raw fields
    token, status = "http_protocol_error", 502
    if body and not isinstance(error, TimeoutError):
        token = "http_response_incomplete"
    elif isinstance(error, aiohttp.ConnectionTimeoutError):
        token, status = "connection_timeout", 504
        detail = "no connection in time"
    elif isinstance(error, TimeoutError):
        token, status = "http_response_timeout", 504
        detail = "it did not answer in time"
    elif isinstance(prohibited := getattr(error, "os_error", error), ProhibitedAddress):
        token, detail = "destination_ip_prohibited", str(prohibited)
    elif isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        token = "dns_error"
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        token = "tls_certificate_error"
    elif isinstance(error, aiohttp.ClientSSLError):
        token = "tls_protocol_error"
    elif isinstance(error, aiohttp.ClientConnectorError):
        refused = isinstance(error.os_error, ConnectionRefusedError)
        token = "connection_refused" if refused else "destination_ip_unroutable"
    elif isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError | OSError):
        token = "connection_terminated"
    return UpstreamError(origin.name, token, detail, status=status)
