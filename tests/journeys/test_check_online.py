"""`edgeproxy check --online` finds what only an origin can tell."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from edgeproxy.pages import Fault, Pages

POLICY = """\
version: 1
origins:
  site: {url: "%s"}
"""


async def check(folder: Path, url: str) -> tuple[int, str]:
    policy = folder / "policy.yaml"
    policy.write_text(POLICY % url)
    command = [sys.executable, "-m", "edgeproxy", "check", "--online", str(policy)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


async def test_healthy_origin_passes(make_site: Any, tmp_path: Path) -> None:
    async with Pages(make_site(index="home"), base="/project/") as site:
        assert await check(tmp_path, site.url) == (0, "")


async def test_custom_domain_is_named_with_what_to_change(make_site: Any, tmp_path: Path) -> None:
    root = make_site(index="home")
    async with Pages(root, host="127.0.0.1", domain="www.example.org") as site:
        status, errors = await check(tmp_path, site.url)
    assert status == 2
    assert errors.startswith("origin 'site': it redirects to www.example.org, which loops if")
    assert "origin.www.example.org" in errors


async def test_wrong_base_path_is_named(make_site: Any, tmp_path: Path) -> None:
    async with Pages(make_site(index="home"), base="/project/") as site:
        status, errors = await check(tmp_path, site.url.replace("/project/", "/projet/"))
    assert (status, "there is no page at /projet/" in errors) == (2, True)


async def test_failing_and_absent_origins_are_named(make_site: Any, tmp_path: Path) -> None:
    async with Pages(make_site(index="home")) as site:
        site.set_fault("/**", Fault(status=503))
        status, errors = await check(tmp_path, site.url)
        assert (status, "it answers 503 for /" in errors) == (2, True)
        await site.stop()
        status, errors = await check(tmp_path, site.url)
        assert (status, "connection_refused" in errors) == (2, True)
