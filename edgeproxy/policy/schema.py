"""The policy language as JSON Schema, for editors: what `edgeproxy schema` prints.

Made of the models that `edgeproxy check` uses, so that the two agree. What only a whole policy
shows is left to `check`: names that have to exist, patterns that have to compile, keys of which
exactly one may be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from edgeproxy.caching.config import CacheConfig
from edgeproxy.policy.draft07 import (
    DRAFT,
    HOME,
    Schema,
    definitions,
    or_null,
    used,
    with_markdown,
)
from edgeproxy.policy.model import MatchCore, PolicyCore, RouteCore
from edgeproxy.policy.vocabulary import Vocabulary


def schema(words: Vocabulary) -> Schema:
    """What may stand in a policy file that uses `words`."""
    language = _Language(words)
    language.add_match_keys()
    language.add_filters()
    language.add_sections()
    return {"$schema": DRAFT, **with_markdown(language.policy())}


class _Language:
    """The blocks of the core, to which the words of plugins are added."""

    def __init__(self, words: Vocabulary) -> None:
        self.words = words
        core = (PolicyCore, CacheConfig, RouteCore, MatchCore)
        self.definitions, self.names = definitions([*core, *_models(words)])

    def block(self, model: type[BaseModel]) -> Schema:
        return self.definitions[self.names[model]]

    def keys(self, model: type[BaseModel]) -> dict[str, Schema]:
        found: dict[str, Schema] = self.block(model)["properties"]
        return found

    def ref(self, model: type[BaseModel]) -> Schema:
        return {"$ref": HOME + self.names[model]}

    def setting(self, model: type[BaseModel]) -> Schema:
        """A reference to a section or filter, which may be left empty if it needs no key."""
        self.definitions[self.names[model]] = _or_empty(self.block(model))
        return self.ref(model)

    def add_match_keys(self) -> None:
        keys = self.keys(MatchCore)
        for key, schema in keys.items():
            keys[key] = _given(schema)
        keys |= {key: self.ref(model) for key, (_, model) in self.words.matchers.items()}
        route = self.keys(RouteCore)
        route["matches"] = or_null({**route["matches"], "items": self.ref(MatchCore)})
        route["match"] = {**self.block(MatchCore), "description": _MATCH}

    def add_filters(self) -> None:
        filters = {key: self.setting(model) for key, (_, model) in self.words.filters.items()}
        entry = {
            "description": "One filter and its settings.",
            "type": "object",
            "properties": filters,
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
        several = {"description": _FILTERS, "type": ["array", "null"], "items": entry}
        self.keys(RouteCore).update({"filters": several, **filters})
        self.keys(PolicyCore)["filters"]["items"] = entry

    def add_sections(self) -> None:
        top, cache = self.keys(PolicyCore), self.keys(CacheConfig)
        for home in (top, cache):
            home.update({key: _or_empty(schema) for key, schema in home.items()})
        for section, plugin in self.words.sections.items():
            assert plugin.cls.Config is not None
            home = top if len(section) == 1 else cache
            home[section[-1]] = self.setting(plugin.cls.Config)
        top["routes"]["items"] = self.ref(RouteCore)
        top["cache"] = _or_empty(self.block(CacheConfig))

    def policy(self) -> Schema:
        policy = self.block(PolicyCore)
        return {**policy, "definitions": used(policy, self.definitions)}


_MATCH = "One match: short for `matches` with a single entry. All its keys have to hold."
_FILTERS = "Filters of this route, in the order they run."


def _models(words: Vocabulary) -> Iterator[type[BaseModel]]:
    """The models that plugins bring."""
    for plugin in words.known:
        if plugin.cls.Config is not None:
            yield plugin.cls.Config
    tables: tuple[Mapping[str, tuple[Any, type[BaseModel]]], ...] = (words.matchers, words.filters)
    for table in tables:
        for _, model in table.values():
            yield model


def _or_empty(schema: Schema) -> Schema:
    """`schema`, and nothing at all where that stands for an empty block or list."""
    members = schema.get("anyOf", [schema])
    if any("null" in member.get("type", ()) for member in members):
        return schema
    return or_null(schema) if any(map(_may_be_empty, members)) else schema


def _may_be_empty(schema: Schema) -> bool:
    kinds = schema.get("type", ())
    needs_a_key = "required" in schema or "minProperties" in schema
    return "array" in kinds or ("object" in kinds and not needs_a_key)


def _given(schema: Schema) -> Schema:
    """`schema` of a match key: an empty value would quietly match everything, or nothing."""
    kinds = [kind for kind in schema["type"] if kind != "null"]
    return {**schema, "type": kinds, "minItems": 1}
