"""Which file a path means."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.pages.content_types import content_type_of
from edgeproxy.pages.site import FOLDER, File, Site, is_spelled_exactly, normalised

NOW = 1_700_000_000


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("//a///b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/a//../b", "/b"),
        ("/%61", "/a"),
        ("/%2e%2e/a", None),
        ("/a/%2E%2e/b", "/b"),
        ("/a%2Fb", "/a/b"),
        ("/%2561", "/%61"),
        ("/a+b", "/a+b"),
        ("/%C3%A9", "/\u00e9"),
        ("/\u00c3\u00a9", "/\u00e9"),
        ("/%ff", "/\udcff"),
        ("/..", None),
        ("/a/../..", None),
        ("/a/../../b", None),
        ("/%", None),
        ("/%4", None),
        ("/%zz", None),
        ("/a%00b", None),
        ("a", None),
        ("*", None),
        ("", None),
    ],
)
def test_path_is_decoded_once_and_normalised(raw: str, path: str | None) -> None:
    assert normalised(raw) == path


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("", "index.html"),
        ("page", "page.html"),
        ("page.html", "page.html"),
        ("dir/", "dir/index.html"),
        ("dir/index.html", "dir/index.html"),
        ("dir/index", "dir/index.html"),
        ("both", "both.html"),
        ("both/", "both/index.html"),
        ("404", "404.html"),
        ("404.html", "404.html"),
        ("CNAME", "CNAME"),
        (".well-known/security.txt", ".well-known/security.txt"),
        ("both ends/\u00e9t\u00e9", "both ends/\u00e9t\u00e9.html"),
    ],
)
def test_path_finds_its_file(site: Site, folder: Path, path: str, name: str) -> None:
    found = site.resolve(path)
    assert isinstance(found, File)
    assert found.body == (folder / name).read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "page/",
        "page.html/",
        "noindex",
        "noindex/",
        "nope",
        "Page",
        "PAGE.HTML",
        "DIR/",
        ".nojekyll",
        ".git/config",
        ".well-known",
        ".well-known/.secret",
        "dir/.hidden",
        "x" * 5000,
        "page\udcff",
    ],
)
def test_path_finds_nothing(site: Site, path: str) -> None:
    assert site.resolve(path) is None


def test_folder_without_its_slash_is_a_folder(site: Site) -> None:
    assert site.resolve("dir") is FOLDER


def test_link_out_of_the_site_is_not_followed(site: Site, folder: Path) -> None:
    (folder / "leak.txt").symlink_to(folder.parent / "secret.txt")
    (folder / "up").symlink_to(folder.parent)
    assert site.resolve("leak.txt") is None
    assert site.resolve("up/secret.txt") is None


def test_link_within_the_site_is_followed(site: Site, folder: Path) -> None:
    (folder / "alias.html").symlink_to("page.html")
    assert isinstance(site.resolve("alias"), File)


def test_file_that_becomes_a_link_out_of_the_site_disappears(site: Site, folder: Path) -> None:
    assert isinstance(site.resolve("page"), File)
    (folder / "page.html").unlink()
    (folder / "page.html").symlink_to(folder.parent / "secret.txt")
    assert site.resolve("page") is None


def test_case_of_a_name_is_compared_with_the_folder(folder: Path) -> None:
    assert is_spelled_exactly(str(folder), "dir/index.html")
    assert not is_spelled_exactly(str(folder), "dir/Index.html")


def test_all_files_of_a_deploy_have_its_time(site: Site, folder: Path) -> None:
    os.utime(folder / "page.html", (1, 1))
    files = [site.file("page.html"), site.file("style.css")]
    assert [file and file.modified_at for file in files] == [NOW, NOW]


def test_etag_is_hex_time_and_hex_size(site: Site) -> None:
    file = site.file("style.css")
    assert file is not None
    assert file.etag_on(0) == f'"{NOW:x}-{len(file.body):x}"'
    assert file.etag_on(1) == f'"{NOW + 2:x}-{len(file.body):x}"'


def test_file_is_read_once(site: Site) -> None:
    assert site.file("page.html") is site.file("page.html")


def test_edited_file_is_read_again_with_a_new_etag(site: Site, folder: Path) -> None:
    before = site.file("tiny.txt")
    (folder / "tiny.txt").write_bytes(b"9876543210")
    os.utime(folder / "tiny.txt", ns=(1, 1))
    after = site.file("tiny.txt")
    assert before is not None
    assert after is not None
    assert after.body == b"9876543210"
    assert after.etag_on(0) != before.etag_on(0)


@pytest.mark.parametrize("replicas", [1, 2])
def test_every_publish_makes_every_etag_new_even_within_a_second(
    folder: Path, replicas: int
) -> None:
    site = Site(folder, lambda: NOW, replicas)
    seen: set[str] = set()
    for _ in range(5):
        file = site.file("page.html")
        assert file is not None
        etags = {file.etag_on(replica) for replica in range(replicas)}
        assert not etags & seen
        seen |= etags
        site.publish()


def test_publish_of_another_folder_replaces_all_files(site: Site, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "fresh.html").write_bytes(b"fresh")
    site.publish(new)
    assert site.resolve("page") is None
    assert isinstance(site.resolve("fresh"), File)


def test_publish_of_a_missing_folder_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        site.publish(tmp_path / "missing")


@pytest.mark.parametrize(
    ("name", "value", "compressible"),
    [
        ("a.html", "text/html; charset=utf-8", True),
        ("a.HTM", "text/html; charset=utf-8", True),
        ("a.css", "text/css; charset=utf-8", True),
        ("a.js", "application/javascript; charset=utf-8", True),
        ("a.mjs", "application/javascript; charset=utf-8", True),
        ("a.json", "application/json; charset=utf-8", True),
        ("a.js.map", "application/json; charset=utf-8", True),
        ("a.webmanifest", "application/manifest+json; charset=utf-8", True),
        ("a.xml", "application/xml", True),
        ("a.txt", "text/plain; charset=utf-8", True),
        ("a.md", "text/markdown; charset=utf-8", True),
        ("a.csv", "text/csv; charset=utf-8", True),
        ("a.svg", "image/svg+xml", True),
        ("a.png", "image/png", False),
        ("a.jpg", "image/jpeg", False),
        ("a.gif", "image/gif", False),
        ("a.webp", "image/webp", False),
        ("a.avif", "image/avif", False),
        ("a.ico", "image/vnd.microsoft.icon", True),
        ("a.woff", "font/woff", False),
        ("a.woff2", "font/woff2", False),
        ("a.ttf", "font/ttf", True),
        ("a.otf", "font/otf", True),
        ("a.wasm", "application/wasm", True),
        ("a.pdf", "application/pdf", False),
        ("a.zip", "application/zip", False),
        ("sitemap.xml.gz", "application/gzip", False),
        ("a.mp4", "video/mp4", False),
        ("a.webm", "video/webm", False),
        ("a.mp3", "audio/mpeg", False),
        ("objects.inv", "application/octet-stream", True),
        ("map.pmtiles", "application/octet-stream", True),
        ("CNAME", "application/octet-stream", True),
        ("dir.html/CNAME", "application/octet-stream", True),
    ],
)
def test_content_type_follows_the_ending(name: str, value: str, compressible: bool) -> None:
    found = content_type_of(name)
    assert (found.value, found.compressible) == (value, compressible)


SEGMENT = st.sampled_from(
    ["..", ".", "", "%2e%2e", "%2E.", "..%2f", "%2f", "dir", "page", "secret.txt", "site", "%5c..",
     "..\\", "%00", "%c0%ae%c0%ae", "%ff", "...", "etc", "passwd", "~", "%25%32%65"]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.one_of(st.lists(SEGMENT, max_size=8).map("/".join), st.text(max_size=40)))
def test_no_path_reaches_a_file_outside_of_the_site(site: Site, folder: Path, text: str) -> None:
    path = normalised("/" + text)
    if path is None:
        return
    assert path.startswith("/")
    assert not {"", ".", ".."} & set(path.strip("/").split("/")) or path == "/"
    found = site.resolve(path[1:])
    if isinstance(found, File):
        inside = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
        assert found.body in inside
        assert found.body != b"outside of the site"


@given(st.text(max_size=60))
def test_a_normalised_path_is_stable(text: str) -> None:
    path = normalised("/" + text)
    if path is not None and "%" not in path and path.isascii():
        assert normalised(path) == path
