"""Strict YAML: a policy file as plain data that knows where each part of it stands, and back.

What is read is YAML 1.2 with its core scalars and nothing that surprises: `true` and `false` are
the only booleans (`NO`, `on` and `12:30` stay text), keys are text and appear once. Tags, anchors,
aliases, merge keys and second documents are faults, and so is a file beyond the limits below.
The file is read as a stream of events rather than through PyYAML's composer, so that a bomb is
refused before it has been built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from edgeproxy.errors import Fault, Place, PolicyError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_NODES = 100_000
MAX_SHOWN = 400  # a longer line is not repeated under a fault: the caret would be off the screen

type Scalar = str | int | float | bool | None

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # what YAML 1.1, and so libyaml, breaks at
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL = re.compile(r"0o[0-7]+", re.ASCII)
_HEX = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
_WORDS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None, "true": True, "false": False,
}  # fmt: skip
_LONGEST_NUMBER = 64  # more digits stay text: nobody means a number by them


@dataclass(slots=True)
class Node:
    """A value of the file: a scalar, a list of nodes, or a block (text keys to entries).

    `place` is the scalar itself or the brackets of a flow collection; for a block or list that is
    written over several lines it is the key that names it.
    """

    place: Place
    value: Scalar | list[Node] | dict[str, Entry] = None

    def plain(self) -> Any:
        """The value as plain data."""
        if isinstance(self.value, dict):
            return {key: entry.node.plain() for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def scalars(self) -> Iterator[Node]:
        """Every scalar below, in file order."""
        if isinstance(self.value, dict):
            for entry in self.value.values():
                yield from entry.node.scalars()
        elif isinstance(self.value, list):
            for node in self.value:
                yield from node.scalars()
        else:
            yield self

    @property
    def block(self) -> dict[str, Entry]:
        """The entries; none if this is not a block."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """The members; none if this is not a list."""
        return self.value if isinstance(self.value, list) else []

    def get(self, *path: str) -> Node | None:
        """The node below, key by key; None if it is not there."""
        node = self
        for key in path:
            if key not in node.block:
                return None
            node = node.block[key].node
        return node


@dataclass(slots=True)
class Entry:
    """A key of a block, by its place, and what it holds."""

    key: Place
    node: Node


def read(raw: bytes | str, file: str) -> Node:
    """The block that the file is. Raises PolicyError with all that is wrong with it as YAML."""
    return _Reader(file, _decoded(raw, file)).document()


def line_texts(text: str) -> list[str]:
    """The lines of a file, as places count them."""
    return _LINE_BREAK.split(text)


def _decoded(raw: bytes | str, file: str) -> str:
    data = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    start = Place(file, 1, 1)
    if len(data) > MAX_BYTES:
        raise PolicyError(
            [Fault("yaml-too-large", "the file is larger than 1 MiB; split it into several", start)]
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = _LINE_BREAK.split(data[: error.start].decode("utf-8-sig", "replace"))
        line = _LINE_BREAK.split(data.decode("utf-8-sig", "replace"))[len(before) - 1]
        text = _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", line) if len(line) <= MAX_SHOWN else ""
        place = Place(file, len(before), len(before[-1]) + 1, 1, text)
        byte = data[error.start]
        message = f"the byte {byte:#04x} is not UTF-8; save the file in that encoding"
        raise PolicyError([Fault("yaml-encoding", message, place)]) from None


class _TooLarge(Exception):
    def __init__(self, fault: Fault) -> None:
        self.fault = fault


# libyaml's words for what these pages call blocks and lists.
_PLAIN_WORDS = (
    ("did not find expected node content while parsing a flow node", "a value is missing"),
    ("did not find expected node content while parsing a block node", "a value is missing"),
    ("did not find expected", "expected"),
    ("block mapping", "block"),
    ("flow mapping", "block in braces"),
    ("block collection", "list"),
    ("flow sequence", "list in brackets"),
    ("quoted scalar", "quoted text"),
    ("block scalar", "text"),
    ("unexpected end of stream", "the file ends"),
)


@dataclass(slots=True)
class _Reader:
    """Turns the events of one file into nodes, and notes each fault it meets."""

    file: str
    text: str
    lines: list[str] = field(init=False)
    faults: list[Fault] = field(default_factory=list)
    aliases: set[str] = field(default_factory=set)
    nodes: int = 0

    def __post_init__(self) -> None:
        self.lines = line_texts(self.text)

    def document(self) -> Node:
        root: Node | None = None
        try:
            self._printable()
            events = _Events(yaml.parse(self.text, Loader=_Loader))
            root = self._documents(events)
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
        except _TooLarge as error:
            self.faults.append(error.fault)
        if root is not None and not isinstance(root.value, dict):
            message = "the file is not a block of keys; begin with 'version: 1'"
            self.faults.append(Fault("bad-type", message, root.place))
        if self.faults or root is None:
            raise PolicyError(self.faults)
        return root

    def _documents(self, events: _Events) -> Node:
        root = Node(self._place(0, 0))
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents == 2:
                    place = self._spot(event.start_mark)
                    message = "a file holds one document; put the next into a file of its own"
                    self.faults.append(Fault("yaml-documents", message, place))
            elif isinstance(event, yaml.NodeEvent):
                node = self._node(event, events, None, 1)
                root = node if documents == 1 else root
        return root

    def _node(self, event: Any, events: _Events, key: Place | None, depth: int) -> Node:
        """The node that begins with `event`; `key` is the place of the key that names it."""
        place = self._span(event)
        self._count(place, depth)
        self._refuse(event, place)
        if isinstance(event, yaml.ScalarEvent):
            return Node(place, _scalar(event))
        if isinstance(event, yaml.AliasEvent):
            return Node(place)
        node = Node(place if event.flow_style or key is None else key)
        if isinstance(event, yaml.SequenceStartEvent):
            node.value = self._members(events, depth)
        else:
            node.value = self._entries(events, depth)
        if event.flow_style:
            node.place = self._between(event.start_mark, events.last.end_mark)
        return node

    def _members(self, events: _Events, depth: int) -> list[Node]:
        found: list[Node] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            found.append(self._node(event, events, None, depth + 1))
        return found

    def _entries(self, events: _Events, depth: int) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._key(event, events, depth)
            place = self._span(event)
            node = self._node(next(events), events, place, depth + 1)
            if key is None:
                continue
            if key in found:
                first = near(found[key].key, place)
                message = f"key {shown(key)} is here twice; the first is in {first}"
                self.faults.append(Fault("duplicate-key", message, place))
            found.setdefault(key, Entry(place, node))
        return found

    def _key(self, event: Any, events: _Events, depth: int) -> str | None:
        node = self._node(event, events, None, depth + 1)
        if not isinstance(event, yaml.ScalarEvent):
            if not isinstance(event, yaml.AliasEvent):
                message = "a key is text; this is a list or a block (quote what is meant as text)"
                self.faults.append(Fault("yaml-syntax", message, node.place))
            return None
        if event.value == "<<" and not event.style:
            message = "merge keys are not read here; write the keys out"
            self.faults.append(Fault("yaml-merge", message, node.place))
            return None
        return str(event.value)

    def _count(self, place: Place, depth: int) -> None:
        self.nodes += 1
        if depth > MAX_DEPTH:
            message = f"blocks and lists are nested deeper than {MAX_DEPTH} levels"
            raise _TooLarge(Fault("yaml-too-large", message, place))
        if self.nodes > MAX_NODES:
            message = f"the file holds more than {MAX_NODES:,} values; split it into several"
            raise _TooLarge(Fault("yaml-too-large", message, place))

    def _refuse(self, event: Any, place: Place) -> None:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.aliases:  # once is enough: a bomb has thousands
                self.aliases.add(str(event.anchor))
                message = "aliases are not read here; write the value out, or quote it as text"
                self.faults.append(Fault("yaml-alias", message, place))
            return
        if event.anchor is not None:
            message = f"anchors are not read here; take away &{event.anchor}"
            self.faults.append(Fault("yaml-alias", message, self._token(event.start_mark)))
        elif event.tag is not None:
            message = "tags are not read here; take it away, and quote what must stay text"
            self.faults.append(Fault("yaml-tag", message, self._token(event.start_mark)))

    # ---------------------------------------------------------------- what is not YAML

    def _printable(self) -> None:
        """Refuse characters that YAML forbids, and keep them off the operator's terminal."""
        match = _FORBIDDEN.search(self.text)
        if match is None:
            return
        before = _LINE_BREAK.split(self.text[: match.start()])
        place = self._place(len(before) - 1, len(before[-1]))
        text = _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", place.text)
        place = replace(place, width=1, text=text)
        message = f"the control character U+{ord(match.group()):04X} cannot stand in YAML"
        raise _TooLarge(Fault("yaml-syntax", message, place))

    def _syntax(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or "this cannot be read").removeprefix("found ")
        context = (error.context or "").removeprefix("while ")
        line = mark.line if mark else 0
        column = mark.column if mark else 0
        message = self._hint(problem, context, line, column)
        if not message:
            message = f"not valid YAML: {problem}" + (f" while {context}" if context else "")
            if error.context_mark and error.context_mark.line != line:
                message += f" that begins in line {error.context_mark.line + 1}"
            for jargon, plain in _PLAIN_WORDS:
                message = message.replace(jargon, plain)
        self.faults.append(Fault("yaml-syntax", message, self._place(line, column)))

    def _hint(self, problem: str, context: str, line: int, column: int) -> str:
        """What to say of the slips that are common; empty for the others."""
        text = self.lines[line] if line < len(self.lines) else ""
        found = text[column : column + 1]
        if "any token" in problem and found == "\t":
            return "a tab cannot indent; use spaces"
        if "any token" in problem and found:
            return f"a value that begins with {found} needs quotes"
        if context == "scanning an alias":
            return "a value that begins with * needs quotes"
        if "mapping values" in problem:
            return "': ' cannot stand here; quote the value, or check the indentation"
        return ""

    # ---------------------------------------------------------------- places

    def _place(self, line: int, column: int, width: int = 1) -> Place:
        """A place inside the file, whatever a mark says: marks of the end lie beyond it."""
        last = len(self.lines) - 1
        if line > last or (line == last > 0 and not self.lines[last]):
            line = last if self.lines[last] else max(last - 1, 0)
            column = len(self.lines[line])
        text = self.lines[line].replace("\t", " ")  # or else the caret would be off
        column = min(column, len(text))
        width = max(1, min(width, len(text) - column))
        return Place(self.file, line + 1, column + 1, width, text if len(text) <= MAX_SHOWN else "")

    def _spot(self, mark: Any) -> Place:
        return self._place(mark.line, mark.column)

    def _token(self, mark: Any) -> Place:
        """From `mark` to the next blank."""
        text = self.lines[mark.line][mark.column :]
        match = re.match(r"[^\s,\[\]{}]+", text)
        return self._place(mark.line, mark.column, len(match.group()) if match else 1)

    def _span(self, event: Any) -> Place:
        return self._between(event.start_mark, event.end_mark)

    def _between(self, start: Any, end: Any) -> Place:
        if start.line == end.line:
            return self._place(start.line, start.column, end.column - start.column)
        rest = self.lines[start.line][start.column :] if start.line < len(self.lines) else ""
        return self._place(start.line, start.column, len(rest.rstrip()))


