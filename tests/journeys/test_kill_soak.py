"""The short form of `make soak-kill`: killed under load, nothing damaged and nothing purged comes
back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.kill import Soak


@pytest.mark.timeout(90)
async def test_killed_again_and_again_nothing_damaged_or_purged_is_served(tmp_path: Path) -> None:
    report = await Soak(tmp_path, seed=7).run(10)
    assert report.damaged == []
    assert report.resurrected == []
    assert report.refused == []
    assert report.answers > 300
    assert report.from_disk > 5
    assert report.purges > 20
