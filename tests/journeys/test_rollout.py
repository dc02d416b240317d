"""What an operator does with policies of a running proxy: go back, try, promote, look."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgeproxy import cli
from edgeproxy.pages import Pages
from edgeproxy.rollout import Refused
from edgeproxy.testing import Proxy, running

TOKEN = "a-token-that-nobody-guesses"

POLICY = """\
version: 1
admin: {listen: "127.0.0.1:0", token: "${env:EDGEPROXY_TOKEN}"}
trusted_proxies: [127.0.0.0/8]
origins: {site: {url: "http://site.example/"}}
cache: {memory: {max_size: 8MiB}}
routes:
  - {name: hello, match: {path: /hello}, respond: {body: WORD}}
  - {name: site, response_headers: {set: {x-word: WORD}}}
"""

Command = Callable[..., Awaitable[tuple[int, str, str]]]


def saying(word: str) -> str:
    return POLICY.replace("WORD", word)


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROXY_TOKEN", TOKEN)


@pytest.fixture
async def site(make_site: Any) -> AsyncIterator[Pages]:
    async with Pages(make_site(index="home", page="page")) as site:
        yield site


@pytest.fixture
async def proxy(site: Pages) -> AsyncIterator[Proxy]:
    async with running(saying("first"), origins={"site": site.url}) as proxy:
        yield proxy


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[[Proxy], Command]:
    def of(proxy: Proxy) -> Command:
        async def run(*arguments: str) -> tuple[int, str, str]:
            admin = proxy.server.admin
            assert admin is not None
            capsys.readouterr()
            status = await asyncio.to_thread(
                cli.main, ["policy", *arguments, "--admin", f"http://{admin.address}"]
            )
            said = capsys.readouterr()
            return status, said.out, said.err

        return run

    return of


async def word(proxy: Proxy, **headers: str) -> str:
    reply = await proxy.get("/hello", headers={**headers})
    return reply.body.decode()


def version(proxy: Proxy) -> str:
    return proxy.server.app.plan.version


# ------------------------------------------------------------------- history and rollback


async def test_a_former_policy_comes_back_though_its_file_is_another(
    proxy: Proxy, command: Any
) -> None:
    run = command(proxy)
    first = version(proxy)
    await proxy.reload(saying("second"))
    second = version(proxy)
    status, out, _ = await run("rollback", "--by", "anna", "--why", "the shop was gone")
    assert status == 0
    assert "in force: " + first in out
    assert "the policy files say something else" in out
    assert (await word(proxy), version(proxy)) == ("first", first)
    _, out, _ = await run("history")
    rows = [line.split(maxsplit=4) for line in out.splitlines()[1:]]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("3", first, "rollback"), ("2", second, "reload"), ("1", first, "start"),
    ]  # fmt: skip
    assert rows[0][4] == "anna: the shop was gone"
    # The same again goes back to the other one; by number or version to any.
    await run("rollback")
    assert await word(proxy) == "second"
    await run("rollback", "1")
    assert await word(proxy) == "first"
    await run("rollback", second)
    assert await word(proxy) == "second"
    # And the files are what a reload reads.
    assert proxy.policy_file is not None
    proxy.policy_file.write_text(saying("third"))
    assert (await run("reload"))[0] == 0
    assert await word(proxy) == "third"


async def test_what_cannot_be_gone_back_to_changes_nothing(
    proxy: Proxy, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = command(proxy)
    status, _, err = await run("rollback")
    assert (status, "no other version is kept" in err) == (1, True)
    assert (await run("rollback", "7"))[0] == 1
    assert "is in force" in (await run("rollback", "1"))[2]
    with_secret = saying("second").replace(
        "routes:", 'deploy: {secret: "${env:EDGEPROXY_TEST_SECRET}"}\nroutes:'
    )
    monkeypatch.setenv("EDGEPROXY_TEST_SECRET", "a-secret-that-is-long-enough")
    await proxy.reload(with_secret)
    await proxy.reload(saying("third"))
    monkeypatch.delenv("EDGEPROXY_TEST_SECRET")
    status, _, err = await run("rollback", "2")
    assert status == 2
    assert "the policy is refused, and nothing has changed\n" in err
    assert "[missing-secret]" in err
    assert await word(proxy) == "third"


async def test_the_files_of_any_version_can_be_seen(proxy: Proxy, command: Any) -> None:
    run = command(proxy)
    await proxy.reload(saying("second"))
    assert proxy.policy_file is not None
    _, out, _ = await run("show")
    assert out == f"# {proxy.policy_file} of policy {version(proxy)}\n{saying('second')}"
    _, out, _ = await run("show", "1", "--json")
    shown = json.loads(out)
    assert shown["event"] == "start"
    assert shown["files"] == [{"name": str(proxy.policy_file), "text": saying("first")}]
    assert (await run("show", "9"))[0] == 1
    assert TOKEN not in out


async def test_so_many_versions_are_kept_as_the_policy_says(proxy: Proxy) -> None:
    for number in range(13):
        await proxy.reload(saying(f"word{number}"))
    history = proxy.server.rollout.history
    assert [one.number for one in history.versions] == list(range(5, 15))
    await proxy.reload(saying("last") + "state: {versions: 2}\n")
    assert [one.number for one in history.versions] == [14, 15]


async def test_after_a_restart_the_files_win_and_former_policies_are_still_there(
    site: Pages, command: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = f"state: {{path: {tmp_path}/state}}\n"
    origins = {"site": site.url}
    async with running(saying("first") + state, origins=origins) as proxy:
        await proxy.reload(saying("second") + state)
        await command(proxy)("rollback", "--by", "anna", "--why", "the shop was gone")
        assert await word(proxy) == "first"
        first = version(proxy)
    assert "before the restart" not in caplog.text
    async with running(saying("second") + state, origins=origins) as proxy:
        assert await word(proxy) == "second"
        assert f"before the restart policy {first} was in force (rollback by anna" in caplog.text
        assert "to go back: edgeproxy policy rollback 3" in caplog.text
        assert (await command(proxy)("rollback", "3"))[0] == 0
        assert (await word(proxy), version(proxy)) == ("first", first)
    caplog.clear()
    async with running(saying("first") + state, origins=origins) as proxy:
        events = [one.event for one in proxy.server.rollout.history.versions]
        assert events == ["start", "reload", "rollback", "start", "rollback"]
        assert "before the restart" not in caplog.text


# ------------------------------------------------------------------- tests beside the policy

TESTS = """\
version: 1
tests:
  - {name: the greeting stays, get: /hello, expect: {status: 200, route: hello}}
