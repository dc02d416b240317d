"""The short form of `make soak-reload`: new policies under load, every third a bad one."""

from __future__ import annotations

from pathlib import Path

from tests.soak.reload import Soak


async def test_no_request_fails_and_no_connection_is_cut_by_reloads(tmp_path: Path) -> None:
    report = await Soak(tmp_path).run(20)
    assert report.failed == []
    assert (report.loaded, report.refused) == (14, 6)
    assert report.requests >= 20 * 8
    assert report.messages > 10
    assert report.uploads >= 5
