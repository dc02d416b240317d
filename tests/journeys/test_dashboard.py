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
origins: {site: {url: "http://127.0.0.1:9/"}, gone: {url: "http://127.0.0.1:9/"}}
experiments: {hero: {weights: {plain: 1, bold: 3}}}
cache: {memory: {max_size: 8MiB}, rules: {all: {ttl: 10m}}}
routes:
  - {name: moved, match: {path: /old/**, country: [DE, US]}, redirect: /}
  - {name: gone, match: {path: /gone/**}, origin: gone}
  - {name: site, origin: site, experiment: hero, cache: all}
"""
PANELS = {
    "p-tiles": ("Requests", "Hit ratio", "Latency", "Connections"),
    "p-curves": ("Requests", "hits", "Latency", "99 % within"),
    "p-cache": ("memory", "hit", "miss", "8.0 MiB"),
    "p-origins": ("site", "healthy", "127.0.0.1"),
    "p-routes": ("site", "moved"),
    "p-countries": ("Germany", "United States", "US", "15 % and more"),
    "p-experiments": ("hero", "plain", "25.0 %", "75.0 %", "Too few assignments"),
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


CANDIDATE = POLICY.replace("/old/**", "/older/**")


async def try_out(scene: Scene, policy: str = CANDIDATE) -> str:
    """A policy in shadow, which has already something to say: its version."""
    files = [("candidate.yaml", policy.encode())]
    trial = await scene.proxy.server.rollout.try_out(files, 0.0, "anna", "a new look")
    await scene.proxy.get("/old/page", headers={"X-Forwarded-For": "8.8.8.8"})
    candidate = scene.proxy.server.app.candidate
    assert candidate is not None
    await candidate.shadow.settled()
    return trial.plan.version


async def act(scene: Scene, button: str, why: str = "") -> None:
    """Press a button by keyboard, say why, and confirm it."""
    page = scene.page
    await page.until(f"document.getElementById('{button}')")
    await page.run(f"document.getElementById('{button}').focus()")
    await page.press("Enter")
    await page.until("document.querySelector('#confirm[open]')")
    await page.run("document.getElementById('why').focus()")
    await page.type(why)
    await page.press("Enter")


async def test_a_trial_is_watched_given_visitors_and_promoted_from_the_page(scene: Scene) -> None:
    page, app = scene.page, scene.proxy.server.app
    await scene.sign_in()
    assert await page.run("getComputedStyle(document.getElementById('p-trial')).display") == "none"
    version = await try_out(scene)
    await page.run("refresh()")
    told = await scene.text("p-trial")
    for words in (version, "in shadow", "anna: a new look", "1 of 1 requests", "/old/page"):
        assert words in told
    assert f"Policy {version} is on trial in shadow" in await scene.text("p-notices")
    await act(scene, "set-share")
    await page.until("document.getElementById('news').textContent.includes('on 5 % of')")
    assert app.candidate is not None
    assert app.candidate.share == 0.05
    await page.until("document.getElementById('p-trial').innerText.includes('for 5 % of the')")
    await act(scene, "promote", "it is better")
    await page.until(
        f"document.getElementById('news').textContent.includes('{version} is in force')"
    )
    assert app.plan.version == version
    assert app.candidate is None
    last = scene.proxy.server.rollout.history.versions[-1]
    assert (last.event, last.by, last.why) == ("promote", "dashboard", "it is better")
    await page.until("getComputedStyle(document.getElementById('p-trial')).display === 'none'")
    await act(scene, "back-to-1", "it was not")
    await page.until(
        "document.getElementById('news').textContent.includes('is in force')"
        " && document.getElementById('p-policy').innerText.includes('it was not')"
    )
    assert app.plan.version != version
    assert page.troubles == []


async def test_a_trial_is_ended_from_the_page_unless_it_is_another_by_now(scene: Scene) -> None:
    page, app = scene.page, scene.proxy.server.app
    await scene.sign_in()
    await try_out(scene)
    await page.run("refresh()")
    await page.run("document.getElementById('pause').click()")
    other = CANDIDATE.replace("10m", "20m")
    files = [("candidate.yaml", other.encode())]
    await scene.proxy.server.rollout.try_out(files, 0.0, "ben")
    await act(scene, "promote")
    await page.until("document.querySelector('#acted.bad')")
    assert "is on trial by now, not" in await scene.text("acted")
    assert app.candidate is not None
    await page.press("Escape")
    await page.until("!document.querySelector('dialog[open]')")
    assert await page.run("document.activeElement.id") == "promote"
    await page.run("refresh()")
    await page.run("document.getElementById('end-trial').click()")
    await page.run("document.getElementById('leave').click()")
    assert app.candidate is not None
    await act(scene, "end-trial")
    await page.until("document.getElementById('news').textContent.includes('none is on trial')")
    assert app.candidate is None


async def test_the_map_says_by_keyboard_and_pointer_what_a_country_is(scene: Scene) -> None:
    page = scene.page
    await scene.sign_in()
    await page.run("document.getElementById('pause').click()")
    shown = """[...document.querySelectorAll(".world .told")]
      .filter((one) => getComputedStyle(one).display !== "none").map((one) => one.textContent)"""
    assert await page.run(shown) == []
    await page.run("document.querySelector('.world [tabindex=\"0\"]').focus()")
    assert await page.run(shown) == ["Germany 6 requests, 50.0 %"]
    await page.press("ArrowRight")
    assert await page.run(shown) == ["United States 6 requests, 50.0 %"]
    assert await page.run("document.activeElement.id") == "country-US"
    await page.run("document.activeElement.blur()")
    await page.hover("#country-US")
    assert await page.run(shown) == ["United States 6 requests, 50.0 %"]


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
            ".card h2, .card th, .card td, .card .of, .card .state, .legend, dt, dd, button.why, "
              + ".legend b, .path, .nothing",
          )];
          const country = document.querySelector(".world [tabindex]");
          const shades = [1, 2, 3, 4].map((shade) => {
            country.setAttribute("class", `shade-${shade}`);
            const [square, code] = ["rect", "text"].map((name) => country.querySelector(name));
            return ratio(light(getComputedStyle(square).fill), light(getComputedStyle(code).fill));
          });
          return Math.min(...shades, ...texts.map((one) => ratio(
            light(getComputedStyle(one).color),
            light(getComputedStyle(one.closest(".card")).backgroundColor),
          )));
        })()"""
    )
    return found


WIDEST = """[...document.body.querySelectorAll("*")].filter((one) => !one.closest(".hidden, svg"))
  .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth
    || one.closest(".card")?.getBoundingClientRect().right < one.getBoundingClientRect().right)
  .map((one) => one.outerHTML.slice(0, 80))"""
"""What goes beyond the screen, or its card."""


@pytest.mark.parametrize("width", [360, 768, 1280])
async def test_nothing_is_wider_than_the_screen(scene: Scene, width: int) -> None:
    """With an origin that is down, a trial, and a policy that can be gone back to, too."""
    page = scene.page
    await scene.sign_in()
    for _ in range(6):
        await scene.proxy.get("/gone/")
    await try_out(scene)
    await scene.proxy.server.rollout.promote("anna", "a-word-that-is-long-and-has-no-space" * 4)
    await try_out(scene, POLICY)
    await page.run("refresh()")
    await page.until("document.getElementById('p-notices').innerText.includes('gone is down')")
    await page.size(width, 800, mobile=width == 360)
    assert await page.run(WIDEST) == []
    for opens in ("button.why", "#set-share"):
        await page.run(f"document.querySelector('{opens}').click()")
        await page.until("document.querySelector('dialog[open]')")
        assert await page.run(WIDEST) == []
        await page.press("Escape")
        await page.until("!document.querySelector('dialog[open]')")


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
                  const label = document.getElementById(one.getAttribute("aria-labelledby"));
                  const name = one.getAttribute("aria-label") || one.labels?.[0]?.innerText
                    || label?.textContent || one.innerText || "";
                  const square = one.querySelector("rect");
                  const mark = square ? getComputedStyle(square).stroke
                    : getComputedStyle(one).outlineStyle;
                  return [one.tagName, name.trim(), mark];
                })()"""
            )
        )
    assert stops[0][:2] == ["A", "Skip to the figures"]
    for tag, name, mark in stops:
        assert name, tag
        assert mark != "none", (tag, name)
    assert [tag for tag, *_ in stops].count("g") == 1  # the map, however many countries


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
