"""`edgeproxy run --origin URL`, with no policy at all, is useful by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from edgeproxy.pages import Pages


async def test_a_site_is_served_cached_and_served_on_when_the_origin_is_gone(
    make_site: Any, edgeproxy_run: Any
) -> None:
    root: Path = make_site(index="home", **{"guide/index": "guide"})
    async with Pages(root, base="/project/") as site:
        proxy = await edgeproxy_run("--origin", site.url)
        async with aiohttp.ClientSession() as client:

            async def get(path: str) -> tuple[int, aiohttp.typedefs.LooseHeaders, bytes]:
                url = proxy.url + path
                async with client.get(url, allow_redirects=False) as answer:
                    return answer.status, answer.headers, await answer.read()

            status, headers, body = await get("")
            assert (status, body) == (200, (root / "index.html").read_bytes())
            assert "stored" in headers["Cache-Status"]
            # Security headers are the owner's to choose.
            assert not {"Strict-Transport-Security", "Content-Security-Policy"} & set(headers)
            # The base path is taken off and put on.
            status, headers, _ = await get("guide")
            assert (status, headers["Location"]) == (301, proxy.url + "guide/")
            status, _, _ = await get("project/guide/")
            assert status == 200
            status, _, _ = await get("missing")
            assert status == 404

            await site.stop()
            status, headers, body = await get("")
            assert (status, body) == (200, (root / "index.html").read_bytes())
            assert "; hit" in headers["Cache-Status"]
            status, _, _ = await get("never-seen")
            assert status == 502
    assert "policy" in proxy.out[0]


async def test_a_url_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    import asyncio
    import sys

    for arguments in (["--origin", "ftp://x/"], []):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edgeproxy", "run", *arguments, "--listen", "127.0.0.1:0",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode == 2
        assert not out
        assert b"Traceback" not in err
        assert b"origin URL" in err or b"--origin URL" in err
