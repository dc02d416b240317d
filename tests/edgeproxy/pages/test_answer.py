"""The rules of HTTP, on the small site and without a network."""

import gzip
import re
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

NOW = 1_700_000_000
GZIP = {"Accept-Encoding": "gzip"}
TODAY = formatdate(NOW, usegmt=True)
LATER = formatdate(NOW + 1, usegmt=True)
EARLIER = formatdate(NOW - 1, usegmt=True)
LETTERS = b"abcdefghijklmnopqrstuvwxyz"
ETAG = f'"{NOW:x}-1a"'  # of letters.txt, 26 bytes

Ask = Any


# ---------------------------------------------------------------- a page


def test_page_has_the_headers_of_pages(ask: Ask) -> None:
    answer = ask("/letters.txt")
    expected = {
        "Server": "GitHub.com",
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": "26",
        "Last-Modified": TODAY,
        "ETag": ETAG,
        "Access-Control-Allow-Origin": "*",
        "Cache-Control": "max-age=600",
        "Expires": formatdate(NOW + 600, usegmt=True),
        "Accept-Ranges": "bytes",
        "Date": TODAY,
        "Via": "1.1 varnish",
        "Age": "0",
        "X-Cache": "MISS",
        "X-Cache-Hits": "0",
        "x-proxy-cache": "MISS",
        "Vary": "Accept-Encoding",
    }
    assert answer.status == 200
    assert answer.body == LETTERS
    assert {name: answer.headers.get(name) for name in expected} == expected
    patterns = {
        "X-Served-By": r"cache-\w+-[A-Z]{3}",
        "X-Timer": r"S\d+\.\d{6},VS0,VE\d+",
        "X-Fastly-Request-ID": r"[0-9a-f]{40}",
        "X-GitHub-Request-Id": r"([0-9A-F]+:){4}[0-9A-F]+",
    }
    for name, pattern in patterns.items():
        assert re.fullmatch(pattern, answer.headers[name]), name
    assert set(answer.headers) == {name.lower() for name in [*expected, *patterns]}


def test_headers_of_the_switches_are_absent_unless_switched_on(ask: Ask) -> None:
    extra = {
        "Strict-Transport-Security": "max-age=31556952",
        "permissions-policy": "interest-cohort=()",
        "x-github-edge-region": "fra",
    }
    plain = ask("/page")
    assert not any(name in plain.headers for name in extra)
    switched = ask(
        "/page", scheme="https", enforce_https=True, permissions_policy=True, edge_region="fra"
    )
    assert {name: switched.headers.get(name) for name in extra} == extra


def test_second_replica_is_two_seconds_later(ask: Ask) -> None:
    answer = ask("/letters.txt", replica=1)
    assert answer.headers["ETag"] == f'"{NOW + 2:x}-1a"'
    assert answer.headers["Last-Modified"] == formatdate(NOW + 2, usegmt=True)


def test_query_picks_no_file(ask: Ask) -> None:
    assert ask("/page?other.html").body == ask("/page").body


def test_path_above_the_root_is_400(ask: Ask) -> None:
    answer = ask("/../secret.txt")
    assert (answer.status, len(answer.body)) == (400, 150)
    assert answer.headers["Content-Type"] == "text/html"


# ---------------------------------------------------------------- which site


def assert_moved(answer: Any, location: str) -> None:
    assert (answer.status, answer.headers["Location"]) == (301, location)
    assert answer.headers["Content-Type"] == "text/html"
    assert answer.headers["Content-Length"] == "162"
    unstated = ("Cache-Control", "Expires", "ETag", "Access-Control-Allow-Origin", "Last-Modified")
    assert not any(name in answer.headers for name in unstated)


@pytest.mark.parametrize(
    "host", ["user.github.io", "USER.GitHub.io", "user.github.io.", "user.github.io:8080"]
)
def test_host_is_known_in_any_spelling(ask: Ask, host: str) -> None:
    assert ask("/page", {"Host": host}, host="user.github.io").status == 200


def test_any_host_will_do_where_none_is_named(ask: Ask) -> None:
    assert ask("/page", {"Host": "127.0.0.1:8081"}).status == 200
    assert ask("/page", {"Host": "anything.example"}).status == 200


