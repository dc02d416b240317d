"""`edgeproxy init`: the command line, and the way to the site."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from multidict import CIMultiDict

from edgeproxy import __version__, policytest
from edgeproxy.engine.upstream import Upstream
from edgeproxy.errors import UpstreamError
from edgeproxy.http import Headers, Origin, Request
from edgeproxy.policy.installed import installed
from edgeproxy.policy.schema import schema
from edgeproxy.policy.vocabulary import everything
from edgeproxy.warm.crawl import Got, Pace, Unreachable

from .draft import draft
from .draft_tests import draft_tests
from .findings import Findings, findings
from .survey import AGENT, survey

MAX_PAGE_BYTES = 1024 * 1024
REQUESTS_A_SECOND = 10
SCHEMA = "edgeproxy.schema.json"
TESTS_SCHEMA = "edgeproxy-tests.schema.json"
MODELINE = "# yaml-language-server: $schema={}\n"


def add_command(commands: Any) -> None:
    """`init`, to a set of sub-parsers."""
    init = commands.add_parser("init", help="write a first policy, from a look at a site")
    init.set_defaults(command=main)
    init.add_argument("url", help="where the site is now")
    init.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write it there, and its tests and schemas beside it",
    )
    init.add_argument("--force", action="store_true", help="overwrite what is there")


def main(options: argparse.Namespace) -> int:
    """0: written; 1: the site cannot be looked at; 2: wrong use."""
    output: Path | None = options.output
    try:
        if output is not None:
            check_place(output, force=options.force)
        found = asyncio.run(look_at(options.url))
        print(draft(found, "site.yaml"), end="") if output is None else write(found, output)
    except ValueError as error:
        print(f"edgeproxy init: {error}", file=sys.stderr)
        return 2
    except (Unreachable, OSError) as error:
        print(f"edgeproxy init: {options.url}: {error}", file=sys.stderr)
        return 1
    return 0


async def look_at(url: str) -> Findings:
    upstream = Upstream()

    async def get(url: str) -> Got:
        return await fetched(upstream, url)

    try:
        pace = Pace(REQUESTS_A_SECOND, time.monotonic, asyncio.sleep)
        return findings(await survey(url, get, pace, time.monotonic))
    finally:
        await upstream.close()


async def fetched(upstream: Upstream, url: str) -> Got:
    """One answer, with the start of its body. Raises Unreachable."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    origin = Origin(
        "site",
        parts.scheme,
        parts.hostname or "",
        port,
        first_byte_timeout_s=10,
        total_timeout_s=15,
    )
    headers = Headers.of(
        ("user-agent", f"{AGENT}/{__version__}"), ("accept", "*/*"), ("accept-encoding", "identity")
    )
    request = Request(
        "GET", origin.authority, parts.path, parts.query or None, headers, scheme=parts.scheme
    )
    try:
        response = await upstream.fetch(origin, request)
        start = bytearray()
        try:
            async for chunk in response.body:
                start += chunk
                if len(start) >= MAX_PAGE_BYTES:
                    break
        finally:
            await response.body.close()
    except UpstreamError as error:
        raise Unreachable(error.detail) from error
    fields = CIMultiDict(response.headers.items())
    return Got(response.status, fields, bytes(start[:MAX_PAGE_BYTES]), len(start))


def tests_beside(policy: Path) -> Path:
    return policy.with_name(f"{policy.stem}_test.yaml")


def check_place(policy: Path, *, force: bool) -> None:
    """Raises ValueError if `policy` cannot be written there, or something would be overwritten."""
    if not policy.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {policy.parent}")
    taken = [path for path in (policy, tests_beside(policy)) if path.exists()]
    if taken and not force:
        names = " and ".join(map(str, taken))
        raise ValueError(f"{names}: there already; overwrite with --force")


def write(found: Findings, policy: Path) -> None:
    """The policy, its tests, and what editors know of both languages."""
    schemas = {SCHEMA: schema(everything(installed())), TESTS_SCHEMA: policytest.schema()}
    files = {
        policy: MODELINE.format(SCHEMA) + draft(found, policy.name),
        tests_beside(policy): MODELINE.format(TESTS_SCHEMA) + draft_tests(found, policy.name),
    }
    for name, known in schemas.items():
        files[policy.with_name(name)] = json.dumps(known, indent=2) + "\n"
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    names = ", ".join(path.name for path in files)
    print(f"edgeproxy init: wrote {names}, after {found.requests} requests", file=sys.stderr)
