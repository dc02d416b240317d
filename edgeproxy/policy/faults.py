"""From what pydantic says about plain data to faults with places, in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAliasType, get_args, get_origin

from pydantic import BaseModel, ValidationError

from edgeproxy.errors import Fault, Place, PluginError
from edgeproxy.policy.installed import Broken, Installed
from edgeproxy.policy.policy import Clause
from edgeproxy.policy.source import Node, shown
from edgeproxy.values import did_you_mean

type Path = tuple[str | int, ...]  # keys and indexes, from the node that is checked

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"  # of edgeproxy.values.Name

_OWN_CODES = {
    "bad_certificate": "bad-certificate",
    "bad_pattern": "bad-pattern",
    "missing_extra": "missing-extra",
    "missing_secret": "missing-secret",
    "missing_state": "missing-key",
    "secret_as_value": "secret-as-value",
    "unknown_fact": "unknown-fact",
    "unknown_origin": "unknown-origin",
    "unknown_reason": "bad-choice",
    "unknown_route": "unknown-route",
    "unknown_rule": "unknown-rule",
}

# What a value of another kind should have been.
_WANTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a block of keys",
    "float_parsing": "a number",
    "float_type": "a number",
    "frozen_set_type": "a list",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of a usual size",
    "int_type": "a whole number",
    "ip_any_address": "an IP address",
    "ip_any_network": "a network such as 10.0.0.0/8",
    "iterable_type": "a list",
    "list_type": "a list",
    "mapping_type": "a block of keys",
    "model_attributes_type": "a block of keys",
    "model_type": "a block of keys",
    "none_required": "empty",
    "set_type": "a list",
    "string_type": "text",
    "tuple_type": "a list",
}

# Limits that pydantic knows: how the fault goes on after the value.
_LIMITS = {
    "finite_number": "is not a finite number",
    "greater_than": "is too small; write more than {gt}",
    "greater_than_equal": "is too small; write {ge} or more",
    "less_than": "is too large; write less than {lt}",
    "less_than_equal": "is too large; write {le} or less",
    "multiple_of": "is not a multiple of {multiple_of}",
    "string_too_long": "is too long; write at most {max_length} characters",
    "string_too_short": "is too short; write at least {min_length} characters",
    "too_long": "has too many entries; write at most {max_length}",
    "too_short": "has too few entries; write at least {min_length}",
}


def check[M: BaseModel](
    model: type[M],
    node: Node,
    where: str,
    faults: list[Fault],
    context: Mapping[str, Any],
    plugin: Installed | None = None,
) -> M | None:
    """`node` as a `model`; None after adding to `faults`. `where` is how messages call the node."""
    try:
        return model.model_validate(node.plain(), context=dict(context))
    except ValidationError as error:
        faults.extend(_faults(model, node, where, error))
    except Exception as error:
        if plugin is None:
            raise
        faults.append(plugin_fault(plugin, f"the model {model.__name__}", error, node.place))
    return None


def nearest(word: str, kind: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown `word`: the nearest of `names`, and all of them."""
    known = list(names)
    hint = did_you_mean(word, known) if len(word) <= 80 else ""
    if not known:
        return hint
    return f"{hint}{' ' if hint else '; '}{kind}: {', '.join(known)}"


def missing_module(plugin: Installed, module: str, place: Place | None, extra: str = "") -> Fault:
    """The fault of a plugin whose `module` is not installed, with the command that installs it."""
    alike = {plugin.name, plugin.name.replace("_", "-")} & plugin.extras
    extra = extra or next(iter(sorted(alike)), "")
    wanted = f"'{plugin.distribution}[{extra}]'" if extra else module
    needs = f"plugin {plugin.name!r} needs {module}, which is not installed"
    return Fault("missing-extra", f"{needs}; run: pip install {wanted}", place)


def plugin_fault(plugin: Installed, hook: str, error: BaseException, place: Place | None) -> Fault:
    """The fault of a plugin that raised in `hook` while the policy was loaded."""
    if isinstance(error, ImportError):
        found = plugin.load()
        extra = "" if isinstance(found, Broken) else found.extra
        module = (error.name or "").partition(".")[0] or str(error)
        return missing_module(plugin, module, place, extra)
    if isinstance(error, OSError | ValueError) and not isinstance(error, ValidationError):
        return Fault("bad-value", sentence(error), place)
    failure = PluginError(plugin.name, hook, f"{type(error).__name__}: {error}")
    return Fault("plugin-failed", str(failure), place)


