"""What is made of a site's answers."""

from __future__ import annotations

import pytest

from edgeproxy.plan import compile_plan
from edgeproxy.policy.load import parse
from edgeproxy.starter.draft import draft
from edgeproxy.starter.findings import Findings, Hashed
from edgeproxy.starter.survey import NO_SUCH_PAGE
from tests.edgeproxy.starter.web import Web, answer

ROOT = "https://a.example/"
MISSING = f"{ROOT}{NO_SUCH_PAGE}"


async def found_in(home: object, **others: object) -> Findings:
    """The findings of a home page, and of others by path, `missing` among them."""
    pages = {ROOT: home}
    pages |= {MISSING if path == "missing" else ROOT + path: page for path, page in others.items()}
    return await Web(pages).findings(ROOT)


# ------------------------------------------------------------------- the host


async def test_github_pages_is_known_by_its_name_or_its_server() -> None:
    assert (await found_in(answer("x", server="GitHub.com"))).is_pages
    web = Web({"https://you.github.io/p/": "x"})
    assert (await web.findings("https://you.github.io/p/")).is_pages
    assert not (await found_in(answer("x", server="nginx"))).is_pages


async def test_forms_and_cookies_ask_for_more_than_a_static_origin() -> None:
    assert (await found_in('<form method="POST" action="/search">')).takes_more
    assert (await found_in(answer("x", set_cookie="a=b"))).takes_more
    assert not (await found_in('<form action="/search">')).takes_more
    assert not (await found_in(answer('<form method="post">', server="GitHub.com"))).takes_more


async def test_a_site_that_moved_is_told() -> None:
    web = Web({
        "https://you.github.io/p/": answer(status=301, location="https://www.a.example/"),
        "https://www.a.example/": "x",
    })  # fmt: skip
    found = await web.findings("https://you.github.io/p/")
    assert (found.url, found.came_from) == ("https://www.a.example/", "https://you.github.io/p/")
    assert (await found_in("x")).came_from == ""


# ------------------------------------------------------------------- languages


async def test_translations_that_a_page_names_are_believed() -> None:
    home = '<html lang="en">' + "".join(
        f'<link rel="alternate" hreflang="{tag}" href="{path}">'
        for tag, path in (("en", "/"), ("de", "/de/"), ("pt-BR", "/br/"), ("x-default", "/"))
    )
    found = await found_in(home)
    assert found.language == "en"
    assert found.languages == {"en": "/", "de": "/de/", "pt-BR": "/br/"}


async def test_folders_count_as_languages_if_their_pages_are_in_them() -> None:
    home = '<html lang="en"><a href="/de/"></a><a href="/js/"></a><a href="/fr/start/"></a>'
    found = await found_in(
        home, **{"de/": '<html lang="de-AT">', "js/": '<html lang="en">', "fr/": '<html lang="fr">'}
    )
    assert found.languages == {"de": "/de/", "fr": "/fr/"}


async def test_a_choice_of_languages_is_read_too() -> None:
    options = "".join(f'<option value="{tag}/1.0/">' for tag in ("de", "fr"))
    web = Web({
        ROOT: '<meta http-equiv="refresh" content="0; url=/en/">',
        f"{ROOT}en/": f'<html lang="en"><select>{options}</select>',
        f"{ROOT}de/": '<html lang="de">',
        f"{ROOT}fr/": '<html lang="fr">',
    })  # fmt: skip
    assert set((await web.findings(ROOT)).languages) == {"en", "de", "fr"}


# ------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        (
            ["/assets/js/all-3c95695f.js", "/assets/css/main.6543a935.min.css"],
            Hashed(
                endings=("css", "js"),
                folder="/assets/",
                is_minified=True,
                samples=("/assets/js/all-3c95695f.js",),
            ),
        ),
        (["/app.js", "/style.css", "/fade-cafe.js"], Hashed()),
        (
            ["/assets/index-BfC3dPqZ.js", "/assets/vendor-Dq81_mZx.js"],
            Hashed(folders=("/assets/",), samples=("/assets/index-BfC3dPqZ.js",)),
        ),
        (["/assets/index-BfC3dPqZ.js", "/assets/plain.js"], Hashed()),
        (
            ["/_static/a.css?v=1f3a9c20", "/_static/b.js?v=77"],
            Hashed(queries=(("/_static/", "v"),), samples=("/_static/b.js?v=77",)),
        ),
        (["/js/a.js?lang=de", "https://cdn.example/a-0123abcd.js"], Hashed()),
    ],
)
async def test_names_and_queries_that_change_with_the_content(
    loads: list[str], expected: Hashed
) -> None:
    home = "".join(f'<script src="{link}"></script>' for link in loads)
    assert (await found_in(home)).hashed == expected