class _Events:
    """The events of a file, one at a time; `last` is the one given out last."""

    def __init__(self, events: Iterable[Any]) -> None:
        self._events = iter(events)
        self.last: Any = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.last = next(self._events)
        return self.last


def _scalar(event: Any) -> Scalar:
    """The value of a scalar by the core schema of YAML 1.2 (section 10.3.2), booleans stricter."""
    text: str = event.value
    if event.style or len(text) > _LONGEST_NUMBER:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text) or _HEX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text) or text in (".nan", ".NaN", ".NAN"):
        return float(text.replace(".", "", 1))
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes what this reader would not take for text, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, text: str) -> Any:
    style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
for _pattern in (_OCTAL, _HEX, _FLOAT):
    _Dumper.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(rf"({_pattern.pattern})$", re.ASCII),
        list("-+.0123456789"),
    )


def write(data: Any) -> str:
    """`data` as YAML that `read` takes for the same."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def shown(value: object) -> str:
    """`value` as a message names it: short, quoted if it is text, in YAML's words."""
    match value:
        case None:
            return "an empty value"
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case float() if not math.isfinite(value):
            return f"{value}".replace("inf", ".inf").replace("nan", ".nan")
        case int() | float():
            return str(value)
        case dict():
            return "a block of keys"
        case _:
            return "a list"


def near(place: Place, other: Place) -> str:
    """How a fault at `other` names `place`: by line alone if both are in one file."""
    return f"line {place.line}" if place.file == other.file else f"{place.file}, line {place.line}"
