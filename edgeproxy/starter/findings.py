"""What a look at a site means for its policy. Pure functions over what was seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from .page import Page
from .survey import Seen

Missing = Literal["own", "default", "app", "found", "unknown"]
"""What is shown for a page that is not there: a page of the site, of the host, the application
itself, or a page like any other."""

MAX_NAMED = 10  # pages, feeds
MAX_WORDS_OF_STUB = 40  # of a page that only sends its visitors on
MAX_WORDS_OF_APP = 30  # of a document that scripts fill in

_TAG = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")
_PATH = re.compile(
    r"/[A-Za-z0-9._~/%-]*"
)  # what needs no care in a policy: no wildcards, no quotes
_HEX = re.compile(r".*[._-](?=[0-9a-f]*[0-9])[0-9a-f]{8,64}(\.min)?\.([a-z0-9]{1,5})")
_MIXED = re.compile(r".*[.-](?=[A-Za-z0-9_-]*[0-9])(?=[A-Za-z0-9_-]*[A-Z])[A-Za-z0-9_-]{8,12}\.\w+")
_VERSION = re.compile(r"[0-9a-zA-Z]{6,64}|[0-9]+")

# Fields that a security scan looks for, and the value to begin with.
WANTED = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
    "x-frame-options": "SAMEORIGIN",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_REPLACED = ("permissions-policy", "strict-transport-security")  # of Pages, which edgeproxy drops


@dataclass(frozen=True, slots=True)
class Hashed:
    """Files whose name or query changes with their content. Paths are without the base."""

    endings: tuple[str, ...] = ()  # of names that hold a hash in hexadecimal digits
    folder: str = "/"  # of those
    is_minified: bool = False  # whether `.min` stands before some endings
    folders: tuple[str, ...] = ()  # in which every name holds a hash
    queries: tuple[tuple[str, str], ...] = ()  # a folder, and the parameter with the version
    samples: tuple[str, ...] = ()  # one of each of these kinds, with its query


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a draft is made of. Paths are as visitors know them, without the base."""

    url: str
    base: str = "/"
    came_from: str = ""  # where the look began, if that redirects to another host
    is_pages: bool = True
    takes_more: bool = False  # than GET and HEAD: it has forms, or sets cookies
    states_freshness: bool = True
    language: str = ""  # of the home page
    languages: Mapping[str, str] = field(default_factory=dict)  # of others: tag and home page
    hashed: Hashed = Hashed()
    feeds: tuple[str, ...] = ()
    missing: Missing = "unknown"
    stubs: tuple[tuple[str, str], ...] = ()  # pages that only lead elsewhere
    lacking: tuple[str, ...] = ()  # of WANTED
    lets_all_read: bool = False  # scripts of every other site
    loads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # CSP directive: sources
    own_links: int = 0  # links that name the site's own host
    slash: str = ""  # a folder that is redirected to itself with a slash
    pages: int = 1
    requests: int = 1


def findings(seen: Seen) -> Findings:
    """What `seen` means."""
    headers = seen.home.headers
    pages = list(seen.pages.values())
    host = urlsplit(seen.root).hostname or ""
    is_pages = headers.get("server", "") == "GitHub.com" or host.endswith(".github.io")
    asked_host = urlsplit(seen.asked_for).hostname or ""
    return Findings(
        url=seen.root,
        base=seen.base,
        came_from=seen.asked_for if asked_host.lower() != host else "",
        is_pages=is_pages,
        takes_more=not is_pages and ("set-cookie" in headers or any(p.posts for p in pages)),
        states_freshness="max-age" in headers.get("cache-control", "") or "expires" in headers,
        language=next((page.language for page in pages if _TAG.fullmatch(page.language)), ""),
        languages=_languages(seen),
        hashed=_hashed(seen),
        feeds=tuple(_plain(seen, (url for page in pages for url in page.feeds)))[:MAX_NAMED],
        missing=_missing(seen),
        stubs=tuple(_stubs(seen))[:MAX_NAMED],
        lacking=tuple(_lacking(headers, is_pages)),
        lets_all_read=headers.get("access-control-allow-origin", "") == "*",
        loads=_loads(seen),
        own_links=sum(page.own_links for page in pages),
        slash=next(iter(_plain(seen, seen.slashes)), ""),
        pages=len(pages),
        requests=seen.requests,
    )


def _plain(seen: Seen, urls: Iterable[str]) -> Iterator[str]:
    """The paths of those `urls` that lie in the site and need no care, each once."""
    found = dict.fromkeys(seen.path(url) for url in urls if "?" not in url)
    yield from (path for path in found if path is not None and _PATH.fullmatch(path))


# ------------------------------------------------------------------ languages


def _languages(seen: Seen) -> dict[str, str]:
    """Tags and home pages, by what the pages say of their translations, or else by folders.

    A folder is believed if its page is in that language, or leads on within it; folders that were
    not looked into are, if all were right that have been.
    """
    said = {
        tag: path
        for page in seen.pages.values()
        for tag, url in page.translations.items()
        if _TAG.fullmatch(tag) and (path := next(iter(_plain(seen, [url])), None))
    }
    if len(said) > 1:
        return said
    asked = {tag: page for tag, page in seen.languages.items() if page is not None}
    right = {tag for tag, page in asked.items() if _is_in(page, tag)}
    if right == set(asked):
        right = set(seen.languages) if right else set()
    return {tag: f"/{tag}/" for tag in seen.languages if tag in right}


