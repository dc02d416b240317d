"""The page of the loop, followed from top to bottom as a newcomer would, with a real proxy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from edgeproxy.pages import Pages
from tests.docs.blocks import DOCS, Block, blocks, commands, pattern_of

PAGE = DOCS / "workbench.md"
PROXY = "127.0.0.1:8080"  # where the page has it
ENVIRONMENT = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHON_COLORS": "0"}


def save(name: str, text: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text)


def copy(*names: str) -> None:
    *sources, target = names
    for source in sources:
        shutil.copy(source, target)


class Newcomer:
    """Does what each block says, in the folder that is the working one."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.proxy: asyncio.subprocess.Process | None = None
        self.said = ""  # by the proxy, and not yet looked for
        self.port = ""

    async def follow(self, block: Block) -> None:
        if block.file_name:
            save(block.file_name, block.text)
        elif block.language == "console":
            for command, shown in commands(block):
                printed = await self.run(*shlex.split(command))
                assert re.fullmatch(pattern_of(shown), printed, re.S), f"{block}: {printed}"
        elif block.language == "text":
            await self.hear(pattern_of(block.text.strip()))
        elif block.text.startswith("edgeproxy record"):
            await self.start(*shlex.split(block.text))
        elif block.text.startswith("cp "):
            copy(*shlex.split(block.text)[1:])

    async def run(self, program: str, *arguments: str) -> str:
        if program == "curl":
            return await self.head(*arguments)
        assert program == "edgeproxy"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", program, *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=ENVIRONMENT,
        )  # fmt: skip
        printed, _ = await process.communicate()
        return printed.decode()

    async def head(self, *arguments: str) -> str:
        """What `curl -sI` prints: the head of the answer to a HEAD."""
        assert arguments[0] == "-sI"
        fields = [value for name, value in pairwise(arguments) if name == "-H"]
        path = arguments[-1].removeprefix(f"http://{PROXY}")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.port))
        head = [f"HEAD {path} HTTP/1.1", f"Host: {PROXY}", "Connection: close", *fields, "", ""]
        writer.write("\r\n".join(head).encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.decode().replace("\r\n", "\n")

    async def start(self, program: str, *arguments: str) -> None:
        self.proxy = await asyncio.create_subprocess_exec(
            sys.executable, "-m", program, *arguments,
            "--listen", "127.0.0.1:0", "--origin", f"pages={self.origin}",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=ENVIRONMENT,
        )  # fmt: skip
        match = await self.hear(r"edgeproxy serves http://127.0.0.1:(\d+)/")
        self.port = match[1]

    async def hear(self, wanted: str) -> re.Match[str]:
        """Wait until the proxy says what is `wanted`; what it said before is over."""
        assert self.proxy is not None
        assert self.proxy.stdout is not None
        async with asyncio.timeout(30):
            while (match := re.search(wanted, self.said, re.S)) is None:
                line = await self.proxy.stdout.readline()
                assert line, f"the proxy ended:\n{self.said}"
                self.said += line.decode()
        self.said = self.said[match.end() :]
        return match


@pytest.fixture
async def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Newcomer]:
    site = tmp_path / "project"
    for folder in (site, site / "de", site / "guide" / "start"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.html").write_text("<!doctype html><title>A page</title>")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    async with Pages(site, base="/project/") as pages:
        found = Newcomer(pages.url)
        yield found
        if found.proxy is not None:
            with contextlib.suppress(ProcessLookupError):
                found.proxy.kill()
            await found.proxy.communicate()


async def test_the_page_can_be_followed(newcomer: Newcomer) -> None:
    followed = list(blocks(PAGE))
    for block in followed:
        await newcomer.follow(block)
    assert newcomer.proxy is not None
    assert len(followed) > 12