@pytest.mark.parametrize("host", ["other.github.io", "127.0.0.1:8081", ""])
def test_unknown_host_has_no_site(ask: Ask, host: str) -> None:
    answer = ask("/page", {"Host": host}, host="user.github.io")
    assert answer.status == 404
    assert b"<title>Site not found</title>" in answer.body
    assert answer.headers["ETag"] == '"64d39a40-24a3"'


def test_http_moves_to_https_where_that_is_enforced(ask: Ask) -> None:
    answer = ask("/dir/page?x=1&y=%20", enforce_https=True)
    assert_moved(answer, "https://user.github.io/dir/page?x=1&y=%20")


def test_https_does_not_move_again(ask: Ask) -> None:
    assert ask("/page", scheme="https", enforce_https=True).status == 200


@pytest.mark.parametrize(("enforce", "scheme"), [(False, "http"), (True, "https")])
def test_github_name_moves_to_the_custom_domain(ask: Ask, enforce: bool, scheme: str) -> None:
    switches = {"host": "user.github.io", "domain": "example.org", "enforce_https": enforce}
    assert_moved(ask("/page?x=1", **switches), f"{scheme}://example.org/page?x=1")
    project = ask("/project/a%20b/", base="/project/", **switches)
    assert_moved(project, f"{scheme}://example.org/a%20b/")
    assert_moved(ask("/project", base="/project/", **switches), f"{scheme}://example.org/")


def test_path_of_another_project_does_not_move(ask: Ask) -> None:
    answer = ask("/other/", base="/project/", host="user.github.io", domain="example.org")
    assert answer.status == 404


