"""The demo: this project's own site, on a local GitHub Pages, behind edgeproxy. See `make demo`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections import deque
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EDGEPROXY = Path(sys.executable).with_name("edgeproxy")
POLICY = Path("policies/demo.yaml")
READY_S, STOP_S = 30, 15

SCREEN = """
  edgeproxy is up. Open  {url}

  Or try these in another terminal:

    A visitor from Germany is sent to the German home page:
      curl -sI -H 'X-Forwarded-For: 194.25.0.60' {url}

    So is one whose browser prefers German:
      curl -sI -H 'Accept-Language: de-AT, de;q=0.9, en;q=0.5' {url}

    An A/B split: half of the visitors see the bold home page, and keep it by a cookie:
      curl -sI '{url}?hero=bold'

    The cache: the second answer is a hit:
      for i in 1 2; do curl -si {url}_static/logo.svg | grep -i cache-status; done

    A page that moved, and header rules on the way out:
      curl -sI {url}manual/quick-start/

  All of it is written in {policy}. Edit it, save it, and put it in force with
      kill -HUP {pid}

  Requests show up below. Ctrl-C stops the demo.
"""


class Child:
    """An edgeproxy process. We read its output: a line with `sign` in it tells that it is ready."""

    def __init__(self, name: str, sign: str, *arguments: str) -> None:
        self.name, self.arguments = name, arguments
        self.last: deque[str] = deque(maxlen=20)
        self.shown = False  # print what it says from now on
        self.listen_for(sign)

    def listen_for(self, sign: str) -> None:
        """Set `heard` when a line with `sign` in it comes."""
        self.sign, self.heard = sign, asyncio.Event()

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            EDGEPROXY,
            *self.arguments,
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us; we stop our children ourselves
        )
        self.ended = asyncio.create_task(self._read())

    async def _read(self) -> None:
        """Follow the output until the process has ended."""
        assert self.process.stdout is not None
        async for raw in self.process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self.last.append(line)
            if self.sign in line:
                self.heard.set()
            if self.shown:
                print(f"  {line}", flush=True)
        await self.process.wait()

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(self.ended), STOP_S)
        except TimeoutError:
            self.process.kill()
            await self.ended


class Failed(Exception):
    """The demo cannot go on; the text says why."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="of the proxy, default %(default)s")
    parser.add_argument(
        "--pages-port", type=int, default=8081, help="of the site behind it, default %(default)s"
    )
    parser.add_argument("--site", type=Path, default=Path("build/site"), help="a built site")
    options = parser.parse_args()
    try:
        return asyncio.run(demo(options.port, options.pages_port, options.site))
    except Failed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


async def demo(port: int, pages_port: int, site: Path) -> int:
    """Run both processes until a signal comes or one of them ends."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if not (ROOT / site / "index.html").is_file():
        raise Failed(f"there is no site in {site}; build it with: make docs")
    for taken, argument in ((port, "--port"), (pages_port, "--pages-port")):
        if not is_free(taken):
            raise Failed(
                f"port {taken} is in use; choose another: make demo ARGS='{argument} {taken + 10}'"
            )
    pages_url = f"http://127.0.0.1:{pages_port}/"
    moved = [] if pages_port == 8081 else ["--origin", f"pages={pages_url}"]
    pages = Child(
        "edgeproxy pages", " is at ",
        "pages", str(site), "--listen", f"127.0.0.1:{pages_port}", "--quiet",
    )  # fmt: skip
    proxy = Child(
        "edgeproxy run", "edgeproxy serves ",
        "run", str(POLICY), "--listen", f"127.0.0.1:{port}", "--access-log", "text", *moved,
    )  # fmt: skip
    children = (pages, proxy)
    for child in children:
        await child.start()
    stopping = asyncio.create_task(stop.wait())
    try:
        if await all_ready(children, stopping):
            url = f"http://127.0.0.1:{port}/"
            proxy.listen_for(" HEAD ")
            for each in (pages_url, url):
                await asyncio.to_thread(probe, each)
            await first_of(asyncio.create_task(proxy.heard.wait()), stopping, proxy.ended)
            proxy.shown = True
            screen = SCREEN.format(url=url, policy=POLICY, pid=proxy.process.pid)
            print(screen, flush=True)
            await first_of(stopping, *(child.ended for child in children))
        if not stop.is_set():
            raise Failed(obituary(children))
    finally:
        stopping.cancel()
        await asyncio.gather(*(child.stop() for child in children))
    print("\n  Stopped.", flush=True)
    return 0


async def all_ready(children: tuple[Child, ...], stopping: asyncio.Task[Any]) -> bool:
    """Wait for every child to be ready; False if one ended, or if the demo is to stop."""
    ready = asyncio.gather(*(child.heard.wait() for child in children))
    try:
        async with asyncio.timeout(READY_S):
            await first_of(ready, stopping, *(child.ended for child in children))
    except TimeoutError:
        names = ", ".join(child.name for child in children if not child.heard.is_set())
        raise Failed(f"no sign of life from {names} within {READY_S} s") from None
    done = ready.done()
    ready.cancel()
    return done


async def first_of(*waiting: asyncio.Future[Any]) -> None:
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


def obituary(children: tuple[Child, ...]) -> str:
    """Which child ended, and the last that it said."""
    dead = next(child for child in children if child.ended.done())
    last = "\n".join(f"    {line}" for line in dead.last) or "    (nothing)"
    return f"{dead.name!r} ended with status {dead.process.returncode}; its last output:\n{last}"


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def probe(url: str) -> None:
    """Ask once, so that the screen comes when the demo really works."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method="HEAD")
    try:
        with direct.open(request, timeout=10):
            pass
    except (urllib.error.URLError, TimeoutError) as error:
        raise Failed(f"{url} does not answer as it should: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
