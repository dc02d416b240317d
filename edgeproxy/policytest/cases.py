"""From `*_test.yaml` to cases: which files belong to a policy, and what each test stands for.

A test with `each`, or with several URLs under `get`, is several cases: what a row says is laid over
what the test says. That happens to the nodes of the file, so that every part of a case still knows
the line that it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproxy.errors import Fault, Place, PolicyError
from edgeproxy.plan import Plan
from edgeproxy.policy.faults import check
from edgeproxy.policy.files import Source, read_all, sources
from edgeproxy.policy.load import in_order
from edgeproxy.policy.source import Entry, Node, near, shown
from edgeproxy.policytest.language import PolicyTest, PolicyTests, Visit, one_request
from edgeproxy.policytest.values import context

# Blocks that a row adds to, key by key; it takes the place of all else that the test says.
_JOINED = frozenset((
    "headers", "cookies", "as", "origin", "expect", "facts", "cache", "request_headers",
    "response_headers",
))  # fmt: skip
_BLOCKS = {"headers": 1, "cookies": 1, "as": 1, "origin": 2, "expect": 2}  # joints of a column
_VISIT_KEYS = frozenset(info.alias or name for name, info in Visit.model_fields.items())
_REQUESTS = ("get", "request")
_OBJECTS = ("same_object_for", "never_same_object_for")


@dataclass(frozen=True, slots=True)
class Case:
    """One test, or one row of it: the requests that are made, and what has to come of each."""

    name: str
    test: PolicyTest
    visits: tuple[Visit, ...]
    site: str  # what URLs without a host are below
    node: Node

    def place(self, *keys: str) -> Place:
        """Where the test says what `keys` lead to, as far as it does."""
        node = self.node
        for key in keys:
            node = next((e.node for word, e in node.block.items() if _names(word, key)), node)
        return node.place


def _names(word: str, key: str) -> bool:
    """Whether `word` of a test means `key`: fields have no case, facts go by their last part."""
    return word.lower() in (key.lower(), key.lower().partition(".")[2])


# ------------------------------------------------------------------- files


def find_files(policies: Iterable[Path], tests: Iterable[Path] = ()) -> list[Path]:
    """The tests in `tests`; without them those beside `policies`.

    Beside a folder of policies those in it; beside `site.yaml` it is `site_test.yaml`.
    """
    named = tuple(tests)
    if named:
        return [file for path in named for file in (_in_folder(path) if path.is_dir() else [path])]
    found = [file for path in policies for file in _beside(path)]
    return list(dict.fromkeys(found))


def _in_folder(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.stem.endswith("_test") and file.suffix in (".yaml", ".yml")
    )


def _beside(policy: Path) -> list[Path]:
    if policy.is_dir():
        return _in_folder(policy)
    names = (policy.with_name(f"{policy.stem}_test{suffix}") for suffix in (".yaml", ".yml"))
    return [file for file in names if file.is_file()]


def read_cases(files: Sequence[Path], plan: Plan) -> list[Case]:
    """The cases of test files for the policy of `plan`. PolicyError with every fault in them."""
    return cases_of(sources(files) if files else [], plan)


def cases_of(texts: Sequence[Source], plan: Plan) -> list[Case]:
    """The same, of texts that stand in files of these names."""
    faults: list[Fault] = []
    cases: list[Case] = []
    for root in read_all(texts):
        cases += _Reader(root, context(plan), faults).cases()
    if faults:
        raise PolicyError(in_order(faults, [name for name, _ in texts]))
    return cases


# ------------------------------------------------------------------- one file


@dataclass(slots=True)
class _Reader:
    """Reads the tests of one file, and goes on after a fault."""

    root: Node
    context: dict[str, Any]
    faults: list[Fault]

    def cases(self) -> Iterator[Case]:
        file = check(PolicyTests, self.root, "", self.faults, self.context)
        tests = self.root.get("tests")
        items = tests.items if tests else []
        self._unique_names(items)
        for number, test in enumerate(items, 1):
            if not isinstance(test.value, dict):
                self._fault("bad-type", f"{shown(test.plain())} is not a test (- name: ...)", test)
                continue
            name = test.get("name")
            named = name is not None and isinstance(name.value, str)
            label = f"test {shown(name.value)}" if name and named else f"test {number}"
            for node, row in self._rows(self._without_empty(test, label), label):
                case = self._case(node, label, row, file.site if file else "")
                if case is not None:
                    yield case

    def _case(self, node: Node, label: str, row: str, site: str) -> Case | None:
        before = len(self.faults)
        test = check(PolicyTest, node, label, self.faults, self.context)
        visits = [self._visit(one, label, test is not None) for one in self._asked(node)]
        if test is None or len(self.faults) > before:
            return None
        name = f"{test.name}: {row}" if row else test.name
        return Case(name, test, tuple(visit for visit in visits if visit), site, node)

    def _visit(self, node: Node, label: str, is_good: bool) -> Visit | None:
        """`is_good` tells that no key of the test is misspelt, so that none is missing for that."""
        visit = check(Visit, node, label, self.faults, self.context)
        if visit is not None and is_good:
            try:
                one_request(visit)
            except ValueError as error:
                self._fault("bad-value", f"{label}: {error}", node)
        return visit

    def _asked(self, node: Node) -> list[Node]:
        """The requests of a test: its own, or those that are compared, laid over it."""
        own = Node(node.place, {key: node.block[key] for key in node.block if key in _VISIT_KEYS})
        compared = next((node.block[key].node for key in _OBJECTS if key in node.block), None)
        if compared is None:
            return [own]
        return [_laid_over(own, _as_request(one)) for one in compared.items]

    def _without_empty(self, node: Node, label: str) -> Node:
        """`node` without keys that have no value: it would quietly be as if they were not there."""
        block: dict[str, Entry] = {}
        for key, entry in node.block.items():
            if entry.node.value is None:
                self.faults.append(
                    Fault("bad-value", f"key {shown(key)} of {label} has no value", entry.key)
                )
            else:
                block[key] = Entry(entry.key, self._without_empty(entry.node, label))
        if isinstance(node.value, dict):
            return Node(node.place, block)
        items = [self._without_empty(item, label) for item in node.items]
        return Node(node.place, items) if isinstance(node.value, list) else node

    # -------------------------------------------------------------- rows

    def _rows(self, test: Node, label: str) -> Iterator[tuple[Node, str]]:
        """The cases that `test` stands for, each with what tells it from the others."""
        each, columns = test.get("each"), test.get("columns")
        if each is None:
            if columns is not None:
                self._fault("missing-key", f"key 'each' is missing in {label}: its rows", columns)
            yield from _urls(test, "")
            return
        base = Node(test.place, {k: test.block[k] for k in test.block if k not in _TABLE})
        if not self._are_apart(columns, label):
            return
        if not each.items:
            self._fault("bad-type", f"each of {label} is a list of rows, at least one", each)
        for number, item in enumerate(each.items, 1):
            row = self._row(item, columns, label)
            if row is not None:
                yield from _urls(_laid_over(base, row), _told(row) or f"row {number}")

    def _row(self, item: Node, columns: Node | None, label: str) -> Node | None:
        """A row as a part of a test: a block as it is, the cells of a list at their columns."""
        if isinstance(item.value, dict):
            return item
        heads = columns.items if columns else []
        if not isinstance(item.value, list) or columns is None:
            message = f"a row of {label} is a block, or a list of cells if columns names them"
            self._fault("bad-type", message, item)
            return None
        if len(item.items) != len(heads):
            message = f"there are {len(heads)} columns, and this row has {len(item.items)}"
            self._fault("bad-value", message, item)
            return None
        row = Node(item.place, {})
        for head, cell in zip(heads, item.items, strict=True):
            if isinstance(head.value, str) and cell.value is not None:
                _put(row, head.value, Entry(head.place, cell))
        return row

    def _are_apart(self, columns: Node | None, label: str) -> bool:
        """Whether every column is about something of its own."""
        heads = [head for head in columns.items if isinstance(head.value, str)] if columns else []
        for head in heads:
            others = [f"{other.value}." for other in heads if other is not head]
            if any(f"{head.value}.".startswith(other) for other in others):
                message = f"two columns of {label} are about {shown(head.value)}"
                self._fault("duplicate-key", message, head)
                return False
        return True

    def _unique_names(self, tests: Iterable[Node]) -> None:
        first: dict[str, Node] = {}
        for test in tests:
            name = test.get("name")
            if name is None or not isinstance(name.value, str):
                continue
            if name.value in first:
                line = near(first[name.value].place, name.place)
                message = f"test {shown(name.value)} is here twice; the first is in {line}"
                self._fault("duplicate-name", message, name)
            first.setdefault(name.value, name)

    def _fault(self, code: str, message: str, node: Node) -> None:
        self.faults.append(Fault(code, message, node.place))


_TABLE = ("each", "columns")


def _urls(test: Node, row: str) -> Iterator[tuple[Node, str]]:
    """A case for each URL, if `get` lists several."""
    get = test.get("get")
    if get is None or not get.items:
        yield test, row
        return
    key = test.block["get"].key
    for url in get.items:
        one = Node(test.place, {**test.block, "get": Entry(key, url)})
        yield one, f"{row}, {url.value}" if row else str(url.value)


def _as_request(node: Node) -> Node:
    """A URL that stands alone is a GET."""
    if isinstance(node.value, str):
        return Node(node.place, {"get": Entry(node.place, node)})
    return node


def _laid_over(base: Node, row: Node) -> Node:
    """`base` with what `row` says: joined where both are blocks that are, else in its place."""
    if not isinstance(row.value, dict):
        return row
    block = dict(base.block)
    if any(key in row.block for key in _REQUESTS):
        block = {key: block[key] for key in block if key not in _REQUESTS}
    for key, entry in row.block.items():
        before = block.get(key)
        if key in _JOINED and before and before.node.block and entry.node.block:
            entry = Entry(entry.key, _laid_over(before.node, entry.node))
        block[key] = entry
    return Node(row.place, block)


def _put(row: Node, column: str, entry: Entry) -> None:
    """Set what `column` names, such as `get`, `as.country` or `expect.response_headers.vary`.

    What follows the last joint is one word, so that `as.geo.country` is a fact with a dot.
    """
    *blocks, last = column.split(".", _BLOCKS.get(column.partition(".")[0], 0))
    if len(blocks) == 2 and blocks[1] not in _JOINED:
        blocks, last = blocks[:1], f"{blocks[1]}.{last}"
    for key in blocks:
        row = row.block.setdefault(key, Entry(entry.key, Node(entry.key, {}))).node
    row.block[last] = entry


def _told(row: Node) -> str:
    """What a row has that others may not: its scalars, without what is expected."""
    parts = [entry.node for key, entry in row.block.items() if key != "expect"]
    words = [str(scalar.value) for part in parts for scalar in part.scalars()]
    return ", ".join(word if word.isprintable() else repr(word) for word in words)[:80]