def _is_in(page: Page, tag: str) -> bool:
    language = page.language.lower()
    if not language:
        return f"/{tag}/" in urlsplit(page.url).path and bool(page.words)
    return language.partition("-")[0] == tag.lower().partition("-")[0]


# ------------------------------------------------------------------ files


def _hashed(seen: Seen) -> Hashed:
    parts = [url for page in seen.pages.values() for url in page.links.parts]
    own = dict.fromkeys(url for url in parts if seen.path(url) is not None)
    paths = list(_plain(seen, own))
    hexadecimal = {path: match for path in paths if (match := _HEX.fullmatch(path))}
    endings = sorted({match[2] for match in hexadecimal.values()})
    folders = _folders_of_hashes(path for path in paths if path not in hexadecimal)
    versions = dict(_versions(seen, own))
    samples = [*list(hexadecimal)[:1], *folders.values(), *versions.values()]
    return Hashed(
        endings=tuple(endings),
        folder=_common_folder(hexadecimal),
        is_minified=any(match[1] for match in hexadecimal.values()),
        folders=tuple(folders),
        queries=tuple(sorted(versions)),
        samples=tuple(samples)[:MAX_NAMED],
    )


def _common_folder(paths: Iterable[str]) -> str:
    folders = [path.split("/")[1:-1] for path in paths]
    common: list[str] = []
    for names in zip(*folders, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return "/" + "".join(f"{name}/" for name in common)


def _folders_of_hashes(paths: Iterable[str]) -> dict[str, str]:
    """Folders of scripts and styles whose names all end in something like `-BfC3dPqZ`, with one."""
    by_folder: dict[str, list[str]] = {}
    for path in paths:
        by_folder.setdefault(path.rpartition("/")[0], []).append(path)
    return {
        f"{folder}/": names[0]
        for folder, names in sorted(by_folder.items())
        if folder
        and any(name.endswith((".js", ".mjs", ".css")) for name in names)
        and all(_MIXED.fullmatch(name) for name in names)
    }


def _versions(seen: Seen, urls: Iterable[str]) -> Iterator[tuple[tuple[str, str], str]]:
    """Folders of files with a version in the query, such as `style.css?v=1f3a9c20`, with one."""
    for url in urls:
        path = next(iter(_plain(seen, [url.partition("?")[0]])), None)
        pairs = parse_qsl(urlsplit(url).query)
        if path is None or path.count("/") < 2 or len(pairs) != 1:
            continue
        name, value = pairs[0]
        if re.fullmatch(r"[a-z]{1,10}", name) and _VERSION.fullmatch(value):
            yield (f"/{path.split('/')[1]}/", name), f"{path}?{name}={value}"


# ------------------------------------------------------------------ pages


def _missing(seen: Seen) -> Missing:
    if seen.missing is None or seen.missing.status >= 500:
        return "unknown"
    if seen.missing.status < 400:
        return "found" if seen.missing.status == 200 else "unknown"
    page = seen.missing_page
    if page is None:
        return "default"
    if _is_app(page, seen.home):
        return "app"
    own = (*page.links.pages, *page.links.parts)
    return "own" if any(seen.path(url) is not None for url in own) else "default"


def _is_app(page: Page, home: Page) -> bool:
    """Whether a 404 page is the application: little but scripts, those of the home page, or one
    that goes there. A page of a theme has the theme's scripts too, and words and links besides."""
    if len(page.words.split()) > MAX_WORDS_OF_APP or page.links.pages:
        return False
    scripts = {url for kind, url in page.loads if kind == "script-src"}
    if scripts:
        return scripts == {url for kind, url in home.loads if kind == "script-src"}
    return "location.re" in page.script  # replace or redirect: the trick of an extra page


def _stubs(seen: Seen) -> Iterator[tuple[str, str]]:
    for url, page in seen.pages.items():
        if page.refresh is None or len(page.words.split()) > MAX_WORDS_OF_STUB:
            continue
        paths = list(_plain(seen, [url, page.refresh]))
        if len(paths) == 2:
            yield paths[0], paths[1]


def _lacking(headers: Mapping[str, str], is_pages: bool) -> Iterator[str]:
    for name in WANTED:
        frames = name == "x-frame-options"
        if frames and "frame-ancestors" in headers.get("content-security-policy", ""):
            continue
        if name not in headers or (is_pages and name in _REPLACED):
            yield name


def _loads(seen: Seen) -> dict[str, tuple[str, ...]]:
    """Where the pages load what from, besides the site itself."""
    found: dict[str, dict[str, None]] = {}
    host = urlsplit(seen.root).netloc
    for page in seen.pages.values():
        for directive, url in page.loads:
            parts = urlsplit(url)
            sources = found.setdefault(directive, {})
            if parts.netloc != host and re.fullmatch(r"[a-z0-9.:-]+", parts.netloc):
                sources[f"{parts.scheme}://{parts.netloc}"] = None
        if page.script:
            found.setdefault("script-src", {})["'unsafe-inline'"] = None
    return {directive: tuple(sources) for directive, sources in sorted(found.items())}
