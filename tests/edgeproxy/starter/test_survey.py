"""How a site is looked at: politely, within bounds, and wherever its address leads."""

from __future__ import annotations

import pytest

from edgeproxy.starter import survey as bounds
from tests.edgeproxy.starter.web import Unreachable, Web, answer

ROOT = "https://a.example/"


def robots(text: str) -> object:
    return answer(text, kind="text/plain")


# ------------------------------------------------------------------- bounds


async def test_a_large_site_is_asked_for_little() -> None:
    links = "".join(f'<a href="/{n}/"></a><a href="/x{n}/a.html"></a>' for n in range(500))
    languages = "".join(f'<a href="/{a}{b}/"></a>' for a in "abcde" for b in "abcde")
    web = Web({ROOT: links + languages})
    web.pages |= {f"{ROOT}{n}/": links for n in range(500)}
    seen = await web.survey(ROOT)
    assert len(web.asked) == len(set(web.asked)) == seen.requests <= 20


async def test_no_more_than_the_bound_whatever_a_site_does() -> None:
    folders = ("ab", "cd", "ef", "gh", "ij", "kl")
    web = Web({ROOT: "".join(f'<a href="/{name}/"></a>' for name in folders)})
    for url in [f"{ROOT}{name}/" for name in folders]:
        web.pages[url] = f'<meta http-equiv="refresh" content="0; url={url}x/">'
        web.pages[f"{url}x/"] = answer(status=301, location=f"{url}y/")
    seen = await web.survey(ROOT)
    assert seen.requests <= bounds.MAX_REQUESTS


async def test_much_data_ends_the_look() -> None:
    page = "x" * (bounds.MAX_BYTES // 2) + '<a href="/b/">'
    web = Web({ROOT: page, f"{ROOT}b/": page})
    seen = await web.survey(ROOT)
    assert seen.home.url == ROOT
    assert len(web.asked) <= 6


async def test_a_slow_site_gives_what_was_seen_in_time() -> None:
    web = Web({ROOT: '<a href="/b/"></a>', f"{ROOT}b/": "b"}, takes_s=bounds.MAX_SECONDS / 3)
    seen = await web.survey(ROOT)
    assert seen.home.url == ROOT
    assert len(web.asked) == 3


# ------------------------------------------------------------------- robots.txt


async def test_robots_txt_comes_first_and_is_heeded() -> None:
    web = Web({
        f"{ROOT}robots.txt": robots("User-agent: edgeproxy-init\nDisallow: /private/\n"),
        ROOT: '<a href="/private/">x</a><a href="/public/">y</a>',
        f"{ROOT}public/": "y",
    })  # fmt: skip
    seen = await web.survey(ROOT)
    assert web.asked[0] == f"{ROOT}robots.txt"
    assert f"{ROOT}public/" in seen.pages
    assert not [url for url in web.asked if "/private" in url]


async def test_a_site_that_wants_no_look_gets_none() -> None:
    web = Web({f"{ROOT}robots.txt": robots("User-agent: *\nDisallow: /\n"), ROOT: "secret"})
    with pytest.raises(Unreachable, match=r"robots\.txt does not allow edgeproxy-init"):
        await web.survey(ROOT)
    assert web.asked == [f"{ROOT}robots.txt"]


async def test_where_robots_txt_cannot_be_had_nothing_is_asked() -> None:
    web = Web({f"{ROOT}robots.txt": answer(status=503), ROOT: "x"})
    with pytest.raises(Unreachable, match=r"robots\.txt is answered with 503"):
        await web.survey(ROOT)
    assert len(web.asked) == 1


async def test_crawl_delay_is_kept() -> None:
    web = Web({
        f"{ROOT}robots.txt": robots("User-agent: *\nCrawl-delay: 7\n"),
        ROOT: '<a href="/b/"></a>',
        f"{ROOT}b/": "b",
    })  # fmt: skip
    seen = await web.survey(ROOT)
    assert web.now_s >= (seen.requests - 2) * 7


# ------------------------------------------------------------------- where it begins


async def test_redirects_are_followed_to_another_host() -> None:
    web = Web({
        "http://b.example/": answer(status=301, location="https://www.b.example/"),
        "https://www.b.example/": answer(status=302, location="/home/"),
        "https://www.b.example/home/": "hello",
    })  # fmt: skip
    seen = await web.survey("http://b.example")
    assert (seen.home.url, seen.root) == (
        "https://www.b.example/home/",
        "https://www.b.example/home/",
    )


async def test_a_page_that_only_leads_on_is_followed() -> None:
    web = Web({
        ROOT: "<meta http-equiv=refresh content='0; url=/en/1.1/'>",
        f"{ROOT}en/1.1/": '<html lang="en"><link rel=stylesheet href="/s.css">',
    })  # fmt: skip
    seen = await web.survey(ROOT)
    assert list(seen.pages) == [ROOT, f"{ROOT}en/1.1/"]
    assert seen.base == "/"


@pytest.mark.parametrize(
    ("home", "reason"),
    [
        (answer(status=301, location="/"), "redirects more than 5 times"),
        (answer(status=404), "is answered with 404"),
        (answer("{}", kind="application/json"), "is not a page but application/json"),
        (Unreachable("no connection in time"), "no connection in time"),
    ],
)
async def test_what_is_no_site_is_told(home: object, reason: str) -> None:
    web = Web({ROOT: home})
    with pytest.raises(Unreachable, match=reason):
        await web.survey(ROOT)


@pytest.mark.parametrize("url", ["a.example", "ftp://a.example/", "https://", "/folder"])
async def test_what_is_no_url_is_told(url: str) -> None:
    with pytest.raises(ValueError, match="is not an http or https URL"):
        await Web({}).survey(url)


# ------------------------------------------------------------------- the base


@pytest.mark.parametrize(
    ("url", "loads", "base"),
    [
        ("https://you.github.io/project/", ["/project/a.css", "b/c.js"], "/project/"),
        ("https://you.github.io/project/guide/a.html", ["../a.css"], "/project/"),
        ("https://you.github.io/project/", [], "/project/"),
        ("https://you.github.io/blog/", ["/assets/a.css"], "/"),
        ("https://you.github.io/", ["/assets/a.css"], "/"),
        ("https://a.example/", ["https://cdn.example/x/a.js"], "/"),
    ],
)
async def test_the_base_is_the_folder_of_the_page_and_of_what_it_loads(
    url: str, loads: list[str], base: str
) -> None:
    scripts = "".join(f'<script src="{link}"></script>' for link in loads)
    web = Web({url: f'{scripts}<a href="/">the neighbours</a>'})
    assert (await web.survey(url)).base == base