"""


async def test_a_policy_whose_tests_fail_is_not_put_in_force(
    proxy: Proxy, command: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert proxy.policy_file is not None
    tests = proxy.policy_file.with_name("policy_test.yaml")
    write(tests, TESTS)
    await proxy.reload(saying("second"))
    assert await word(proxy) == "second"
    await proxy.reload(saying("third").replace("{body: third}", "{status: 404, body: third}"))
    assert await word(proxy) == "second"
    assert f"{tests}:3:62: the greeting stays: status is 404, expected 200" in caplog.text
    assert "[test-failed]" in caplog.text
    status, _, err = await command(proxy)("reload")
    assert (status, "the greeting stays" in err) == (2, True)
    write(tests, TESTS.replace("get:", "gte:"))
    assert "did you mean 'get'" in (await command(proxy)("reload"))[2]


async def test_a_candidate_is_tested_by_the_tests_beside_it(
    proxy: Proxy, command: Any, candidate: Path
) -> None:
    write(candidate.with_name("candidate_test.yaml"), TESTS)
    write(candidate, saying("next").replace("name: hello", "name: greeting"))
    status, _, err = await command(proxy)("canary", str(candidate), "--percent", "5")
    assert (status, "no route is called 'hello'" in err) == (2, True)
    write(candidate, saying("next"))
    assert (await command(proxy)("canary", str(candidate), "--percent", "5"))[0] == 0


# ------------------------------------------------------------------- trials


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    file = tmp_path / "candidate.yaml"
    write(file, saying("next"))
    return file


def write(file: Path, content: str | bytes) -> None:
    file.write_bytes(content.encode() if isinstance(content, str) else content)


async def test_from_shadow_to_all_visitors(proxy: Proxy, command: Any, candidate: Path) -> None:
    run = command(proxy)
    first = version(proxy)
    visitors = [{"x-forwarded-for": f"198.51.100.{number}"} for number in range(40)]

    async def words() -> list[str]:
        return [await word(proxy, **visitor) for visitor in visitors]

    status, out, _ = await run("shadow", str(candidate), "--by", "anna", "--why", "a new look")
    assert status == 0
    assert "in shadow, since" in out
    assert "by anna: a new look" in out
    assert set(await words()) == {"first"}
    assert proxy.server.app.candidate is not None
    await proxy.get("/page")
    await proxy.server.app.candidate.shadow.settled()
    _, out, _ = await run("status")
    assert "in shadow: 41 compared, 1 different" in out
    assert "x-word: first  ->  x-word: next" in out

    assert (await run("canary", "--percent", "25"))[0] == 0
    few = await words()
    assert 0 < few.count("next") < 30
    assert (await run("canary", str(candidate), "--percent", "60"))[0] == 0
    more = await words()
    assert few.count("next") < more.count("next") < 40
    assert all(after == "next" for before, after in zip(few, more, strict=True) if before == "next")
    _, out, _ = await run("status")
    assert "on 60 % of the visitors" in out
    assert "its answers: " in out

    status, out, _ = await run("promote", "--why", "it is better")
    assert status == 0
    assert "on trial" not in out
    assert set(await words()) == {"next"}
    assert version(proxy) != first
    last = proxy.server.rollout.history.versions[-1]
    assert (last.event, last.why) == ("promote", "it is better")
    assert dict(last.sources) == {str(candidate): saying("next")}
    await run("rollback")
    assert set(await words()) == {"first"}


async def test_a_trial_that_is_aborted_leaves_nothing(
    proxy: Proxy, command: Any, candidate: Path
) -> None:
    run = command(proxy)
    await run("canary", str(candidate), "--percent", "100")
    assert await word(proxy) == "next"
    status, out, _ = await run("abort")
    assert (status, "on trial" in out) == (0, False)
    assert await word(proxy) == "first"
    for action in (["abort"], ["promote"], ["shadow"], ["canary", "--percent", "5"]):
        status, _, err = await run(*action)
        assert (status, err) == (1, "edgeproxy: no policy is on trial\n")


async def test_only_the_trial_that_is_meant_is_promoted_or_ended(
    proxy: Proxy, command: Any, candidate: Path
) -> None:
    """Somebody may have put another one in its place while it was looked at."""
    await command(proxy)("shadow", str(candidate))
    rollout = proxy.server.rollout
    for act in (rollout.promote("anna", version="0123456789ab"), rollout.abort("anna", "other")):
        with pytest.raises(Refused, match="is on trial by now, not") as refused:
            await act
        assert refused.value.code == "no-candidate"
    assert await word(proxy) == "first"
    trial = proxy.server.app.candidate
    assert trial is not None
    await rollout.promote("anna", version=trial.plan.version)
    assert await word(proxy) == "next"


async def test_a_candidate_with_faults_is_refused_and_the_one_on_trial_stays(
    proxy: Proxy, command: Any, candidate: Path
) -> None:
    run = command(proxy)
    await run("canary", str(candidate), "--percent", "100")
    write(candidate, saying("bad").replace("respond", "respnod"))
    status, _, err = await run("shadow", str(candidate))
    assert status == 2
    assert f"{candidate}:7:" in err
    assert "did you mean 'respond'" in err
    assert await word(proxy) == "next"
    write(candidate, b"version: 1\n\xff")
    assert "is not UTF-8" in (await run("shadow", str(candidate)))[2]
    assert (await run("shadow", str(candidate.parent / "absent.yaml")))[0] == 2
    assert (await run("canary", str(candidate), "--percent", "0"))[0] == 2


async def test_the_policy_in_force_is_no_candidate(
    proxy: Proxy, command: Any, candidate: Path
) -> None:
    write(candidate, saying("first"))
    status, _, err = await command(proxy)("shadow", str(candidate))
    assert (status, "is in force" in err) == (1, True)


async def test_a_reload_ends_a_trial_unless_the_policy_is_the_same(
    proxy: Proxy, command: Any, candidate: Path
) -> None:
    await command(proxy)("canary", str(candidate), "--percent", "100")
    await proxy.reload("# a comment\n" + saying("first"))
    assert await word(proxy) == "next"
    await proxy.reload(saying("nonsense").replace("routes", "rouets"))
    assert await word(proxy) == "next"
    await proxy.reload(saying("second"))
    assert await word(proxy) == "second"
    assert proxy.server.app.candidate is None


async def test_no_path_of_a_candidate_is_opened(
    proxy: Proxy, command: Any, candidate: Path, tmp_path: Path
) -> None:
    """A name that is sent with a text is a name in messages, whatever lies there."""
    secret = tmp_path / "secret.yaml"
    secret.write_text("version: 1\nsecret: value\n")
    admin = proxy.server.admin
    assert admin is not None
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
        session.post(
            f"http://{admin.address}/policy/shadow",
            json={"files": [{"name": str(secret), "text": saying("next")}]},
        ) as answer,
    ):
        assert answer.status == 200
    assert proxy.server.app.candidate is not None
    assert dict(proxy.server.app.candidate.plan.policy.sources) == {str(secret): saying("next")}


@pytest.mark.parametrize(
    "body",
    [
        {"files": "x"}, {"files": [1]}, {"files": [{"name": "a"}]},
        {"files": [{"name": "a", "text": "b", "path": "c"}]},
        {"files": [{"name": "", "text": ""}]}, {"files": [{"name": "a\n", "text": ""}]},
        {"files": [{"name": "a", "text": ""}, {"name": "a", "text": ""}]},
        {"files": [{"name": "a", "text": 1}]}, {"why": "a\nb"}, {"by": 1}, {"why": "x" * 500},
        {"tests": {}},
        {"file": []}, {"percent": "5"}, {"percent": 101}, {"percent": True},
        {"percent": float("nan")},
    ],
    ids=repr,
)  # fmt: skip
async def test_what_cannot_be_meant_is_refused(proxy: Proxy, body: Any) -> None:
    admin = proxy.server.admin
    assert admin is not None
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
        session.post(
            f"http://{admin.address}/policy/canary", json={"percent": 5, **body}
        ) as answer,
    ):
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, "bad-request")
    assert proxy.server.app.candidate is None


async def test_changes_are_made_one_at_a_time(proxy: Proxy) -> None:
    rollout = proxy.server.rollout
    assert proxy.policy_file is not None
    proxy.policy_file.write_text(saying("second"))
    results = await asyncio.gather(
        rollout.reload("a"),
        rollout.rollback(None, "b"),
        rollout.rollback(None, "c"),
        rollout.try_out([("x", saying("x"))], 0.5, "d"),
        rollout.promote("e"),
        rollout.abort("f"),
        return_exceptions=True,
    )
    assert isinstance(results.pop(), Refused)
    assert not [result for result in results if isinstance(result, BaseException)]
    assert [one.by for one in rollout.history.versions[1:]] == ["a", "b", "c", "e"]
    assert await word(proxy) == "x"
