"""Rules about the cache: settings without effect, and answers that may reach the wrong visitor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from edgeproxy.lint.finding import Found, rule
from edgeproxy.lint.origins import only_static
from edgeproxy.lint.view import View
from edgeproxy.policy.policy import BoundFilter
from edgeproxy.policy.source import Entry, Node
from edgeproxy.values import Template


@rule("unused-rule", "warning")
def unused_rule(view: View) -> Found:
    """No route uses the cache rule."""
    used = {route.core.cache for route in view.policy.routes}
    for name, entry in view.entries("cache", "rules"):
        if name not in used:
            yield entry.key, f"no route says `cache: {name}`", "remove the rule, or use it"


@rule("ignored-status-ttl", "warning")
def ignored_status_ttl(view: View) -> Found:
    """The lifetime for status 200 is given twice, and one of them counts."""
    for name, entry in view.entries("cache", "rules"):
        if view.policy.cache.rules[name].ttl is not None:
            statuses = entry.node.get("status_ttl")
            again = statuses.block.get("200") if statuses else None
            if again is not None:
                reason = "for status 200 it is ttl that counts, so this has no effect"
                yield again.key, reason, "remove one of the two"


@rule("shared-cookies", "warning", certain=False)
def shared_cookies(view: View) -> Found:
    """Answers that set a cookie are stored, and everybody gets the first visitor's."""
    for name, entry in view.entries("cache", "rules"):
        routes = [route for route in view.policy.routes if route.core.cache == name]
        personal = [route for route in routes if not only_static(view, route)]
        if view.policy.cache.rules[name].share_cookies and personal:
            reason = (
                "an answer that sets a cookie is stored, and every visitor of route "
                f"{personal[0].core.name!r} is given the cookie that was made for the first"
            )
            place = (entry.node.get("share_cookies") or entry.node).place
            fix = "take share_cookies out, unless the cookie says nothing about a visitor"
            yield place, reason, fix


@rule("cookie-in-shared-answer", "warning", certain=False)
def cookie_in_shared_answer(view: View) -> Found:
    """A cookie is set on answers that caches on the way may keep."""
    for route in view.policy.routes:
        if view.answers(route):
            continue
        private = any(_is_private(entry) for bound in route.filters for entry in _fields(bound))
        for bound in () if private else route.filters:
            for entry in _fields(bound, "set-cookie"):
                if "${" not in str(entry.node.plain()):
                    reason = "caches between edgeproxy and its visitors may keep this answer, and "
                    reason += "the cookie with it, or refuse to keep it for the cookie's sake"
                    yield entry.key, reason, "set cache-control: private beside it"


def _fields(bound: BoundFilter, name: str = "cache-control") -> Iterator[Entry]:
    """Wherever a filter that edits answers gives the field `name` a value."""
    if hasattr(bound.hooks, "before_send") or hasattr(bound.hooks, "after_fetch"):
        yield from _entries(bound.node, name)


def _entries(node: Node, name: str) -> Iterator[Entry]:
    for key, entry in node.block.items():
        if key.lower() == name:
            yield entry
        yield from _entries(entry.node, name)


def _is_private(entry: Entry) -> bool:
    value = str(entry.node.plain()).lower()
    return "private" in value or "no-store" in value


@rule("fact-not-in-key", "error")
def fact_not_in_key(view: View) -> Found:
    """What is fetched or stored depends on a fact, and stored answers are shared all the same."""
    for route in view.policy.routes:
        for bound in route.filters if route.core.cache is not False else ():
            edits = hasattr(bound.hooks, "before_fetch") or hasattr(bound.hooks, "after_fetch")
            facts = sorted({fact for each in templates(bound.filter) for fact in each.facts})
            if facts and edits and not hasattr(bound.hooks, "cache_key"):
                reason = (
                    f"with {', '.join(facts)}, {bound.key} changes what is stored, and the cache "
                    "key stays the same: one visitor would get what was made for another"
                )
                fix = "write cache: false, or let the plugin name the facts in cache_key"
                yield bound.place, reason, fix


def templates(value: Any) -> Iterator[Template]:
    """Every template in a filter's settings."""
    if isinstance(value, Template):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from templates(getattr(value, name))
    elif isinstance(value, dict):
        for each in value.values():
            yield from templates(each)
    elif isinstance(value, list | tuple | frozenset):
        for each in value:
            yield from templates(each)
