"""`edgeproxy warm`: the command line, its progress line and its summary."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import aiohttp
from yarl import URL

from edgeproxy import __version__

from .crawl import AGENT, MAX_READ_BYTES, Crawl, Got, Pace, Totals, Unreachable

SHOWN_FAILURES = 20


def add_command(commands: Any) -> None:
    """`warm`, to a set of sub-parsers."""
    warm = commands.add_parser("warm", help="fetch a whole site, so that the cache has all of it")
    warm.set_defaults(command=main)
    warm.add_argument("url", help="where the site is served by edgeproxy: a page or a sitemap")
    for option, default, metavar, kind, what in (
        ("--concurrency", "4", "N", _positive_int, "requests at a time, default %(default)s"),
        ("--rate", "10", "N", _positive, "requests a second, default %(default)s"),
        ("--max-urls", "10000", "N", _positive_int, "stop there, default %(default)s"),
        ("--timeout", "60", "S", _positive, "seconds for one answer, default %(default)s"),
    ):
        warm.add_argument(option, default=default, metavar=metavar, type=kind, help=what)
    warm.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="URL",
        help="links below this address are of this site too",
    )
    warm.add_argument(
        "--state", type=Path, metavar="FILE", help="keep here how far it is, and go on from there"
    )
    warm.add_argument("--quiet", action="store_true", help="no progress, only the summary")


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _positive_int(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def main(options: argparse.Namespace) -> int:
    """0: everything was fetched; 1: something was not; 2: wrong use."""
    try:
        return asyncio.run(_warm(options))
    except ValueError as error:
        print(f"edgeproxy warm: {error}", file=sys.stderr)
        return 2
    except (Unreachable, OSError) as error:
        print(f"edgeproxy warm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        go_on = f"; the same command goes on from {options.state}" if options.state else ""
        print(f"\nedgeproxy warm: interrupted{go_on}", file=sys.stderr)
        return 1


async def _warm(options: argparse.Namespace) -> int:
    progress = Progress(sys.stderr, time.monotonic, quiet=options.quiet)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=options.concurrency),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": f"{AGENT}/{__version__}", "Accept": "*/*"},
        timeout=aiohttp.ClientTimeout(total=options.timeout),
    ) as session:

        async def get(url: str, coding: str) -> Got:
            return await fetched(session, url, coding)

        crawl = Crawl(
            options.url,
            get,
            Pace(options.rate, time.monotonic, asyncio.sleep),
            aliases=tuple(options.alias),
            concurrency=options.concurrency,
            max_urls=options.max_urls,
            state=options.state,
            on_progress=progress.show,
        )
        try:
            totals = await crawl.run()
        finally:
            progress.clear()
    print(summary(totals, was_resumed=crawl.was_resumed), end="")
    return 1 if totals.failures or not totals.pages else 0


async def fetched(session: aiohttp.ClientSession, url: str, coding: str) -> Got:
    """One answer, its body read to the end. Raises Unreachable."""
    start, size = bytearray(), 0
    try:
        async with session.get(
            URL(url, encoded=True), headers={"Accept-Encoding": coding}, allow_redirects=False
        ) as response:
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if len(start) < MAX_READ_BYTES:
                    start += chunk[: MAX_READ_BYTES - len(start)]
            return Got(response.status, response.headers, bytes(start), size)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise Unreachable(f"no whole answer: {reason}") from error


class Progress:
    """One line that is written over, on a terminal; nothing elsewhere."""

    def __init__(self, stream: TextIO, now: Any, *, quiet: bool = False) -> None:
        self._stream = stream
        self._is_shown = stream.isatty() and not quiet
        self._now = now
        self._next_s = 0.0

    def show(self, crawl: Crawl) -> None:
        if not self._is_shown or self._now() < self._next_s:
            return
        self._next_s = self._now() + 0.2
        done, known = crawl.totals.urls, crawl.totals.urls + crawl.left
        filled = 24 * done // max(1, known)
        bar = "#" * filled + "." * (24 - filled)
        failed = f", {len(crawl.totals.failures)} failed" if crawl.totals.failures else ""
        line = f"[{bar}] {done} of {known} URLs, {in_units(crawl.totals.bytes)}{failed}"
        self._stream.write(f"\r\033[K{line[:79]}")
        self._stream.flush()

    def clear(self) -> None:
        if self._is_shown:
            self._stream.write("\r\033[K")
            self._stream.flush()


def summary(totals: Totals, *, was_resumed: bool = False) -> str:
    """What came of it, for people."""
    again = " since it was interrupted" if was_resumed else ""
    lines = [
        f"{totals.urls} URLs{again}: {totals.pages} pages and what belongs to them, "
        f"{totals.requests} requests, {in_units(totals.bytes)}"
    ]
    for what, counted in (("cache", totals.cache), ("left out", totals.skipped)):
        if counted:
            shown = ", ".join(f"{number} {name}" for name, number in counted.most_common())
            lines.append(f"  {what}: {shown}")
    if "no Cache-Status" in totals.cache:
        lines.append("  note: what has no Cache-Status did not come through the cache of edgeproxy")
    if totals.failures:
        lines.append(f"  failed: {len(totals.failures)}")
    for url, reason, source in totals.failures[:SHOWN_FAILURES]:
        lines.append(f"    {url}: {reason}" + (f", linked from {source}" if source else ""))
    if len(totals.failures) > SHOWN_FAILURES:
        lines.append(f"    and {len(totals.failures) - SHOWN_FAILURES} more")
    return "\n".join(lines) + "\n"


def in_units(size: float) -> str:
    """A number of bytes, short."""
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
