"""How what several workers say becomes one answer."""

from typing import Any

from edgeproxy.engine.workers import answers


def test_explained_requests_of_all_are_listed_the_latest_first() -> None:
    found = answers.requests(
        {
            1: {"requests": [{"id": "c", "at": "2026-01-01T00:00:03"}]},
            0: {
                "requests": [
                    {"id": "d", "at": "2026-01-01T00:00:04"},
                    {"id": "a", "at": "2026-01-01T00:00:01"},
                ]
            },
        }
    )
    assert [one["id"] for one in found["requests"]] == ["d", "c", "a"]


def test_visitors_of_a_variant_are_those_of_all_workers() -> None:
    def told(requests: int, assigned: int) -> dict[str, Any]:
        variant = {"name": "bold", "share": 0.5, "requests": requests, "assigned": assigned}
        return {"experiments": [{"name": "hero", "routes": ["home"], "variants": [variant]}]}

    assert answers.experiments({0: told(10, 3), 1: told(5, 4)}) == told(15, 7)
