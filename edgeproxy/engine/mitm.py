"""The mitmproxy core: flow in, flow out. The only place that imports mitmproxy.

Every request is a mitmproxy flow, so it can be inspected, recorded and scripted. mitmproxy never
opens a connection by itself: where it would talk to a server, it talks to the journey through a
pipe in memory. A request without a body whose answer is small is answered in the flow; everything
else (uploads, long answers, WebSockets) streams both ways through that pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from mitmproxy import http
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import ConnectionState
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events, layers, mode_servers, mode_specs
from mitmproxy.proxy.layers.http import HTTPMode, _http1
from mitmproxy.proxy.server import ConnectionIO

from edgeproxy.app import App
from edgeproxy.engine.arrival import arrived, is_bodyless, sent_body, settle_path
from edgeproxy.engine.message import head_bytes, reason_phrase
from edgeproxy.engine.pipe import HIGH_WATER, PipeEnd, duplex
from edgeproxy.errors import ClientError, UpstreamError
from edgeproxy.fronting import clean_response
from edgeproxy.http import Body, Exchange, Headers, Response
from edgeproxy.pipeline import error_response, upstream_failed

log = logging.getLogger("edgeproxy.core")

MAX_INTERIM_RESPONSES = 8  # per request; more are dropped
DIRECT_BYTES = 64 * 1024  # answers up to this size stand in the flow itself

Serve = Callable[[PipeEnd], Awaitable[None]]


class Core:
    """An embedded mitmproxy with only the addons it needs, fed with streams by the listeners."""

    def __init__(self, app: App) -> None:
        self.addon = Journeys(app)
        self.master = Master(Options())
        # Its log handler would outlive it, and then raise wherever something is logged.
        self.master._legacy_log_events.uninstall()
        self.master.addons.add(Proxyserver(), self.addon)
        self.master.options.update(
            keep_host_header=True, connection_strategy="lazy", rawtcp=False, http2=True
        )
        self._mode = mode_specs.ProxyMode.parse("reverse:http://edgeproxy.invalid")
        logging.getLogger("mitmproxy").setLevel(logging.WARNING)

    async def handle_stream(self, stream: PipeEnd) -> None:
        """Speak HTTP on `stream` until it closes."""
        handler = _Connection(
            self.master, stream, stream, self.master.options, self._mode, self.addon
        )
        self.addon.clients[handler.client.id] = stream
        try:
            await handler.handle_client()
        finally:
            del self.addon.clients[handler.client.id]


class _Connection(mode_servers.ProxyConnectionHandler):
    """One client's connection. Its servers are journeys, reached through pipes."""

    def __init__(
        self,
        master: Master,
        reader: PipeEnd,
        writer: PipeEnd,
        options: Options,
        mode: mode_specs.ProxyMode,
        journeys: Journeys,
    ) -> None:
        super().__init__(master, reader, writer, options, mode)
        context = self.layer.context
        context.server.address = ("edgeproxy.invalid", 80)
        self.layer = layers.HttpLayer(context, HTTPMode.transparent)
        self._journeys = journeys

    async def open_connection(self, command: commands.OpenConnection) -> None:
        connection = command.connection
        assert connection.address is not None
        serve = self._journeys.waiting.pop(connection.address[0], None)
        if serve is None:
            await self.server_event(events.OpenConnectionCompleted(command, "no such journey"))
            return
        await asyncio.sleep(0)  # the caller runs this eagerly, and has to register it first
        near, far = duplex()
        connection.timestamp_start = connection.timestamp_tcp_setup = time.time()
        connection.state = ConnectionState.OPEN
        connection.peername = connection.sockname = connection.address
        self.transports[connection] = ConnectionIO(
            handler=asyncio.current_task(),
            reader=_Answers(near),  # type: ignore[arg-type]
            writer=near,  # type: ignore[arg-type]
        )
        journey = asyncio.ensure_future(serve(far))
        try:
            await self.server_event(events.OpenConnectionCompleted(command, None))
            await self.handle_connection(connection)
        finally:
            connection.timestamp_end = time.time()
            near.close()
            journey.cancel()
            await asyncio.wait([journey])
            error = None if journey.cancelled() else journey.exception()
            if error is not None and not isinstance(error, ConnectionError):
                log.error("a journey failed", exc_info=error)

    async def drain_writers(self) -> None:
        """Let a closed pipe be noticed where it is read.

        mitmproxy's own cancels the reader, and then the news that an answer broke off may be lost.
        """
        async with self._drain_lock:
            for transport in list(self.transports.values()):
                if transport.writer is not None:
                    with contextlib.suppress(ConnectionError):
                        await transport.writer.drain()


class _Answers:
    """Where mitmproxy reads answers: all that is there at a time, not the 64 KiB that it asks for.

    Each piece goes through its layers on its own, which takes 70 us however long it is.
    """

    def __init__(self, end: PipeEnd) -> None:
        self._end = end

    async def read(self, _: int) -> bytes:
        return await self._end.read(HIGH_WATER)


