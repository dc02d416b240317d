"""`edgeproxy init` in front of a local Pages, and what its policy then does for visitors."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy import policytest
from edgeproxy.pages import Pages
from edgeproxy.testing import running


async def init(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own, while this loop serves the site."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "edgeproxy", "init", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.fixture
def site(make_site: Callable[..., Path]) -> Path:
    folder = make_site(
        index='<html lang="en"><link rel="stylesheet" href="assets/main.3c95695f.css">'
        '<a href="/project/guide/">Guide</a><a href="de/">Deutsch</a>',
        **{"guide/index": "<p>The guide.", "de/index": '<html lang="de"><p>Hallo.'},
    )
    (folder / "404.html").write_text('<!doctype html><a href="/project/">Back</a> Not here.')
    (folder / "assets").mkdir()
    (folder / "assets" / "main.3c95695f.css").write_text("p {}")
    return folder


async def test_the_policy_of_a_look_serves_the_site(site: Path, tmp_path: Path) -> None:
    policy = tmp_path / "site.yaml"
    async with Pages(site, base="/project/") as pages:
        done = await init(pages.url, "-o", policy)
        assert done.returncode == 0, done.stderr
        assert sum(pages.requests.values()) <= 12
        assert "wrote site.yaml, site_test.yaml, edgeproxy.schema.json" in done.stderr

        text = policy.read_text()
        assert text.startswith("# yaml-language-server: $schema=edgeproxy.schema.json\n")
        assert json.loads((tmp_path / "edgeproxy.schema.json").read_text())["definitions"]
        report = await asyncio.to_thread(policytest.run, [policy])
        assert report.passed, str(report)
        assert "# - {name: home-de, match: {path: [/, /project/], language: de}" in text

        async with running([policy]) as proxy:
            home = await proxy.get("/")
            assert home.status == 200
            assert home.headers["x-content-type-options"] == "nosniff"
            style = await proxy.get("/assets/main.3c95695f.css")
            assert style.headers["cache-control"] == "max-age=31536000"
            assert (await proxy.get("/guide")).headers["location"] == f"{proxy.url}guide/"
            assert (await proxy.get("/no-such-page")).status == 404


async def test_without_a_file_it_is_printed_and_nothing_written(site: Path) -> None:
    async with Pages(site) as pages:
        done = await init(pages.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# A first policy for http://127.0.0.1:")
    assert "site.yaml" not in {path.name for path in site.parent.iterdir()}


async def test_an_application_gets_its_document_for_every_address(
    make_site: Callable[..., Path],
) -> None:
    app = '<div id="app"></div><script src="/app.0123abcd.js"></script>'
    folder = make_site(index=app)
    (folder / "404.html").write_text((folder / "index.html").read_text())
    async with Pages(folder) as pages:
        done = await init(pages.url)
        async with running(done.stdout) as proxy:
            page = await proxy.get("/orders/42", headers={"accept": "text/html"})
            assert (page.status, b'id="app"' in page.body) == (200, True)
            assert (await proxy.get("/missing.js")).status == 404


async def test_what_is_there_is_not_overwritten(site: Path, tmp_path: Path) -> None:
    policy = tmp_path / "site.yaml"
    policy.write_text("mine")
    async with Pages(site) as pages:
        done = await init(pages.url, "-o", policy)
        assert (done.returncode, policy.read_text()) == (2, "mine")
        assert "site.yaml: there already; overwrite with --force" in done.stderr
        assert not pages.requests
        assert (await init(pages.url, "-o", policy, "--force")).returncode == 0
    assert "version: 1" in policy.read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["you.github.io/project"], 2, "is not an http or https URL"),
        (["http://127.0.0.1:1/"], 1, "http://127.0.0.1:1/: "),
        (["http://127.0.0.1:1/", "-o", "/no/such/folder/site.yaml"], 2, "there is no folder"),
    ],
)
async def test_what_cannot_be_done_is_told(arguments: list[str], status: int, reason: str) -> None:
    done = await init(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "base", "wanted"),
    [
        (
            "keepachangelog",
            "/",
            [
                "language: de}",
                "zh-TW",
                "[.](css|js",
                "no 404.html of its own",
                "redirect: /en/1.1.0/",
            ],
        ),
        (
            "httpcore-docs",
            "/httpcore/",
            ["(/httpcore)?/assets/", "https://fonts.googleapis.com", "is redirected to"],
        ),
    ],
)
async def test_real_sites(
    shared_sites: Path, name: str, base: str, wanted: list[str], tmp_path: Path
) -> None:
    async with Pages(shared_sites / name / "site", base=base) as pages:
        done = await init(pages.url, "-o", tmp_path / "site.yaml")
        assert done.returncode == 0, done.stderr
        assert sum(pages.requests.values()) <= 20
        text = (tmp_path / "site.yaml").read_text()
        assert [part for part in wanted if part not in text] == []
        assert "spa_fallback" not in text
        report = await asyncio.to_thread(policytest.run, [tmp_path / "site.yaml"])
        assert report.passed, str(report)
        async with running([tmp_path / "site.yaml"]) as proxy:
            assert (await proxy.get("/")).status == 200
