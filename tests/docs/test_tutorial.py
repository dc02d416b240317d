"""The plugin of the tutorial, built from its text and installed beside the built wheel."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.docs.blocks import DOCS, Block, blocks
from tests.packaged import Environment, environment, running, wheel_of

PAGE = DOCS / "write-a-plugin.md"
FILES: dict[str, Block] = {
    block.file_name: block for block in blocks(PAGE) if block.file_name is not None
}
POLICY = FILES["office.yaml"].text


def package(folder: Path, *, name: str = "hours", **edits: str) -> Path:
    """The package of the tutorial in `folder`, under another name and with edits to its code."""
    for path, block in FILES.items():
        if not path.startswith("edgeproxy-hours/"):
            continue
        text = block.text
        for old, new in edits.items():
            text = text.replace(_MARKS[old], new)
        target = folder / path.replace("hours", name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(re.sub(r"\bhours\b|(?<=[-_])hours\b", name, text))
    return folder / f"edgeproxy-{name}"


_MARKS = {
    "admit": "return None if exchange.facts[OPEN] else Response.text(503, self.text)",
    "imports": "from pydantic import Field",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment with three plugins: the tutorial's, one that raises, one that lacks."""
    folder = tmp_path_factory.mktemp("plugins")
    made = environment()
    made.install(
        wheel_of(package(folder)),
        wheel_of(package(folder, name="raising", admit='raise KeyError("berlin")')),
        wheel_of(package(folder, name="lacking", imports="import holidays")),
    )
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the policy of the tutorial."""
    (tmp_path / "office.yaml").write_text(POLICY)
    return tmp_path


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A folder, over HTTP."""
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_it_is_about_thirty_lines() -> None:
    files = [block for path, block in FILES.items() if path.startswith("edgeproxy-hours/")]
    assert len(files) == 2
    lines = [line for block in files for line in block.text.splitlines() if line.strip()]
    assert len(lines) <= 40


def test_it_is_listed_with_its_distribution(installed: Environment) -> None:
    listed = installed.run("edgeproxy", "plugins").stdout
    block = re.search(r"^hours .*\n(?: .*\n)*", listed, re.M)
    assert block is not None, listed
    assert "edgeproxy-hours" in block.group()
    assert "section: hours" in block.group()
    assert "filters: only_when_open" in block.group()


@pytest.mark.usefixtures("installed")
def test_it_works_and_follows_a_reload(folder: Path) -> None:
    policy = folder / "office.yaml"
    (folder / "call-us").mkdir()
    (folder / "call-us" / "index.html").write_text("call 555")
    policy.write_text(re.sub("hours: {.*}", "hours: {opens: 0, closes: 24}", POLICY))
    with (
        serving(folder) as url,
        running(
            *("office.yaml", "--access-log", "json", "--origin", f"pages={url}"), cwd=folder
        ) as proxy,
    ):
        assert proxy.get("/call-us/").body == "call 555"
        assert proxy.get("/office.yaml").headers["x-office-open"] == "True"
        policy.write_text(re.sub("hours: {.*}", "hours: {opens: 0, closes: 0}", POLICY))
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for("is in force")
        closed = proxy.get("/call-us/")
        assert (closed.status, closed.body) == (503, "Call us between 8 and 18 UTC.\n")
        assert proxy.get("/office.yaml").headers["x-office-open"] == "False"
        proxy.wait_for('"path": "/call-us/".*"status": 503.*"open": false')


@pytest.mark.usefixtures("installed")
def test_a_hook_that_raises_is_a_500_and_the_log_names_plugin_and_hook(folder: Path) -> None:
    (folder / "office.yaml").write_text(POLICY.replace("hours", "raising"))
    shown = next(
        block.text
        for block in blocks(PAGE)
        if block.language == "text" and "KeyError" in block.text
    )
    with running("office.yaml", cwd=folder) as proxy:
        reply = proxy.get("/call-us/")
        assert reply.status == 500
        assert "berlin" not in reply.body
        request_id = re.search(r"request id (\S+)", reply.body)
        assert request_id is not None
        expected = shown.strip().replace("hours", "raising")
        expected = re.sub(r"request \w+", f"request {request_id.group(1)}", expected)
        proxy.wait_for(re.escape(expected))


def test_a_missing_plugin_is_the_error_that_is_shown(folder: Path) -> None:
    bare = environment()
    (folder / "office.yaml").write_text(POLICY.replace("hours", "absent"))
    done = bare.run("edgeproxy", "check", "office.yaml", cwd=folder)
    assert done.returncode == 2
    assert shown_error("unknown-plugin").replace("hours", "absent").splitlines()[0] in done.stderr


def test_a_missing_dependency_is_the_error_that_is_shown(
    installed: Environment, folder: Path
) -> None:
    (folder / "office.yaml").write_text(POLICY.replace("hours", "lacking"))
    done = installed.run("edgeproxy", "check", "office.yaml", cwd=folder)
    assert done.returncode == 2
    assert shown_error("missing-extra").replace("hours", "lacking").splitlines()[0] in done.stderr


def shown_error(code: str) -> str:
    return next(block.text for block in blocks(PAGE) if f"[{code}]" in block.text)


def test_the_test_of_the_tutorial_passes(installed: Environment, folder: Path) -> None:
    (block,) = (block for block in blocks(PAGE) if "def test_" in block.text)
    (name,) = re.findall(r"async def (\w+)", block.text)
    script = folder / "run_it.py"
    script.write_text(f"{block.text}\n\nimport asyncio\nasyncio.run({name}())\n")
    done = installed.run("python", "-W", "error::ResourceWarning", script, cwd=folder)
    assert done.returncode == 0, done.stderr
