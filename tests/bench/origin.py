"""An origin without end: `/N` is N, filled up to a size.

`python -m tests.bench.origin PORT SIZE`
"""

from __future__ import annotations

import asyncio
import sys

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n"
    b'ETag: "%d"\r\nCache-Control: max-age=600\r\n\r\n'
)


class Numbered(asyncio.Protocol):
    """Answers GETs on one connection, which may come in pieces."""

    def __init__(self, size_bytes: int) -> None:
        self.filling = b"." * size_bytes
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self.rest = (self.rest + data).split(b"\r\n\r\n")
        for request in requests:
            number = request.split(b" ", 2)[1].rpartition(b"/")[2]
            body = number + self.filling[len(number) :]
            self.transport.write(HEAD % (len(body), int(number)) + body)


async def serve(port: int, size_bytes: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Numbered(size_bytes), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