@pytest.mark.parametrize(
    ("domain", "host"), [("example.org", "www.example.org"), ("www.example.org", "example.org")]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_www_twin_moves_to_the_configured_domain(
    ask: Ask, domain: str, host: str, scheme: str
) -> None:
    answer = ask("/page?x=1", {"Host": host}, domain=domain, scheme=scheme)
    assert_moved(answer, f"{scheme}://{domain}/page?x=1")


def test_custom_domain_serves_a_project_from_the_root(ask: Ask) -> None:
    switches = {"base": "/project/", "host": "user.github.io", "domain": "example.org"}
    assert ask("/page", {"Host": "Example.org"}, **switches).status == 200
    assert ask("/project/page", {"Host": "example.org"}, **switches).status == 404


def test_preview_of_a_site_with_a_domain_is_not_redirected_away(ask: Ask) -> None:
    for host in ("127.0.0.1:8081", "localhost:8081", "[::1]:8081"):
        assert ask("/page", {"Host": host}, domain="example.org").status == 200
    assert ask("/page", {"Host": "user.github.io"}, domain="example.org").status == 301


def test_host_that_the_certificate_lacks_is_misdirected(ask: Ask) -> None:
    answer = ask(
        "/", {"Host": "example.com"}, scheme="https", tls_name="user.github.io",
        host="user.github.io",
    )  # fmt: skip
    assert (answer.status, answer.headers["Content-Type"]) == (421, "text/plain")
    assert b"certificate" in answer.body


@pytest.mark.parametrize("tls_name", [None, "other.github.io", "user.github.io"])
def test_unknown_host_that_the_certificate_covers_is_404(ask: Ask, tls_name: str | None) -> None:
    headers = {"Host": "other.github.io"}
    answer = ask("/", headers, scheme="https", tls_name=tls_name, host="user.github.io")
    assert answer.status == 404


# ---------------------------------------------------------------- which file


def test_folder_gets_its_slash_by_an_absolute_redirect(ask: Ask) -> None:
    assert_moved(ask("/dir"), "http://user.github.io/dir/")
    assert_moved(ask("/dir?x=1", scheme="https"), "https://user.github.io/dir/?x=1")
    assert_moved(ask("/dir", {"Host": "127.0.0.1:8081"}), "http://127.0.0.1:8081/dir/")


def test_slash_redirect_names_the_folded_path(ask: Ask) -> None:
    assert_moved(ask("//evil.example/..//dir"), "http://user.github.io/dir/")


def test_slash_redirect_escapes_what_it_repeats(ask: Ask, folder: Path) -> None:
    name = "new\r\nline \u00e9"
    (folder / name).mkdir()
    (folder / name / "index.html").write_bytes(b"")
    assert_moved(ask("/new%0d%0aline%20%C3%A9"), "http://user.github.io/new%0D%0Aline%20%C3%A9/")


def test_slash_redirect_is_cacheable_by_switch(ask: Ask) -> None:
    answer = ask("/dir", slash_redirect_cacheable=True)
    assert answer.status == 301
    assert answer.headers["Cache-Control"] == "max-age=600"
    assert answer.headers["Expires"] == formatdate(NOW + 600, usegmt=True)


def test_base_path_without_its_slash_is_redirected(ask: Ask) -> None:
    assert_moved(ask("/project?x=1", base="/project/"), "http://user.github.io/project/?x=1")


def test_site_lies_under_its_base_path(ask: Ask) -> None:
    assert ask("/project/page", base="/project/").status == 200
    assert ask("/project/dir", base="/project/").headers["Location"].endswith("/project/dir/")


@pytest.mark.parametrize("target", ["/", "/page", "/projects", "/project/../page", "/Project/"])
def test_outside_of_the_base_path_is_no_site(ask: Ask, target: str) -> None:
    answer = ask(target, base="/project/")
    assert answer.status == 404
    assert b"Site not found" in answer.body


# ---------------------------------------------------------------- 404


def test_missing_page_shows_404_html(ask: Ask) -> None:
    answer = ask("/nope", {"Range": "bytes=0-1", "If-None-Match": "*"})
    assert answer.status == 404
    assert answer.body == b"<!doctype html><title>Nothing here</title>"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["ETag"] == f'"{NOW:x}-2a"'
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    for name in ("Cache-Control", "Expires", "Last-Modified", "Content-Security-Policy"):
        assert name not in answer.headers


def test_missing_page_without_404_html_shows_the_default_page(ask: Ask, folder: Path) -> None:
    (folder / "404.html").unlink()
    answer = ask("/nope")
    assert answer.status == 404
    assert b"<title>Page not found</title>" in answer.body
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["ETag"] == '"64d39a40-24a3"'
    assert answer.headers["Content-Security-Policy"] == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'"
    )
    compressed = ask("/nope", GZIP)
    assert compressed.headers["ETag"] == 'W/"64d39a40-24a3"'
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(compressed.body) == answer.body


def test_custom_404_is_compressed_too(ask: Ask) -> None:
    answer = ask("/nope", GZIP)
    assert answer.headers["ETag"] == f'W/"{NOW:x}-2a"'
    assert gzip.decompress(answer.body) == b"<!doctype html><title>Nothing here</title>"


def test_404_page_itself_is_a_page(ask: Ask) -> None:
    assert ask("/404").status == 200
    assert ask("/404.html").status == 200


# ---------------------------------------------------------------- methods


@pytest.mark.parametrize("target", ["/page", "/dir", "/nope", "/letters.txt"])
@pytest.mark.parametrize("headers", [{}, GZIP, {"Range": "bytes=0-9"}])
def test_head_has_the_headers_of_get_and_no_body(
    ask: Ask, target: str, headers: dict[str, str]
) -> None:
    ids = ("x-fastly-request-id", "x-github-request-id")
    get, head = ask(target, headers), ask(target, headers, method="HEAD")
    assert head.status == get.status
    assert head.body == b""
    assert {k: v for k, v in head.headers.items() if k not in ids} == {
        k: v for k, v in get.headers.items() if k not in ids
    }


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
def test_other_methods_are_not_allowed_on_a_file(ask: Ask, method: str) -> None:
    answer = ask("/page", method=method)
    assert (answer.status, len(answer.body)) == (405, 150)
    assert answer.headers["Content-Type"] == "text/html"
    assert "Allow" not in answer.headers


def test_other_methods_meet_404_and_301_first(ask: Ask) -> None:
    assert ask("/nope", method="POST").status == 404
    assert_moved(ask("/dir", method="POST"), "http://user.github.io/dir/")
    assert ask("/nope", method="TRACE").status == 405


