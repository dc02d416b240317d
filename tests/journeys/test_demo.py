"""`make demo` as a visitor has it: the screen, the five lines on it, Ctrl-C."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CURL = shutil.which("curl")
SHELL_LINE = r"^ +((?:for .*)?curl .*)$"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-q", "-b", "dirhtml"),
            *("-d", folder / "doctrees", ROOT / "docs", folder / "site"),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "site"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Demo:
    """A running demo; `lines` is what it has printed."""

    def __init__(self, site: Path) -> None:
        self.port, self.pages_port = free_ports(2)
        self.started_s = time.monotonic()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "docs/demo.py", "--site", str(site)),
                *("--port", str(self.port), "--pages-port", str(self.pages_port)),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, words: str, timeout_s: float = 30) -> None:
        with self._news:
            ended = self.process.poll
            self._news.wait_for(lambda: words in self.text or ended() is not None, timeout_s)
        assert words in self.text, self.text

    def end(self) -> int:
        """Wait for the process and for all that it printed."""
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture
def demo(site: Path) -> Iterator[Demo]:
    started = Demo(site)
    try:
        started.wait_for("Ctrl-C stops the demo")
        yield started
    finally:
        if started.process.poll() is None:
            started.process.send_signal(signal.SIGTERM)
        started.end()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def test_the_screen_comes_soon_and_says_what_to_do(demo: Demo) -> None:
    assert time.monotonic() - demo.started_s < 10  # 5 s on an idle machine
    assert f"http://127.0.0.1:{demo.port}/" in demo.text
    assert "policies/demo.yaml" in demo.text
    assert "kill -HUP" in demo.text
    assert len(re.findall(SHELL_LINE, demo.text, re.M)) == 5


@pytest.mark.skipif(CURL is None, reason="needs curl")
def test_each_line_shows_what_it_says(demo: Demo) -> None:
    lines = re.findall(SHELL_LINE, demo.text, re.M)
    country, language, split, cache, moved = (
        subprocess.run(line, shell=True, capture_output=True, text=True, timeout=20).stdout
        for line in lines
    )
    for german in (country, language):
        assert german.startswith("HTTP/1.1 302")
        assert "location: /de/" in german.lower()
    assert split.startswith("HTTP/1.1 200")
    assert "x-hero: bold" in split
    assert "set-cookie: ep_hero=bold" in split
    assert len(cache.splitlines()) == 2
    # The first may still be on its way to the disk; then the second has waited for it.
    assert re.search("; hit|; collapsed", cache.splitlines()[1])
    assert moved.startswith("HTTP/1.1 301")
    assert "location: /quick-start/" in moved.lower()
    demo.wait_for("/manual/quick-start/ ")  # of the access log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_both_cleanly(demo: Demo, number: signal.Signals) -> None:
    assert is_open(demo.port)
    assert is_open(demo.pages_port)
    demo.process.send_signal(number)
    assert demo.end() == 0
    assert demo.lines[-1].strip() == "Stopped."
    assert "Traceback" not in demo.text
    assert not is_open(demo.port)
    assert not is_open(demo.pages_port)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_if_one_dies_the_other_is_stopped_and_its_last_words_are_shown(demo: Demo) -> None:
    pages, proxy = children(demo.process.pid)
    Path(f"/proc/{proxy}").stat()
    subprocess.run(["kill", "-KILL", str(pages)], check=True)
    assert demo.end() == 1
    assert "'edgeproxy pages' ended with status -9" in demo.text
    assert "as GitHub Pages would show it" in demo.text
    assert not is_open(demo.port)


def test_a_busy_port_is_said_so(site: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "docs/demo.py", "--site", str(site), "--port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 1
    assert f"port {port} is in use; choose another: make demo ARGS='--port " in done.stderr


def test_a_site_that_is_not_built_is_said_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "docs/demo.py", "--site", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert "make docs" in done.stderr
