"""The language of tests as JSON Schema, for editors: what `edgeproxy schema --tests` prints."""

from __future__ import annotations

from collections.abc import Iterable

from edgeproxy.policy.draft07 import DRAFT, HOME, Schema, definitions, union, used, with_markdown
from edgeproxy.policytest.language import Expectations, PolicyTest, PolicyTests, Visit


def schema() -> Schema:
    """What may stand in a file of tests. Names of a policy, such as of routes, are not known."""
    made, names = definitions([PolicyTests, PolicyTest, Visit, Expectations])
    file, test, visit = (made[names[model]] for model in (PolicyTests, PolicyTest, Visit))
    keys, url = test["properties"], {"type": "string"}
    keys["get"] = {**visit["properties"]["get"], "type": ["string", "array"], "items": url}
    for key in ("same_object_for", "never_same_object_for"):
        keys[key]["items"] = union([url, visit])
    in_rows = {key: keys[key] for key in keys if key not in ("columns", "each")}
    row = {"type": "object", "properties": in_rows, "additionalProperties": False}
    keys["each"] |= {"items": union([row, {"type": "array"}]), "minItems": 1}
    test["if"] = {"required": ["columns"]}  # without them a row is no list of cells
    test["else"] = {"properties": {"each": {"items": {"type": "object"}}}}
    keys["columns"]["items"] = _column(in_rows, made[names[Expectations]]["properties"])
    file["properties"]["tests"]["items"] = {"$ref": HOME + names[PolicyTest]}
    return {"$schema": DRAFT, **with_markdown({**file, "definitions": used(file, made)})}


def _column(keys: Iterable[str], expectations: Iterable[str]) -> Schema:
    """A key of a test, and keys below it after dots."""
    first = "|".join(key for key in keys if key != "expect")
    pattern = rf"^(({first})|expect\.({'|'.join(expectations)}))(\..+)?$"
    message = "a key of a test, and one below it after a dot, such as as.country"
    return {"type": "string", "pattern": pattern, "patternErrorMessage": message}
