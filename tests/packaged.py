"""edgeproxy as its users have it: the built wheel in an empty virtual environment.

Made once for all tests of a run that want it, and removed when the run ends.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
FOLDER = tempfile.TemporaryDirectory(prefix="edgeproxy-packaged-")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# What would lead a child of this run back into the checkout, or colour what it prints.
_ENVIRONMENT = {
    key: value
    for key, value in os.environ.items()
    if not key.startswith(("PYTHON", "VIRTUAL_ENV", "UV_")) or key == "UV_DEFAULT_INDEX"
} | {"NO_COLOR": "1", "COLUMNS": "100"}

# As in .ci/setup: a mirror that is set for pip serves uv as well.
_INDEX = {"UV_DEFAULT_INDEX": url} if (url := os.environ.get("PIP_INDEX_URL")) else {}


@dataclass(frozen=True)
class Environment:
    """A virtual environment, by its folder."""

    folder: Path

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> CompletedProcess[str]:
        """A program of the environment, run to its end."""
        program, *rest = arguments
        return subprocess.run(
            [self.folder / "bin" / program, *rest],
            cwd=cwd or self.folder,
            env=_ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=40,
        )

    def install(self, *what: str | Path) -> None:
        """Install from uv's cache, and from the network only if that is not enough."""
        command = [UV, "pip", "install", "--quiet", "--python", self.folder / "bin" / "python"]
        for reach in (["--offline"], []):
            done = subprocess.run(
                [*command, *reach, "--constraint", ROOT / "requirements.txt", *what],
                env=_INDEX | os.environ | {"UV_SYSTEM_CERTS": "1"},
                capture_output=True,
                text=True,
            )
            if done.returncode == 0:
                return
        raise AssertionError(done.stderr)


def wheel_of(project: Path) -> Path:
    """The wheel of the project in a folder, built with the backend that this environment has."""
    target = Path(tempfile.mkdtemp(dir=FOLDER.name))
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target],
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = target.glob("*.whl")
    return wheel


@functools.cache
def environment() -> Environment:
    """The one environment of a run, with the wheel of this checkout in it."""
    made = Environment(Path(FOLDER.name) / "venv")
    subprocess.run(
        [UV, "venv", "--quiet", "--no-project", "--python", sys.executable, made.folder],
        check=True,
        capture_output=True,
    )
    made.install(wheel_of(ROOT))
    return made


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: str


@dataclass
class Running:
    """`edgeproxy run` as a process; `output` is what it has said so far."""

    process: subprocess.Popen[str]
    url: str = ""
    output: list[str] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def get(self, path: str, headers: dict[str, str] | None = None) -> Reply:
        """One request; redirects are not followed."""
        request = urllib.request.Request(self.url + path.lstrip("/"), headers=headers or {})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay)
        try:
            with opener.open(request, timeout=10) as reply:
                return Reply(reply.status, _lower(reply.headers), reply.read().decode())
        except urllib.error.HTTPError as reply:
            with reply:
                return Reply(reply.code, _lower(reply.headers), reply.read().decode())

    def follow(self, stream: IO[str]) -> None:
        for line in stream:
            with self._news:
                self.output.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, pattern: str, timeout_s: float = 20) -> re.Match[str]:
        """The first line, said or yet to come, in which `pattern` is found."""

        def found() -> re.Match[str] | None:
            return next((m for line in self.output if (m := re.search(pattern, line))), None)

        with self._news:
            self._news.wait_for(lambda: found() or self.process.poll() is not None, timeout_s)
            match = found()
        assert match is not None, "\n".join(self.output)
        return match


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _lower(headers: object) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}  # type: ignore[attr-defined]


@contextmanager
def running(*arguments: str, cwd: Path, program: Path | None = None) -> Iterator[Running]:
    """`edgeproxy run` on a free port until the block ends; it then has to stop cleanly."""
    program = program or environment().folder / "bin" / "edgeproxy"
    process = subprocess.Popen(
        [program, "run", *arguments, "--listen", "127.0.0.1:0"],
        cwd=cwd,
        env=_ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    proxy = Running(process)
    assert process.stdout is not None
    reader = threading.Thread(target=proxy.follow, args=(process.stdout,))
    reader.start()
    try:
        proxy.url = proxy.wait_for(r"edgeproxy serves (\S+)").group(1)
        yield proxy
        process.terminate()
        assert process.wait(20) == 0, "\n".join(proxy.output)
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
