"""HTTPS on a developer's machine: one command for a certificate, one for it to be trusted."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
POLICY = """\
version: 1
origins: {site: {url: "http://site.example/"}}
routes: [{name: hello, respond: {body: "<title>trusted</title>", content_type: text/html}}]
"""


async def edgeproxy(home: Path, *arguments: str) -> tuple[int, str, str]:
    """Status, output and messages of a command of the user who lives in `home`."""
    env = {**os.environ, "HOME": str(home)}
    env.pop("XDG_STATE_HOME", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgeproxy", *arguments, env=env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def served(home: Path, edgeproxy_run: Any) -> str:
    """The HTTPS address of a proxy whose policy ends with what `edgeproxy cert dev` printed."""
    status, printed, _ = await edgeproxy(home, "cert", "dev")
    assert status == 0
    policy = home / "policy.yaml"
    policy.write_text(POLICY + printed)
    proxy = await edgeproxy_run(policy, "--listen-tls", "127.0.0.1:0", "--workers", "1")
    ready = await proxy.said(lambda line: line.startswith("edgeproxy serves "))
    found = re.search(r"https://127\.0\.0\.1:(\d+)/", ready)
    assert found is not None
    return f"https://localhost:{found[1]}/"


async def test_what_is_printed_is_the_policy_and_is_trusted(
    tmp_path: Path, edgeproxy_run: Any
) -> None:
    url = await served(tmp_path, edgeproxy_run)
    authority = tmp_path / ".local/state/edgeproxy/dev/authority.pem"
    trust = ssl.create_default_context(cafile=authority)
    async with aiohttp.ClientSession() as session:
        for address in (url, url.replace("localhost", "127.0.0.1")):
            async with session.get(address, ssl=trust) as answer:
                assert await answer.text() == "<title>trusted</title>"


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.skipif(shutil.which("certutil") is None, reason="needs certutil of NSS")
async def test_a_browser_trusts_it_after_one_command(tmp_path: Path, edgeproxy_run: Any) -> None:
    url = await served(tmp_path, edgeproxy_run)
    for is_trusted in (False, True):
        page = await dumped(tmp_path, url)
        assert ("<title>trusted</title>" in page) == is_trusted, page
        status, said, _ = await edgeproxy(tmp_path, "cert", "trust")
        assert status == 0
        assert "Chromium and Chrome of this user trust it" in said
        assert "as root:\n  sudo sh -c '" in said


async def dumped(home: Path, url: str) -> str:
    assert CHROMIUM is not None
    browser = await asyncio.create_subprocess_exec(
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        f"--user-data-dir={home}/profile", "--dump-dom", url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": str(home)},
    )  # fmt: skip
    page, _ = await browser.communicate()
    return page.decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dev", "www.example.org"), "www.example.org may be somebody's; take one that ends in"),
        (("trust",), "there is no authority yet; run: edgeproxy cert dev"),
    ],
)
async def test_wrong_use_is_told(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    status, _, err = await edgeproxy(tmp_path, "cert", *arguments)
    assert (status, said in err) == (2, True)
    assert not (tmp_path / ".local").exists()
