"""Which requests of a connection that carries many are under way, and which wait for their turn."""

from __future__ import annotations

from edgeproxy.engine.front import Front
from edgeproxy.engine.streams import Stream
from edgeproxy.engine.waiting import Ends

WAITING_BYTES = 128 * 1024
"""Of requests that wait on one connection; for more, there has to be room at once."""


class Turns:
    """Gives each request a lane of the front, which counts as a connection of the client.

    The first counts in place of the connection that it is on, so that there is always room for
    one; others wait for that if there is none, as they would over HTTP/1.1. A request with a body
    does not wait: the body would have to be held.
    """

    def __init__(self, front: Front, ends: Ends, client: str) -> None:
        self._front = front
        self._ends = ends
        self._client = client
        self._under_way = 0
        self._waiting: dict[int, Stream] = {}
        self._waiting_bytes = 0
        self._is_beginning = False
        self._has_ended = False

    def add(self, stream: Stream) -> None:
        """Begin a request, or let it wait. The front turns away what it has no room for."""
        size = len(stream.request.text)
        may_wait = stream.request_ended and self._waiting_bytes + size <= WAITING_BYTES
        if may_wait and self._under_way and (self._waiting or not self._has_room()):
            self._waiting[stream.number] = stream
            self._waiting_bytes += size
        else:
            self._begin(stream)

    def _has_room(self) -> bool:
        return self._front.lacks_room(self._client) is None

    def _begin(self, stream: Stream) -> None:
        if not self._under_way:
            self._front.lend(self._client)
        self._under_way += 1
        stream.begin(self._front.lane(self._ends))

    def remove(self, stream: Stream) -> None:
        """It is wanted no more."""
        if self._waiting.pop(stream.number, None) is not None:
            self._waiting_bytes -= len(stream.request.text)

    def released(self) -> None:
        """A request is over: it is the turn of those that wait."""
        if self._has_ended:
            return
        self._under_way -= 1
        if not self._under_way:
            self._front.take_back(self._client)
        if self._is_beginning:  # it was over at once
            return
        self._is_beginning = True
        while self._waiting and (not self._under_way or self._has_room()):
            stream = next(iter(self._waiting.values()))
            self.remove(stream)
            self._begin(stream)
        self._is_beginning = False

    def end(self) -> None:
        """The connection has ended: nobody gets a turn any more."""
        if self._under_way and not self._has_ended:
            self._front.take_back(self._client)
        self._has_ended = True
        self._waiting.clear()
