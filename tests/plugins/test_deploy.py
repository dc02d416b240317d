"""The webhook: what is signed is heeded, what is not gets nowhere, and what a publish then does."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.errors import PolicyError
from edgeproxy.pages import Pages
from edgeproxy.policy.load import parse
from edgeproxy.testing import Proxy, Reply, running
from edgeproxy_deploy.plugin import is_published
from edgeproxy_deploy.signature import is_signed

SECRET = "It's a Secret to Everybody"
HOOK = "/.well-known/edgeproxy/deploy"
BUILT = json.dumps({"build": {"status": "built"}}).encode()

POLICY = """\
version: 1
deploy: {secret: "${env:DEPLOY_SECRET}"}
origins: {site: {url: "http://127.0.0.1:9/"}}
cache:
  memory: {}
  rules: {all: {ttl: 30d, keep_gone: 7d}}
routes: [{name: site, cache: all}]
"""


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Pages]:
    publish(tmp_path / "one", index="home", about="about", old_css="a {}")
    async with Pages(tmp_path / "one") as pages:
        yield pages


@pytest.fixture
async def proxy(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    monkeypatch.setenv("DEPLOY_SECRET", SECRET)
    async with running(POLICY, origins={"site": pages.url}) as proxy:
        yield proxy


def publish(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        stem, _, kind = name.partition("_")
        (folder / f"{stem}.{kind or 'html'}").write_text(text)
    return folder


def signature(body: bytes, secret: str = SECRET, algorithm: Any = hashlib.sha256) -> str:
    return f"{algorithm().name}={hmac.new(secret.encode(), body, algorithm).hexdigest()}"


async def deliver(
    proxy: Proxy, body: bytes = BUILT, *, event: str = "page_build", **fields: str | None
) -> Reply:
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-Hub-Signature-256": signature(body),
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    sent = {name: value for name, value in headers.items() if value is not None}
    return await proxy.get(HOOK, method="POST", data=io.BytesIO(body), headers=sent)


def test_the_example_of_github_s_documentation_is_signed() -> None:
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert is_signed(SECRET, b"Hello, World!", [f"sha256={digest}"])


RIGHT = signature(BUILT)
FORGED: list[str | None] = [
    None, "", "sha256=", RIGHT[:-1], RIGHT + "0", RIGHT.upper(), RIGHT.removeprefix("sha256="),
    "sha1=" + RIGHT.removeprefix("sha256="), signature(BUILT, algorithm=hashlib.sha1),
    signature(BUILT, algorithm=hashlib.sha512), signature(BUILT, "another secret"),
    signature(BUILT, ""), signature(BUILT + b" "), signature(b""), "sha256=" + "0" * 64,
    f"sha256={hashlib.sha256(BUILT).hexdigest()}",
    f"sha256={hashlib.sha256(SECRET.encode() + BUILT).hexdigest()}",
    f"{RIGHT}, {RIGHT}", f"sha256={RIGHT}", "sha256=" + "é" * 64, f"Sha256{RIGHT[6:]}",
    RIGHT.replace("=", "= "), "sha256=" + "\u0661" * 8,
]  # fmt: skip


async def test_forged_deliveries_change_nothing(proxy: Proxy) -> None:
    assert len(FORGED) >= 20
    await proxy.get("/")
    for forged in FORGED:
        safe = forged if forged is None or forged.isascii() else forged.encode().decode("latin-1")
        reply = await deliver(proxy, X_Hub_Signature_256=safe)
        assert reply.status in (400, 403), forged
        assert RIGHT.encode() not in reply.body
    assert "hit" in (await proxy.get("/")).cache_status


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_signature_is_none(forged: str | None) -> None:
    assert not is_signed(SECRET, BUILT, [] if forged is None else [forged])


def test_two_signatures_are_none() -> None:
    assert not is_signed(SECRET, BUILT, [RIGHT, RIGHT])


async def test_what_is_signed_marks_the_site_stale(proxy: Proxy) -> None:
    await proxy.get("/")
    assert "hit" in (await proxy.get("/")).cache_status
    reply = await deliver(proxy)
    assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
    assert "fwd=stale; fwd-status=304" in (await proxy.get("/")).cache_status


@pytest.mark.parametrize(
    ("event", "said", "published"),
    [
        ("page_build", {"build": {"status": "built"}}, True),
        ("page_build", {"build": {"status": "errored"}}, False),
        ("deployment_status", {"deployment_status": {"state": "success"}}, True),
        ("deployment_status", {"deployment_status": {"state": "in_progress"}}, False),
        ("workflow_run", {"action": "completed", "workflow_run": {"conclusion": "success"}}, True),
        ("workflow_run", {"action": "requested", "workflow_run": {"conclusion": None}}, False),
        ("workflow_run", {"action": "completed", "workflow_run": {"conclusion": "failure"}}, False),
        ("ping", {"zen": "Keep it logically awesome."}, False),
        ("push", {}, False),
        ("page_build", {"build": "built"}, False),
        ("page_build", [], False),
    ],
)
def test_events_that_publish(event: str, said: Any, published: bool) -> None:
    assert is_published(event, json.dumps(said).encode()) is published


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_publishes_nothing(body: bytes) -> None:
    assert not is_published("page_build", body)


async def test_other_requests_get_a_plain_answer(proxy: Proxy) -> None:
    assert (await deliver(proxy, event="ping")).status == 202
    assert (await deliver(proxy, b"payload=x", Content_Type="application/x-www-form-urlencoded")
            ).status == 415  # fmt: skip
    assert (await proxy.get(HOOK)).status == 405
    assert (await deliver(proxy, b" " * (2**20 + 1), X_Hub_Signature_256="x")).status == 413


@pytest.mark.parametrize(
    ("section", "code"),
    [
        ('{secret: "written-down-in-the-policy"}', "secret-as-value"),
        ('{secret: "${env:SHORT}"}', "bad-value"),
        ('{secret: "${env:S}", webhook: deploy}', "bad-value"),
        ('{secret: "${env:S}", webhook: /a/../b}', "bad-value"),
        ('{secret: "${env:S}", hosts: ["no host"]}', "bad-value"),
        ("{}", "missing-key"),
    ],
)
def test_a_wrong_section_is_a_fault(section: str, code: str) -> None:
    text = f"version: 1\norigins: {{site: {{url: 'http://a.org/'}}}}\ndeploy: {section}\n"
    with pytest.raises(PolicyError) as raised:
        parse(text, env={"S": SECRET, "SHORT": "short"})
    assert [fault.code for fault in raised.value.faults] == [code]


async def test_a_publish_is_seen_at_once_and_costs_what_has_changed(
    proxy: Proxy, pages: Pages, tmp_path: Path
) -> None:
    """Pages gives every file a new ETag at each publish, and drops old files at once."""
    before = {path: await proxy.get(path) for path in ("/", "/about", "/old.css")}
    pages.publish(publish(tmp_path / "two", index="home, changed", about="about", new_css="b {}"))
    assert (await proxy.get("/")).body == b"home"  # nobody has said so yet
    assert (await deliver(proxy)).status == 200
    changed = await proxy.get("/")
    assert changed.body == b"home, changed"
    assert changed.headers["etag"] != before["/"].headers["etag"]
    same = await proxy.get("/about", headers={"if-none-match": before["/about"].headers["etag"]})
    assert same.status == 304
    assert "detail=unchanged" in same.cache_status
    assert (await proxy.get("/about")).headers["etag"] == before["/about"].headers["etag"]
    kept = await proxy.get("/old.css")
    assert (kept.status, kept.body) == (200, b"a {}")
    assert "detail=gone" in kept.cache_status
    assert (await proxy.get("/new.css")).status == 200
    # From now on the origin answers 304 to what it has itself called the page by then.
    await deliver(proxy)
    reply = await proxy.get("/about")
    assert "fwd-status=304" in reply.cache_status
    assert reply.headers["etag"] == before["/about"].headers["etag"]
