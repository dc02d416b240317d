"""A large policy decides as a small one does: what is looked at per request hangs on the path."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.load import load
from tests.policy_size import decide, files, visits


@pytest.fixture(params=[10, 3000])
def sized(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Plan, int]:
    files(request.param, tmp_path)
    return compile_plan(load([tmp_path])), request.param


async def test_each_route_is_found_among_a_few_candidates(sized: tuple[Plan, int]) -> None:
    plan, routes = sized
    asked = [(request.host, request.path) for request in visits(routes)]
    assert max(len(plan.routes.candidates(*one)) for one in asked) <= 2  # its own, and the last
    await decide(plan, routes)
