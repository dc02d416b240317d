"""The admin listener: who gets in, what changes what, and what it says."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgeproxy import cli
from edgeproxy.addresses import BadAddress
from edgeproxy.admin.messages import Text
from edgeproxy.admin.routes import ROUTES
from edgeproxy.errors import PolicyError
from edgeproxy.pages import Pages
from edgeproxy.policy.load import parse
from edgeproxy.testing import Proxy, running

TOKEN = "a-token-that-nobody-guesses"

POLICY = """\
version: 1
admin: {listen: "127.0.0.1:0", token: "${env:EDGEPROXY_TOKEN}"}
origins: {site: {url: "http://127.0.0.1:9/"}}
cache: {memory: {}, rules: {all: {ttl: 10m, tags: [page]}}}
routes:
  - {name: moved, match: {path: /moved}, redirect: {path: /, status: 301}}
  - {name: bare, match: {path: /bare}, cache: false}
  - {name: site, cache: all}
"""


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROXY_TOKEN", TOKEN)


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Pages]:
    folder = tmp_path / "site"
    for name in ("index.html", "a.html", "bare.html"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"<h1>{name}</h1>")
    async with Pages(folder) as pages:
        yield pages


@pytest.fixture
async def proxy(pages: Pages) -> AsyncIterator[Proxy]:
    async with running(POLICY, origins={"site": pages.url}) as proxy:
        yield proxy


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def admin(proxy: Proxy) -> str:
    assert proxy.server.admin.address
    return f"http://{proxy.server.admin.address}"


OPEN = {"Authorization": f"Bearer {TOKEN}"}
CHANGES = [route.path for route in ROUTES if route.method == "POST"]
QUERIES = {"/cache/object": "?url=/a", "/cache/why": "?url=http://a.org/"}
VIEWS = [
    route.path.replace("{id}", "0") + QUERIES.get(route.path, "")
    for route in ROUTES
    if route.method == "GET" and route.answer is not Text
]


async def ask(
    session: aiohttp.ClientSession, method: str, url: str, headers: Any = None, **how: Any
) -> tuple[int, Any, Any]:
    async with session.request(method, url, headers={**OPEN, **(headers or {})}, **how) as answer:
        return answer.status, await answer.json(content_type=None), answer.headers


# ---------------------------------------------------------------- who gets in


@pytest.mark.parametrize("path", [*CHANGES, *VIEWS, "/metrics", "/panels", "/nothing-here"])
@pytest.mark.parametrize(
    "given",
    [
        None, "", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN.upper()}", f"Token {TOKEN}", "Bearer \xff\xfe",
    ],
)  # fmt: skip
async def test_without_the_token_nothing_is_said(
    proxy: Proxy, session: aiohttp.ClientSession, path: str, given: str | None
) -> None:
    headers = {} if given is None else {"Authorization": given}
    method = "POST" if path in CHANGES else "GET"
    async with session.request(method, admin(proxy) + path, headers=headers, json={}) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert (await answer.json())["error"]["code"] == "token"
        assert TOKEN not in await answer.text()


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "localhost", "127.0.0.1:1", "evil.example:{port}", "", "[::1"],
)
async def test_another_host_is_refused(
    proxy: Proxy, session: aiohttp.ClientSession, host: str
) -> None:
    """A name that somebody's DNS points here: browsers send that name."""
    port = admin(proxy).rpartition(":")[2]
    status, said, _ = await ask(
        session, "GET", admin(proxy) + "/health", {"Host": host.format(port=port)}
    )
    assert status in (400, 421), said


