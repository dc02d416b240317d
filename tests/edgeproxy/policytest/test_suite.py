"""What tests of policies can say, that it is checked, and how a failure is told."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edgeproxy import policytest
from edgeproxy.policytest import Report

POLICY = """\
version: 1
trusted_proxies: [10.0.0.0/8]
origins:
  site: {url: "https://acme.github.io/docs/"}
  next: {url: "https://acme.github.io/next/"}
  api: {kind: http, url: "https://api.example/v2/"}
content: {languages: [en, de]}
experiments: {hero: {weights: {control: 75, bold: 25}}}
cache: {rules: {html: {ttl: 10m, query: [page], status_ttl: {404: 30s}}}}
routes:
  - {name: moved, match: {path: /old/**}, redirect: {path: /new/**, status: 301}}
  - name: api
    match: {host: api.example.org}
    origin: api
    cache: false
    request_headers: {set: {x-country: "${geo.country}"}}
  - {name: german, match: {path: /, language: de}, origin: site, rewrite: {prefix: /de}}
  - {name: next, match: {cookie: {team: next}}, origin: next}
  - {name: split, match: {path: /split/**}, backend_refs: [{name: site, weight: 3}, {name: next}]}
  - name: pages
    match: {host: www.example.org}
    origin: site
    experiment: hero
    cache: html
    error_page: {body: back soon}
    response_headers: {set: {x-hero: "${split.hero}"}, remove: server-timing}
"""


def run(folder: Path, tests: str, policy: str = POLICY) -> Report:
    (folder / "site.yaml").write_text(policy)
    (folder / "site_test.yaml").write_text(f"version: 1\ntests:\n{tests}")
    return policytest.run([folder / "site.yaml"])


def said(folder: Path, tests: str) -> list[str]:
    """What the failures say, without the place."""
    report = run(folder, tests)
    assert report.passed is (not report.failures)
    return [failure.said for failure in report.failures]


@pytest.mark.parametrize(
    "test",
    [
        "get: /old/a?b=c, expect: {route: moved, status: 301, redirect: /new/a?b=c, origin: false}",
        "get: /, headers: {accept-language: de}, expect: {route: german, target: /de/}",
        "get: /, as: {language: de}, expect: {route: german}",
        "get: /, cookies: {team: next, a: b},"
        " expect: {origin: next, request_headers: {cookie: false}}",
        "get: /a, expect: {route: pages, origin: site, status: 200, redirect: false}",
        "get: https://other.example/, expect: {route: false, status: 404}",
        "get: https://api.example.org/a, from: 194.25.0.60,"
        " expect: {target: /a, request_headers: {x-country: DE}, cache: {rule: false}}",
        "request: POST https://api.example.org/a, body: hello, expect: {status: 200, route: api}",
        "request: POST /a, expect: {status: 405, origin: false}",
        "request: HEAD /a, expect: {status: 200}",
        "get: /a, expect: {cache: html}",
        "get: /a, expect: {cache: {rule: html, storable: true, ttl: 10m}}",
        "get: /a, origin: {status: 404}, expect: {status: 404, cache: {ttl: 30s}}",
        "get: /old/a, expect: {cache: false}",
        "get: /a, origin: {headers: {cache-control: no-store}},"
        " expect: {cache: {reason: no-store}}",
        "get: /a, as: {hero: bold}, expect: {facts: {hero: bold, split.hero: bold}}",
        "get: /a, as: {bot: true}, expect: {facts: {device: bot, bot: true, hero: control}}",
        "get: /a, as: {country: DE}, expect: {facts: {continent: EU}}",
        "get: /a, origin: fails, expect: {status: 503, body: back soon}",
        "get: /a, origin: {body: hello}, expect: {body: {regex: h.*o}}",
        "get: /a, origin: {headers: {server-timing: a}},"
        " expect: {response_headers: {server-timing: false}}",
        "get: /a, origin: {headers: {link: [a, b]}}, expect: {response_headers: {Link: b}}",
        "get: /a, origin: {headers: {link: [a, b]}}, expect: {response_headers: {link: 'a, b'}}",
        "get: /a, as: {hero: bold},"
        " expect: {response_headers: {x-hero: true, vary: {contains: ookie}}}",
        "get: /a, visitors: 400, expect: {shares: {hero: {control: 75, bold: 25}}}",
        "get: /split/, visitors: 400, expect: {shares: {origin: {site: 75, next: 25}}, within: 5}",
        "get: /a, visitors: 10, expect: {shares: {route: {pages: 100}}, within: 0, status: 200}",
        "get: /a, from: 127.0.0.1, headers: {x-forwarded-for: 194.25.0.60},"
        " expect: {facts: {country: XX}}",
        "get: /a, from: 10.0.0.1, headers: {x-forwarded-for: 194.25.0.60},"
        " expect: {facts: {country: DE}}",
        "get: /a, as: {variant:hero: bold}, expect: {facts: {variant:hero: bold}}",
        "get: /a, at: 2026-12-24T18:00, expect: {status: 200}",
        "as: {hero: bold}, same_object_for: [/a, '/a?utm=x', {get: /a, from: 203.0.113.9}]",
        "get: /a, never_same_object_for: [{as: {hero: bold}}, {as: {hero: control}}]",
        "as: {hero: bold}, never_same_object_for: [/a, /b, '/a?page=1', '/a?page=2']",
        "get: /a, as: {hero: bold}, origin: {headers: {vary: accept}},"
        " never_same_object_for: [{headers: {accept: a}}, {headers: {accept: b}}]",
        "get: /a, never_same_object_for: [{}, {}], origin: {headers: {set-cookie: a=b}}",
        "get: [/a, /b], as: {hero: bold}, expect: {route: pages}",
    ],
)  # fmt: skip
def test_it_passes(test: str, tmp_path: Path) -> None:
    assert said(tmp_path, f"  - {{name: a, {test}}}\n") == []


BY_PAGES = "; route 'pages', site.yaml:20:11"


@pytest.mark.parametrize(
    ("test", "failure"),
    [
        ("expect: {route: moved}", "route is 'pages', expected 'moved'"),
        ("expect: {route: false}", "route is 'pages', expected none"),
        ("expect: {origin: next}", "origin is 'site', expected 'next'"),
        ("expect: {origin: false}", "origin is 'site', expected none"),
        ("expect: {target: /}", "target is '/a', expected '/'"),
        ("expect: {request_headers: {x-a: b}}", "request_headers.x-a is none, expected 'b'"),
        ("expect: {status: 301}", "status is 200, expected 301"),
        ("expect: {redirect: /b}", "redirect is none, expected '/b'"),
        ("expect: {redirect: true}", "redirect is none, expected anything"),
        (
            "expect: {response_headers: {x-hero: {regex: b.}}}",
            "response_headers.x-hero is 'bold', expected a match of 'b.'",
        ),
        (
            "expect: {response_headers: {x-hero: false}}",
            "response_headers.x-hero is 'bold', expected none",
        ),
        ("expect: {body: {contains: x}}", "body is '', expected what contains 'x'"),
        ("expect: {cache: {rule: false}}", "cache.rule is 'html', expected none"),
        ("expect: {cache: {ttl: 1h}}", "cache.ttl is 600 s, expected 3600 s"),
        ("expect: {cache: {reason: private}}", "cache.reason is none, expected 'private'"),
        ("expect: {facts: {hero: control}}", "facts.split.hero is 'bold', expected 'control'"),
        ("expect: {facts: {bot: true}}", "facts.content.bot is false, expected true"),
    ],
)
def test_a_failure_says_what_came(test: str, failure: str, tmp_path: Path) -> None:
    (told,) = said(tmp_path, f"  - {{name: a, get: /a, as: {{hero: bold}}, {test}}}\n")
    assert told.replace(f"{tmp_path}/", "") == failure + BY_PAGES


@pytest.mark.parametrize(
    ("test", "failure"),
    [
        (
            "get: /old/, expect: {cache: {storable: true, ttl: 1m}}",
            [
                "cache.storable is false (the cache has no part in it), expected true",
                "cache.ttl is none (the cache has no part in it), expected 60 s",
            ],
        ),
        (
            "get: /old/, expect: {request_headers: {a: false}}",
            ["request_headers.a is unknown, as no origin is asked, expected none"],
        ),
        (
            "get: /a, visitors: 100, expect: {shares: {hero: {bold: 90}}, status: 301}",
            [
                "status of visitor 198.18.0.0 is 200, expected 301",
                "shares.split.hero.bold is 25.0 % of 100 visitors, expected 90 % within 12.0",
            ],
        ),
        (
            "as: {hero: bold}, same_object_for: [/a, /a, /b], expect: {target: /a}",
            [
                "target of request 3 is '/b', expected '/a'",
                "stored object is another for request 3 than for request 1 "
                "('site https://acme.github.io/docs/b'), expected one for all requests",
            ],
        ),
        (
            "same_object_for: [/a, /old/]",
            [
                "stored object is none for request 2 (the cache has no part in it), "
                "expected one for all requests"
            ],
        ),
        (
            "get: /split/, origin: {headers: {cache-control: max-age=9}}, "
            "never_same_object_for: [{}, {}]",
            [
                "stored object is the same for requests 1 and 2 "
                "('site https://acme.github.io/docs/split/'), "
                "expected one of its own for each request"
            ],
        ),
        (
            "get: 'https://api.example.org/', origin: fails, expect: {status: 200}",
            ["status is 502, expected 200; origin 'api': it is taken to fail (connection_refused)"],
        ),
    ],
)
def test_a_failure_that_needs_more_words(test: str, failure: list[str], tmp_path: Path) -> None:
    told = said(tmp_path, f"  - {{name: a, {test}}}\n")
    assert [without_route(each) for each in told] == failure


def without_route(said: str) -> str:
    return "; ".join(part for part in said.split("; ") if not part.startswith("route "))


TABLE = """\
  - name: rows are laid over the test
    get: /a
    as: {country: DE}
    cookies: {a: b}
    expect: {route: pages}
    columns: [headers.accept-language, cookies.team, as.split.hero, expect.route, expect.origin]
    each:
      - [en, next, bold, next, next]
      - [en, ~,    bold, ~,    site]
      - {request: POST /old/, name: a block, expect: {route: moved, facts: {country: DE}}}
      - {get: [/x, /y], expect: {target: {prefix: /}}}
"""


def test_rows_are_laid_over_the_test(tmp_path: Path) -> None:
    report = run(tmp_path, TABLE)
    assert report.passed, report
    names = [result.case.name.partition(": ")[2] for result in report.results]
    assert names == [
        "en, next, bold",
        "en, bold",
        "POST /old/, a block",
        "/x, /y, /x",
        "/x, /y, /y",
    ]
    for result in report.results:
        (visit,) = result.case.visits
        assert visit.facts["geo.country"] == "DE"
        assert visit.cookies["a"] == "b"


def test_a_failure_is_at_the_cell_that_expects_it(tmp_path: Path) -> None:
    report = run(tmp_path, TABLE.replace("bold, next, next]", "bold, next, site]"))
    (failure,) = report.failures
    text = failure.place.text
    assert text[failure.place.column - 1 :].startswith("site]")
    assert str(failure).startswith(f"{tmp_path}/site_test.yaml:10:")


def test_the_report_ends_with_a_count(tmp_path: Path) -> None:
    tests = "  - {name: a, get: [/a, /b], expect: {target: /a, status: 200}}\n"
    report = run(tmp_path, tests)
    first, last = str(report).splitlines()
    assert first.startswith(f"{tmp_path}/site_test.yaml:3:47: a: /b: target is '/b', expected '/a'")
    assert last.startswith("1 of 2 tests failed in ")
    assert len(report.version) == 12


def test_without_tests_there_is_nothing_to_fail(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(POLICY)
    report = policytest.run([tmp_path / "site.yaml"])
    assert report.passed
    assert report.results == ()


def test_a_site_is_what_paths_are_below(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(POLICY)
    tests = tmp_path / "more_test.yaml"
    tests.write_text(
        "version: 1\nsite: http://API.example.org:8080/\n"
        "tests: [{name: a, get: /, expect: {route: api}}]\n"
    )
    assert policytest.run([tmp_path / "site.yaml"], [tests]).passed


def test_nothing_of_it_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "edgeproxy"):
        run(tmp_path, "  - {name: a, get: /a, origin: fails, expect: {status: 503}}\n")
        assert caplog.records == []
        logging.getLogger("edgeproxy").warning("this is")
    assert [record.message for record in caplog.records] == ["this is"]
