"""The cache in front, on a clock that the test turns."""

from email.utils import formatdate
from pathlib import Path

import pytest

from edgeproxy.pages import Answer, Headers, Pages, Request
from edgeproxy.pages.cdn import CAPACITY, Cdn

NOW = 1_700_000_000


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Client:
    """Asks `Pages` without a network."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    def get(self, target: str, method: str = "GET", **headers: str) -> Answer:
        fields = Headers((name.replace("_", "-"), value) for name, value in headers.items())
        return self.pages.respond(Request(method, target, fields))[0]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pages(folder: Path, clock: Clock) -> Pages:
    return Pages(folder, cdn=True, now=clock)


@pytest.fixture
def client(pages: Pages) -> Client:
    return Client(pages)


def passage(answer: Answer) -> tuple[str, str, str]:
    headers = Headers(answer.headers)
    return headers["X-Cache"], headers["X-Cache-Hits"], headers["Age"]


def test_second_request_is_a_hit_with_an_age(client: Client, clock: Clock) -> None:
    assert passage(client.get("/page")) == ("MISS", "0", "0")
    clock.now += 7.9
    assert passage(client.get("/page")) == ("HIT", "1", "7")
    clock.now += 3
    assert passage(client.get("/page", method="HEAD")) == ("HIT", "2", "10")


def test_target_host_and_coding_are_kept_apart(client: Client) -> None:
    client.get("/page")
    assert passage(client.get("/page?x=1"))[0] == "MISS"
    assert passage(client.get("/page", host="other.example"))[0] == "MISS"
    assert passage(client.get("/page", accept_encoding="gzip"))[0] == "MISS"
    assert passage(client.get("/page", accept_encoding="br, gzip"))[0] == "HIT"
    assert passage(client.get("/page", accept_encoding="br"))[0] == "HIT"


def test_ranges_and_conditions_are_answered_from_the_stored_page(client: Client) -> None:
    etag = Headers(client.get("/letters.txt").headers)["ETag"]
    part = client.get("/letters.txt", range="bytes=0-1")
    assert (part.status, part.body, passage(part)[0]) == (206, b"ab", "HIT")
    unchanged = client.get("/letters.txt", if_none_match=etag)
    assert (unchanged.status, passage(unchanged)[0]) == (304, "HIT")


def test_confirmed_page_keeps_its_old_expires(client: Client, clock: Clock) -> None:
    client.get("/page")
    clock.now += 7200
    answer = client.get("/page")
    assert passage(answer) == ("MISS", "0", "0")
    assert Headers(answer.headers)["Expires"] == formatdate(NOW + 600, usegmt=True)
    assert Headers(answer.headers)["Date"] == formatdate(NOW + 7200, usegmt=True)


def test_publish_shows_after_at_most_ten_minutes(
    client: Client, pages: Pages, clock: Clock, folder: Path
) -> None:
    client.get("/page")
    (folder / "page.html").write_bytes(b"the next edition")
    pages.publish()
    clock.now += 599
    assert client.get("/page").body == b"<!doctype html><title>Page</title>"
    clock.now += 1
    answer = client.get("/page")
    assert answer.body == b"the next edition"
    assert Headers(answer.headers)["Expires"] == formatdate(NOW + 1200, usegmt=True)


@pytest.mark.parametrize(("target", "status"), [("/dir", 301), ("/nope", 404)])
def test_redirects_and_404s_are_stored_for_longer(
    client: Client, clock: Clock, target: str, status: int
) -> None:
    client.get(target)
    clock.now += 2513
    answer = client.get(target)
    assert answer.status == status
    assert passage(answer) == ("HIT", "1", "2513")


@pytest.mark.parametrize(("method", "target"), [("POST", "/page"), ("GET", "/../x")])
def test_errors_are_not_stored(client: Client, method: str, target: str) -> None:
    client.get(target, method=method)
    assert passage(client.get(target, method=method))[0] == "MISS"


def test_replicas_take_turns_on_each_fetch(folder: Path) -> None:
    client = Client(Pages(folder, replicas=2, now=lambda: NOW))
    etags = [Headers(client.get("/page").headers)["ETag"] for _ in range(4)]
    assert etags[0] == etags[2] != etags[1] == etags[3]


def test_oldest_answer_goes_when_the_cache_is_full(client: Client) -> None:
    cdn = Cdn()
    pages = client.pages

    def get(target: str) -> int:
        request = Request("GET", target)
        return cdn.get(request, NOW, lambda: pages._fetch(request, NOW))[1].hits

    for number in range(CAPACITY + 1):
        get(f"/tiny.txt?{number}")
    assert get(f"/tiny.txt?{CAPACITY}") == 1
    assert get("/tiny.txt?0") == 0