# ---------------------------------------------------------------- compression


@pytest.mark.parametrize(
    ("accept", "compressed"),
    [
        ("gzip", True),
        ("deflate, gzip, br, zstd", True),
        ("GZIP;q=0.5", True),
        ("gzip;q=1.0", True),
        ("gzip; q=0.001", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip;q=x", False),
        ("br", False),
        ("*", False),
        ("identity", False),
        ("x-gzip", False),
        ("", False),
    ],
)
def test_gzip_is_sent_to_those_who_name_it(ask: Ask, accept: str, compressed: bool) -> None:
    answer = ask("/style.css", {"Accept-Encoding": accept})
    whole = ask("/style.css")
    assert whole.headers["ETag"].startswith('"')
    assert "Content-Encoding" not in whole.headers
    if compressed:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["ETag"] == "W/" + whole.headers["ETag"]
        assert answer.headers["Content-Length"] == str(len(answer.body))
        assert gzip.decompress(answer.body) == whole.body
    else:
        assert "Content-Encoding" not in answer.headers
        assert answer.headers["ETag"] == whole.headers["ETag"]
        assert answer.body == whole.body


@pytest.mark.parametrize(
    ("target", "compressed"),
    [
        ("/page", True),
        ("/letters.txt", True),
        ("/map.pmtiles", True),
        ("/tiny.txt", False),
        ("/empty.txt", False),
        ("/CNAME", False),
        ("/picture.png", False),
        ("/archive.gz", False),
        ("/dir", False),
    ],
)
def test_gzip_depends_on_type_and_size(ask: Ask, target: str, compressed: bool) -> None:
    assert ("Content-Encoding" in ask(target, GZIP).headers) is compressed


def test_gz_file_is_sent_as_it_is(ask: Ask, folder: Path) -> None:
    answer = ask("/archive.gz", GZIP)
    assert answer.headers["Content-Type"] == "application/gzip"
    assert answer.body == (folder / "archive.gz").read_bytes()


# ---------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": ETAG}, 304),
        ({"If-None-Match": f"W/{ETAG}"}, 304),
        ({"If-None-Match": f'"x", W/"y",{ETAG}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": f"W/{ETAG}", **GZIP}, 304),
        ({"If-None-Match": '"x"'}, 200),
        ({"If-None-Match": ETAG.strip('"')}, 200),
        ({"If-None-Match": '"x"', "If-Modified-Since": TODAY}, 200),
        ({"If-None-Match": ETAG, "If-Modified-Since": EARLIER}, 304),
        ({"If-Modified-Since": TODAY}, 304),
        ({"If-Modified-Since": LATER}, 304),
        ({"If-Modified-Since": EARLIER}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Modified-Since": "Tue, 99 Nov 99999 99:99:99 GMT"}, 200),
        ({"If-Match": ETAG}, 200),
        ({"If-Match": ETAG, **GZIP}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": f'"x", {ETAG}'}, 200),
        ({"If-Match": '"x"'}, 412),
        ({"If-Match": f"W/{ETAG}"}, 412),
        ({"If-Unmodified-Since": TODAY}, 200),
        ({"If-Unmodified-Since": LATER}, 200),
        ({"If-Unmodified-Since": EARLIER}, 412),
        ({"If-Unmodified-Since": "yesterday"}, 412),
        ({"If-None-Match": ETAG, "Range": "bytes=0-1"}, 304),
        ({"If-Match": '"x"', "If-None-Match": ETAG}, 412),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_condition_decides_the_status(
    ask: Ask, headers: dict[str, str], status: int, method: str
) -> None:
    assert ask("/letters.txt", headers, method=method).status == status


def test_304_confirms_without_describing(ask: Ask) -> None:
    answer = ask("/letters.txt", {"If-None-Match": f"W/{ETAG}", **GZIP}, edge_region="fra")
    assert answer.body == b""
    assert answer.headers["ETag"] == ETAG
    assert set(answer.headers) == {
        "etag",
        "date",
        "via",
        "age",
        "cache-control",
        "expires",
        "vary",
        "x-served-by",
        "x-cache",
        "x-cache-hits",
        "x-timer",
        "x-fastly-request-id",
        "x-github-request-id",
        "x-proxy-cache",
        "x-github-edge-region",
    }


def test_conditions_do_not_matter_to_a_redirect(ask: Ask) -> None:
    assert ask("/dir", {"If-None-Match": "*", "If-Match": '"x"'}).status == 301


# ---------------------------------------------------------------- ranges


@pytest.mark.parametrize(
    ("value", "content_range", "body"),
    [
        ("bytes=0-3", "bytes 0-3/26", b"abcd"),
        ("bytes=24-", "bytes 24-25/26", b"yz"),
        ("bytes=-1", "bytes 25-25/26", b"z"),
        ("bytes=20-100", "bytes 20-25/26", b"uvwxyz"),
    ],
)
def test_range_is_a_part(ask: Ask, value: str, content_range: str, body: bytes) -> None:
    answer = ask("/letters.txt", {"Range": value})
    assert (answer.status, answer.body) == (206, body)
    assert answer.headers["Content-Range"] == content_range
    assert answer.headers["Content-Length"] == str(len(body))
    assert answer.headers["ETag"] == ETAG


@pytest.mark.parametrize("value", ["bytes=26-", "bytes=5-1", "bytes=-0"])
def test_range_outside_is_416(ask: Ask, value: str) -> None:
    answer = ask("/letters.txt", {"Range": value})
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */26")


def test_unknown_unit_gets_the_whole(ask: Ask) -> None:
    answer = ask("/letters.txt", {"Range": "lines=0-1"})
    assert (answer.status, answer.body) == (200, LETTERS)


def test_several_ranges_are_multipart(ask: Ask) -> None:
    answer = ask("/letters.txt", {"Range": "bytes=0-1,5-6"})
    assert answer.status == 206
    assert "Content-Range" not in answer.headers
    boundary = re.fullmatch(
        r"multipart/byteranges; boundary=(\d{20})", answer.headers["Content-Type"]
    )
    assert boundary
    mark = boundary[1].encode()
    part = b"Content-Type: text/plain; charset=utf-8\r\nContent-Range: bytes %b/26\r\n\r\n%b"
    assert answer.body == b"\r\n--%b\r\n%b\r\n--%b\r\n%b\r\n--%b--\r\n" % (
        mark, part % (b"0-1", b"ab"), mark, part % (b"5-6", b"fg"), mark,
    )  # fmt: skip
    assert answer.headers["Content-Length"] == str(len(answer.body))


@pytest.mark.parametrize(
    ("condition", "more", "status"),
    [
        (ETAG, {}, 206),
        (f"W/{ETAG}", {}, 200),
        ('"x"', {}, 200),
        (TODAY, {}, 206),
        (LATER, {}, 200),
        (EARLIER, {}, 200),
        (ETAG, GZIP, 200),
        (f"W/{ETAG}", GZIP, 200),
    ],
)
def test_if_range_needs_the_strong_etag_or_the_exact_date(
    ask: Ask, condition: str, more: dict[str, str], status: int
) -> None:
    headers = {"Range": "bytes=0-1", "If-Range": condition, **more}
    assert ask("/letters.txt", headers).status == status


def test_range_with_gzip_is_cut_from_the_compressed_bytes(ask: Ask) -> None:
    compressed = ask("/map.pmtiles", GZIP).body
    assert len(compressed) < 1000
    part = ask("/map.pmtiles", {"Range": "bytes=2-9", **GZIP})
    assert (part.status, part.body) == (206, compressed[2:10])
    assert part.headers["Content-Encoding"] == "gzip"
    assert part.headers["Content-Range"] == f"bytes 2-9/{len(compressed)}"
    beyond = ask("/map.pmtiles", {"Range": "bytes=50000-50999", **GZIP})
    assert beyond.status == 416
    assert beyond.headers["Content-Range"] == f"bytes */{len(compressed)}"
    assert ask("/map.pmtiles", {"Range": "bytes=50000-50999"}).status == 206
