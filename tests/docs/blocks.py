"""The pages of the documentation as data: their code blocks and their tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(r"^( *)(`{3,})(.*)$")
_FILE_NAME = re.compile(r"# ([\w./-]+\.\w+)")


@dataclass(frozen=True)
class Block:
    """A fenced block. `words` is what stands behind the fence: the language, then our marks."""

    page: Path
    line: int
    words: tuple[str, ...]
    text: str

    @property
    def language(self) -> str:
        return self.words[0] if self.words else ""

    @property
    def file_name(self) -> str | None:
        """The file that the block is, if its first line is a comment that names one."""
        first = _FILE_NAME.fullmatch(self.text.partition("\n")[0])
        return first.group(1) if first else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*pages: Path) -> Iterator[Block]:
    """Every fenced block of `pages`, directives aside."""
    for page in pages or PAGES:
        fence, indent, start, words = "", "", 0, ""
        lines: list[str] = []
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            match = _FENCE.match(line)
            if fence:
                if match and match.group(2).startswith(fence) and not match.group(3).strip():
                    if not words.startswith("{"):
                        text = "".join(f"{each}\n" for each in lines)
                        yield Block(page, start, tuple(words.split()), text)
                    fence = ""
                else:
                    lines.append(line.removeprefix(indent))
            elif match:
                indent, fence, words = match.group(1), match.group(2), match.group(3).strip()
                start, lines = number, []
        assert not fence, f"{page}:{start}: the block does not end"


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading of a page, cell by cell."""
    text = "\n" + (DOCS / page).read_text(encoding="utf-8")
    _, found, below = text.partition(f"\n{heading}\n")
    assert found, f"{page} has no heading {heading!r}"
    rows: list[list[str]] = []
    for line in below.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif rows or line.startswith("#"):
            break
    assert len(rows) > 2, f"{page} has no table under {heading!r}"
    return rows[2:]


def first_code(cell: str) -> str:
    """The text of the first code span in a cell of a table; empty if there is none."""
    match = re.search(r"`([^`]+)`", cell)
    return match.group(1) if match else ""


def commands(block: Block) -> list[tuple[str, str]]:
    """Each command of a console block, with what is shown below it."""
    found: list[tuple[str, str]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            assert found, f"{block}: a console block begins with a command"
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def pattern_of(shown: str) -> str:
    """What is shown as a pattern: `...` stands for anything."""
    return re.escape(shown).replace(r"\.\.\.", ".*?")
