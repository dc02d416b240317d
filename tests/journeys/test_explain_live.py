"""Explanations of requests while they are served: for who shows a token, and for the admin."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgeproxy import cli
from edgeproxy.caching.structured import Token, dictionary
from edgeproxy.explain import Explanation, tell
from edgeproxy.explain.tokens import make_token
from edgeproxy.http import Headers
from edgeproxy.testing import Proxy, Reply, running

KEY = "a-key-that-nobody-guesses"
ADMIN = "a-token-that-nobody-guesses"
POLICY = """\
version: 1
admin: {listen: "127.0.0.1:0", token: "${env:EDGEPROXY_TOKEN}"}
explain: {key: "${env:EXPLAIN_KEY}", keep: 5}
origins:
  site: {url: "http://127.0.0.1:9/"}
  app: {url: "http://127.0.0.1:9/", kind: http}
experiments: {hero: {weights: {control: 1, bold: 1}}}
cache: {rules: {html: {ttl: 10m}}}
routes:
  - {name: moved, match: {path: /old}, redirect: /}
  - {name: curious, match: {header: {edge-explain: {present: true}}}, respond: {status: 418}}
  - {name: app, match: {path: /app/**}, origin: app, cache: false}
  - {name: preview, match: {path: /, cookie: {preview: letmein}}, origin: site, cache: false}
  - {name: site, origin: site, cache: html, experiment: hero}
"""
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nvary: edge-explain\r\n"
    b"content-length: 2\r\nconnection: close\r\n\r\nhi"
)


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROXY_TOKEN", ADMIN)
    monkeypatch.setenv("EXPLAIN_KEY", KEY)


@pytest.fixture
async def origin(raw_origin: Any) -> AsyncIterator[Any]:
    async with raw_origin(ANSWER) as origin:
        yield origin


@pytest.fixture
async def proxy(origin: Any) -> AsyncIterator[Proxy]:
    async with running(POLICY, origins={"site": origin.url, "app": origin.url}) as proxy:
        yield proxy


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN}"}) as session:
        yield session


def token(host: str = "127.0.0.1", for_s: float = 60, key: str = KEY) -> str:
    return make_token(key, host, time.time() + for_s)


def asking(**fields: str) -> dict[str, str]:
    return {"Edge-Explain": token(), **fields}


def in_short(reply: Reply) -> dict[str, Any]:
    found = dictionary(Headers.of(*reply.headers.items()), "edge-explain")
    assert found is not None, reply.headers
    return dict(found)


def plain(reply: Reply) -> tuple[int, list[tuple[str, str]], bytes]:
    """What a client gets, but for what the clock changes."""
    moving = ("date", "age", "cache-status")
    fields = sorted((name.lower(), value) for name, value in reply.headers.items())
    return reply.status, [one for one in fields if one[0] not in moving], reply.body


async def kept(proxy: Proxy, session: aiohttp.ClientSession, path: str = "/requests") -> Any:
    assert proxy.server.admin is not None
    async with session.get(f"http://{proxy.server.admin.address}{path}") as answer:
        return await answer.json()


async def explained(proxy: Proxy, session: aiohttp.ClientSession, reply: Reply) -> Explanation:
    data = await kept(proxy, session, f"/requests/{in_short(reply)['id']}")
    return Explanation.from_json(data)


# ------------------------------------------------------------------- for who shows a token


async def test_who_shows_a_token_is_told_in_short(proxy: Proxy) -> None:
    reply = await proxy.get("/", headers=asking(cookie="ep_hero=bold"))
    said = in_short(reply)
    id = said.pop("id")
    assert said == {
        "route": "site", "variant": "hero=bold", "origin": "site", "rule": "html",
        "verdict": Token("miss"),
    }  # fmt: skip
    assert id == proxy.log[-1]["request_id"]
    assert reply.headers["edge-policy"] == proxy.server.app.plan.version
    assert "edge-explain" in reply.headers["vary"]


async def test_what_edgeproxy_answers_by_itself_is_told_too(proxy: Proxy) -> None:
    said = in_short(await proxy.get("/old", headers=asking()))
    assert (said["route"], said["answered-by"]) == ("moved", "redirect")
    assert "origin" not in said


async def test_the_whole_explanation_is_at_the_admin_listener(
    proxy: Proxy, session: aiohttp.ClientSession
) -> None:
    for verdict in ("miss", "hit"):
        reply = await proxy.get("/a", headers=asking(cookie="ep_hero=control"))
        explanation = await explained(proxy, session, reply)
        assert explanation.caching.verdict == verdict
        assert (explanation.route, explanation.answer.status) == ("site", 200)
        assert [route.name for route in explanation.routes] == ["curious", "site"]
        assert explanation.elsewhere == 3  # for other paths
        assert explanation.upstream is not None
        assert explanation.upstream.was_asked is (verdict == "miss")
        assert "takes every request" in tell(explanation)


BAD = {
    "none": "",
    "nonsense": "x",
    "expired": make_token(KEY, "127.0.0.1", time.time() - 1),
    "of another host": make_token(KEY, "example.org", time.time() + 60),
    "of another key": make_token("another-key-of-sixteen", "127.0.0.1", time.time() + 60),
    "without its signature": make_token(KEY, "127.0.0.1", time.time() + 60).rpartition(".")[0],
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_a_bad_token_is_ignored(
    proxy: Proxy, session: aiohttp.ClientSession, bad: str
) -> None:
    without = await proxy.get("/b", headers={"cookie": "ep_hero=bold"})
    reply = await proxy.get("/b", headers={"cookie": "ep_hero=bold", "Edge-Explain": bad})
    assert plain(reply) == plain(without)
    assert (await kept(proxy, session))["requests"] == []


@pytest.mark.parametrize("path", ["/c", "/app/c"])
@pytest.mark.parametrize("section", ['explain: {key: "${env:EXPLAIN_KEY}", keep: 5}', "# none"])
async def test_no_origin_is_shown_a_token(
    proxy: Proxy, origin: Any, path: str, section: str
) -> None:
    await proxy.reload(POLICY.replace('explain: {key: "${env:EXPLAIN_KEY}", keep: 5}', section)
                       .replace("curious, match: {header: {edge-explain", "no, match: {header: {x")
    )  # fmt: skip
    for shown in (token(), "x"):
        await proxy.get(f"{path}-{shown[-4:]}", headers={"Edge-Explain": shown})
    assert len(origin.heads) == 2
    assert all(b"edge-explain" not in head.lower() for head in origin.heads)


async def test_no_route_and_no_cache_key_sees_a_token(proxy: Proxy) -> None:
    cookie = {"cookie": "ep_hero=bold"}
    first = await proxy.get("/d", headers=asking(**cookie))  # the origin says Vary: edge-explain
    assert first.status == 200
    assert "hit" in (await proxy.get("/d", headers=cookie)).cache_status
    assert in_short(await proxy.get("/d", headers=asking(**cookie)))["verdict"] == "hit"


async def test_what_is_stored_is_what_others_would_have_stored(proxy: Proxy) -> None:
    cookie = {"cookie": "ep_hero=bold"}
    await proxy.get("/e", headers=asking(**cookie))
    await proxy.get("/f", headers=cookie)
    assert plain(await proxy.get("/e", headers=cookie)) == plain(
        await proxy.get("/f", headers=cookie)
    )


async def test_answers_that_are_given_again_are_not_those_of_a_holder(proxy: Proxy) -> None:
    """The front remembers answers as bytes: neither with the fields of a holder nor in place."""
    cookie = {"cookie": "ep_hero=bold"}
    for _ in range(5):
        assert "edge-policy" not in (await proxy.get("/g", headers=cookie)).headers
        assert in_short(await proxy.get("/g", headers=asking(**cookie)))["route"] == "site"


async def test_a_new_key_ends_all_tokens(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = asking()
    assert "edge-explain" in (await proxy.get("/h", headers=shown)).headers
    monkeypatch.setenv("EXPLAIN_KEY", "another-key-of-sixteen")
    await proxy.reload(POLICY)
    assert "edge-explain" not in (await proxy.get("/h", headers=shown)).headers


# ------------------------------------------------------------------- for the admin


async def test_the_last_ones_are_listed_newest_first(
    proxy: Proxy, session: aiohttp.ClientSession
) -> None:
    for number in range(7):
        await proxy.get(f"/page-{number}", headers=asking())
    listed = (await kept(proxy, session))["requests"]
    assert [one["url"].rpartition("-")[2] for one in listed] == list("65432")
    assert {one["status"] for one in listed} == {200}
    gone = await kept(proxy, session, "/requests/0000")
    assert gone["error"]["code"] == "no-such-request"


async def test_with_a_sample_requests_are_explained_unasked_and_clients_not_told(
    proxy: Proxy, session: aiohttp.ClientSession
) -> None:
    await proxy.reload(POLICY.replace("keep: 5", "keep: 9, sample: 1"))
    for _ in range(4):  # whatever the front remembers
        assert "edge-policy" not in (await proxy.get("/i")).headers
    assert [one["route"] for one in (await kept(proxy, session))["requests"]] == ["site"] * 4


async def test_a_reload_keeps_what_was_explained(
    proxy: Proxy, session: aiohttp.ClientSession
) -> None:
    await proxy.get("/j", headers=asking())
    await proxy.reload(POLICY.replace("10m", "20m"))
    assert len((await kept(proxy, session))["requests"]) == 1


async def test_a_request_that_fails_is_explained(
    proxy: Proxy, origin: Any, session: aiohttp.ClientSession
) -> None:
    origin.answers = [b"nonsense"]
    reply = await proxy.get("/k", headers=asking())
    assert reply.status == 502
    assert "origin 'site'" in (await explained(proxy, session, reply)).error


# ------------------------------------------------------------------- on the command line


def run(*arguments: str | Path) -> tuple[int, str]:
    out = io.StringIO()
    with redirect_stdout(out):
        return cli.main([str(one) for one in arguments]), out.getvalue()


async def test_a_token_of_the_command_line_is_good(proxy: Proxy) -> None:
    assert proxy.policy_file is not None
    status, shown = run("explain", proxy.policy_file, "http://127.0.0.1:8080/", "--token")
    assert status == 0
    reply = await proxy.get("/l", headers={"Edge-Explain": shown.strip()})
    assert in_short(reply)["route"] == "site"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--for", "31d"), "up to 30d"),
        (("--for", "soon"), "--for"),
        (("--for", "0s"), "up to 30d"),
    ],
)
def test_a_token_for_too_long_is_refused(
    arguments: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "site.yaml"
    policy.write_text(POLICY)
    assert run("explain", policy, "http://a.example/", "--token", *arguments)[0] == 2
    assert words in capsys.readouterr().err


def test_without_a_key_there_are_no_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "site.yaml"
    policy.write_text('version: 1\norigins: {a: {url: "https://a.example/"}}\n')
    assert run("explain", policy, "http://a.example/", "--token")[0] == 2
    assert "no key for tokens" in capsys.readouterr().err
