"""Every operation of the admin listener, asked whatever its OpenAPI document allows, and more.

The document is made of the table of routes that the listener uses; so what is tested here is that
they take and answer what they say.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from edgeproxy.admin.openapi import document
from edgeproxy.admin.routes import ROUTES, Route
from edgeproxy.pages import Pages
from edgeproxy.testing import running

TOKEN = "a-token-that-nobody-guesses"
POLICY = """\
version: 1
admin: {listen: "127.0.0.1:0", token: "${env:EDGEPROXY_TOKEN}"}
origins: {site: {url: "http://127.0.0.1:9/"}}
experiments: {hero: {weights: {plain: 1, bold: 3}}}
explain: {sample: 1, keep: 5}
cache: {memory: {}, rules: {all: {ttl: 10m, tags: [page]}}}
routes: [{name: site, experiment: hero, cache: all}]
"""


def _operations(described: dict[str, Any]) -> dict[str, Any]:
    found = schemathesis.openapi.from_dict(described).get_all_operations()
    return {one.ok().definition.raw["operationId"]: one.ok() for one in found}


OPERATIONS = {
    GenerationMode.POSITIVE: _operations(document()),
    # What must be refused is not made so by leaving out the token, which is then sent all the same.
    GenerationMode.NEGATIVE: _operations({**document(), "security": []}),
}
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
    checks.ignored_auth,
]


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an admin listener that has served a few requests; its loop is another thread's."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("<h1>A page</h1>")
    found: Future[str] = Future()
    level = logging.getLogger("edgeproxy").level
    thread = threading.Thread(target=lambda: asyncio.run(_serve(folder, found, ended)))
    ended = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROXY_TOKEN", TOKEN)
        thread.start()
        yield found.result(30)
        ended.set()
        thread.join(30)
    logging.getLogger("edgeproxy").setLevel(level)


async def _serve(folder: Path, found: Future[str], ended: threading.Event) -> None:
    try:
        async with (
            Pages(folder) as pages,
            running(POLICY, origins={"site": pages.url}) as proxy,
        ):
            for path in ("/", "/", "/missing"):
                await proxy.get(path)
            found.set_result(f"http://{proxy.server.admin.address}")
            await asyncio.to_thread(ended.wait)
    except Exception as error:
        found.set_exception(error)


def test_what_is_there_is_answered_as_it_says(admin: str) -> None:
    """What no generated id or URL finds: before a generated purge drops it."""
    first = _get(admin, "/requests").json()["requests"][0]["id"]
    for name, target in (
        ("request", f"/requests/{first}"),
        ("cache_object", "/cache/object?url=/"),
        ("cache_why", "/cache/why?url=http://127.0.0.1/"),
    ):
        response = _get(admin, target)
        assert response.status_code == 200
        OPERATIONS[GenerationMode.POSITIVE][name].validate_response(response)


def _asks() -> Iterator[tuple[str, GenerationMode]]:
    for route in ROUTES:
        yield route.operation, GenerationMode.POSITIVE
        if route.method == "POST" or _query_of(route):
            yield route.operation, GenerationMode.NEGATIVE


def _query_of(route: Route) -> set[str]:
    """The parameters that may be wrong: every text is a part of a path, or an Accept."""
    in_path = {name for name in route.asked.model_fields if f"{{{name}}}" in route.path}
    return set(route.asked.model_fields) - in_path - route.asked.headers


@pytest.mark.parametrize(("name", "mode"), list(_asks()))
def test_an_operation_takes_and_answers_what_it_says(
    admin: str, name: str, mode: GenerationMode
) -> None:
    @given(case=OPERATIONS[mode][name].as_strategy(generation_mode=mode))
    @settings(
        max_examples=12,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(admin, headers=_open(), checks=CHECKS)

    ask()


def _open() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}


def _get(admin: str, target: str) -> requests.Response:
    return requests.get(admin + target, headers=_open(), timeout=30)


def test_the_document_that_is_served_is_of_the_table(admin: str) -> None:
    served: dict[str, Any] = _get(admin, "/openapi.json").json()
    assert served == document()
    listed = {
        (method.upper(), path, operation["operationId"])
        for path, methods in served["paths"].items()
        for method, operation in methods.items()
    }
    assert listed == {(route.method, route.path, route.operation) for route in ROUTES}
