"""The OpenAPI 3.1 document of the admin listener, made of the table of its routes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode, JsonSchemaValue

from edgeproxy import __version__
from edgeproxy.admin import answers, asked
from edgeproxy.admin.messages import Text
from edgeproxy.admin.routes import ROUTES, Route

REFUSALS = {
    400: ("bad-request",),
    401: ("token",),
    403: ("through-a-proxy", "cross-origin"),
    421: ("wrong-host",),
}
REFUSALS_OF_CHANGES = {413: ("bad-request",), 415: ("not-json",)}
_TEMPLATE = "#/components/schemas/{model}"
_BEARER = "token"

type _Key = tuple[str, JsonSchemaMode]


class OpenApiOperations:
    async def openapi(self, _: asked.Nothing) -> dict[str, Any]:
        return document()


@functools.cache
def document() -> dict[str, Any]:
    """The whole document, as plain data."""
    schemas, components = _schemas()
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgeproxy admin listener",
            "version": __version__,
            "description": "What operators and their tools may see and do.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:8079"}],
        "security": [{_BEARER: []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {_BEARER: {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas() -> tuple[dict[_Key, JsonSchemaValue], dict[str, JsonSchemaValue]]:
    """The schema of what each operation takes and answers, and what these refer to."""
    inputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (route.operation, "validation", TypeAdapter(route.asked))
        for route in ROUTES
        if route.method == "POST"
    ]
    outputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (
            route.operation,
            "serialization",
            TypeAdapter(str if route.answer is Text else route.answer),
        )
        for route in ROUTES
    ]
    error: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        ("error", "serialization", TypeAdapter(answers.Error))
    ]
    schemas, definitions = TypeAdapter.json_schemas(
        [*inputs, *outputs, *error], ref_template=_TEMPLATE
    )
    return schemas, definitions.get("$defs", {})


def _operation(route: Route, schemas: dict[_Key, JsonSchemaValue]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "responses": {
            "200": {
                "description": "It is done." if route.method == "POST" else "What was asked for.",
                "content": _content(schemas[route.operation, "serialization"], _media_types(route)),
            },
            **_refusals(route, schemas["error", "serialization"]),
        },
    }
    if route.method == "GET":
        operation["parameters"] = list(_parameters(route))
    else:
        body = schemas[route.operation, "validation"]
        operation["requestBody"] = {"content": _content(body), "required": False}
    return operation


def _parameters(route: Route) -> Iterator[dict[str, Any]]:
    schema = TypeAdapter(route.asked).json_schema()
    for name, field in schema.get("properties", {}).items():
        is_in_path = f"{{{name}}}" in route.path
        if name in route.asked.headers:
            continue  # OpenAPI leaves Accept to the types of the answer
        yield {
            "name": name,
            "in": "path" if is_in_path else "query",
            "required": is_in_path or name in schema.get("required", ()),
            "description": field.pop("description", ""),
            "schema": field,
        }


def _refusals(route: Route, error: JsonSchemaValue) -> dict[str, Any]:
    everywhere = REFUSALS | (REFUSALS_OF_CHANGES if route.method == "POST" else {})
    codes = {
        status: (*everywhere.get(status, ()), *route.refusals.get(status, ()))
        for status in sorted({*everywhere, *route.refusals})
    }
    return {
        str(status): {
            "description": " or ".join(f"`{c}`" for c in found),
            "content": _content(error),
        }
        for status, found in codes.items()
    }


_JSON = ("application/json",)
_TEXTS = ("text/plain", "application/openmetrics-text")


def _media_types(route: Route) -> tuple[str, ...]:
    return _TEXTS if route.answer is Text else _JSON


def _content(schema: JsonSchemaValue, media_types: tuple[str, ...] = _JSON) -> dict[str, Any]:
    return {media_type: {"schema": schema} for media_type in media_types}
