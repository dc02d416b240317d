"""The control channel between the supervisor and a worker: questions and answers over a socket.

A message is two lengths, a JSON object, and perhaps bytes beside it. Either side may ask; whatever
is not understood closes the channel, since nobody knows what would come after it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_WORDS_BYTES = 16 * 2**20
MAX_DATA_BYTES = 16 * 2**20
MAX_UNSENT_BYTES = 128 * 2**20
"""Of messages that the other side has not read: it is stuck then, and lost."""

_LENGTHS = struct.Struct("!II")

log = logging.getLogger("edgeproxy.workers")


class Lost(Exception):
    """The other side is gone, or says what cannot be understood."""


class Refused(Exception):
    """The other side could not do what it was asked for; the text says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """`words` are plain data, `data` are bytes that need not be made text of."""

    words: Mapping[str, Any]
    data: bytes = b""

    def __getitem__(self, key: str) -> Any:
        return self.words[key]


NOTHING = Message({})

Handler = Callable[[Message], Awaitable[Message]]
"""Answers a question. What it raises is told to who asked, as Refused."""


class Channel:
    """One end. `handlers` are what the other side may ask for, by name."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Message]] = {}
        self._answering: set[asyncio.Future[None]] = set()
        self._lost = asyncio.get_running_loop().create_future()
        self._writer: asyncio.StreamWriter | None = None

    async def open(self, sock: socket.socket) -> None:
        """Talk over `sock` from now on."""
        reader, self._writer = await asyncio.open_unix_connection(sock=sock)
        self._reading = asyncio.ensure_future(self._read(reader))

    async def ask(self, name: str, data: bytes = b"", /, **words: Any) -> Message:
        """The answer to a question. Raises Lost, or Refused."""
        if self._lost.done():
            raise Lost(self._lost.result())
        number = next(self._numbers)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._write({"number": number, "ask": name, "words": words}, data)
            return await answer
        finally:
            del self._asked[number]

    async def lost(self) -> str:
        """Return when the channel does not work any more: why."""
        return str(await asyncio.shield(self._lost))

    def close(self, reason: str = "it was closed") -> None:
        """Talk no more. What was asked on either side is not answered."""
        if self._lost.done():
            return
        self._lost.set_result(reason)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(Lost(reason))
        for answering in tuple(self._answering):
            answering.cancel()
        if self._writer is not None:
            self._writer.transport.abort()

    # ------------------------------------------------------------ writing

    def _write(self, head: dict[str, Any], data: bytes) -> None:
        writer = self._writer
        assert writer is not None  # it is open
        if self._lost.done():
            return
        words = json.dumps(head, separators=(",", ":")).encode()
        if len(words) > MAX_WORDS_BYTES or len(data) > MAX_DATA_BYTES:
            raise ValueError("the message is too large")
        writer.write(_LENGTHS.pack(len(words), len(data)) + words + data)
        if writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.close("it does not read")

    # ------------------------------------------------------------ reading

    async def _read(self, reader: asyncio.StreamReader) -> None:
        reason = "it is gone"
        try:
            while True:
                words_length, data_length = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
                if words_length > MAX_WORDS_BYTES or data_length > MAX_DATA_BYTES:
                    raise ValueError("a message is too large")
                head = json.loads(await reader.readexactly(words_length))
                self._take(head, await reader.readexactly(data_length))
        except asyncio.IncompleteReadError:
            pass  # perhaps in the middle of a message
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"it says what cannot be understood: {error!r}"
        except OSError as error:
            reason = str(error)
        finally:
            self.close(reason)

    def _take(self, head: Any, data: bytes) -> None:
        """Act on one message. Raises for what is none."""
        number, words = int(head["number"]), dict(head["words"])
        if "ask" in head:
            handler = self._handlers[head["ask"]]
            answering = asyncio.ensure_future(self._answer(number, handler, Message(words, data)))
            if not answering.done():
                self._answering.add(answering)
                answering.add_done_callback(self._answering.discard)
            return
        answer = self._asked.get(number)
        if answer is None or answer.done():
            return  # nobody waits any more
        if "refused" in head:
            answer.set_exception(Refused(str(head["refused"])))
        else:
            answer.set_result(Message(words, data))

    async def _answer(self, number: int, handler: Handler, question: Message) -> None:
        try:
            answer = await handler(question)
            self._write({"number": number, "words": dict(answer.words)}, answer.data)
        except Refused as error:
            self._write({"number": number, "words": {}, "refused": str(error)}, b"")
        except Exception as error:
            log.exception("a question of the other side could not be answered")
            self._write({"number": number, "words": {}, "refused": repr(error)}, b"")
