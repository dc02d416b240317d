"""`edgeproxy pages` as a user runs it."""

import argparse
import http.client
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from edgeproxy.pages import Fault, add_arguments, main
from edgeproxy.pages.faults import KINDS, parse_fault

type Run = Callable[..., subprocess.Popen[str]]


def run_in_process(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args(arguments))


@pytest.fixture
def run() -> Iterator[Run]:
    """Start the command in a process of its own; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edgeproxy.pages", *arguments, "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def url_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Port and path from the line that the command prints once it listens."""
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.search(r"http://127\.0\.0\.1:(\d+)(\S*) ", line)
    assert match, line
    return int(match[1]), match[2]


def get(port: int, target: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_site_is_served_until_a_signal(folder: Path, run: Run, number: signal.Signals) -> None:
    process = run(str(folder), "--base", "project", "--fault", "/project/tiny.txt=status:503")
    port, path = url_of(process)
    assert path == "/project/"
    assert get(port, "/project/page") == (200, b"<!doctype html><title>Page</title>")
    assert get(port, "/project/tiny.txt")[0] == 503
    assert get(port, "/project/%C3%A9?x")[0] == 404
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert output.splitlines()[0] == "200 GET /project/page 34 B"
    assert re.fullmatch(r"503 GET /project/tiny.txt \d+ B \(fault\)", output.splitlines()[1])
    assert output.splitlines()[2] == "404 GET /project/%C3%A9?x 42 B"
    assert (process.returncode, errors) == (0, "")


def test_quiet_prints_no_line_per_request(folder: Path, run: Run) -> None:
    process = run(str(folder), "--quiet")
    port, _ = url_of(process)
    get(port, "/page")
    process.terminate()
    assert process.communicate(timeout=30) == ("", "")


def test_switches_reach_the_site(folder: Path, run: Run) -> None:
    process = run(
        str(folder), "--cdn", "--replicas", "2", "--permissions-policy", "--edge-region", "fra",
        "--slash-redirect-cacheable", "--domain", "example.org", "--host", "127.0.0.1",
        "--enforce-https",
    )  # fmt: skip
    port, _ = url_of(process)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/page")
    response = connection.getresponse()
    connection.close()
    assert (response.status, response.headers["Location"]) == (301, "https://example.org/page")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "'nowhere' does not exist; name the folder"),
        ([__file__], "is not a folder; name the folder"),
        ([".", "--base", "/../"], "write it like /project/"),
        ([".", "--listen", "8081"], "write ADDRESS:PORT"),
        ([".", "--listen", "203.0.113.1:0"], "cannot listen on 203.0.113.1:0"),
        ([".", "--fault", "/a=slow"], "unknown kind 'slow'"),
        ([".", "--fault", "/a=stall", "--fault", "/a=reset"], "two faults for '/a'; join them"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_in_process(*arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert complaint in errors.splitlines()[-1]
    assert errors.splitlines()[-1].startswith("pages: ")
    assert "Traceback" not in errors


def test_port_in_use_names_another(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        assert run_in_process(str(folder), "--listen", listen) == 2
    assert capsys.readouterr().err == (
        f"pages: {listen} is in use by another program; choose another port: --listen 127.0.0.1:0\n"
    )


DOCS = Path(__file__).resolve().parents[3] / "docs" / "pages.md"


def test_every_example_of_the_docs_is_understood() -> None:
    examples = re.findall(r"^(?:\$ )?edgeproxy pages (.*)$", DOCS.read_text(), re.MULTILINE)
    assert len(examples) >= 6
    for example in examples:
        parser = argparse.ArgumentParser(exit_on_error=False)
        add_arguments(parser)
        parser.parse_args(shlex.split(example))


def test_docs_list_every_option() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings}
    assert set(re.findall(r"^\| `(--[a-z-]+)", DOCS.read_text(), re.MULTILINE)) == options


def test_docs_list_every_kind_of_fault() -> None:
    rows = re.findall(r"^\| `([a-z-]+)(:\S+)?` .* \| `(\w+)=", DOCS.read_text(), re.MULTILINE)
    assert {kind for kind, _, _ in rows} == set(KINDS.split(", "))
    assert {field for _, _, field in rows} == {field.name for field in fields(Fault)}
    for kind, value, field in rows:
        more = "status:503," if kind == "retry-after" else ""
        _, fault = parse_fault(f"/={more}{kind}{value}")
        assert getattr(fault, field) != getattr(Fault(), field)
