"""What goes wrong: as a plan, by path, and as written on the command line."""

import pytest

from edgeproxy.pages import Fault
from edgeproxy.pages.faults import End, Faults, Pause, Step, compile_pattern, parse_fault, plan

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
BODY = b"0123456789"


@pytest.mark.parametrize(
    ("fault", "steps"),
    [
        (Fault(), [HEAD, BODY]),
        (Fault(delay_s=2), [Pause(2), HEAD, BODY]),
        (Fault(body_delay_s=2), [HEAD, b"01234", Pause(2), b"56789"]),
        (Fault(stall=True), [End.STALL]),
        (Fault(delay_s=1, stall=True), [Pause(1), End.STALL]),
        (Fault(reset=True), [End.RESET]),
        (Fault(reset_after_bytes=4), [HEAD, b"0123", End.RESET]),
        (Fault(reset_after_bytes=0), [HEAD, End.RESET]),
        (Fault(cut_after_bytes=4), [HEAD, b"0123", End.CLOSE]),
        (Fault(cut_after_bytes=99), [HEAD, b"012345678", End.CLOSE]),
        (Fault(cut_after_bytes=7, body_delay_s=1), [HEAD, b"01234", Pause(1), b"56", End.CLOSE]),
        (Fault(cut_after_bytes=3, body_delay_s=1), [HEAD, b"012", Pause(1), End.CLOSE]),
        (Fault(content_length_delta=5), [HEAD, BODY, End.CLOSE]),
        (
            Fault(drip_bytes_per_s=40),
            [HEAD, Pause(0.1), b"0123", Pause(0.1), b"4567", Pause(0.1), b"89"],
        ),
    ],
)
def test_plan(fault: Fault, steps: list[Step]) -> None:
    assert list(plan(fault, HEAD, BODY)) == steps


def test_slow_drip_is_a_byte_at_a_time() -> None:
    steps = list(plan(Fault(drip_bytes_per_s=2), HEAD, b"ab"))
    assert steps == [HEAD, Pause(0.5), b"a", Pause(0.5), b"b"]


def test_plan_of_an_answer_without_a_body() -> None:
    assert list(plan(Fault(cut_after_bytes=4), HEAD, b"")) == [HEAD, End.CLOSE]
    assert list(plan(Fault(body_delay_s=4), HEAD, b"")) == [HEAD, Pause(4)]


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/**", "/", True),
        ("/**", "/a/b", True),
        ("/slow/**", "/slow/", True),
        ("/slow/**", "/slow/a/b.html", True),
        ("/slow/**", "/slow", False),
        ("/*.js", "/a.js", True),
        ("/*.js", "/a/b.js", False),
        ("/**.js", "/a/b.js", True),
        ("/a?c", "/abc", True),
        ("/a?c", "/a/c", False),
        ("/a.c", "/abc", False),
        ("/a[b]", "/a[b]", True),
        ("/a", "/a", True),
        ("/a", "/ab", False),
    ],
)
def test_pattern(pattern: str, path: str, matches: bool) -> None:
    assert bool(compile_pattern(pattern).fullmatch(path)) is matches


def test_fault_acts_on_the_decoded_path() -> None:
    faults = Faults()
    faults.set("/\u00e9t\u00e9 *", Fault(stall=True))
    assert faults.take("/%C3%A9t%C3%A9%20x") == Fault(stall=True)


def test_fault_acts_so_many_times() -> None:
    faults = Faults()
    faults.set("/**", Fault(status=500))
    faults.set("/a", Fault(status=503, times=2))
    taken = [faults.take("/a") for _ in range(4)]
    assert [fault and fault.status for fault in taken] == [503, 503, 500, 500]


def test_fault_set_again_starts_anew_and_cleared_is_gone() -> None:
    faults = Faults()
    faults.set("/a", Fault(status=503, times=1))
    faults.take("/a")
    faults.set("/a", Fault(status=502, times=1))
    fault = faults.take("/a")
    assert fault is not None
    assert fault.status == 502
    faults.set("/a", Fault(status=502))
    faults.clear()
    assert faults.take("/a") is None


@pytest.mark.parametrize(
    ("text", "pattern", "fault"),
    [
        ("/slow/**=delay:2s", "/slow/**", Fault(delay_s=2)),
        ("/a=delay:500ms,times:3", "/a", Fault(delay_s=0.5, times=3)),
        ("/a=delay:1.5m", "/a", Fault(delay_s=90)),
        ("/a=body-delay:1s", "/a", Fault(body_delay_s=1)),
        ("/a=status:429", "/a", Fault(status=429)),
        ("/a=status:503, retry-after:30", "/a", Fault(status=503, retry_after=30)),
        ("/a=drip:1000", "/a", Fault(drip_bytes_per_s=1000)),
        ("/a=cut:100", "/a", Fault(cut_after_bytes=100)),
        ("/a=reset", "/a", Fault(reset=True)),
        ("/a=reset:100", "/a", Fault(reset_after_bytes=100)),
        ("/a=length:+10", "/a", Fault(content_length_delta=10)),
        ("/a=length:-10", "/a", Fault(content_length_delta=-10)),
        ("/a=stall", "/a", Fault(stall=True)),
        ("/a=b=stall", "/a=b", Fault(stall=True)),
    ],
)
def test_fault_is_read(text: str, pattern: str, fault: Fault) -> None:
    assert parse_fault(text) == (pattern, fault)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("/a", "write PATTERN=KIND:VALUE"),
        ("/a=", "write PATTERN=KIND:VALUE"),
        ("a=stall", "must start with '/'"),
        ("=stall", "must start with '/'"),
        ("/a=slow:1s", "unknown kind 'slow'; kinds: status"),
        ("/a=delay", "delay needs a time such as delay:2s or delay:500ms, not ''"),
        ("/a=delay:2", "not '2'"),
        ("/a=delay:-2s", "not '-2s'"),
        ("/a=status:abc", "status needs a whole number such as status:503, not 'abc'"),
        ("/a=status:200", "status 200 is no error; use 400 to 599"),
        ("/a=retry-after:3", "retry_after needs a status"),
        ("/a=retry-after", "retry-after needs seconds"),
        ("/a=stall:1", "stall takes no value"),
        ("/a=times:0", "times is 0; it must be 1 or more"),
        ("/a=drip:0", "drip_bytes_per_s is 0; it must be 1 or more"),
        ("/a=length:0", "length needs a difference"),
        ("/a=cut:-1", "cut needs a whole number"),
        ("/a=reset:", "reset needs a whole number"),
        ("/a=stall,stall", "stall is given twice"),
        ("/a=stall,", "unknown kind ''"),
    ],
)
def test_bad_fault_says_what_to_write(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r"^fault ") as caught:
        parse_fault(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"status": 200},
        {"retry_after": 5},
        {"status": 503, "retry_after": "5\r\nX: y"},
        {"delay_s": -1},
        {"body_delay_s": -1},
        {"drip_bytes_per_s": -1},
        {"drip_bytes_per_s": 0},
        {"cut_after_bytes": -1},
        {"reset_after_bytes": -1},
        {"times": 0},
    ],
)
def test_impossible_fault_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(reversed(fields))):
        Fault(**fields)  # type: ignore[arg-type]
