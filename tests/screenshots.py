"""Make docs/images/dashboard*.png, light and dark: a real proxy, real visits, a real browser.

Run by `make screenshots`. It takes two minutes, since the curves show what has happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import tempfile
import time
from pathlib import Path

from edgeproxy.pages import Pages
from edgeproxy.testing import Proxy, running
from tests.browser import Page, chromium
from tests.png import with_palette

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
MAX_BYTES = 200_000
TOKEN = "only-for-these-pictures"
POLICY = """\
version: 1
admin: {listen: "127.0.0.1:0", token: "${env:EDGEPROXY_TOKEN}"}
trusted_proxies: [127.0.0.1]
explain: {sample: 0.05, keep: 100}
origins:
  pages: {url: "http://127.0.0.1:9/"}
  next: {url: "http://127.0.0.1:9/"}
experiments:
  hero: {weights: {control: 50, bold: 50}}
  nav: {weights: {top: 90, side: 10}}
cache:
  memory: {max_size: 2MiB}
  disk: {path: cache, max_size: 64MiB}
  rules: {html: {ttl: 8s, stale_while_revalidate: 4s}, assets: {ttl: 30d}}
routes:
  - {name: moved, match: {path: /old/**}, redirect: /guide/**}
  - {name: assets, match: {path: /assets/**}, origin: pages, cache: assets}
  - {name: german-home, match: {path: /, country: [AT, CH, DE]}, redirect: /de/}
  - {name: preview, match: {path: /next/**}, origin: next, cache: html}
  - {name: home, match: {path: /}, origin: pages, experiment: hero, cache: html}
  - {name: site, origin: pages, experiment: nav, cache: html}
"""
PAGES = {
    "/": 16, "/guide/": 10, "/guide/start/": 8, "/guide/policies/": 6, "/guide/caching/": 5,
    "/de/": 4, "/reference/": 4, "/changelog/": 2, "/next/": 1, "/old/start/": 2, "/missing/": 1,
}  # fmt: skip
ASSETS = [f"/assets/{name}" for name in ("site.css", "site.js", "logo.svg", "font.woff2")]
NETWORKS = {
    "194.25.0": 22, "8.8.8": 18, "81.2.69": 9, "133.242.0": 8, "200.160.2": 6,
    "193.51.208": 7, "203.2.218": 4, "196.25.1": 3, "168.126.63": 3, "31.13.72": 2,
}  # fmt: skip
VISIT_S = 110.0
TRIAL_S = 8.0  # in shadow, and as long again for some visitors
PARTS = {"": "header, #p-experiments", "-map": "#p-countries", "-trial": "#p-trial"}
"""What is in a picture, by what follows `dashboard` in its name."""


def site(folder: Path, size: int = 12_000) -> Path:
    for path in (*PAGES, *ASSETS):
        if not path.startswith(("/old/", "/missing/")):
            file = (
                folder / path.lstrip("/") / "index.html"
                if path.endswith("/")
                else (folder / path.lstrip("/"))
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.urandom(random.Random(path).randrange(size)))
    return folder


async def visit(proxy: Proxy, chance: random.Random, until_s: float) -> None:
    """Visitors come in waves; each asks for some pages, and for what belongs to them."""
    while (left_s := until_s - time.monotonic()) > 0:
        network = chance.choices([*NETWORKS], [*NETWORKS.values()])[0]
        address = f"{network}.{chance.randrange(1, 255)}"
        headers = {"X-Forwarded-For": address, "Host": "www.example.org"}
        for page in chance.choices([*PAGES], [*PAGES.values()], k=2):
            for path in (page, *chance.sample(ASSETS, 2)):
                reply = await proxy.get(path, headers=headers)
                if "Set-Cookie" in reply.headers:
                    headers["Cookie"] = reply.headers["Set-Cookie"].partition(";")[0]
        await asyncio.sleep(chance.random() * (0.12 + 0.08 * math.sin(left_s / 9)))


async def pictures(folder: Path) -> dict[str, bytes]:
    """What the dashboard looks like once there have been visitors for a while, by name."""
    async with Pages(site(folder / "site")) as pages:
        origins = {"pages": pages.url, "next": "http://127.0.0.1:9/"}  # nobody is there
        async with (
            running([Path("site.yaml")], origins=origins) as proxy,
            asyncio.TaskGroup() as tasks,
        ):
            at_s = time.monotonic() + VISIT_S
            until_s = at_s + 2 * TRIAL_S + 10
            for number in range(4):
                tasks.create_task(visit(proxy, random.Random(number), until_s))
            looking = tasks.create_task(look(proxy, folder, at_s))
        return looking.result()


async def look(proxy: Proxy, folder: Path, at_s: float) -> dict[str, bytes]:
    """Pictures as of a moment, and of a trial thereafter."""
    rollout = proxy.server.rollout
    async with chromium(folder / "profile") as page:
        await page.size(1280, 800)
        await page.open(f"http://{proxy.server.admin.address}/")
        await page.until("document.activeElement.id === 'token'")
        await page.type(TOKEN)
        await page.press("Enter")
        await page.until("document.querySelector('#state.healthy')")
        await asyncio.sleep(at_s - time.monotonic())
        found = {**await both(page, ""), **await both(page, "-map")}
        candidate = [("site.yaml", POLICY.replace("/guide/**", "/handbook/**").encode())]
        await rollout.try_out(candidate, 0.0, "ada", "the guide becomes a handbook")
        await asyncio.sleep(TRIAL_S)
        await rollout.try_out((), 0.25, "ada", "nobody complained in shadow")
        await asyncio.sleep(TRIAL_S)
        return {**found, **await both(page, "-trial")}


async def both(page: Page, part: str) -> dict[str, bytes]:
    """A part of the page, light and dark, by name."""
    await page.run("refresh()")
    found = {}
    for scheme in ("light", "dark"):
        await page.scheme(scheme)
        found[f"dashboard{part}-{scheme}"] = await page.picture(PARTS[part])
    return found


def main() -> None:
    os.environ["EDGEPROXY_TOKEN"] = TOKEN
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        Path("site.yaml").write_text(POLICY)
        found = asyncio.run(pictures(Path(name)))
    for name, whole in found.items():
        picture = with_palette(whole)
        assert len(picture) < MAX_BYTES, f"{name}: {len(picture)} bytes are too many"
        (IMAGES / f"{name}.png").write_bytes(picture)


if __name__ == "__main__":
    main()