async def test_feeds() -> None:
    home = (
        '<link rel="alternate" type="application/rss+xml" href="/feed.xml">'
        '<link rel="alternate" type="application/atom+xml" href="https://b.example/atom.xml">'
    )
    assert (await found_in(home)).feeds == ("/feed.xml",)


# ------------------------------------------------------------------- pages


APP = '<div id="app"></div><script src="/app.js"></script>'
TRICK = "<script>location.replace('/?' + location.pathname)</script>"
THEME = '<script src="/app.js"></script><a href="/">home</a><p>Not here.</p>'


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (answer(APP, 404), "app"),
        (answer(TRICK, 404), "app"),
        (answer(THEME, 404), "own"),
        (answer("<h1>404</h1><p>There is nothing at this address.", 404), "default"),
        (answer("nothing", 404, "text/plain"), "default"),
        (answer(APP, 200), "found"),
        (answer("x", 503), "unknown"),
    ],
)
async def test_what_stands_for_a_page_that_is_not_there(missing: object, expected: str) -> None:
    assert (await found_in(APP, missing=missing)).missing == expected


async def test_pages_that_only_lead_elsewhere() -> None:
    found = await found_in(
        '<a href="/old/">old</a><a href="/out/">out</a>',
        **{
            "old/": '<meta http-equiv="refresh" content="0; url=/new/">',
            "new/": "new",
            "out/": '<meta http-equiv="refresh" content="0; url=https://b.example/">',
        },
    )
    assert found.stubs == ()  # those that are followed lead to pages of their own
    found = await found_in('<meta http-equiv="refresh" content="0; url=/en/">', **{"en/": "hello"})
    assert found.stubs == (("/", "/en/"),)


async def test_a_folder_that_is_redirected_to_itself_with_a_slash() -> None:
    found = await found_in(
        '<a href="/guide/">', guide=answer(status=301, location="/guide/"), **{"guide/": "x"}
    )
    assert found.slash == "/guide"


# ------------------------------------------------------------------- fields


async def test_fields_that_are_lacking() -> None:
    assert set((await found_in("x")).lacking) == {
        "x-content-type-options", "referrer-policy", "x-frame-options", "permissions-policy",
    }  # fmt: skip
    careful = {
        "x_content_type_options": "nosniff",
        "referrer_policy": "no-referrer",
        "content_security_policy": "frame-ancestors 'none'",
        "permissions_policy": "camera=()",
    }
    assert (await found_in(answer("x", **careful))).lacking == ()
    of_pages = await found_in(answer("x", server="GitHub.com", **careful))
    assert of_pages.lacking == ("permissions-policy",)  # edgeproxy drops that of Pages


async def test_what_pages_load_from_elsewhere() -> None:
    home = (
        '<link rel="stylesheet" href="//fonts.example/css?a=b"><img src="/own.png">'
        '<script src="https://cdn.example/a.js"></script><script>go()</script>'
        '<iframe src="https://video.example:8443/1"></iframe>'
    )
    assert (await found_in(home)).loads == {
        "frame-src": ("https://video.example:8443",),
        "img-src": (),
        "script-src": ("https://cdn.example", "'unsafe-inline'"),
        "style-src": ("https://fonts.example",),
    }


async def test_links_that_name_the_host() -> None:
    home = f'<a href="{ROOT}a/">a</a><a href="/b/">b</a><link rel="canonical" href="{ROOT}">'
    assert (await found_in(home)).own_links == 1


# ------------------------------------------------------------------- hostile pages


async def test_nothing_that_a_page_says_breaks_out_of_the_policy() -> None:
    evil = 'x"\n  - {name: evil, respond: {body: owned}}\n#${env:SECRET}'
    quoted = evil.replace('"', "&quot;")
    home = (
        f'<html lang="{quoted}"><link rel="alternate" hreflang="{quoted}" href="/{quoted}/">'
        f'<link rel="alternate" hreflang="de" href="/{quoted}/">'
        f'<link rel="alternate" type="application/rss+xml" href="/{quoted}">'
        f'<script src="/a*/{quoted}-0123abcd.js"></script><img src="https://{quoted}/">'
        f'<img src="https://a;b/"><script src="/s/a.js?{quoted}=1f3a9c20"></script>'
        f'<meta http-equiv="refresh" content="0; url=/{quoted}/"><option value="/{quoted}/">'
    )
    text = draft(await found_in(home), "site.yaml")
    policy = parse(text)
    compile_plan(policy)
    assert "evil" not in {route.core.name for route in policy.routes}
    assert "owned" not in text
    assert "env:SECRET" not in text
