"""The policy, written out from what was found: short, and with a reason beside every line.

What keeps the site as it is stands as it is: caching, and fields that browsers heed. What would
change what visitors get (redirects by language, a content security policy) is a comment, to be
decided by whoever knows the site.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from textwrap import wrap

from .findings import WANTED, Findings

WIDTH = 100
MAX_LANGUAGES = 5  # with a route of their own; the others are named


def draft(found: Findings, name: str) -> str:
    """The policy for a file called `name`."""
    sections = (
        _head(found, name),
        _origins(found),
        _content(found),
        _cache(found),
        _filters(found),
    )
    return "\n".join("\n".join(lines) + "\n" for lines in (*sections, _routes(found)) if lines)


def _comment(text: str, depth: int = 0) -> list[str]:
    start = " " * depth + "# "
    return [start + line for line in wrap(text, WIDTH - len(start), break_long_words=False)]


def _out(lines: Iterable[str], depth: int) -> list[str]:
    """`lines` as a comment that becomes policy when its `# ` is taken away."""
    return [" " * depth + "# " + line for line in lines]


def quoted(text: str) -> str:
    """A text as YAML takes it, whatever is in it; a path as people write it."""
    return text if re.fullmatch(r"/[A-Za-z0-9._/*-]*", text) else json.dumps(text)


# ------------------------------------------------------------------ head


def origin_name(found: Findings) -> str:
    return "pages" if found.is_pages else "site"


def _head(found: Findings, name: str) -> list[str]:
    pages = "one page" if found.pages == 1 else f"{found.pages} pages"
    lines = _comment(
        f"A first policy for {found.url}, from a look at {pages} of it. What would change what "
        "visitors get is a comment: take the # away from what you want."
    )
    lines += ["#", f"#   edgeproxy check {name}", f"#   edgeproxy run {name}"]
    if found.came_from:
        lines += ["#"]
        lines += _comment(
            f"{found.came_from} redirects here. If that is the name that edgeproxy will serve, it "
            "would redirect visitors in a circle: give the site another name first, as set-up B "
            "of the documentation (In front of Pages) tells."
        )
    return [*lines, "version: 1"]


def _origins(found: Findings) -> list[str]:
    lines = ["origins:"]
    if found.is_pages and found.base != "/":
        lines += _comment(
            f"A project site of GitHub Pages: {found.base} there is / here. Links that begin with "
            f"{found.base} go on working.", 2
        )  # fmt: skip
    elif found.is_pages:
        lines += _comment("GitHub Pages: sent GET and HEAD only, and nothing personal.", 2)
    elif found.takes_more:
        lines += _comment(
            "It has forms or sets cookies, so it gets every method, bodies and cookies. A site "
            "that needs none of them is `kind: pages`, which keeps what is personal from it.", 2
        )  # fmt: skip
    kind = "kind: http, " if found.takes_more else ""
    return [*lines, f"  {origin_name(found)}: {{{kind}url: {quoted(found.url)}}}"]


def _content(found: Findings) -> list[str]:
    """The languages, for the routes that are a comment below."""
    if not _others(found):
        return []
    tags = list(dict.fromkeys([*filter(None, [found.language]), *found.languages]))
    languages = f"languages: [{', '.join(tags)}], default_language: {tags[0]}"
    return [
        *_comment("The languages of the site, against which a browser's wishes are weighed."),
        *_out([f"content: {{{languages}}}"], 0),
    ]


# ------------------------------------------------------------------ cache


def _cache(found: Findings) -> list[str]:
    lines = ["cache:"]
    lines += _comment("Copies are kept in memory. On disk they outlive a restart as well:", 2)
    lines += _out(["disk: {path: cache, max_size: 1GiB}"], 2)
    lines += ["  rules:", *_page_rule(found)]
    if _asset_matches(found):
        lines += _comment(
            "Files whose name changes with their content can be kept for good. A publish removes "
            "old ones while pages that name them are still open; `keep_gone` goes on serving them.",
            4,
        )
        lines += ["    assets: {ttl: 30d, browser_ttl: 365d, keep_gone: 7d}"]
    if found.feeds:
        lines += _comment("Feed readers ask often; once in 15 minutes is often enough.", 4)
        lines += ["    feeds: {ttl: 15m, stale_if_error: 7d}"]
    return lines


def _page_rule(found: Findings) -> list[str]:
    if found.missing == "app":
        why = "The document names the current scripts, so it is asked about each time."
        return [*_comment(why, 4), "    html: {ttl: 0, browser_ttl: 0, stale_if_error: 7d}"]
    fresh = (
        "Pages are fresh as long as the site says"
        if found.states_freshness
        else "The site does not say how long pages are fresh; five minutes here"
    )
    ttl = "" if found.states_freshness else "ttl: 5m, "
    return [
        *_comment(
            f"{fresh}. Then a copy is shown while a new one is fetched, and for a week while the "
            "site is down. Redirects and missing pages get a lifetime, as they often state none.",
            4,
        ),
        f"    html: {{{ttl}stale_while_revalidate: 1h, stale_if_error: 7d, "
        "status_ttl: {301: 5m, 404: 30s}}",
    ]


# ------------------------------------------------------------------ filters of every route


def _filters(found: Findings) -> list[str]:
    fields = [f"{name}: {WANTED[name]}" for name in found.lacking]
    if not fields:
        return []
    lines = ["filters: # of every route", "  - response_headers:", "      set:"]
    lines += _comment("Fields that a security scan asks for, and that the site does not send.", 8)
    lines += [f"        {field}" for field in fields]
    lines += _comment("Only if every visit is to be HTTPS: browsers hold to it for a year.", 8)
    lines += _out(["strict-transport-security: max-age=31536000"], 8)
    lines += _comment(
        "What the pages seen load, and from where. Browsers only report what this would forbid; "
        "without `-report-only` they forbid it.", 8
    )  # fmt: skip
    lines += _out(["content-security-policy-report-only: >-", *_policy_of_contents(found)], 8)
    if found.lets_all_read:
        lines += _comment("The site lets the scripts of every other site read it:", 6)
        lines += _out(["remove: access-control-allow-origin"], 6)
    return lines


def _policy_of_contents(found: Findings) -> list[str]:
    directives = ["default-src 'self'"]
    loads = {"style-src": (), "img-src": ("data:",), **found.loads}
    for directive in sorted(loads):
        more = {"style-src": ("'unsafe-inline'",), "img-src": ("data:",)}.get(directive, ())
        sources = dict.fromkeys(("'self'", *more, *loads[directive]))
        directives.append(f"{directive} {' '.join(sources)}")
    directives += ["object-src 'none'", "base-uri 'self'"]
    return [f"  {directive};" for directive in dict.fromkeys(directives)]


# ------------------------------------------------------------------ routes


def _routes(found: Findings) -> list[str]:
    parts = (
        _asset_route(found),
        _feed_route(found),
        _language_routes(found),
        _stub_routes(found),
        _site_route(found),
    )
    lines = ["routes: # from top to bottom; the first that matches decides"]
    for part in filter(None, parts):
        lines += [*part, ""]
    return lines[:-1]


def _spelt(found: Findings, path: str) -> list[str]:
    """A path as visitors ask for it: below the root, and below the base that pages may link to."""
    return [path] if found.base == "/" else [path, found.base.rstrip("/") + path]


def _paths(found: Findings, *paths: str) -> str:
    spelt = [quoted(each) for path in paths for each in _spelt(found, path)]
    return spelt[0] if len(spelt) == 1 else f"[{', '.join(spelt)}]"


def _asset_matches(found: Findings) -> list[str]:
    hashed, matches = found.hashed, list[str]()
    if hashed.endings:
        base = f"({re.escape(found.base.rstrip('/'))})?" if found.base != "/" else ""
        minified = "(min[.])?" if hashed.is_minified else ""
        folder = hashed.folder.replace(".", "[.]")
        endings = "|".join(hashed.endings)
        pattern = f"{base}{folder}.*[._-][0-9a-f]{{8,64}}[.]{minified}({endings})"
        matches.append(f"{{path: {{regex: {quoted(pattern)}}}}}")
    if hashed.folders:
        matches.append(f"{{path: {_paths(found, *(f'{each}**' for each in hashed.folders))}}}")
    for folder, name in hashed.queries:
        if folder.startswith(hashed.folders):
            continue  # all of it is there already
        query = f"query: {{{name}: {{present: true}}}}"
        matches.append(f"{{path: {_paths(found, f'{folder}**')}, {query}}}")
    return matches


def _asset_route(found: Findings) -> list[str]:
    matches = _asset_matches(found)
    if not matches:
        return []
    lines = ["  - name: assets", "    matches:"]
    return [*lines, *(f"      - {match}" for match in matches), "    cache: assets"]


def _feed_route(found: Findings) -> list[str]:
    if not found.feeds:
        return []
    return [
        "  - name: feeds",
        f"    match: {{path: {_paths(found, *found.feeds)}}}",
        "    cache: feeds",
    ]


def _stub_routes(found: Findings) -> list[str]:
    if not found.stubs:
        return []
    lines = _comment(
        "Pages that only lead elsewhere. A redirect saves visitors one of them; 301 if it is for "
        "good.", 2
    )  # fmt: skip
    for number, (path, target) in enumerate(found.stubs, 1):
        match = f"match: {{path: {_paths(found, path)}}}"
        lines += _out([f"- {{name: onward-{number}, {match}, redirect: {quoted(target)}}}"], 2)
    return lines


def _others(found: Findings) -> dict[str, str]:
    """Languages with a home page of their own, by tag."""
    home = ("/", found.languages.get(found.language, "/"))
    return {tag: path for tag, path in found.languages.items() if path not in home}


def _language_routes(found: Findings) -> list[str]:
    others = _others(found)
    if not others:
        return []
    lines = _comment(
        "The home page in the language that the browser prefers. Only that page: whoever follows "
        "a link to another gets that one.", 2
    )  # fmt: skip
    for tag, path in list(others.items())[:MAX_LANGUAGES]:
        match = f"match: {{path: {_paths(found, '/')}, language: {tag}}}"
        name = f"home-{tag.lower()}"
        lines += _out([f"- {{name: {name}, {match}, redirect: {quoted(path)}}}"], 2)
    rest = ", ".join(list(others)[MAX_LANGUAGES:])
    return lines + (_comment(f"And so on for {rest}.", 2) if rest else [])


def _site_route(found: Findings) -> list[str]:
    lines = ["  - name: site"]
    if found.missing == "app":
        lines += _comment(
            "The site's 404 page is its application. Here every address of it is the document, "
            "with status 200; scripts and images that are missing stay 404.", 4
        )  # fmt: skip
        lines += ["    spa_fallback: /index.html"]
    if found.missing == "default":
        lines += _comment(
            "The site has no 404.html of its own, so that visitors see the one of the host.", 4
        )
    if found.missing == "found":
        lines += _comment("The site answers 200 for pages that are not there.", 4)
    if found.own_links:
        lines += _comment(
            f"{found.own_links} links name {found.url.split('/')[2]}: who follows one leaves. This "
            "turns them into links to the name that edgeproxy serves.", 4
        )  # fmt: skip
        lines += _out(["rewrite_links: true"], 4)
    lines += ["    cache: html"]
    if found.slash:
        lines += _comment(
            f"{found.slash} is redirected to {found.slash}/, which the rule keeps for 5 minutes.", 4
        )
    return lines
