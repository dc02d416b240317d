"""Writes down what passes: a flow for each exchange of the clients in the sample, redacted.

Bodies are left out. A recording holds addresses of clients, so that it can be replayed with the
places they are in; its file can be read by its owner alone.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable

from edgeproxy.candidate import point_of
from edgeproxy.differences import spelled_key, spelled_variant
from edgeproxy.engine.appending import Appending
from edgeproxy.errors import UpstreamError
from edgeproxy.http import Exchange, Fetch, Headers, Origin, Request, Response
from edgeproxy.policy.model import RecordConfig
from edgeproxy.traffic import Fetched, Recalled, Visit
from edgeproxy.traffic.redaction import Redaction
from edgeproxy.traffic.visit import asked_of

MAX_UNDER_WAY = 4096  # exchanges whose origin's answer waits for their end; older ones lose it

_SALT = "record"


class Recording:
    """An open recording. `write` makes bytes of a visit; OSError if the file cannot be opened."""

    def __init__(self, config: RecordConfig, write: Callable[[Visit], bytes]) -> None:
        self.config = config
        self._write = write
        self._redaction = Redaction(config.redact, config.keep_cookies)
        self._fetched: OrderedDict[str, Fetched] = OrderedDict()
        descriptor = os.open(config.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        file = os.fdopen(descriptor, "ab", buffering=0)
        self._file = Appending(file, config.path, config.max_size)

    def end(self) -> None:
        """Take no more. What was recorded is still written."""
        self._file.end()

    async def written(self) -> None:
        """Return when it is, after `end`."""
        await asyncio.to_thread(self._file.wait)

    def tapped(self, exchange: Exchange, fetch: Fetch) -> Fetch:
        """`fetch`, with what it gives to `exchange` noted."""
        if not self._takes(exchange):
            return fetch

        async def overheard(origin: Origin, request: Request) -> Response:
            try:
                response = await fetch(origin, request)
            except UpstreamError as error:
                self._note(exchange, origin, request, error.status, Headers(), error.error)
                raise
            self._note(exchange, origin, request, response.status, response.headers.copy())
            return response

        return overheard

    def finish(self, exchange: Exchange) -> None:
        """Have `exchange` written down, which is over."""
        fetched = self._fetched.pop(exchange.id, None)
        if exchange.response is None or exchange.request.is_upgrade or not self._takes(exchange):
            return
        self._file.add(self._write(self._visit(exchange, fetched)))

    def _takes(self, exchange: Exchange) -> bool:
        sample = self.config.sample
        return not self._file.is_over and (sample >= 1 or point_of(exchange.client, _SALT) < sample)

    def _note(
        self,
        exchange: Exchange,
        origin: Origin,
        request: Request,
        status: int,
        headers: Headers,
        error: str = "",
    ) -> None:
        asked = asked_of(origin, request)
        self._fetched[exchange.id] = Fetched(asked, status, headers, error)
        if len(self._fetched) > MAX_UNDER_WAY:
            self._fetched.popitem(last=False)

    def _visit(self, exchange: Exchange, fetched: Fetched | None) -> Visit:
        request, response, redaction = exchange.request, exchange.response, self._redaction
        assert response is not None
        if fetched is not None:
            fetched = Fetched(
                redaction.url(fetched.asked), fetched.status,
                redaction.headers(fetched.headers), fetched.error,
            )  # fmt: skip
        elif exchange.hit is not None:
            entry = exchange.hit.entry
            fetched = Fetched("", entry.status, redaction.headers(entry.headers))
        return Visit(
            request.method, request.scheme, request.authority, request.path,
            redaction.query(request.query), redaction.headers(request.headers), exchange.client,
            exchange.at_s, response.status, redaction.headers(response.headers),
            exchange.bytes_sent, fetched, self._recalled(exchange),
        )  # fmt: skip

    def _recalled(self, exchange: Exchange) -> Recalled:
        return Recalled(
            route=exchange.route or "none",
            variant=spelled_variant(exchange),
            cache_key=self._redaction.url(spelled_key(exchange.cache_key)),
            verdict=exchange.cache_verdict,
            policy=exchange.policy,
            by_itself=exchange.origin is None,
        )
