"""The whole dashboard in a real browser: signed in to, looked at, and used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeproxy.pages import Pages
from edgeproxy.testing import Proxy, running
from tests.browser import CHROMIUM, Page, chromium

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

TOKEN = "a-token-that-nobody-guesses"
POLICY = """\
version: 1
admin: {listen: "127.0.0.1:0", token: "${env:EDGEPROXY_TOKEN}"}
trusted_proxies: [127.0.0.1]
explain: {sample: 0.5, keep: 200}
origins: {site: {url: "http://127.0.0.1:9/"}}
experiments: {hero: {weights: {plain: 1, bold: 3}}}
cache: {memory: {max_size: 8MiB}, rules: {all: {ttl: 10m}}}
routes:
  - {name: moved, match: {path: /old/**, country: [DE, US]}, redirect: /}
  - {name: site, experiment: hero, cache: all}
"""
PANELS = {
    "p-tiles": ("Requests", "Hit ratio", "Latency", "Connections"),
    "p-curves": ("Requests a second", "Latency", "now"),
    "p-cache": ("memory", "hit", "miss", "8.4 MB"),
    "p-origins": ("site", "healthy", "127.0.0.1"),
    "p-routes": ("site", "moved"),
    "p-countries": ("Germany", "United States", "US"),
    "p-experiments": ("hero", "plain", "25.0 %", "75.0 %"),
    "p-policy": ("In force", "number 1", "start", "policy.yaml"),
    "p-slowest": ("127.0.0.1", "/guide/"),
    "p-failing": ("None so far.", "Not found", "/missing"),
    "p-tail": ("GET", "/guide/", "404", "why"),
}


@dataclass(frozen=True)
class Scene:
    proxy: Proxy
    page: Page

    @property
    def url(self) -> str:
        return f"http://{self.proxy.server.admin.address}/"

    async def sign_in(self) -> None:
        """By keyboard alone: the field has the focus."""
        await self.page.open(self.url)
        await self.page.until("document.activeElement.id === 'token'")
        await self.page.type(TOKEN)
        await self.page.press("Enter")
        await self.page.until("document.querySelector('#state.healthy')")
        self.page.troubles.clear()  # the page to sign in is a 401

    async def text(self, id: str) -> str:
        found: str = await self.page.run(f"document.getElementById('{id}').innerText")
        return found


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setenv("EDGEPROXY_TOKEN", TOKEN)
    site = tmp_path / "site"
    for name in ("index.html", "guide/index.html"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(f"<!doctype html><title>{name}</title>")
    async with (
        Pages(site) as pages,
        running(POLICY, origins={"site": pages.url}) as proxy,
        chromium(tmp_path / "profile") as page,
    ):
        for path in ("/", "/", "/guide/", "/guide/", "/old/page", "/missing"):
            for address in ("194.25.0.60", "8.8.8.8"):
                await proxy.get(path, headers={"X-Forwarded-For": address})
        yield Scene(proxy, page)


async def test_every_panel_says_what_it_is_for(scene: Scene) -> None:
    await scene.sign_in()
    for panel, words in PANELS.items():
        text = await scene.text(panel)
        for word in words:
            assert word in text, f"{panel}: {text}"
    headings = await scene.page.run(
        "[...document.querySelectorAll('h2')].map(one => one.innerText.split(/[\\n ]/)[0])"
    )
    assert len(headings) > len(PANELS)
    assert scene.page.troubles == []
    everything = await scene.page.run("document.documentElement.outerHTML")
    assert TOKEN not in everything


async def test_news_comes_by_itself_and_keeps_the_focus(scene: Scene) -> None:
    await scene.sign_in()
    await scene.page.run("document.querySelector('button.why').focus()")
    held = await scene.page.run("document.activeElement.id")
    assert held.startswith("why-")
    await scene.proxy.get("/brand-new")
    await scene.page.until("document.getElementById('p-tail').innerText.includes('/brand-new')")
    assert await scene.page.run("document.activeElement.id") == held
    await scene.page.run("document.getElementById('pause').click()")
    assert await scene.text("state") == "paused"


async def test_a_purge_and_a_reload_from_the_page(scene: Scene) -> None:
    page = scene.page
    await scene.sign_in()
    assert "hit" in (await scene.proxy.get("/guide/")).cache_status
    await page.run("document.getElementById('value').value = '/guide/'")
    await page.run("document.querySelector('#purge button[value=purge]').click()")
    await page.until("document.getElementById('purged').textContent === 'Purged.'")
    assert "hit" not in (await scene.proxy.get("/guide/")).cache_status
    await page.run("document.getElementById('value').value = 'ftp://x/'")
    await page.run("document.querySelector('#purge button[value=purge]').click()")
    await page.until("document.querySelector('#purged.bad')")
    assert "is not a URL" in await scene.text("purged")
    await page.run(
        "const kind = document.getElementById('kind'); kind.value = 'everything';"
        "kind.dispatchEvent(new Event('change'));"
        "document.querySelector('#purge button[value=invalidate]').click()"
    )  # the question whether it is really meant is answered by `Page`
    await page.until("document.getElementById('purged').textContent === 'Taken for stale.'")
    assert "fwd=stale" in (await scene.proxy.get("/guide/")).cache_status
    assert scene.proxy.policy_file is not None
    before = scene.proxy.server.app.plan.version
    good = scene.proxy.policy_file.read_text()
    scene.proxy.policy_file.write_text(good.replace("cache: all", "cache: none-such"))
    await page.run("document.querySelector('#reload button').click()")
    await page.until("document.querySelector('#reloaded.bad')")
    assert "unknown-rule" in await scene.text("reloaded")
    scene.proxy.policy_file.write_text(good.replace("10m", "20m"))
    await page.run("document.querySelector('#reload button').click()")
    await page.until("document.getElementById('reloaded').textContent.includes('is in force')")
    assert scene.proxy.server.app.plan.version != before
    await page.until("document.getElementById('p-policy').innerText.includes('reload, dashboard')")


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_request_of_the_tail_is_explained(scene: Scene, is_kept: bool) -> None:
    """Half of them have an explanation of their own; of the others there is one like them."""
    page = scene.page
    await scene.sign_in()
    which = "button.why[data-kept]" if is_kept else "button.why:not([data-kept])"
    await page.run(f"document.querySelector('{which}').focus()")
    held = await page.run("document.activeElement.id")
    await page.press("Enter")
    await page.until("document.querySelector('dialog[open] pre')")
    told = await scene.text("explanation")
    assert ("A request like this" in told) == (not is_kept)
    assert f"policy {scene.proxy.server.app.plan.version}" in told
    assert "routes" in told
    assert "geo.country" in told
    await page.press("Escape")
    await page.until("!document.querySelector('dialog[open]')")
    assert await page.run("document.activeElement.id") == held
    assert page.troubles == []


async def test_any_url_is_explained(scene: Scene) -> None:
    page = scene.page
    await scene.sign_in()
    await page.run("document.getElementById('url').value = 'http://www.example.org/old/x'")
    await page.run("document.getElementById('fact').value = 'country=FR'")
    await page.run("document.querySelector('#explain button').click()")
    await page.until("document.querySelector('dialog[open] pre')")
    assert "wanted DE, US" in await scene.text("explanation")


async def test_light_and_dark_are_what_the_system_says(scene: Scene) -> None:
    await scene.sign_in()
    grounds = {}
    for scheme in ("light", "dark"):
        await scene.page.scheme(scheme)
        grounds[scheme] = await scene.page.run("getComputedStyle(document.body).backgroundColor")
        assert await _contrast(scene.page) >= 4.5
    assert grounds["light"] != grounds["dark"]


async def _contrast(page: Page) -> float:
    """The least of the contrasts of texts with their card (WCAG 2.2, 1.4.3 asks for 4.5)."""
    found: float = await page.run(
        """(() => {
          const light = (colour) => {
            const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
              .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          const texts = [...document.querySelectorAll(
            ".card h2, .card th, .card td, .card .of, .card .state, .legend, dt, dd, button.why",
          )];
          return Math.min(...texts.map((one) => ratio(
            light(getComputedStyle(one).color),
            light(getComputedStyle(one.closest(".card")).backgroundColor),
          )));
        })()"""
    )
    return found


@pytest.mark.parametrize("width", [360, 768, 1280])
async def test_nothing_is_wider_than_the_screen(scene: Scene, width: int) -> None:
    await scene.sign_in()
    await scene.page.size(width, 800, mobile=width == 360)
    assert await scene.page.run("document.documentElement.scrollWidth") == width
    await scene.page.run("document.querySelector('button.why').click()")
    await scene.page.until("document.querySelector('dialog[open] pre')")
    assert await scene.page.run("document.documentElement.scrollWidth") == width


async def test_all_of_it_works_by_keyboard(scene: Scene) -> None:
    """The first stop leads past the head of the page; every stop is seen and has a name."""
    page = scene.page
    await scene.sign_in()
    await page.run("document.getElementById('pause').click()")
    await page.run("document.activeElement.blur()")
    stops = []
    for _ in range(14):
        await page.press("Tab")
        stops.append(
            await page.run(
                """(() => {
                  const one = document.activeElement;
                  const name = one.getAttribute("aria-label") || one.labels?.[0]?.innerText
                    || one.innerText || "";
                  return [one.tagName, name.trim(), getComputedStyle(one).outlineStyle];
                })()"""
            )
        )
    assert stops[0][:2] == ["A", "Skip to the figures"]
    for tag, name, outline in stops:
        assert name, tag
        assert outline != "none", (tag, name)


async def test_tables_have_heads_and_rows_have_names(scene: Scene) -> None:
    await scene.sign_in()
    faults = await scene.page.run(
        """[...document.querySelectorAll("table")].flatMap((table) => [
          ...[...table.querySelectorAll("thead th")].filter((th) => th.scope !== "col"),
          ...[...table.tBodies[0].rows].filter(
            (row) => row.cells.length !== table.tHead.rows[0].cells.length),
        ]).map((one) => one.outerHTML).concat(
          [...document.querySelectorAll("input, select")]
            .filter((one) => !one.labels.length).map((one) => one.id))"""
    )
    assert faults == []


async def test_who_signs_out_is_out(scene: Scene) -> None:
    await scene.sign_in()
    await scene.page.run("document.getElementById('sign-out').click()")
    await scene.page.until("document.querySelector('#sign-in')")
    assert "Sign in" in await scene.page.run("document.body.innerText")


async def test_a_wrong_token_is_said_to_be_wrong(scene: Scene) -> None:
    await scene.page.open(scene.url)
    await scene.page.until("document.activeElement.id === 'token'")
    await scene.page.type("not-the-token-at-all")
    await scene.page.press("Enter")
    await scene.page.until("document.querySelector('#said.bad')")
    assert await scene.text("said") == "this is not the token"
