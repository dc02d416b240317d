from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.errors import Fault, PolicyError
from edgeproxy.policy.source import MAX_BYTES, MAX_NODES, read, write


def faults(text: str | bytes) -> list[Fault]:
    with pytest.raises(PolicyError) as caught:
        read(text, "policy.yaml")
    return list(caught.value.faults)


def codes(text: str | bytes) -> list[str]:
    return [fault.code for fault in faults(text)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("True", "True"),
        ("NO", "NO"),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("", None),
        ("~", None),
        ("null", None),
        ("nul", "nul"),
        ("12", 12),
        ("-7", -7),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("12:30:45", "12:30:45"),
        ("2026-01-02", "2026-01-02"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".inf", float("inf")),
        ("-.inf", float("-inf")),
        ("1.2.3", "1.2.3"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ('"12"', "12"),
        ("'true'", "true"),
        ("9" * 65, "9" * 65),
    ],
)
def test_scalar_is_read_by_the_core_schema(text: str, value: object) -> None:
    found = read(f"key: {text}\n", "policy.yaml").plain()["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text() -> None:
    assert read("{404: a, true: b, NO: c, 1.5: d}", "x").plain() == {
        "404": "a", "true": "b", "NO": "c", "1.5": "d"
    }  # fmt: skip


def test_places_count_from_one_in_characters() -> None:
    text = "a:\n  é😀: {ü: [1, two words]}   # end\n"
    root = read(text, "p.yaml")
    inner = root.block["a"].node.block["é😀"]
    assert str(inner.key) == "p.yaml:2:3"
    assert inner.key.width == 2
    assert inner.key.text == "  é😀: {ü: [1, two words]}   # end"
    words = inner.node.block["ü"].node.items[1].place
    assert (words.column, words.width) == (15, 9)
    assert (inner.node.place.column, inner.node.place.width) == (7, 19)


def test_place_of_a_block_is_the_key_that_names_it() -> None:
    root = read("a:\n  b:\n    c: 1\n  d:\n  - e: 1\n    f: 2\n", "p.yaml")
    assert str(root.get("a", "b").place) == "p.yaml:2:3"  # type: ignore[union-attr]
    assert str(root.get("a", "d").place) == "p.yaml:4:3"  # type: ignore[union-attr]
    assert str(root.get("a", "d").items[0].place) == "p.yaml:5:5"  # type: ignore[union-attr]


def test_value_over_several_lines_is_shown_by_its_first() -> None:
    place = read("a: >-\n  one\n  two\nb: [1,\n  2]\n", "p").block
    assert (place["a"].node.place.line, place["a"].node.place.width) == (1, 2)
    assert (place["b"].node.place.line, place["b"].node.place.width) == (4, 3)


def test_byte_order_mark_and_windows_lines_are_read() -> None:
    root = read(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", "p")
    assert root.plain() == {"a": 1, "b": 2}
    assert (root.block["b"].key.line, root.block["b"].key.text) == (2, "b: 2")


def test_line_numbers_are_those_of_the_yaml_library() -> None:
    root = read("a: 'x\u2028  y'\nb: 'p\x85  q'\nc: 1\n", "p")
    assert root.block["c"].key.text == "c: 1"


def test_every_fault_is_found_before_the_next_stage() -> None:
    text = "a: &x 1\na: *x\n<<: {b: !t 2}\n"
    found = ["duplicate-key", "yaml-alias", "yaml-alias", "yaml-merge", "yaml-tag"]
    assert sorted(codes(text)) == found


def test_quoted_merge_key_is_a_key() -> None:
    assert read("'<<': 1", "p").plain() == {"<<": 1}


def test_syntax_fault_ends_the_reading_but_keeps_what_was_found() -> None:
    assert codes("a: 1\na: 2\nb: [\n") == ["duplicate-key", "yaml-syntax"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"# " + b"x" * MAX_BYTES, "yaml-too-large"),
        ("a: [" + "1," * MAX_NODES + "]", "yaml-too-large"),
        ("a: " + "[" * 500_000, "yaml-too-large"),
        ("a: " + "{a: " * 200_000, "yaml-too-large"),
        ("- " * 500_000, "yaml-too-large"),
        ("? " * 500_000, "yaml-too-large"),
        ("a: &a [*a, *a]", "yaml-alias"),
        (b"a: \xff\xfe", "yaml-encoding"),
        ("a: 1".encode("utf-16"), "yaml-encoding"),
        ("a: \x00", "yaml-syntax"),
        ("a: \udcff", "yaml-encoding"),
        ("", "bad-type"),
        ("a", "bad-type"),
        ("--- {}\n--- {}", "yaml-documents"),
    ],
    ids=range(14),
)
@pytest.mark.timeout(10)
def test_hostile_file_is_refused(text: str | bytes, code: str) -> None:
    found = faults(text)
    assert found[0].code == code
    assert len(str(PolicyError(found))) < 10_000


def test_long_line_is_not_repeated_under_each_fault() -> None:
    found = faults("{" + "a: 1, " * 30_000 + "}")
    assert len(found) == 29_999
    assert len(str(PolicyError(found))) < 5_000_000


def test_control_characters_stay_off_the_terminal() -> None:
    assert "\x1b" not in str(PolicyError(faults("a: \x1b[31m")))
    assert "\x1b" not in str(PolicyError(faults(b"a: \x1b[31m \xff")))


@given(st.text(max_size=60) | st.binary(max_size=60))
def test_any_text_is_read_or_refused_with_places_inside_it(text: str | bytes) -> None:
    found: tuple[Fault, ...] = ()
    try:
        read(text, "p")
    except PolicyError as error:
        found = error.faults or (Fault("none", "no fault"),)
    for fault in found:
        place = fault.place
        assert place is not None
        assert place.line >= 1
        assert place.column >= 1
        assert place.column - 1 + place.width <= max(1, len(place.text) + 1)


LEAVES = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=20)
DATA = st.recursive(
    LEAVES | st.floats(allow_nan=False) | st.sampled_from(["NO", "1e3", "0o7", "~", "<<", "*a"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=9), DATA, max_size=4))
def test_what_is_written_reads_the_same(data: dict[str, Any]) -> None:
    assert read(write(data), "p").plain() == data


@given(st.text(alphabet="ab:-[]{},'\"#&*!|>%@ \n\t?", max_size=40))
def test_what_is_read_is_what_the_yaml_library_reads(text: str) -> None:
    """Apart from what is refused on purpose."""
    try:
        found = read(text, "p").plain()
    except PolicyError:
        return
    assert _as_text(found) == _as_text(yaml.load(text, Loader=yaml.CBaseLoader))


def _as_text(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _as_text(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_as_text(value) for value in data]
    return "" if data is None else str(data)
