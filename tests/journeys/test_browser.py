"""A real browser loads a page of a hundred files, some of them hits and some misses."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yarl import URL

from edgeproxy.pages import Pages
from edgeproxy.testing import running
from tests.certificates import Authority

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--ignore-certificate-errors",
)  # fmt: skip
POLICY = """\
version: 1
accelerator: on
origins: {site: {url: "https://you.github.io/"}}
tls: {certificates: [{certificate: FOLDER/server.pem, key: FOLDER/server.key}]}
experiments: {hero: {weights: {plain: 1, bold: 1}}}
cache: {rules: {all: {ttl: 1h}}}
routes: [{name: site, experiment: hero, cache: all}]
"""
COUNT = 99
TELL = """\
<script>addEventListener("load", () => {
  const images = [...document.images].filter(image => image.naturalWidth).length;
  const sheets = document.styleSheets.length;
  const protocol = performance.getEntriesByType("navigation")[0].nextHopProtocol;
  document.title = `${protocol}: ${window.scripts} scripts, ${images} images, ${sheets} sheets`;
})</script>
"""


def site(folder: Path) -> Path:
    """A page with 33 scripts, 33 images and 33 style sheets, of up to 30 KB."""
    folder.mkdir()
    tags = []
    for number in range(COUNT // 3):
        filling = "x" * (number * 977)
        for name, text, tag in (
            (f"s{number}.js", f"window.scripts = (window.scripts || 0) + 1; // {filling}",
             "<script src=/{}></script>"),
            (f"i{number}.svg", '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4">'
             f"<!-- {filling} --></svg>", "<img src=/{}>"),
            (f"c{number}.css", f"p {{ color: red }} /* {filling} */",
             "<link rel=stylesheet href=/{}>"),
        ):  # fmt: skip
            (folder / name).write_text(text)
            tags.append(tag.format(name))
    (folder / "index.html").write_text("<!doctype html>" + "\n".join(tags) + TELL)
    return folder


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
async def test_a_browser_loads_all_of_a_page_with_hits_and_misses(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    Authority.in_folder(tmp_path, "authority").sign(tmp_path, "server", "127.0.0.1")
    async with (
        Pages(site(tmp_path / "site")) as pages,
        running(
            POLICY.replace("FOLDER", str(tmp_path)), origins={"site": pages.url}, tls=True
        ) as proxy,
    ):
        for number in range(0, COUNT // 3, 2):  # every other script is a hit
            await proxy.get(f"/s{number}.js")
        await proxy.server.app.plan.cache.settled()
        plain, secure = proxy.server.urls
        for visit, url, protocol in (
            ("first", plain, b"http/1.1"),
            ("second", secure, b"h2"),
            ("third", secure, b"h2"),
            ("fourth", secure, b"h2"),
            ("fifth", secure, b"h2"),
        ):
            browser = await asyncio.create_subprocess_exec(
                CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / visit}",
                "--virtual-time-budget=10000", "--dump-dom", url,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            page, _ = await browser.communicate()
            assert protocol + b": 33 scripts, 33 images, 33 sheets" in page
        assert {entry["status"] for entry in proxy.log} <= {200, 404}  # a browser asks for an icon
        verdicts = {entry["cache"] for entry in proxy.log}
        assert {"hit", "miss"} <= verdicts
        assert proxy.server.edge.accelerator.remembered > 0


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
async def test_a_browser_loads_all_of_a_page_over_http_3(tmp_path: Path) -> None:
    """It is told to begin with it: what it learns from Alt-Svc needs a second visit, and a
    certificate of an authority that the world knows."""
    assert CHROMIUM is not None
    pair = Authority.in_folder(tmp_path, "authority").sign(tmp_path, "server", "localhost")
    key = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).public_key()
    packed = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(packed).digest()).decode()
    text = POLICY.replace("FOLDER", str(tmp_path)).replace("}]}", "}], protocols: [h3, http/1.1]}")
    async with (
        Pages(site(tmp_path / "site")) as pages,
        running(text, origins={"site": pages.url}, tls=True) as proxy,
    ):
        proxy.server.app.names_clients = True
        place = f"localhost:{URL(proxy.server.urls[1]).port}"
        browser = await asyncio.create_subprocess_exec(
            CHROMIUM, *(one for one in QUIET if one != "--disable-quic"), "--enable-quic",
            f"--origin-to-force-quic-on={place}", f"--ignore-certificate-errors-spki-list={pin}",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--host-resolver-rules=MAP localhost 127.0.0.1",
            "--virtual-time-budget=10000", "--dump-dom", f"https://{place}/",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        page, _ = await browser.communicate()
        assert b"h3: 33 scripts, 33 images, 33 sheets" in page
        assert {entry["protocol"] for entry in proxy.log} == {"HTTP/3.0"}
        assert len(proxy.log) >= COUNT + 1
