"""How what several workers say becomes one answer."""

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
