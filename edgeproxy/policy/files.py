"""Which files make a policy, and how they become one.

Several files and folders make one policy, in the order given; of a folder its `*.yaml` and
`*.yml` by name, without those of folders below and without `*_test.yaml`. How they merge:

- every file says `version: 1`;
- `routes`, `filters`, `plugins`, `hosts` and `trusted_proxies` are strung together, file after
  file;
- other blocks merge key by key: `origins`, `limits`, `cache` and the sections of plugins, and
  `cache.rules` below `cache`. Their entries do not: the same key in two files is a fault;
- a key without a value counts as an empty block, or as an empty list for those above.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from edgeproxy.errors import Fault, PolicyError
from edgeproxy.policy.source import MAX_BYTES, Entry, Node, near, read, shown

LISTS = ("routes", "filters", "plugins", "hosts", "trusted_proxies")

type Source = tuple[str, bytes | str]  # the name that faults show, and the content


def sources(paths: Sequence[str | Path]) -> list[Source]:
    """The files that `paths` name, each once. PolicyError if one cannot be read."""
    faults: list[Fault] = []
    found: dict[Path, Source] = {}
    if not paths:
        faults.append(Fault("unreadable", "no policy file is named"))
    for path in paths:
        try:
            for file in _files(Path(path)):
                found.setdefault(file.resolve(), (str(file), _content(file)))
        except OSError as error:
            reason = error.strerror or str(error)
            faults.append(Fault("unreadable", f"cannot read {error.filename or path}: {reason}"))
    if faults:
        raise PolicyError(faults)
    return list(found.values())


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    found = sorted(file for file in path.iterdir() if _is_policy(file))
    if not found:
        raise FileNotFoundError(0, "the folder holds no policy (*.yaml)", str(path))
    yield from found


def _is_policy(file: Path) -> bool:
    return file.suffix in (".yaml", ".yml") and not file.stem.endswith("_test")


def _content(file: Path) -> bytes:
    """What is in the file, or a byte more than may be: enough for the fault."""
    with file.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


def read_all(files: Iterable[Source]) -> list[Node]:
    """The block of each file. PolicyError with all that is wrong with them as YAML."""
    roots: list[Node] = []
    faults: list[Fault] = []
    for name, content in files:
        try:
            roots.append(read(content, name))
        except PolicyError as error:
            faults.extend(error.faults)
    if faults:
        raise PolicyError(faults)
    return roots


def merged(roots: Sequence[Node], faults: list[Fault]) -> Node:
    """The files as one block; what they say twice is added to `faults`."""
    whole = Node(roots[0].place, {})
    for root in roots:
        _check_version(root, faults)
        for key, entry in root.block.items():
            if key == "version":
                whole.block.setdefault(key, entry)
            elif key in LISTS:
                _string_together(whole.block, key, entry)
            else:
                _join(whole.block, (key,), entry, faults)
    return whole


def _check_version(root: Node, faults: list[Fault]) -> None:
    version = root.get("version")
    if version is None:
        message = "key 'version' is missing; begin the file with 'version: 1'"
        faults.append(Fault("missing-key", message, root.place))
    elif type(version.value) is not int or version.value != 1:
        found = shown(version.plain())
        message = f"version {found} is not one that this edgeproxy reads; write 'version: 1'"
        faults.append(Fault("bad-choice", message, version.place))


def _string_together(block: dict[str, Entry], key: str, entry: Entry) -> None:
    """Lists of several files as one. What is no list goes first, for the models to refuse."""
    node = Node(entry.key, []) if entry.node.value is None else entry.node
    present = block.get(key)
    if present is None:
        block[key] = Entry(entry.key, Node(node.place, node.value))
    elif not isinstance(node.value, list):
        block[key] = Entry(entry.key, node)
    elif isinstance(present.node.value, list):
        present.node.value = [*present.node.value, *node.value]


def _join(
    block: dict[str, Entry], path: tuple[str, ...], entry: Entry, faults: list[Fault]
) -> None:
    """Put `entry` at the end of `path`: blocks at a joint merge, all else may be there once."""
    key, value = path[-1], entry.node.value
    joint = len(path) == 1 or path == ("cache", "rules")
    if joint and value is None:
        value = {}
    present = block.get(key)
    if present is None:
        if not joint or not isinstance(value, dict):
            block[key] = entry
            return
        present = block[key] = Entry(entry.key, Node(entry.node.place, {}))
    if joint and isinstance(value, dict) and isinstance(present.node.value, dict):
        for inner, below in value.items():
            _join(present.node.value, (*path, inner), below, faults)
        return
    first = near(present.key, entry.key)
    message = f"key {shown(key)} is here twice; the first is in {first}"
    faults.append(Fault("duplicate-key", message, entry.key))