class Journeys:
    """The addon that hands every flow to the app."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.waiting: dict[str, Serve] = {}  # journeys that await their pipe, by exchange id
        self.clients: dict[str, PipeEnd] = {}  # where clients read their answers, by connection

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """A request with a body streams: its journey begins at the far end of a pipe."""
        if _has_body(flow.request):
            flow.request.stream = True
            self._through_pipe(flow, functools.partial(self._serve, flow))

    async def request(self, flow: http.HTTPFlow) -> None:
        """A request without a body begins its journey at once."""
        if flow.request.stream or flow.response:
            return
        exchange = None
        try:
            exchange, response = await self._journey(flow, Body())
            data = await _direct(exchange, response)
        except UpstreamError as error:  # the body broke off before anything was sent
            assert exchange is not None
            response = upstream_failed(exchange, error)
            data = response.body.data
        except Exception as error:  # a body that a plugin made
            assert exchange is not None
            log.exception("request %s failed", exchange.id)
            exchange.error = repr(error)
            response = error_response(exchange, 500, "edgeproxy failed")
            data = response.body.data
        if data is None or response.tunnel:
            self._through_pipe(flow, functools.partial(self._deliver_late, exchange, response))
            return
        data = sent_body(exchange, response)
        flow.response = _flow_response(response, data)
        exchange.bytes_sent = len(data)
        self._app.finish(exchange)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """What comes out of a pipe is passed on as it comes."""
        if flow.response is not None and flow.response.raw_content is None:
            flow.response.stream = True

    async def error(self, flow: http.HTTPFlow) -> None:
        """A client that left before its pipe was opened: what was to go through it is let go."""
        serve = self.waiting.pop(flow.id, None)
        if serve is not None:
            near, far = duplex()
            near.close()
            with contextlib.suppress(ConnectionError):
                await serve(far)

    def _through_pipe(self, flow: http.HTTPFlow, serve: Serve) -> None:
        self.waiting[flow.id] = serve
        flow.request.data.host = flow.id
        flow.request.data.port = 80
        flow.request.data.scheme = b"http"

    async def _journey(self, flow: http.HTTPFlow, body: Body) -> tuple[Exchange, Response]:
        client = self.clients.get(flow.client_conn.id)  # None: it has left
        begun = client.take("begun") if client is not None else None
        reader = client if flow.request.is_http11 else None
        if begun is not None:
            interim = _Interim(begun.exchange, reader)
            try:
                return begun.exchange, await begun.go_on(interim)
            finally:
                interim.end()
        exchange = arrived(
            self._app.plan,
            flow.client_conn.peername[0],
            client.get_extra_info("scheme", "http") if client else "http",
            flow.request.method,
            flow.request.host_header or "",
            flow.request.path,
            Headers(flow.request.headers.fields),
            body,
        )
        exchange.protocol = (client and client.take("protocol")) or exchange.protocol
        interim = exchange.request.on_interim = _Interim(exchange, reader)
        plan = self._app.plan_for(exchange)
        try:
            settle_path(exchange, plan)
        except ClientError as error:
            return exchange, error_response(exchange, error.status, error.reason)
        try:
            return exchange, await self._app.handle(exchange)
        finally:
            interim.end()

    async def _serve(self, flow: http.HTTPFlow, far: PipeEnd) -> None:
        """The far end of a pipe: read the request that mitmproxy sends, go, and answer."""
        wire = _Wire(far)
        await wire.until(b"\r\n\r\n")
        length = flow.request.headers.get("content-length")
        body = Body(
            stream=wire.exactly(int(length)) if length else wire.chunked(),
            length=int(length) if length else None,
        )
        exchange, response = await self._journey(flow, body)
        await self._deliver(exchange, response, far, rest=body)

    async def _deliver_late(self, exchange: Exchange, response: Response, far: PipeEnd) -> None:
        """Take the request that mitmproxy sends, which is answered already, and deliver."""
        try:
            await _Wire(far).until(b"\r\n\r\n")
        finally:
            await self._deliver(exchange, response, far)

    async def _deliver(
        self, exchange: Exchange, response: Response, far: PipeEnd, *, rest: Body | None = None
    ) -> None:
        """Write `response` into the pipe. A body that breaks off leaves it visibly short.

        `rest` is what of the request may still be on its way: mitmproxy wants it taken.
        """
        try:
            if response.tunnel is not None:
                await _splice(exchange, response, far)
            else:
                await _write(exchange, response, far)
            if rest is not None and rest.data is None:
                async for _ in rest:
                    pass
        except UpstreamError as error:
            exchange.error = str(error)
            log.warning("request %s: %s", exchange.id, error)
        except (ConnectionError, asyncio.CancelledError):
            if response.tunnel is None:
                exchange.error = exchange.error or "the client went away"
            raise
        except Exception as error:  # a body that a plugin made
            exchange.error = repr(error)
            log.exception("request %s failed", exchange.id)
        finally:
            far.close()
            await response.body.close()
            self._app.finish(exchange)


class _Interim:
    """Passes interim responses of the origin on to the client (RFC 9110, section 15.2).

    mitmproxy would take one for the answer, so they are written past it. Until the journey ends
    nothing else is written to this client: it has one request under way, unanswered.
    """

    def __init__(self, exchange: Exchange, client: PipeEnd | None) -> None:
        self._exchange = exchange
        self._client = client
        self._left = MAX_INTERIM_RESPONSES

    def __call__(self, status: int, headers: Headers) -> None:
        client, origin = self._client, self._exchange.origin
        if client is None or origin is None or not self._left:
            return
        self._left -= 1
        response = Response(status, headers)
        clean_response(response, origin)
        headers.remove("content-length")
        client.write(head_bytes(response.status, response.headers.fields))

    def end(self) -> None:
        """The answer follows now: what a fetch in the background hears is for nobody."""
        self._client = None


async def _direct(exchange: Exchange, response: Response) -> bytes | None:
    """The whole body, if it is small enough to stand in the flow; None if it must stream."""
    body = response.body
    if is_bodyless(exchange, response):
        await body.close()
        return b""
    if body.data is not None:
        return body.data
    if body.length is None or body.length > DIRECT_BYTES:
        return None
    return await body.peek(DIRECT_BYTES)


async def _write(exchange: Exchange, response: Response, far: PipeEnd) -> None:
    body, headers = response.body, response.headers
    bodyless = is_bodyless(exchange, response)
    if not bodyless:
        headers.remove("content-length")
        if body.length is not None:
            headers.add("content-length", str(body.length))
        else:
            headers.add("transfer-encoding", "chunked")
    far.write(head_bytes(response.status, response.headers.fields))
    if bodyless:
        return
    async for chunk in body:
        exchange.bytes_sent += len(chunk)
        far.write(chunk if body.length is not None else b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await far.drain()
    if body.length is None:
        far.write(b"0\r\n\r\n")
    await far.drain()


async def _splice(exchange: Exchange, response: Response, far: PipeEnd) -> None:
    """Join a WebSocket's two ends until either closes."""
    assert response.tunnel is not None
    reader, writer = response.tunnel
    response.headers.set("connection", "Upgrade")
    response.headers.set("upgrade", "websocket")
    far.write(head_bytes(response.status, response.headers.fields))

    async def outwards() -> None:
        while data := await far.read(65536):
            writer.write(data)
            await writer.drain()

    async def inwards() -> None:
        while data := await reader.read(65536):
            exchange.bytes_sent += len(data)
            far.write(data)
            await far.drain()

    ways = [asyncio.ensure_future(outwards()), asyncio.ensure_future(inwards())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        writer.close()


class _Wire:
    """Reads what mitmproxy's HTTP/1 client writes into a pipe."""

    def __init__(self, end: PipeEnd) -> None:
        self._end = end
        self._buffer = bytearray()

    async def _more(self) -> None:
        data = await self._end.read(65536)
        if not data:
            raise ConnectionError("the client went away")
        self._buffer += data

    async def until(self, mark: bytes) -> bytes:
        while (found := self._buffer.find(mark)) < 0:
            await self._more()
        line = bytes(self._buffer[:found])
        del self._buffer[: found + len(mark)]
        return line

    async def exactly(self, length: int) -> AsyncIterator[bytes]:
        while length:
            if not self._buffer:
                await self._more()
            piece = bytes(self._buffer[:length])
            del self._buffer[: len(piece)]
            length -= len(piece)
            yield piece

    async def chunked(self) -> AsyncIterator[bytes]:
        while size := int(await self.until(b"\r\n"), 16):
            async for piece in self.exactly(size):
                yield piece
            await self.until(b"\r\n")
        await self.until(b"\r\n")


def _has_body(request: http.Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get(
        "content-length", "0"
    ) not in ("0", "")


def _flow_response(response: Response, data: bytes) -> http.Response:
    now = time.time()
    return http.Response(
        http_version=b"HTTP/1.1",
        status_code=response.status,
        reason=reason_phrase(response.status),
        headers=http.Headers(response.headers.fields),
        content=data,
        trailers=None,
        timestamp_start=now,
        timestamp_end=now,
    )


def _own_error_page(status_code: int, message: str = "") -> bytes:
    """mitmproxy's pages repeat what the client sent; ours say as much as a client needs."""
    text = f"{status_code}: the request could not be handled\n".encode()
    head = f"HTTP/1.1 {status_code} {reason_phrase(status_code).decode()}\r\n"
    head += "connection: close\r\n"
    head += f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(text)}\r\n\r\n"
    return head.encode() + text


_http1.make_error_response = _own_error_page
