"""The tests of the policy, written out beside it: what it does, as a visitor sees it."""

from __future__ import annotations

from .draft import origin_name, quoted
from .findings import WANTED, Findings


def draft_tests(found: Findings, policy: str) -> str:
    """The tests for a policy in a file called `policy`."""
    head = [
        f"# What {policy} is to do, as tests. Run them after each change, without a network:",
        "#",
        f"#   edgeproxy test {policy}",
        "version: 1",
        "tests:",
    ]
    parts = (_of_pages(found), _of_assets(found), _of_feeds(found), _of_the_app(found))
    return "\n".join(head) + "\n" + "\n".join("\n".join(part) + "\n" for part in parts if part)


def _of_pages(found: Findings) -> list[str]:
    lines = ["  - name: pages come from the site", "    get: /"]
    lines += [f"    expect: {{route: site, origin: {origin_name(found)}, cache: html}}"]
    if found.lacking:
        lines += ["", "  - name: every answer has the fields that the site lacks"]
        lines += ["    get: [/, /no/such/page]", "    expect:", "      response_headers:"]
        lines += [f"        {name}: {WANTED[name]}" for name in found.lacking]
    return lines


def _of_assets(found: Findings) -> list[str]:
    if not found.hashed.samples:
        return []
    return [
        "  - name: files whose name changes with their content are kept for good",
        f"    get: [{', '.join(map(quoted, found.hashed.samples))}]",
        "    expect: {route: assets, cache: {rule: assets, ttl: 30d}}",
    ]


def _of_feeds(found: Findings) -> list[str]:
    if not found.feeds:
        return []
    return [
        "  - name: feeds are fetched once in 15 minutes",
        f"    get: [{', '.join(map(quoted, found.feeds))}]",
        "    expect: {route: feeds, cache: {rule: feeds, ttl: 15m}}",
    ]


def _of_the_app(found: Findings) -> list[str]:
    if found.missing != "app":
        return []
    return [
        "  - name: every address of the application is its document",
        "    get: [/, /some/address]",
        "    headers: {accept: text/html}",
        "    expect: {target: /index.html}",
        "",
        "  - name: a script that is missing is not the document",
        "    get: /missing.js",
        "    expect: {target: /missing.js}",
    ]