def compile_fault(clause: Clause, error: Exception) -> Fault:
    """The fault of a match key whose `compile` raised, at the key's value."""
    plugin = clause.plugin
    cls = type(plugin.instance)
    entry = Installed(plugin.name, lambda: cls, plugin.distribution.partition(" ")[0])
    return plugin_fault(entry, f"{clause.key}.compile", error, clause.place)


def sentence(error: BaseException) -> str:
    """What an exception says, on one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


# ------------------------------------------------------------------ pydantic's errors


def _faults(
    model: type[BaseModel], root: Node, where: str, error: ValidationError
) -> Iterator[Fault]:
    groups: dict[Path, list[Any]] = {}
    for detail in error.errors(include_url=False):
        path, _ = _locate(root, detail["loc"])
        if detail["type"] == "missing" or detail["loc"][-1:] == ("[key]",):
            path = (*path, detail["loc"][-1])
        groups.setdefault(path, []).append(detail)
    # Where a union takes a scalar or a block, only the branch that got further matters.
    deep = [path for path, found in groups.items() if found[0]["type"] != "missing"]
    passed = {path[:length] for path in deep for length in range(len(path))}
    misspelt = _misspelt(groups)
    for path, details in groups.items():
        if path not in passed and path not in misspelt:
            yield _fault(model, root, where, path, details)


def _misspelt(groups: Mapping[Path, list[Any]]) -> set[Path]:
    """The missing keys that an unknown key beside them is meant for: the unknown one is enough."""
    unknown: dict[Path, list[str]] = {}
    for path, details in groups.items():
        if details[0]["type"] == "extra_forbidden" and path:
            unknown.setdefault(path[:-1], []).append(str(path[-1]))
    return {
        path
        for path, details in groups.items()
        if details[0]["type"] == "missing"
        and did_you_mean(str(path[-1]), unknown.get(path[:-1], []))
    }


def _locate(root: Node, loc: Path) -> tuple[Path, Node]:
    """The part of `loc` that leads through the file, and the node at its end.

    The rest is pydantic's own: names of union members, `[key]`, and the 0 of a value that stands
    alone where a list may.
    """
    node = root
    path: list[str | int] = []
    for step in loc:
        if isinstance(step, str) and step in node.block:
            node = node.block[step].node
        elif isinstance(step, int) and step < len(node.items):
            node = node.items[step]
        else:
            continue
        path.append(step)
    return tuple(path), node


def _fault(model: type[BaseModel], root: Node, where: str, path: Path, details: list[Any]) -> Fault:
    detail = next((one for one in details if one["type"] not in _SHAPES), details[0])
    kind = detail["type"]
    if kind == "missing":
        _, block = _locate(root, path[:-1])
        label = _label(where, path[:-1])
        inside = f" in {label}" if label else ""
        return Fault("missing-key", f"key {str(path[-1])!r} is missing{inside}", block.place)
    if kind == "extra_forbidden":
        known = list(dict.fromkeys(_keys(model, path[:-1])))
        label = _label(where, path[:-1])
        inside = f" in {label}" if label else ""
        key = str(path[-1])
        message = f"unknown key {shown(key)}{inside}{nearest(key, 'keys', known)}"
        return Fault("unknown-key", message, _key(root, path))
    if path[-1:] == ("[key]",):
        code, message = _worded(details, str(path[-2]))
        return Fault(code, message, _key(root, path[:-1]))
    _, node = _locate(root, path)
    code, message = _worded(details, node.plain())
    return Fault(code, message, node.place)


def _key(root: Node, path: Path) -> Place:
    """The place of the key at the end of `path`."""
    _, block = _locate(root, path[:-1])
    entry = block.block.get(str(path[-1]))
    return entry.key if entry else block.place


_PLAIN = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?|true|false", re.ASCII)
_UNQUOTED = {"int_type", "float_type", "bool_type"}
_BOOLEAN = {"bool_type", "bool_parsing"}
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "y"), "true"),
    **dict.fromkeys(("false", "no", "off", "n"), "false"),
}
_SHAPES = frozenset({*_WANTED, "literal_error", "enum", "string_pattern_mismatch"})


def _worded(details: list[Any], value: Any) -> tuple[str, str]:
    """Code and message for all that is wrong with one value."""
    detail = next((one for one in details if one["type"] not in _SHAPES), None)
    if detail is not None:
        return _worded_one(detail, value)
    wanted = list(dict.fromkeys(_wanted(one, value) for one in details))
    choices = [choice for one in details for choice in _choices(one)]
    kinds = {one["type"] for one in details}
    code = "bad-type"
    if "string_pattern_mismatch" in kinds:
        code = "bad-value"
    elif kinds <= {"literal_error", "enum"} or (choices and isinstance(value, str)):
        code = "bad-choice"
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    return code, f"{shown(value)} is not {' or '.join(wanted)}{hint or _quotes(kinds, value)}"


def _worded_one(detail: Any, value: Any) -> tuple[str, str]:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return "bad-value", sentence(context["error"])
    if kind in _LIMITS:
        return "out-of-range", f"{shown(value)} {_LIMITS[kind].format(**context)}"
    message = " ".join(str(detail["msg"]).split())
    if message.startswith("Input should "):
        message = f"{shown(value)} should {message.removeprefix('Input should ')}"
    return _OWN_CODES.get(kind, "bad-value"), message


def _wanted(detail: Any, value: Any) -> str:
    choices = _choices(detail)
    if len(choices) == 1:
        return choices[0]
    if choices:
        return f"one of {', '.join(choices)}"
    if detail["type"] == "string_pattern_mismatch":
        pattern = detail["ctx"]["pattern"]
        if pattern == NAME_PATTERN:
            return "a name: lower case letters, digits, - and _, at most 63"
        return f"text of the form {pattern}"
    return _WANTED[detail["type"]]


def _choices(detail: Any) -> list[str]:
    if detail["type"] not in ("literal_error", "enum"):
        return []
    expected = str(detail["ctx"]["expected"])
    found = re.findall(r"'([^']*)'|([^\s,']+)", expected)
    words = [quoted or bare for quoted, bare in found if quoted or bare != "or"]
    return [word.lower() if word in ("True", "False") else word for word in words]


def _quotes(kinds: set[str], value: Any) -> str:
    """The advice to put quotes, or to take them away."""
    if kinds == {"string_type"} and isinstance(value, bool | int | float):
        return f"; write it in quotes: '{shown(value)}'"
    if not isinstance(value, str):
        return ""
    if kinds & _UNQUOTED and _PLAIN.fullmatch(value):
        return "; take the quotes away"
    return (
        f"; write {_BOOLEANS[value.lower()]}"
        if kinds & _BOOLEAN and value.lower() in _BOOLEANS
        else ""
    )


def _label(where: str, path: Path) -> str:
    """How a message calls the block at `path`: `cache.rules.html`, `backend_refs of route 'x'`."""
    dotted = ".".join(str(step) for step in path if isinstance(step, str))
    if not dotted or not where:
        return dotted or where
    return f"{dotted} of {where}" if " " in where else f"{where}.{dotted}"


# ------------------------------------------------------------------ the keys of a model


def _keys(model: type[BaseModel], path: Path) -> Iterator[str]:
    """The keys that the model at `path` below `model` knows."""
    for found in _below([model], path):
        if isinstance(found, type) and issubclass(found, BaseModel):
            for name, info in found.model_fields.items():
                yield info.alias or name


def _below(types: list[Any], path: Path) -> list[Any]:
    """The types that may stand at `path` below one of `types`."""
    plain = [inner for one in types for inner in _unwrapped(one)]
    if not path:
        return plain
    step, rest = path[0], path[1:]
    return _below([inner for one in plain for inner in _members(one, step)], rest)


def _unwrapped(annotation: Any) -> Iterator[Any]:
    """`annotation` without Annotated, aliases, unions and root models: what a value really is.

    A list is given along with its members, because one member may stand alone.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, TypeAliasType):
        yield from _unwrapped(annotation.__value__)
    elif isinstance(origin, TypeAliasType):
        yield from _unwrapped(origin.__value__[args])
    elif hasattr(annotation, "__metadata__"):
        yield from _unwrapped(annotation.__origin__)
    elif _is_model(annotation) and "root" in annotation.model_fields:
        yield from _unwrapped(annotation.model_fields["root"].annotation)
    elif origin in (list, tuple, set, frozenset):
        yield annotation
        for arg in args:
            yield from _unwrapped(arg)
    elif origin is not None and origin is not dict and not _is_model(annotation):
        for arg in args:
            yield from _unwrapped(arg)
    else:
        yield annotation


def _members(annotation: Any, step: str | int) -> Iterator[Any]:
    if isinstance(step, int):
        if get_origin(annotation) in (list, tuple, set, frozenset):
            yield from get_args(annotation)
    elif _is_model(annotation):
        for name, info in annotation.model_fields.items():
            if step in (name, info.alias):
                yield info.annotation
    elif get_origin(annotation) is dict:
        yield get_args(annotation)[1]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
