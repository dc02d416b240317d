"""yaml-language-server, spoken to as an editor speaks to it: LSP over stdio."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETTINGS = {
    "yaml": {
        "validate": True,
        "hover": True,
        "completion": True,
        "schemaStore": {"enable": False},  # it would ask the network
    }
}


@dataclass
class LanguageServer:
    """One server. Positions are those of LSP: lines and characters count from 0."""

    process: asyncio.subprocess.Process
    _number: int = 0
    _answers: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    _problems: dict[str, asyncio.Future[list[dict[str, Any]]]] = field(default_factory=dict)

    # ---------------------------------------------------------------- what an editor asks

    async def problems(self, file: Path, text: str) -> list[dict[str, Any]]:
        """Open `text` as `file`, and wait for what is wrong with it."""
        uri = file.as_uri()
        found = self._problems[uri] = asyncio.get_running_loop().create_future()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._send("textDocument/didOpen", {"textDocument": document})
        return await found

    async def hover(self, file: Path, line: int, character: int) -> str:
        """What is shown for the word at a position; Markdown."""
        answer = await self._ask("textDocument/hover", _position(file, line, character))
        return str(answer["contents"]["value"]) if answer else ""

    async def completions(self, file: Path, line: int, character: int) -> dict[str, dict[str, Any]]:
        """What could stand at a position, by its label."""
        answer = await self._ask("textDocument/completion", _position(file, line, character))
        items = answer["items"] if isinstance(answer, dict) else answer
        return {item["label"]: item for item in items or ()}

    # ---------------------------------------------------------------- the protocol

    async def start(self, root: Path) -> None:
        capabilities = {
            "workspace": {"configuration": True},
            "textDocument": {"completion": {"completionItem": {"snippetSupport": True}}},
        }
        await self._ask(
            "initialize",
            {"processId": None, "rootUri": root.as_uri(), "capabilities": capabilities},
        )
        self._send("initialized", {})

    async def read_on(self) -> None:
        """Hand out what the server says, until it ends."""
        assert self.process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = (await self.process.stdout.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length:")[2].split()[0])
                self._hear(json.loads(await self.process.stdout.readexactly(length)))

    def _hear(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "workspace/configuration":
            result = [SETTINGS.get(item.get("section", "")) for item in params["items"]]
            self._write({"id": message["id"], "result": result})
        elif method == "textDocument/publishDiagnostics":
            waiting = self._problems.get(params["uri"])
            if waiting is not None and not waiting.done():
                waiting.set_result(params["diagnostics"])
        elif method is not None and "id" in message:
            self._write({"id": message["id"], "result": None})
        elif "id" in message:
            self._answers.pop(message["id"]).set_result(message.get("result"))

    async def _ask(self, method: str, params: Any) -> Any:
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        self._write({"id": self._number, "method": method, "params": params})
        return await answer

    def _send(self, method: str, params: Any) -> None:
        self._write({"method": method, "params": params})

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(data), data))


def _position(file: Path, line: int, character: int) -> dict[str, Any]:
    position = {"line": line, "character": character}
    return {"textDocument": {"uri": file.as_uri()}, "position": position}


@contextlib.asynccontextmanager
async def language_server(program: Path, root: Path) -> AsyncIterator[LanguageServer]:
    """A server for the files below `root`."""
    process = await asyncio.create_subprocess_exec(
        "node", program, "--stdio", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    server = LanguageServer(process)
    reading = asyncio.create_task(server.read_on())
    try:
        await server.start(root)
        yield server
    finally:
        process.kill()
        await process.wait()
        await reading
