"""The schema in the server that most editors ask about YAML: completion, hover and errors.

Each text of these tests is a policy as somebody types it; `▮` is where the cursor stands.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgeproxy import cli
from tests.editors.language_server import LanguageServer, language_server

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT.joinpath(
    ".tools/yaml-language-server/node_modules/yaml-language-server/bin/yaml-language-server"
)
EXAMPLES = sorted((ROOT / "policies").glob("*.yaml"))
MODELINE = "# yaml-language-server: $schema=edgeproxy.schema.json\n"
START = 'version: 1\norigins:\n  pages: {url: "https://you.github.io/project/"}\n'

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and PROGRAM.is_file()),
    reason="needs yaml-language-server: make language-server, which needs npm",
)


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with the schemas as a user writes them there."""
    for arguments, name in ((), "edgeproxy"), (("--tests",), "edgeproxy-tests"):
        assert cli.main(["schema", *arguments]) == 0
        (tmp_path / f"{name}.schema.json").write_text(capsys.readouterr().out)
    return tmp_path


@pytest.fixture
async def editor(folder: Path) -> AsyncIterator[Editor]:
    async with language_server(PROGRAM, folder) as server:
        yield Editor(server, folder)


class Editor:
    """Opens policies, each in a file of its own."""

    def __init__(self, server: LanguageServer, folder: Path) -> None:
        self.server, self.folder, self.files = server, folder, 0
        self.modeline = MODELINE

    async def problems(self, text: str) -> list[tuple[str, str]]:
        """What is underlined in `text`, with what is said about it."""
        text = self.modeline + text
        lines = text.split("\n")

        def underlined(problem: dict[str, Any]) -> str:
            start, end = problem["range"]["start"], problem["range"]["end"]
            last = end["character"] if start["line"] == end["line"] else None
            return lines[start["line"]][start["character"] : last]

        found = await self.server.problems(self._file(), text)
        return sorted((underlined(problem), problem["message"]) for problem in found)

    async def hover(self, text: str) -> str:
        return await self.server.hover(*await self._opened(text))

    async def completions(self, text: str) -> dict[str, dict[str, Any]]:
        return await self.server.completions(*await self._opened(text))

    async def _opened(self, text: str) -> tuple[Path, int, int]:
        """The file, and where its cursor is."""
        before, _, after = (self.modeline + text).partition("▮")
        file = self._file()
        await self.server.problems(file, before + after)
        return file, before.count("\n"), len(before.rpartition("\n")[2])

    def _file(self) -> Path:
        self.files += 1
        return self.folder / f"policy-{self.files}.yaml"


async def test_the_examples_have_no_problems(editor: Editor) -> None:
    editor.modeline = ""  # they have their own
    for path in EXAMPLES:
        text = path.read_text()
        assert text.startswith("# yaml-language-server: $schema=")
        assert await editor.problems(text) == [], path.name


async def test_mistakes_are_underlined_with_words_that_help(editor: Editor) -> None:
    for lines, expected in (
        ("routs: []", [("routs", "Property routs is not allowed.")]),
        ("encoded_slashes: yes", [("yes", 'Incorrect type. Expected "boolean".')]),
        ("limits: {head_fields: 0}", [("0", "Value is below the minimum of 1.")]),
        ("admin: {}", [("admin", 'Missing property "token".')]),
        (
            "cache: {rules: {html: {ttl: 10}}}",
            [("10", "a duration is a number and a unit (ms, s, m, h, d, w), such as 10m")],
        ),
        (
            "cache: {memory: {max_size: 1 gig}}",
            [
                (
                    "1 gig",
                    "a size is a number and a unit (B, KiB, MiB, GiB, KB, MB, GB), such as 256MiB",
                )
            ],
        ),
        (
            "routes: [{name: a, match: {country: [DE, UK]}}]",
            [("UK", "no country of ISO 3166-1, such as FR")],
        ),
        ("routes: [{name: a, match: {path: docs}}]", [("docs", "a path begins with a slash")]),
        (
            "routes: [{name: a, match: {path: {globb: /a}}}]",
            [("globb", "Property globb is not allowed.")],
        ),
        (
            "routes: [{name: a, match: {device: phone}}]",
            [
                (
                    "phone",
                    'Value is not accepted. Valid values: "desktop", "mobile", "tablet", "bot".',
                )
            ],
        ),
        (
            "routes: [{name: a, redirect: {path: /b, status: 305}}]",
            [("305", "Value is not accepted. Valid values: 301, 302, 303, 307, 308.")],
        ),
        ("filters: [{redirekt: /b}]", [("redirekt", "Property redirekt is not allowed.")]),
    ):
        assert await editor.problems(f"{START}{lines}\n") == expected


async def test_keys_are_completed_with_their_meaning(editor: Editor) -> None:
    top = await editor.completions(f"{START}▮")
    assert {"routes", "cache", "limits", "geo", "experiments"} <= set(top)
    assert "origins" not in top  # is there already
    assert "which requests" in str(top["routes"]["documentation"])

    route = await editor.completions(f"{START}routes:\n  - name: docs\n    ▮")
    assert {"match", "matches", "origin", "redirect", "experiment", "cache"} <= set(route)

    match = await editor.completions(f"{START}routes:\n  - name: a\n    match:\n      ▮")
    assert {"host", "path", "country", "device", "header", "expression"} <= set(match)

    listed = await editor.completions(f"{START}routes:\n  - name: a\n    filters:\n      - ▮")
    assert {"redirect", "response_headers", "experiment"} <= set(listed)

    rule = await editor.completions(f"{START}cache:\n  rules:\n    html:\n      ▮")
    assert {"ttl", "stale_if_error", "tags"} <= set(rule)
    assert "name" not in rule


async def test_values_are_completed(editor: Editor) -> None:
    device = await editor.completions(f"{START}routes:\n  - name: a\n    match:\n      device: ▮")
    assert set(device) == {"desktop", "mobile", "tablet", "bot"}
    kind = await editor.completions("version: 1\norigins:\n  api:\n    kind: ▮")
    assert {"pages", "http"} <= set(kind)


async def test_a_key_under_the_cursor_is_explained(editor: Editor) -> None:
    for lines, expected in (
        ("routes: [{name: a, re▮direct: /b}]", "Send the client elsewhere."),
        ("routes: [{name: a, ma▮tch: {path: /a}}]", "One match: short for `matches`"),
        ("routes: [{name: a, match: {cou▮ntry: DE}}]", "ISO 3166-1"),
        ("routes: [{name: a, match: {pa▮th: /a/**}}]", "a glob such as `/guide/**`"),
        ("cache: {rules: {html: {stale_if▮_error: 7d}}}", "while the origin fails"),
        ("cache: {memory: {max_▮size: 64MiB}}", "How much memory"),
        ("limits: {body_▮size: 5MB}", "more is answered 413"),
    ):
        assert expected in await editor.hover(START + lines)


async def test_tests_of_policies_are_known_too(editor: Editor) -> None:
    start = "# yaml-language-server: $schema=edgeproxy-tests.schema.json\nversion: 1\ntests:\n"
    a_test = f"{start}  - name: the guide\n    get: /guide/\n    expect:\n      "
    editor.modeline = ""
    assert await editor.problems(f"{a_test}status: 200\n") == []
    assert await editor.problems(f"{a_test}stats: 200\n") == [
        ("stats", "Property stats is not allowed.")
    ]
    assert {"route", "redirect", "cache"} <= set(await editor.completions(f"{a_test}▮"))
    assert "Where it is sent." in await editor.hover(f"{a_test}redi▮rect: /a\n")
