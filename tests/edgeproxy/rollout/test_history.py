"""The policies that were in force: numbered, bounded, and there again after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.rollout.history import History


def history(folder: Path | None = None, kept: int = 10) -> History:
    made = History()
    made.folder, made.kept = folder, kept
    return made


def add(to: History, version: str, text: str = "version: 1\n") -> None:
    to.add(version, [("site.yaml", text)], "reload", "anna", "because")


def numbers(of: History) -> list[tuple[int, str]]:
    return [(one.number, one.version) for one in of.versions]


def test_versions_are_numbered_and_the_oldest_go() -> None:
    made = history(kept=3)
    for version in "abcde":
        add(made, version)
    assert numbers(made) == [(3, "c"), (4, "d"), (5, "e")]


def test_what_was_in_force_anyhow_is_no_event_but_its_texts_are_those_of_now() -> None:
    made = history()
    add(made, "a", "version: 1\n")
    add(made, "a", "# a comment\nversion: 1\n")
    assert numbers(made) == [(1, "a")]
    assert made.versions[0].sources == (("site.yaml", "# a comment\nversion: 1\n"),)


def test_a_version_is_found_by_its_number_or_as_it_was_last_in_force() -> None:
    made = history()
    for version in ("aaaaaaaaaaaa", "bbbbbbbbbbbb", "aaaaaaaaaaaa"):
        add(made, version)
    assert made.find("1") is made.versions[0]
    assert made.find("aaaaaaaaaaaa") is made.versions[2]
    assert made.find("cccccccccccc") is made.find("4") is made.find("") is None


def test_the_previous_one_is_another_policy() -> None:
    made = history()
    assert made.previous() is None
    add(made, "a")
    assert made.previous() is None
    add(made, "b")
    assert made.previous() is made.versions[0]
    add(made, "a")
    assert made.previous() is made.versions[1]


def test_the_folder_holds_them_across_a_restart_for_this_user_alone(tmp_path: Path) -> None:
    text = "\ufeff# über\r\nversion: 1\n"
    made = history(tmp_path / "state", kept=3)
    for version in "abcd":
        add(made, version, text)
    made.save()
    files = sorted((tmp_path / "state").iterdir())
    assert len(files) == 3
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 3
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    again = history(tmp_path / "state", kept=3)
    again.read()
    assert again.versions == made.versions
    add(again, "e")
    assert numbers(again) == [(3, "c"), (4, "d"), (5, "e")]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"number": 1}', b"\xff", b"[]"], ids=lambda data: repr(data)
)
def test_a_damaged_file_is_set_aside_and_said(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    made = history(tmp_path)
    add(made, "a")
    add(made, "b")
    made.save()
    first = sorted(tmp_path.iterdir())[0]
    first.write_bytes(damage)
    again = history(tmp_path)
    again.read()
    assert numbers(again) == [(2, "b")]
    assert f"{first} is not a kept policy" in caplog.text
    again.save()  # which removes what is kept no more
    assert first.with_suffix(".set-aside").read_bytes() == damage


def test_a_file_of_another_format_is_set_aside(tmp_path: Path) -> None:
    made = history(tmp_path)
    add(made, "a")
    add(made, "b")
    made.save()
    last = sorted(tmp_path.iterdir())[-1]
    text = last.read_text()
    assert '"format":1' in text
    last.write_text(text.replace('"format":1', '"format":2'))
    again = history(tmp_path)
    again.read()
    assert numbers(again) == [(1, "a")]
    assert '"format":2' in last.with_suffix(".set-aside").read_text()


def test_a_file_that_was_being_written_is_no_version(tmp_path: Path) -> None:
    made = history(tmp_path)
    add(made, "a")
    made.save()
    (tmp_path / ".draft-abc").write_bytes(b"{")
    again = history(tmp_path)
    again.read()
    assert numbers(again) == [(1, "a")]


def test_a_folder_that_cannot_be_written_is_said_and_nothing_else_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    made = history(tmp_path / "file" / "state")
    add(made, "a")
    made.save()
    assert "cannot be kept in" in caplog.text
    assert numbers(made) == [(1, "a")]


def test_bytes_and_text_are_kept_alike() -> None:
    made = history()
    made.add("a", [("a.yaml", "ü".encode()), ("b.yaml", "ü")], "start", "me")
    assert made.versions[0].sources == (("a.yaml", "ü"), ("b.yaml", "ü"))
