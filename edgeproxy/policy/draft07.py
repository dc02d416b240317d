"""From models to JSON Schema of draft-07, shaped so that editors have good words for mistakes.

pydantic writes a newer draft, in which a `$ref` may have neighbours, and a union for all that may
be written in two ways. Of a union that fails, an editor shows the complaint of a member that it
guesses. But most unions here are of different kinds (a text or a block, one or a list), and most
words of JSON Schema are about one kind only: so they are written as one schema for several kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

type Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
HOME = "#/definitions/"
NULL: Schema = {"type": "null"}

_MAPS = ("properties", "patternProperties")  # of names to schemas
_DATA = ("const", "default", "enum", "examples", "required", "type")
_NOISE = ("title", "gt", "ge", "lt", "le")  # limits of a value that is no number in a file
_FOR_EVERY_KIND = frozenset(("$ref", "allOf", "anyOf", "const", "enum", "not", "oneOf"))


def definitions(
    models: Iterable[type[BaseModel]],
) -> tuple[dict[str, Schema], dict[type[BaseModel], str]]:
    """The schemas of `models` and of the blocks they are made of, by name; each model's name."""
    wanted = list(dict.fromkeys(models))
    refs, found = models_json_schema(
        [(model, "validation") for model in wanted],
        ref_template=HOME + "{model}",
        schema_generator=_Generator,
    )
    names = {model: refs[model, "validation"]["$ref"].removeprefix(HOME) for model in wanted}
    made: dict[str, Schema] = found.get("$defs", {})
    blocks = {name for name, schema in made.items() if "properties" in schema}
    tidy = _Tidy(made, blocks | set(names.values()))
    return {name: tidy.schema(made[name], (name,)) for name in sorted(tidy.blocks)}, names


def used(schema: Schema, definitions: Mapping[str, Schema]) -> dict[str, Schema]:
    """Those of `definitions` that `schema` refers to, and those that these refer to."""
    found: dict[str, Schema] = {}
    waiting = [schema]
    while waiting:
        for ref in _references(waiting.pop()):
            name = ref.removeprefix(HOME)
            if name not in found:
                found[name] = definitions[name]
                waiting.append(definitions[name])
    return dict(sorted(found.items()))


