"""`edgeproxy doctor` before real origins, on ports that are free or taken, with real folders."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

from edgeproxy.pages import Fault, Pages
from tests.certificates import Authority

POLICY = """\
version: 1
origins: {{site: {{url: "{url}"}}}}
cache: {{disk: {{path: {folder}/cache, max_size: 1MiB}}}}
geo: {{database: builtin}}
admin: {{token: "${{env:TOKEN}}", listen: "127.0.0.1:{admin}"}}
"""
TOKEN = "5f2c" + "0123456789abcdef" * 3


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def doctor(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """The exit status, and the states and words of each verdict by its check."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgeproxy", "doctor", "--json", *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "TOKEN": TOKEN},
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode is not None
    assert TOKEN.encode() not in out
    return process.returncode, json.loads(out)


def written(folder: Path, url: str) -> Path:
    policy = folder / "policy.yaml"
    policy.write_text(POLICY.format(url=url, folder=folder, admin=free_port()))
    return policy


def of(report: dict[str, Any], check: str) -> list[tuple[str, str]]:
    return [(one["state"], one["says"]) for one in report["verdicts"] if one["check"] == check]


async def test_all_is_well_before_a_good_origin(make_site: Any, tmp_path: Path) -> None:
    async with Pages(make_site(index="home"), base="/project/") as site:
        policy = written(tmp_path, site.url)
        status, report = await doctor(policy, "--listen", f"127.0.0.1:{free_port()}")
    assert (status, report["counts"].get("fault", 0)) == (0, 0), report
    assert [state for state, _ in of(report, "port")] == ["ok", "ok"]
    assert of(report, "dns") == [("ok", "127.0.0.1")]
    assert of(report, "origin")[0][1].startswith("it answers 200 in ")
    assert of(report, "clock") == [("ok", "the clock agrees with that of the origin")]
    assert of(report, "folder")[0][0] == "ok"
    assert of(report, "data")[0][1].startswith("its data is ")
    assert "cache.memory 256MiB" in of(report, "memory")[0][1]
    assert not (tmp_path / "cache").exists()  # a look changes nothing


async def test_pages_is_known_by_its_answer(make_site: Any, tmp_path: Path) -> None:
    async with Pages(make_site(index="home")) as site:
        _, report = await doctor(written(tmp_path, site.url))
    assert of(report, "pages") == [
        ("warning", "this is GitHub Pages, asked without TLS: it can be altered")
    ]


async def test_the_loop_of_a_custom_domain_is_named(make_site: Any, tmp_path: Path) -> None:
    root = make_site(index="home")
    async with Pages(root, host="127.0.0.1", domain="www.example.org") as site:
        status, report = await doctor(written(tmp_path, site.url))
    ((state, says),) = of(report, "origin")
    assert (status, state) == (1, "fault")
    assert "remove that custom domain in the Pages settings" in says


async def test_a_failing_origin_is_named(make_site: Any, tmp_path: Path) -> None:
    async with Pages(make_site(index="home")) as site:
        site.set_fault("/**", Fault(status=503))
        status, report = await doctor(written(tmp_path, site.url))
    assert (status, of(report, "origin")) == (1, [("fault", "it answers 503 for /")])


async def test_a_taken_port_is_named_with_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, report = await doctor("--listen", address)
    ((state, says),) = of(report, "port")
    assert (status, state) == (1, "fault")
    assert says.startswith("it is in use by ")
    if sys.platform == "linux":
        assert f"(process {os.getpid()})" in says


async def test_the_port_of_http_3_is_looked_at(tmp_path: Path) -> None:
    pair = Authority.in_folder(tmp_path, "ca").sign(tmp_path, "site", "www.example.org")
    policy = tmp_path / "site.yaml"
    policy.write_text(
        "version: 1\nroutes: [{name: hi, respond: {body: hi}}]\n"
        f"tls: {{certificates: [{{certificate: {pair.certificate}, key: {pair.key}}}], "
        "protocols: [h3, http/1.1]}\n"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        _, report = await doctor(policy, "--listen-tls", address)
    assert [state for state, _ in of(report, "port")] == ["ok", "fault"]


async def test_unix_sockets_can_be_made_unless_a_live_one_is_there(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        status, report = await doctor("--listen", f"unix:{path}")
        assert (status, of(report, "port")[0][0]) == (1, "fault")
    for here in (path, tmp_path / "new.sock"):  # the first has nobody behind it any more
        assert of((await doctor("--listen", f"unix:{here}"))[1], "port") == [("ok", "it is free")]
    status, report = await doctor("--listen", f"unix:{tmp_path}/no/http.sock")
    assert "is not there" in of(report, "port")[0][1]


async def test_a_running_edgeproxy_is_no_fault(edgeproxy_run: Any, tmp_path: Path) -> None:
    policy = tmp_path / "site.yaml"
    policy.write_text(
        "version: 1\nroutes: [{name: hi, respond: {body: hi}}]\n"
        f"admin: {{token: '${{env:TOKEN}}', listen: 'unix:{tmp_path}/admin.sock'}}\n"
    )
    child = await edgeproxy_run(policy, TOKEN=TOKEN)
    status, report = await doctor(policy, "--listen", f"127.0.0.1:{child.port}")
    assert status == 0
    for state, says in of(report, "port"):
        assert state == "ok"
        assert re.fullmatch(r"edgeproxy \(process \d+\) serves there now", says)


async def test_a_folder_that_others_can_write_is_named(make_site: Any, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    status, report = await doctor(written(tmp_path, "http://127.0.0.1:9/"), "--offline")
    ((state, says),) = of(report, "folder")
    assert (status, state) == (1, "fault")
    assert says.startswith("others could write into it")
    assert of(report, "origin") == []


async def test_certificates_and_keys_are_looked_at(tmp_path: Path) -> None:
    pair = Authority.in_folder(tmp_path, "ca").sign(tmp_path, "site", "www.example.org",
                                                    until_days=9)  # fmt: skip
    pair.key.chmod(0o644)
    policy = tmp_path / "site.yaml"
    policy.write_text(
        "version: 1\nroutes: [{name: hi, respond: {body: hi}}]\n"
        f"tls: {{certificates: [{{certificate: {pair.certificate}, key: {pair.key}}}]}}\n"
    )
    status, report = await doctor(policy, "--listen-tls", f"127.0.0.1:{free_port()}")
    assert status == 0
    assert of(report, "certificate")[0][0] == "warning"
    assert of(report, "key") == [("warning", "every user of this machine can read it")]


async def test_faults_of_the_policy_and_wrong_use_exit_with_2(tmp_path: Path) -> None:
    policy = tmp_path / "site.yaml"
    policy.write_text("version: 1\norigin: {}\n")
    status, report = await doctor(policy)
    assert (status, report["faults"][0]["code"]) == (2, "unknown-key")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgeproxy", "doctor", "--listen", "nowhere",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.startswith(b"edgeproxy doctor: 'nowhere' is not HOST:PORT")