async def test_our_own_names_are_taken(proxy: Proxy, session: aiohttp.ClientSession) -> None:
    port = admin(proxy).rpartition(":")[2]
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        headers = {"Host": f"{name}:{port}"}
        assert (await ask(session, "GET", admin(proxy) + "/health", headers))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ],
)  # fmt: skip
async def test_a_page_of_another_site_gets_nowhere(
    proxy: Proxy, session: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    """Even with the token, which it cannot have."""
    for method, path in (("POST", "/purge"), ("GET", "/health"), ("OPTIONS", "/purge")):
        status, said, fields = await ask(
            session, method, admin(proxy) + path, headers, json={"everything": True}
        )
        assert (status, said["error"]["code"]) == (403, "cross-origin")
        assert not [name for name in fields if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
async def test_what_a_form_can_send_changes_nothing(
    proxy: Proxy, session: aiohttp.ClientSession, kind: str | None
) -> None:
    await proxy.get("/a")
    headers = {} if kind is None else {"Content-Type": kind}
    for path in CHANGES:
        status, said, _ = await ask(
            session, "POST", admin(proxy) + path, headers, data=b'{"everything": true}'
        )
        assert (status, said["error"]["code"]) == (415, "not-json")
    assert "hit" in (await proxy.get("/a")).cache_status


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
async def test_only_post_changes_anything(
    proxy: Proxy, session: aiohttp.ClientSession, method: str
) -> None:
    await proxy.get("/a")
    version = proxy.server.app.plan
    for path in set(CHANGES) - set(VIEWS):
        how = {} if method in ("GET", "HEAD") else {"json": {"everything": True}}
        status, _, headers = await ask(
            session, method, f"{admin(proxy)}{path}?everything=true", **how
        )
        assert status == 405
        assert headers["Allow"] == "POST"
    assert "hit" in (await proxy.get("/a")).cache_status
    assert proxy.server.app.plan is version


async def test_looking_changes_nothing(proxy: Proxy, session: aiohttp.ClientSession) -> None:
    await proxy.get("/a")
    for path in (*VIEWS, "/cache/object?url=/a", "/cache/why?url=http://127.0.0.1/moved"):
        await ask(session, "GET", admin(proxy) + path)
    (tier,) = proxy.server.app.plan.cache.levels.tiers
    assert tier.stats()["objects"] == 2  # the page, and the record of its variants
    assert "hit" in (await proxy.get("/a")).cache_status
    assert len(proxy.log) == 2


async def test_the_public_port_is_no_way_in(pages: Pages, session: aiohttp.ClientSession) -> None:
    """A policy, or whoever gets to change an origin's address, points at the admin port."""
    async with running(POLICY, origins={"site": pages.url}) as proxy:
        for kind in ("pages", "http"):
            policy = POLICY.replace(
                '{url: "http://127.0.0.1:9/"}', f'{{url: "{admin(proxy)}/", kind: {kind}}}'
            )
            async with running(policy) as other:
                for method, path in (("GET", "/health"), ("POST", "/purge"), ("GET", "/version")):
                    reply = await other.get(
                        path, method=method, data=b'{"everything": true}' * (method == "POST"),
                        headers={**OPEN, "Content-Type": "application/json"},
                    )  # fmt: skip
                    assert reply.status in (403, 405)
                    if reply.status == 403:
                        assert json.loads(reply.body)["error"]["code"] == "through-a-proxy"
        # And the admin's own paths mean nothing on the public port.
        reply = await proxy.get("/purge", method="POST", data=b"{}", headers=OPEN)
        assert reply.status == 405


@pytest.mark.parametrize(
    "name", ["Via", "CDN-Loop", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP"]
)
async def test_what_came_through_a_proxy_is_refused(
    proxy: Proxy, session: aiohttp.ClientSession, name: str
) -> None:
    status, said, _ = await ask(session, "GET", admin(proxy) + "/health", {name: "x"})
    assert (status, said["error"]["code"]) == (403, "through-a-proxy")


async def test_the_token_is_nowhere_in_what_is_said_or_logged(
    proxy: Proxy, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    for path in (*VIEWS, "/cache/object?url=/a", "/nothing"):
        said.append(await ask(session, "GET", admin(proxy) + path))
    await ask(session, "GET", admin(proxy) + "/health", {"Authorization": "Bearer forged-token"})
    await proxy.reload(POLICY.replace("10m", "20m"))
    everything = repr(said) + caplog.text + json.dumps(proxy.log)
    assert TOKEN not in everything
    assert "forged-token" not in everything
    assert "a request with a wrong token from 127.0.0.1" in caplog.text


async def test_answers_are_not_to_be_kept(proxy: Proxy, session: aiohttp.ClientSession) -> None:
    for path in ("/health", "/nothing"):
        _, _, headers = await ask(session, "GET", admin(proxy) + path)
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/explain?url=http://a.org/", "/panels"])
async def test_an_expectation_is_neither_heeded_nor_answered_before_the_token(
    proxy: Proxy, session: aiohttp.ClientSession, path: str
) -> None:
    url, headers = admin(proxy) + path, {"Expect": "a miracle"}
    async with session.get(url, headers={**OPEN, **headers}) as answer:
        assert answer.status == 200
    async with session.get(url, headers=headers) as refused:
        assert (refused.status, (await refused.json())["error"]["code"]) == (401, "token")


async def test_a_body_that_waits_for_leave_to_be_sent_gets_it(
    proxy: Proxy, session: aiohttp.ClientSession
) -> None:
    async with session.post(
        admin(proxy) + "/purge", json={"urls": ["/a"]}, headers=OPEN, expect100=True
    ) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"null", b'"x"', b"{", b"\xff", b'{"urls": "/a"}', b'{"urls": [1]}',
        b'{"everything": 1}', b'{"everything": true, "urls": ["/a"]}', b'{"url": ["/a"]}',
        b'{"urls": ["ftp://x/"]}', b'{"tags": [""]}', b"[" * 100_000, b'{"a":' * 100_000,
    ],
)  # fmt: skip
async def test_what_cannot_be_meant_is_refused(
    proxy: Proxy, session: aiohttp.ClientSession, body: bytes
) -> None:
    await proxy.get("/a")
    status, said, _ = await ask(
        session, "POST", admin(proxy) + "/purge", {"Content-Type": "application/json"}, data=body
    )
    assert (status, said["error"]["code"]) == (400, "bad-request")
    assert "hit" in (await proxy.get("/a")).cache_status


async def test_a_body_has_a_limit(proxy: Proxy, session: aiohttp.ClientSession) -> None:
    status, _, _ = await ask(
        session, "POST", admin(proxy) + "/purge", {"Content-Type": "application/json"},
        data=io.BytesIO(b" " * 2**21),
    )  # fmt: skip
    assert status == 413


@pytest.mark.parametrize(
    "path",
    [
        "/cache/objects?limit=0", "/cache/objects?limit=x", "/cache/objects?limit=99999999999999",
        "/cache/objects?prefx=a", "/cache/object", "/cache/object?url=ftp://x/", "/cache/why",
        "/cache/why?url=/a", "/cache/why?url=http://a.org/&header=b%0Ad:x",
    ],
)  # fmt: skip
async def test_a_view_that_makes_no_sense_says_so(
    proxy: Proxy, session: aiohttp.ClientSession, path: str
) -> None:
    status, said, _ = await ask(session, "GET", admin(proxy) + path)
    assert (status, said["error"]["code"]) == (400, "bad-request")


# ---------------------------------------------------------------- what it does


async def test_purging_and_looking(proxy: Proxy, session: aiohttp.ClientSession) -> None:
    at = admin(proxy)
    await proxy.get("/a")
    _, said, _ = await ask(session, "GET", f"{at}/cache/objects?prefix=/a")
    (one,) = said["objects"]
    assert (one["url"], one["tier"], one["tags"]) == ("127.0.0.1/a", "memory", ["page"])
    status, said, _ = await ask(session, "POST", f"{at}/purge", json={"tags": ["page"]})
    assert (status, said) == (200, {"done": True, "not_written_down_by": []})
    assert (await ask(session, "GET", f"{at}/cache/object?url=/a"))[0] == 404
    assert "fwd=vary-miss" in (await proxy.get("/a")).cache_status
    await ask(session, "POST", f"{at}/invalidate", json={"everything": True})
    assert "fwd=stale; fwd-status=304" in (await proxy.get("/a")).cache_status
    _, said, _ = await ask(session, "POST", f"{at}/cache/verify", json={})
    assert said["tiers"][0]["damaged"] == []


async def test_a_reload_by_post(proxy: Proxy, session: aiohttp.ClientSession) -> None:
    at = admin(proxy)
    assert proxy.policy_file is not None
    good = proxy.policy_file.read_text()
    proxy.policy_file.write_text(good.replace("cache: all", "cache: no-such-rule"))
    status, said, _ = await ask(session, "POST", f"{at}/policy/reload", json={})
    assert (status, said["error"]["code"]) == (409, "policy-faults")
    assert "unknown-rule" in said["error"]["message"]
    proxy.policy_file.write_text(good.replace("10m", "20m"))
    status, said, _ = await ask(session, "POST", f"{at}/policy/reload", json={})
    assert (status, said["policy"]) == (200, proxy.server.app.plan.version)


async def test_a_reload_changes_the_token_and_the_address(
    proxy: Proxy, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = admin(proxy)
    monkeypatch.setenv("EDGEPROXY_TOKEN", "another-token-altogether")
    await proxy.reload(POLICY)
    assert (await ask(session, "GET", f"{before}/health"))[0] == 401
    headers = {"Authorization": "Bearer another-token-altogether"}
    assert (await ask(session, "GET", f"{before}/health", headers))[0] == 200
    await proxy.reload(POLICY.replace("127.0.0.1:0", "localhost:0"))
    assert admin(proxy) != before
    assert (await ask(session, "GET", f"{admin(proxy)}/health", headers))[0] == 200
    await proxy.reload(POLICY.replace('admin: {listen: "127.0.0.1:0", token: ', "#"))
    assert not proxy.server.admin.address


async def test_a_purge_outlasts_a_reload(proxy: Proxy, session: aiohttp.ClientSession) -> None:
    await proxy.get("/a")
    await ask(session, "POST", admin(proxy) + "/purge", json={"urls": ["/a"]})
    await proxy.reload(POLICY.replace("10m", "20m"))
    assert "hit" not in (await proxy.get("/a")).cache_status


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("/a", "storable", "the rule of the policy"),
        ("/moved", "own-answer", "answers by itself"),
        ("/bare", "cache-false", "cache: false"),
    ],
)
async def test_why(
    proxy: Proxy, session: aiohttp.ClientSession, path: str, code: str, words: str
) -> None:
    await proxy.get(path)
    _, said, _ = await ask(session, "GET", f"{admin(proxy)}/cache/why?url=http://127.0.0.1{path}")
    assert said["code"] == code
    assert words in said["words"]
    assert bool(said["stored_now"]) == (code == "storable")
    assert said["route"] == {"/a": "site", "/moved": "moved", "/bare": "bare"}[path]


@pytest.mark.parametrize(
    ("fields", "code", "section"),
    [
        ({"Cache-Control": "no-store"}, "no-store", "5.2.2.5"),
        ({"Cache-Control": "private"}, "private", "5.2.2.7"),
        ({"Set-Cookie": "a=b"}, "set-cookie", "7.3"),
        ({"Vary": "*"}, "vary", "4.1"),
        ({"Cache-Control": "max-age=60"}, "storable", "5.2.2.1"),
        ({"Cache-Control": "no-cache", "ETag": '"a"'}, "storable", "5.2.2.4"),
        ({"Cache-Control": "no-cache"}, "no-freshness", "5.2.2.4"),
    ],
)
async def test_why_names_the_section(
    session: aiohttp.ClientSession, fields: dict[str, str], code: str, section: str
) -> None:
    async def serve(request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        return aiohttp.web.Response(text="x", headers=fields)

    runner = aiohttp.web.ServerRunner(aiohttp.web.Server(serve))
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    origin = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with running(POLICY.replace("ttl: 10m, ", ""), origins={"site": origin}) as proxy:
        at = f"{admin(proxy)}/cache/why?url=http://127.0.0.1/x"
        _, said, _ = await ask(session, "GET", at)
        assert (said["code"], said["rule"]) == (code, "all")
        assert section in said["source"]
        assert said["stored_now"] is None
    await runner.cleanup()


# ---------------------------------------------------------------- the section and the socket


SITE = "version: 1\norigins: {site: {url: 'http://127.0.0.1:9/'}}\n"


@pytest.mark.parametrize(
    ("section", "code"),
    [
        ('{listen: "0.0.0.0:8079", token: "${env:T}"}', "bad-value"),
        ('{listen: "192.0.2.1:8079", token: "${env:T}"}', "bad-value"),
        ('{listen: ":8079", token: "${env:T}"}', "bad-value"),
        ('{listen: "8079", token: "${env:T}"}', "bad-value"),
        ('{listen: "unix:admin.sock", token: "${env:T}"}', "bad-value"),
        ('{token: "${env:SHORT}"}', "bad-value"),
        ('{token: "written-down-in-plain-text"}', "secret-as-value"),
        ("{}", "missing-key"),
    ],
)
def test_an_unsafe_section_is_a_fault(section: str, code: str) -> None:
    env = {"T": TOKEN, "SHORT": "short"}
    with pytest.raises(PolicyError) as raised:
        parse(f"{SITE}admin: {section}\n", env=env)
    assert [fault.code for fault in raised.value.faults] == [code]


def test_other_machines_are_let_in_only_on_purpose() -> None:
    text = 'admin: {listen: "0.0.0.0:8079", allow_remote: true, token: "${env:T}"}'
    policy = parse(SITE + text, env={"T": TOKEN})
    assert policy.core.admin is not None
    assert policy.core.admin.host_and_port == ("0.0.0.0", 8079)
    assert TOKEN not in repr(policy)


async def test_a_unix_socket_is_for_this_user_alone(
    pages: Pages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "admin.sock"
    policy = POLICY.replace("127.0.0.1:0", f"unix:{path}")
    async with running(policy, origins={"site": pages.url}):
        assert path.stat().st_mode & 0o777 == 0o600
        arguments = ["cache", "stats", "--admin", f"unix:{path}"]
        assert await asyncio.to_thread(cli.main, arguments) == 0
    assert "memory: 0 objects" in capsys.readouterr().out


async def test_a_unix_socket_is_taken_over_from_the_dead_alone(
    pages: Pages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    policy = POLICY.replace("127.0.0.1:0", f"unix:{path}")
    async with running(policy, origins={"site": pages.url}):
        with pytest.raises(BadAddress, match=r"cannot listen for admin on .*in use"):
            async with running(policy, origins={"site": pages.url}):
                pass
        arguments = ["cache", "stats", "--admin", f"unix:{path}"]
        assert await asyncio.to_thread(cli.main, arguments) == 0


async def test_an_address_in_use_stops_the_start(proxy: Proxy, pages: Pages) -> None:
    taken = POLICY.replace("127.0.0.1:0", admin(proxy).removeprefix("http://"))
    with pytest.raises(Exception, match="cannot listen for admin on"):
        async with running(taken, origins={"site": pages.url}):
            pass


# ---------------------------------------------------------------- the commands


@pytest.fixture
def command(proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> Any:
    async def run(*arguments: str) -> tuple[int, str, str]:
        status = await asyncio.to_thread(cli.main, [*arguments, "--admin", admin(proxy)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


async def test_commands_tell_what_a_person_wants_to_know(proxy: Proxy, command: Any) -> None:
    await proxy.get("/a")
    status, out, _ = await command("cache", "ls", "127.0.0.1/")
    assert status == 0
    assert out.splitlines()[1].endswith("127.0.0.1/a")
    status, out, _ = await command("cache", "show", "http://127.0.0.1/a")
    assert "fresh for 10m" in out
    assert "tags: page" in out
    assert (await command("cache", "verify"))[0] == 0
    status, out, _ = await command("cache", "why", "http://127.0.0.1/a")
    assert "stored at the moment" in out
    assert "rule all" in out
    assert (await command("invalidate", "--site"))[:2] == (
        0, "done: it is in force in every tier\n",
    )  # fmt: skip
    assert "fwd=stale" in (await proxy.get("/a")).cache_status
    assert (await command("purge", "--url", "/a", "--tag", "x", "--prefix", "/b"))[0] == 0
    assert "hit" not in (await proxy.get("/a")).cache_status
    status, out, _ = await command("cache", "stats", "--json")
    assert json.loads(out)["marks"]["tag"] == 1


async def test_commands_say_what_is_wrong(
    proxy: Proxy, command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert (await command("purge"))[0] == 2
    status, _, err = await command("purge", "--url", "ftp://x/")
    assert (status, "is not a URL" in err) == (2, True)
    status, _, err = await command("cache", "show", "/nothing")
    assert (status, err) == (1, "edgeproxy: nothing is stored for this URL\n")
    file = tmp_path / "token"
    file.write_text("wrong-token\n")
    assert (await command("cache", "stats", "--token-file", str(file)))[0] == 1
    file.write_text(f"{TOKEN}\n")
    monkeypatch.delenv("EDGEPROXY_TOKEN")
    assert (await command("cache", "stats", "--token-file", str(file)))[0] == 0
    assert (await command("cache", "stats"))[0] == 2


def test_nobody_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "stats", "--admin", "http://127.0.0.1:9"]) == 1
    assert "no admin listener answers at http://127.0.0.1:9" in capsys.readouterr().err
    assert cli.main(["cache", "stats", "--admin", "gopher://x"]) == 2


def test_the_commands_need_no_engine() -> None:
    """They start fast: nothing of mitmproxy is imported."""
    code = "import sys, edgeproxy.cli; sys.exit(any('mitmproxy' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0
