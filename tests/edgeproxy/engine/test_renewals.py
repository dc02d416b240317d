"""Certificates that change on disk: taken whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeproxy.engine.renewals import Renewals
from edgeproxy.policy.certificates import ServerNames, load_pair
from tests.certificates import Authority, Pair


class Site:
    """A certificate that is in force, and what looks after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.in_folder(folder, "authority")
        self.files = self.authority.sign(folder, "one", "one.example")
        self.names = ServerNames([load_pair(*map(str, self.files))], "1.2", ["http/1.1"])
        self.changes = 0
        self.renewals = Renewals(lambda: self.names, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def new(self, *names: str) -> Pair:
        return self.authority.sign(self.folder, "new", *names)

    @property
    def shown(self) -> tuple[str, ...]:
        return self.names.certificates[0].names


@pytest.fixture
def site(tmp_path: Path, caplog: Any) -> Site:
    caplog.set_level("INFO")
    return Site(tmp_path)


async def test_nothing_is_done_while_nothing_changes(site: Site, caplog: Any) -> None:
    before = site.names.certificates
    await site.renewals.look()
    assert (site.names.certificates, site.changes, caplog.messages) == (before, 0, [])


async def test_both_files_are_taken_once_both_are_there(site: Site, caplog: Any) -> None:
    new = site.new("one.example", "two.example")
    new.certificate.rename(site.files.certificate)
    for _ in range(3):
        await site.renewals.look()
    assert site.shown == ("one.example",)
    assert len(caplog.messages) == 1  # said once
    assert "stays as it was: the key in" in caplog.text
    new.key.rename(site.files.key)
    await site.renewals.look()
    assert (site.shown, site.changes) == (("one.example", "two.example"), 1)
    assert "the certificate for one.example, two.example was renewed: it ends on" in caplog.text


@pytest.mark.parametrize("damage", ["removed", "emptied", "no PEM"])
async def test_what_cannot_be_used_changes_nothing(site: Site, damage: str, caplog: Any) -> None:
    if damage == "removed":
        site.files.key.unlink()
    else:
        site.files.certificate.write_text("" if damage == "emptied" else "hello")
    await site.renewals.look()
    assert (site.shown, site.changes) == (("one.example",), 0)
    assert "stays as it was" in caplog.text
    site.authority.sign(site.folder, "one", "back.example")
    await site.renewals.look()
    assert site.shown == ("back.example",)


async def test_a_link_that_is_turned_is_noticed(site: Site) -> None:
    """As certbot's are, from `live` into `archive`."""
    for number in (1, 2):
        site.authority.sign(site.folder, f"archive{number}", f"of{number}.example")
    for file in site.files:
        file.unlink()
        file.symlink_to(site.folder / f"archive1{file.suffix}")
    await site.renewals.look()
    assert site.shown == ("of1.example",)
    for file in site.files:
        file.unlink()
        file.symlink_to(site.folder / f"archive2{file.suffix}")
    await site.renewals.look()
    assert site.shown == ("of2.example",)


async def test_one_that_is_bad_keeps_no_other_from_its_renewal(site: Site) -> None:
    other = site.authority.sign(site.folder, "two", "two.example")
    pairs = (site.files, other)
    site.names = ServerNames([load_pair(*map(str, pair)) for pair in pairs], "1.2", ["http/1.1"])
    site.files.certificate.write_text("hello")
    site.authority.sign(site.folder, "two", "new.example")
    await site.renewals.look()
    assert [one.names for one in site.names.certificates] == [("one.example",), ("new.example",)]