def with_markdown(node: Any) -> Any:
    """`node`, its descriptions also as what they are: editors would show the signs of code."""
    if isinstance(node, list):
        return [with_markdown(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {key: with_markdown(value) for key, value in node.items()}
    if "`" in str(node.get("description", "")) and isinstance(node["description"], str):
        made["markdownDescription"] = node["description"]
    return made


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    for each in node if isinstance(node, list) else ():
        yield from _references(each)


# ------------------------------------------------------------------ unions


def or_null(schema: Schema) -> Schema:
    """`schema`, and nothing at all."""
    return union([schema, NULL])


def union(members: Iterable[Schema]) -> Schema:
    """What is one of `members`, in one schema as far as they are of different kinds."""
    flat: Schema = {}
    others: list[Schema] = []
    words: Schema = {}
    for member in _flattened(members):
        plain = {key: value for key, value in member.items() if key != "description"}
        if member.get("description"):
            words.setdefault("description", member["description"])
        if not _joins(flat, plain):
            others.append(plain)
    if not others:
        return {**flat, **words}
    # Of equals the first one is heard: for a block its keys matter, for a text its choices.
    among = [flat, *others] if "object" in _kinds(flat) else [*others, flat]
    return {"anyOf": [member for member in among if member], **words}


def _flattened(members: Iterable[Schema]) -> Iterator[Schema]:
    for member in members:
        if member.keys() <= {"anyOf", "description"}:
            first, *rest = _flattened(member["anyOf"])
            words = member.get("description") or first.get("description", "")
            yield from ({**first, "description": words}, *rest)
        else:
            yield member


def _joins(flat: Schema, member: Schema) -> bool:
    """Whether `member` can become a part of `flat`, and makes it so."""
    if "type" not in member or _FOR_EVERY_KIND & member.keys():
        return False
    kinds, more = _kinds(flat), _kinds(member)
    if kinds == more == ["string"]:
        return _joins_pattern(flat, member)
    if set(kinds) & set(more) or flat.keys() & member.keys() - {"type"}:
        return False
    flat.update(member)
    if kinds:
        flat["type"] = [*kinds, *more]
    return True


def _joins_pattern(flat: Schema, member: Schema) -> bool:
    """The same for two texts of which no more is known than their patterns."""
    if not flat.keys() | member.keys() <= {"type", "pattern", "patternErrorMessage"}:
        return False
    if "pattern" not in flat or "pattern" not in member:
        return False
    flat["pattern"] = f"({flat['pattern']})|({member['pattern']})"
    flat.pop("patternErrorMessage", None)
    return True


def _kinds(schema: Schema) -> list[str]:
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else kinds


# ------------------------------------------------------------------ what pydantic wrote


class _Generator(GenerateJsonSchema):
    """Takes any model: of a type that only Python knows, everything is let through."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        return {}

    def emit_warning(self, kind: Any, detail: str) -> None:
        """Such as of a default that is no JSON: an editor does without it."""


class _Tidy:
    """`blocks` are the definitions that stay; what refers to others has them written out."""

    def __init__(self, made: Mapping[str, Schema], blocks: set[str]) -> None:
        self.made, self.blocks = made, blocks

    def schema(self, node: Any, inside: tuple[str, ...]) -> Any:
        """`node`, made tidy; `inside` are the definitions that it is a part of."""
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return self._reference(node, inside)
        return self._joined(self._parts(node, inside), inside)

    def _parts(self, node: Schema, inside: tuple[str, ...]) -> Schema:
        return {
            key: value if key in _DATA else self._part(key, value, inside)
            for key, value in node.items()
            if key not in _NOISE and not (key == "default" and not _is_telling(value))
        }

    def _part(self, key: str, value: Any, inside: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [self.schema(each, inside) for each in value]
        if key in _MAPS:
            return {name: self.schema(each, inside) for name, each in value.items()}
        return self.schema(value, inside)

    def _reference(self, node: Schema, inside: tuple[str, ...]) -> Schema:
        """A bare reference to a block stays; one with neighbours cannot, before draft 2019-09."""
        name = node["$ref"].removeprefix(HOME)
        if name in inside or (name in self.blocks and len(node) == 1):
            return {"$ref": node["$ref"]}
        return self._written_out(node, inside)

    def _written_out(self, node: Schema, inside: tuple[str, ...]) -> Schema:
        name = node["$ref"].removeprefix(HOME)
        beside = {key: value for key, value in node.items() if key != "$ref"}
        whole: Schema = self.schema({**self.made[name], **beside}, (*inside, name))
        return whole

    def _joined(self, node: Schema, inside: tuple[str, ...]) -> Schema:
        if "patternProperties" in node:
            node.setdefault("additionalProperties", False)
        if "prefixItems" in node:
            node["items"] = node.pop("prefixItems")
        if "anyOf" not in node:
            return node
        members = list(self._members(node.pop("anyOf"), inside))
        if "minLength" in node:  # of OneOrMany: pydantic takes its list for a text
            least = node.pop("minLength")
            members = [{**one, "minItems": least} if "items" in one else one for one in members]
        return {**union(members), **node}

    def _members(self, members: list[Schema], inside: tuple[str, ...]) -> Iterator[Schema]:
        """The members of a union; blocks are written out, to be joined with others."""
        for member in members:
            name = member.get("$ref", "").removeprefix(HOME)
            yield self._written_out(member, inside) if name and name not in inside else member


def _is_telling(default: Any) -> bool:
    """Whether a default says more than that a key may be absent."""
    return default is not None and not isinstance(default, list | dict)
