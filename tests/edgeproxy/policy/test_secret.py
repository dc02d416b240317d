import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from edgeproxy.api import Config, Secret


class Section(Config):
    key: Secret


def test_value_is_read_from_a_variable() -> None:
    context = {"env": {"TOKEN": "s3cret"}}
    section = Section.model_validate({"key": "${env:TOKEN}"}, context=context)
    assert section.key.value == "s3cret"


def test_value_is_read_from_the_environment_outside_a_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    assert Section(key="${env:TOKEN}").key.value == "s3cret"  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_value_is_a_file_without_its_last_line_break(tmp_path: Path, end: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(f"two\nlines{end}".encode())
    assert Secret(f"${{file:{file}}}").value == "two\nlines"


def test_nothing_but_value_shows_it() -> None:
    section = Section.model_validate({"key": "${env:A}"}, context={"env": {"A": "s3cret"}})
    shown = [repr(section), str(section), str(section.key), f"{section.key!r}"]
    shown += [section.model_dump_json(), json.dumps(section.model_dump(mode="json"))]
    assert all("s3cret" not in text and "${env:A}" in text for text in shown)


def test_secrets_are_the_same_if_reference_and_value_are() -> None:
    first = Secret("${env:A}", {"A": "x"})
    assert first == Secret("${env:A}", {"A": "x"})
    assert first != Secret("${env:A}", {"A": "y"})
    assert first != Secret("${env:B}", {"B": "x"})
    assert hash(first) == hash(Secret("${env:A}", {"A": "y"}))


@pytest.mark.parametrize(
    "value", ["hunter2", "", "${env:}", "${env:A} ", "x${env:A}", "${ENV:A}", "${a}", 5, None, []]
)
def test_plain_value_is_refused_without_repeating_it(value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Section.model_validate({"key": value}, context={"env": {"A": "x"}})
    (detail,) = caught.value.errors()
    assert detail["type"] == "secret_as_value"
    assert "hunter2" not in detail["msg"]


def test_secret_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_text("x" * 70_000)
    names = ["none", "empty", "binary", "large", ""]
    references = [f"${{file:{tmp_path / name}}}" for name in names]
    for reference in ["${env:NONE}", "${env:EMPTY}", "${file:\0}", *references]:
        with pytest.raises(ValidationError) as caught:
            Section.model_validate({"key": reference}, context={"env": {"EMPTY": ""}})
        assert caught.value.errors()[0]["type"] == "missing_secret"


def test_editors_see_a_reference() -> None:
    assert Section.model_json_schema()["properties"]["key"]["type"] == "string"
